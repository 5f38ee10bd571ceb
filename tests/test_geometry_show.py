"""The drawing of a descriptor shows what the splat and the pooling really cover."""

import numpy as np
import pytest
import reference

from fvlrp import geometry

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
LAYOUT = geometry.Geometry(80, 90, (4, 5, 10), 3)


def drawn(patch):
    """First and last pixel of each axis inside a rectangle."""
    x, y = patch.get_xy()
    return (y + 0.5, y + patch.get_height() - 0.5), (x + 0.5, x + patch.get_width() - 0.5)


def extent(array):
    rows, cols = np.nonzero(array)
    return (rows.min(), rows.max()), (cols.min(), cols.max())


@pytest.mark.parametrize("descriptor", [0, 7, 300, LAYOUT.n // 2, LAYOUT.n - 1])
@pytest.mark.parametrize("place", [(0, 0), (1, 3), (3, 2)])
def test_a_box_covers_the_pixels_that_its_bin_gives_relevance_to(descriptor, place):
    patches = geometry.show(LAYOUT, descriptor).patches
    relevance = np.zeros((LAYOUT.n, 4, 4))
    relevance[(descriptor, *place)] = 1
    pixels = reference.splat_bins(relevance, LAYOUT.frames, 80, 90)[0]
    (top, bottom), (left, right) = drawn(patches[1 + 4 * place[0] + place[1]])
    inside = (max(top, 0), min(bottom, 79)), (max(left, 0), min(right, 89))
    assert extent(pixels) == inside


@pytest.mark.parametrize("bin_size", [4, 5, 10])
def test_the_support_is_the_pixels_that_a_bin_pools(bin_size):
    """Change one pixel of a plane after another: those that change the bin are the support."""
    scale = next(scale for scale in LAYOUT.scales if scale.bin_size == bin_size)
    descriptor = scale.start + scale.cols * (scale.rows // 2) + scale.cols // 2
    support = geometry.show(LAYOUT, descriptor, bin=(2, 1)).patches[-1]
    planes = np.zeros((80, 90, 8))
    seen = np.zeros((80, 90))
    (top, bottom), (left, right) = drawn(support)
    row, col = scale.rows // 2, scale.cols // 2
    for y in range(int(top) - 1, int(bottom) + 2):
        for x in range(int(left) - 1, int(right) + 2):
            planes[y, x, 0] = 1
            bins = reference.pooled_bins(planes, scale)
            seen[y, x] = bins[row, col, 2, 1, 0]
            planes[y, x, 0] = 0
    assert extent(seen) == ((top, bottom), (left, right))


def test_a_photograph_can_be_drawn_behind_the_geometry():
    ax = geometry.show(LAYOUT, 5, np.zeros((80, 90)), ax=matplotlib.pyplot.figure().subplots())
    assert len(ax.images) == 1 and "bin size 4" in ax.get_title()


@pytest.mark.parametrize(("descriptor", "place"), [(-1, (0, 0)), (LAYOUT.n, (0, 0)), (0, (4, 0))])
def test_show_refuses_descriptors_and_bins_that_do_not_exist(descriptor, place):
    with pytest.raises(IndexError, match="must be"):
        geometry.show(LAYOUT, descriptor, bin=place)


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")
