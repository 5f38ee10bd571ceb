"""Activations, and normalisations of single pixels: relevance passes unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ... import _kernels
from ...core.layer import Array
from ..windows import reach
from .constant import met
from .layer import Shape, Unchanged


@dataclass(frozen=True, eq=False)
class ReLU(Unchanged):
    """max(x, 0)."""

    elementwise: ClassVar[bool] = True

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.inf

    def apply(self, x: Array, out: Array | None = None) -> Array:
        return np.maximum(x, 0, out=out)


@dataclass(frozen=True, eq=False)
class LeakyReLU(Unchanged):
    """x where x > 0, slope * x elsewhere."""

    slope: float
    elementwise: ClassVar[bool] = True

    def apply(self, x: Array, out: Array | None = None) -> Array:
        slope = x.dtype.type(self.slope)
        y: Array
        if 0 <= slope <= 1:
            y = np.maximum(x, x * slope, out=out)
        else:
            y = np.multiply(x, np.where(x > 0, x.dtype.type(1), slope), out=out)
        return y


@dataclass(frozen=True, eq=False)
class Clip(Unchanged):
    """min(max(x, low), high): ReLU6 is Clip(0, 6)."""

    low: float
    high: float
    elementwise: ClassVar[bool] = True

    @property
    def bounds(self) -> tuple[float, float] | None:
        return (self.low, self.high) if self.low <= self.high else None

    def apply(self, x: Array, out: Array | None = None) -> Array:
        return np.clip(x, x.dtype.type(self.low), x.dtype.type(self.high), out=out)


@dataclass(frozen=True, eq=False)
class LRN(Unchanged):
    """Across channels: x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def apply(self, x: Array) -> Array:
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
class PReLU(Unchanged):
    """x where x > 0, slope * x elsewhere; `slope` is an array that broadcasts with the last axes."""

    slope: Array

    def out_shape(self, shape: Shape) -> Shape:
        return met(shape, self.slope.shape, "slope")

    def apply(self, x: Array) -> Array:
        return np.where(x > 0, x, x * self.cast("slope", x.dtype))


@dataclass(frozen=True, eq=False)
class Activation(Unchanged):
    """An elementwise function by name: one of `KERNELS` or `FUNCTIONS`, with up to two parameters."""

    name: str
    a: float = 0.0
    b: float = 0.0
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        known = {*KERNELS, *FUNCTIONS}
        if self.name not in known:
            raise ValueError(f"unknown activation {self.name!r}; known are {', '.join(sorted(known))}")

    def apply(self, x: Array, out: Array | None = None) -> Array:
        kernel = KERNELS.get(self.name)
        if kernel and (self.name != "hardsigmoid" or self.usual):
            return _by_kernel(kernel, x, out)
        with np.errstate(all="ignore"):
            y = FUNCTIONS[self.name](x, x.dtype.type(self.a), x.dtype.type(self.b))
        if out is None:
            return y
        np.copyto(out, y)
        return out

    @property
    def usual(self) -> bool:
        """Whether a hard sigmoid is x / 6 + 1 / 2, as in torch."""
        return abs(self.a - 1 / 6) < 1e-7 and self.b == 0.5


def _by_kernel(function: str, x: Array, out: Array | None) -> Array:
    """The kernel of a function; parts of rows, as bands of an image are, one by one."""
    if out is None:
        return np.asarray(_kernels.activate(function, np.ascontiguousarray(x)))
    if x.flags.c_contiguous and out.flags.c_contiguous:
        _kernels.activate(function, x, out)
        return out
    for values, results in zip(x, out, strict=True):
        _by_kernel(function, values, results)
    return out


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, x.dtype.type(0)))


def _sigmoid(x: Array) -> Array:
    return _by_kernel("sigmoid", x, None)


# What there are kernels for.
KERNELS = {
    "erf": "erf",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "tanh": "tanh",
}

# NumPy's. Each takes x and two numbers of its type. "shrink" is ONNX's, "celu" and "selu" too.
FUNCTIONS: dict[str, Callable[[Array, np.float32 | np.float64, np.float32 | np.float64], Array]] = {
    "abs": lambda x, a, b: np.abs(x),
    "ceil": lambda x, a, b: np.ceil(x),
    "celu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)),
    "cos": lambda x, a, b: np.cos(x),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "exp": lambda x, a, b: np.exp(x),
    "floor": lambda x, a, b: np.floor(x),
    "hardsigmoid": lambda x, a, b: np.clip(x * a + b, 0, 1),
    "log": lambda x, a, b: np.log(x),
    "logsigmoid": lambda x, a, b: -_softplus(-x),
    "mish": lambda x, a, b: x * np.tanh(_softplus(x)),
    "pow": lambda x, a, b: np.square(x) if a == 2 else np.power(x, a),
    "reciprocal": lambda x, a, b: 1 / x,
    "round": lambda x, a, b: np.rint(x),
    "selu": lambda x, a, b: b * np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "shrink": lambda x, a, b: np.where(x < -a, x + b, np.where(x > a, x - b, 0)).astype(x.dtype),
    "sign": lambda x, a, b: np.sign(x),
    "sin": lambda x, a, b: np.sin(x),
    "softplus": lambda x, a, b: _softplus(x),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "sqrt": lambda x, a, b: np.sqrt(x),
    "step": lambda x, a, b: ((x > a) | ((x == a) & (b > 0))).astype(x.dtype),
    "swish": lambda x, a, b: x * _sigmoid(a * x),
    "threshold": lambda x, a, b: np.where(x > a, x, 0).astype(x.dtype),
}
