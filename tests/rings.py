"""The package as its source has it: modules, their rings, and what imports what. For tests and for the docs."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fvlrp"
if not PACKAGE.is_dir():  # the tests alone, beside an installed package
    PACKAGE = Path(find_spec("fvlrp").submodule_search_locations[0])
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)

# Who may import whom: a module sees its own wing and the rings below it, inside functions too. Wings of one ring do not
# see each other. The package itself (its lazy names) belongs to no ring: only the command line reads its version.
RINGS = (
    ("_kernels",),
    ("runtime",),
    ("data",),
    ("show",),
    ("evaluate",),
    ("core",),
    ("fisher", "network"),
    ("rules",),
    ("models",),
    ("cli",),
    ("__main__",),
)
RING = {wing: ring for ring, wings in enumerate(RINGS) for wing in wings}


def imported(nodes, package=("fvlrp",)):
    """Modules of the package that the import statements among `nodes` name ("" for the package itself): a set.

    The nodes are those of a module that lies in `package`, a tuple of names.
    """
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from . import x` may name a module; `from .x import y` may name a module of the package x.
            dotted = [f"{base}.{alias.name}" for alias in node.names] if base.startswith("fvlrp") else []
            dotted = [name if is_module(name) else base for name in dotted]
        else:
            continue
        names |= {name.partition(".")[2] for name in dotted if name == "fvlrp" or name.startswith("fvlrp.")}
    return names


def is_module(dotted):
    return dotted.partition(".")[2] in {*MODULES, "_kernels"}


def path_of(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def syntax(module):
    path = path_of(module)
    return ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")


def package_of(module):
    path = path_of(module).relative_to(PACKAGE)
    return ("fvlrp", *path.parts[:-1])


@cache
def imports_of(module):
    """What `module` imports anywhere, inside functions too."""
    return frozenset(imported(ast.walk(syntax(module)), package_of(module)))
