"""Whether a heatmap points at the object: context μ, relevance mass, the pointing game, and the centred Gaussian.

Photographers put objects in the centre, so even a map that always points at the centre scores well. The centred
Gaussian is that baseline. For the study and users.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..runtime.arguments import is_real
from .maps import check_heatmap

GAUSSIAN = 0.25  # standard deviation of the centred Gaussian, of either side of the image


def context(heatmap: npt.ArrayLike, boxes: npt.ArrayLike) -> float:
    """The share of context μ: mean positive relevance outside the boxes over the mean inside them.

    A low μ means that the classifier looks at the object, a μ near 1 that it looks everywhere. The distribution over
    images has a long tail: report the median as well as the mean (`bootstrap`), over true positives.

    Parameters
    ----------
    heatmap : array (H, W)
        Relevance; negative values count as 0.
    boxes : array (m, 4)
        ymin, xmin, ymax, xmax of every object of the class, 0-based and half-open; "inside" is their union.

    Returns
    -------
    float
        NaN if the boxes cover nothing or everything, or contain no positive relevance.

    Raises
    ------
    ValueError
        `heatmap` is not a finite (H, W) array or `boxes` not (m, 4).

    Examples
    --------
    >>> heatmap = np.ones((10, 10))
    >>> heatmap[2:6, 2:6] = 4
    >>> fvlrp.evaluate.context(heatmap, [[2, 2, 6, 6]])
    0.25
    """
    positive = np.maximum(check_heatmap(heatmap), 0)
    inside = _inside(boxes, positive.shape)
    if not inside.any() or inside.all():
        return float("nan")
    within = positive[inside].mean()
    return float(positive[~inside].mean() / within) if within > 0 else float("nan")


def relevance_mass(heatmap: npt.ArrayLike, boxes: npt.ArrayLike) -> float:
    """The fraction of positive relevance that lies inside the union of `boxes`, in [0, 1].

    Arguments and errors are those of `context`; NaN without boxes or without positive relevance.

    Examples
    --------
    >>> heatmap = np.ones((10, 10))
    >>> fvlrp.evaluate.relevance_mass(heatmap, [[0, 0, 5, 10]])
    0.5
    """
    positive = np.maximum(check_heatmap(heatmap), 0)
    inside = _inside(boxes, positive.shape)
    total = positive.sum()
    return float(positive[inside].sum() / total) if inside.any() and total > 0 else float("nan")


def pointing_game(heatmap: npt.ArrayLike, boxes: npt.ArrayLike, tolerance: float = 15) -> float:
    """Whether the most relevant pixel points at an object: 1.0 or 0.0 (Zhang et al., ECCV 2016).

    Parameters
    ----------
    heatmap : array (H, W)
        Relevance. Among equal maxima, the first in row order counts; a map without positive relevance misses.
    boxes : array (m, 4)
        As in `context`.
    tolerance : float
        Greatest distance in pixels, Euclidean, from the pixel to a pixel of a box.

    Returns
    -------
    float
        NaN if no box covers a pixel.

    Raises
    ------
    ValueError
        As `context` raises, or `tolerance` is negative.

    Examples
    --------
    >>> heatmap = np.zeros((40, 40))
    >>> heatmap[4, 4] = 1
    >>> [fvlrp.evaluate.pointing_game(heatmap, [box]) for box in ([0, 0, 10, 10], [30, 30, 40, 40])]
    [1.0, 0.0]
    """
    if not (is_real(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance is {tolerance!r}; expected a distance in pixels, 0 or more")
    plane = check_heatmap(heatmap)
    clipped = _clipped(boxes, plane.shape)
    if len(clipped) == 0:
        return float("nan")
    y, x = np.unravel_index(np.argmax(plane), plane.shape)
    if plane[y, x] <= 0:
        return 0.0
    ymin, xmin, ymax, xmax = clipped.T
    down = np.maximum(np.maximum(ymin - y, y - (ymax - 1)), 0)
    across = np.maximum(np.maximum(xmin - x, x - (xmax - 1)), 0)
    return float(np.hypot(down, across).min() <= tolerance)


def centred_gaussian(height: int, width: int) -> npt.NDArray[np.float64]:
    """The baseline map that always points at the centre: a Gaussian, float64 (height, width), 1 at the centre.

    Its standard deviations are a quarter of the height and of the width.

    Examples
    --------
    >>> fvlrp.evaluate.centred_gaussian(3, 3).round(2)
    array([[0.17, 0.41, 0.17],
           [0.41, 1.  , 0.41],
           [0.17, 0.41, 0.17]])
    """
    y, x = (((np.arange(n) - (n - 1) / 2) / (GAUSSIAN * n)) ** 2 for n in (height, width))
    return np.exp(-(y[:, None] + x[None, :]) / 2)


class Localisation(NamedTuple):
    """How well one map points at the boxes.

    Examples
    --------
    >>> fvlrp.evaluate.Localisation._fields
    ('context', 'mass', 'pointing')
    """

    context: float
    mass: float
    pointing: float


def localisation(
    heatmap: npt.ArrayLike, boxes: npt.ArrayLike, tolerance: float = 15
) -> tuple[Localisation, Localisation]:
    """Context, relevance mass and pointing game of a map, and those of the centred Gaussian of the same size.

    Arguments and errors are those of the three measures.

    Examples
    --------
    >>> own, guess = fvlrp.evaluate.localisation(np.eye(40), [[10, 10, 30, 30]])
    >>> own.context < guess.context
    False
    """
    plane = check_heatmap(heatmap)
    height, width = plane.shape

    def measured(one: npt.NDArray[np.float64]) -> Localisation:
        return Localisation(context(one, boxes), relevance_mass(one, boxes), pointing_game(one, boxes, tolerance))

    return measured(plane), measured(centred_gaussian(height, width))


def _clipped(boxes: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The boxes inside an image of `shape`, without those that cover none of its pixels: (m', 4)."""
    corners = np.asarray(boxes, dtype=np.float64)
    if corners.size == 0:
        return np.empty((0, 4), np.int64)
    if corners.ndim != 2 or corners.shape[1] != 4 or not np.isfinite(corners).all():
        raise ValueError(f"boxes has shape {corners.shape}; expected (m, 4) of finite ymin, xmin, ymax, xmax")
    whole = np.clip(np.rint(corners).astype(np.int64), 0, [*shape, *shape])
    return np.asarray(whole[(whole[:, 0] < whole[:, 2]) & (whole[:, 1] < whole[:, 3])])


def _inside(boxes: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    for ymin, xmin, ymax, xmax in _clipped(boxes, shape):
        inside[ymin:ymax, xmin:xmax] = True
    return inside
