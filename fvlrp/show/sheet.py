"""Contact sheets: grids of pictures with titles, captions and a colour bar.

Hides how a sheet is laid out. For `render`, which exports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from PIL import Image

from ..data.images import ImageLike, rgb
from . import text as lettering
from .colours import SCALE, Scale
from .pictures import LOWEST, SOFT_INK, colour_bar
from .text import WHITE


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a sheet.

    Attributes
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1.
    caption : str
        Text below the picture. A single line is wrapped to two lines and then elided; explicit lines ("class name",
        then the score) are elided separately. Lines with numbers are wrapped and not elided.
    """

    image: ImageLike
    caption: str = ""


Cell: TypeAlias = "Panel | ImageLike | None"


Fitted: TypeAlias = tuple[Image.Image, str] | None  # a cell's picture, scaled, and its caption


def _fitted(cell: Cell, height: int, aspect: float) -> Fitted:
    """A cell's picture scaled into a box of `height` x `aspect * height` pixels, and its caption."""
    if cell is None:
        return None
    panel = cell if isinstance(cell, Panel) else Panel(cell)
    image = Image.fromarray(rgb(panel.image))
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
    rows: Sequence[Sequence[Cell]],
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    height: int = 240,
    aspect: float = 1.5,
    bar: str | None = None,
    scale: Scale = SCALE,
    font: str | None = None,
) -> Image.Image:
    """A contact sheet: a grid of pictures with titles and captions on white.

    Parameters
    ----------
    rows : sequence of sequences of Panel, image or None
        The grid, row by row. None leaves a cell empty; short rows are padded with empty cells.
    row_titles, column_titles : sequence of str, optional
        One per row or column. Row titles are drawn vertically at the left.
    height : int
        Height of the box of a panel in pixels, from which all text sizes and margins follow.
    aspect : float
        Width of that box over its height. Pictures keep their own aspect and fit into the box.
    bar : str, optional
        Colour map for which a bar is drawn on the right.
    scale : float, pair, str or None
        Labels of the bar, as in `colour_bar`.
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
        For a grid without a picture, a wrong number of titles, or a cell that is not a picture.
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
    blocks = _lettered(
        grid,
        _titles(row_titles, len(grid), "row_titles"),
        _titles(column_titles, columns, "column_titles"),
        height,
        font,
    )
    return _composed(grid, blocks, height, bar, scale, font)


class _Blocks(NamedTuple):
    """The texts of a sheet as pictures, and the sizes of its columns and rows of pictures."""

    heads: list[Image.Image]  # column titles
    sides: list[Image.Image]  # row titles, turned by 90 degrees
    captions: list[list[Image.Image]]
    widths: list[int]
    heights: list[int]


def _lettered(
    grid: Sequence[Sequence[Fitted]],
    left_titles: Sequence[str],
    top_titles: Sequence[str],
    height: int,
    font: str | None,
) -> _Blocks:
    """Titles and captions of a grid, wrapped to the sizes of its columns and rows."""
    small, large = (lettering.font(size, font) for size in _text_sizes(height))
    # Half a panel's height is the least width in which a caption can be read, and an amount takes five times the size.
    least = max(height // 2, 5 * _text_sizes(height)[0])
    widths = [max([least, *(cell[0].width for cell in column if cell)]) for column in zip(*grid, strict=True)]
    heights = [max([1, *(cell[0].height for cell in row if cell)]) for row in grid]
    heads = [lettering.block(title, large, width) for title, width in zip(top_titles, widths, strict=True)]
    sides = [
        lettering.block(title, large, tall).transpose(Image.Transpose.ROTATE_90)
        for title, tall in zip(left_titles, heights, strict=True)
    ]
    words = [[cell[1] if cell else "" for cell in row] for row in grid]
    captions = [
        [lettering.block(text, small, width, SOFT_INK) for text, width in zip(row, widths, strict=True)]
        for row in words
    ]
    return _Blocks(heads, sides, captions, widths, heights)


def _text_sizes(height: int) -> tuple[int, int]:
    """Sizes of captions and of titles in pixels, for panels of `height` pixels."""
    return max(11, round(0.068 * height)), max(12, round(0.078 * height))


def _composed(
    grid: Sequence[Sequence[Fitted]],
    blocks: _Blocks,
    height: int,
    bar: str | None,
    scale: Scale,
    font: str | None,
) -> Image.Image:
    """Pictures, texts and the colour bar on one white sheet."""
    heads, sides, captions, widths, heights = blocks
    margin, gap, air = max(10, height // 12), max(6, height // 20), max(4, height // 40)
    left = margin + _room((side.width for side in sides), air + gap // 2)
    top = margin + _room((head.height for head in heads), air)
    below = [_room((caption.height for caption in row), 2 * air) for row in captions]
    xs = [left + sum(widths[:n]) + n * gap for n in range(len(widths))]
    ys = [top + sum(heights[:n]) + sum(below[:n]) + n * gap for n in range(len(grid))]
    right, bottom = xs[-1] + widths[-1], ys[-1] + heights[-1]

    legend = None
    if bar is not None:  # beside the captions, too, where the pictures are lower than its labels
        legend = colour_bar(
            max(bottom - top, LOWEST), scale=scale, cmap=bar, text_size=_text_sizes(height)[0], font=font
        )
    legend_room = legend.width + gap + 2 * air if legend else 0
    lowest = max(bottom + below[-1], top + legend.height if legend else 0)
    picture = Image.new("RGB", (right + legend_room + margin, lowest + margin), WHITE)
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
    """Pixels that the longest text takes, with `air` between it and its neighbours; 0 where there is not text."""
    longest = max(lengths)
    return longest + air if longest else 0
