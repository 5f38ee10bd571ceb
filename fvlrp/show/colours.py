"""From relevance to colours: the colour maps and their scales.

Unless requested otherwise, zero relevance has the neutral colour, which separates evidence for a class from evidence
against it. Hides how the colour maps are made. For show.pictures and the wings above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

# 127 steps on either side of zero, plus zero: a coloured map fits into a palette of 256 colours.
_STEPS = 127

# What ends the colour map: a number, a percentile ("99%"), both ends of a map that is not symmetric, or its extremes.
Scale: TypeAlias = "float | str | tuple[float, float] | None"
# The default scale of files, sheets and reports. Maps of fine depths have a few very large values: scaled to the
# maximum, they would look empty.
SCALE = "99.5%"
_BAND = 1 << 20  # pixels coloured at a time, so that a photograph of 100 megapixels needs no copies of its heatmap

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


def _paper(t: Floats) -> Floats:
    """Jet of t in -1..1, three trapezoids of slope 2 centred at 1, 0 and -1: RGB in 0..1 (n, 3)."""
    colours: Floats = np.clip(1.5 - np.abs(2 * t[:, None] - np.array([1.0, 0.0, -1.0])), 0, 1)
    return colours


def _grey(t: Floats) -> Floats:
    """Black at t = -1, middle grey at 0, white at 1: RGB in 0..1 (n, 3)."""
    return np.repeat((t[:, None] + 1) / 2, 3, axis=1)


def _safe(t: Floats) -> Floats:
    """Blue at t = -1, near white at 0, orange at 1: RGB in 0..1 (n, 3)."""
    positive, negative = _bezier(np.abs(t), _SAFE_POSITIVE), _bezier(np.abs(t), _SAFE_NEGATIVE)
    lab = np.where(t[:, None] < 0, negative, positive)
    linear: Floats = np.clip((lab @ _OKLAB_TO_CONES.T) ** 3 @ _CONES_TO_RGB.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _bezier(u: Floats, control: Sequence[tuple[float, float, float]]) -> Floats:
    """Point u in 0..1 of the cubic through `control` (lightness, chroma, hue): OKLab (n, 3)."""
    lightness, chroma, hue = np.array(control).T
    points = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    weights = np.stack([(1 - u) ** 3, 3 * u * (1 - u) ** 2, 3 * u**2 * (1 - u), u**3], axis=1)
    lab: Floats = weights @ points
    return lab


_CURVES = {"grey": _grey, "paper": _paper, "safe": _safe}
MAPS = tuple(_CURVES)


@lru_cache
def table(cmap: str) -> npt.NDArray[np.uint8]:
    """The colours of `cmap` from -1 to 1: uint8 (2 * _STEPS + 1, 3), read-only."""
    if cmap not in MAPS:
        raise ValueError(f"cmap must be one of {', '.join(MAPS)}, got {cmap!r}")
    steps = np.arange(-_STEPS, _STEPS + 1) / _STEPS
    colours: npt.NDArray[np.uint8] = np.rint(255 * _CURVES[cmap](steps)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def checked(heatmap: npt.ArrayLike) -> Floats:
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
            f"row {y}, column {x}; they have no colour: look for their cause, or set them to 0"
        )
    return plane


def shared_scale(heatmaps: Iterable[npt.ArrayLike], percentile: float = float(SCALE[:-1])) -> float:
    """A common scale for several heatmaps that are to be compared: the |r| at the end of the colour map.

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
    planes = [checked(heatmap) for heatmap in heatmaps]
    if not planes:
        raise ValueError("heatmaps is empty; a scale needs at least one heatmap")
    count = sum(int(np.count_nonzero(plane)) for plane in planes)
    if not count:
        return 0.0
    place = (count - 1) * (percentile / 100)  # among the magnitudes in ascending order, between two of them
    top = np.sort(_largest(planes, count - int(place)))
    low, high, part = top[0], top[min(1, len(top) - 1)], place - int(place)
    return float(low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part))  # as np.percentile


