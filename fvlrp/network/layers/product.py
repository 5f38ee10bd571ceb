"""Products, quotients and maxima of two computed arrays: gates, squeeze-and-excitation, gated units, maxout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...runtime.memory import zeros
from ..rules import Choice
from .layer import NetworkLayer, Saved, Shape
from .select import collected


def joint(*shapes: Shape) -> Shape:
    """The common shape to which arrays of the same rank broadcast."""
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"arrays of {' and '.join(map(str, shapes))} have different numbers of axes")
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ValueError(f"arrays of {' and '.join(map(str, shapes))} do not broadcast") from None


def _nothing(r: Array, x: Array) -> Array:
    return zeros((len(r), *x.shape[1:]), r.dtype)


@dataclass(frozen=True, eq=False)
class Product(NetworkLayer):
    """The product of two arrays, broadcast to a common shape.

    Attributes
    ----------
    gate : {-1, 0, 1}
        Which input is a gate that scales the other (a sigmoid's output, or one value for a whole channel); -1: none.
    """

    gate: int = -1

    def out_shape(self, *shapes: Shape) -> Shape:
        return joint(*shapes)

    def apply(self, *inputs: Array) -> Array:
        a, b = inputs
        return a * b

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the signal and nothing to the gate, or half each, as `gate` chooses; half each for two signals.

        Source: Arras et al. 2019, arXiv:1909.12114.
        """
        signal = 1 - self.gate if self.gate >= 0 and choice.gate == "signal" else -1
        if signal < 0:
            half = r * r.dtype.type(0.5)
            return Passed([collected(half, x.shape[1:]) for x in saved.inputs], Entries())
        parts = [_nothing(r, x) for x in saved.inputs]
        parts[signal] = collected(r, saved.inputs[signal].shape[1:])
        return Passed(parts, Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)


@dataclass(frozen=True, eq=False)
class Quotient(NetworkLayer):
    """A quotient whose divisor is treated as a constant: normalised vectors, response normalisation."""

    def out_shape(self, *shapes: Shape) -> Shape:
        return joint(*shapes)

    def apply(self, *inputs: Array) -> Array:
        a, b = inputs
        return a / b

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the dividend."""
        x, divisor = saved.inputs
        return Passed([collected(r, x.shape[1:]), _nothing(r, divisor)], Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)


@dataclass(frozen=True, eq=False)
class Maximum(NetworkLayer):
    """The larger of two arrays, value by value (maxout); with `sign` -1 the smaller."""

    sign: int = 1

    def out_shape(self, *shapes: Shape) -> Shape:
        return joint(*shapes)

    def apply(self, *inputs: Array) -> Array:
        a, b = inputs
        return np.maximum(a, b) if self.sign > 0 else np.minimum(a, b)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the winner; to the first if both are equal."""
        a, b = saved.inputs
        first = np.where(a == saved.y, r, 0)
        return Passed([collected(first, a.shape[1:]), collected(r - first, b.shape[1:])], Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)
