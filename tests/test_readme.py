"""README.md does what it says: its Python runs as printed, its commands and files exist."""

import re
from pathlib import Path

import pytest

from fvlrp import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_python_of_the_readme_runs(code, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["ex"].ledger.closes()
    assert {"person.png"} <= {path.name for path in tmp_path.iterdir()}
    assert [(ex.target, ex.depth) for ex in names["several"]] == [
        (target, depth) for target in ("person", "dog") for depth in ("descriptor", "bin", "gradient")
    ]


def test_there_are_two_set_up_commands():
    assert len(re.findall(r"^    python3 -m venv .*", README, re.MULTILINE)) == 2


@pytest.mark.parametrize("line", re.findall(r"^    fvlrp (.*)", README, re.MULTILINE))
def test_the_command_lines_of_the_readme_parse(line):
    args = line.split("#")[0].split()
    assert cli.build_parser(args).parse_args(args).run


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_to_files(target):
    assert (ROOT / target).is_file()
