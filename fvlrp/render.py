"""Pictures of heatmaps: colours, overlays, colour bars and contact sheets.

Arrays in, arrays or Pillow images out; only `write_png` writes a file. Zero relevance is
the neutral colour unless asked otherwise, so that one glance tells evidence for from evidence against.
"""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from fvlrp.images import ImageLike, load
from fvlrp.rules import real

# 127 steps on either side of zero, which has an entry of its own: a coloured map fits into a palette of 256.
_STEPS = 127

# What ends the colour map: |r|, a percentile of it ("99%"), the two ends of a map that is not symmetric, or its own.
Scale = float | str | tuple[float, float] | None

_WHITE = (255, 255, 255)
_INK = (34, 34, 34)
_SOFT_INK = (85, 85, 85)
_HAIRLINE = (150, 150, 150)

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


# ---- colours ---------------------------------------------------------------------------------------------------------


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


def _checked(heatmap) -> np.ndarray:
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
    magnitudes = [np.abs(_checked(heatmap)).ravel() for heatmap in heatmaps]
    if not magnitudes:
        raise ValueError("heatmaps is empty; a scale needs at least one heatmap")
    values = np.concatenate(magnitudes)
    values = values[values > 0]
    return float(np.percentile(values, percentile)) if values.size else 0.0


def _magnitude(heatmap: np.ndarray, scale: Scale) -> float:
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


def _ends(heatmap: np.ndarray, scale: Scale) -> tuple[float, float]:
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
        end = _magnitude(heatmap, scale)
        return np.clip(heatmap, -end, end) / end if end else np.zeros_like(heatmap)
    low, high = _ends(heatmap, scale)
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
    position = _position(_checked(heatmap), symmetric, scale)
    return table[np.rint(position * _STEPS).astype(np.intp) + _STEPS]


# ---- heatmap and photograph ------------------------------------------------------------------------------------------


def _photograph(image: ImageLike) -> np.ndarray:
    """`image` as uint8 (H, W, 3)."""
    pixels = load(image)
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def _pair(image: ImageLike, heatmap) -> tuple[np.ndarray, np.ndarray]:
    pixels, plane = _photograph(image), _checked(heatmap)
    if pixels.shape[:2] != plane.shape:
        raise ValueError(
            f"image is {pixels.shape[0]} x {pixels.shape[1]} pixels and heatmap {plane.shape[0]} x {plane.shape[1]} "
            "(rows x columns); they must agree: pass the very photograph that was explained"
        )
    return pixels, plane


def _opacity(amount: np.ndarray, end: float, gamma: float) -> np.ndarray:
    """(amount / end) ** gamma in 0..1: (H, W, 1), zero everywhere where `end` is."""
    if not (real(gamma) and 0 < gamma < np.inf):
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
    end = _magnitude(plane, scale)
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
    return _blend(pixels, behind, _opacity(evidence, _magnitude(evidence, scale), gamma))


# ---- text ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _font(size: int, path: str | None) -> ImageFont.FreeTypeFont:
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise OSError(f"font {path!r} cannot be opened as a TrueType or OpenType file ({error})") from error


@lru_cache(maxsize=4096)
def _drawable(font: ImageFont.FreeTypeFont, character: str) -> bool:
    # U+FFFF is no character, so every font answers with its mark for a missing one.
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def _spelled(character: str) -> str:
    """A character in plain letters, for fonts that lack it (Pillow's own has little beyond ASCII)."""
    if unicodedata.category(character) == "Pd" or character == "−":
        return "-"
    if character == "×":
        return "x"
    plain = unicodedata.normalize("NFKD", character)[0]
    name = unicodedata.name(plain, "")
    if name.startswith("GREEK"):
        letter = name.split()[-1]
        return letter.title() if "CAPITAL" in name else letter.lower()
    return plain


def _printable(text: str, font: ImageFont.FreeTypeFont) -> str:
    spelled = "".join(c if _drawable(font, c) else _spelled(c) for c in text)
    return "".join(c if _drawable(font, c) else "?" for c in spelled)


