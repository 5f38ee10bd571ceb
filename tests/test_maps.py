"""What a heatmap is like by itself, against definitions in loops and maps whose answer is known."""

import math

import numpy as np
import pytest
from scipy import ndimage

from fvlrp.evaluate import gini, resolution, share_held


def plain_gini(heatmap):
    """Half the mean difference of all pairs of |R|, over their mean."""
    values = [abs(value) for row in heatmap for value in row]
    differences = sum(abs(a - b) for a in values for b in values) / len(values) ** 2
    return differences / (2 * sum(values) / len(values))


def plain_resolution(heatmap):
    """The autocorrelation lag by lag, averaged over rings."""
    height, width = heatmap.shape
    mean = heatmap.sum() / heatmap.size
    rings = {}
    for dy in range(-height + 1, height):
        for dx in range(-width + 1, width):
            total = sum(
                (heatmap[y, x] - mean) * (heatmap[y + dy, x + dx] - mean)
                for y in range(max(0, -dy), min(height, height - dy))
                for x in range(max(0, -dx), min(width, width - dx))
            )
            rings.setdefault(round(math.hypot(dy, dx)), []).append(total)
    profile = [sum(rings[d]) / len(rings[d]) for d in range(min(height, width))]
    for d in range(1, len(profile)):
        if profile[d] <= profile[0] / 2:
            return d - 1 + (profile[d - 1] - profile[0] / 2) / (profile[d - 1] - profile[d])
    return float("nan")


def test_gini_is_half_the_relative_mean_difference(rng):
    for shape in ((1, 1), (1, 7), (6, 9)):
        heatmap = rng.normal(size=shape)
        assert gini(heatmap) == pytest.approx(plain_gini(heatmap), rel=1e-12, abs=1e-15)


def test_gini_of_maps_that_are_known():
    assert gini(-np.ones((4, 5))) == pytest.approx(0, abs=1e-15)
    one = np.zeros((4, 5))
    one[2, 3] = -7
    assert gini(one) == pytest.approx(1 - 1 / 20, rel=1e-14)
    assert np.isnan(gini(np.zeros((4, 5))))


def test_resolution_equals_the_autocorrelation_in_loops(rng):
    for shape in ((8, 11), (12, 7), (9, 9)):
        heatmap = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
        assert resolution(heatmap) == pytest.approx(plain_resolution(heatmap), rel=1e-12)


@pytest.mark.parametrize("sigma", [2, 4, 8])
def test_resolution_of_smoothed_noise_is_that_of_the_smoothing(sigma, rng):
    # The autocorrelation of noise under a Gaussian is a Gaussian of sqrt(2) sigma: half at 2 sigma sqrt(ln 2).
    heatmap = ndimage.gaussian_filter(rng.normal(size=(400, 500)), sigma)
    assert resolution(heatmap) == pytest.approx(2 * sigma * math.sqrt(math.log(2)), rel=0.1)
    assert resolution(-3 * heatmap + 5) == pytest.approx(resolution(heatmap), rel=1e-9)


def test_a_constant_map_and_a_slope_have_no_resolution():
    assert np.isnan(resolution(np.full((9, 9), 0.3)))
    assert resolution(np.add.outer(np.arange(30.0), np.arange(40.0))) > 5


def test_the_share_of_the_score_is_signed():
    heatmap = np.array([[0.5, -0.1], [0.2, 0.0]])
    assert share_held(heatmap, 1.2) == pytest.approx(0.5)
    assert share_held(heatmap, -1.2) == pytest.approx(-0.5)
    assert np.isnan(share_held(heatmap, 0))


@pytest.mark.parametrize("measure", [gini, resolution, lambda heatmap: share_held(heatmap, 1)])
def test_invalid_maps_are_refused(measure):
    with pytest.raises(ValueError, match=r"heatmap has shape \(3,\)"):
        measure([1.0, 2, 3])
    with pytest.raises(ValueError, match="1 values that are NaN"):
        measure([[1.0, np.nan]])
