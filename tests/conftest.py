"""Which package the tests import, and the data that several of them share."""

import importlib.util
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

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
    sys.path.append(str(ROOT))  # last: bench/ is found, the sources of the package are not
    os.environ["PYTHONPATH"] = os.pathsep.join([str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONSAFEPATH"] = "1"


# A busy machine is no failure. On CI the parent also fixes the examples.
settings.register_profile("fvlrp", parent=settings.default, deadline=None)
settings.load_profile("fvlrp")


@pytest.fixture(scope="module")
def one_blas_thread():
    """For modules whose references are small products: more threads would mostly wait for each other."""
    with threadpool_limits(1):
        yield


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


def pytest_generate_tests(metafunc):
    """Tests that ask for `isa` run on every instruction set of this machine, or on the one that FVLRP_ISA selects.

    They have the mark `isa`: a run for one instruction set can leave them out (`-m "not isa"`) if another has them all.
    """
    if "isa" in metafunc.fixturenames:
        from fvlrp import _kernels

        one = os.environ.get("FVLRP_ISA")
        chosen = [pytest.param(name, marks=pytest.mark.isa) for name in ([one] if one else _kernels.isas())]
        metafunc.parametrize("isa", chosen, indirect=True)


@pytest.fixture
def isa(request):
    """The instruction set in use. Models are packed for it: make them after this fixture."""
    from fvlrp import _kernels

    before = _kernels.isa()
    _kernels.select(request.param)
    yield request.param
    _kernels.select(before)


# ---- small classifiers, trained once for all tests: no test may change them ----

TEXTURES = ("brick", "grass", "gravel")


@pytest.fixture(scope="session")
def textures():
    """Makes `count` pieces of each of three photographed surfaces: images uint8 (60, 76), labels."""
    samples = pytest.importorskip("skimage.data", reason="scikit-image, which carries the photographs, is missing")
    surfaces = {name: getattr(samples, name)() for name in TEXTURES}

    def make(count, seed, names=TEXTURES, shape=(60, 76)):
        draw = np.random.default_rng(seed)
        images, labels = [], []
        for name in names:
            surface = surfaces[name]
            for _ in range(count):
                y, x = (draw.integers(0, long - short) for long, short in zip(surface.shape, shape, strict=True))
                images.append(surface[y : y + shape[0], x : x + shape[1]])
                labels.append(name)
        return images, labels

    return make


@pytest.fixture(scope="session")
def plain(textures):
    """Three classes; the projection has no mean."""
    from fvlrp import FisherVectorClassifier

    return FisherVectorClassifier(n_components=16, n_pca=24, random_state=0).fit(*textures(6, seed=1))


@pytest.fixture(scope="session")
def centred(textures):
    """Two classes, "brick" and "gravel"; the projection subtracts a mean; photographs are reduced to 64 rows."""
    from fvlrp import FisherVectorClassifier

    model = FisherVectorClassifier(n_components=16, n_pca=24, center=True, max_height=64, random_state=0)
    return model.fit(*textures(6, seed=2, names=("brick", "gravel")))


@pytest.fixture(scope="session")
def improved(textures):
    """Three classes; the Fisher vector is normalised as in the paper."""
    from fvlrp import FisherVectorClassifier

    model = FisherVectorClassifier(n_components=16, n_pca=24, normalisation="improved", random_state=0)
    return model.fit(*textures(6, seed=1))


@pytest.fixture(scope="session")
def multilabel(textures):
    """Three labels an image may have in any number, some of them not told (0); K and D that are no whole vectors."""
    from fvlrp import FisherVectorClassifier

    images, labels = textures(6, seed=3)
    signs = np.where(np.array(labels)[:, None] == TEXTURES, 1, -1)
    signs[::5, 1] = 0
    return FisherVectorClassifier(n_components=7, n_pca=13, random_state=0).fit(images, signs, class_names=TEXTURES)


@pytest.fixture(scope="session")
def photo():
    """A piece of a photograph, with a smooth part where descriptors are zeroed: uint8 (50, 55, 3)."""
    samples = pytest.importorskip("skimage.data", reason="scikit-image, which carries the photographs, is missing")
    return samples.coffee()[:50, 80:135]