def _elided(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, or as much of its beginning as fits into `width` pixels with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    mark = _printable("…", font)
    while text and font.getlength(text.rstrip() + mark) > width:
        text = text[:-1]
    return text.rstrip() + mark


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines no wider than `width` pixels: two at most for a paragraph, one each where `text` has line breaks."""
    paragraphs = [_printable(" ".join(paragraph.split()), font) for paragraph in text.splitlines()]
    if len(paragraphs) != 1:
        return [_elided(paragraph, font, width) for paragraph in paragraphs]
    words = paragraphs[0].split(" ")
    count = len(words)
    while count > 1 and font.getlength(" ".join(words[:count])) > width:
        count -= 1
    lines = [" ".join(words[:count]), " ".join(words[count:])]
    return [_elided(line, font, width) for line in lines if line]


def _block(text: str, font: ImageFont.FreeTypeFont, width: int, ink: tuple[int, int, int] = _INK) -> Image.Image:
    """`text` wrapped and centred on white, `width` pixels wide and as high as its lines; 0 for none."""
    lines, pitch = _wrapped(text, font, width), round(1.25 * font.size)
    picture = Image.new("RGB", (width, len(lines) * pitch), _WHITE)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((width / 2, (number + 0.5) * pitch), line, fill=ink, font=font, anchor="mm")
    return picture


def _number(value: float) -> str:
    """Three significant digits, with no padding of the exponent: 0.0123, 4.56e-7, 1.2e5."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


# ---- colour bar and single pictures ----------------------------------------------------------------------------------


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Positions on the colour map (-1..1) and their labels; `scale` None leaves the numbers open."""
    if scale is None:
        return [(1.0, "max"), (0.0, "0"), (-1.0, "-max")]
    if isinstance(scale, str):
        raise ValueError(f"scale is {scale!r}; the labels of a bar need its number: shared_scale(heatmaps, percentile)")
    if np.ndim(scale):
        low, high = _ends(np.zeros((1, 1)), scale)
        return [(1.0, _number(high)), (-1.0, _number(low))] if low < high else [(0.0, _number(low))]
    end = _magnitude(np.zeros((1, 1)), scale)
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
    face, ticks = _font(size, font), _ticks(scale)
    labels = [_printable(label, face) for _, label in ticks]
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
        draw.text((bar + 2 * mark, top), label, fill=_INK, font=face, anchor="lm")
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
    plane = _checked(heatmap)
    coloured = Image.fromarray(colour(plane, cmap, symmetric, scale))
    if not bar:
        return coloured
    height, width = max(48, plane.shape[0]), plane.shape[1]
    legend = colour_bar(height, _magnitude(plane, scale) if symmetric else _ends(plane, scale), cmap)
    gap = max(6, height // 40)
    picture = Image.new("RGB", (width + gap + legend.width, height), _WHITE)
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

    small, large = _font(max(11, round(0.068 * height)), font), _font(max(12, round(0.078 * height)), font)
    margin, gap, air = max(10, height // 12), max(6, height // 20), max(4, height // 40)
    # Half a panel's height is the least width in which a caption can be read.
    widths = [max([height // 2, *(cell[0].width for cell in column if cell)]) for column in zip(*grid, strict=True)]
    heights = [max([1, *(cell[0].height for cell in row if cell)]) for row in grid]
    heads = [_block(title, large, width) for title, width in zip(column_titles, widths, strict=True)]
    sides = [
        _block(title, large, tall).transpose(Image.Transpose.ROTATE_90)
        for title, tall in zip(row_titles, heights, strict=True)
    ]
    captions = [
        [_block(cell[1] if cell else "", small, width, _SOFT_INK) for cell, width in zip(row, widths, strict=True)]
        for row in grid
    ]

    left = margin + _room((side.width for side in sides), air + gap // 2)
    top = margin + _room((head.height for head in heads), air)
    below = [_room((caption.height for caption in row), 2 * air) for row in captions]
    xs = [left + sum(widths[:n]) + n * gap for n in range(columns)]
    ys = [top + sum(heights[:n]) + sum(below[:n]) + n * gap for n in range(len(grid))]
    right, bottom = xs[-1] + widths[-1], ys[-1] + heights[-1]

    legend = None if bar is None else colour_bar(bottom - top, scale, bar, text_size=int(small.size), font=font)
    legend_room = legend.width + gap + 2 * air if legend else 0
    picture = Image.new("RGB", (right + legend_room + margin, bottom + below[-1] + margin), _WHITE)
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
    from fvlrp import files  # only writing needs it

    data = png_bytes(image, text)
    with files.atomic_write(path) as target:
        target.write(data)
