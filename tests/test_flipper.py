"""The Fisher vector's shortcut for pixel flipping against the whole photograph computed again."""

import numpy as np
import pytest

from fvlrp import Contrast, FisherVectorClassifier
from fvlrp.data import images
from fvlrp.evaluate import Flipper, pixel_flipping


def scored(model, image, target):
    """f of a target, of the whole image."""
    return model.menu.target(target).score(model.scores(image))


def regions_of(shape, side, count, seed=0):
    """Corners of `count` squares, the image's corners and edges among them; later ones may overlap earlier ones."""
    draw = np.random.default_rng(seed)
    high = shape[0] - side + 1, shape[1] - side + 1
    corners = [(0, 0), (0, high[1] - 1), (high[0] - 1, 0), (high[0] - 1, high[1] - 1), (0, high[1] // 2)]
    return np.array([*corners, *draw.integers(high, size=(count - len(corners), 2))])


def check_walk(model, image, target, side, count, every=1, seed=0):
    """The curve of a walk, and that of whole images computed again, at every few steps."""
    image = images.load(image)
    draw = np.random.default_rng(seed)
    filled = draw.integers(256, size=image.shape, dtype=np.uint8)
    if image.dtype != np.uint8:
        filled = (filled / 255).astype(image.dtype)
    regions = regions_of(image.shape, side, count, seed)
    curve = model.flipper(image, target).walk(filled, regions, side)
    now = image.copy()
    assert curve.shape == (count + 1,) and curve[0] == pytest.approx(scored(model, now, target), abs=1e-6)
    for step, (y, x) in enumerate(regions, 1):
        own = np.s_[y : y + side, x : x + side]
        now[own] = filled[own]
        if step % every == 0 or step < 8:
            assert curve[step] == pytest.approx(scored(model, now, target), abs=1e-6), (step, y, x)
    return curve


@pytest.mark.parametrize("side", [1, 4, 9, 27])
def test_incremental_flipping_scores_equal_full_recomputation(plain, photo, side):
    curve = check_walk(plain, photo, "grass", side, 25)
    assert np.ptp(curve) > 1e-3


@pytest.mark.parametrize("colours", ["grey", "rgb"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_every_kind_of_image_supports_incremental_flipping(plain, photo, kind, colours):
    image = photo if colours == "rgb" else photo[:, :, 1]
    check_walk(plain, image if kind is np.uint8 else (image / 255).astype(np.float32), "brick", 9, 12)


def test_every_classifier_supports_incremental_flipping(centred, multilabel, photo):
    check_walk(centred, photo, "brick", 9, 12)  # two classes, one hyperplane, a mean
    check_walk(centred, photo, Contrast("gravel", "brick"), 9, 12)
    check_walk(multilabel, photo, "gravel", 9, 12)
    check_walk(multilabel, photo, Contrast("gravel", "grass"), 9, 12)


def test_reduced_photographs_support_incremental_flipping(centred, photographs):
    image = photographs[2][:200, :260]  # 200 rows become 64
    for side in (3, 9, 40):
        check_walk(centred, image, "gravel", side, 15)


@pytest.mark.parametrize(
    "options",
    [
        {"window": "gaussian", "angles": "exact"},
        {"quantize": False},
        {"bin_sizes": (3, 8), "step": 4},
        {"bin_sizes": (5,), "step": 1, "magnif": 3.0},
        {"pyramid": ((1, 1),)},
        {"pyramid": ((1, 3), (4, 2)), "contrast_threshold": 0.02},
    ],
)
def test_every_grid_supports_incremental_flipping(textures, photo, options):
    model = FisherVectorClassifier(n_components=5, n_pca=12, random_state=0, **options).fit(*textures(3, seed=4))
    check_walk(model, photo, "grass", 9, 20)


def test_a_crop_gives_exactly_the_descriptors_of_the_whole_image(plain, photo, isa):
    encoding = plain.flipper(photo, "brick")._start.copy()
    now, filled = photo.copy(), np.random.default_rng(1).integers(256, size=photo.shape, dtype=np.uint8)
    for y, x in regions_of(photo.shape, 5, 20):
        own = np.s_[y : y + 5, x : x + 5]
        now[own] = filled[own]
        encoding.change(*images.grey_part(now, own))
        whole = plain._sift().extract(now)
        np.testing.assert_array_equal(encoding._values, whole.values)
        np.testing.assert_array_equal(~encoding._values.any(axis=1), whole.zeroed)


def within_a_rounding(one, other):
    np.testing.assert_allclose(one, other, rtol=2.0**-23, atol=0)
    assert np.mean(one != other) < 0.01


@pytest.mark.parametrize("max_height", [None, 10, 37, 100, 149, 150])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_grey_of_a_part_is_the_same_part_of_grey(max_height, colours, rng):
    for kind in (np.uint8, np.float32):
        pixels = rng.random((150, 211, *colours), dtype=np.float32)
        pixels = (255 * pixels).astype(np.uint8) if kind is np.uint8 else pixels
        before = images.grey(pixels, max_height)
        for _ in range(20):
            y, x = rng.integers((150, 211))
            own = np.s_[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)]
            own = np.s_[y : min(own[0].stop, 150), x : min(own[1].stop, 211)]
            pixels[own] = 0 if pixels[own].any() else 1
            whole = images.grey(pixels, max_height)
            part, window = images.grey_part(pixels, own, max_height)
            same = np.testing.assert_array_equal if whole.shape == pixels.shape[:2] else within_a_rounding
            same(part, whole[window])
            before[window] = whole[window]
            np.testing.assert_array_equal(before, whole)  # nothing else has changed


def test_rounding_errors_do_not_accumulate_over_many_steps(plain, photo):
    check_walk(plain, photo, "grass", 9, 600, every=100)


def test_restoring_the_photograph_restores_the_flippers_sums(plain, photo):
    encoding = plain.flipper(photo, "brick")._start.copy()
    before = encoding.sums.copy()
    filled = np.random.default_rng(1).integers(256, size=photo.shape, dtype=np.uint8)
    for image in (filled, photo):
        for y, x in regions_of(photo.shape, 9, 10):
            own = np.s_[y : y + 9, x : x + 9]
            encoding.change(*images.grey_part(image, own))
        if image is filled:
            assert np.abs(encoding.sums - before).max() > 1
    np.testing.assert_allclose(encoding.sums, before, atol=1e-9)


def test_walks_are_independent_of_each_other(plain, photo):
    walker = plain.flipper(photo, "brick")
    assert isinstance(walker, Flipper)
    filled = np.random.default_rng(2).integers(256, size=photo.shape, dtype=np.uint8)
    first = walker.walk(filled, regions_of(photo.shape, 9, 20), 9)
    other = walker.walk(filled, regions_of(photo.shape, 9, 20, seed=5), 9)
    np.testing.assert_array_equal(walker.walk(filled, regions_of(photo.shape, 9, 20), 9), first)
    np.testing.assert_array_equal(walker.walk(filled, regions_of(photo.shape, 9, 20), 9, every=3), first[::3])
    assert other[0] == first[0] and not np.array_equal(other, first)


def test_pixel_flipping_with_the_shortcut_is_that_of_whole_images(plain, photo):
    trace = plain.trace(photo)
    maps = [ex.heatmap for ex in trace.explain("brick", ["descriptor", "bin"])]
    options = {"order": ("morf", "lerf", "random"), "steps": 8, "draws": 2, "replacement": "blur"}
    quick = pixel_flipping(plain.flipper(photo, "brick"), photo, maps, **options)
    slow = pixel_flipping(lambda some: [scored(plain, one, "brick") for one in some], photo, maps, **options)
    for one, other in zip(quick, slow, strict=True):
        np.testing.assert_array_equal(one.regions, other.regions)
        np.testing.assert_allclose(one.curves, other.curves, atol=1e-6)
    both = pixel_flipping(plain.flipper(photo, "brick"), photo, maps, n_jobs=2, **options)
    for one, other in zip(quick, both, strict=True):
        np.testing.assert_array_equal(one.curves, other.curves)


def test_the_best_class_is_flipped_where_none_is_named(plain, photo):
    filled, regions = np.zeros_like(photo), regions_of(photo.shape, 9, 6)
    best = plain.trace(photo).top
    np.testing.assert_array_equal(
        plain.flipper(photo).walk(filled, regions, 9), plain.flipper(photo, best).walk(filled, regions, 9)
    )


def test_voc20_is_walked_to_a_millionth_on_a_real_photograph(photographs):
    import fvlrp

    check_walk(fvlrp.load("voc20"), photographs[1][:300, :400], "cat", 9, 40, every=10)
