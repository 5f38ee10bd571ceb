"""How well scores rank images: VOC's average precision.

For the models' `score`, the command line and users.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..runtime.types import Values

METHODS = ("11point", "area")
TIES = ("scores", "rows")


def average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, method: str = "11point", *, ties: str = "scores"
) -> float | npt.NDArray[np.float64]:
    """VOC's average precision of each class.

    Parameters
    ----------
    labels : array (n,) or (n, n_classes)
        1, 0 (difficult: ignored) and -1; or, where no -1 occurs, 1 and 0 (absent); or bool.
    scores : array, the shape of `labels`
        Higher means more likely present.
    method : "11point" or "area"
        The mean over recalls 0, .1, .. 1 of the best precision at that recall or beyond (VOC 2007, and Table 1 of the
        paper); or the area under that non-increasing precision (VOC 2010 and later).
    ties : "scores" or "rows"
        "scores": one threshold per distinct score, as in scikit-learn; the order of the rows does not matter. "rows":
        one threshold per row, equal scores in the order of the rows, as VOC's own code.

    Returns
    -------
    float or float64 (n_classes,)
        In [0, 1]; NaN for a class without positives.

    Raises
    ------
    ValueError
        Shapes differ, labels hold other values, a score is NaN, or `method` or `ties` is unknown.

    Examples
    --------
    >>> fvlrp.evaluate.average_precision(np.array([1, -1, 1, -1]), np.array([0.9, 0.8, 0.7, 0.1]), "area")
    0.8333333333333333
    """
    for name, value, valid in (("method", method, METHODS), ("ties", ties, TIES)):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; expected {valid[0]!r} or {valid[1]!r}")
    given, ranks = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if given.ndim not in (1, 2) or given.shape != ranks.shape:
        raise ValueError(f"labels {given.shape} and scores {ranks.shape} must both be (n,) or (n, n_classes)")
    if np.isnan(ranks).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(ranks))} scores are NaN, which has no rank")
    signs = _signs(given)
    if given.ndim == 1:
        return _of_class(signs, ranks, method, ties)
    return np.array([_of_class(signs[:, c], ranks[:, c], method, ties) for c in range(given.shape[1])])


def _signs(labels: Values) -> npt.NDArray[np.int8]:
    """Labels as int8 of 1, 0 (ignored) and -1. Whether 0 means absent is decided for all classes together, since a
    single class may happen to have no -1."""
    if labels.dtype == np.bool_:
        return np.where(labels, 1, -1).astype(np.int8)
    values = np.unique(labels)
    if not np.isin(values, (-1, 0, 1)).all():
        raise ValueError(f"labels hold {values[:5]}; expected 1, 0 (ignored) and -1, or 1 and 0, or bool")
    signs = labels.astype(np.int8)
    return signs if -1 in values else np.where(signs == 1, 1, -1).astype(np.int8)


def _of_class(signs: npt.NDArray[np.int8], scores: npt.NDArray[np.float64], method: str, ties: str) -> float:
    kept = signs != 0
    signs, scores = signs[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")
    hits, rank = np.cumsum(signs[order] > 0, dtype=np.int64), np.arange(1, len(order) + 1)
    if len(hits) == 0 or hits[-1] == 0:
        return float("nan")
    if ties == "scores":
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of the rows that share a score
        hits, rank = hits[last], rank[last]
    best = np.maximum.accumulate((hits / rank)[::-1])[::-1]  # precision at this threshold or any lower one
    return _eleven_points(hits, best) if method == "11point" else _area(hits, best)


def _eleven_points(hits: npt.NDArray[np.int64], best: npt.NDArray[np.float64]) -> float:
    # recall >= t / 10 in integers: 3 / 10 and .1 * 3 are different floats.
    first = np.searchsorted(10 * hits, np.arange(11) * hits[-1])
    return float(best[first].mean())


def _area(hits: npt.NDArray[np.int64], best: npt.NDArray[np.float64]) -> float:
    return float(np.diff(hits, prepend=0) @ best / hits[-1])
