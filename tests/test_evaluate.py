"""Measures against plain re-implementations of their definitions and against hand-made examples."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score

from fvlrp.evaluate import average_precision, bootstrap, context, pixel_flipping, pointing_game, relevance_mass

# Average precision


def plain_average_precision(labels, scores, method):
    """The devkit's loops, one threshold after the other."""
    order = sorted((i for i in range(len(labels)) if labels[i] != 0), key=lambda i: (-scores[i], i))
    positives = sum(labels[i] == 1 for i in order)
    if positives == 0:
        return float("nan")
    recall, precision, hits = [], [], 0
    for rank, i in enumerate(order, 1):
        hits += labels[i] == 1
        recall.append(hits / positives)
        precision.append(hits / rank)
    if method == "11point":
        best = [
            max((p for r, p in zip(recall, precision, strict=True) if r >= t / 10 - 1e-12), default=0)
            for t in range(11)
        ]
        return sum(best) / 11
    mrec, mpre = [0, *recall, 1], [0, *precision, 0]
    for i in reversed(range(len(mpre) - 1)):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i + 1] - mrec[i]) * mpre[i + 1] for i in range(len(mrec) - 1))


ranked = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(-3, 3)), min_size=1, max_size=40)


@pytest.mark.parametrize("method", ["11point", "area"])
@settings(max_examples=100, deadline=None)
@given(ranked)
def test_average_precision_is_the_devkits(method, rows):
    labels, scores = map(list, zip((-1, -9), *rows, strict=True))  # a clear -1, so that 0 means ignored
    found = average_precision(labels, scores, method)
    np.testing.assert_allclose(found, plain_average_precision(labels, scores, method), rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    ("labels", "eleven", "area"),
    [
        ([1, 1, -1, -1], 1, 1),
        ([-1, 1], 1 / 2, 1 / 2),
        ([1, -1, 1, -1], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 2 * 2 / 3),
        # The dip at rank 2 and 3 is filled by the 3 of 5 behind it.
        ([1, -1, -1, 1, 1], (4 + 7 * 3 / 5) / 11, 1 / 3 + 2 / 3 * 3 / 5),
        ([1, 0, 0, -1, 1, -1], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 2 * 2 / 3),
    ],
)
def test_hand_made_rankings(labels, eleven, area):
    scores = -np.arange(len(labels))
    assert average_precision(labels, scores) == pytest.approx(eleven, rel=1e-14)
    assert average_precision(labels, scores, "area") == pytest.approx(area, rel=1e-14)


def test_a_recall_of_exactly_three_tenths_counts_at_three_tenths():
    # 3 of 10 positives first, then a negative: 3 / 10 < 3 · .1 in floats, and the precision there must still be 1.
    labels = [1] * 3 + [-1] * 10 + [1] * 7
    tail = 10 / 20
    assert average_precision(labels, -np.arange(20)) == pytest.approx((4 + 7 * tail) / 11, rel=1e-14)


