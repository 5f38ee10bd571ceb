"""The layers of a convolutional network as plain values: parameters and a pure `forward`, without names or order.

Arrays are (n, C, H, W), or (n, C) behind the last pooling. A layer computes in the dtype of its input: float32, or
float64 in exact mode; parameters are cast once for each dtype and kept. `out_shape` tells a shape from shapes, all
without the batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from .. import _kernels
from ..runtime.memory import empty
from .windows import bands, convolve, quick, reach, taps, window_count

BAND_BYTES = 1 << 21  # of outputs at a time: what the second- and third-level caches hold


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
        out = empty((len(x), *self.out_shape(x.shape[1:])), x.dtype)
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
        each = list(
            taps(x.shape[1:], self.kernel, self.stride, self.pads, self.dilation, 0, out.shape[1], out.shape[2])
        )
        for channel in range(len(x)):
            for ky, kx, rows, cols, taken, taken_cols in each:
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
        out = empty((len(x), *self.out_shape(x.shape[1:])), x.dtype)
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
    out = empty((*x.shape[:2], height, width), x.dtype)
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
    reached = [reach(x.shape[axis], 0, count, k - before, stride) for k in range(kernel)]
    # Two taps that every window has need no zeros to begin with.
    full = [k for k, (outs, _) in enumerate(reached) if outs == slice(0, count)][:2]
    if len(full) == 2:
        np.add(*(x[(*lead, reached[k][1])] for k in full), out=out)
    else:
        full = []
        out[...] = 0
    for k, (outs, ins) in enumerate(reached):
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
