"""Layers that move values without changing them: reshaping and constant borders."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import total
from ..rules import Choice
from .layer import NetworkLayer, Saved, Shape, Unchanged


@dataclass(frozen=True, eq=False)
class Flatten(Unchanged):
    """All axes from `axis` on become one: (n, C, H, W) -> (n, C * H * W) for axis 1."""

    axis: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        return (*shape[: self.axis - 1], prod(shape[self.axis - 1 :]))

    def apply(self, x: Array) -> Array:
        return x.reshape(*x.shape[: self.axis], -1)


@dataclass(frozen=True, eq=False)
class Reshape(Unchanged):
    """A new shape for each image; a length of -1 is inferred."""

    shape: Shape

    def out_shape(self, shape: Shape) -> Shape:
        known = -prod(self.shape) if -1 in self.shape else prod(self.shape)
        if prod(shape) % known or (-1 not in self.shape and prod(shape) != known):
            raise ValueError(f"cannot reshape {shape} to {self.shape}")
        return tuple(prod(shape) // known if length == -1 else length for length in self.shape)

    def apply(self, x: Array) -> Array:
        return x.reshape(len(x), *self.shape)


@dataclass(frozen=True, eq=False)
class Pad(NetworkLayer):
    """A constant border: pads (top, left, bottom, right) around `axis` (counted from 1) and the next."""

    pads: tuple[int, int, int, int]
    value: float = 0.0
    axis: int = 2

    def out_shape(self, shape: Shape) -> Shape:
        top, left, bottom, right = self.pads
        if not 1 <= self.axis < len(shape):
            raise ValueError(f"an array of {shape} has no axes {self.axis} and {self.axis + 1}")
        out = list(shape)
        out[self.axis - 1] += top + bottom
        out[self.axis] += left + right
        return tuple(out)

    def apply(self, x: Array) -> Array:
        top, left, bottom, right = self.pads
        widths = [(0, 0)] * x.ndim
        widths[self.axis : self.axis + 2] = [(top, bottom), (left, right)]
        return np.pad(x, widths, constant_values=self.value)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """The inside goes to the input; relevance of the border is kept (ledger: "padding")."""
        height, width = saved.inputs[0].shape[self.axis : self.axis + 2]
        top, left = self.pads[:2]
        inside = (*(slice(None),) * self.axis, slice(top, top + height), slice(left, left + width))
        border = r.copy()
        border[inside] = 0
        return Passed([r[inside]], Entries(padding=total(border)))

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)
