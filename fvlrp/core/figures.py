"""Sheets of explanations: one photograph at every depth, and the paper's Figure 1 for any models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.images import batch, naming
from ..show import render
from .explanation import Explanation
from .trace import Trace


def depth_sheet(
    explanations: Sequence[Explanation], cmap: str = "paper", height: int = 240, scale: str | float | None = "99.5%"
):
    """Photographs at several depths: a row per photograph and target, a column per depth; PIL image.

    `explanations` are those of one or more traces, target by target, the same depths for each. `scale` is as
    `render.colour` takes it: by default every heatmap saturates at the 99.5th percentile of its own |R|, since depths
    differ by orders of magnitude and fine ones have few large values.
    """
    if not len(explanations):
        raise ValueError("explanations must hold at least one Explanation, got none")
    depths = list(dict.fromkeys(ex.depth for ex in explanations))
    rows = [explanations[at : at + len(depths)] for at in range(0, len(explanations), len(depths))]
    if any([ex.depth for ex in row] != depths for row in rows):
        raise ValueError("explanations must list the same depths, in the same order, for every photograph and target")
    grid = []
    for row in rows:
        first = row[0]
        panels = [render.Panel(first.image, f"{first.target}\nscore {first.score:+.2f}")]
        panels += [
            render.Panel(render.colour(ex.heatmap, cmap, scale=scale), f"sum {ex.heatmap.sum():+.3g}") for ex in row
        ]
        grid.append(
            [
                *panels,
                render.Panel(render.alpha(row[0].image, _low(row).heatmap, scale=scale), "positive, low resolution"),
            ]
        )
    return render.sheet(grid, column_titles=["photograph", *depths, "alpha"], height=height, bar=cmap)


FINE = ("input", "gradient", "bin")  # depths whose maps are too fine for an alpha channel


def _low(row: Sequence[Explanation]) -> Explanation:
    """The map of low resolution that the paper shows as alpha: the last of the coarser depths, if there are any."""
    coarse = [ex for ex in row if ex.depth not in (*FINE, "vector")]
    return coarse[-1] if coarse else row[0]


def sheet(
    models: Sequence,
    images: Sequence,
    targets: Sequence,
    *,
    names=None,
    cmap: str = "paper",
    height: int = 200,
    scale: str | float | None = "99.5%",
):
    """Figure 1 of the paper: for each model the photograph, its heatmap at high and at low resolution, and alpha.

    Parameters
    ----------
    models : sequence of classifiers (`FisherVectorClassifier`, `ConvNet`)
        High and low resolution are the model's own: "bin" and "descriptor"; the input and the first layer.
    images : sequence of paths, PIL images or arrays
        A row each.
    targets : sequence
        The class to explain in each image: one for all models, or a tuple or list of one for each.
    names : sequence of str, optional
        Titles of the models.
    scale : as `render.colour` takes it
        By default every heatmap saturates at the 99.5th percentile of its own |R|.

    Returns
    -------
    PIL.Image.Image
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
    targets = [tuple(t) if isinstance(t, list | np.ndarray) and np.ndim(t) else t for t in targets]
    for target in targets:
        if isinstance(target, tuple) and len(target) != len(models):
            raise ValueError(f"targets must hold one class per model: {len(models)} models, got {target!r}")
        for model, own in zip(models, _each(target, models), strict=True):
            model.menu.check(own)  # all of them before any work
    rows = [
        sheet_row([naming(images, i, model.trace) for model in models], target, cmap, scale)
        for i, target in enumerate(targets)
    ]
    return sheet_of(rows, names, cmap, height)


def _each(target, models: Sequence) -> tuple:
    """The class to explain of every model: `target`, or its own of a tuple."""
    return target if isinstance(target, tuple) else (target,) * len(models)


def sheet_row(
    traces: Sequence[Trace], target, cmap: str = "paper", scale: str | float | None = "99.5%"
) -> list[render.Panel]:
    """A row of `sheet`: one photograph, traced by every model."""
    row = []
    for trace, name in zip(traces, _each(target, traces), strict=True):
        high, low = trace.explain(name, trace.menu.figure_depths)
        row += [
            render.Panel(high.image, f"{high.target} {high.score:+.2f}"),
            render.Panel(render.colour(high.heatmap, cmap, scale=scale), f"sum {high.heatmap.sum():+.3g}"),
            render.Panel(render.colour(low.heatmap, cmap, scale=scale), f"sum {low.heatmap.sum():+.3g}"),
            render.Panel(render.alpha(low.image, low.heatmap, scale=scale), ""),
        ]
    return row


def sheet_of(rows: Sequence[Sequence[render.Panel]], names: Sequence[str], cmap: str = "paper", height: int = 200):
    """The sheet of rows that `sheet_row` made, under the titles of the models."""
    titles = [t for name in names for t in (name, "high resolution", "low resolution", "low, as alpha")]
    return render.sheet(rows, column_titles=titles, height=height, bar=cmap)
