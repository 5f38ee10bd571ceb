"""The results of a depth study: measures of every map of every photograph, and their summary as a table and a figure.

Filled by `study`; for its users.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.types import Json
from ..show import curves
from ..show.tables import Cell, Table
from .statistics import Interval, bootstrap

Values: TypeAlias = "npt.NDArray[np.float64]"  # one number per photograph, NaN where it is not defined

BLIND = ("random", "centre", "edge")  # maps that do not depend on the model: noise, a Gaussian, gradient magnitude
NO_RULE = "no model"  # the "rule" of a blind map


@dataclass(frozen=True, eq=False)
class Row:
    """The maps of one model by one rule at one depth, or one kind of blind map.

    Attributes
    ----------
    model, rule, depth : str
        Of a blind map, `rule` is ``NO_RULE`` and `depth` one of ``BLIND``.
    values : mapping of str to float64 (photographs,)
        By measure: "morf" and "lerf" (AOPC), "gap" (their difference), "mass", "pointing", "context" (only for true
        positives), "gini", "resolution" (pixels), "share" (of the score).
    """

    model: str
    rule: str
    depth: str
    values: Mapping[str, Values]


@dataclass(frozen=True, eq=False)
class DepthStudy:
    """Models x rules x depths over photographs.

    Attributes
    ----------
    rows : sequence of Row
    photographs : sequence of str
        Names, in the order of the values.
    settings : mapping
        How maps were measured.
    failed : sequence of {"photo": ..., "model": ..., "error": ...}

    Examples
    --------
    >>> from skimage import data
    >>> cat = fvlrp.evaluate.Case("chelsea", data.chelsea()[::2, ::2], "cat", np.array([[0, 30, 150, 195]]))
    >>> study = fvlrp.evaluate.depth_study({"voc20": fvlrp.load("voc20")}, [cat], steps=10)
    >>> study.models, study.table().columns[:3]
    (['voc20'], ['model', 'rule', 'depth'])
    """

    rows: Sequence[Row]
    photographs: Sequence[str]
    settings: Mapping[str, Json] = field(default_factory=dict)
    failed: Sequence[Mapping[str, str]] = ()

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(row.model for row in self.rows))

    def measured(self, model: str, photograph: str) -> bool:
        """Whether the model's maps of a photograph were measured: the model has the class, and nothing failed."""
        gaps = self.values(model, NO_RULE, "random")
        return not np.isnan(gaps[list(self.photographs).index(photograph)])

    def values(self, model: str, rule: str, depth: str, measure: str = "gap") -> Values:
        """A measure of every photograph. KeyError if there is no such row or measure."""
        for row in self.rows:
            if (row.model, row.rule, row.depth) == (model, rule, depth):
                return row.values[measure]
        known = ", ".join(f"{row.model} {row.rule} {row.depth}" for row in self.rows)
        raise KeyError(f"there is no row {model!r} {rule!r} {depth!r}; rows are {known}")

    def difference(
        self, model: str, one: tuple[str, str], other: tuple[str, str], measure: str = "gap", level: float = 0.95
    ) -> Interval:
        """The difference of a measure between two (rule, depth) pairs of a model: a paired bootstrap interval."""
        values = self.values(model, *one, measure) - self.values(model, *other, measure)
        return bootstrap(values, level=level)

    def table(self) -> Table:
        """A row for each model, rule and depth, with bootstrap intervals; differences are paired by photograph.

        The blind maps come last for each model; a map is useful only as far as it is better than these. Judge context
        by the median μ: a few photographs with hardly any relevance inside the boxes dominate the mean.
        """
        columns = ["model", "rule", "depth", "gap", "gap - random", "AOPC", "mass", "mass - centre", "pointing"]
        columns += ["median μ", "mean μ", "Gini", "resolution", "median share", "photographs"]
        rows: list[list[Cell]] = []
        for row in self.rows:
            random, centre = (self.values(row.model, NO_RULE, blind, measure) for blind, measure in _BESIDE)
            blind = row.rule == NO_RULE
            rows.append(
                [
                    *(row.model, row.rule, row.depth),
                    bootstrap(row.values["gap"]),
                    None if row.depth == "random" else bootstrap(row.values["gap"] - random),
                    bootstrap(row.values["morf"]),
                    bootstrap(row.values["mass"]),
                    None if row.depth == "centre" else bootstrap(row.values["mass"] - centre),
                    bootstrap(row.values["pointing"]),
                    bootstrap(row.values["context"], statistic="median"),
                    _mean(row.values["context"]) if _any(row.values["context"]) else None,
                    float(np.nanmean(row.values["gini"])) if _any(row.values["gini"]) else None,
                    float(np.nanmean(row.values["resolution"])) if _any(row.values["resolution"]) else None,
                    None if blind else bootstrap(row.values["share"], statistic="median"),
                    int(np.count_nonzero(~np.isnan(row.values["gap"]))),
                ]
            )
        return Table(columns, rows)

    def panels(
        self,
        pictures: Mapping[str, Sequence[npt.NDArray[np.uint8]]] | None = None,
        captions: Mapping[str, str] | None = None,
    ) -> list[curves.Panel]:
        """The gap against depth: a panel per model, a curve per rule with its band, dashed lines for the blind maps.

        `pictures` are, by model, RGB pictures to show below its depths; `captions` say what they show.
        """
        panels = []
        for model in self.models:
            own = [row for row in self.rows if row.model == model]
            depths = list(dict.fromkeys(row.depth for row in own if row.rule != NO_RULE))
            rules = list(dict.fromkeys(row.rule for row in own if row.rule != NO_RULE))
            lines = [self._line(rule, [row for row in own if row.rule == rule], depths) for rule in rules]
            for row in own:
                if row.rule == NO_RULE:
                    lines.append(curves.Line(row.depth, np.full(len(depths), _mean(row.values["gap"])), dashed=True))
            shown = (pictures or {}).get(model)
            words = (captions or {}).get(model, "")
            panels.append(curves.Panel(lines, model, "depth", "gap MoRF - LeRF", depths, shown, words))
        return panels

    def figure(
        self,
        path: str | os.PathLike[str],
        pictures: Mapping[str, Sequence[npt.NDArray[np.uint8]]] | None = None,
        captions: Mapping[str, str] | None = None,
    ) -> None:
        """Write `panels` as a figure (.png, .svg or .pdf). Raises as `show.curves.save` does."""
        curves.save(self.panels(pictures, captions), path)

    @staticmethod
    def _line(rule: str, rows: Sequence[Row], depths: Sequence[str]) -> curves.Line:
        found = {row.depth: bootstrap(row.values["gap"]) for row in rows}
        nothing = bootstrap([])
        ends = [(one.mean, one.low, one.high) for one in (found.get(depth, nothing) for depth in depths)]
        y, low, high = np.array(ends).T
        return curves.Line(rule, y, low, high)


_BESIDE = (("random", "gap"), ("centre", "mass"))


def _any(values: Values) -> bool:
    return bool((~np.isnan(values)).any())


def _mean(values: Values) -> float:
    return float(np.nanmean(values)) if _any(values) else float("nan")
