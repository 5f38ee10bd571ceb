"""Which colour stands for how much relevance: the colour maps, and the |r| that ends them.

Zero relevance is the neutral colour unless asked otherwise, so that one glance tells evidence for from evidence
against.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

# 127 steps on either side of zero, which has an entry of its own: a coloured map fits into a palette of 256.
_STEPS = 127

# What ends the colour map: |r|, a percentile of it ("99%"), the two ends of a map that is not symmetric, or its own.
Scale = float | str | tuple[float, float] | None

# "safe": one Bézier curve per sign from zero outwards; rows are OKLab lightness, chroma and hue in degrees. Lightness
# falls by the same step on both, hence in proportion to |r|; the common colour blindnesses keep blue from orange.
_SAFE_POSITIVE = ((0.97, 0.0, 0.0), (0.79, 0.15, 66.0), (0.61, 0.19, 50.0), (0.43, 0.115, 42.0))
_SAFE_NEGATIVE = ((0.97, 0.0, 0.0), (0.79, 0.105, 250.0), (0.61, 0.225, 258.0), (0.43, 0.155, 263.0))

# B. Ottosson's OKLab (2020): Lab to the cube roots of cone responses, and cone responses to linear sRGB.
_OKLAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _paper(t: np.ndarray) -> np.ndarray:
    """Jet of t in -1..1, three trapezoids of slope 2 centred at 1, 0 and -1: RGB in 0..1 (n, 3)."""
    return np.clip(1.5 - np.abs(2 * t[:, None] - np.array([1.0, 0.0, -1.0])), 0, 1)


def _grey(t: np.ndarray) -> np.ndarray:
    """Black at t = -1, middle grey at 0, white at 1: RGB in 0..1 (n, 3)."""
    return np.repeat((t[:, None] + 1) / 2, 3, axis=1)


def _safe(t: np.ndarray) -> np.ndarray:
    """Blue at t = -1, near white at 0, orange at 1: RGB in 0..1 (n, 3)."""
    positive, negative = _bezier(np.abs(t), _SAFE_POSITIVE), _bezier(np.abs(t), _SAFE_NEGATIVE)
    lab = np.where(t[:, None] < 0, negative, positive)
    linear = np.clip((lab @ _OKLAB_TO_CONES.T) ** 3 @ _CONES_TO_RGB.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _bezier(u: np.ndarray, control: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """Point u in 0..1 of the cubic through `control` (lightness, chroma, hue): OKLab (n, 3)."""
    lightness, chroma, hue = np.array(control).T
    points = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    weights = np.stack([(1 - u) ** 3, 3 * u * (1 - u) ** 2, 3 * u**2 * (1 - u), u**3], axis=1)
    return weights @ points


_MAPS = {"grey": _grey, "paper": _paper, "safe": _safe}


@lru_cache
def _table(cmap: str) -> np.ndarray:
    """The colours of `cmap` from -1 to 1: uint8 (2 * _STEPS + 1, 3), read-only."""
    if cmap not in _MAPS:
        raise ValueError(f"cmap is {cmap!r}, which is no colour map of fvlrp; choose one of {', '.join(_MAPS)}")
    table = np.rint(255 * _MAPS[cmap](np.arange(-_STEPS, _STEPS + 1) / _STEPS)).astype(np.uint8)
    table.flags.writeable = False
    return table


def checked(heatmap) -> np.ndarray:
    """`heatmap` as float64 (H, W), refused unless it is one finite plane."""
    plane = np.asarray(heatmap, dtype=np.float64)
    if plane.ndim != 2 or not plane.size:
        raise ValueError(
            f"heatmap has shape {plane.shape}; expected one non-empty plane (height, width): sum the channels first"
        )
    finite = np.isfinite(plane)
    if not finite.all():
        y, x = np.argwhere(~finite)[0]
        raise ValueError(
            f"heatmap has {plane.size - finite.sum()} values that are NaN or infinite, the first ({plane[y, x]}) at "
            f"row {y}, column {x}; no colour stands for them: look for their cause, or set them to 0"
        )
    return plane


def shared_scale(heatmaps: Iterable, percentile: float = 100.0) -> float:
    """The |r| that ends the colour map when several heatmaps are to be compared.

    Parameters
    ----------
    heatmaps : iterable of (H, W) arrays
        Maps of any sizes.
    percentile : float
        100 takes the largest |r|; less lets the few largest values saturate. Zeros do not count: most of a sparse map
        is zero and would otherwise decide.

    Returns
    -------
    float
        |r| at that percentile, 0.0 where every value is zero.

    Raises
    ------
    ValueError
        For no heatmap, NaN or infinite values, or a percentile outside 0..100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}; expected a number from 0 to 100")
    magnitudes = [np.abs(checked(heatmap)).ravel() for heatmap in heatmaps]
    if not magnitudes:
        raise ValueError("heatmaps is empty; a scale needs at least one heatmap")
    values = np.concatenate(magnitudes)
    values = values[values > 0]
    return float(np.percentile(values, percentile)) if values.size else 0.0


