"""Pixel flipping: how fast a score falls when an image is destroyed in the order of a heatmap.

For the models' `flipper`, the study and users. Deterministic: random numbers come from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..data.images import ImageLike, grey, load
from ..runtime import cluster
from ..runtime.arguments import is_whole
from ..runtime.progress import Progress
from ..runtime.types import Pixels, Values, Window
from .journal import Journal, key_of
from .maps import check_heatmap

MAPPED, BLIND = ("morf", "lerf"), ("random", "centre", "edge")  # orders that depend on a heatmap, and those that do not
ORDERS = (*MAPPED, *BLIND)
REPLACEMENTS = ("noise", "mean", "blur", "inpaint")

Curve: TypeAlias = "npt.NDArray[np.float64]"  # (L + 1,): the score after k = 0 .. L regions were replaced
Regions: TypeAlias = "npt.NDArray[np.int64]"  # (L, 2): top-left pixel (y, x) of each
# One result, or a list of them for several heatmaps or orders.
Flipped: TypeAlias = Any  # type: ignore[explicit-any]  # that depends on values which types do not tell apart


@runtime_checkable
class Flipper(Protocol):
    """Scores of one image whose regions are replaced one after another, by a model with a faster method.

    `walk` may be called from several threads at once.

    Examples
    --------
    >>> class Bright:
    ...     def walk(self, filled, regions, region):
    ...         return np.zeros(len(regions) + 1)
    >>> isinstance(Bright(), fvlrp.evaluate.Flipper)
    True
    """

    def walk(self, filled: Pixels, regions: Regions, region: int, every: int = 1) -> Curve:
        """The score of the image, and the score each time `every` more of `regions` (squares) show `filled`."""
        ...


Score: TypeAlias = "Callable[[Pixels], npt.ArrayLike] | Flipper"


@dataclass(frozen=True, eq=False)
class PixelFlipping:
    """The result of `pixel_flipping` for one heatmap and one order.

    Attributes
    ----------
    curves : float64 (draws, L + 1), or fewer where `every` is above 1
        f(x⁽ᵏ⁾), the score after k regions were replaced; k = 0 is the image itself.
    order : str
        One of ``ORDERS``.
    regions : int64 (draws, L, 2)
        Top-left pixel (y, x) of the region that step k replaced.
    region : int
        Side of a region in pixels.
    replacement : str
        One of ``REPLACEMENTS``.

    Examples
    --------
    >>> image = np.zeros((36, 36), np.float32)
    >>> image[:18] = 1
    >>> score = lambda images: images[:, :18].mean(axis=(1, 2))
    >>> morf, lerf = fvlrp.evaluate.pixel_flipping(score, image, image, order=["morf", "lerf"])
    >>> morf.curve[:2].round(1), morf.aopc > lerf.aopc
    (array([1. , 0.9]), True)
    """

    curves: npt.NDArray[np.float64]
    order: str
    regions: npt.NDArray[np.int64]
    region: int
    replacement: str = "noise"

    @property
    def curve(self) -> Curve:
        """Mean score over the draws."""
        return np.asarray(self.curves.mean(axis=0))

    @property
    def aopcs(self) -> npt.NDArray[np.float64]:
        """AOPC of every draw, (draws,): the mean over k = 0..L, or those k that were scored, of f(x⁽⁰⁾) − f(x⁽ᵏ⁾)."""
        return np.asarray((self.curves[:, :1] - self.curves).mean(axis=1))

    @property
    def aopc(self) -> float:
        """Area over the perturbation curve, the mean over the draws: higher is better for MoRF, lower for LeRF."""
        return float(self.aopcs.mean())


def gap(most: PixelFlipping, least: PixelFlipping) -> float:
    """AOPC of the MoRF order minus that of the LeRF order of one heatmap.

    It is positive if the pixels that the map calls relevant matter more than those it calls irrelevant; a random map
    has 0 on average. Unlike the AOPC, it does not reward a map if any destruction lowers the score.

    Raises
    ------
    ValueError
        The two results do not have the orders "morf" and "lerf", or their regions or replacements differ.

    Examples
    --------
    >>> image = np.zeros((36, 36), np.float32)
    >>> image[:18] = 1
    >>> score = lambda images: images[:, :18].mean(axis=(1, 2))
    >>> morf, lerf = fvlrp.evaluate.pixel_flipping(score, image, image, order=["morf", "lerf"])
    >>> fvlrp.evaluate.gap(morf, lerf) > 0
    True
    """
    if (most.order, least.order) != ("morf", "lerf"):
        raise ValueError(f"orders are {most.order!r} and {least.order!r}; expected 'morf' and 'lerf'")
    setups = [(one.region, one.replacement, one.curves.shape) for one in (most, least)]
    if setups[0] != setups[1]:
        raise ValueError(f"the two flippings differ in region, replacement or curves: {setups[0]} and {setups[1]}")
    return most.aopc - least.aopc


def pixel_flipping(
    score: Score,
    image: ImageLike,
    heatmaps: Sequence[npt.ArrayLike] | Values,
    *,
    order: str | Sequence[str] = "morf",
    region: int = 9,
    steps: int = 100,
    every: int = 1,
    replacement: str = "noise",
    draws: int = 1,
    random_state: int = 0,
    batch_size: int = 16,
    n_jobs: int | None = None,
    journal: Journal | None = None,
    verbose: bool = False,
) -> Flipped:
    """How fast the score falls when the image is destroyed region by region (Samek et al., arXiv 1509.06321).

    The image is divided into square regions on a centred grid, which are replaced one after another. Regions of equal
    rank are replaced in random order. All heatmaps and orders of a call use the same replacement colours; images that
    occur several times are scored once.

    Parameters
    ----------
    score : callable or Flipper
        The score f of the class: a function of images (m, H, W, 3), or (m, H, W) if `image` is grey, in the dtype of
        ``fvlrp.images.load(image)``, that returns m scores. Or the result of a model's ``flipper(image, target)``,
        which is faster for some models.
    image : path, PIL image or array
        The explained image.
    heatmaps : array (H, W), or (m, H, W), or a sequence of arrays (H, W)
        Of the same size as the image.
    order : str or sequence of str
        "morf" (most relevant first), "lerf" (least relevant first), or a baseline that ignores the heatmap: "random",
        "centre" (nearest to the centre of the image first), "edge" (largest gradient magnitude first).
    region : int
        Side of a region in pixels.
    steps : int
        L, the number of regions replaced; at most as many as the image holds.
    every : int
        Steps between scores: larger values make curves coarser and cheaper.
    replacement : str
        The new content of a region: "noise" (uniformly random colours, drawn per pixel), "mean" (the image's mean
        colour), "blur" (the image smoothed by a Gaussian of standard deviation `region`), "inpaint" (each region
        continued smoothly from the untouched image around it, biharmonic; needs scikit-image).
    draws : int
        Repetitions with different random colours and orders. A draw does not depend on the number of draws.
    random_state : int
        Seed of the colours and orders.
    batch_size : int
        Images per call of a callable `score`.
    n_jobs : int or None
        Threads for a Flipper, as in scikit-learn. Results do not depend on it.
    journal : Journal, optional
        Stores every finished curve; stored curves are not recomputed. Use one journal per model and target: it
        distinguishes images, orders and replacements, but not what `score` computes.
    verbose : bool
        Whether to show progress on stderr.

    Returns
    -------
    PixelFlipping or list of PixelFlipping
        One result for a single heatmap and order; otherwise a flat list, heatmap by heatmap, with orders as given.

    Raises
    ------
    ValueError
        A heatmap is not finite or not of the image's size, `order` or `replacement` is unknown, a number is below 1,
        the image is smaller than a region, or `score` does not return one finite score per image.
    ImportError
        "inpaint" without scikit-image.

    Examples
    --------
    >>> image = np.zeros((36, 36), np.float32)
    >>> image[:18] = 1
    >>> score = lambda images: images[:, :18].mean(axis=(1, 2))
    >>> morf, lerf = fvlrp.evaluate.pixel_flipping(score, image, image, order=["morf", "lerf"])
    >>> morf.curves.shape, morf.aopc > lerf.aopc
    ((1, 17), True)
    """
    orders = _checked_orders(
        order, replacement, region=region, steps=steps, every=every, draws=draws, batch_size=batch_size
    )
    pixels = load(image)
    single, maps = _maps(heatmaps, pixels.shape[:2])
    grid = _Grid.centred(pixels.shape[:2], region)

    ranks = _Ranks(pixels, grid, maps, orders)
    scorer = _Walked(score, every, n_jobs) if isinstance(score, Flipper) else _Batched(score, pixels, every, batch_size)
    recorded = _Recorded(scorer, grid, key_of(pixels, region, every), Journal() if journal is None else journal)
    progress = Progress("flipped in an order", draws * len(maps) * len(orders), verbose)
    rankings, curves = [], []
    for seed in np.random.SeedSequence(random_state).spawn(draws):
        rng = np.random.default_rng(seed)
        now = [ranking[:steps] for ranking in ranks.draw(rng)]
        filled = _filled(replacement, pixels, grid, np.unique(np.concatenate(now)), rng)
        curves.append(recorded.curves(filled, now, progress))
        rankings.append(now)
    results = [
        PixelFlipping(
            curves=np.array([found[i] for found in curves]),
            order=orders[i % len(orders)],
            regions=np.array([grid.corners[now[i]] for now in rankings]),
            region=region,
            replacement=replacement,
        )
        for i in range(len(maps) * len(orders))
    ]
    return results[0] if single and isinstance(order, str) else results


def _checked_orders(order: str | Sequence[str], replacement: str, **numbers: int) -> tuple[str, ...]:
    """The orders as a tuple; ValueError for an unknown order or replacement, or a number below 1."""
    for name, value in numbers.items():
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
    orders = (order,) if isinstance(order, str) else tuple(order)
    if not orders or any(name not in ORDERS for name in orders):
        raise ValueError(f"order is {order!r}; expected of {', '.join(ORDERS)}")
    if replacement not in REPLACEMENTS:
        raise ValueError(f"replacement is {replacement!r}; expected one of {', '.join(REPLACEMENTS)}")
    return orders


def _maps(
    heatmaps: Sequence[npt.ArrayLike] | Values, shape: tuple[int, ...]
) -> tuple[bool, list[npt.NDArray[np.float64]]]:
    """Whether there is a single map, and the checked maps."""
    if hasattr(heatmaps, "heatmap"):
        raise ValueError("heatmaps is an Explanation; expected its array: explanation.heatmap")
    if len(heatmaps) == 0:
        raise ValueError("heatmaps is empty; expected at least one array (H, W)")
    single = np.ndim(heatmaps[0]) == 1
    maps = [np.asarray(heatmaps)] if single else list(heatmaps)
    return single, [check_heatmap(heatmap, shape) for heatmap in maps]


# ---- regions, their orders, and what replaces them -------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """Whole square regions, centred in the image, numbered in row order."""

    top: int
    left: int
    rows: int
    cols: int
    side: int

    @classmethod
    def centred(cls, shape: tuple[int, ...], side: int) -> _Grid:
        rows, cols = shape[0] // side, shape[1] // side
        if rows == 0 or cols == 0:
            raise ValueError(f"the image has {shape[0]} x {shape[1]} pixels; expected at least one region of {side}")
        return cls((shape[0] - rows * side) // 2, (shape[1] - cols * side) // 2, rows, cols, side)

    @property
    def count(self) -> int:
        return self.rows * self.cols

    @property
    def window(self) -> Window:
        """The part of the image that the regions cover."""
        return (
            slice(self.top, self.top + self.rows * self.side),
            slice(self.left, self.left + self.cols * self.side),
        )

    @property
    def corners(self) -> Regions:
        """Top-left pixel (y, x) of every region: int64 (count, 2)."""
        return np.asarray(np.indices((self.rows, self.cols)).reshape(2, -1).T * self.side + (self.top, self.left))

    def sums(self, plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of every region: (count,)."""
        cut = plane[self.window].reshape(self.rows, self.side, self.cols, self.side)
        return np.asarray(cut.sum(axis=(1, 3)).ravel())

    def mask(self, regions: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """bool (count,) of regions → bool mask of the window's pixels."""
        return np.asarray(regions.reshape(self.rows, self.cols).repeat(self.side, axis=0).repeat(self.side, axis=1))


class _Ranks:
    """The orders of the regions, for every heatmap and every name of an order."""

    def __init__(
        self, pixels: Pixels, grid: _Grid, maps: Sequence[npt.NDArray[np.float64]], orders: Sequence[str]
    ) -> None:
        self._count = grid.count
        blind: dict[str, npt.NDArray[np.float64] | None] = {"random": None}
        if "centre" in orders:
            centre = (np.array(pixels.shape[:2]) - grid.side) / 2
            blind["centre"] = -np.hypot(*(grid.corners - centre).T)
        if "edge" in orders:
            blind["edge"] = grid.sums(np.hypot(*np.gradient(grey(pixels).astype(np.float64))))
        self._keys: list[npt.NDArray[np.float64] | None] = []  # what falls along an order
        for sums in map(grid.sums, maps):
            own = blind | {"morf": sums, "lerf": -sums}
            self._keys += [own[name] for name in orders]

    def draw(self, rng: np.random.Generator) -> list[npt.NDArray[np.intp]]:
        """Indices of the regions as they are replaced, for each heatmap and order; equal ranks in random order."""
        chance = rng.permutation(self._count)
        return [chance if key is None else chance[np.argsort(-key[chance], kind="stable")] for key in self._keys]


def _filled(
    replacement: str, pixels: Pixels, grid: _Grid, used: npt.NDArray[np.intp], rng: np.random.Generator
) -> Pixels:
    """The image with the regions `used` replaced; others may show anything."""
    if replacement == "noise":
        filled = pixels.copy()
        shape = filled[grid.window].shape
        byte = pixels.dtype == np.uint8
        filled[grid.window] = (
            rng.integers(256, size=shape, dtype=np.uint8) if byte else rng.random(shape, dtype=np.float32)
        )
        return filled
    if replacement == "inpaint":
        return _inpainted(pixels, grid, used)
    values = pixels.astype(np.float64)
    if replacement == "mean":
        values[...] = values.mean(axis=(0, 1))
    else:
        from scipy import ndimage  # here: it takes a tenth of a second

        values = ndimage.gaussian_filter(values, (grid.side, grid.side, 0)[: values.ndim])
    return _as_pixels(values, pixels)


def _inpainted(pixels: Pixels, grid: _Grid, used: npt.NDArray[np.intp]) -> Pixels:
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError:
        raise ImportError("replacement='inpaint' needs scikit-image: pip install 'fvlrp[demo]'") from None
    values = pixels.astype(np.float64) / (255 if pixels.dtype == np.uint8 else 1)
    filled = values.copy()
    margin = 3  # pixels around a region that the biharmonic operator sees
    for y, x in grid.corners[used]:
        top, left = max(y - margin, 0), max(x - margin, 0)
        cut = np.s_[top : y + grid.side + margin, left : x + grid.side + margin]
        mask = np.zeros(values[cut].shape[:2], bool)
        mask[y - top : y - top + grid.side, x - left : x - left + grid.side] = True
        own = np.s_[y : y + grid.side, x : x + grid.side]
        found = inpaint_biharmonic(values[cut], mask, channel_axis=2 if values.ndim == 3 else None)
        filled[own] = found[mask].reshape(filled[own].shape)
    return _as_pixels(filled * (255 if pixels.dtype == np.uint8 else 1), pixels)


def _as_pixels(values: npt.NDArray[np.float64], pixels: Pixels) -> Pixels:
    """`values` in the type and range of `pixels`."""
    if pixels.dtype == np.uint8:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.clip(values, 0, 1).astype(pixels.dtype)


# ---- scores along the orders -----------------------------------------------------------------------------------------


class _Scorer(Protocol):
    def curves(self, filled: Pixels, grid: _Grid, rankings: Sequence[npt.NDArray[np.intp]]) -> list[Curve]: ...


class _Walked:
    """Curves of a Flipper, orders in parallel."""

    def __init__(self, flipper: Flipper, every: int, n_jobs: int | None) -> None:
        self._flipper, self._every, self._n_jobs = flipper, every, n_jobs

    def curves(self, filled: Pixels, grid: _Grid, rankings: Sequence[npt.NDArray[np.intp]]) -> list[Curve]:
        pool = cluster.workers(self._n_jobs)
        shared = pool.keep((self._flipper, filled, grid.side, self._every))
        found = list(pool.each(_walked, ((shared, grid.corners[ranking]) for ranking in rankings)))
        lengths = [len(ranking) // self._every + 1 for ranking in rankings]
        return [_checked(curve, length) for curve, length in zip(found, lengths, strict=True)]


def _walked(shared: tuple[Flipper, Pixels, int, int], regions: npt.NDArray[np.int64]) -> Curve:
    flipper, filled, side, every = shared
    return flipper.walk(filled, regions=regions, region=side, every=every)


class _Batched:
    """Curves of a callable that scores images: each set of replaced regions is scored once."""

    def __init__(self, score: Callable[[Pixels], npt.ArrayLike], pixels: Pixels, every: int, batch_size: int) -> None:
        self._score, self._pixels, self._every, self._batch_size = score, pixels, every, batch_size
        self._whole: float | None = None  # the score of the untouched image, the same in every draw

    def curves(self, filled: Pixels, grid: _Grid, rankings: Sequence[npt.NDArray[np.intp]]) -> list[Curve]:
        sets: dict[bytes, npt.NDArray[np.bool_]] = {}
        walks = []
        for ranking in rankings:
            regions = np.zeros(grid.count, bool)
            keys = [np.packbits(regions).tobytes()]
            sets.setdefault(keys[0], regions.copy())
            for step, index in enumerate(ranking, 1):
                regions[index] = True
                if step % self._every:
                    continue
                keys.append(np.packbits(regions).tobytes())
                sets.setdefault(keys[-1], regions.copy())
            walks.append(keys)
        known = {} if self._whole is None else {walks[0][0]: self._whole}
        wanted = [key for key in sets if key not in known]
        for at in range(0, len(wanted), self._batch_size):
            part = wanted[at : at + self._batch_size]
            images = np.stack([self._replaced(filled, grid, sets[key]) for key in part])
            known.update(zip(part, _checked(self._score(images), len(part)).tolist(), strict=True))
        self._whole = known[walks[0][0]]
        return [np.array([known[key] for key in keys]) for keys in walks]

    def _replaced(self, filled: Pixels, grid: _Grid, regions: npt.NDArray[np.bool_]) -> Pixels:
        image, mask = self._pixels.copy(), grid.mask(regions)
        np.copyto(image[grid.window], filled[grid.window], where=mask if image.ndim == 2 else mask[:, :, None])
        return image


class _Recorded:
    """Curves of a scorer; those in the journal are not recomputed."""

    def __init__(self, scorer: _Scorer, grid: _Grid, key: str, journal: Journal) -> None:
        self._scorer, self._grid, self._key, self._journal = scorer, grid, key, journal

    def curves(self, filled: Pixels, rankings: Sequence[npt.NDArray[np.intp]], progress: Progress) -> list[Curve]:
        keys = [key_of(self._key, filled, ranking) for ranking in rankings]
        missing = {key: ranking for key, ranking in zip(keys, rankings, strict=True) if key not in self._journal}
        if missing:
            found = self._scorer.curves(filled, self._grid, list(missing.values()))
            for key, curve in zip(missing, found, strict=True):
                self._journal.put(key, curve.tolist())
        for _ in rankings:
            progress.step()
        return [np.array(self._journal[key]) for key in keys]


def _checked(scores: npt.ArrayLike, count: int) -> Curve:
    found = np.asarray(scores, dtype=np.float64)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"score returned shape {found.shape} for {count} images; expected one finite score per image")
    return found
