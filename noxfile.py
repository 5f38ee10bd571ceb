"""One word for every chore: `nox -s tests`, `lint`, `types`, `docs`, `bench`, `coverage`. `nox -l` lists them."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


def groups(*names: str) -> tuple[str, ...]:
    """What the dependency groups of pyproject.toml install."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *names)


@nox.session
def tests(session: nox.Session) -> None:
    """Build the package here and pass the tests; arguments after `--` go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """The C kernels alone: warnings of both compilers, then under sanitizers."""
    session.run(".ci/kernels.sh", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Everything that can be said of the sources without running them."""
    session.install(*groups("lint"))
    session.run(".ci/lint.sh", session.virtualenv.location, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict, and the stub of the extension against what it holds."""
    session.install("-e", ".[test]", *groups("types"))
    session.run("mypy")
    session.run("python", "-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml", "fvlrp._kernels")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build, tutorials executed; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build", *session.posargs)
    session.run("python", ".ci/links.py", "docs/_build")


@nox.session
def coverage(session: nox.Session) -> None:
    """All tests, and which lines of the package they never run; fewer than 95 percent are an error."""
    session.install("-e", ".[test]", *groups("coverage"))
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def bench(session: nox.Session) -> None:
    """Time two commits in turn: the last tag, or the one after `--`, and HEAD. Ten percent slower is an error."""
    session.install(*groups("bench"))
    last_tag = ("git", "describe", "--tags", "--abbrev=0")
    base = session.posargs or [session.run(*last_tag, external=True, silent=True).strip()]
    session.run("asv", "machine", "--yes", silent=True)
    session.run("asv", "continuous", "--factor", "1.1", "--split", *base, "HEAD")


@nox.session
def peers(session: nox.Session) -> None:
    """Time every stage beside other programs; arguments after `--` go to `python -m bench`. Needs VLFeat's headers."""
    session.install(".[demo,onnx]", "setuptools", "wheel", "cython")
    session.install("--no-build-isolation", "cyvlfeat==0.7.1")
    session.run("python", "-m", "bench", *session.posargs)
