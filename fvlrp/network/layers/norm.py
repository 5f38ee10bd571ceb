"""Normalisations by the statistics of the image itself: layer, group and root-mean-square normalisation.

The standard deviation is treated as a constant. The rest is linear: x minus its mean, times a factor, plus a shift.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import Epsilon, total
from ..rules import Choice
from .constant import met
from .layer import NetworkLayer, Saved, Shape


class Normalisation(NetworkLayer):
    """y = scale (x - mean) / deviation + shift. Subclasses define the axes and whether the mean is subtracted."""

    epsilon: float
    centred: ClassVar[bool] = True

    @abstractmethod
    def over(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        """x in a shape in which whole axes are normalised, and those axes."""

    @abstractmethod
    def factors(self, x: Array) -> tuple[Array | None, Array | None]:
        """`scale` and `shift` in shapes that broadcast with x; None for a missing one."""

    def apply(self, x: Array) -> Array:
        if self.rows(x.shape):
            return self._normalised(x)[0]
        grouped, axes = self.over(x)
        deviation, mean = self._statistics(grouped, axes)
        y = (grouped / deviation if mean is None else (grouped - mean) / deviation).reshape(x.shape)
        scale, shift = self.factors(x)
        if scale is not None:
            y *= scale
        if shift is not None:
            y += shift
        return y

    def rows(self, shape: Shape) -> bool:
        """Whether what is normalised together is the last axis of x, for which there is a kernel."""
        return False

    def _normalised(self, x: Array) -> tuple[Array, Array]:
        """y, and one over the deviation, of the last axis."""
        scale, shift = self.factors(x)
        y, _, inverse = _kernels.layer_norm(
            np.ascontiguousarray(x),
            None if scale is None else scale.reshape(-1),
            None if shift is None else shift.reshape(-1),
            self.epsilon,
            root_mean_square=not self.centred,
        )
        return np.asarray(y), inverse[..., None].astype(x.dtype)

    def _statistics(self, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array | None]:
        """Standard deviation, and the mean if it is subtracted."""
        mean = x.mean(axis=axes, keepdims=True) if self.centred else None
        squares = np.square(x if mean is None else x - mean).mean(axis=axes, keepdims=True)
        squares += x.dtype.type(self.epsilon)
        return np.sqrt(squares), mean

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """x times the gradient of <y, r / y> with a constant deviation; the shift absorbs relevance like a bias.

        Source: Ali et al. 2022, arXiv:2202.07304; Achtibat et al. 2024, arXiv:2402.05602.
        """
        if choice.norm == "identity":
            return self.flat(r, saved, choice)
        (x,), y = saved
        scale, shift = self.factors(x)
        z = y if shift is None or choice.bias != "ignore" else y - shift
        shares = Epsilon(choice.rule.stabiliser).shares(r, z)
        entries = Entries(absorbed=shares.absorbed, zero_sum=shares.zero)
        share = shares.positive
        kept = None
        if shift is not None and choice.bias != "ignore":
            kept = share * shift
            if choice.bias == "absorb":
                entries.add("bias", total(kept))
        grouped, axes = self.over(x)
        inverse = self._normalised(x)[1] if self.rows(x.shape) else 1 / self._statistics(grouped, axes)[0]
        back = (share if scale is None else share * scale).reshape(len(r), *grouped.shape[1:])
        if self.centred:
            back = back - back.mean(axis=axes, keepdims=True)
        out = grouped * (back * inverse)
        if kept is not None and choice.bias == "distribute":
            out = out + kept.reshape(out.shape).mean(axis=axes, keepdims=True)
        return Passed([out.reshape(r.shape)], entries)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Unchanged: the values that are normalised together are one token."""
        return Passed([r], Entries())


@dataclass(frozen=True, eq=False)
class LayerNorm(Normalisation):
    """Mean 0 and deviation 1 over `axes` (counted from 1); scale and shift broadcast against the last axes."""

    scale: Array
    shift: Array
    axes: tuple[int, ...]
    epsilon: float = 1e-5

    def out_shape(self, shape: Shape) -> Shape:
        if not self.axes or not all(1 <= axis <= len(shape) for axis in self.axes):
            raise ValueError(f"an array of {shape} has no axes {self.axes}")
        return met(met(shape, self.scale.shape, "scale"), self.shift.shape, "shift")

    def over(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return x, self.axes

    def factors(self, x: Array) -> tuple[Array | None, Array | None]:
        return self.cast("scale", x.dtype), self.cast("shift", x.dtype)

    def rows(self, shape: Shape) -> bool:
        return self.axes == (len(shape) - 1,) and self.scale.size == self.shift.size == shape[-1]


@dataclass(frozen=True, eq=False)
class RMSNorm(Normalisation):
    """x over its root mean square over `axes` (counted from 1); the scale broadcasts against the last axes."""

    scale: Array
    axes: tuple[int, ...]
    epsilon: float = 1e-5
    centred: ClassVar[bool] = False

    def out_shape(self, shape: Shape) -> Shape:
        if not self.axes or not all(1 <= axis <= len(shape) for axis in self.axes):
            raise ValueError(f"an array of {shape} has no axes {self.axes}")
        return met(shape, self.scale.shape, "scale")

    def over(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return x, self.axes

    def factors(self, x: Array) -> tuple[Array | None, Array | None]:
        return self.cast("scale", x.dtype), None

    def rows(self, shape: Shape) -> bool:
        return self.axes == (len(shape) - 1,) and self.scale.size == shape[-1]


@dataclass(frozen=True, eq=False)
class GroupNorm(Normalisation):
    """Mean 0 and deviation 1 over all pixels of each of `groups` groups of channels; scale and shift (C,).

    With as many groups as channels: instance normalisation.
    """

    scale: Array
    shift: Array
    groups: int
    epsilon: float = 1e-5

    def out_shape(self, shape: Shape) -> Shape:
        if self.scale.shape != (shape[0],) or self.shift.shape != (shape[0],):
            raise ValueError(f"factors {self.scale.shape}, shifts {self.shift.shape} do not fit {shape[0]} channels")
        if self.groups < 1 or shape[0] % self.groups:
            raise ValueError(f"{shape[0]} channels do not divide into {self.groups} groups")
        return shape

    def over(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return x.reshape(len(x), self.groups, -1), (2,)

    def factors(self, x: Array) -> tuple[Array | None, Array | None]:
        scale, shift = (self.cast(name, x.dtype) for name in ("scale", "shift"))
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        return scale.reshape(per_channel), shift.reshape(per_channel)
