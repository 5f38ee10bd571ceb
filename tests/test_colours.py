"""Colours: the paper's, those that colour-blind readers tell apart, what zero looks like, and where a map ends."""

import tracemalloc

import numpy as np
import pytest
from skimage import color

from fvlrp.show import colours

CMAPS = ("grey", "paper", "safe")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def jet(value):
    """The MATLAB form of jet for a value in 0..1, ramp by ramp."""
    red = min(4 * value - 1.5, 4.5 - 4 * value)
    green = min(4 * value - 0.5, 3.5 - 4 * value)
    blue = min(4 * value + 0.5, 2.5 - 4 * value)
    return np.clip([red, green, blue], 0, 1)


def ramp(cmap):
    """The colours from -1 to 1: (255, 3)."""
    return colours.colour(np.arange(-127.0, 128.0)[None, :], cmap=cmap, scale=None)[0]


def linear(rgb):
    rgb = np.asarray(rgb) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness(rgb):
    """CIE L* of sRGB under D65."""
    y = linear(rgb) @ [0.2126, 0.7152, 0.0722]
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


@pytest.mark.parametrize(
    ("relevance", "expected"),
    [(-1, (0, 0, 0.5)), (-0.5, (0, 0.5, 1)), (0, (0.5, 1, 0.5)), (0.5, (1, 0.5, 0)), (1, (0.5, 0, 0))],
)
def test_paper_golden_colours(relevance, expected):
    picture = colours.colour([[relevance, -1.0, 1.0]], cmap="paper", scale=None)
    tolerance = 2.51 if abs(relevance) == 0.5 else 0.5  # halves fall between two entries of the table
    assert np.abs(picture[0, 0] - 255 * np.array(expected)).max() <= tolerance


def test_paper_is_jet_on_half_of_r_plus_one(rng):
    heatmap = rng.standard_normal((20, 30))
    expected = [[jet((r / np.abs(heatmap).max() + 1) / 2) for r in row] for row in heatmap]
    # Jet climbs by 2 per unit of r and a step of the table is 1/127: half a step is 2 of 255, rounding another .5.
    assert np.abs(colours.colour(heatmap, cmap="paper", scale=None) - 255 * np.array(expected)).max() <= 2.51


def test_paper_is_near_matplotlibs_jet():
    matplotlib = pytest.importorskip("matplotlib")
    theirs = matplotlib.colormaps["jet"](np.linspace(0, 1, 255))[:, :3]
    # Its green begins to fall at .64 and ends at .91, not at .625 and .875: up to .13 apart.
    assert np.abs(ramp("paper") / 255 - theirs).max() < 0.15


def test_paper_mirrors_red_and_blue_with_the_sign(rng):
    heatmap = rng.standard_normal((20, 30))
    minus, plus = (colours.colour(sign * heatmap, cmap="paper") for sign in (-1, 1))
    assert np.array_equal(minus, plus[:, :, ::-1])


@pytest.mark.parametrize("arm", [slice(None, 128), slice(127, None)])
def test_safe_darkens_away_from_zero_in_proportion(arm):
    values = lightness(ramp("safe")[arm])
    fall = np.diff(values if values[0] > values[-1] else values[::-1])
    assert (fall < 0).all()
    assert fall.min() > 1.6 * fall.mean(), "no step of lightness stands out as an edge that the map does not have"


def test_safe_is_near_white_at_zero_and_equally_light_on_both_sides():
    colours = ramp("safe")
    assert np.ptp(colours[127]) <= 1 and colours[127].min() > 240
    assert np.abs(lightness(colours) - lightness(colours[::-1])).max() < 8


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_safe_shows_the_sign_to_colour_blind_readers(blindness):
    seen = np.clip(linear(ramp("safe")) @ np.transpose(BLINDNESS[blindness]), 0, 1)
    lab = color.xyz2lab(color.rgb2xyz(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)))
    apart = np.linalg.norm(lab - lab[::-1], axis=1)
    assert apart[127 + 13] > 5, "at a tenth of the scale the signs differ by more than is just noticeable"
    assert apart[127 + 64 :].min() > 40


