"""Activations and normalisations that act on each value, or on each pixel, alone: relevance passes unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core.layer import Array
from ..windows import reach
from .constant import met
from .layer import Shape, Unchanged


@dataclass(frozen=True, eq=False)
class ReLU(Unchanged):
    """max(x, 0)."""

    elementwise: ClassVar[bool] = True

    def apply(self, x: Array, out: Array | None = None) -> Array:
        return np.maximum(x, 0, out=out)


@dataclass(frozen=True, eq=False)
class LeakyReLU(Unchanged):
    """x where x > 0, slope * x elsewhere."""

    slope: float
    elementwise: ClassVar[bool] = True

    def apply(self, x: Array, out: Array | None = None) -> Array:
        slope = x.dtype.type(self.slope)
        if 0 <= slope <= 1:
            return np.maximum(x, x * slope, out=out)
        return np.multiply(x, np.where(x > 0, x.dtype.type(1), slope), out=out)


@dataclass(frozen=True, eq=False)
class Clip(Unchanged):
    """min(max(x, low), high): ReLU6 is Clip(0, 6)."""

    low: float
    high: float
    elementwise: ClassVar[bool] = True

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
    """x where x > 0, slope * x elsewhere; `slope` is an array that meets the last axes."""

    slope: Array

    def out_shape(self, shape: Shape) -> Shape:
        return met(shape, self.slope.shape, "slope")

    def apply(self, x: Array) -> Array:
        return np.where(x > 0, x, x * self.cast("slope", x.dtype))


@dataclass(frozen=True, eq=False)
class Activation(Unchanged):
    """A function of each value alone, by name: one of `FUNCTIONS`, with up to two numbers."""

    name: str
    a: float = 0.0
    b: float = 0.0
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise ValueError(f"unknown activation {self.name!r}; known are {', '.join(FUNCTIONS)}")

    def apply(self, x: Array, out: Array | None = None) -> Array:
        with np.errstate(all="ignore"):
            y = FUNCTIONS[self.name](x, x.dtype.type(self.a), x.dtype.type(self.b))
        if out is None:
            return y
        np.copyto(out, y)
        return out


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(x))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, x.dtype.type(0)))


def _gelu(x: Array) -> Array:
    y = _erf(x * x.dtype.type(0.5**0.5))
    y += 1
    y *= x
    y *= x.dtype.type(0.5)
    return y


def _gelu_tanh(x: Array) -> Array:
    inner = x * (1 + x.dtype.type(0.044715) * x * x)
    return np.asarray(0.5 * x * (1 + np.tanh(x.dtype.type((2 / np.pi) ** 0.5) * inner)))


# Each takes x and two numbers of its type. "shrink" is ONNX's, "celu" and "selu" too.
FUNCTIONS: dict[str, Callable[[Array, Any, Any], Array]] = {
    "abs": lambda x, a, b: np.abs(x),
    "ceil": lambda x, a, b: np.ceil(x),
    "celu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)),
    "cos": lambda x, a, b: np.cos(x),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "erf": lambda x, a, b: _erf(x),
    "exp": lambda x, a, b: np.exp(x),
    "floor": lambda x, a, b: np.floor(x),
    "gelu": lambda x, a, b: _gelu(x),
    "gelu_tanh": lambda x, a, b: _gelu_tanh(x),
    "hardsigmoid": lambda x, a, b: np.clip(x * a + b, 0, 1),
    "hardswish": lambda x, a, b: x * np.clip(x / 6 + x.dtype.type(0.5), 0, 1),
    "log": lambda x, a, b: np.log(x),
    "logsigmoid": lambda x, a, b: -_softplus(-x),
    "mish": lambda x, a, b: x * np.tanh(_softplus(x)),
    "pow": lambda x, a, b: np.square(x) if a == 2 else np.power(x, a),
    "reciprocal": lambda x, a, b: 1 / x,
    "round": lambda x, a, b: np.rint(x),
    "selu": lambda x, a, b: b * np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "shrink": lambda x, a, b: np.where(x < -a, x + b, np.where(x > a, x - b, 0)).astype(x.dtype),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "sign": lambda x, a, b: np.sign(x),
    "silu": lambda x, a, b: x * _sigmoid(x),
    "sin": lambda x, a, b: np.sin(x),
    "softplus": lambda x, a, b: _softplus(x),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "sqrt": lambda x, a, b: np.sqrt(x),
    "swish": lambda x, a, b: x * _sigmoid(a * x),
    "tanh": lambda x, a, b: np.tanh(x),
    "threshold": lambda x, a, b: np.where(x > a, x, 0).astype(x.dtype),
}
