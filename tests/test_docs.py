"""The documentation keeps its word: code on its pages runs, what it names exists, every public name has its place."""

import doctest
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fvlrp
from fvlrp import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# A fence of Python is run, page by page, unless the line before it says why not.
FENCE = re.compile(r"(<!-- not run: [^>]+ -->\n)?```python\n(.*?)```", re.DOTALL)
MODULES = {"fvlrp": fvlrp, "fvlrp.rules": fvlrp.rules, "fvlrp.evaluate": fvlrp.evaluate}
ALIASES = {"fvlrp.ConvNet", "fvlrp.rules.ConvRules"}  # earlier names
GEOMETRY = {"fvlrp.geometry.Geometry", "fvlrp.geometry.show"}
PUBLIC = sorted(
    f"{module}.{name}"
    for module, holder in MODULES.items()
    for name in holder.__all__
    if inspect.isclass(getattr(holder, name)) or inspect.isfunction(getattr(holder, name))
)
PUBLIC = [*(name for name in PUBLIC if name not in ALIASES), *sorted(GEOMETRY)]


def code_of(page):
    return [code for why, code in FENCE.findall((DOCS / page).read_text(encoding="utf-8")) if not why]


def public(name):
    module, _, last = name.rpartition(".")
    return getattr(fvlrp.geometry if module == "fvlrp.geometry" else MODULES[module], last)


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    if any("matplotlib" in code for code in code_of(page)):
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in code_of(page):
        exec(compile(code, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_of_a_page_parse(page):
    for line in re.findall(r"^    fvlrp (.*)", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE):
        args = shlex.split(line, comments=True)
        assert cli.build_parser(args).parse_args(args).run


def test_every_function_and_test_that_the_science_names_exists():
    import reference

    text = (DOCS / "science.md").read_text(encoding="utf-8")
    header = (ROOT / "csrc" / "fvlrp.h").read_text(encoding="utf-8")
    for name in re.findall(r"`(fvlrp_\w+)`", text):
        assert re.search(rf"\b{name}\(", header), name
    for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", text):
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{name}"
    for name in re.findall(r"`([a-z_]+)`", text):
        assert hasattr(reference, name) or name.startswith("fvlrp_"), name


def test_every_public_name_is_in_the_reference():
    listed = set()
    for part in (DOCS / "api" / "index.rst").read_text(encoding="utf-8").split(".. currentmodule:: ")[1:]:
        module, _, rest = part.partition("\n")
        listed |= {f"{module.strip()}.{name}" for name in re.findall(r"^   ([A-Za-z_][\w.]*)$", rest, re.MULTILINE)}
    assert listed == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestFinder(recurse=False).find(public(name), name, globs={"fvlrp": fvlrp, "np": np})
    assert examples and examples[0].examples, f"the docstring of {name} has no example (>>>)"
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(examples[0])
    assert result.failed == 0


def test_one_version_everywhere():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    assert re.search(r"^version: (.+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1) == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_table_of_extras_is_that_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = dict(re.findall(r"^\| `(\w+)` \| ([\w-]+) \|", (ROOT / "docs/install.md").read_text(), re.M))
    brought = {name: [re.match(r"[\w-]+", package)[0] for package in packages] for name, packages in extras.items()}
    assert {name: [package] for name, package in told.items()} == {
        name: packages for name, packages in brought.items() if name not in ("test", "browser", "docs")
    }


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_what_workflows_ask_scripts_for_is_what_they_offer(workflow):
    scripts = "".join(path.read_text() for path in (ROOT / ".ci").glob("*.sh"))
    text = workflow.read_text()
    asked = set(re.findall(r"^ +([A-Z]{2,}): |[{,] ([A-Z]{2,}): ", text, re.M))
    for option in {first or second for first, second in asked} - {"PIP"}:
        assert re.search(rf"\$\{{?{option}\b", scripts), option
    for script in re.findall(r"run: (\.ci/\w+\.sh)", text):
        assert (ROOT / script).is_file()


def test_the_command_of_the_guide_runs(tmp_path, capsys):
    from argparse import ArgumentParser, Namespace

    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = next(code for _, code in FENCE.findall(guide) if "fvlrp count" in code)
    names = {"__name__": "fvlrp.cli.count", "__package__": "fvlrp.cli"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    parser = ArgumentParser()
    names["add_options"](parser)
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.fromarray(np.zeros((375, 500), np.uint8)).save(path)
    assert names["run"](Namespace(**vars(parser.parse_args([str(path)])), json=False)) == 0
    assert "73866 descriptors" in capsys.readouterr().out


def test_the_layer_of_the_guide_keeps_the_protocol():
    from dataclasses import dataclass
    from typing import ClassVar

    from fvlrp.core.layer import Array
    from fvlrp.network.layers import Unchanged
    from fvlrp.network.rules import Choice
    from fvlrp.rules import Epsilon

    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = next(code for _, code in FENCE.findall(guide) if "class Atan" in code)
    names = {"dataclass": dataclass, "ClassVar": ClassVar, "Array": Array, "Unchanged": Unchanged, "np": np}
    code = "from __future__ import annotations\n" + code  # as every module of layers begins
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    layer, x = names["Atan"](), np.linspace(-2, 2, 12).reshape(1, 3, 4)
    y, saved = layer.forward(x)
    np.testing.assert_allclose(y, np.arctan(x))
    np.testing.assert_array_equal(layer.relevance(y, saved, Choice(Epsilon(0.1))).inputs[0], y)
