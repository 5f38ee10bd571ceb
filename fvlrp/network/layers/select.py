"""Layers that copy or reorder values: transpositions, slices, gathers. Relevance goes back to the origin of values."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...runtime.memory import zeros
from ...runtime.types import Span
from ..rules import Choice
from .layer import NetworkLayer, Saved, Shape


class Placed(NetworkLayer):
    """A layer whose outputs are copies of inputs: the relevance of an output goes to the input it was copied from."""

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Each to its origin; relevance of copies adds up, and values that were not copied get 0."""
        return Passed([self.back(r, saved.inputs[0])], Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)

    @abstractmethod
    def back(self, r: Array, x: Array) -> Array:
        """Values r (targets, ...) of the output in their places of the input x, (targets, ...)."""


@dataclass(frozen=True, eq=False)
class Transpose(Placed):
    """The axes of an image in another order: axis k of the output is axis ``order[k - 1]`` of the input (from 1)."""

    order: tuple[int, ...]

    def out_shape(self, shape: Shape) -> Shape:
        if sorted(self.order) != list(range(1, len(shape) + 1)):
            raise ValueError(f"an array of {len(shape)} axes has no order {self.order}")
        return tuple(shape[a - 1] for a in self.order)

    def apply(self, x: Array) -> Array:
        return np.transpose(x, (0, *self.order))

    def back(self, r: Array, x: Array) -> Array:
        return np.transpose(r, np.argsort((0, *self.order)))


@dataclass(frozen=True, eq=False)
class Slice(Placed):
    """`count` values along `axis` (counted from 1), from `start` in steps of `step`, which may be negative."""

    axis: int
    start: int
    count: int
    step: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        a = self.axis - 1
        last = self.start + (self.count - 1) * self.step
        if self.count < 1 or not all(0 <= place < shape[a] for place in (self.start, last)):
            raise ValueError(f"{self.count} values from {self.start} in steps of {self.step} are not in {shape[a]}")
        return (*shape[:a], self.count, *shape[a + 1 :])

    @property
    def _where(self) -> tuple[Span, ...]:
        stop = self.start + self.count * self.step
        return (*(slice(None),) * self.axis, slice(self.start, None if stop < 0 else stop, self.step))

    def apply(self, x: Array) -> Array:
        return x[self._where]

    def back(self, r: Array, x: Array) -> Array:
        out = zeros((len(r), *x.shape[1:]), r.dtype)
        out[self._where] = r
        return out


@dataclass(frozen=True, eq=False)
class Gather(Placed):
    """Values at `indices` (of any shape) along `axis`: shuffled or rolled channels, reflected borders, repetitions."""

    indices: npt.NDArray[np.int64]
    axis: int

    def out_shape(self, shape: Shape) -> Shape:
        a, length = self.axis - 1, shape[self.axis - 1]
        if not self.indices.size or self.indices.min() < 0 or self.indices.max() >= length:
            raise ValueError(f"indices must be in 0..{length - 1}")
        return (*shape[:a], *self.indices.shape, *shape[a + 1 :])

    def apply(self, x: Array) -> Array:
        return np.take(x, self.indices, axis=self.axis)

    def back(self, r: Array, x: Array) -> Array:
        places = self.indices.ravel()
        flat = r.reshape(*r.shape[: self.axis], -1, *x.shape[self.axis + 1 :])
        if len(places) == x.shape[self.axis] and (np.bincount(places, minlength=len(places)) == 1).all():
            return np.take(flat, np.argsort(places), axis=self.axis)
        out = zeros((len(r), *x.shape[1:]), r.dtype)
        np.add.at(np.moveaxis(out, self.axis, 0), places, np.moveaxis(flat, self.axis, 0))
        return out


@dataclass(frozen=True, eq=False)
class Expand(Placed):
    """An image broadcast to `shape`: axes of length 1 are repeated."""

    shape: Shape

    def out_shape(self, shape: Shape) -> Shape:
        if len(shape) != len(self.shape) or np.broadcast_shapes(shape, self.shape) != self.shape:
            raise ValueError(f"an array of {shape} does not expand to {self.shape}")
        return self.shape

    def apply(self, x: Array) -> Array:
        return np.broadcast_to(x, (len(x), *self.shape))

    def back(self, r: Array, x: Array) -> Array:
        return collected(r, x.shape[1:])


def collected(r: Array, shape: Shape) -> Array:
    """Values r (targets, ...) of a broadcast array, summed to its original `shape`."""
    over = tuple(1 + a for a, (n, own) in enumerate(zip(r.shape[1:], shape, strict=True)) if own == 1 and n != 1)
    return r.sum(axis=over, keepdims=True) if over else r
