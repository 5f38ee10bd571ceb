"""Fast pixel flipping: when a region of a photograph changes, only the descriptors that see it are recomputed.

A descriptor sees the pixels of its bins' triangles, one more for the gradient, and the radius of its scale's smoothing.
All other descriptors keep their projections and posteriors, and the sums S of a pyramid cell change by the new Psi
minus the old. For `FisherVectorClassifier.flipper`; used by `evaluate.pixel_flipping`.
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
from .._kernels import Encoded
from ..data import images
from ..runtime.memory import empty
from ..runtime.types import Element, Pixels, Span, Window
from .geometry import BINS, ORIENTATIONS, Scale
from .sift import DenseSIFT, Described

TOGETHER = 4096  # descriptors encoded at a time at the start
ROOM = 2  # times the posteriors that there are

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Moments = tuple[Doubles, Doubles, Doubles]  # of z: sums of gamma (K,), gamma z and gamma z^2 (K, D)


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
    normalise : callable
        Sums (cells, 2, K, D) -> vector float64 (cells * 2 K D,).
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
        normalise: Callable[[Doubles], Doubles],
        coef: npt.ArrayLike,
        intercept: float,
    ) -> None:
        self._pixels, self._max_height, self._normalise = images.load(image), max_height, normalise
        self._parts = sift, mixture
        self._coef, self._intercept = np.ascontiguousarray(coef, np.float32)[None], intercept
        self._start = _Encoding(images.grey(self._pixels, max_height), sift, mixture)

    def __reduce__(self) -> tuple[type[FisherFlipper], tuple[object, ...]]:
        """Pickled without the encoding, which holds tables of one instruction set: it is recomputed."""
        arguments = self._pixels, self._max_height, *self._parts, self._normalise, self._coef[0], self._intercept
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
        curve = [self._score(encoding.sums)]
        for step, (y, x) in enumerate(regions.tolist(), 1):
            own = slice(y, y + region), slice(x, x + region)
            pixels[own] = filled[own]
            encoding.change(*images.grey_part(pixels, own, self._max_height))
            if step % every == 0:
                curve.append(self._score(encoding.sums))
        return np.array(curve)

    def _score(self, sums: Doubles) -> float:
        found = np.empty(1)
        _kernels.scores(self._coef, self._normalise(sums).astype(np.float32), found)
        return float(found[0]) + self._intercept


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
        self._sift, self._grey, self._values, self._zeroed = sift, grey, found.values, found.zeroed
        self._geometry, self._codes = found.geometry, _Codes(mixture, len(found))
        self._by = 1 / np.sqrt(mixture.weights)[:, None], 1 / np.sqrt(2 * mixture.weights)[:, None]
        # Descriptors that lie in the same pyramid cells share a number, and change the same sums.
        self._cells, self._number = _numbered(self._geometry.cells(mixture.pyramid))
        self._blank = self._codes.blank()  # moments of one zeroed descriptor, and the components that it has
        self._blank_has = np.flatnonzero(self._blank[0])
        self.sums = np.zeros((sum(rows * cols for rows, cols in mixture.pyramid), 2, *mixture.means.shape))
        for number in range(len(self._cells)):
            rows = np.flatnonzero(self._number == number)
            kept = rows[~self._zeroed[rows]]
            for at in range(0, len(kept), TOGETHER):
                part = kept[at : at + TOGETHER]
                self._add(number, self._codes.pooled(self._codes.put(part, self._values[part])))
            s0, s1, s2 = self._blank
            count = len(rows) - len(kept)
            self._add(number, (count * s0, count * s1, count * s2))

    def copy(self) -> _Encoding:
        """An independent copy."""
        other = copy.copy(self)
        other._codes = self._codes.copy()
        for name in ("_grey", "_values", "_zeroed", "sums"):
            setattr(other, name, _copied(getattr(self, name)))
        return other

    def change(self, part: npt.NDArray[np.float32], window: Window) -> None:
        """Update to new grey values in a window of pixels."""
        self._grey[window] = part
        rows, values, zeroed = self._changed(window)
        if not len(rows):
            return
        number, kept, had = self._number.take(rows), ~zeroed, ~self._zeroed.take(rows)
        old, new = self._codes.take(rows[had]), self._codes.put(rows[kept], values.compress(kept, axis=0))
        self._values[rows], self._zeroed[rows] = values, zeroed
        # Rows are sorted by number: where each number begins, among all rows, the new ones and the old ones.
        edges = np.flatnonzero(np.diff(number, prepend=-1, append=-1))
        news, olds = (np.concatenate([[0], np.cumsum(which)]).take(edges).tolist() for which in (kept, had))
        for i, one in enumerate(number[edges[:-1]].tolist()):
            moments = self._codes.pooled(_run(new, *news[i : i + 2]), _run(old, *olds[i : i + 2]))
            blank = (olds[i + 1] - olds[i]) - (news[i + 1] - news[i])  # by how many more are zeroed now
            for moment, of_blank in zip(moments, self._blank, strict=True):
                moment[self._blank_has] += blank * of_blank[self._blank_has]
            self._add(one, moments)

    def _add(self, number: int, moments: Moments) -> None:
        """Add Psi of descriptors with the same number to the sums of the cells that they lie in."""
        s0, s1, s2 = moments
        u, v = s1 * self._by[0], (s2 - s0[:, None]) * self._by[1]
        for cell in self._cells[number]:
            self.sums[cell, 0] += u
            self.sums[cell, 1] += v

    def _changed(self, window: Window) -> tuple[Rows, Described, npt.NDArray[np.bool_]]:
        """Rows of the descriptors that a window of pixels has changed, their values, and which of them are zeroed."""
        seen = [self._seen(scale, window) for scale in self._geometry.scales if scale.count]
        rows, values, zeroed = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        # Eight bytes at a time, then eight answers at a time: ten times as quick as asking for each value.
        differ = (values.view(np.uint64) != self._values.take(rows, axis=0).view(np.uint64)).view(np.uint64)
        changed = np.flatnonzero(reduce(np.bitwise_or, differ.T))
        # Sorted by number.
        changed = changed[np.argsort(self._number.take(rows[changed]), kind="stable")]
        return rows[changed], values.take(changed, axis=0), zeroed[changed]

    def _seen(self, scale: Scale, window: Window) -> tuple[Rows, Described, npt.NDArray[np.bool_]]:
        """Rows of the descriptors of one scale that see a window of pixels, their values, and which are zeroed."""
        reach = scale.bin_size + ceil(4 * scale.bin_size / self._sift.magnif)  # triangle, gradient and smoothing
        (top, bottom), (left, right) = (_touched(scale, axis, window[axis], reach) for axis in (0, 1))
        if top >= bottom or left >= right:
            return np.empty(0, np.int64), self._values[:0], self._zeroed[:0]
        crop, grid, skipped = _crop(self._grey, scale, (top, left), (bottom, right), reach)
        values = np.empty((grid.rows, grid.cols, self._values.shape[1]), self._values.dtype)
        zeroed = np.empty((grid.rows, grid.cols), np.uint8)
        _kernels.sift(crop, grid, values, zeroed, 0, grid.rows, **self._sift._options(scale.bin_size))
        rows = scale.start + np.arange(top, bottom)[:, None] * scale.cols + np.arange(left, right)
        values, zeroed = values[skipped[0] :, skipped[1] :], zeroed[skipped[0] :, skipped[1] :]
        return rows.ravel(), values.reshape(rows.size, -1), zeroed.ravel().view(np.bool_)


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

    They are float32, as in a full forward pass; their moments are float64, so that subtracting what was added before
    leaves no rounding error.
    """

    def __init__(self, mixture: Mixture, count: int) -> None:
        self._model, self._exact = (_kernels.Model(*mixture[:-1], dtype=dtype) for dtype in (np.float32, np.float64))
        self._y = np.empty((count, self._model.stride), np.float32)
        self._start, self._length = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._index, self._gamma, self._end = np.empty(0, np.uint16), np.empty(0, np.float32), 0

    def copy(self) -> _Codes:
        other = copy.copy(self)
        for name in ("_y", "_start", "_length", "_index", "_gamma"):
            setattr(other, name, _copied(getattr(self, name), self._end if name in ("_index", "_gamma") else None))
        return other

    def put(self, rows: Rows, values: Described) -> Encoded:
        """Encode descriptors and store the result for `rows`, replacing what was there."""
        found = self._encoded(values)
        if self._end + len(found.index) > len(self._index):
            self._make_room(len(found.index))
        place = slice(self._end, self._end + len(found.index))
        self._y[rows], self._index[place], self._gamma[place] = found.y, found.index, found.gamma
        self._start[rows], self._length[rows] = self._end + found.indptr[:-1], np.diff(found.indptr)
        self._end = place.stop
        return found

    def take(self, rows: Rows) -> Encoded:
        """The encoding of `rows`."""
        indptr, entries = self._entries(rows)
        return Encoded(self._y.take(rows, axis=0), indptr, self._index.take(entries), self._gamma.take(entries))

    def pooled(self, encoded: Encoded, less: Encoded | None = None) -> Moments:
        """Sums of gamma (K,), gamma z and gamma z^2 (K, D) over some descriptors minus those over others."""
        parts = [encoded] if less is None else [encoded, less]
        counts = [len(part.indptr) - 1 for part in parts]
        y = np.zeros((sum(counts), self._exact.stride))
        for part, rows in zip(parts, (y[: counts[0]], y[counts[0] :]), strict=False):
            rows[:, : self._exact.dims] = np.asarray(part.y)[:, : self._exact.dims]
        indptr, index, gamma = encoded.indptr, encoded.index, encoded.gamma.astype(np.float64)
        if less is not None:
            indptr = np.concatenate([indptr, indptr[-1] + less.indptr[1:]])
            index, gamma = np.concatenate([index, less.index]), np.concatenate([gamma, -less.gamma])
        s0, s1, s2 = self._exact.pool(Encoded(y, indptr, index, gamma))
        return s0, s1, s2

    def blank(self) -> Moments:
        """Moments of a zeroed descriptor."""
        return self.pooled(self._encoded(np.zeros((1, BINS * BINS * ORIENTATIONS), np.uint8)))

    def _encoded(self, values: Described) -> Encoded:
        return self._model.posteriors(self._model.project(values))[0]

    def _entries(self, rows: Rows) -> tuple[Rows, Rows]:
        lengths = self._length.take(rows)
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        return indptr, np.repeat(self._start.take(rows) - indptr[:-1], lengths) + np.arange(indptr[-1])

    def _make_room(self, count: int) -> None:
        """Drop replaced entries; make room for `count` more, and for as many as there are now."""
        rows = np.flatnonzero(self._length)
        indptr, entries = self._entries(rows)
        room = ROOM * (len(entries) + count)
        for name in ("_index", "_gamma"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old[entries], np.empty(room - len(entries), old.dtype)]))
        self._start[rows], self._end = indptr[:-1], len(entries)


def _copied(array: npt.NDArray[Element], count: int | None = None) -> npt.NDArray[Element]:
    """A copy, or one of the first `count` entries only, in memory that earlier copies have released."""
    out = empty(array.shape, array.dtype)
    out[:count] = array[:count]
    return out


def _run(encoded: Encoded, begin: int, end: int) -> Encoded:
    """Rows begin .. end - 1 of an Encoded."""
    indptr = encoded.indptr[begin : end + 1]
    entries = slice(indptr[0], indptr[-1])
    return Encoded(np.asarray(encoded.y)[begin:end], indptr - indptr[0], encoded.index[entries], encoded.gamma[entries])


def _numbered(cells: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """The distinct rows of `cells` (n, levels), and which of them each row is."""
    number = np.zeros(len(cells), np.int64)
    for level in cells.T:
        _, first, number = np.unique(number * (level.max() + 1) + level, return_index=True, return_inverse=True)
    return cells[first], number
