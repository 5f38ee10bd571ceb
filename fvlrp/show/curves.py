"""Figures of curves with error bands, by Matplotlib (the extra "plot"), in colours suitable for colour-blind readers.

For evaluate and everything above it. Does not change Matplotlib's global state or open windows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..data.files import atomic_write
from ..runtime.types import Untyped

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too light for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SUFFIXES = (".png", ".svg", ".pdf")
LONGEST = 18  # letters of a tick
ACROSS = 2  # panels: a figure of this width can be read on a phone


@dataclass(frozen=True, eq=False)
class Line:
    """One curve: `y` over 0, 1, 2 ... or `x`, perhaps between `low` and `high`; dashed for what it is compared with."""

    label: str
    y: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64] | None = None
    high: npt.NDArray[np.float64] | None = None
    x: npt.NDArray[np.float64] | None = None
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """Axes of a figure: curves under a title.

    `ticks` name the positions 0, 1, 2 ... of the x axis; `pictures`, RGB arrays, are shown below them, under a
    `caption`. `limits` are the least and the largest y of panels that are compared.
    """

    lines: Sequence[Line]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    ticks: Sequence[str] | None = None
    pictures: Sequence[npt.NDArray[np.uint8]] | None = None
    caption: str = ""
    limits: tuple[float, float] | None = None


def check_path(path: str | os.PathLike[str]) -> Path:
    """`path`; ValueError unless its suffix is one that a figure can be written as."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"path must end in {', '.join(SUFFIXES)}, got {os.fspath(path)!r}")
    return Path(path)


def figure(panels: Sequence[Panel]) -> Figure:
    """Panels, two to a row, in one Matplotlib figure. A label has one colour in all of them.

    Raises
    ------
    ImportError
        Matplotlib, the extra ``plot``, is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a figure needs Matplotlib: pip install 'fvlrp[plot]'") from None
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    columns, rows = min(ACROSS, len(panels)), -(-len(panels) // ACROSS)
    pictured = any(panel.pictures for panel in panels)
    height = 4.1 if pictured else 2.9
    drawn = Figure(figsize=(3.2 * columns + 0.4, height * rows + 0.6), layout="constrained", dpi=200)
    marks: dict[str, Artist] = {}
    parts: Untyped = drawn.subfigures(rows, columns, squeeze=False).ravel()
    for part, panel in zip(parts[: len(panels)], panels, strict=True):
        if not pictured:
            marks |= _draw(part.subplots(), panel, labels)
            continue
        above, below = part.subfigures(2, 1, height_ratios=(3, 1))
        marks |= _draw(above.subplots(), panel, labels)
        shown = list(panel.pictures or [])
        if shown and panel.caption:
            below.suptitle(panel.caption, fontsize="medium")
        for i, axes in enumerate(below.subplots(1, max(1, len(shown)), squeeze=False)[0]):
            axes.axis("off")
            if shown:
                axes.imshow(shown[i])
    if marks:
        across = min(len(marks), 2 * columns + 1)
        drawn.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=across, frameon=False)
    return drawn


def save(panels: Sequence[Panel], path: str | os.PathLike[str]) -> None:
    """Write the figure of `panels` to `path` (.png, .svg or .pdf), atomically. Raises as `figure` does, and OSError."""
    suffix = check_path(path).suffix.lower()
    buffer = io.BytesIO()
    figure(panels).savefig(buffer, format=suffix[1:])
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def _draw(axes: Axes, panel: Panel, labels: Sequence[str]) -> dict[str, Artist]:
    """Draw a panel; what stands for each label in a legend."""
    marks: dict[str, Artist] = {}
    for line in panel.lines:
        x = np.arange(len(line.y), dtype=np.float64) if line.x is None else line.x
        colour = COLOURS[labels.index(line.label) % len(COLOURS)]
        mark = "o" if panel.ticks is not None and not line.dashed else ""
        style = "--" if line.dashed else "-"
        (marks[line.label],) = axes.plot(x, line.y, color=colour, linestyle=style, marker=mark, label=line.label)
        if line.low is not None and line.high is not None:
            axes.fill_between(x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    if panel.ticks is not None:
        axes.set_xticks(range(len(panel.ticks)), [_short(tick) for tick in panel.ticks], rotation=20, ha="right")
        axes.margins(x=0.15)
    if panel.limits is not None and panel.limits[0] < panel.limits[1]:
        room = 0.05 * (panel.limits[1] - panel.limits[0])
        axes.set_ylim(panel.limits[0] - room, panel.limits[1] + room)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return marks


def _short(name: str) -> str:
    """A name of a layer that leaves room for the curves."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2 - 1]}…{name[-LONGEST // 2 :]}"
