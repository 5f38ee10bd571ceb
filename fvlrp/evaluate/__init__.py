"""How good a classifier and its heatmaps are: average precision, context, localisation, pixel flipping.

Every measure is deterministic: what is drawn at random is drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.images import ImageLike, load
from ..runtime.arguments import is_real, is_whole

ORDERS = ("morf", "lerf", "random")


def average_precision(labels: np.ndarray, scores: np.ndarray, method: str = "11point") -> float | np.ndarray:
    """VOC's average precision of each class.

    Parameters
    ----------
    labels : array (n,) or (n, n_classes)
        1, 0 (difficult: ignored) and -1; or, where no -1 occurs, 1 and 0 (absent); or bool.
    scores : array, the shape of `labels`
        Higher means more likely present. Equal scores keep the order of the rows.
    method : "11point" or "area"
        The mean over recalls 0, .1, .. 1 of the best precision at that recall or beyond (VOC 2007, and Table 1 of the
        paper); or the area under that non-increasing precision (VOC 2010 and later).

    Returns
    -------
    float or ndarray (n_classes,)
        In [0, 1]; NaN for a class without positives.

    Raises
    ------
    ValueError
        Shapes differ, labels hold other values, a score is NaN, or `method` is unknown.
    """
    if method not in ("11point", "area"):
        raise ValueError(f"method is {method!r}; expected '11point' or 'area'")
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim not in (1, 2) or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be (n,) or (n, n_classes)")
    if np.isnan(scores).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(scores))} scores are NaN, which has no rank")
    signs = _signs(labels)
    rank = _eleven_points if method == "11point" else _area
    if labels.ndim == 1:
        return _ranked(signs, scores, rank)
    return np.array([_ranked(signs[:, c], scores[:, c], rank) for c in range(labels.shape[1])])


def context(heatmap: np.ndarray, boxes: np.ndarray) -> float:
    """The share of context μ: mean positive relevance outside the boxes over the mean inside them.

    A low μ says that the classifier looks at the object, one near 1 that it looks everywhere alike.

    Parameters
    ----------
    heatmap : array (H, W)
        Relevance; negative values count as 0.
    boxes : array (m, 4)
        ymin, xmin, ymax, xmax of every object of the class, 0-based and half-open; "inside" is their union.

    Returns
    -------
    float
        NaN where the boxes cover nothing or everything, or hold no positive relevance.

    Raises
    ------
    ValueError
        `heatmap` is not a finite (H, W) array or `boxes` not (m, 4).
    """
    positive = np.maximum(_checked_heatmap(heatmap), 0)
    inside = _inside(boxes, positive.shape)
    if not inside.any() or inside.all():
        return float("nan")
    within = positive[inside].mean()
    return float(positive[~inside].mean() / within) if within > 0 else float("nan")


def relevance_mass(heatmap: np.ndarray, boxes: np.ndarray) -> float:
    """The fraction of positive relevance that lies inside the union of `boxes`, in [0, 1].

    Arguments and errors are those of `context`; NaN without boxes or without positive relevance.
    """
    positive = np.maximum(_checked_heatmap(heatmap), 0)
    inside = _inside(boxes, positive.shape)
    total = positive.sum()
    return float(positive[inside].sum() / total) if inside.any() and total > 0 else float("nan")


def pointing_game(heatmap: np.ndarray, boxes: np.ndarray, tolerance: float = 15) -> float:
    """Whether the most relevant pixel points at an object: 1.0 or 0.0 (Zhang et al., ECCV 2016).

    Parameters
    ----------
    heatmap : array (H, W)
        Relevance. Of equal maxima the first in row order points; a map without positive relevance misses.
    boxes : array (m, 4)
        As in `context`.
    tolerance : float
        Greatest distance in pixels, Euclidean, from the pixel to a pixel of a box.

    Returns
    -------
    float
        NaN where no box covers a pixel.

    Raises
    ------
    ValueError
        As `context` raises, or `tolerance` is negative.
    """
    if not (is_real(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance is {tolerance!r}; expected a distance in pixels, 0 or more")
    heatmap = _checked_heatmap(heatmap)
    boxes = _clipped(boxes, heatmap.shape)
    if len(boxes) == 0:
        return float("nan")
    y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    if heatmap[y, x] <= 0:
        return 0.0
    ymin, xmin, ymax, xmax = boxes.T
    down = np.maximum(np.maximum(ymin - y, y - (ymax - 1)), 0)
    across = np.maximum(np.maximum(xmin - x, x - (xmax - 1)), 0)
    return float(np.hypot(down, across).min() <= tolerance)


@dataclass(frozen=True, eq=False)
class PixelFlipping:
    """What `pixel_flipping` saw of one heatmap in one order.

    Attributes
    ----------
    curves : ndarray (draws, L + 1)
        f(x⁽ᵏ⁾), the score after k regions were replaced; k = 0 is the image itself.
    order : str
        ``"morf"``, ``"lerf"`` or ``"random"``.
    regions : ndarray, int64 (draws, L, 2)
        Top-left pixel (y, x) of the region that step k replaced.
    region : int
        Side of a region in pixels.
    """

    curves: np.ndarray
    order: str
    regions: np.ndarray
    region: int

    @property
    def curve(self) -> np.ndarray:
        """Mean score over the draws: (L + 1,)."""
        return self.curves.mean(axis=0)

    @property
    def aopcs(self) -> np.ndarray:
        """AOPC of every draw, (draws,): the mean over k = 0..L of f(x⁽⁰⁾) − f(x⁽ᵏ⁾)."""
        return (self.curves[:, :1] - self.curves).mean(axis=1)

    @property
    def aopc(self) -> float:
        """Area over the perturbation curve, the mean over the draws: higher is better for MoRF, lower for LeRF."""
        return float(self.aopcs.mean())


def pixel_flipping(
    score: Callable[[np.ndarray], Any],
    image: ImageLike,
    heatmaps: np.ndarray | Sequence[np.ndarray],
    *,
    order: str | Sequence[str] = "morf",
    region: int = 9,
    steps: int = 100,
    draws: int = 1,
    random_state: int = 0,
    batch_size: int = 16,
) -> PixelFlipping | list[PixelFlipping]:
    """How fast the score falls when the image is destroyed region by region (Samek et al., arXiv 1509.06321).

    The image is cut into whole regions, the grid centred in it. They are replaced one after the other by uniformly
    random colours, drawn per pixel: in the order of falling summed relevance ("morf"), of rising one ("lerf"), or at
    random ("random"). Equal sums come in random order.

    All heatmaps and orders of a call meet the same random colours, and an image that several of them lead to is scored
    once.

    Parameters
    ----------
    score : callable
        f of the class: takes images (m, H, W, 3) or, where `image` is grey, (m, H, W), in the dtype of
        ``fvlrp.images.load(image)``, and returns m scores.
    image : path, PIL image or array
        The explained image.
    heatmaps : array (H, W), or (m, H, W), or a sequence of arrays (H, W)
        Of the image's own size.
    order : str or sequence of str
        "morf", "lerf", "random".
    region : int
        Side of a region in pixels.
    steps : int
        L, the number of regions replaced; at most as many as the image holds.
    draws : int
        Repetitions with other colours and, where random, other orders. A draw does not depend on how many there are.
    random_state : int
        Seed of the colours and orders.
    batch_size : int
        Images per call of `score`.

    Returns
    -------
    PixelFlipping or list of PixelFlipping
        One result for one heatmap and one order; otherwise a flat list, heatmap by heatmap, orders in the order given.

    Raises
    ------
    ValueError
        A heatmap is not finite or not of the image's size, `order` is unknown, a number is below 1, the image is
        smaller than a region, or `score` does not return one finite score per image.
    """
    for name, value in (("region", region), ("steps", steps), ("draws", draws), ("batch_size", batch_size)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
    orders = (order,) if isinstance(order, str) else tuple(order)
    unknown = [name for name in orders if name not in ORDERS]
    if unknown or not orders:
        raise ValueError(f"order is {order!r}; expected of {', '.join(ORDERS)}")
    if hasattr(heatmaps, "heatmap"):
        raise ValueError("heatmaps is an Explanation; expected its array: explanation.heatmap")
    if len(heatmaps) == 0:
        raise ValueError("heatmaps is empty; expected at least one array (H, W)")
    pixels = load(image)
    single = np.ndim(heatmaps[0]) == 1
    maps = [_checked_heatmap(heatmap, pixels.shape[:2]) for heatmap in ([heatmaps] if single else heatmaps)]
    grid = _Grid.centred(pixels.shape[:2], region)

    flips = _Flips(score, pixels, grid, batch_size)
    sums = [grid.sums(heatmap) for heatmap in maps]
    length = min(steps, grid.count)
    walks = [[] for _ in range(len(maps) * len(orders))]  # per heatmap and order, one ranking of regions per draw
    for seed in np.random.SeedSequence(random_state).spawn(draws):
        rng = np.random.default_rng(seed)
        chance = rng.permutation(grid.count)
        flips.begin_draw(rng)
        rankings = [_ranking(total, name, chance)[:length] for total in sums for name in orders]
        for walk, ranking in zip(walks, rankings, strict=True):
            walk.append((ranking, flips.follow(ranking)))
        flips.run()
    results = [
        PixelFlipping(
            curves=np.array([flips.scores(keys) for _, keys in walk]),
            order=orders[i % len(orders)],
            regions=np.array([grid.corners[ranking] for ranking, _ in walk]),
            region=region,
        )
        for i, walk in enumerate(walks)
    ]
    return results[0] if single and isinstance(order, str) else results


@dataclass(frozen=True)
class Interval:
    """A mean over images and its bootstrap interval."""

    mean: float
    low: float
    high: float
    level: float
    n: int  # values that were not NaN


def bootstrap(values: np.ndarray, *, level: float = 0.95, draws: int = 10_000, random_state: int = 0) -> Interval:
    """The mean of one number per image, with a percentile bootstrap interval over the images.

    To compare two methods, pass their differences per image, not the two intervals.

    Parameters
    ----------
    values : array (n,)
        One number per image; NaN (undefined for that image) is left out.
    level : float
        Coverage in (0, 1).
    draws : int
        Resamplings of the images.
    random_state : int
        Seed.

    Returns
    -------
    Interval
        All NaN where no value is left.

    Raises
    ------
    ValueError
        `values` is not 1-D or holds an infinity, `level` is not inside (0, 1), or `draws` is below 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError(f"values has shape {values.shape}; expected one finite number or NaN per image, (n,)")
    if not (is_real(level) and 0 < level < 1) or not is_whole(draws) or draws < 1:
        raise ValueError(f"level is {level!r} and draws {draws!r}; expected a level inside (0, 1) and at least 1 draw")
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), level, 0)
    rng = np.random.default_rng(random_state)
    block = max(1, 1_000_000 // len(values))  # resamplings at a time: 8 MB of indices
    means = np.concatenate(
        [
            values[rng.integers(len(values), size=(min(block, draws - start), len(values)))].mean(axis=1)
            for start in range(0, draws, block)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), level, len(values))


def _signs(labels: np.ndarray) -> np.ndarray:
    """Labels as int8 of 1, 0 (ignored) and -1. Whether 0 means absent is asked of all classes together: a class may
    well lack a -1 of its own."""
    if labels.dtype == np.bool_:
        return np.where(labels, 1, -1).astype(np.int8)
    values = np.unique(labels)
    if not np.isin(values, (-1, 0, 1)).all():
        raise ValueError(f"labels hold {values[:5]}; expected 1, 0 (ignored) and -1, or 1 and 0, or bool")
    signs = labels.astype(np.int8)
    return signs if -1 in values else np.where(signs == 1, 1, -1).astype(np.int8)


def _ranked(signs: np.ndarray, scores: np.ndarray, rank: Callable[[np.ndarray, np.ndarray], float]) -> float:
    kept = signs != 0
    signs, scores = signs[kept], scores[kept]
    hits = np.cumsum(signs[np.argsort(-scores, kind="stable")] > 0)
    if len(hits) == 0 or hits[-1] == 0:
        return float("nan")
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this rank or any later one
    return rank(hits, best)


def _eleven_points(hits: np.ndarray, best: np.ndarray) -> float:
    # recall >= t / 10 in integers: 3 / 10 and .1 * 3 are different floats.
    first = np.searchsorted(10 * hits, np.arange(11) * hits[-1])
    return float(best[first].mean())


def _area(hits: np.ndarray, best: np.ndarray) -> float:
    return float(np.diff(hits, prepend=0) @ best / hits[-1])


def _checked_heatmap(heatmap: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    if hasattr(heatmap, "heatmap"):
        raise ValueError("heatmap is an Explanation; expected its array: explanation.heatmap")
    heatmap = np.asarray(heatmap, dtype=np.float64)
    if heatmap.ndim != 2 or heatmap.size == 0 or (shape is not None and heatmap.shape != shape):
        expected = "(H, W)" if shape is None else f"{shape}, the image's own"
        raise ValueError(f"heatmap has shape {heatmap.shape}; expected {expected}")
    if not np.isfinite(heatmap).all():
        raise ValueError(f"heatmap has {np.count_nonzero(~np.isfinite(heatmap))} values that are NaN or infinite")
    return heatmap


def _clipped(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The boxes inside an image of `shape`, without those that cover none of its pixels: (m', 4)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.size == 0:
        return np.empty((0, 4), np.int64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"boxes has shape {boxes.shape}; expected (m, 4) of finite ymin, xmin, ymax, xmax")
    boxes = np.clip(np.rint(boxes).astype(np.int64), 0, [*shape, *shape])
    return boxes[(boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])]


def _inside(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    inside = np.zeros(shape, bool)
    for ymin, xmin, ymax, xmax in _clipped(boxes, shape):
        inside[ymin:ymax, xmin:xmax] = True
    return inside


def _ranking(sums: np.ndarray, order: str, chance: np.ndarray) -> np.ndarray:
    """Indices of the regions in the order in which they are replaced."""
    if order == "random":
        return chance
    return chance[np.argsort(-sums[chance] if order == "morf" else sums[chance], kind="stable")]


@dataclass(frozen=True)
class _Grid:
    """Whole square regions, centred in the image, numbered in row order."""

    top: int
    left: int
    rows: int
    cols: int
    side: int

    @classmethod
    def centred(cls, shape: tuple[int, int], side: int) -> _Grid:
        rows, cols = shape[0] // side, shape[1] // side
        if rows == 0 or cols == 0:
            raise ValueError(f"the image has {shape[0]} x {shape[1]} pixels; expected at least one region of {side}")
        return cls((shape[0] - rows * side) // 2, (shape[1] - cols * side) // 2, rows, cols, side)

    @property
    def count(self) -> int:
        return self.rows * self.cols

    @property
    def window(self) -> tuple[slice, slice]:
        """What of the image the regions cover."""
        return (
            slice(self.top, self.top + self.rows * self.side),
            slice(self.left, self.left + self.cols * self.side),
        )

    @property
    def corners(self) -> np.ndarray:
        """Top-left pixel (y, x) of every region: int64 (count, 2)."""
        return np.indices((self.rows, self.cols)).reshape(2, -1).T * self.side + (self.top, self.left)

    def sums(self, heatmap: np.ndarray) -> np.ndarray:
        """Relevance of every region: (count,)."""
        return heatmap[self.window].reshape(self.rows, self.side, self.cols, self.side).sum(axis=(1, 3)).ravel()

    def pixels(self, regions: np.ndarray) -> np.ndarray:
        """bool (count,) of regions → bool mask of the window's pixels."""
        return regions.reshape(self.rows, self.cols).repeat(self.side, axis=0).repeat(self.side, axis=1)


class _Flips:
    """Scores of an image with sets of its regions replaced, each set of a draw scored once."""

    def __init__(self, score: Callable[[np.ndarray], Any], pixels: np.ndarray, grid: _Grid, batch_size: int) -> None:
        self._score, self._pixels, self._grid, self._batch_size = score, pixels, grid, batch_size
        self._known: dict[tuple[int, bytes], float] = {}
        self._pending: dict[tuple[int, bytes], np.ndarray] = {}
        self._draw = 0
        self._colours = pixels[grid.window]

    def begin_draw(self, rng: np.random.Generator) -> None:
        """New colours for every pixel: which regions show them is a matter of the sets."""
        self._draw += 1
        shape = self._colours.shape
        if self._pixels.dtype == np.uint8:
            self._colours = rng.integers(256, size=shape, dtype=np.uint8)
        else:
            self._colours = rng.random(shape, dtype=np.float32)

    def follow(self, ranking: np.ndarray) -> list[tuple[int, bytes]]:
        """Note the sets that replacing regions one by one leads to, from none on; return the key of each."""
        regions = np.zeros(self._grid.count, bool)
        keys = [self._note(regions)]
        for index in ranking:
            regions[index] = True
            keys.append(self._note(regions))
        return keys

    def run(self) -> None:
        """Score what is noted with the colours of this draw."""
        keys = list(self._pending)
        for start in range(0, len(keys), self._batch_size):
            part = keys[start : start + self._batch_size]
            images = np.stack([self._replaced(self._pending[key]) for key in part])
            self._known.update(zip(part, self._checked_scores(images), strict=True))
        self._pending.clear()

    def scores(self, keys: list[tuple[int, bytes]]) -> list[float]:
        return [self._known[key] for key in keys]

    def _note(self, regions: np.ndarray) -> tuple[int, bytes]:
        # The untouched image is the same in every draw.
        key = (self._draw if regions.any() else 0, np.packbits(regions).tobytes())
        if key not in self._known:
            self._pending.setdefault(key, regions.copy())
        return key

    def _replaced(self, regions: np.ndarray) -> np.ndarray:
        image = self._pixels.copy()
        mask = self._grid.pixels(regions)
        if image.ndim == 3:
            mask = mask[:, :, None]
        np.copyto(image[self._grid.window], self._colours, where=mask)
        return image

    def _checked_scores(self, images: np.ndarray) -> list[float]:
        scores = np.asarray(self._score(images), dtype=np.float64)
        if scores.shape != (len(images),) or not np.isfinite(scores).all():
            raise ValueError(
                f"score returned shape {scores.shape} for {len(images)} images; expected one finite score per image"
            )
        return scores.tolist()
