"""Pictures of heatmaps: overlays, masks, hatching and colour bars.

From arrays, numbers and words to arrays or Pillow images. Hides how they are drawn. For `sheet`, and `render`,
which exports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..data.images import ImageLike, rgb
from ..runtime.arguments import is_real
from . import text as lettering
from .colours import SCALE, Scale, checked, colour, ends, magnitude
from .text import INK, WHITE

Pixels: TypeAlias = npt.NDArray[np.uint8]
Window: TypeAlias = "tuple[int, int, int, int]"  # top, left, bottom, right

SOFT_INK = (85, 85, 85)
_HAIRLINE = (150, 150, 150)
LOWEST = 24  # pixels: the height of a colour bar in which labels can be read
_DARK, _LIGHT = 90, 200  # grey levels of hatching, on bright and on dark ground


# ---- heatmap and photograph ------------------------------------------------------------------------------------------


def _pair(image: ImageLike, heatmap: npt.ArrayLike) -> tuple[Pixels, npt.NDArray[np.float64]]:
    pixels, plane = rgb(image), checked(heatmap)
    if pixels.shape[:2] != plane.shape:
        raise ValueError(
            f"image is {pixels.shape[0]} x {pixels.shape[1]} pixels and heatmap {plane.shape[0]} x {plane.shape[1]} "
            "(rows x columns); they must agree: pass the photograph that was explained"
        )
    return pixels, plane


def _opacity(amount: npt.NDArray[np.float64], end: float, gamma: float) -> npt.NDArray[np.float64]:
    """(amount / end) ** gamma in 0..1: (H, W, 1), zero everywhere where `end` is."""
    if not (is_real(gamma) and 0 < gamma < np.inf):
        raise ValueError(f"gamma is {gamma!r}; expected a number above 0 (below 1 lifts small relevance)")
    if not end:
        return np.zeros((*amount.shape, 1))
    return ((np.minimum(amount, end) / end) ** gamma)[:, :, None]


def _blend(above: npt.ArrayLike, below: npt.ArrayLike, opacity: npt.NDArray[np.float64]) -> Pixels:
    below = np.asarray(below, np.float64)
    return np.rint(below + (above - below) * opacity).astype(np.uint8)


def overlay(
    image: ImageLike,
    heatmap: npt.ArrayLike,
    *,
    cmap: str = "safe",
    gamma: float = 0.5,
    scale: float | str | None = SCALE,
) -> Pixels:
    """Draw a coloured heatmap over its photograph, more opaque where |r| is larger.

    Opacity is (|r| / scale) ** gamma: pixels without relevance show the photograph.

    Parameters
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1.
    heatmap : (H, W) array
        Relevance per pixel.
    cmap, scale
        As in `colour`.
    gamma : float
        Below 1 lifts small relevance.

    Returns
    -------
    uint8 (H, W, 3)

    Raises
    ------
    ValueError
        Where sizes differ, and as `colour` does.
    """
    pixels, plane = _pair(image, heatmap)
    end = magnitude(plane, scale)
    return _blend(colour(plane, cmap=cmap, scale=end), pixels, _opacity(np.abs(plane), end, gamma))


def alpha(
    image: ImageLike,
    heatmap: npt.ArrayLike,
    *,
    gamma: float = 0.5,
    background: int | Sequence[int] = 0,
    scale: float | str | None = SCALE,
) -> Pixels:
    """Show only the parts of a photograph that are evidence for the target.

    The positive part of the heatmap becomes the alpha channel, (max(r, 0) / scale) ** gamma (as in the LRP Toolbox,
    where scale is max r). Meant for low-resolution maps.

    Parameters
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1.
    heatmap : (H, W) array
        Relevance per pixel.
    gamma : float
        Below 1 lifts small relevance.
    background : int or (r, g, b)
        Background colour, 0..255.
    scale : float, str or None
        The r at which the photograph is fully shown: a number, "99%" for a percentile of the positive values, None for
        the largest.

    Returns
    -------
    uint8 (H, W, 3)
        Background everywhere where no relevance is positive.

    Raises
    ------
    ValueError
        Sizes that differ, a background that is not a colour, or as for `colour`.
    """
    pixels, plane = _pair(image, heatmap)
    behind = np.asarray(background)
    if behind.shape not in ((), (3,)) or behind.dtype.kind not in "iuf" or not ((behind >= 0) & (behind <= 255)).all():
        raise ValueError(f"background is {background!r}; expected a grey level 0..255 or three of them (r, g, b)")
    evidence = np.maximum(plane, 0)
    return _blend(pixels, behind, _opacity(evidence, magnitude(evidence, scale), gamma))


def hatched(picture: Pixels, box: Window) -> Pixels:
    """A picture with diagonal lines outside a box, the part of the photograph that a model saw.

    Without them, the part that a network has cut off would look as if it had no relevance.

    Parameters
    ----------
    picture : uint8 (H, W, 3)
    box : (top, left, bottom, right)
        Pixels, bottom and right exclusive.

    Returns
    -------
    uint8 (H, W, 3)
        `picture` itself if the box covers it.
    """
    height, width = picture.shape[:2]
    top, left, bottom, right = box
    outside = [np.s_[:top, :], np.s_[bottom:, :], np.s_[top:bottom, :left], np.s_[top:bottom, right:]]
    if not any(picture[part].size for part in outside):
        return picture
    found, period = picture.copy(), max(8, min(height, width) // 25)
    y, x = np.arange(height, dtype=np.uint16)[:, None] % period, np.arange(width, dtype=np.uint16)[None] % period
    for part in outside:
        lines = (y[part[0]] + x[:, part[1]]) % period < max(1, period // 8)
        own = found[part]
        own[lines] = np.where(own[lines].mean(axis=1, keepdims=True) > 127, _DARK, _LIGHT)
    return found


def noted(picture: Image.Image, words: str) -> Image.Image:
    """A picture with a line of words below it; `picture` itself for no words."""
    if not words:
        return picture
    size = min(max(round(picture.height / 24), 11), 18)
    line = lettering.block(words, lettering.font(size, None), max(picture.width, 12 * size), SOFT_INK)
    found = Image.new("RGB", (line.width, picture.height + size // 3 + line.height), WHITE)
    found.paste(picture, (0, 0))
    found.paste(line, (0, found.height - line.height))
    return found


# ---- colour bar and single pictures ----------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Three significant digits, with no padding of the exponent: 0.0123, 4.56e-7, 1.2e5."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Positions on the colour map (-1..1) and their labels; for a scale without a number, its name."""
    if scale is None:
        return [(1.0, "max"), (0.0, "0"), (-1.0, "-max")]
    if isinstance(scale, str):
        magnitude(np.zeros((1, 1)), scale)  # raises for an invalid percentile
        return [(1.0, f"{scale}"), (0.0, "0"), (-1.0, f"-{scale}")]
    if np.ndim(scale):
        low, high = ends(np.zeros((1, 1)), scale)
        return [(1.0, _number(high)), (-1.0, _number(low))] if low < high else [(0.0, _number(low))]
    end = magnitude(np.zeros((1, 1)), scale)
    return [(1.0, _number(end)), (0.0, "0"), (-1.0, _number(-end))] if end else [(0.0, "0")]


