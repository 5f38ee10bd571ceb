"""One word for every chore: `nox -s tests`, `lint`, `types`, `docs`, `bench`. `nox -l` lists them."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


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
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run(".ci/lint.sh", session.virtualenv.location, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict, and the stub of the extension against what it holds."""
    session.install("-e", ".[test]", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "types"))
    session.run("mypy")
    session.run("python", "-m", "mypy.stubtest", "fvlrp._kernels")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build, tutorials executed; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build", *session.posargs)
    session.run("python", ".ci/links.py", "docs/_build")


@nox.session
def bench(session: nox.Session) -> None:
    """Time every stage; arguments after `--` go to `python -m bench`."""
    session.install(".[demo,onnx]")
    session.run("python", "-m", "bench", *session.posargs)
