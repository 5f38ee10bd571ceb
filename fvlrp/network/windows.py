"""Windows that slide over an image: how many there are, which pixels they cover, and products with all of them.

Images are (C, H, W), or (..., H, W) if channels do not matter, surrounded by zero padding. A convolution is one product
with the windows of its input, which the kernel reads in place; `scatter` adds a matrix of windows back to the pixels.
All functions work on bands of output rows, so that a large layer is never copied as a whole. For the layers of this
wing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..core.layer import Array
from ..runtime.types import Span

Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[int, int, int, int]
Sign: TypeAlias = Literal[-1, 0, 1, 2]
Tap: TypeAlias = "tuple[int, int, Span, Span, Span, Span]"

BALANCING = 30  # scalings of level weights: frames of deep networks are then within a third of the interior
QUICK_CHANNELS, QUICK_PIXELS = 8, 64  # the fewest channels, in and out, and pixels for which transforms pay


class Window(NamedTuple):
    """A sliding window: its size, stride and dilation along (y, x), and the padding on the four sides."""

    kernel: Pair
    stride: Pair
    pads: Pads
    dilation: Pair


def window_count(
    length: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Output length of a sliding window along one axis.

    With `ceil_mode`, a last window counts even if it sticks out, as long as it starts inside the axis or its padding.
    """
    if not all(isinstance(n, int | np.integer) for n in (kernel, stride, before, after, dilation)):
        raise ValueError(
            f"sizes, strides, dilations and padding of windows must be integers, got {(kernel, stride, dilation)} "
            f"and {(before, after)}"
        )
    if min(kernel, stride, dilation) < 1:
        raise ValueError(
            f"sizes, strides and dilations of windows must be at least 1, got {(kernel, stride, dilation)}"
        )
    room = length + before + after - dilation * (kernel - 1) - 1
    if room < 0:
        raise ValueError(f"a window of {dilation * (kernel - 1) + 1} does not fit {length} + {before + after} pixels")
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= length + before else count