def _units(scale: Scale) -> tuple[str, str]:
    """What the labels of a colour bar measure, in many words and in few."""
    if isinstance(scale, str):
        return "percentile of each map's |relevance| per pixel", "percentile of |relevance|"
    if scale is None:
        return "largest |relevance| per pixel of each map", "|relevance| per pixel"
    return "relevance per pixel, in units of the score", "relevance per pixel"


def colour_bar(
    height: int, *, scale: Scale = SCALE, cmap: str = "safe", text_size: int | None = None, font: str | None = None
) -> Image.Image:
    """A vertical colour bar with its ends and zero labelled, and the unit next to it if there is room.

    The unit of relevance is that of the score, per pixel of the photograph.

    Parameters
    ----------
    height : int
        Pixels, 24 at least.
    scale : float, pair, str or None
        |r| of the end colours; a pair (low, high) for a map that is not symmetric. A percentile or None (the largest)
        is written on the bar as text, for sheets whose maps have different scales.
    cmap : str
        As in `colour`.
    text_size : int, optional
        Pixels; by default a twentieth of `height`, from 11 to 28.
    font : str, optional
        Path of a TrueType or OpenType file, instead of Pillow's own.

    Returns
    -------
    PIL.Image.Image
        RGB on white, `height` pixels high, as wide as its labels need.

    Raises
    ------
    ValueError
        For less height, an unknown `cmap` or a malformed `scale`.
    """
    if height < LOWEST:
        raise ValueError(f"height is {height}; a colour bar with labels needs {LOWEST} pixels at least")
    size = min(text_size or min(max(round(height / 20), 11), 28), height // 3)
    face, ticks = lettering.font(size, font), _ticks(scale)
    labels = [lettering.printable(label, face) for _, label in ticks]
    bar, mark = max(8, round(0.9 * size), min(height // 40, 24)), max(3, size // 4)
    width = bar + 3 * mark + int(np.ceil(max(face.getlength(label) for label in labels)))
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[:, :bar] = colour(np.linspace(1, -1, height)[:, None], cmap=cmap, scale=1.0)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, bar - 1, height - 1), outline=_HAIRLINE)
    for (position, _), label in zip(ticks, labels, strict=True):
        y = round((1 - position) / 2 * (height - 1))
        draw.line((bar, y, bar + mark - 1, y), fill=_HAIRLINE)
        # The outer labels stay within the bar's height, so that bar and picture share their edges.
        top = min(max(y, size // 2), height - 1 - size // 2)
        draw.text((bar + 2 * mark, top), label, fill=INK, font=face, anchor="lm")
    unit = next((words for words in _units(scale) if face.getlength(words) < height - 2 * size), "")
    return _beside(picture, lettering.block(unit, face, height).transpose(Image.Transpose.ROTATE_90))


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (left.width + right.width + 2, left.height), WHITE)
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width + 1, 0))
    return picture


