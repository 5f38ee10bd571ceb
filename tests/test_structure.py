"""The rings of the package: who imports whom, what stays unloaded, what the kernels must not contain."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rings import MODULES, PACKAGE, RING, imported, imports_of, package_of, syntax

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
MODELS = sorted(path.stem for path in (PACKAGE / "pretrained").glob("*.fvlrp"))
C_FILES = sorted(str(path.relative_to(CSRC)) for path in CSRC.rglob("*.[ch]"))

# scikit-learn's estimators: loaded by fit, never by loading a model or explaining with one.
HEAVY = ("sklearn.svm", "sklearn.cluster", "sklearn.decomposition", "sklearn.mixture", "sklearn.linear_model")


def reached(module, imports):
    """What `module` imports in the end, where `imports(module)` is what one does by itself."""
    seen, waiting = set(), set(imports(module))
    while waiting:
        name = waiting.pop()
        if name and name not in seen:
            seen.add(name)
            waiting |= imports(name)
    return seen


def loaded_with(module):
    """What importing `module` loads in the end: imports inside functions do not count."""
    return reached(module, lambda name: imported(syntax(name).body, package_of(name)))


def without_comments_and_strings(source):
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', " ", source, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import fvlrp.models", {"models"}),
        ("import fvlrp", {""}),
        ("from .. import rules, __version__", {"rules", ""}),
        ("from ..core import ledger", {"core.ledger"}),
        ("from ..core.ledger import Ledger", {"core.ledger"}),
        ("from .geometry import BINS", {"fisher.geometry"}),
        ("from fvlrp.core.ledger import Ledger", {"core.ledger"}),
        ("def f():\n    from .._kernels import sift", {"_kernels"}),
        ("import numpy\nfrom fvlrpx import y", set()),
    ],
)
def test_imports_are_recognised_in_all_their_forms(source, names):
    assert imported(ast.walk(ast.parse(source)), ("fvlrp", "fisher")) == names


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_their_own_wing_and_inner_rings_only(module):
    wing = module.split(".")[0]
    for name in imports_of(module) - ({""} if wing == "cli" else set()):
        other = name.split(".")[0]
        assert other == wing or RING[other] < RING[wing], f"{module} must not import {name or 'fvlrp'}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_have_no_cycle(module):
    """Inside functions neither: a late import makes a circle load, it does not untie it."""
    assert module not in reached(module, imports_of)


def test_the_binding_imports_no_module_of_the_package():
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.pyx"))
    assert set(re.findall(r'extern from "([^"]+)"', source)) <= {"fvlrp.h"}
    assert not re.search(r"^\s*(from\s+(\.|fvlrp)|import\s+fvlrp|cimport\s+numpy)", source, re.MULTILINE)


def modules_after(code, folder):
    """Names in sys.modules when a new interpreter has run `code`."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def test_public_names_are_listed_once():
    import fvlrp

    assert fvlrp.evaluate and fvlrp.rules  # loaded, they are globals, too
    assert len(set(dir(fvlrp))) == len(dir(fvlrp)) and set(fvlrp.__all__) <= set(dir(fvlrp))


def test_type_checkers_see_the_names_that_are_there_at_run_time():
    import fvlrp

    source = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = next(node for node in source.body if isinstance(node, ast.If))
    places = {
        alias.asname: ".".join(filter(None, [node.module, alias.name]))
        for node in seen.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert places == fvlrp._MODULES | {name: f"{home}.{name}" for name, home in fvlrp._HOMES.items()}


def test_importing_loads_no_estimator_of_scikit_learn(tmp_path):
    modules = [f"fvlrp.{name}" for name in MODULES if name != "__main__"]
    loaded = modules_after(
        f"import importlib, sys\nfor name in {modules}:\n"
        f"    importlib.import_module(name)\n"
        f"    assert sys.modules.keys().isdisjoint({HEAVY}), name",
        tmp_path,
    )
    assert loaded >= set(modules)


@pytest.mark.parametrize("model", MODELS)
def test_loading_and_explaining_load_no_estimator_of_scikit_learn(model, tmp_path):
    loaded = modules_after(
        "import fvlrp, numpy as np, sys\n"
        f"clf = fvlrp.load({model!r})\n"
        "image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)\n"
        "assert clf.explain(image, target=clf.classes_[0]).heatmap.shape == (48, 64)",
        tmp_path,
    )
    slow = {name.partition(".")[0] for name in loaded} & {"sklearn", "scipy", "joblib", "importlib.metadata"}
    assert not slow, "their imports take longer than the explanation"


@pytest.mark.parametrize("name", C_FILES)
def test_kernels_neither_print_nor_stop_the_process_nor_know_python(name):
    code = without_comments_and_strings((CSRC / name).read_text(encoding="utf-8"))
    assert re.findall(r"\b(?:\w*printf|put[cs]|putchar|perror|abort|exit|_exit|assert|raise|signal)\s*\(", code) == []
    includes = re.findall(r"#\s*include\s*(\S+)", (CSRC / name).read_text(encoding="utf-8"))
    assert not {"<Python.h>", '"Python.h"', "<stdio.h>", "<assert.h>", "<omp.h>", "<pthread.h>"} & set(includes)


def changeable(code):
    """Declarations of variables with static storage that can change: a list of their texts."""
    found = []
    for match in re.finditer(r"\b(?:static|_Thread_local|thread_local)\b[^;={()]*[;={(]", code):
        declaration = " ".join(match.group().split())
        pointer = declaration.rfind("*")
        constant = "const" in declaration[pointer + 1 :] if pointer >= 0 else "const" in declaration
        if declaration.endswith("(") or constant:
            continue
        found.append(declaration)
    return found


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("static int calls;", 1),
        ("static const char *name = 0;", 1),
        ("static float cache[4] = {0};", 1),
        ("static const char *const name = 0;", 0),
        ("static const double table[] = {1};", 0),
        ("static const struct { int a; } pairs[] = {1};", 0),
        ("static inline int f(int a) { return a; }", 0),
        ("static void *g(size_t n);", 0),
    ],
)
def test_mutable_module_state_is_recognised(code, count):
    assert len(changeable(code)) == count


@pytest.mark.parametrize("name", [name for name in C_FILES if name != "dispatch.c"])
def test_kernels_hold_no_state(name):
    assert changeable(without_comments_and_strings((CSRC / name).read_text(encoding="utf-8"))) == []


def test_dispatch_holds_the_choice_of_a_build_only():
    code = without_comments_and_strings((CSRC / "dispatch.c").read_text(encoding="utf-8"))
    assert changeable(code) == ["static const struct build *selected;"]
