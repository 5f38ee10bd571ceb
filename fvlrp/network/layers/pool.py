"""Pooling: a maximum gives all relevance to the winner, an average shares it among the inputs of a window."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...runtime.memory import empty, zeros
from ..rules import Choice
from ..windows import Windows, bands, reach, window_count
from .join import conserving
from .layer import NetworkLayer, Saved, Shape

BAND_BYTES = 1 << 19  # of inputs at a time, so that they stay in the L2 cache


@dataclass(frozen=True, eq=False)
class MaxPool(NetworkLayer):
    """Largest value of each window; padding never wins."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False
    dilation: tuple[int, int] = (1, 1)
    role: ClassVar[str] = "pool"

    def out_shape(self, shape: Shape) -> Shape:
        return (shape[0], *_pooled(self, shape, self.dilation))

    def apply(self, x: Array) -> Array:
        out = empty((len(x), *self.out_shape(x.shape[1:])), x.dtype)
        for image, result in zip(np.ascontiguousarray(x), out, strict=True):
            _kernels.max_pool(image, self.kernel, self.stride, self.pads, self.dilation, result)
        return out

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the first maximum of a window, row by row; under `Flat`, evenly to its inputs inside the image."""
        (x,), y = saved
        if choice.rule.sees == "nothing":
            return _spread(Windows.of(self, x, y), r, choice)
        return self._winner(r, saved)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """To the winner, as above the depth, or evenly, as `pool` chooses."""
        if choice.pool == "flat":
            return _spread(Windows.of(self, saved.inputs[0], saved.y), r, choice)
        return self._winner(r, saved)

    def _winner(self, r: Array, saved: Saved) -> Passed:
        (x,), y = saved
        out = zeros((len(r), *x.shape[1:]), r.dtype)
        image, maxima, relevance = (np.ascontiguousarray(a) for a in (x[0], y[0], r))
        _kernels.max_pool_back(image, maxima, relevance, self.kernel, self.stride, self.pads, self.dilation, out)
        return Passed([out], Entries())


def _spread(reads: Windows, r: Array, choice: Choice) -> Passed:
    """Evenly over the inputs of each window inside the image, or level; see `NetworkRules.flat`."""
    if choice.flat == "level":
        return Passed([reads.level().spread(r)], Entries())
    return Passed([reads.spread(np.divide(r, reads.counts.astype(r.dtype)))], Entries())


class _Average(NetworkLayer):
    """Base class of averages over windows: linear maps with equal weights, which follow the rule like sums."""

    role: ClassVar[str] = "sum"

    @abstractmethod
    def counts(self, height: int, width: int) -> npt.NDArray[np.int64 | np.float64]:
        """The divisor of each window's sum, (out_height, out_width)."""

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule, as the terms of a sum."""
        (x,), y = saved
        reads, rule = Windows.of(self, x, y), choice.rule.fitted(y)
        if rule.sees != "inputs":
            return _spread(reads, r, choice)
        weight = 1 / self.counts(*x.shape[2:]).astype(r.dtype)
        if not rule.signed:
            shares = rule.shares(r, y, None, None)
            out = x * reads.spread(shares.positive * weight)
            return Passed([out], Entries(absorbed=shares.absorbed, zero_sum=shares.zero))
        above, below, positive, negative = x, None, y, np.zeros_like(y)
        if x.min(initial=0) < 0:
            # Each sum from its own terms: a difference would be rounding error if one sign prevails.
            above, below = np.maximum(x, 0), np.minimum(x, 0)
            positive, negative = reads.sums(above) * weight, reads.sums(below) * weight
        shares, rest = conserving(rule, r, y, positive, negative)
        out = above * reads.spread(shares.positive * weight)
        if below is not None and shares.negative is not None:
            out += below * reads.spread(shares.negative * weight)
        if rest.any():
            out += reads.spread(np.divide(rest, reads.counts.astype(r.dtype)))
        return Passed([out], Entries(absorbed=shares.absorbed))

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth, or evenly, as `pool` chooses."""
        if choice.pool == "flat":
            return _spread(Windows.of(self, saved.inputs[0], saved.y), r, choice)
        return self.relevance(r, saved, choice)