def reach(length: int, begin: int, end: int, offset: int, stride: int) -> tuple[Span, Span]:
    """Outputs o in begin..end-1 whose tap o * stride + offset lies inside 0..length-1: slices of o - begin, of taps.

    Two empty slices if there is none.
    """
    first = max(begin, -(offset // stride))
    last = min(end, (length - 1 - offset) // stride + 1)
    if first >= last:
        return slice(0, 0), slice(0, 0)
    tap = first * stride + offset
    return slice(first - begin, last - begin), slice(tap, tap + (last - first - 1) * stride + 1, stride)


def taps(
    shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    row_begin: int,
    row_end: int,
    out_width: int,
) -> Iterator[Tap]:
    """Each tap of a window over a band: (ky, kx, rows of the band, columns of it, rows of the input, columns of it)."""
    height, width = shape
    across = [reach(width, 0, out_width, kx * dilation[1] - pads[1], stride[1]) for kx in range(kernel[1])]
    for ky in range(kernel[0]):
        rows, taken = reach(height, row_begin, row_end, ky * dilation[0] - pads[0], stride[0])
        for kx, (cols, taken_cols) in enumerate(across):
            yield ky, kx, rows, cols, taken, taken_cols


def scatter(
    values: Array,
    out: Array,
    kernel: Pair,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    row_begin: int,
    row_end: int,
) -> None:
    """Add the windows of a band of output rows, one a column, back to their pixels; padding is dropped.

    Parameters
    ----------
    values : ndarray (C * kh * kw, (row_end - row_begin) * out_width)
        Rows in the order of a (Co, C, kh, kw) weight's last three axes.
    out : ndarray (C, H, W)
        Added to in place.
    kernel, stride, dilation : (int, int)
        Along y, along x.
    pads : (top, left, bottom, right)
        Pixels of zeros around the image.
    row_begin, row_end : int
        The band of output rows, half open.
    """
    channels, height, width = out.shape
    kh, kw = kernel
    out_width = window_count(width, kw, stride[1], pads[1], pads[3], dilation[1])
    values = values.reshape(channels, kh, kw, row_end - row_begin, out_width)
    for ky, kx, rows, cols, taken, taken_cols in taps(
        (height, width), kernel, stride, pads, dilation, row_begin, row_end, out_width
    ):
        out[:, taken, taken_cols] += values[:, ky, kx, rows, cols]


def quick(
    kernel: Pair, stride: Pair, dilation: Pair, dtype: npt.DTypeLike, channels: int, outputs: int, pixels: int
) -> bool:
    """Whether Winograd's product suits a convolution: 3 x 3 in float32, and enough to transform."""
    plain = kernel == (3, 3) and stride == (1, 1) and dilation == (1, 1) and dtype == np.float32
    return plain and min(channels, outputs) >= QUICK_CHANNELS and pixels >= QUICK_PIXELS


def convolve(
    weight: Array,
    x: Array,
    window: Window,
    rows: Pair,
    cols: int,
    out: Array,
    bias: Array | None = None,
    add: bool = False,
    sign: Sign = 0,
    other: Array | None = None,
    doubt: float = 0.0,
    whole: Array | None = None,
) -> Array:
    """The product of weights with the windows of an image in a band of output rows, by the fastest method.

    Parameters
    ----------
    weight : real (m, C, kh * kw)
        Of any strides.
    x : real (C, H, W)
    window : Window
    rows, cols : (begin, end), int
        The band, and pixels of each of its rows.
    out : real (m, (end - begin) * cols)
        Written, or with `add` added to.
    bias : real (m,), optional
    sign : {0, 1, -1, 2}
        1, -1, 2: max(weight, 0), min(weight, 0), abs(weight) in the place of `weight`.
    other : real (C, H, W), optional
        With `sign` 1 or -1: meets the weights of the opposite sign; the two are added.
    doubt, whole : as in `_kernels.winograd`
        Without effect unless the product is computed by Winograd's transforms.

    Returns
    -------
    out
    """
    if quick(window.kernel, window.stride, window.dilation, x.dtype, len(x), len(weight), (rows[1] - rows[0]) * cols):
        return _kernels.winograd(weight, x, window.pads, rows, cols, out, bias, add, sign, other, doubt, whole)
    return product(weight, x, window, rows, cols, out, bias, add, sign, other)


def product(
    weight: Array,
    x: Array,
    window: Window,
    rows: Pair,
    cols: int,
    out: Array,
    bias: Array | None = None,
    add: bool = False,
    sign: Sign = 0,
    other: Array | None = None,
    bounds: tuple[float, float] | None = None,
) -> Array:
    """`convolve` term by term, whatever the window; without `other`, results are clipped to `bounds`."""
    kernel, stride, pads, dilation = window
    _kernels.convolve(weight, x, kernel, stride, pads, dilation, rows, cols, out, bias, add, sign, bounds)
    if other is not None:
        _kernels.convolve(weight, other, kernel, stride, pads, dilation, rows, cols, out, None, True, opposite(sign))
    return out


def opposite(sign: Sign) -> Sign:
    """-1 for 1 and 1 for -1."""
    return -1 if sign == 1 else 1


def bands(rows: int, bytes_per_row: int, budget: int) -> list[tuple[int, int]]:
    """Half-open bands of rows that fit the budget of bytes, at least one row each, the first largest."""
    step = max(1, budget // max(1, bytes_per_row))
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def coverage(length: int, out: int, size: int, stride: int, before: int, dilation: int, dtype: npt.DTypeLike) -> Array:
    """Which of `length` inputs each of `out` windows covers along one axis: 0 / 1, (out, length)."""
    covers = np.zeros((out, length), dtype)
    for k in range(size):
        outs, ins = reach(length, 0, out, k * dilation - before, stride)
        covers[np.arange(out)[outs], np.arange(length)[ins]] = 1
    return covers


def balanced(covers: Array) -> Array:
    """Weights (out, length) of windows, which add up to 1 for each and to nearly the same for each input it covers.

    Windows of 3 at a stride of 2 see every other input twice, and those at the border have fewer inputs: plain flat
    weights draw that as a mesh with a frame. Rows and columns are scaled in turn (Sinkhorn and Knopp 1967), BALANCING
    times: where windows stick out on one side alone, the limit would move relevance by half an input.
    """
    return _balanced(covers.tobytes(), covers.shape, covers.dtype.str)


@lru_cache(maxsize=256)
def _balanced(covers: bytes, shape: Pair, dtype: str) -> Array:
    weights = np.frombuffer(covers, dtype).reshape(shape).astype(np.float64)
    for _ in range(BALANCING):
        weights /= _or_one(weights.sum(axis=0))
        weights /= _or_one(weights.sum(axis=1, keepdims=True))
    weights = weights.astype(dtype)
    weights.setflags(write=False)
    return weights


def _or_one(sums: Array) -> Array:
    """Sums to divide by; 1 for those of nothing."""
    return np.where(sums > 0, sums, 1)


class Windowed(Protocol):
    """A layer whose outputs see windows of its input."""

    @property
    def kernel(self) -> tuple[int, int]: ...
    @property
    def stride(self) -> tuple[int, int]: ...
    @property
    def pads(self) -> tuple[int, int, int, int]: ...


@dataclass(frozen=True)
class Windows:
    """Which inputs (H, W) the windows of a convolution or a pool cover; padding is excluded.

    Attributes
    ----------
    rows, cols : real (oh, H), (ow, W)
        0 / 1 along each axis.
    """

    rows: Array
    cols: Array

    @classmethod
    def of(cls, layer: object, x: Array, y: Array) -> Windows:
        """Those of a layer from x (..., H, W) to y (..., oh, ow); without a kernel, one window sees the whole of x."""
        if not hasattr(layer, "kernel"):
            return cls(*(np.ones((1, length), x.dtype) for length in x.shape[2:]))
        window = cast("Windowed", layer)
        dilation = getattr(layer, "dilation", (1, 1))
        return cls(
            *(
                coverage(
                    x.shape[2 + a],
                    y.shape[2 + a],
                    window.kernel[a],
                    window.stride[a],
                    window.pads[a],
                    dilation[a],
                    x.dtype,
                )
                for a in (0, 1)
            )
        )

    @property
    def counts(self) -> Array:
        """Inputs of each window, (oh, ow)."""
        return np.outer(self.rows.sum(axis=1), self.cols.sum(axis=1))

    def level(self) -> Windows:
        """The same windows with weights that add up to 1 and keep equal relevance equal; see `balanced`."""
        return Windows(balanced(self.rows), balanced(self.cols))

    def spread(self, share: Array) -> Array:
        """Each of share (..., oh, ow) given to every input of its window, (..., H, W)."""
        given: Array = self.rows.T @ share @ self.cols
        return given

    def sums(self, x: Array) -> Array:
        """Sum of x (..., H, W) over each window, (..., oh, ow)."""
        found: Array = self.rows @ x @ self.cols.T
        return found
