"""Fast pixel flipping: when a region of a photograph changes, only the descriptors that see it are recomputed.

A descriptor sees the pixels of its bins' triangles, one more for the gradient, and the radius of its scale's smoothing.
All other descriptors keep their projections and posteriors, and the sums S of a pyramid cell change by the new Psi
minus the old. The score is recomputed from those components of a cell whose sums have changed. For
`FisherVectorClassifier.flipper`; used by `evaluate.pixel_flipping`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import reduce
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..data import images
from ..runtime.memory import empty
from ..runtime.types import Doubles, Element, Pixels, Span, Window
from .geometry import Scale, cell_count
from .sift import DenseSIFT, Described

TOGETHER = 4096  # descriptors encoded at a time at the start
ROOM = 2  # times the posteriors that there are

Rows = npt.NDArray[np.int64]


class FisherFlipper:
    """Scores of one target for a photograph whose regions are replaced one after another.

    Implements `evaluate.Flipper`. Scores agree to 1e-6 with those of a full forward pass.

    Parameters
    ----------
    image : path, PIL image or array
    max_height : int or None
        As for `images.grey`.
    sift : DenseSIFT
    mixture : Mixture
    factors : callable
        `Normalise.factors`: what the signed roots of a block are multiplied by, from sums over it.
    coef : array (cells * 2 K D,)
        Coefficients of the explained score; for a contrast, the difference of two rows.
    intercept : float
    """

    def __init__(
        self,
        image: images.ImageLike,
        max_height: int | None,
        sift: DenseSIFT,
        mixture: Mixture,
        factors: Callable[[Doubles, Doubles], Doubles],
        coef: npt.ArrayLike,
        intercept: float,
    ) -> None:
        self._pixels, self._max_height, self._factors = images.load(image), max_height, factors
        self._parts, self._coef, self._intercept = (sift, mixture), np.asarray(coef, np.float32), intercept
        self._start = _Encoding(images.grey(self._pixels, max_height), sift, mixture)
        self._score(self._start)  # of all blocks, which each walk begins with

    def __reduce__(self) -> tuple[type[FisherFlipper], tuple[object, ...]]:
        """Pickled without the encoding, which holds tables of one instruction set: it is recomputed."""
        arguments = self._pixels, self._max_height, *self._parts, self._factors, self._coef, self._intercept
        return type(self), arguments

    def walk(self, filled: Pixels, regions: npt.NDArray[np.int64], region: int, every: int = 1) -> Doubles:
        """The score of the photograph, and the score each time `every` more of `regions` show `filled`.

        May be called from several threads at once.

        Parameters
        ----------
        filled : array
            The replacement pixels, in the photograph's shape and type.
        regions : int64 (L, 2)
            Top-left pixel (y, x) of each region, in the order of replacement.
        region : int
            Side of a region in pixels.
        every : int
            How many regions are replaced between two scores.

        Returns
        -------
        float64 (L // every + 1,)
        """
        pixels, encoding = self._pixels.copy(), self._start.copy()
        curve = [self._score(encoding)]
        for step, (y, x) in enumerate(regions.tolist(), 1):
            own = slice(y, y + region), slice(x, x + region)
            pixels[own] = filled[own]
            encoding.change(*images.grey_part(pixels, own, self._max_height))
            if step % every == 0:
                curve.append(self._score(encoding))
        return np.array(curve)

    def _score(self, encoding: _Encoding) -> float:
        squares, sizes, products = encoding.blocks(self._coef)
        return float(np.sum(self._factors(squares, sizes) * products)) + self._intercept


class Mixture(NamedTuple):
    """What descriptors are projected by, assigned to and pooled over: the parameters of the layer `Fisher`."""

    components: Doubles
    mean: Doubles
    weights: Doubles
    means: Doubles
    covariances: Doubles
    gate: float
    pyramid: tuple[tuple[int, int], ...]


class _Encoding:
    """Grey values, descriptors and sums of a photograph, updated as its pixels change.

    Attributes
    ----------
    sums : float64 (cells, 2, K, D)
        S: un-normalised sums of Psi over each pyramid cell.
    """

    def __init__(self, grey: npt.NDArray[np.float32], sift: DenseSIFT, mixture: Mixture) -> None:
        found = sift.extract_grey(grey)
        self._sift, self._grey, self._values, self._geometry = sift, grey, found.values, found.geometry
        self._codes = _Codes(mixture, len(found))
        # Descriptors that lie in the same pyramid cells form a group: they change the same sums.
        self._group_cells, self._group = _groups(self._geometry.cells(mixture.pyramid))
        cells, components = cell_count(mixture.pyramid), len(mixture.weights)
        self.sums = np.zeros((cells, 2, *mixture.means.shape))
        self._stale = np.ones((cells, components), np.uint8)
        self._blocks = np.empty((3, cells, components))
        for at in range(0, len(found), TOGETHER):
            self._replace(np.arange(at, min(at + TOGETHER, len(found))), self._values[at : at + TOGETHER])

    def copy(self) -> _Encoding:
        """An independent copy."""
        other = copy.copy(self)
        other._codes = self._codes.copy()
        for name in ("_grey", "_values", "sums", "_stale", "_blocks"):
            setattr(other, name, _copied(getattr(self, name)))
        return other

    def change(self, part: npt.NDArray[np.float32], window: Window) -> None:
        """Update to new grey values in a window of pixels."""
        self._grey[window] = part
        found = [self._changed(scale, window) for scale in self._geometry.scales if scale.count]
        rows, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if len(rows):
            self._values[rows] = values
            self._replace(rows, values)

    def blocks(self, coef: npt.NDArray[np.float32]) -> Doubles:
        """Sums over each component of each cell, of S^2, |S| and w sgn(S) sqrt|S|: float64 (3, cells, K).

        Those that have not changed since are kept: `coef`, w, must be the same at each call.
        """
        _kernels.roots(self.sums, coef.reshape(self.sums.shape), self._stale, *self._blocks)
        return self._blocks

    def _replace(self, rows: Rows, values: Described) -> None:
        """Encode new values of descriptors, and bring the sums up to date."""
        self._codes.replace(rows, values, self._group.take(rows), self._group_cells, self.sums, self._stale)

    def _changed(self, scale: Scale, window: Window) -> tuple[Rows, Described]:
        """Rows of the descriptors of one scale that a window of pixels has changed, and their values."""
        reach = scale.bin_size + ceil(4 * scale.bin_size / self._sift.magnif)  # triangle, gradient and smoothing
        (top, bottom), (left, right) = (_touched(scale, axis, window[axis], reach) for axis in (0, 1))
        if top >= bottom or left >= right:
            return np.empty(0, np.int64), self._values[:0]
        crop, grid, skipped = _crop(self._grey, scale, (top, left), (bottom, right), reach)
        values = np.empty((grid.rows, grid.cols, self._values.shape[1]), self._values.dtype)
        zeroed = np.empty((grid.rows, grid.cols), np.uint8)
        _kernels.sift(crop, grid, values, zeroed, 0, grid.rows, **self._sift._options(scale.bin_size))
        values = np.ascontiguousarray(values[skipped[0] :, skipped[1] :])
        old = self._values[scale.slice].reshape(scale.rows, scale.cols, -1)[top:bottom, left:right]
        # Eight bytes at a time, then eight answers at a time: ten times as quick as asking for each value.
        differ = (values.view(np.uint64) != old.view(np.uint64)).view(np.uint64)
        changed = np.flatnonzero(reduce(np.bitwise_or, differ.reshape(-1, differ.shape[2]).T))
        y, x = np.divmod(changed, right - left)
        rows = y * scale.cols + x + (scale.start + top * scale.cols + left)
        return rows, values.reshape(-1, values.shape[2]).take(changed, axis=0)


def _touched(scale: Scale, axis: int, pixels: Span, reach: int) -> tuple[int, int]:
    """Frames along an axis that see any of the pixels, `reach` beyond their outer bin centres: first, and last + 1."""
    step, count = scale.step, (scale.rows, scale.cols)[axis]
    first = -((scale.first + 3 * scale.bin_size + reach - pixels.start) // step)
    last = (pixels.stop - 1 + reach - scale.first) // step
    return max(first, 0), min(last + 1, count)


def _crop(
    grey: npt.NDArray[np.float32], scale: Scale, begin: tuple[int, int], end: tuple[int, int], reach: int
) -> tuple[npt.NDArray[np.float32], Scale, tuple[int, int]]:
    """The crop from which the descriptors of these frames get the same values as from the whole image.

    SIFT treats the edges of the crop as edges of the image. They must therefore lie beyond what a descriptor sees, or
    on the edges of the image. The grid of a crop has a single offset for y and x: near the top or left edge it is the
    image's own, and frames are added in front, so that the other edge is far enough away.

    Returns
    -------
    The crop, its grid, and how many frame rows and columns were added.
    """
    step = scale.step
    corner = min(scale.first + step * k for k in begin)
    first, added = (reach, 0) if corner >= reach else (scale.first, ceil((reach - scale.first) / step))
    skipped = tuple(min(added, k) for k in begin)
    start = [scale.first + step * (k - more) - first for k, more in zip(begin, skipped, strict=True)]
    stop = [scale.first + step * (k - 1) + 3 * scale.bin_size + reach + 1 for k in end]
    crop = np.ascontiguousarray(grey[start[0] : stop[0], start[1] : stop[1]])
    rows, cols = (k1 - k0 + more for k0, k1, more in zip(begin, end, skipped, strict=True))
    return crop, Scale(scale.bin_size, step, first, rows, cols, 0), (skipped[0], skipped[1])


class _Codes:
    """Projections and gated posteriors of descriptors, by row; new ones replace old ones.

    They are float32, as in a full forward pass; sums of them are float64, so that subtracting what was added before
    leaves no rounding error.
    """

    def __init__(self, mixture: Mixture, count: int) -> None:
        self._model, self._exact = (_kernels.Model(*mixture[:-1], dtype=dtype) for dtype in (np.float32, np.float64))
        self._y = np.empty((count, self._model.stride), np.float32)
        self._begin, self._end = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._index, self._gamma, self._used = np.empty(0, np.uint16), np.empty(0, np.float32), 0

    def copy(self) -> _Codes:
        other = copy.copy(self)
        for name in ("_y", "_begin", "_end"):
            setattr(other, name, _copied(getattr(self, name)))
        for name in ("_index", "_gamma"):
            setattr(other, name, _copied(getattr(self, name), self._used))
        return other

    def replace(
        self,
        rows: Rows,
        values: Described,
        group: Rows,
        group_cells: Rows,
        sums: Doubles,
        stale: npt.NDArray[np.uint8],
    ) -> None:
        """Encode descriptors in place of what was there for `rows`, and change the sums as `Model.exchange` says."""
        new = self._model.posteriors(self._model.project(values))[0]
        before = self._y, self._begin, self._end, self._index, self._gamma
        after = new.y, new.indptr[:-1], new.indptr[1:], new.index, new.gamma
        self._exact.exchange(rows, group, group_cells, before, after, sums, stale)
        if self._used + len(new.index) > len(self._index):
            self._make_room(len(new.index))
        place = slice(self._used, self._used + len(new.index))
        self._y[rows], self._index[place], self._gamma[place] = new.y, new.index, new.gamma
        self._begin[rows], self._end[rows] = self._used + new.indptr[:-1], self._used + new.indptr[1:]
        self._used = place.stop

    def _make_room(self, count: int) -> None:
        """Drop replaced entries; make room for `count` more, and for as many as there are now."""
        lengths = self._end - self._begin
        end = np.cumsum(lengths)
        entries = np.repeat(self._end - end, lengths) + np.arange(lengths.sum())
        for name in ("_index", "_gamma"):
            old = getattr(self, name)
            room = np.empty(ROOM * (len(entries) + count), old.dtype)
            room[: len(entries)] = old[entries]
            setattr(self, name, room)
        self._begin, self._end, self._used = end - lengths, end, len(entries)


def _copied(array: npt.NDArray[Element], count: int | None = None) -> npt.NDArray[Element]:
    """A copy, in memory that earlier ones have left; of its first `count` entries alone."""
    out = empty(array.shape, array.dtype)
    out[:count] = array[:count]
    return out


def _groups(cells: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct rows of `cells` (n, levels), and which of them each row is."""
    group = np.zeros(len(cells), np.int64)
    for level in cells.T:
        _, first, group = np.unique(group * (level.max() + 1) + level, return_index=True, return_inverse=True)
    return cells[first], group