def test_area_is_scikit_learns_where_precision_only_falls():
    labels = np.array([1, 1, 1, -1, 1, -1, -1, 1, -1, -1, -1])
    scores = -np.arange(11.0)
    assert average_precision(labels, scores, "area") == pytest.approx(
        average_precision_score(labels == 1, scores), rel=1e-14
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, scores = rng.choice([-1, 1], size=30), rng.normal(size=30)
        assert average_precision(labels, scores, "area") >= average_precision_score(labels == 1, scores) - 1e-14


def test_zero_means_absent_where_no_minus_one_occurs():
    signs = np.array([[1, -1], [-1, 1], [-1, -1], [1, 1]])
    scores = np.random.default_rng(1).normal(size=(4, 2))
    expected = average_precision(signs, scores)
    np.testing.assert_array_equal(average_precision((signs + 1) // 2, scores), expected)
    np.testing.assert_array_equal(average_precision(signs == 1, scores), expected)


def test_zero_stays_ignored_in_a_class_that_lacks_a_minus_one():
    labels = np.array([[0, -1], [1, 1], [0, -1]])
    scores = -np.arange(3.0)[:, None] + np.zeros((3, 2))
    np.testing.assert_allclose(average_precision(labels, scores), [1, 0.5])


@pytest.mark.parametrize("method", ["11point", "area"])
def test_a_class_without_positives_is_nan_and_the_others_are_not(method):
    labels = np.array([[1, -1, 0], [-1, -1, 0]])
    np.testing.assert_array_equal(average_precision(labels, np.zeros((2, 3)), method), [1, np.nan, np.nan])


def test_equal_scores_keep_the_order_of_rows():
    labels = np.array([1] * 20 + [-1] * 20)
    assert average_precision(labels, np.zeros(40), "area") == 1
    assert average_precision(labels[::-1], np.zeros(40), "area") == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "method", "words"),
    [
        ([1, -1], [0.0], "area", r"\(2,\) and scores \(1,\)"),
        ([[[1]]], [[[1]]], "area", "must both be"),
        ([1, 2], [0, 0], "area", "labels hold"),
        ([1, -1], [0, np.nan], "area", "1 scores are NaN"),
        ([1, -1], [0, 1], "voc", "method is 'voc'"),
    ],
)
def test_bad_rankings_are_refused(labels, scores, method, words):
    with pytest.raises(ValueError, match=words):
        average_precision(labels, scores, method)


# Heatmaps and boxes


def test_context_is_the_ratio_of_means_of_positive_relevance():
    heatmap = np.array([[4, 2, -9], [0, 1, 1.0]])
    # Inside (one row, two columns): mean 3; outside: -9 counts as 0, so (0 + 0 + 1 + 1) / 4.
    assert context(heatmap, [[0, 0, 1, 2]]) == pytest.approx(0.5 / 3)
    assert context(heatmap, [[0, 0, 1, 1], [0, 0, 1, 2], [-5, 1, 1, 2]]) == pytest.approx(0.5 / 3)
    assert relevance_mass(heatmap, [[0, 0, 1, 2]]) == pytest.approx(6 / 8)
    assert context(np.ones((5, 6)), [[1, 1, 3, 4]]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("heatmap", "boxes"),
    [
        (np.ones((3, 3)), np.empty((0, 4))),
        (np.ones((3, 3)), [[0, 0, 3, 3]]),
        (np.ones((3, 3)), [[5, 5, 9, 9]]),
        (np.zeros((3, 3)), [[0, 0, 1, 1]]),
        (-np.ones((3, 3)), [[0, 0, 1, 1]]),
    ],
)
def test_an_undefined_context_is_nan(heatmap, boxes):
    assert np.isnan(context(heatmap, boxes))


def test_an_undefined_mass_is_nan_and_a_whole_box_holds_all():
    assert np.isnan(relevance_mass(np.zeros((3, 3)), [[0, 0, 1, 1]]))
    assert np.isnan(relevance_mass(np.ones((3, 3)), []))
    assert relevance_mass(np.ones((3, 3)), [[0, 0, 3, 3]]) == 1


@pytest.mark.parametrize("tolerance", [0, 3.5, 15])
def test_pointing_is_the_distance_to_the_nearest_box_pixel(tolerance):
    boxes = np.array([[5, 30, 15, 34], [40, 2, 41, 60]])
    inside = np.zeros((50, 64), bool)
    for ymin, xmin, ymax, xmax in boxes:
        inside[ymin:ymax, xmin:xmax] = True
    hits = ndimage.distance_transform_edt(~inside) <= tolerance
    for y, x in np.random.default_rng(2).integers((50, 64), size=(300, 2)):
        heatmap = np.full((50, 64), -1.0)
        heatmap[y, x] = 2
        assert pointing_game(heatmap, boxes, tolerance) == hits[y, x]


def test_pointing_needs_a_box_and_positive_relevance():
    assert np.isnan(pointing_game(np.ones((4, 4)), []))
    assert pointing_game(np.zeros((4, 4)), [[0, 0, 4, 4]]) == 0


@pytest.mark.parametrize("measure", [context, relevance_mass, pointing_game])
@pytest.mark.parametrize(
    ("heatmap", "boxes", "words"),
    [
        (np.ones((3, 3, 3)), [[0, 0, 1, 1]], r"heatmap has shape \(3, 3, 3\)"),
        (np.full((3, 3), np.nan), [[0, 0, 1, 1]], "9 values that are NaN"),
        (SimpleNamespace(heatmap=np.ones((3, 3))), [[0, 0, 1, 1]], "heatmap is an Explanation; .*explanation.heatmap"),
        (np.ones((3, 3)), [0, 0, 1, 1], r"boxes has shape \(4,\)"),
        (np.ones((3, 3)), [[0, 0, 1, np.nan]], "finite"),
    ],
)
def test_bad_maps_and_boxes_are_refused(measure, heatmap, boxes, words):
    with pytest.raises(ValueError, match=words):
        measure(heatmap, boxes)


# Pixel flipping

SHAPE = (31, 40)  # 3 x 4 regions of 9; the grid begins at (2, 2)
TOP, LEFT, ROWS, COLS = 2, 2, 3, 4


class Counter:
    """f(x) = the weight of the pixels that are still those of the image; counts what it is asked."""

    def __init__(self, image, weights):
        self.image, self.weights, self.batches, self.seen = image, weights, [], []

    def __call__(self, images):
        self.batches.append(len(images))
        self.seen.extend(images.copy())
        same = images == self.image
        return (same.reshape(*same.shape[:3], -1).all(axis=3) * self.weights).sum(axis=(1, 2))


@pytest.fixture(params=["grey", "rgb"])
def flipped(request):
    rng = np.random.default_rng(3)
    image = rng.random(SHAPE if request.param == "grey" else (*SHAPE, 3), dtype=np.float32)
    weights = rng.normal(size=SHAPE)
    return image, weights, Counter(image, weights)


def region_sums(weights):
    return {
        (TOP + 9 * r, LEFT + 9 * c): weights[TOP + 9 * r : TOP + 9 * r + 9, LEFT + 9 * c : LEFT + 9 * c + 9].sum()
        for r in range(ROWS)
        for c in range(COLS)
    }


@pytest.mark.parametrize(("order", "sign"), [("morf", -1), ("lerf", 1)])
def test_regions_fall_in_the_order_of_their_relevance(flipped, order, sign):
    image, weights, score = flipped
    result = pixel_flipping(score, image, weights, order=order, steps=5, batch_size=4)
    sums = region_sums(weights)
    expected = sorted(sums, key=lambda corner: sign * sums[corner])[:5]
    assert [tuple(corner) for corner in result.regions[0]] == expected
    curve = weights.sum() - np.cumsum([0, *(sums[corner] for corner in expected)])
    np.testing.assert_allclose(result.curve, curve, rtol=1e-12)
    assert result.aopc == pytest.approx(sum(curve[0] - f for f in curve) / 6, rel=1e-12)
    assert score.batches == [4, 2] and result.order == order and result.region == 9


def test_steps_are_clamped_to_the_regions_and_each_falls_once(flipped):
    image, weights, score = flipped
    result = pixel_flipping(score, image, weights, order="random", draws=3)
    assert result.curves.shape == (3, ROWS * COLS + 1) and result.regions.shape == (3, ROWS * COLS, 2)
    for regions in result.regions:
        assert sorted(map(tuple, regions)) == sorted(region_sums(weights))
    assert not np.array_equal(result.regions[0], result.regions[1])
    np.testing.assert_allclose(result.aopc, np.mean(result.aopcs))


def test_a_draw_does_not_depend_on_how_many_there_are(flipped):
    image, weights, _ = flipped

    def mean(images):
        return images.reshape(len(images), -1).mean(axis=1)

    one = pixel_flipping(mean, image, weights, order="random", draws=1)
    three = pixel_flipping(mean, image, weights, order="random", draws=3)
    other = pixel_flipping(mean, image, weights, order="random", random_state=1)
    np.testing.assert_array_equal(one.curves[0], three.curves[0])
    assert not np.array_equal(one.curves, other.curves)


def test_maps_and_orders_share_what_they_can(flipped):
    image, weights, score = flipped
    # A map and its double rank alike; "random" is one order for all maps; the untouched image belongs to all.
    results = pixel_flipping(score, image, [weights, 2 * weights], order=("morf", "lerf", "random"), steps=4, draws=2)
    assert [result.order for result in results] == ["morf", "lerf", "random"] * 2
    distinct = {
        (draw, frozenset(map(tuple, result.regions[draw][:k])))
        for result in results
        for draw in range(2)
        for k in range(1, 5)
    }
    assert sum(score.batches) == 1 + len(distinct) <= 1 + 2 * 3 * 4
    for mine, double in zip(results[:3], results[3:], strict=True):
        np.testing.assert_array_equal(mine.curves, double.curves)
    alone = pixel_flipping(score, image, weights, order="lerf", steps=4, draws=2)
    np.testing.assert_array_equal(alone.curves, results[1].curves)
    assert len(pixel_flipping(score, image, [weights], steps=1)) == 1


def test_colours_are_uniform_per_pixel_and_the_rest_is_untouched():
    image = np.random.default_rng(4).integers(256, size=(92, 95, 3), dtype=np.uint8)
    score = Counter(image, np.ones((92, 95)))
    pixel_flipping(score, image, np.zeros((92, 95)), steps=100, order="random")
    assert all(seen.dtype == np.uint8 for seen in score.seen)
    last = score.seen[-1]
    np.testing.assert_array_equal(last[:1], image[:1])
    np.testing.assert_array_equal(last[:, 92:], image[:, 92:])
    colours = last[1:91, 2:92].reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 0.99 * len(colours)
    assert stats.chisquare(np.bincount(colours.ravel(), minlength=256)).pvalue > 1e-3


def test_equal_sums_fall_in_random_order():
    image = np.zeros((90, 90), np.uint8)
    result = pixel_flipping(lambda images: np.zeros(len(images)), image, np.zeros((90, 90)), draws=2)
    assert not np.array_equal(result.regions[0], result.regions[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heatmaps": np.zeros((3, 3))}, r"heatmap has shape \(3, 3\); expected \(31, 40\)"),
        ({"heatmaps": np.full(SHAPE, np.inf)}, "NaN or infinite"),
        ({"heatmaps": []}, "heatmaps is empty"),
        ({"order": "best"}, "morf, lerf, random"),
        ({"order": ()}, "morf, lerf, random"),
        ({"steps": 0}, "steps is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"steps": "9"}, "steps is '9'; expected a whole number of at least 1"),
        ({"region": 2.5}, "region is 2.5; expected a whole number of at least 1"),
        ({"heatmaps": SimpleNamespace(heatmap=np.zeros(SHAPE))}, "heatmaps is an Explanation; .*explanation.heatmap"),
        ({"heatmaps": [SimpleNamespace(heatmap=np.zeros(SHAPE))]}, "heatmap is an Explanation; .*explanation.heatmap"),
        ({"region": 32}, "at least one region of 32"),
        ({"score": lambda images: 1.0}, r"score returned shape \(\) for 16 images"),
        ({"score": lambda images: np.full(len(images), np.nan)}, "one finite score"),
    ],
)
def test_bad_arguments_of_flipping_are_refused(options, words):
    arguments = {"score": lambda images: np.zeros(len(images)), "image": np.zeros(SHAPE), "heatmaps": np.zeros(SHAPE)}
    arguments |= {"steps": 20, "region": 3, **options}
    with pytest.raises(ValueError, match=words):
        pixel_flipping(**arguments)


# Means over images


def test_the_interval_covers_the_mean_as_the_normal_theory_says():
    values = np.random.default_rng(5).normal(3, 2, size=400)
    interval = bootstrap(np.append(values, np.nan), draws=4000)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(400)
    assert interval.n == 400 and interval.mean == values.mean()
    np.testing.assert_allclose([interval.low, interval.high], [values.mean() - half, values.mean() + half], atol=0.02)
    assert bootstrap(values, level=0.5).high < interval.high
    assert bootstrap(values) == bootstrap(values)


def test_an_interval_of_nothing_is_nan():
    interval = bootstrap([np.nan, np.nan])
    assert interval.n == 0 and np.isnan([interval.mean, interval.low, interval.high]).all()
    assert bootstrap([2.0]) == bootstrap([2.0, np.nan])


@pytest.mark.parametrize(
    "options", [{"values": [[1.0]]}, {"values": [np.inf]}, {"level": 1}, {"level": "x"}, {"draws": 0}, {"draws": 2.5}]
)
def test_bad_arguments_of_the_bootstrap_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        bootstrap(**{"values": [1.0, 2.0], **options})
