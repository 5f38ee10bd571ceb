"""Pixel flipping against a plain re-implementation of its definition."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage, stats

from fvlrp.evaluate import Journal, PixelFlipping, gap, pixel_flipping

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


def test_a_random_order_does_not_depend_on_the_number_of_draws(flipped):
    image, weights, _ = flipped

    def mean(images):
        return images.reshape(len(images), -1).mean(axis=1)

    one = pixel_flipping(mean, image, weights, order="random", draws=1)
    three = pixel_flipping(mean, image, weights, order="random", draws=3)
    other = pixel_flipping(mean, image, weights, order="random", random_state=1)
    np.testing.assert_array_equal(one.curves[0], three.curves[0])
    assert not np.array_equal(one.curves, other.curves)


def test_maps_and_orders_share_images_and_their_scores(flipped):
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


def test_regions_of_equal_relevance_are_flipped_in_random_order():
    image = np.zeros((90, 90), np.uint8)
    result = pixel_flipping(lambda images: np.zeros(len(images)), image, np.zeros((90, 90)), draws=2)
    assert not np.array_equal(result.regions[0], result.regions[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heatmaps": np.zeros((3, 3))}, r"heatmap has shape \(3, 3\); expected \(31, 40\)"),
        ({"heatmaps": np.full(SHAPE, np.inf)}, "NaN or infinite"),
        ({"heatmaps": []}, "heatmaps is empty"),
        ({"order": "best"}, "morf, lerf, random, centre, edge"),
        ({"order": ()}, "morf, lerf, random, centre, edge"),
        ({"steps": 0}, "steps is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"every": 0}, "every is 0"),
        ({"steps": "9"}, "steps is '9'; expected a whole number of at least 1"),
        ({"region": 2.5}, "region is 2.5; expected a whole number of at least 1"),
        ({"heatmaps": SimpleNamespace(heatmap=np.zeros(SHAPE))}, "heatmaps is an Explanation; .*explanation.heatmap"),
        ({"heatmaps": [SimpleNamespace(heatmap=np.zeros(SHAPE))]}, "heatmap is an Explanation; .*explanation.heatmap"),
        ({"replacement": "black"}, "noise, mean, blur, inpaint"),
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


# Orders that ignore the heatmap, and replacements


def test_centre_and_edge_orders_are_those_of_their_definitions(flipped):
    image, weights, score = flipped
    middle = (SHAPE[0] - 1) / 2, (SHAPE[1] - 1) / 2
    grey = image @ np.float32([0.2989, 0.5870, 0.1140]) if image.ndim == 3 else image
    strength = np.hypot(*np.gradient(grey.astype(float)))
    keys = {
        "centre": {c: -np.hypot(c[0] + 4 - middle[0], c[1] + 4 - middle[1]) for c in region_sums(weights)},
        "edge": region_sums(strength),
    }
    for order, key in keys.items():
        found = [key[tuple(corner)] for corner in pixel_flipping(score, image, weights, order=order).regions[0]]
        assert len(found) == ROWS * COLS and found == pytest.approx(sorted(key.values(), reverse=True), rel=1e-5)


def shown(image, replacement, region=9, **options):
    """What the image shows when every region was replaced."""
    seen = []

    def score(images):
        seen.extend(images)
        return np.zeros(len(images))

    pixel_flipping(score, image, np.zeros(image.shape[:2]), region=region, replacement=replacement, **options)
    return seen[-1]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_replacements_match_their_names(kind, colours, rng):
    values = rng.random((*SHAPE, *colours))
    image = np.rint(255 * values).astype(np.uint8) if kind is np.uint8 else values.astype(np.float32)
    scale, rounding = (1, 0.5) if kind is np.uint8 else (1, 1e-6)
    window = np.s_[TOP : TOP + 9 * ROWS, LEFT : LEFT + 9 * COLS]
    mean = shown(image, "mean")
    assert mean.dtype == kind
    np.testing.assert_allclose(
        mean[window] * scale, np.broadcast_to(image.mean(axis=(0, 1)), mean[window].shape), atol=rounding
    )
    np.testing.assert_array_equal(mean[:TOP], image[:TOP])
    blurred = ndimage.gaussian_filter(image.astype(float), (9, 9, 0)[: image.ndim])
    np.testing.assert_allclose(shown(image, "blur")[window], blurred[window], atol=rounding)


def test_inpainting_continues_the_surroundings_of_a_region(rng):
    y, x = np.mgrid[:40, :49]  # 2 pixels are left around the regions
    plane = np.stack([3 * y + 2 * x, 255 - 4 * y, 100 + x], axis=2).astype(np.uint8)  # biharmonic: reproduced
    np.testing.assert_allclose(shown(plane, "inpaint"), plane, atol=1)
    spot = plane.copy()
    spot[11:20, 20:29] = rng.integers(256, size=(9, 9, 3))  # a region: nothing of it shows afterwards
    morf = np.zeros((40, 49))
    morf[11:20, 20:29] = 1
    seen = []
    pixel_flipping(
        lambda images: seen.extend(images) or [0.0] * len(images), spot, morf, steps=1, replacement="inpaint"
    )
    np.testing.assert_allclose(seen[1], plane, atol=1)


def test_curves_may_be_sampled_every_few_steps(flipped):
    image, weights, score = flipped
    fine = pixel_flipping(score, image, weights, steps=7)
    score.batches.clear()
    for scorer in (score, Walker(image, score)):
        coarse = pixel_flipping(scorer, image, weights, steps=7, every=3)
        np.testing.assert_array_equal(coarse.curve, fine.curve[[0, 3, 6]])
        np.testing.assert_array_equal(coarse.regions, fine.regions)
    assert score.batches[0] == 3 and coarse.aopc == pytest.approx((fine.curve[0] - coarse.curve).mean())


def test_the_gap_is_the_difference_of_two_orders(flipped):
    image, weights, score = flipped
    most, least = pixel_flipping(score, image, weights, order=("morf", "lerf"), steps=7)
    area = [sum(result.curve[0] - f for f in result.curve) / 8 for result in (most, least)]
    assert gap(most, least) == pytest.approx(area[0] - area[1], rel=1e-12) and gap(most, least) > 0
    with pytest.raises(ValueError, match="orders are 'lerf' and 'morf'"):
        gap(least, most)
    with pytest.raises(ValueError, match="differ in region"):
        gap(most, pixel_flipping(score, image, weights, order="lerf", steps=7, region=5))


# Flippers and journals


class Walker:
    """A Flipper that really builds every image, and counts its walks."""

    def __init__(self, image, score):
        self.image, self.score, self.walks = image, score, 0

    def walk(self, filled, regions, region, every=1):
        self.walks += 1
        image = self.image.copy()
        curve = [self.score(image[None])[0]]
        for y, x in regions:
            own = np.s_[y : y + region, x : x + region]
            image[own] = filled[own]
            curve.append(self.score(image[None])[0])
        return np.array(curve[::every])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_flipper_gives_the_curves_of_a_callable(flipped, n_jobs):
    image, weights, score = flipped
    options = {"order": ("morf", "lerf", "random", "edge"), "steps": 6, "draws": 2}
    called = pixel_flipping(score, image, [weights, -weights], **options)
    walker = Walker(image, score)
    walked = pixel_flipping(walker, image, [weights, -weights], n_jobs=n_jobs, **options)
    for one, other in zip(called, walked, strict=True):
        np.testing.assert_array_equal(one.curves, other.curves)
        np.testing.assert_array_equal(one.regions, other.regions)
    # MoRF of a map is LeRF of its negative; "random" and "edge" are the same for both: four walks a draw.
    assert walker.walks == 2 * 4


def test_a_journal_keeps_finished_curves_and_survives_truncation(flipped, tmp_path):
    image, weights, score = flipped
    path = tmp_path / "flips.jsonl"
    options = {"order": ("morf", "lerf", "random"), "steps": 6}
    first = Walker(image, score)
    whole = pixel_flipping(first, image, weights, journal=Journal(path), **options)
    assert first.walks == 3 and len(path.read_text().splitlines()) == 3
    again = Walker(image, score)
    for one, other in zip(pixel_flipping(again, image, weights, journal=Journal(path), **options), whole, strict=True):
        np.testing.assert_array_equal(one.curves, other.curves)
    assert again.walks == 0

    path.write_text(path.read_text()[:-20])  # killed while it wrote the last curve
    after = Walker(image, score)
    resumed = pixel_flipping(after, image, weights, journal=Journal(path), **options)
    assert after.walks == 1 and len(Journal(path)) == 3
    np.testing.assert_array_equal(resumed[2].curves, whole[2].curves)


def test_a_journal_of_other_settings_is_not_reused(flipped, tmp_path):
    image, weights, score = flipped
    journal = Journal(tmp_path / "flips.jsonl")
    pixel_flipping(score, image, weights, steps=6, journal=journal)
    for options in (
        {"steps": 5},
        {"every": 2},
        {"region": 7},
        {"replacement": "mean"},
        {"random_state": 1},
        {"order": "lerf"},
    ):
        before = len(journal)
        pixel_flipping(score, image, weights, **{"steps": 6, "journal": journal, **options})
        assert len(journal) == before + 1, options
    pixel_flipping(score, 1 - image, weights, steps=6, journal=journal)
    assert len(journal) == 8


def test_parts_of_a_journal_have_separate_keys(tmp_path):
    journal = Journal(tmp_path / "flips.jsonl")
    one, other = journal.part("net", "dog"), journal.part("net", "cat")
    one.put("key", 1)
    other.put("key", 2)
    assert (one["key"], other["key"]) == (1, 2) and "key" not in journal and len(journal) == 2
    again = Journal(tmp_path / "flips.jsonl")
    assert again.part("net", "dog")["key"] == 1 and "key" not in again.part("net", "dog", "far")


def test_a_file_that_is_not_a_journal_is_refused(tmp_path):
    path = tmp_path / "report.txt"
    for text in ("gap 3.9\nand so on\n", "one line", "5\n", '{"a": 1, "b": 2}\n', "[1, 2]\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is not a journal"):
            Journal(path)
    path.write_text(json.dumps(["key", [0.1, 2.5]]) + "\n")
    assert Journal(path)["key"] == [0.1, 2.5] and "other" not in Journal(path)


def test_a_journal_whose_first_line_was_cut_off_is_read_again_and_again(tmp_path):
    path = tmp_path / "flips.jsonl"
    path.write_text('["first", 0.')
    Journal(path).put("second", 2)
    again = Journal(path)
    assert "first" not in again and again["second"] == 2


def test_results_record_their_settings(flipped):
    image, weights, score = flipped
    result = pixel_flipping(score, image, weights, replacement="blur", order="edge", steps=2)
    assert isinstance(result, PixelFlipping)
    assert (result.order, result.replacement, result.region) == ("edge", "blur", 9)
