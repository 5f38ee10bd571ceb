"""Pictures of heatmaps: overlays, colour bars and contact sheets.

Arrays in, arrays or Pillow images out; only `write_png` writes a file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from ..data.images import ImageLike, load
from ..runtime.arguments import is_real
from . import text as lettering
from .colours import Scale, checked, colour, ends, magnitude
from .colours import shared_scale as shared_scale  # one of this module's names, too
from .text import INK, WHITE

_SOFT_INK = (85, 85, 85)
_HAIRLINE = (150, 150, 150)


# ---- heatmap and photograph ------------------------------------------------------------------------------------------


def _photograph(image: ImageLike) -> np.ndarray:
    """`image` as uint8 (H, W, 3)."""
    pixels = load(image)
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def _pair(image: ImageLike, heatmap) -> tuple[np.ndarray, np.ndarray]:
    pixels, plane = _photograph(image), checked(heatmap)
    if pixels.shape[:2] != plane.shape:
        raise ValueError(
            f"image is {pixels.shape[0]} x {pixels.shape[1]} pixels and heatmap {plane.shape[0]} x {plane.shape[1]} "
            "(rows x columns); they must agree: pass the very photograph that was explained"
        )
    return pixels, plane


def _opacity(amount: np.ndarray, end: float, gamma: float) -> np.ndarray:
    """(amount / end) ** gamma in 0..1: (H, W, 1), zero everywhere where `end` is."""
    if not (is_real(gamma) and 0 < gamma < np.inf):
        raise ValueError(f"gamma is {gamma!r}; expected a number above 0 (below 1 lifts small relevance)")
    if not end:
        return np.zeros((*amount.shape, 1))
    return ((np.minimum(amount, end) / end) ** gamma)[:, :, None]


def _blend(above, below, opacity: np.ndarray) -> np.ndarray:
    return np.rint(below + (above - np.asarray(below, dtype=np.float64)) * opacity).astype(np.uint8)


def overlay(image: ImageLike, heatmap, cmap: str = "paper", gamma: float = 0.5, scale: Scale = None) -> np.ndarray:
    """Lay a coloured heatmap over its photograph, opaque where |r| is large.

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
    return _blend(colour(plane, cmap, scale=end), pixels, _opacity(np.abs(plane), end, gamma))


def alpha(image: ImageLike, heatmap, gamma: float = 0.5, background=0, scale: Scale = None) -> np.ndarray:
    """Show of a photograph what speaks for the target, and nothing else.

    The heatmap's positive part is the photograph's alpha channel, (max(r, 0) / max r) ** gamma (LRP Toolbox); it is
    made for the low-resolution maps.

    Parameters
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1.
    heatmap : (H, W) array
        Relevance per pixel.
    gamma : float
        Below 1 lifts small relevance.
    background : int or (r, g, b)
        What lies behind, 0..255.
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
        Where sizes differ, for a background that is no colour, and as `colour` does.
    """
    pixels, plane = _pair(image, heatmap)
    behind = np.asarray(background)
    if behind.shape not in ((), (3,)) or behind.dtype.kind not in "iuf" or not ((behind >= 0) & (behind <= 255)).all():
        raise ValueError(f"background is {background!r}; expected a grey level 0..255 or three of them (r, g, b)")
    evidence = np.maximum(plane, 0)
    return _blend(pixels, behind, _opacity(evidence, magnitude(evidence, scale), gamma))


# ---- colour bar and single pictures ----------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Three significant digits, with no padding of the exponent: 0.0123, 4.56e-7, 1.2e5."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Positions on the colour map (-1..1) and their labels; `scale` None leaves the numbers open."""
    if scale is None:
        return [(1.0, "max"), (0.0, "0"), (-1.0, "-max")]
    if isinstance(scale, str):
        raise ValueError(f"scale is {scale!r}; the labels of a bar need its number: shared_scale(heatmaps, percentile)")
    if np.ndim(scale):
        low, high = ends(np.zeros((1, 1)), scale)
        return [(1.0, _number(high)), (-1.0, _number(low))] if low < high else [(0.0, _number(low))]
    end = magnitude(np.zeros((1, 1)), scale)
    return [(1.0, _number(end)), (0.0, "0"), (-1.0, _number(-end))] if end else [(0.0, "0")]


