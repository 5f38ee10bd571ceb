"""The layers of a convolutional network as plain values: parameters and a pure `forward`, without names or order.

Arrays are (n, C, H, W), or (n, C) behind the last pooling. A layer computes in the dtype of its input: float32, or
float64 in exact mode; parameters are cast once for each dtype and kept. `out_shape` tells a shape from shapes, all
without the batch axis. A convolution is one product with the windows of its input, which the kernel reads where they
lie; `columns` is their matrix, and `scatter` its adjoint. All work on bands of output rows, so that the copy of a large
layer never exists as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from . import _kernels

BAND_BYTES = 1 << 21  # of outputs at a time: what the second- and third-level caches hold
QUICK_CHANNELS, QUICK_PIXELS = 8, 64  # the fewest channels, in and out, and pixels for which transforms pay


# ---- windows ---------------------------------------------------------------------------------------------------------


def window_count(length: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1, ceil_mode=False):
    """Output length of a sliding window along one axis.

    With `ceil_mode`, a last window that starts inside the axis or the padding before it counts although it sticks out.
    """
    room = length + before + after - dilation * (kernel - 1) - 1
    if room < 0:
        raise ValueError(f"a window of {dilation * (kernel - 1) + 1} does not fit {length} + {before + after} pixels")
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= length + before else count


def reach(length: int, begin: int, end: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Outputs o in begin..end-1 whose tap o * stride + offset lies inside 0..length-1: slices of o - begin, of taps.

    Two empty slices where there is none.
    """
    first = max(begin, -(offset // stride))
    last = min(end, (length - 1 - offset) // stride + 1)
    if first >= last:
        return slice(0, 0), slice(0, 0)
    tap = first * stride + offset
    return slice(first - begin, last - begin), slice(tap, tap + (last - first - 1) * stride + 1, stride)


def _taps(shape, kernel, stride, pads, dilation, row_begin, row_end, out_width):
    """Each tap of a window over a band: (ky, kx, rows of the band, columns of it, rows of the input, columns of it)."""
    height, width = shape
    across = [reach(width, 0, out_width, kx * dilation[1] - pads[1], stride[1]) for kx in range(kernel[1])]
    for ky in range(kernel[0]):
        rows, taken = reach(height, row_begin, row_end, ky * dilation[0] - pads[0], stride[0])
        for kx, (cols, taken_cols) in enumerate(across):
            yield ky, kx, rows, cols, taken, taken_cols


def columns(x, kernel, stride, pads, dilation, row_begin: int, row_end: int, out=None) -> np.ndarray:
    """The windows of a band of output rows, one per column: im2col.

    Parameters
    ----------
    x : ndarray (C, H, W)
    kernel, stride, dilation : (int, int)
        Along y, along x.
    pads : (top, left, bottom, right)
        Pixels of zeros around `x`.
    row_begin, row_end : int
        The band of output rows, half open.
    out : ndarray, optional
        Flat memory of the dtype of `x` to write into.

    Returns
    -------
    ndarray (C * kh * kw, (row_end - row_begin) * out_width)
        Rows in the order of a (Co, C, kh, kw) weight's last three axes.
    """
    channels, height, width = x.shape
    kh, kw = kernel
    out_width = window_count(width, kw, stride[1], pads[1], pads[3], dilation[1])
    shape = (channels, kh, kw, row_end - row_begin, out_width)
    out = np.empty(shape, x.dtype) if out is None else out[: prod(shape)].reshape(shape)
    for ky, kx, rows, cols, taken, taken_cols in _taps(
        (height, width), kernel, stride, pads, dilation, row_begin, row_end, out_width
    ):
        tap = out[:, ky, kx]
        tap[:, : rows.start] = 0
        tap[:, rows.stop :] = 0
        tap[:, rows, : cols.start] = 0
        tap[:, rows, cols.stop :] = 0
        tap[:, rows, cols] = x[:, taken, taken_cols]
    return out.reshape(channels * kh * kw, -1)


def scatter(values, out, kernel, stride, pads, dilation, row_begin: int, row_end: int) -> None:
    """The adjoint of `columns`: add every column of a band back to the pixels of its window; padding is dropped.

    Parameters
    ----------
    values : ndarray (C * kh * kw, (row_end - row_begin) * out_width)
    out : ndarray (C, H, W)
        Added to in place.
    kernel, stride, pads, dilation, row_begin, row_end
        As in `columns`.
    """
    channels, height, width = out.shape
    kh, kw = kernel
    out_width = window_count(width, kw, stride[1], pads[1], pads[3], dilation[1])
    values = values.reshape(channels, kh, kw, row_end - row_begin, out_width)
    for ky, kx, rows, cols, taken, taken_cols in _taps(
        (height, width), kernel, stride, pads, dilation, row_begin, row_end, out_width
    ):
        out[:, taken, taken_cols] += values[:, ky, kx, rows, cols]


def quick(kernel, stride, dilation, dtype, channels: int, outputs: int, pixels: int) -> bool:
    """Whether Winograd's product suits a convolution: 3 x 3 in float32, and enough to transform."""
    plain = kernel == (3, 3) and stride == (1, 1) and dilation == (1, 1) and dtype == np.float32
    return plain and min(channels, outputs) >= QUICK_CHANNELS and pixels >= QUICK_PIXELS


def convolve(weight, x, window, rows, cols: int, out, bias=None, add=False, sign=0, other=None, doubt=0.0, whole=None):
    """The product of weights with the windows of an image in a band of output rows, in the quickest way.

    Parameters
    ----------
    weight : real (m, C, kh * kw)
        Of any strides.
    x : real (C, H, W)
    window : (kernel, stride, pads, dilation)
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
        Without effect where no transforms can spoil a result.

    Returns
    -------
    out
    """
    kernel, stride, pads, dilation = window
    if quick(kernel, stride, dilation, x.dtype, len(x), len(weight), (rows[1] - rows[0]) * cols):
        return _kernels.winograd(weight, x, pads, rows, cols, out, bias, add, sign, other, doubt, whole)
    _kernels.convolve(weight, x, *window, rows, cols, out, bias, add, sign)
    if other is not None:
        _kernels.convolve(weight, other, *window, rows, cols, out, None, True, -sign)
    return out


def bands(rows: int, bytes_per_row: int, budget: int | None = None) -> list[tuple[int, int]]:
    """Half-open bands of rows that fit the budget (default `BAND_BYTES`), at least one row each, the first largest."""
    step = max(1, (budget or BAND_BYTES) // max(1, bytes_per_row))
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


# ---- layers ----------------------------------------------------------------------------------------------------------


class Layer:
    """What all layers share: parameters in the dtype of the computation, cast once."""

    @cached_property
    def _casts(self) -> dict:
        return {}

    def cast(self, name: str, dtype) -> np.ndarray:
        """Parameter `name` in `dtype`, kept for the next time."""
        value = getattr(self, name)
        if value.dtype == dtype:
            return value
        key = name, np.dtype(dtype)
        if key not in self._casts:
            self._casts[key] = value.astype(dtype)
        return self._casts[key]

    def out_shape(self, *shapes: tuple) -> tuple:
        return shapes[0]


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """Cross-correlation: weight (Co, Ci / groups, kh, kw), bias (Co,), pads (top, left, bottom, right)."""

    weight: np.ndarray
    bias: np.ndarray
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2:]

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.weight.shape[1] == 1 and len(self.weight) == self.groups

    def quick(self, pixels: int, dtype) -> bool:
        """Whether `convolve` takes Winograd's product for `pixels` of its output, and is best given all at once."""
        outputs, channels = len(self.weight) // self.groups, self.weight.shape[1]
        return quick(self.kernel, self.stride, self.dilation, dtype, channels, outputs, pixels)

    def out_shape(self, shape):
        channels, height, width = shape
        if channels != self.weight.shape[1] * self.groups:
            raise ValueError(f"a convolution of {self.weight.shape[1] * self.groups} channels was given {channels}")
        (kh, kw), (sy, sx), (top, left, bottom, right), (dy, dx) = self.kernel, self.stride, self.pads, self.dilation
        return (
            len(self.weight),
            window_count(height, kh, sy, top, bottom, dy),
            window_count(width, kw, sx, left, right, dx),
        )

    def forward(self, x, then=None):
        """The convolution of x; `then`, an elementwise layer, is applied to each part while it is in the cache."""
        out = np.empty((len(x), *self.out_shape(x.shape[1:])), x.dtype)
        product = self._depthwise if self.depthwise else self._banded
        for image, result in zip(np.ascontiguousarray(x), out, strict=True):
            product(image, result, then)
        return out

    def _banded(self, x, out, then) -> None:
        """Bands of output rows, as many as stay in the cache until `then` has seen them."""
        weight, bias = self.cast("weight", x.dtype).reshape(*self.weight.shape[:2], -1), self.cast("bias", x.dtype)
        window, out_width = (self.kernel, self.stride, self.pads, self.dilation), out.shape[2]
        for inputs, results, mine in self._grouped(x, out):
            flat = results.reshape(len(results), -1)
            budget = flat.nbytes if self.quick(flat.shape[1], x.dtype) else BAND_BYTES
            for begin, end in bands(out.shape[1], len(flat) * out_width * x.itemsize, budget):
                part = flat[:, begin * out_width : end * out_width]
                convolve(weight[mine], inputs, window, (begin, end), out_width, part, bias[mine])
                if then is not None:
                    then.forward(part, out=part)

    def _depthwise(self, x, out, then) -> None:
        """One filter per channel, tap by tap: a matrix product would be as narrow as one row."""
        weight = self.cast("weight", x.dtype)
        out[:] = 0
        taps = list(
            _taps(x.shape[1:], self.kernel, self.stride, self.pads, self.dilation, 0, out.shape[1], out.shape[2])
        )
        for channel in range(len(x)):
            for ky, kx, rows, cols, taken, taken_cols in taps:
                out[channel, rows, cols] += x[channel, taken, taken_cols] * weight[channel, 0, ky, kx]
        _finish(out.reshape(len(out), -1), self.cast("bias", x.dtype), then)

    def _grouped(self, x, out):
        """Each group's inputs and outputs, and which output channels they are."""
        n_in, n_out = self.weight.shape[1], len(self.weight) // self.groups
        for g in range(self.groups):
            mine = slice(g * n_out, (g + 1) * n_out)
            yield x[g * n_in : (g + 1) * n_in], out[mine], mine


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """Fully connected: weight (n_out, n_in), bias (n_out,), on (n, n_in) or anything that flattens to it."""

    weight: np.ndarray
    bias: np.ndarray

    def out_shape(self, shape):
        if prod(shape) != self.weight.shape[1]:
            raise ValueError(f"a dense layer of {self.weight.shape[1]} inputs was given {prod(shape)}")
        return (len(self.weight),)

    def forward(self, x):
        return x.reshape(len(x), -1) @ self.cast("weight", x.dtype).T + self.cast("bias", x.dtype)


@dataclass(frozen=True, eq=False)
class ReLU(Layer):
    """max(x, 0). Elementwise layers can write to `out`, which may be their input."""

    def forward(self, x, out=None):
        return np.maximum(x, 0, out=out)


@dataclass(frozen=True, eq=False)
class LeakyReLU(Layer):
    """x where x > 0, slope * x elsewhere."""

    slope: float

    def forward(self, x, out=None):
        slope = x.dtype.type(self.slope)
        if 0 <= slope <= 1:
            return np.maximum(x, x * slope, out=out)
        return np.multiply(x, np.where(x > 0, x.dtype.type(1), slope), out=out)


@dataclass(frozen=True, eq=False)
class Clip(Layer):
    """min(max(x, low), high): ReLU6 is Clip(0, 6)."""

    low: float
    high: float

    def forward(self, x, out=None):
        return np.clip(x, x.dtype.type(self.low), x.dtype.type(self.high), out=out)


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """Largest value of each window; padding never wins."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False
    dilation: tuple[int, int] = (1, 1)

    def out_shape(self, shape):
        return (shape[0], *_pooled(self, shape, self.dilation))

    def forward(self, x):
        out = np.empty((len(x), *self.out_shape(x.shape[1:])), x.dtype)
        for image, result in zip(np.ascontiguousarray(x), out, strict=True):
            _kernels.max_pool(image, self.kernel, self.stride, self.pads, self.dilation, result)
        return out


@dataclass(frozen=True, eq=False)
class AveragePool(Layer):
    """Mean of each window, over the pixels inside the image or, with `count_include_pad`, over the padding, too."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = False

    def out_shape(self, shape):
        return (shape[0], *_pooled(self, shape, (1, 1)))

    def counts(self, height: int, width: int) -> np.ndarray:
        """What each window's sum is divided by, (out_height, out_width)."""
        out = _pooled(self, (0, height, width), (1, 1))
        return np.outer(self._along(0, height, out[0]), self._along(1, width, out[1]))

    def _along(self, axis: int, length: int, count: int) -> np.ndarray:
        before, after = self.pads[axis], self.pads[axis + 2]
        begin = np.arange(count) * self.stride[axis] - before
        low, high = (-before, length + after) if self.count_include_pad else (0, length)
        return np.minimum(begin + self.kernel[axis], high) - np.maximum(begin, low)

    def forward(self, x):
        out = _window_sums(self, x)
        return np.divide(out, self.counts(*x.shape[2:]).astype(x.dtype), out=out)


def _finish(part: np.ndarray, bias: np.ndarray, then) -> None:
    """Bias, and what comes after the convolution, on (channels, pixels) in place."""
    part += bias[:, None]
    if then is not None:
        then.forward(part, out=part)


def _pooled(pool, shape, dilation) -> tuple[int, int]:
    """Height and width of a pool's output."""
    return tuple(
        window_count(
            shape[1 + i], pool.kernel[i], pool.stride[i], pool.pads[i], pool.pads[2 + i], dilation[i], pool.ceil_mode
        )
        for i in range(2)
    )


def _window_sums(pool, x) -> np.ndarray:
    """Sums of the pixels of each window, some channels at a time: they stay in the cache."""
    height, width = _pooled(pool, x.shape[1:], (1, 1))
    out = np.empty((*x.shape[:2], height, width), x.dtype)
    for image, result in zip(x, out, strict=True):
        for begin, end in bands(len(image), image[0].nbytes, BAND_BYTES // 4):
            # Rows first: they are contiguous, and some are gone before the strided step along x.
            down = np.empty((end - begin, height, image.shape[2]), x.dtype)
            _slide(image[begin:end], down, 1, pool.kernel[0], pool.stride[0], pool.pads[0])
            _slide(down, result[begin:end], 2, pool.kernel[1], pool.stride[1], pool.pads[1])
    return out


def _slide(x, out, axis: int, kernel: int, stride: int, before: int) -> None:
    """Add the taps of windows along one axis of x into `out`, without a padded copy."""
    lead, count = (slice(None),) * axis, out.shape[axis]
    taps = [reach(x.shape[axis], 0, count, k - before, stride) for k in range(kernel)]
    # Two taps that every window has need no zeros to begin with.
    full = [k for k, (outs, _) in enumerate(taps) if outs == slice(0, count)][:2]
    if len(full) == 2:
        np.add(*(x[(*lead, taps[k][1])] for k in full), out=out)
    else:
        full = []
        out[...] = 0
    for k, (outs, ins) in enumerate(taps):
        if k not in full and outs.stop > outs.start:
            part = out[(*lead, outs)]
            np.add(part, x[(*lead, ins)], out=part)


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(Layer):
    """Mean over all pixels of a channel: (n, C, H, W) -> (n, C, 1, 1)."""

    def out_shape(self, shape):
        return (shape[0], 1, 1)

    def forward(self, x):
        return x.mean(axis=(2, 3), keepdims=True)


@dataclass(frozen=True, eq=False)
class LRN(Layer):
    """Across channels: x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def forward(self, x):
        squares, total = np.square(x), np.zeros_like(x)
        channels = x.shape[1]
        for offset in range(-((self.size - 1) // 2), self.size // 2 + 1):
            outs, ins = reach(channels, 0, channels, offset, 1)
            total[:, outs] += squares[:, ins]
        total *= x.dtype.type(self.alpha / self.size)
        total += x.dtype.type(self.bias)
        if self.beta == 0.75:  # two roots are several times as quick as a power
            root = np.sqrt(total)
            np.sqrt(root, out=total)
            total *= root
        else:
            np.power(total, x.dtype.type(self.beta), out=total)
        return np.divide(x, total, out=total)


@dataclass(frozen=True, eq=False)
class Affine(Layer):
    """scale * x + shift per channel: batch normalisation, or constants, that no neighbour could take in."""

    scale: np.ndarray
    shift: np.ndarray

    def forward(self, x):
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        return x * self.cast("scale", x.dtype).reshape(per_channel) + self.cast("shift", x.dtype).reshape(per_channel)


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Inputs one after another along `axis` (1: channels)."""

    axis: int = 1

    def out_shape(self, *shapes):
        out = list(shapes[0])
        out[self.axis - 1] = sum(shape[self.axis - 1] for shape in shapes)
        return tuple(out)

    def forward(self, *inputs):
        return np.concatenate(inputs, axis=self.axis)


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """Sum of its inputs: the end of a residual branch."""

    def out_shape(self, *shapes):
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"inputs of a sum must have the same shape, got {', '.join(map(str, shapes))}")
        return shapes[0]

    def forward(self, *inputs):
        out = inputs[0] + inputs[1]
        for x in inputs[2:]:
            out += x
        return out


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """All axes from `axis` on become one: (n, C, H, W) -> (n, C * H * W) for axis 1."""

    axis: int = 1

    def out_shape(self, shape):
        return (*shape[: self.axis - 1], prod(shape[self.axis - 1 :]))

    def forward(self, x):
        return x.reshape(*x.shape[: self.axis], -1)


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """Another shape for each image; -1 takes what is left."""

    shape: tuple[int, ...]

    def out_shape(self, shape):
        known = -prod(self.shape) if -1 in self.shape else prod(self.shape)
        if prod(shape) % known or (-1 not in self.shape and prod(shape) != known):
            raise ValueError(f"cannot reshape {shape} to {self.shape}")
        return tuple(prod(shape) // known if length == -1 else length for length in self.shape)

    def forward(self, x):
        return x.reshape(len(x), *self.shape)


@dataclass(frozen=True, eq=False)
class Pad(Layer):
    """A constant border: pads (top, left, bottom, right)."""

    pads: tuple[int, int, int, int]
    value: float = 0.0

    def out_shape(self, shape):
        top, left, bottom, right = self.pads
        return (shape[0], shape[1] + top + bottom, shape[2] + left + right)

    def forward(self, x):
        top, left, bottom, right = self.pads
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=self.value)
