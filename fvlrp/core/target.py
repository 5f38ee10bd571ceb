"""Targets: what an explanation is of, one class or the difference of two (`Contrast`). For core and both stacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, TypeAlias, cast

import numpy as np
import numpy.typing as npt

# A class, as in `classes_` and files; any spelling of one target; one or several targets; one or several depths.
Label: TypeAlias = "str | int | float"
One: TypeAlias = "Label | SupportsIndex | Contrast | Target"
Targets: TypeAlias = "One | Iterable[One] | None"
Depths: TypeAlias = "str | SupportsIndex | Iterable[str | SupportsIndex] | None"


@dataclass(frozen=True)
class Contrast:
    """A contrastive target: why one class scores higher than another.

    The explained score is the difference of the two scores. Relevance is linear in the score, so the heatmap is the
    difference of the two heatmaps, unless the rules depend on the target.

    Parameters
    ----------
    target, against : class names or values of ``classes_``

    Examples
    --------
    >>> from skimage import data
    >>> clf = fvlrp.load("voc20")
    >>> ex = clf.explain(data.chelsea(), fvlrp.Contrast("cat", "dog"))
    >>> print(ex.target)
    cat - dog
    >>> trace = clf.trace(data.chelsea())
    >>> scores = dict(zip(clf.classes_, trace.scores))
    >>> bool(np.isclose(ex.score, scores["cat"] - scores["dog"]))
    True
    """

    target: Label | SupportsIndex
    against: Label | SupportsIndex

    def __str__(self) -> str:
        return f"{self.target} - {self.against}"


@dataclass(frozen=True)
class Target:
    """A target resolved among a model's classes.

    Attributes
    ----------
    label : class, or Contrast of two
        The name in explanations and files.
    terms : tuple of (int, float)
        Positions among the model's scores and their coefficients: the explained score is their weighted sum.
    """

    label: Label | Contrast
    terms: tuple[tuple[int, float], ...]

    def score(self, scores: npt.NDArray[np.float64]) -> float:
        """The explained score, from the scores of all classes (n_classes,)."""
        return float(sum(coefficient * scores[position] for position, coefficient in self.terms))

    def coefficients(self, count: int) -> npt.NDArray[np.float64]:
        """The terms as a vector over `count` scores."""
        vector = np.zeros(count)
        for position, coefficient in self.terms:
            vector[position] += coefficient
        return vector


def plain(name: object) -> Label:
    """A class, or a contrast of two, as a value for JSON."""
    return name if isinstance(name, str | int | float) else str(name)


def listed(value: One | Iterable[One]) -> list[One]:
    """`value` as a list: its items if it is a sequence, itself if it is a single target or depth."""
    return list(cast("Iterable[One]", value)) if several(value) else [cast("One", value)]


def several(value: object) -> bool:
    """Whether `value` is a sequence of targets or depths."""
    if isinstance(value, str | Contrast):
        return False
    return hasattr(value, "to_numpy") or (isinstance(value, Sequence | np.ndarray) and np.ndim(value) > 0)
