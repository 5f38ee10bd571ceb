"""Sheets of explanations: one photograph at every depth, and the paper's Figure 1 for any models.

Turns explanations into the arrays and words that `show` lays out. For the command line and users (`fvlrp.sheet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from ..data.images import ImageLike, batch, naming
from ..show import render
from ..show.colours import SCALE
from . import captions
from .explanation import Explanation
from .menu import Menu
from .target import One, listed
from .trace import AnyTrace

if TYPE_CHECKING:
    from PIL.Image import Image


class Traces(Protocol):
    """A classifier."""

    @property
    def menu(self) -> Menu[object]: ...
    def trace(self, image: ImageLike, /) -> AnyTrace: ...


COLUMNS = ("high resolution", "low resolution", "low, as alpha")  # after the photograph
ABREAST = 2  # models side by side: the captions of more cannot be read
MOST = ABREAST * (1 + len(COLUMNS))  # panels side by side
FINE = ("input", "gradient", "bin")  # depths whose maps are too fine for an alpha channel


def depth_sheet(
    explanations: Sequence[Explanation],
    *,
    cmap: str = "safe",
    height: int = 240,
    scale: float | str | None = SCALE,
    smooth: bool = False,
) -> Image:
    """Photographs at several depths: a row per photograph and target, a column per depth.

    More panels than two models have in `sheet` (8) continue on further rows, and captions name the depths.

    Parameters
    ----------
    explanations : sequence of Explanation
        Of one or more traces, target by target, the same depths for each.
    cmap, scale
        As for `Explanation.to_image`. Unless `scale` is a number, every heatmap has its own scale, since depths differ
        by orders of magnitude.
    smooth : bool
        As for `Explanation.to_image`; captions say so.
    height : int
        Pixels of a panel.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ValueError
        No explanations, or depths that are not the same in every row.
    """
    if not len(explanations):
        raise ValueError("explanations must hold at least one Explanation, got none")
    depths = list(dict.fromkeys(ex.depth for ex in explanations))
    rows = [explanations[at : at + len(depths)] for at in range(0, len(explanations), len(depths))]
    if any([ex.depth for ex in row] != depths for row in rows):
        raise ValueError("explanations must list the same depths, in the same order, for every photograph and target")
    titles = ["photograph", *depths, "alpha"]
    broken = len(titles) > MOST
    grid = [
        [
            render.Panel(row[0].image, _label(row[0])),
            *(_panel(ex, cmap, scale, smooth, ex.depth if broken else "") for ex in row),
            _alpha_panel(_low(row), scale, smooth),
        ]
        for row in rows
    ]
    if broken:
        lines = [row[at : at + MOST] for row in grid for at in range(0, len(row), MOST)]
        return render.sheet(lines, height=height, bar=cmap, scale=scale)
    return render.sheet(grid, column_titles=titles, height=height, bar=cmap, scale=scale)


def _panel(ex: Explanation, cmap: str, scale: float | str | None, smooth: bool, title: str = "") -> render.Panel:
    """A heatmap: `title`, if any, its ledger, and how it was smoothed."""
    heatmap, words = ex.shown(smooth)
    picture = render.to_image(heatmap, cmap=cmap, scale=scale, seen=ex.holds)
    return render.Panel(picture, "\n".join(filter(None, (title, captions.brief(ex.ledger), *_lines(words)))))


def _alpha_panel(ex: Explanation, scale: float | str | None, smooth: bool) -> render.Panel:
    """The photograph with positive relevance as its alpha channel."""
    heatmap, words = ex.shown(smooth)
    picture = render.hatched(render.alpha(ex.image, heatmap, scale=scale), ex.holds)
    what = f"positive, {ex.depth}" if (heatmap > 0).any() else f"nothing positive\n{ex.depth}"
    return render.Panel(picture, "\n".join([what, *_lines(words)]))


def _lines(words: str) -> list[str]:
    """What was smoothed, in lines as narrow as a panel."""
    return words.split(", ") if words else []


def _label(ex: Explanation) -> str:
    """The words below a photograph: target, score, the resolution at which it was seen where that differs, region."""
    seen, region = captions.brief_seen(ex.seen, ex.image.shape), captions.brief_region(ex.region)
    return "\n".join(filter(None, (str(ex.target), f"score {ex.score:+.2f}", seen, region)))


def _low(row: Sequence[Explanation]) -> Explanation:
    """The low-resolution map that the paper shows as alpha channel: the finest of the coarse depths, if any."""
    coarse = [ex for ex in row if ex.depth not in (*FINE, "vector")]
    return coarse[-1] if coarse else row[0]


def sheet(
    models: Traces | Sequence[Traces],
    images: Sequence[ImageLike],
    targets: Sequence[One | Sequence[One]],
    *,
    names: Sequence[str] | None = None,
    depths: Sequence[Sequence[str] | None] | None = None,
    cmap: str = "paper",
    height: int = 200,
    scale: float | str | None = SCALE,
    smooth: bool = False,
) -> Image:
    """Figure 1 of the paper: for each model the photograph, its heatmap at high and at low resolution, and alpha.

    Parameters
    ----------
    models : classifier, or sequence of them
        Rules are the paper's: alpha-beta with alpha 2 and beta 1 for networks without attention, the defaults for all
        others. For other rules, give explanations to `Explanation.to_image` or `overlay`.
    images : sequence of paths, PIL images or arrays
        A row each.
    targets : sequence
        The class to explain in each image: one for all models, or a tuple or list of one for each.
    names : sequence of str, optional
        Titles of the models. Two stand side by side; more stand one below the other, photograph by photograph.
    depths : sequence of (high, low), optional
        Depths of each model. None, for all models or for one: "bin" and "descriptor" of a Fisher vector, the input and
        the first block of stride 8 of a network.
    cmap, scale
        As `Explanation.to_image` takes them; without a number every heatmap has a scale of its own.
    smooth : bool
        As for `Explanation.to_image`; captions say so.
    height : int
        Pixels of a panel.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    TypeError
        One of `models` is not a classifier.
    ValueError
        Lengths that do not match, an unknown target, or an image that cannot be explained.

    Examples
    --------
    >>> from skimage import data
    >>> picture = fvlrp.sheet([fvlrp.load("voc20")], [data.chelsea()], ["cat"])
    >>> picture.save("figure1.png")
    """
    models = list(models) if isinstance(models, Sequence) else [models]
    if not models:
        raise ValueError("models must hold at least one classifier, got none")
    images = batch(images)
    if isinstance(targets, str) or not isinstance(targets, Sequence | np.ndarray):
        raise ValueError(f"targets must be a sequence of one class per image, got {targets!r}: [{targets!r}]?")
    if not all(hasattr(model, "trace") for model in models):
        raise TypeError(f"models must be classifiers, got {next(m for m in models if not hasattr(m, 'trace'))!r}")
    if len(images) != len(targets):
        raise ValueError(f"targets must name one class per image: {len(images)} images, {len(targets)} targets")
    if names is None:
        names = [type(model).__name__ for model in models]
    if len(names) != len(models):
        raise ValueError(f"names must title every model: {len(models)} models, {len(names)} names")
    depths = [None] * len(models) if depths is None else depths
    if len(depths) != len(models):
        raise ValueError(f"depths must hold high and low of each model: {len(models)} models, {len(depths)} entries")
    pairs = [high_and_low(model.menu, own) for model, own in zip(models, depths, strict=True)]
    wanted = [_each(target, len(models)) for target in targets]
    for each in wanted:
        for model, target in zip(models, each, strict=True):
            model.menu.check(target)  # all of them before any work
    rows = [
        sheet_row(
            [naming(images, i, model.trace) for model in models], each, pairs, cmap=cmap, scale=scale, smooth=smooth
        )
        for i, each in enumerate(wanted)
    ]
    return sheet_of(rows, names, cmap=cmap, height=height, scale=scale)


def _each(target: One | Sequence[One], count: int) -> list[One]:
    """The class to explain of each of `count` models: `target`, or its own of a sequence."""
    if not isinstance(target, tuple | list | np.ndarray) or not np.ndim(target):
        return [cast("One", target)] * count
    if len(target) != count:
        raise ValueError(f"targets must hold one class per model: {count} models, got {tuple(target)!r}")
    return list(target)


def high_and_low(menu: Menu[object], depths: Sequence[str] | None) -> tuple[str, str]:
    """The depths of high and low resolution that a sheet shows of a model; None: its own.

    Raises
    ------
    ValueError
        An unknown depth, or not two of them.
    """
    if depths is None:
        high, low = menu.figure_depths
        return high, low
    found = [menu.depth(depth) for depth in listed(depths)]
    if len(found) != 2:
        raise ValueError(f"depths must be two for each model, of high and of low resolution, got {depths!r}")
    return found[0], found[1]


def sheet_row(
    traces: Sequence[AnyTrace],
    targets: Sequence[One],
    depths: Sequence[tuple[str, str]],
    *,
    cmap: str = "paper",
    scale: float | str | None = SCALE,
    smooth: bool = False,
) -> list[render.Panel]:
    """A row of `sheet`: one photograph, traced by every model: the class to explain of each, its high and low depth."""
    row = []
    for trace, name, own in zip(traces, targets, depths, strict=True):
        high, low = trace.explain(name, own, trace.menu.figure_rules)
        row += [
            render.Panel(high.image, _label(high)),
            _panel(high, cmap, scale, smooth, high.depth),
            _panel(low, cmap, scale, smooth, low.depth),
            _alpha_panel(low, scale, smooth),
        ]
    return row


def sheet_of(
    rows: Sequence[Sequence[render.Panel]],
    names: Sequence[str],
    *,
    cmap: str = "paper",
    height: int = 200,
    scale: float | str | None = SCALE,
) -> Image:
    """The sheet of rows that `sheet_row` made, with the titles of the models; more than ABREAST get a row each."""
    if len(names) > ABREAST:
        width = len(COLUMNS) + 1
        lines = [row[at : at + width] for row in rows for at in range(0, len(row), width)]
        heads, sides = ["photograph", *COLUMNS], [*names] * len(rows)
        return render.sheet(lines, row_titles=sides, column_titles=heads, height=height, bar=cmap, scale=scale)
    titles = [title for name in names for title in (name, *COLUMNS)]
    return render.sheet(rows, column_titles=titles, height=height, bar=cmap, scale=scale)