def _largest(planes: Sequence[Floats], count: int) -> Floats:
    """The `count` largest magnitudes, in any order. Planes are read in blocks: no large heatmap is copied."""
    parts: list[Floats] = []
    size, least = 0, 0.0
    for plane in planes:
        for block in np.array_split(plane, max(1, plane.size // _BAND)):
            values = np.abs(block)
            parts.append(values[values > least])
            size += len(parts[-1])
            if size > 2 * count + _BAND:
                parts = [np.partition(np.concatenate(parts), size - count)[-count:]]
                size, least = count, float(parts[0].min())
    kept = np.concatenate(parts)
    return np.partition(kept, size - count)[-count:] if size > count else kept


def _percentile(scale: str) -> float:
    try:
        return float(scale.removesuffix("%")) if scale.endswith("%") else float("nan")
    except ValueError:
        return float("nan")


def magnitude(heatmap: Floats, scale: Scale) -> float:
    """The |r| drawn in the end colours: `scale` itself, the percentile it spells ("99%"), or for None the largest."""
    if scale is None:
        return float(np.abs(heatmap).max())
    if isinstance(scale, str) and 0 <= (percentile := _percentile(scale)) <= 100:
        return shared_scale([heatmap], percentile)
    if not isinstance(scale, int | float | np.integer | np.floating) or not 0 <= scale < np.inf:
        raise ValueError(
            f"scale is {scale!r}; expected a finite |r| >= 0, a percentile like '99%' or None (the largest |r|)"
        )
    return float(scale)


def ends(heatmap: Floats, scale: Scale) -> tuple[float, float]:
    """The two values between which a map that is not symmetric is stretched.

    `scale` is a pair, a percentile ("99%": as many values saturate at either end), or None for the map's own range.
    """
    if scale is None:
        return float(heatmap.min()), float(heatmap.max())
    if isinstance(scale, str) and 50 <= (percentile := _percentile(scale)) <= 100:
        low, high = np.percentile(heatmap, (100 - percentile, percentile))
        return float(low), float(high)
    try:
        low, high = (float(end) for end in cast("tuple[float, float]", scale))
    except (TypeError, ValueError):
        raise ValueError(
            f"scale is {scale!r}; with symmetric=False expected a pair (low, high), a percentile from '50%' to '100%' "
            "or None (the map's own range)"
        ) from None
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"scale is ({low}, {high}); expected finite values, low <= high")
    return low, high


def colour(
    heatmap: npt.ArrayLike, *, cmap: str = "safe", symmetric: bool = True, scale: Scale = SCALE
) -> npt.NDArray[np.uint8]:
    """Colour a heatmap.

    Parameters
    ----------
    heatmap : (H, W) array
        Relevance per pixel, in the units of the score.
    cmap : {"safe", "paper", "grey"}
        "paper": jet, as in the paper's figures: blue, green at zero, yellow to dark red. "safe": blue, near white at
        zero, orange; lightness falls in proportion to |r|, and colour-blind readers keep the sign. "grey": black,
        middle grey at zero, white.
    symmetric : bool
        True maps -scale..scale onto the colours, so zero is always neutral. False stretches the map's range: zero may
        then have any colour.
    scale : float, str, pair or None
        With `symmetric`: the |r| that ends the colour map (larger values saturate), "99%" for that percentile of its
        non-zero |r|, None for the map's own largest. Without: a pair (low, high), "99%" for the range between that
        percentile and its counterpart, None for the whole range.

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
    colours, plane = table(cmap), checked(heatmap)
    if symmetric:
        high = magnitude(plane, scale)
        low = -high
    else:
        low, high = ends(plane, scale)
    coloured = np.empty((*plane.shape, 3), np.uint8)
    rows = max(1, _BAND // plane.shape[1])
    for y in range(0, len(plane), rows):
        coloured[y : y + rows] = colours[_steps(plane[y : y + rows], low, high) + _STEPS]
    return coloured


def _steps(values: Floats, low: float, high: float) -> npt.NDArray[np.intp]:
    """Where values lie on the colour map, -_STEPS at `low` to _STEPS at `high`. A map without contrast is neutral."""
    if low == high:
        return np.zeros(values.shape, np.intp)
    clipped = np.clip(values, low, high)
    # Symmetric ends are divided by as they are: zero stays exactly zero, and opposite values opposite colours.
    position = clipped / high if low == -high else 2 * (clipped - low) / (high - low) - 1
    return np.rint(position * _STEPS).astype(np.intp)