@dataclass(frozen=True, eq=False)
class AveragePool(_Average):
    """Mean of each window, over the pixels inside the image or, with `count_include_pad`, also over the padding."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = False

    def out_shape(self, shape: Shape) -> Shape:
        return (shape[0], *_pooled(self, shape, (1, 1)))

    def counts(self, height: int, width: int) -> npt.NDArray[np.int64 | np.float64]:
        out = _pooled(self, (0, height, width), (1, 1))
        return np.outer(self._along(0, height, out[0]), self._along(1, width, out[1]))

    def _along(self, axis: int, length: int, count: int) -> npt.NDArray[np.int64]:
        before, after = self.pads[axis], self.pads[axis + 2]
        begin = np.arange(count) * self.stride[axis] - before
        low, high = (-before, length + after) if self.count_include_pad else (0, length)
        return np.minimum(begin + self.kernel[axis], high) - np.maximum(begin, low)

    def apply(self, x: Array) -> Array:
        out = _window_sums(self, x)
        return np.divide(out, self.counts(*x.shape[2:]).astype(x.dtype), out=out)


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(_Average):
    """Mean over all pixels of a channel: (n, C, H, W) -> (n, C, 1, 1)."""

    def out_shape(self, shape: Shape) -> Shape:
        return (shape[0], 1, 1)

    def counts(self, height: int, width: int) -> npt.NDArray[np.int64 | np.float64]:
        return np.full((1, 1), float(height * width))

    def apply(self, x: Array) -> Array:
        mean: Array = x.mean(axis=(2, 3), keepdims=True)
        return mean


def _pooled(pool: MaxPool | AveragePool, shape: Shape, dilation: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a pool's output."""
    height, width = (
        window_count(
            shape[1 + i], pool.kernel[i], pool.stride[i], pool.pads[i], pool.pads[2 + i], dilation[i], pool.ceil_mode
        )
        for i in range(2)
    )
    return height, width


def _window_sums(pool: AveragePool, x: Array) -> Array:
    """Sums of the pixels of each window, a few channels at a time, so that they stay in the cache."""
    height, width = _pooled(pool, x.shape[1:], (1, 1))
    out = empty((*x.shape[:2], height, width), x.dtype)
    for image, result in zip(x, out, strict=True):
        for begin, end in bands(len(image), image[0].nbytes, BAND_BYTES):
            # Rows first: they are contiguous, and some are gone before the strided step along x.
            down = np.empty((end - begin, height, image.shape[2]), x.dtype)
            _slide(image[begin:end], down, 1, pool.kernel[0], pool.stride[0], pool.pads[0])
            _slide(down, result[begin:end], 2, pool.kernel[1], pool.stride[1], pool.pads[1])
    return out


def _slide(x: Array, out: Array, axis: int, kernel: int, stride: int, before: int) -> None:
    """Add the taps of windows along one axis of x into `out`, without a padded copy."""
    lead, count = (slice(None),) * axis, out.shape[axis]
    reached = [reach(x.shape[axis], 0, count, k - before, stride) for k in range(kernel)]
    # Two taps that every window has need no zeros to begin with.
    full = [k for k, (outs, _) in enumerate(reached) if outs == slice(0, count)][:2]
    if len(full) == 2:
        first, second = (x[(*lead, reached[k][1])] for k in full)
        np.add(first, second, out=out)
    else:
        full = []
        out[...] = 0
    for k, (outs, ins) in enumerate(reached):
        if k not in full and outs.stop > outs.start:
            part = out[(*lead, outs)]
            np.add(part, x[(*lead, ins)], out=part)