def colour_bar(
    height: int, scale: Scale = None, cmap: str = "paper", text_size: int | None = None, font: str | None = None
) -> Image.Image:
    """A vertical colour bar with its ends and zero labelled.

    Parameters
    ----------
    height : int
        Pixels, 24 at least.
    scale : float, pair or None
        |r| of the end colours; a pair (low, high) for a map that is not symmetric; None labels the ends "max" and
        "-max", for a sheet whose maps each have a scale of their own.
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
    if height < 24:
        raise ValueError(f"height is {height}; a colour bar with labels needs 24 pixels at least")
    size = min(text_size or min(max(round(height / 20), 11), 28), height // 3)
    face, ticks = lettering.font(size, font), _ticks(scale)
    labels = [lettering.printable(label, face) for _, label in ticks]
    bar, mark = max(8, round(0.9 * size), height // 40), max(3, size // 4)
    width = bar + 3 * mark + int(np.ceil(max(face.getlength(label) for label in labels)))

    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    picture[:, :bar] = colour(np.linspace(1, -1, height)[:, None], cmap, scale=1.0)
    picture = Image.fromarray(picture)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, bar - 1, height - 1), outline=_HAIRLINE)
    for (position, _), label in zip(ticks, labels, strict=True):
        y = round((1 - position) / 2 * (height - 1))
        draw.line((bar, y, bar + mark - 1, y), fill=_HAIRLINE)
        # The outer labels stay within the bar's height, so that bar and picture share their edges.
        top = min(max(y, size // 2), height - 1 - size // 2)
        draw.text((bar + 2 * mark, top), label, fill=INK, font=face, anchor="lm")
    return picture


def to_image(
    heatmap, cmap: str = "paper", symmetric: bool = True, bar: bool = False, scale: Scale = None
) -> Image.Image:
    """A coloured heatmap as a Pillow image, with a colour bar at its right on request.

    Parameters
    ----------
    heatmap, cmap, symmetric, scale
        As in `colour`.
    bar : bool
        Whether to add the colour bar. The picture is then wider than the heatmap, and at least 48 pixels high.

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
    coloured = Image.fromarray(colour(plane, cmap, symmetric, scale))
    if not bar:
        return coloured
    height, width = max(48, plane.shape[0]), plane.shape[1]
    legend = colour_bar(height, magnitude(plane, scale) if symmetric else ends(plane, scale), cmap)
    gap = max(6, height // 40)
    picture = Image.new("RGB", (width + gap + legend.width, height), WHITE)
    picture.paste(coloured, (0, (height - plane.shape[0]) // 2))
    picture.paste(legend, (width + gap, 0))
    return picture


# ---- contact sheet ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a sheet.

    Attributes
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1.
    caption : str
        Below the picture. One line of text wraps to two and is then elided; lines set apart by line breaks are elided
        each on its own ("class name", then the score).
    """

    image: ImageLike
    caption: str = ""


def _fitted(cell, height: int, aspect: float) -> tuple[Image.Image, str] | None:
    """A cell's picture scaled into a box of `height` x `aspect * height` pixels, and its caption."""
    if cell is None:
        return None
    panel = cell if isinstance(cell, Panel) else Panel(cell)
    image = Image.fromarray(_photograph(panel.image))
    factor = min(height / image.height, aspect * height / image.width)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    # Lanczos overshoots at the hard edges of an enlarged heatmap; reduced, it keeps a photograph crisp.
    method = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC
    return (image if size == image.size else image.resize(size, method)), panel.caption


def _titles(titles: Sequence[str] | None, count: int, name: str) -> list[str]:
    if titles is None:
        return [""] * count
    if len(titles) != count:
        raise ValueError(
            f"{name} has {len(titles)} entries for {count} {name.split('_')[0]}s; give one each ('' is none)"
        )
    return list(titles)


def sheet(
    rows: Sequence[Sequence],
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    *,
    height: int = 240,
    aspect: float = 1.5,
    bar: str | None = None,
    scale: Scale = None,
    font: str | None = None,
) -> Image.Image:
    """A contact sheet: a grid of pictures with titles and captions on white.

    Parameters
    ----------
    rows : sequence of sequences of Panel, image or None
        The grid, row by row; None leaves a place empty, and short rows are filled with it.
    row_titles, column_titles : sequence of str, optional
        One each. Row titles stand upright at the left.
    height : int
        Height of the box of a panel in pixels; every size of text and margin follows from it.
    aspect : float
        Width of that box over its height. Pictures keep their own aspect and fit into the box.
    bar : str, optional
        Name of the colour map of which to draw a bar at the right.
    scale : float, pair or None
        Labels of the bar, as in `colour_bar`; None for maps that each have a scale of their own.
    font : str, optional
        Path of a TrueType or OpenType file. Pillow's own font, the default, draws ASCII; other letters are spelled
        out (α as alpha).

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ValueError
        For a grid without a picture, a wrong number of titles, or a picture that is none.
    OSError
        For a font that cannot be opened.
    """
    if height < 48 or not 0.1 <= aspect <= 10:
        raise ValueError(
            f"height is {height} and aspect {aspect}; expected 48 pixels at least and a ratio from 0.1 to 10"
        )
    grid = [[_fitted(cell, height, aspect) for cell in row] for row in rows]
    if not any(cell for row in grid for cell in row):
        raise ValueError("rows holds no picture; give at least one row with one Panel or image")
    columns = max(len(row) for row in grid)
    grid = [row + [None] * (columns - len(row)) for row in grid]
    row_titles = _titles(row_titles, len(grid), "row_titles")
    column_titles = _titles(column_titles, columns, "column_titles")

    sizes = max(11, round(0.068 * height)), max(12, round(0.078 * height))
    small, large = (lettering.font(size, font) for size in sizes)
    margin, gap, air = max(10, height // 12), max(6, height // 20), max(4, height // 40)
    # Half a panel's height is the least width in which a caption can be read.
    widths = [max([height // 2, *(cell[0].width for cell in column if cell)]) for column in zip(*grid, strict=True)]
    heights = [max([1, *(cell[0].height for cell in row if cell)]) for row in grid]
    heads = [lettering.block(title, large, width) for title, width in zip(column_titles, widths, strict=True)]
    sides = [
        lettering.block(title, large, tall).transpose(Image.Transpose.ROTATE_90)
        for title, tall in zip(row_titles, heights, strict=True)
    ]
    words = [[cell[1] if cell else "" for cell in row] for row in grid]
    captions = [
        [lettering.block(text, small, width, _SOFT_INK) for text, width in zip(row, widths, strict=True)]
        for row in words
    ]

    left = margin + _room((side.width for side in sides), air + gap // 2)
    top = margin + _room((head.height for head in heads), air)
    below = [_room((caption.height for caption in row), 2 * air) for row in captions]
    xs = [left + sum(widths[:n]) + n * gap for n in range(columns)]
    ys = [top + sum(heights[:n]) + sum(below[:n]) + n * gap for n in range(len(grid))]
    right, bottom = xs[-1] + widths[-1], ys[-1] + heights[-1]

    legend = None if bar is None else colour_bar(bottom - top, scale, bar, text_size=int(small.size), font=font)
    legend_room = legend.width + gap + 2 * air if legend else 0
    picture = Image.new("RGB", (right + legend_room + margin, bottom + below[-1] + margin), WHITE)
    for head, x in zip(heads, xs, strict=True):
        picture.paste(head, (x, top - air - head.height))
    for side, y in zip(sides, ys, strict=True):
        picture.paste(side, (left - air - gap // 2 - side.width, y))
    for row, texts, y, tall in zip(grid, captions, ys, heights, strict=True):
        for cell, caption, x, width in zip(row, texts, xs, widths, strict=True):
            if cell:
                image = cell[0]
                picture.paste(image, (x + (width - image.width) // 2, y + (tall - image.height) // 2))
                picture.paste(caption, (x, y + tall + air))
    if legend:
        picture.paste(legend, (right + legend_room - legend.width, top))
    return picture


def _room(lengths: Iterable[int], air: int) -> int:
    """Pixels that the longest text takes, with `air` between it and its neighbours; 0 where there is no text."""
    longest = max(lengths)
    return longest + air if longest else 0


# ---- files -----------------------------------------------------------------------------------------------------------


def _indexed(image: Image.Image) -> Image.Image | None:
    """An RGB `image` with a palette, where 256 colours suffice without loss (a coloured heatmap's always do)."""
    if image.getcolors(256) is None:
        return None
    # One number a pixel: red, green and blue as its bytes. Sorted, they make the palette the same every time.
    packed = np.asarray(image).astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    indexed = Image.fromarray(index.reshape(packed.shape).astype(np.uint8)).convert("P")
    indexed.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8).tobytes())
    return indexed


def _encoded(image: Image.Image, info: PngInfo) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def png_bytes(image: ImageLike, text: Mapping[str, object] | None = None) -> bytes:
    """An image as a PNG file's bytes; the same image gives the same bytes with the same Pillow.

    Parameters
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1. Up to 256
        colours may be stored as a palette: whichever is smaller, and nothing is lost.
    text : mapping, optional
        Keywords of 1 to 79 printable ASCII characters and values (made `str`), stored in the file in their order:
        target, depth, score.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        For a keyword that PNG does not take, or an image that is none.
    """
    info = PngInfo()
    for key, value in (text or {}).items():
        if not 1 <= len(key) <= 79 or not key.isprintable() or not key.isascii():
            raise ValueError(f"text has the keyword {key!r}; PNG takes 1 to 79 printable characters, plain ASCII here")
        info.add_text(key, str(value))
    picture = Image.fromarray(_photograph(image))
    # A palette may halve a map; a smooth one can be smaller without, as Pillow predicts neighbours only in RGB.
    return min((_encoded(form, info) for form in (picture, _indexed(picture)) if form is not None), key=len)


def write_png(path: str | os.PathLike[str], image: ImageLike, text: Mapping[str, object] | None = None) -> None:
    """Write an image as PNG, whole or not at all.

    Parameters
    ----------
    path : str or path
        The very name to write.
    image, text
        As in `png_bytes`.

    Raises
    ------
    OSError
        Where `path` cannot be written.
    ValueError
        As `png_bytes`.
    """
    from ..data import files  # only writing needs it

    data = png_bytes(image, text)
    with files.atomic_write(path) as target:
        target.write(data)
