"""Sphinx configuration: `nox -s docs`, or .ci/docs.sh. Warnings are errors."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import fvlrp
from fvlrp import cli

HERE = Path(__file__).parent
sys.modules.setdefault("fvlrp.geometry", fvlrp.geometry)  # a public name, whose module is another

project = "fvlrp"
author = copyright = "the fvlrp authors"
version = release = fvlrp.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_block"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples/*.rst", "*.py"]
nitpicky = False

templates_path = ["_templates"]

html_theme = "furo"
html_title = f"fvlrp {release}"
html_theme_options = {"source_edit_link": ""}
pygments_style = "friendly"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name types, shapes and units
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "show_memory": False,
    "min_reported_time": 5,
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": os.environ.get("FVLRP_DOCS_RUN", "1") == "1",
}
suppress_warnings = ["config.cache"]  # the gallery's configuration holds names that are not pickled


def escaped(text):
    """`text` with what reST would read as markup escaped, and `code` as literal text."""
    parts = re.split(r"(`+[^`]*`+)", text)
    parts[::2] = [
        re.sub(r"(?<=\w)_(?!\w)|[|]|(?<![\w*])\*(?=\w)(?!\w[^*]*\*)", r"\\\g<0>", part) for part in parts[::2]
    ]
    parts[1::2] = [re.sub(r"^`([^`]+)`$", r"``\1``", part) for part in parts[1::2]]
    return "".join(parts)


def as_written(_app, _what, _name, _object, _options, lines):
    """Docstrings are written to be read in an editor: |R| is an absolute value, weights_ a name, `ex` code."""
    for i, line in enumerate(lines):
        if not re.match(r"\s*(>>>|\.\.\.)", line):
            head, rest = re.fullmatch(r"([\w, *]+ : |)(.*)", line).groups()  # numpydoc escapes names of parameters
            lines[i] = head + escaped(rest)


def write_cli(_app):
    """cli.md: what each command says of itself."""
    parts = ["# Command line", "`fvlrp COMMAND --help` prints the same."]
    for command in cli.COMMANDS:
        parser = cli.build_parser([command])
        parsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
        parts += [f"## {command}", f"```text\n{parsers[command].format_help().strip()}\n```"]
    (HERE / "cli.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def draw_wings(_app):
    """images/wings.svg, from the source."""
    target = HERE / "images" / "wings.svg"
    subprocess.run([sys.executable, HERE / "draw_wings.py", target], check=True)


def setup(app):
    os.environ["COLUMNS"] = "100"  # the width of help texts
    app.connect("autodoc-process-docstring", as_written, priority=100)  # before numpydoc
    app.connect("builder-inited", write_cli, priority=100)
    app.connect("builder-inited", draw_wings, priority=100)