def to_image(
    heatmap: npt.ArrayLike,
    *,
    cmap: str = "safe",
    symmetric: bool = True,
    bar: bool = False,
    scale: Scale = SCALE,
    seen: Window | None = None,
) -> Image.Image:
    """A coloured heatmap as a Pillow image, optionally with a colour bar on the right.

    Parameters
    ----------
    heatmap, cmap, symmetric, scale
        As in `colour`.
    bar : bool
        Whether to add the colour bar, with the numbers that end it. The picture is then wider than the heatmap, and at
        least 48 pixels high.
    seen : (top, left, bottom, right), optional
        The part that the model saw; the rest is `hatched`.

    Returns
    -------
    PIL.Image.Image
        RGB, of the heatmap's own size without a bar.

    Raises
    ------
    ValueError
        As `colour`.
    """
    plane = checked(heatmap)
    drawn = colour(plane, cmap=cmap, symmetric=symmetric, scale=scale)
    coloured = Image.fromarray(drawn if seen is None else hatched(drawn, seen))
    if not bar:
        return coloured
    height, width = max(48, plane.shape[0]), plane.shape[1]
    legend = colour_bar(height, scale=magnitude(plane, scale) if symmetric else ends(plane, scale), cmap=cmap)
    gap = max(6, height // 40)
    picture = Image.new("RGB", (width + gap + legend.width, height), WHITE)
    picture.paste(coloured, (0, (height - plane.shape[0]) // 2))
    picture.paste(legend, (width + gap, 0))
    return picture