def test_grey_runs_from_black_over_middle_grey_to_white():
    assert ramp("grey")[[0, 127, 254]].tolist() == [[0] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("cmap", CMAPS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_map_without_contrast_is_neutral(cmap, symmetric):
    neutral = ramp(cmap)[127]
    assert (colours.colour(np.zeros((3, 4)), cmap=cmap, symmetric=symmetric) == neutral).all()
    assert (colours.colour(np.full((3, 4), -0.0), cmap=cmap, symmetric=symmetric) == neutral).all()
    assert symmetric or (colours.colour(np.full((3, 4), 7.0), cmap=cmap, symmetric=symmetric) == neutral).all()


@pytest.mark.parametrize(("relevance", "entry"), [(-3.0, 0), (0.0, 127), (1e-300, 254)])
def test_a_single_pixel_is_scaled_by_its_own_value(relevance, entry):
    assert np.array_equal(colours.colour([[relevance]])[0, 0], ramp("safe")[entry])


@pytest.mark.parametrize("cmap", CMAPS)
def test_zero_is_neutral_however_lopsided_the_map(cmap):
    assert np.array_equal(colours.colour([[0.0, 5.0, -1.0]], cmap=cmap)[0, 0], ramp(cmap)[127])


def test_not_symmetric_stretches_smallest_to_largest():
    picture = colours.colour([[3.0, 4.0, 5.0]], cmap="grey", symmetric=False, scale=None)
    assert picture[0, :, 0].tolist() == [0, 128, 255]
    wider = colours.colour([[3.0, 4.0, 5.0]], cmap="grey", symmetric=False, scale=(4.0, 6.0))
    assert wider[0, :, 0].tolist() == [0, 0, 128]


def test_a_shared_scale_makes_maps_comparable(rng):
    strong = rng.standard_normal((10, 12))
    both = colours.colour(np.vstack([strong, strong / 4]))
    weak = colours.colour(strong / 4, scale=colours.shared_scale([strong, strong / 4]))
    assert np.array_equal(weak, both[10:])
    assert not np.array_equal(weak, colours.colour(strong / 4))


def test_values_beyond_the_scale_saturate():
    picture = colours.colour([[-9.0, -1.0, 1.0, 9.0]], scale=1.0)
    assert np.array_equal(picture[0, 0], picture[0, 1]) and np.array_equal(picture[0, 2], picture[0, 3])


def test_a_percentile_counts_the_values_that_are_not_zero():
    heatmap = np.zeros((50, 50))
    heatmap[0, :4] = [1, -2, 3, -100]
    assert colours.shared_scale([heatmap], 50) == 2.5
    assert np.array_equal(colours.colour(heatmap, scale="50%"), colours.colour(heatmap, scale=2.5))
    assert colours.shared_scale([np.zeros((2, 2))], 50) == 0


def test_the_default_scale_is_the_99_5th_percentile_of_nonzero_relevance(rng):
    heatmap = rng.standard_normal((40, 50))
    heatmap[0] = 0
    assert np.array_equal(colours.colour(heatmap), colours.colour(heatmap, scale="99.5%"))
    assert colours.shared_scale([heatmap]) == np.percentile(np.abs(heatmap[1:]), 99.5)
    stretched = colours.colour(heatmap, symmetric=False)
    both = tuple(np.percentile(heatmap, (0.5, 99.5)))
    assert np.array_equal(stretched, colours.colour(heatmap, symmetric=False, scale=both))


@pytest.mark.parametrize("symmetric", [True, False])
def test_colouring_in_bands_gives_the_same_picture(rng, monkeypatch, symmetric):
    heatmap = rng.standard_normal((37, 50))
    whole = colours.colour(heatmap, symmetric=symmetric)
    monkeypatch.setattr(colours, "_BAND", 160)
    assert np.array_equal(colours.colour(heatmap, symmetric=symmetric), whole)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_error_for_nan_pixels_names_their_position(value):
    heatmap = np.zeros((3, 4))
    heatmap[1, 2] = value
    with pytest.raises(ValueError, match=r"1 values that are NaN or infinite, the first .* at row 1, column 2"):
        colours.colour(heatmap)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cmap": "viridis"}, "cmap must be one of grey, paper, safe, got 'viridis'"),
        ({"heatmap": np.zeros((2, 2, 3))}, r"shape \(2, 2, 3\).*sum the channels"),
        ({"heatmap": np.zeros((0, 2))}, r"shape \(0, 2\)"),
        ({"scale": -1}, "scale is -1"),
        ({"scale": np.nan}, "scale is nan"),
        ({"scale": "much"}, "scale is 'much'"),
        ({"scale": "much%"}, "scale is 'much%'"),
        ({"scale": "101%"}, "scale is '101%'"),
        ({"symmetric": False, "scale": "40%"}, "a percentile from '50%' to '100%'"),
        ({"scale": (0, 1)}, r"scale is \(0, 1\); expected a finite"),
        ({"symmetric": False, "scale": 1.0}, r"pair \(low, high\)"),
        ({"symmetric": False, "scale": (2, 1)}, "low <= high"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        colours.colour(**{"heatmap": np.ones((2, 2)), **arguments})


@pytest.mark.parametrize("percentile", [0, 30, 99.5, 100])
def test_a_scale_of_large_maps_is_their_percentile_without_a_copy(monkeypatch, percentile):
    monkeypatch.setattr(colours, "_BAND", 1000)
    random = np.random.default_rng(0)
    maps = [random.normal(size=(300, 70)), np.where(random.random((41, 29)) < 0.9, 0, 3.0)]
    values = np.concatenate([np.abs(one[one != 0]) for one in maps])
    assert np.isclose(colours.shared_scale(maps, percentile), np.percentile(values, percentile), rtol=1e-14)


def test_a_scale_of_a_large_map_takes_little_memory(monkeypatch):
    monkeypatch.setattr(colours, "_BAND", 1 << 16)
    heatmap = np.random.default_rng(0).normal(size=(3000, 2000))
    tracemalloc.start()
    try:
        colours.shared_scale([heatmap])
        assert tracemalloc.get_traced_memory()[1] < 0.8 * heatmap.nbytes
    finally:
        tracemalloc.stop()
