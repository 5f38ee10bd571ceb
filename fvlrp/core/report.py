"""Reports of explanations: a self-contained HTML file, and the output of a notebook's cell.

Turns explanations into the plain values from which `show.report` builds the page. For `Explanation.report`, the command
line and users.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date as calendar
from itertools import groupby
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..data.files import atomic_write
from ..show import report as page
from ..show.colours import MAPS, SCALE, Scale
from ..show.smoothing import Smoothing
from . import captions
from .ledger import MEANINGS, Ledger
from .seen import Seen
from .target import Contrast, Label

TITLE = "Why the classifier decided"
ABOUT = (
    "Colours at the right of the bar mark evidence for the class, those at the left evidence against it; the middle is "
    "neutral. Every heatmap has its own scale."
)
CELL_HEIGHT = 640  # pixels of a notebook's cell


class Explained(Protocol):
    """The attributes of an `Explanation` that a report reads."""

    @property
    def heatmap(self) -> npt.NDArray[np.float64]: ...
    @property
    def score(self) -> float: ...
    @property
    def target(self) -> Label | Contrast: ...
    @property
    def depth(self) -> str: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def image(self) -> npt.NDArray[np.uint8]: ...
    @property
    def seen(self) -> Seen: ...
    @property
    def model(self) -> str: ...
    @property
    def best(self) -> Sequence[tuple[Label, float]]: ...
    @property
    def region(self) -> Sequence[int] | None: ...
    @property
    def holds(self) -> tuple[int, int, int, int]: ...
    @property
    def smoothing(self) -> Smoothing | None: ...


# Name of the photograph, explanations, and optionally the name of the model.
Groups: TypeAlias = "Iterable[tuple[str, Sequence[Explained]] | tuple[str, Sequence[Explained], str]]"


def html(
    groups: Groups,
    title: str = TITLE,
    failed: Sequence[Mapping[str, str]] = (),
    cmap: str = "safe",
    *,
    scale: Scale = SCALE,
    smooth: bool = False,
    date: str | None = None,
) -> str:
    """The report as a string; parameters and errors are those of `write`."""
    return "".join(_pieces(groups, title, failed, cmap, scale, smooth, date))


def write(
    path: str | os.PathLike[str],
    groups: Groups,
    title: str = TITLE,
    failed: Sequence[Mapping[str, str]] = (),
    cmap: str = "safe",
    *,
    scale: Scale = SCALE,
    smooth: bool = False,
    date: str | None = None,
) -> None:
    """Write the report atomically. `groups` may be a generator: only one group at a time is in memory.

    Parameters
    ----------
    path : path
    groups : iterable of (name, explanations) or (name, explanations, model)
        Explanations of one photograph by one model for any targets, at any depths from coarse to fine, and the name of
        the model. Consecutive groups of the same name and photograph are shown side by side, as different models.
    title : str
    failed : sequence of {"photo": ..., "error": ...}
        Photographs that could not be explained, listed at the end; the list may grow while `groups` is read.
    cmap : {"safe", "paper", "grey"}
        The initial colour map.
    scale : float, str or None
        The |R| at the end of the colour map; "99.5%" is a percentile; None is each map's largest.
    smooth : bool
        Whether the maps of a network's layers are smoothed at first; the reader can switch it.
    date : str, optional
        None: today.

    Raises
    ------
    ValueError
        `cmap` is unknown, or a group is empty.
    OSError
        The file cannot be written.
    """
    with atomic_write(path) as file:
        for piece in _pieces(groups, title, failed, cmap, scale, smooth, date):
            file.write(piece.encode(errors="replace"))


def cell(explanations: Sequence[Explained]) -> str:
    """The output of a notebook's cell for explanations of one target: a small report in a frame."""
    photographs = _photographs([("", explanations)])
    explanation = explanations[0]
    title = f"{explanation.target}, score {captions.amount(explanation.score)}"
    made = page.pieces(photographs, title=title, about="", meanings=MEANINGS, cmap="safe", small=True)
    return page.frame("".join(made), CELL_HEIGHT)


def _pieces(
    groups: Groups,
    title: str,
    failed: Sequence[Mapping[str, str]],
    cmap: str,
    scale: Scale,
    smooth: bool,
    date: str | None,
) -> Iterator[str]:
    if cmap not in MAPS:
        raise ValueError(f"cmap must be one of {', '.join(MAPS)}, got {cmap!r}")
    day = calendar.today().isoformat() if date is None else date
    return page.pieces(
        _photographs(groups),
        title=title,
        about=f"{day}. {ABOUT}",
        meanings=MEANINGS,
        cmap=cmap,
        scale=scale,
        smooth=smooth,
        failed=failed,
    )


def _photographs(groups: Groups) -> Iterator[page.Photograph]:
    """Consecutive groups of the same photograph, merged."""
    name, image, viewers = "", None, []
    for own, explanations, *called in groups:
        if not explanations:
            raise ValueError(f"the group {own!r} holds no explanation")
        first = explanations[0]
        if image is not None and not (own == name and _same(image, first.image)):
            yield page.Photograph(name, image, viewers)
            viewers = []
        name, image = own, first.image
        model = ", ".join([*called, first.model])
        best = [(str(c), score) for c, score in first.best]
        resolution = captions.seen(first.seen, image.shape)
        viewers.append(page.Viewer(model, _targets(explanations), best, resolution))
    if image is not None:
        yield page.Photograph(name, image, viewers)


def _same(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> bool:
    return one is other or np.array_equal(one, other)


def _targets(explanations: Sequence[Explained]) -> list[page.Target]:
    targets = []
    for name, run in groupby(explanations, key=lambda ex: str(ex.target)):
        own = list(run)
        targets.append(page.Target(name, own[0].score, list(map(_map, own))))
    return targets


def _map(ex: Explained) -> page.Map:
    words = f"{captions.words(ex.ledger)} {captions.region(ex.region, ex.depth)}".strip()
    return page.Map(ex.depth, ex.heatmap, ex.ledger.to_dict(), words, ex.holds, ex.smoothing)
