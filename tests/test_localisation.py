"""Context, relevance mass and the pointing game against their definitions in loops."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from fvlrp.evaluate import centred_gaussian, context, localisation, pointing_game, relevance_mass


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


def test_context_and_mass_equal_their_definitions_in_loops(rng):
    for _ in range(20):
        height, width = rng.integers(2, 14, size=2)
        heatmap = rng.normal(size=(height, width))
        corners = rng.integers(-3, 16, size=(rng.integers(1, 4), 2, 2))
        boxes = [(y[0], x[0], y[1], x[1]) for y, x in np.sort(corners, axis=2)]
        sums, counts = [0.0, 0.0], [0, 0]
        for y in range(height):
            for x in range(width):
                within = any(ymin <= y < ymax and xmin <= x < xmax for ymin, xmin, ymax, xmax in boxes)
                sums[within] += max(heatmap[y, x], 0)
                counts[within] += 1
        outside, inside = (total / count if count else np.nan for total, count in zip(sums, counts, strict=True))
        ratio = outside / inside if inside > 0 else np.nan
        np.testing.assert_allclose(context(heatmap, boxes), ratio, rtol=1e-12)
        share = sums[1] / sum(sums) if counts[1] else np.nan
        np.testing.assert_allclose(relevance_mass(heatmap, boxes), share, rtol=1e-12)


def test_the_gaussian_is_centred_and_a_quarter_of_either_side_wide():
    gaussian = centred_gaussian(9, 16)
    for y in range(9):
        for x in range(16):
            exponent = ((y - 4) / (9 / 4)) ** 2 + ((x - 7.5) / (16 / 4)) ** 2
            assert gaussian[y, x] == pytest.approx(np.exp(-exponent / 2), rel=1e-14)


def test_every_measure_is_reported_next_to_that_of_a_gaussian(rng):
    heatmap, boxes = rng.normal(size=(40, 60)), [[2, 3, 20, 30]]
    own, gaussian = localisation(heatmap, boxes, tolerance=3)
    for found, plane in ((own, heatmap), (gaussian, centred_gaussian(40, 60))):
        assert found == (context(plane, boxes), relevance_mass(plane, boxes), pointing_game(plane, boxes, 3))
    assert gaussian == localisation(centred_gaussian(40, 60), boxes, tolerance=3)[0]
