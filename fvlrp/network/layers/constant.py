"""Layers that combine an array with constants: factors, sums, masks, additional tokens, and quantisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import total
from ..rules import Choice
from .join import shared
from .layer import NetworkLayer, Saved, Shape, Unchanged


def met(shape: Shape, value: Shape, what: str) -> Shape:
    """`shape`, if a constant of shape `value` broadcasts to it."""
    if np.broadcast_shapes(shape, value) != tuple(shape):
        raise ValueError(f"a {what} of shape {value} does not broadcast to an array of {shape}")
    return shape


@dataclass(frozen=True, eq=False)
class Scale(Unchanged):
    """x times a constant: a number, or an array that broadcasts with the last axes. Relevance passes unchanged.

    Examples are LayerScale and the 1 / sqrt(d) of attention. A constant factor is not evidence.
    """

    factor: Array

    def out_shape(self, shape: Shape) -> Shape:
        return met(shape, self.factor.shape, "factor")

    def apply(self, x: Array) -> Array:
        return x * self.cast("factor", x.dtype)


@dataclass(frozen=True, eq=False)
class Constant(NetworkLayer):
    """x plus a constant other than a bias, such as position embeddings or attention masks (ledger: "constants")."""

    value: Array
    role: ClassVar[str] = "sum"

    def out_shape(self, shape: Shape) -> Shape:
        return met(shape, self.value.shape, "constant")

    def apply(self, x: Array) -> Array:
        return x + self.cast("value", x.dtype)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule, as the terms of a sum; an infinite constant gets all.

        Where the layer sees the pixels, as `input_affine` chooses: a mean photograph prepares the input.
        """
        if choice.affine == "pass" and np.isfinite(self.value).all():
            return Passed([r], Entries())
        (x,), y = saved
        value = np.broadcast_to(self.cast("value", x.dtype), x.shape)
        hidden = ~np.isfinite(value)
        if hidden.any():
            masked = np.where(hidden, r, 0)
            passed = shared([x, np.where(hidden, 0, value)], np.where(hidden, x, y), r - masked, choice.rule)
            passed.entries.add("constants", total(masked))
        else:
            passed = shared([x, value], y, r, choice.rule)
        passed.entries.add("constants", total(passed.inputs[1]))
        return Passed(passed.inputs[:1], passed.entries)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the input, since constants have no position in the image, except where the constant is infinite."""
        kept = np.where(np.isfinite(self.value), r, 0).astype(r.dtype, copy=False)
        return Passed([kept], Entries(constants=total(r) - total(kept)))


@dataclass(frozen=True, eq=False)
class Select(NetworkLayer):
    """x where `mask` is true, the constant `value` elsewhere; both broadcast with the last axes."""

    mask: Array
    value: Array

    def out_shape(self, shape: Shape) -> Shape:
        return met(met(shape, self.mask.shape, "mask"), self.value.shape, "constant")

    def apply(self, x: Array) -> Array:
        return np.where(self.mask, x, self.cast("value", x.dtype))

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """To the array from which each value was selected."""
        kept = np.where(self.mask, r, 0)
        return Passed([kept], Entries(constants=total(r - kept)))

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)


@dataclass(frozen=True, eq=False)
class Extend(NetworkLayer):
    """Constant rows before and after x along `axis` (counted from 1): class tokens, registers.

    Attributes
    ----------
    before, after : real, of the shape of x but for `axis`
        Either may have no rows.
    """

    before: Array
    after: Array
    axis: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        a = self.axis - 1
        for rows in (self.before, self.after):
            if (*rows.shape[:a], *rows.shape[a + 1 :]) != (*shape[:a], *shape[a + 1 :]):
                raise ValueError(f"constant rows of shape {rows.shape} do not fit beside an array of {shape}")
        return (*shape[:a], len(self) + shape[a], *shape[a + 1 :])

    def __len__(self) -> int:
        """Number of constant rows."""
        return int(self.before.shape[self.axis - 1] + self.after.shape[self.axis - 1])

    def apply(self, x: Array) -> Array:
        rows = (self.cast(name, x.dtype)[None] for name in ("before", "after"))
        before, after = (np.broadcast_to(each, (len(x), *each.shape[1:])) for each in rows)
        return np.concatenate([before, x, after], axis=self.axis)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """The rows of x go to x; those of the constants are kept."""
        return self._parted(r, saved, "constants")

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """The rows of x go to x; those of the constants, tokens without a position in the image, are kept."""
        return self._parted(r, saved, "class_token")

    def _parted(self, r: Array, saved: Saved, entry: str) -> Passed:
        begin = self.before.shape[self.axis - 1]
        end = begin + saved.inputs[0].shape[self.axis]
        before, own, after = np.split(r, [begin, end], axis=self.axis)
        return Passed([own], Entries({entry: total(before) + total(after)}))


@dataclass(frozen=True, eq=False)
class Quantise(Unchanged):
    """x rounded to steps of `scale` and clipped to `low`..`high` steps about `zero`, as quantised networks do.

    Relevance passes unchanged: rounding is not evidence, and the clip is often the network's ReLU. If `shifted`, the
    zero point is added before rounding, as in onnxruntime's sums, products and average pools of integers; an odd
    one then changes how values halfway between two steps are rounded.

    If `pitch` is not 0, x is known to be n * `pitch` + `offset` for integers n, as quantised values plus a constant
    are. The integer is then n * (pitch / scale) + `origin`, computed in float32 with one rounding, as in onnxruntime:
    all values may lie halfway between two steps, as in 1 + erf(x), and rounding errors decide.
    """

    scale: Array
    zero: Array
    low: int
    high: int
    shifted: bool = False
    pitch: Array = field(default_factory=partial(np.zeros, ()))
    offset: Array = field(default_factory=partial(np.zeros, ()))
    origin: Array = field(default_factory=partial(np.zeros, ()))

    def out_shape(self, shape: Shape) -> Shape:
        for name, value in (("pitch", self.pitch), ("offset", self.offset), ("origin", self.origin)):
            shape = met(shape, value.shape, name)
        return met(met(shape, self.scale.shape, "scale"), self.zero.shape, "zero point")

    def apply(self, x: Array) -> Array:
        steps = self._integers_of_sum(x) if self.pitch.any() else self._integers(x)
        np.clip(steps, self.low, self.high, out=steps)
        steps -= self.cast("zero", x.dtype)
        steps *= self.cast("scale", x.dtype)
        return steps

    def _integers(self, x: Array) -> Array:
        """Integers before the clip."""
        zero = self.cast("zero", x.dtype)
        steps: Array = x / self.cast("scale", x.dtype)
        if self.shifted:
            steps += zero
        np.rint(steps, out=steps)
        if not self.shifted:
            steps += zero
        return steps

    def _integers_of_sum(self, x: Array) -> Array:
        """Integers before the clip, where x is n * pitch + offset."""
        whole = np.rint((x - self.offset) / self.pitch)
        ratio = np.float64(self.cast("pitch", np.float32) / self.cast("scale", np.float32))
        steps: Array = np.rint((whole * ratio + self.origin).astype(np.float32)).astype(x.dtype)
        return steps


@dataclass(frozen=True, eq=False)
class Table(Unchanged):
    """An activation of quantised values whose steps the file rounds, too, such as GELU: a table of its values.

    x is (i - zero) * scale for integers i from `low` on, and the output ``values[i - low]``. Relevance passes
    unchanged, as through the activation.
    """

    scale: Array
    zero: Array
    low: int
    values: Array

    def apply(self, x: Array) -> Array:
        places = np.rint(x / self.cast("scale", x.dtype)) + (self.cast("zero", x.dtype) - self.low)
        values = self.cast("values", x.dtype)
        out: Array = values[np.clip(places, 0, len(values) - 1).astype(np.intp)]
        return out


@dataclass(frozen=True, eq=False)
class DynamicQuantise(Unchanged):
    """x rounded to 256 steps between its own smallest and largest value (0 included), as ONNX's DynamicQuantizeLinear.

    Each image has its own range, as in onnxruntime for a batch of one; relevance passes unchanged.
    """

    def apply(self, x: Array) -> Array:
        axes = tuple(range(1, x.ndim))
        low = np.minimum(x.min(axis=axes, keepdims=True), 0)
        scale = (np.maximum(x.max(axis=axes, keepdims=True), 0) - low) / x.dtype.type(255)
        scale = np.where(scale > 0, scale, 1).astype(x.dtype)  # nothing but zeros
        zero = np.clip(np.rint(-low / scale), 0, 255)
        steps = np.clip(np.rint(x / scale) + zero, 0, 255)
        return np.asarray((steps - zero) * scale)
