"""Reports of explanations: one HTML file that works offline, and the cell that a notebook shows.

Explanations become plain values here; `show.report` makes the page of them. For `Explanation.report`, the command line
and users.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date as calendar
from itertools import groupby
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..data.files import atomic_write
from ..show import report as page
from ..show.colours import MAPS, SCALE, Scale
from . import captions
from .ledger import MEANINGS, Ledger

TITLE = "Why the classifier decided"
ABOUT = (
    "What speaks for the class has the colours at the right of the bar, what speaks against it those at the left; its "
    "middle is neutral. Every heatmap has a scale of its own."
)
CELL_HEIGHT = 640  # pixels of a notebook's cell


class Explained(Protocol):
    """What a report takes of an `Explanation`."""

    @property
    def heatmap(self) -> npt.NDArray[np.float64]: ...
    @property
    def score(self) -> float: ...
    @property
    def target(self) -> Any: ...
    @property
    def depth(self) -> str: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def image(self) -> npt.NDArray[np.uint8]: ...
    @property
    def model(self) -> str: ...
    @property
    def best(self) -> Sequence[tuple[Any, float]]: ...


# Photograph, explanations, and what to call the model, where its kind does not say enough.
Groups: TypeAlias = "Iterable[tuple[str, Sequence[Explained]] | tuple[str, Sequence[Explained], str]]"


def html(
    groups: Groups,
    title: str = TITLE,
    failed: Sequence[Mapping[str, str]] = (),
    cmap: str = "paper",
    *,
    scale: Scale = SCALE,
    date: str | None = None,
) -> str:
    """The report as text; parameters and errors as `write`."""
    return "".join(_pieces(groups, title, failed, cmap, scale, date))


def write(
    path: str | os.PathLike[str],
    groups: Groups,
    title: str = TITLE,
    failed: Sequence[Mapping[str, str]] = (),
    cmap: str = "paper",
    *,
    scale: Scale = SCALE,
    date: str | None = None,
) -> None:
    """Write the report, atomically and photograph by photograph: of a generator, one group at a time is in memory.

    Parameters
    ----------
    path : path
    groups : iterable of (name, explanations) or (name, explanations, model)
        Explanations of one photograph by one model, of any targets at any depths, coarse to fine, and what to call the
        model. Groups of the same name and photograph that follow each other are models side by side.
    title : str
    failed : sequence of {"photo": ..., "error": ...}
        Photographs that could not be explained, listed at the end; it may grow while `groups` are read.
    cmap : {"paper", "safe", "grey"}
        The colour map that is shown first.
    scale : float, str or None
        |R| at the end of the colour map; "99.5%" is a percentile; None is each map's largest.
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
        for piece in _pieces(groups, title, failed, cmap, scale, date):
            file.write(piece.encode(errors="replace"))


def cell(explanations: Sequence[Explained]) -> str:
    """What a notebook shows of explanations of one target: the same page, small, in a frame of its own."""
    photographs = _photographs([("", explanations)])
    explanation = explanations[0]
    title = f"{explanation.target}, score {captions.amount(explanation.score)}"
    made = page.pieces(photographs, title=title, about="", meanings=MEANINGS, cmap="paper", small=True)
    return page.frame("".join(made), CELL_HEIGHT)


def _pieces(
    groups: Groups, title: str, failed: Sequence[Mapping[str, str]], cmap: str, scale: Scale, date: str | None
) -> Iterator[str]:
    if cmap not in MAPS:
        raise ValueError(f"cmap is {cmap!r}, which is no colour map of fvlrp; choose one of {', '.join(MAPS)}")
    day = calendar.today().isoformat() if date is None else date
    return page.pieces(
        _photographs(groups),
        title=title,
        about=f"{day}. {ABOUT}",
        meanings=MEANINGS,
        cmap=cmap,
        scale=scale,
        failed=failed,
    )


def _photographs(groups: Groups) -> Iterator[page.Photograph]:
    """Groups that follow each other and are of one photograph, as one."""
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
        viewers.append(page.Viewer(model, _targets(explanations), [(str(c), score) for c, score in first.best]))
    if image is not None:
        yield page.Photograph(name, image, viewers)


def _same(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> bool:
    return one is other or np.array_equal(one, other)


def _targets(explanations: Sequence[Explained]) -> list[page.Target]:
    targets = []
    for name, run in groupby(explanations, key=lambda ex: str(ex.target)):
        own = list(run)
        maps = [page.Map(ex.depth, ex.heatmap, ex.ledger.to_dict(), captions.words(ex.ledger)) for ex in own]
        targets.append(page.Target(name, own[0].score, maps))
    return targets
