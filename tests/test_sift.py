"""Dense SIFT: parity with VLFeat, the kernels against their NumPy twins, and the gradient depth's conservation."""

import os
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import reference
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_checks

from fvlrp import _kernels
from fvlrp.fisher.encoder import FisherEncoder
from fvlrp.fisher.geometry import Geometry
from fvlrp.fisher.gmm import DiagonalGMM
from fvlrp.fisher.layers import SpatialBins
from fvlrp.fisher.rules import FisherRules
from fvlrp.fisher.sift import DenseSIFT

GOLDEN = Path(__file__).parent / "data" / "sift_vlfeat.npz"
WINDOWS = ("flat", "gaussian")


def texture(height, width, seed=0):
    """Noise over slow waves, with a flat patch in the lower right: float32 in 0..1."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 0.5 + 0.25 * np.sin(x / 3 + y / 7) * np.cos(y / 4) + random.normal(0, 0.05, y.shape)
    image[2 * height // 3 :, 2 * width // 3 :] = 0.5
    return np.clip(image, 0, 1).astype(np.float32)


def twin(grey, sift):
    """Values and contrast of every descriptor, from the equations in NumPy."""
    parts = []
    for scale in sift.geometry(*grey.shape).scales:
        planes = reference.orientation_planes(grey, scale.bin_size / sift.magnif, sift.angles)
        bins = reference.pooled_bins(planes, scale, sift.window, sift.window_size)
        parts.append(reference.descriptors(bins, scale.bin_size, sift.contrast_threshold))
    return (np.concatenate(part) for part in zip(*parts, strict=True))


def pixels_of(sift, grey, relevance, n_jobs=None):
    """The heatmap of relevance (n, 128) of one target, and the relevance of bins without gradient, which it lacks."""
    layer = SpatialBins(sift)
    _, seen = layer.forward(grey, n_jobs=n_jobs)
    (heatmap,), entries = layer.relevance(relevance.reshape(1, -1, 128), seen, FisherRules())
    return heatmap[0], entries["zero_bin"][0]


def assert_descriptors(got, expected, contrast, threshold, atol):
    """Equal, except where the contrast is so close to the threshold that rounding error decides."""
    decided = np.abs(contrast - threshold) > 1e-7
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(got.zeroed[decided], (contrast < threshold)[decided])
    np.testing.assert_allclose(got.values[decided], expected[decided], rtol=0, atol=atol)


# ---- VLFeat ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ("synthetic", "photograph"))
def test_golden_vectors_of_vlfeat(name, window, isa):
    golden = np.load(GOLDEN)
    grey = golden[f"{name}_image"] / np.float32(255)
    got = DenseSIFT(step=6, window=window).extract(grey)
    np.testing.assert_array_equal(got.frames, golden[f"{name}_frames"])
    np.testing.assert_array_equal(got.zeroed, golden[f"{name}_{window}_contrast"] < 0.005)
    off = np.abs(got.values[::2].astype(int) - golden[f"{name}_{window}_quantised"])
    assert off.max() <= 1 and (off > 0).mean() < 1e-3
    floats = DenseSIFT(step=6, window=window, quantize=False).extract(grey)
    np.testing.assert_allclose(floats.values[::40], golden[f"{name}_{window}_floats"], rtol=0, atol=0.05)


def photographs():
    """Greys of real photographs, whole and cut to odd sizes."""
    data = pytest.importorskip("skimage.data")
    luminance = np.array([0.2989, 0.5870, 0.1140])
    astronaut, coffee = ((image / 255 @ luminance).astype(np.float32) for image in (data.astronaut(), data.coffee()))
    yield astronaut[:240, 90:330]
    yield coffee[100:201, 200:277]
    yield coffee[200:264, 100:300]
    root = os.environ.get("FVLRP_DATA")
    image = pytest.importorskip("PIL.Image")
    for path in sorted(Path(root).glob("VOCdevkit/*/JPEGImages/*.jpg"))[:2] if root else ():
        yield (np.asarray(image.open(path).convert("RGB")) / 255 @ luminance).astype(np.float32)[:230, :300]


@pytest.mark.parametrize("window", WINDOWS)
def test_parity_with_vlfeat_on_photographs(window):
    dsift = pytest.importorskip("cyvlfeat.sift.dsift").dsift
    for grey in photographs():
        grey = np.ascontiguousarray(grey)
        got = DenseSIFT(window=window, quantize=False).extract(grey)
        quantised = DenseSIFT(window=window).extract(grey).values
        for scale in got.geometry.scales:
            options = {
                "step": 3,
                "size": scale.bin_size,
                "bounds": [scale.first, scale.first, grey.shape[0] - 1, grey.shape[1] - 1],
                "window_size": 1.5,
                "norm": True,
                "fast": window == "flat",
            }
            smooth = reference.smooth(grey, scale.bin_size / 6).astype(np.float32)
            frames, expected = dsift(smooth, float_descriptors=True, **options)
            np.testing.assert_array_equal(frames[:, :2], got.frames[scale.slice, :2])
            contrast = frames[:, 2]
            decided = np.abs(contrast - 0.005) > 1e-7  # VLFeat's running sums drift by that much
            zeroed = contrast < 0.005
            np.testing.assert_array_equal(got.zeroed[scale.slice][decided], zeroed[decided])
            expected[zeroed] = 0
            np.testing.assert_allclose(got.values[scale.slice][decided], expected[decided], rtol=0, atol=0.05)
            whole = dsift(smooth, float_descriptors=False, **options)[1].astype(int)
            whole[zeroed] = 0
            off = np.abs(quantised[scale.slice][decided] - whole[decided])
            assert off.max() <= 2 and (off > 1).mean() < 1e-4


# ---- the twin in NumPy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("bin_sizes", "step", "shape"),
    [
        ((4, 6, 8, 10), 3, (101, 77)),
        ((4, 6, 8, 10), 4, (64, 200)),
        ((3, 5, 7), 2, (40, 53)),
        ((8,), 20, (70, 130)),
        ((6,), 9, (64, 65)),
        ((1, 2), 1, (13, 17)),
        ((10,), 3, (31, 31)),
    ],
)
def test_descriptors_equal_the_equations(bin_sizes, step, shape, window, isa):
    grey = texture(*shape)
    sift = DenseSIFT(bin_sizes=bin_sizes, step=step, window=window, quantize=False)
    expected, contrast = twin(grey, sift)
    assert_descriptors(sift.extract(grey), expected, contrast, 0.005, atol=0.01)


@pytest.mark.parametrize(
    "options", [{"magnif": 3}, {"window_size": 0.8}, {"contrast_threshold": 0.05}, {"magnif": 900}]
)
@pytest.mark.parametrize("window", WINDOWS)
def test_every_option_reaches_the_kernel(options, window):
    grey = texture(60, 50)
    sift = DenseSIFT(window=window, quantize=False, **options)
    expected, contrast = twin(grey, sift)
    got = sift.extract(grey)
    assert_descriptors(got, expected, contrast, sift.contrast_threshold, atol=0.02)
    assert not np.allclose(got.values, DenseSIFT(window=window, quantize=False).extract(grey).values, atol=1)


def test_exact_angles_differ_from_the_cubic_ones_and_equal_the_equations():
    grey = texture(50, 50)
    sift = DenseSIFT(angles="exact", quantize=False)
    expected, contrast = twin(grey, sift)
    got = sift.extract(grey)
    # A gradient on the border between two orientations may be assigned to either; its weight there is rounding error.
    assert_descriptors(got, expected, contrast, 0.005, atol=0.01)
    assert np.abs(got.values - DenseSIFT(quantize=False).extract(grey).values).max() > 0.5


def test_quantised_values_are_the_truncated_floats(isa):
    grey = texture(90, 80)
    floats = DenseSIFT(quantize=False).extract(grey).values
    np.testing.assert_array_equal(DenseSIFT().extract(grey).values, floats.astype(np.uint8))


@pytest.mark.parametrize("window", WINDOWS)
def test_instruction_sets_agree_within_a_thousandth_of_a_grey_level(window):
    grey, sift, found = texture(80, 90), DenseSIFT(window=window, quantize=False, contrast_threshold=0), []
    before = _kernels.isa()
    for name in _kernels.isas():
        _kernels.select(name)
        found.append(sift.extract(grey).values)
    _kernels.select(before)
    for values in found:
        np.testing.assert_allclose(values, found[0], rtol=0, atol=5e-3)


@pytest.mark.parametrize("window", WINDOWS)
def test_bits_do_not_depend_on_the_cut_into_bands(window, isa):
    grey = texture(75, 66)
    sift = DenseSIFT(window=window, step=2)
    whole = sift.extract(grey)
    for scale in whole.geometry.scales:
        values = np.full((scale.rows, scale.cols, 128), 7, np.uint8)
        zeroed = np.full((scale.rows, scale.cols), 7, np.uint8)
        options = sift._options(scale.bin_size)
        for begin, end in ((0, 1), (1, 2), (2, 9), (9, 9), (9, scale.rows)):
            _kernels.sift(grey, scale, values, zeroed, begin, end, **options)
        np.testing.assert_array_equal(values.reshape(-1, 128), whole.values[scale.slice])
        np.testing.assert_array_equal(zeroed.ravel(), whole.zeroed[scale.slice])


def test_a_band_writes_its_own_rows_alone():
    grey, sift = texture(60, 60), DenseSIFT(bin_sizes=(4,))
    (scale,) = sift.geometry(60, 60).scales
    values, zeroed = np.full((scale.rows, scale.cols, 128), 7, np.uint8), np.full((scale.rows, scale.cols), 7, np.uint8)
    _kernels.sift(grey, scale, values, zeroed, 3, 5, **sift._options(4))
    assert (values[:3] == 7).all() and (values[5:] == 7).all() and (zeroed[5:] == 7).all()
    assert (zeroed[3:5] != 7).all()


@pytest.mark.parametrize("n_jobs", (2, 3, -1))
def test_bits_do_not_depend_on_the_number_of_threads(n_jobs):
    grey = texture(120, 90)
    one, many = DenseSIFT().extract(grey), DenseSIFT(n_jobs=n_jobs).extract(grey)
    np.testing.assert_array_equal(one.values, many.values)
    np.testing.assert_array_equal(one.zeroed, many.zeroed)
    for dtype in (np.float32, np.float64):
        relevance = np.random.default_rng(1).standard_normal((len(one), 128)).astype(dtype)
        (heat, lost), (heat_many, lost_many) = (pixels_of(DenseSIFT(), grey, relevance, n) for n in (None, n_jobs))
        np.testing.assert_array_equal(heat, heat_many)
        assert lost == lost_many


# ---- symmetries ------------------------------------------------------------------------------------------------------


def mirrored(array, axis):
    """A (rows, cols, 4, 4, 8) array of the image flipped along `axis`: frames, bins and orientations permuted."""
    turned = (4 - np.arange(8)) % 8 if axis == 1 else -np.arange(8) % 8
    return np.flip(array, (axis, axis + 2))[..., turned]


@pytest.mark.parametrize("axis", (0, 1))
@pytest.mark.parametrize("window", WINDOWS)
def test_a_mirrored_image_has_mirrored_descriptors_and_pixels(axis, window):
    # 61 = 1 + 3 * 10 + 30: the grid itself is symmetric
    grey = texture(61, 61)
    sift = DenseSIFT(bin_sizes=(10,), window=window, quantize=False, contrast_threshold=0)
    (scale,) = sift.geometry(61, 61).scales
    shape = (scale.rows, scale.cols, 4, 4, 8)
    plain, flipped = (sift.extract(image).values.reshape(shape) for image in (grey, np.flip(grey, axis)))
    np.testing.assert_allclose(flipped, mirrored(plain, axis), rtol=0, atol=0.01)
    # Relevance is proportional to the values, as in an explanation: shares of almost no gradient are rounding error.
    relevance = np.random.default_rng(2).standard_normal(shape) * plain
    heat, _ = pixels_of(sift, grey, relevance)
    other, _ = pixels_of(
        sift, np.ascontiguousarray(np.flip(grey, axis)), np.ascontiguousarray(mirrored(relevance, axis))
    )
    np.testing.assert_allclose(other, np.flip(heat, axis), rtol=0, atol=1e-4 * np.abs(heat).max())


def test_values_are_bins_in_rows_then_columns_then_orientations():
    # One vertical edge: gradient along x only, in the right half of the frame only.
    grey = np.zeros((41, 41), np.float32)
    grey[:, 24:] = 1
    values = DenseSIFT(bin_sizes=(8,), quantize=False).extract(grey).values[0].reshape(4, 4, 8)
    assert values[:, 3, 0].min() > 50 and not values[:, 1].any()
    assert not values[..., 2:7].any()


# ---- relevance to pixels ---------------------------------------------------------------------------------------------


@cache
def traced_back(bin_size, step, shape, window):
    """Grey values, relevance of their bins, and heatmap and loss by the equations; cached for all `isa`."""
    grey = texture(*shape, seed=3)
    sift = DenseSIFT(bin_sizes=(bin_size,), step=step, window=window)
    (scale,) = sift.geometry(*shape).scales
    planes = reference.orientation_planes(grey, bin_size / sift.magnif)
    bins = reference.pooled_bins(planes, scale, window)
    random = np.random.default_rng(4)
    # Proportional to the bins, as in an explanation: R / h of a bin with almost no gradient would be rounding error.
    relevance = random.standard_normal(bins.shape) * np.where(bins > 0, bins, bins.max())
    relevance[random.random(relevance.shape) < 0.7] = 0
    relevance[0, 0], relevance[-1, -1] = bins[0, 0], -2 * bins[-1, -1]  # border descriptors: supports leave the image
    return grey, relevance, *reference.sift_pixels(planes, scale, relevance, window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("bin_size", "step", "shape"),
    [(4, 3, (40, 40)), (6, 3, (40, 40)), (7, 3, (31, 40)), (10, 3, (40, 47)), (4, 9, (40, 33)), (3, 2, (15, 12))],
)
def test_gradient_depth_equals_the_equations_from_the_image_on(bin_size, step, shape, window, isa):
    grey, relevance, expected, expected_lost = traced_back(bin_size, step, shape, window)
    sift = DenseSIFT(bin_sizes=(bin_size,), step=step, window=window)
    heat, lost = pixels_of(sift, grey, relevance)
    np.testing.assert_allclose(heat, expected, rtol=0, atol=5e-6 * np.abs(expected).max())  # planes are float32
    assert lost == pytest.approx(expected_lost, rel=1e-10, abs=1e-10)
    assert abs(heat.sum() + lost - relevance.sum()) < 1e-12 * np.abs(relevance).sum()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_gradient_depth_keeps_the_total_over_all_scales(window, dtype, isa):
    grey = texture(83, 70)
    sift = DenseSIFT(window=window)
    relevance = np.random.default_rng(5).standard_normal((sift.geometry(83, 70).n, 128)).astype(dtype)
    heat, lost = pixels_of(sift, grey, relevance)
    total = relevance.sum(dtype=np.float64)
    # Rounding errors of a million float32 values differ in sign: their total is far more accurate than one value.
    tolerance = 1e-12 if dtype == np.float64 else 1e-8
    assert abs(heat.sum() + lost - total) < tolerance * np.abs(relevance).sum(dtype=np.float64)
    assert lost != 0  # the flat patch holds bins without any gradient


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("step", (3, 4, 9))
def test_float32_relevance_gives_the_heatmap_of_float64_relevance(step, window, isa):
    grey = texture(83, 70)
    sift = DenseSIFT(step=step, window=window)
    relevance = np.random.default_rng(6).standard_normal((sift.geometry(83, 70).n, 128)).astype(np.float32)
    heat, lost = pixels_of(sift, grey, relevance)
    exact, exact_lost = pixels_of(sift, grey, relevance.astype(np.float64))
    assert np.linalg.norm(heat - exact) < 2e-6 * np.linalg.norm(exact)
    assert lost == pytest.approx(exact_lost, rel=1e-5)


@pytest.mark.parametrize("window", WINDOWS)
def test_relevance_of_one_value_stays_in_its_bins_support(window):
    grey = texture(50, 60)
    sift = DenseSIFT(bin_sizes=(6,), window=window)
    (scale,) = sift.geometry(50, 60).scales
    relevance = np.zeros((scale.rows, scale.cols, 4, 4, 8))
    relevance[2, 5, 1, 3, 0] = 1
    heat, lost = pixels_of(sift, grey, relevance)
    rows, cols = np.nonzero(heat)
    y, x = 3 * 2 + 6, 3 * 5 + 18
    assert lost == 0 and np.abs(rows - y).max() <= 5 and np.abs(cols - x).max() <= 5
    assert heat.min() >= 0 and heat.sum() == pytest.approx(1)


def test_relevance_where_there_is_no_gradient_is_reported_not_spread():
    grey = np.full((40, 40), 0.25, np.float32)
    sift = DenseSIFT()
    descriptors = sift.extract(grey)
    assert descriptors.zeroed.all() and not descriptors.values.any()
    heat, lost = pixels_of(sift, grey, np.ones((len(descriptors), 128)))
    assert not heat.any() and lost == len(descriptors) * 128


# ---- contracts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bin_sizes": ()}, ValueError, "bin_sizes must name at least one"),
        ({"bin_sizes": (4, 0)}, ValueError, "bin_sizes must be at least 1"),
        ({"bin_sizes": (4.5,)}, TypeError, "bin_sizes must be whole pixels"),
        ({"bin_sizes": (True,)}, TypeError, "bin_sizes must be whole pixels"),
        ({"step": 10**30}, ValueError, "less than 2"),
        ({"magnif": "6"}, ValueError, "magnif must be a positive number, got '6'"),
        ({"window_size": True}, ValueError, "window_size must be a positive number, got True"),
        ({"contrast_threshold": None}, ValueError, "contrast_threshold must be a finite number >= 0, got None"),
        ({"step": 0}, ValueError, "step must be at least 1"),
        ({"step": 2.5}, TypeError, "step must be whole pixels"),
        ({"magnif": 0}, ValueError, "magnif must be a positive"),
        ({"window": "hann"}, ValueError, "window must be one of 'flat', 'gaussian', got 'hann'"),
        ({"window_size": -1}, ValueError, "window_size must be a positive"),
        ({"contrast_threshold": -0.1}, ValueError, "contrast_threshold must be a finite number >= 0, got -0.1"),
        ({"contrast_threshold": float("nan")}, ValueError, "contrast_threshold must be a finite number >= 0"),
        ({"angles": "fast"}, ValueError, "angles must be one of 'vlfeat', 'exact'"),
    ],
)
def test_parameters_are_checked_when_they_are_used(options, error, words):
    sift = DenseSIFT(**options)
    image = texture(40, 40)
    for use in (
        sift.fit,
        lambda: sift.extract(image),
        lambda: sift.transform([image]),
        lambda: sift.extract_grey(image),
    ):
        with pytest.raises(error, match=words):
            use()


@pytest.mark.parametrize("sizes", [[4, 8], np.array([4, 8]), np.array([4]), 4, np.int8(4)], ids=repr)
def test_bin_sizes_come_as_any_sequence_or_one_number(sizes):
    image, wanted = texture(60, 50), DenseSIFT(bin_sizes=tuple(np.ravel(sizes).tolist()))
    sift = DenseSIFT(bin_sizes=sizes, step=np.int16(4), magnif=np.float32(6))
    got = sift.extract(image)
    np.testing.assert_array_equal(got.values, wanted.set_params(step=4).extract(image).values)
    assert got.geometry == wanted.geometry(60, 50) and {type(size) for size in got.geometry.bin_sizes} == {int}


def test_the_error_for_a_too_small_image_names_the_smallest_size():
    with pytest.raises(ValueError, match=r"21 x 50 pixels is too small.*at least 22 x 22; choose smaller bin_sizes"):
        DenseSIFT().extract(texture(21, 50))
    assert len(DenseSIFT().extract(texture(22, 22))) == 1


@pytest.mark.parametrize(
    ("grey", "words"),
    [
        (np.full((40, 40), 200, np.float32), "divide values on 0..255 by 255"),
        (np.full((40, 40), np.nan, np.float32), "0..1"),
        (np.full((40, 40), -0.5, np.float32), "0..1"),
        (np.empty((0, 40), np.float32), "non-empty"),
        (np.zeros((40, 40, 2), np.float32), "2-D"),
    ],
)
def test_bad_grey_values_are_refused(grey, words):
    with pytest.raises(ValueError, match=words):
        DenseSIFT().extract_grey(grey)


def test_colour_images_become_grey_and_are_not_modified():
    colour = (texture(40, 50)[..., None] * np.array([255, 200, 150])).astype(np.uint8)
    colour.flags.writeable = False
    got = DenseSIFT().extract(colour)
    grey = (colour / 255 @ np.array([0.2989, 0.5870, 0.1140])).astype(np.float32)
    assert np.abs(got.values.astype(int) - DenseSIFT().extract(grey).values).max() <= 1


def test_strided_and_read_only_arrays_give_the_same():
    grey = texture(60, 80)
    views = np.asfortranarray(grey), np.repeat(grey, 2, axis=1)[:, ::2], grey.astype(np.float64)
    grey.flags.writeable = False
    for view in views:
        np.testing.assert_array_equal(DenseSIFT().extract_grey(view).values, DenseSIFT().extract(grey).values)


def test_scales_that_do_not_fit_are_left_out():
    got = DenseSIFT().extract(texture(26, 200))
    assert set(got.frames[:, 2]) == {4, 6}
    heat, lost = pixels_of(DenseSIFT(), texture(26, 200), np.ones((len(got), 128), np.float32))
    assert heat.shape == (26, 200) and heat.sum() + lost == pytest.approx(len(got) * 128, rel=1e-7)


def test_descriptors_know_their_frames():
    got = DenseSIFT().extract(texture(60, 45))
    assert got.geometry == Geometry(60, 45) and got.frames.shape == (len(got), 3)
    assert got.zeroed.dtype == bool and got.values.dtype == np.uint8


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    (
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_cloneable,
    ),
    ids=lambda check: check.__name__,
)
def test_an_extractor_passes_scikit_learns_checks_of_parameters(check):
    """The other checks pass a matrix; this estimator takes images."""
    check("DenseSIFT", DenseSIFT())


def test_an_extractor_is_cloned_pickled_and_changed_like_any_estimator():
    sizes = [4, np.int64(8)]
    sift, image = DenseSIFT(bin_sizes=sizes, window="gaussian"), texture(60, 50)
    for other in (clone(sift), pickle.loads(pickle.dumps(sift)), DenseSIFT(**sift.get_params())):
        assert other.get_params() == sift.get_params()
        np.testing.assert_array_equal(other.extract(image).values, sift.extract(image).values)
    coarse = clone(sift).set_params(step=9)
    assert len(coarse.extract(image)) == DenseSIFT((4, 8), 9).geometry(60, 50).n < len(sift.extract(image))
    with pytest.raises(ValueError, match="Invalid parameter 'steps'"):
        sift.set_params(steps=9)


def test_an_extractor_transforms_images_of_any_size_to_lists_of_values():
    images = [texture(40, 50), (255 * texture(33, 60)).astype(np.uint8)]
    for n_jobs in (1, 2):
        sift = DenseSIFT(step=5, n_jobs=n_jobs)
        lists = sift.fit(images).transform(images)
        for values, image in zip(lists, images, strict=True):
            np.testing.assert_array_equal(values, sift.extract(image).values)
    with pytest.raises(ValueError, match=r"images\[1\]: image of 9 x 9 pixels is too small"):
        sift.transform([images[0], texture(9, 9)])
    with pytest.raises(ValueError, match=r"one array of shape \(40, 50\): \[image\]\?"):
        sift.transform(images[0])


def test_fisher_vectors_in_a_pipeline():
    """SIFT, a mixture that the encoder learns, and a grid over a parameter of the extractor."""
    images = [texture(40, 50)[:, :: 1 if i % 2 else -1] * (0.5 + i / 20) for i in range(8)]
    pipeline = make_pipeline(
        DenseSIFT(step=9), FisherEncoder(DiagonalGMM(2, random_state=0)), Normalizer(), LinearSVC()
    )
    grid = GridSearchCV(pipeline, {"densesift__step": [9, 12], "densesift__bin_sizes": [(4, 6), (6,)]}, cv=2)
    grid.fit(images, [0, 1] * 4)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all() and len(grid.cv_results_["params"]) == 4
    assert (
        grid.best_estimator_[0].get_params().items()
        >= {name.removeprefix("densesift__"): value for name, value in grid.best_params_.items()}.items()
    )
    values = np.concatenate(pipeline[0].transform(images)).astype(np.float32)
    vectors = pipeline[:2].fit_transform(images)
    np.testing.assert_array_equal(
        vectors, FisherEncoder(DiagonalGMM(2, random_state=0).fit(values)).transform(pipeline[0].transform(images))
    )
