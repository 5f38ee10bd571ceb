"""Activations and normalisations that act on each value, or on each pixel, alone: relevance passes unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...core.layer import Array
from ..windows import reach
from .layer import Unchanged


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
