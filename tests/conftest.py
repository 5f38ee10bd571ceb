"""Which package the tests import, and the data that several of them share."""

import importlib.util
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # those that scikit-image carries, without a download


def pytest_configure():
    """Test the package that was built: the sources in place if they were compiled there, else the installed one.

    `python -m pytest` puts the working folder first on the path, where sources that were never compiled hide the
    installed package. Programs that tests start import the same package, whatever folder they run in.
    """
    if not any((ROOT / "fvlrp" / f"_kernels{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
        sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != ROOT]
    spec = importlib.util.find_spec("fvlrp")
    if spec is None:
        raise pytest.UsageError(
            'fvlrp is not installed (pip install ".[test]") nor built in place (python setup.py build_ext --inplace)'
        )
    package = Path(spec.submodule_search_locations[0]).resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONSAFEPATH"] = "1"


# A busy machine is no failure. On CI the parent also fixes the examples.
settings.register_profile("fvlrp", parent=settings.default, deadline=None)
settings.load_profile("fvlrp")


@pytest.fixture(scope="session")
def data():
    """Folder with ``VOCdevkit/VOC2012`` and ``cnn``, the real data that no release contains; FVLRP_DATA names it."""
    folder = os.environ.get("FVLRP_DATA")
    if not folder:
        pytest.skip("FVLRP_DATA is not set: it names the folder that holds VOCdevkit/VOC2012 and cnn")
    path = Path(folder).resolve()
    if not (path / "VOCdevkit" / "VOC2012").is_dir():
        pytest.fail(f"FVLRP_DATA={folder} holds no VOCdevkit/VOC2012; unset it to skip the tests on real data")
    return path


@pytest.fixture(scope="session")
def photographs():
    """Real photographs of four sizes: read-only uint8 (height, width, 3) in RGB, sides of 300 to 640 pixels."""
    samples = pytest.importorskip("skimage.data", reason="scikit-image, which carries the photographs, is missing")
    images = [np.ascontiguousarray(getattr(samples, name)()) for name in PHOTOGRAPHS]
    for image in images:
        image.flags.writeable = False
    return images


@pytest.fixture
def rng():
    """A generator with a fixed seed, new for every test."""
    return np.random.default_rng(20160321)