def magnitude(heatmap: np.ndarray, scale: Scale) -> float:
    """The |r| drawn in the end colours: `scale` itself, or the percentile it spells ("99%"), or the map's largest."""
    if scale is None:
        return float(np.abs(heatmap).max())
    if isinstance(scale, str) and scale.endswith("%"):
        try:
            percentile = float(scale[:-1])
        except ValueError:
            raise ValueError(f"scale is {scale!r}; a percentile of |r| is written like '99%'") from None
        return shared_scale([heatmap], percentile)
    if not isinstance(scale, (int, float, np.integer, np.floating)) or not 0 <= scale < np.inf:
        raise ValueError(
            f"scale is {scale!r}; expected a finite |r| >= 0, a percentile like '99%' or None (the largest |r|)"
        )
    return float(scale)


def ends(heatmap: np.ndarray, scale: Scale) -> tuple[float, float]:
    """The two values between which a map that is not symmetric is stretched."""
    if scale is None:
        return float(heatmap.min()), float(heatmap.max())
    try:
        low, high = (float(end) for end in scale)
    except (TypeError, ValueError):
        raise ValueError(
            f"scale is {scale!r}; with symmetric=False expected None (the map's own range) or a pair (low, high)"
        ) from None
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"scale is ({low}, {high}); expected finite values, low <= high")
    return low, high


def _position(heatmap: np.ndarray, symmetric: bool, scale: Scale) -> np.ndarray:
    """Where every value lies on the colour map, -1..1: (H, W). A map without contrast is neutral."""
    if symmetric:
        end = magnitude(heatmap, scale)
        return np.clip(heatmap, -end, end) / end if end else np.zeros_like(heatmap)
    low, high = ends(heatmap, scale)
    return 2 * (np.clip(heatmap, low, high) - low) / (high - low) - 1 if low < high else np.zeros_like(heatmap)


def colour(heatmap, cmap: str = "paper", symmetric: bool = True, scale: Scale = None) -> np.ndarray:
    """Colour a heatmap.

    Parameters
    ----------
    heatmap : (H, W) array
        Relevance per pixel, in the units of the score.
    cmap : {"paper", "safe", "grey"}
        "paper": jet, as in the paper's figures: blue, green at zero, yellow to dark red. "safe": blue, near white at
        zero, orange; lightness falls in proportion to |r|, and colour-blind readers keep the sign. "grey": black,
        middle grey at zero, white.
    symmetric : bool
        True maps -scale..scale onto the colours, so zero is always neutral. False stretches min..max: zero may then
        have any colour.
    scale : float, str, pair or None
        With `symmetric`: the |r| that ends the colour map (larger values saturate), None for the map's own largest,
        "99%" for that percentile of its non-zero |r|. Without: a pair (low, high), None for the map's own.

    Returns
    -------
    uint8 (H, W, 3)
        sRGB. A map that is zero everywhere (without `symmetric`: constant) is neutral everywhere.

    Raises
    ------
    ValueError
        For NaN or infinite values, another shape, an unknown `cmap` or a malformed `scale`.

    Notes
    -----
    The paper prints its colours without naming them; jet on (r / max|r| + 1) / 2 is what its authors' LRP Toolbox does.
    """
    table = _table(cmap)
    position = _position(checked(heatmap), symmetric, scale)
    return table[np.rint(position * _STEPS).astype(np.intp) + _STEPS]
