"""Layers that join several inputs, and the rules for sums: each input gets its share by the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import Epsilon, Rule, Shares, ratio, total, vanishes
from ..rules import Choice
from .layer import NetworkLayer, Saved, Shape

MOST = 8  # most terms that the kernel accepts


def conserving(rule: Rule, r: Array, z: Array, positive: Array, negative: Array) -> tuple[Shares, Array]:
    """Shares of sums with fixed weights, such as residual sums and averages, by a signed rule; always conserving.

    If all contributions have the same sign, they get all of r in proportion. An alpha-beta rule would lose its other
    half to a zero denominator, and such sums are common, since their terms often come from a ReLU.

    Parameters
    ----------
    r : real (T, ...)
    z, positive, negative : real, the trailing shape
        The sums, and their positive and negative parts.

    Returns
    -------
    Shares
    real (T, ...)
        Relevance of sums whose contributions are all 0, to be spread evenly.
    """
    no_positive, no_negative = vanishes(positive), vanishes(negative)
    mixed = ~(no_positive | no_negative)
    shares = rule.shares(np.where(mixed, r, 0), z, positive, negative)
    alone = np.where(mixed, 0, r)
    above, below = ratio(alone, positive)[0], ratio(alone, negative)[0]
    above += shares.positive
    if shares.negative is not None:
        below += shares.negative
    return Shares(above, below, shares.absorbed), np.where(no_positive & no_negative, r, 0)


def shared(terms: Sequence[Array], z: Array, r: Array, rule: Rule) -> Passed:
    """Relevance of the terms of a sum z, by the rule; see `conserving`. Terms that are all 0 share r evenly."""
    entries, rule = Entries(), rule.fitted(z)
    if rule.sees != "inputs":
        return evenly(len(terms), r)
    if not rule.signed:
        shares = rule.shares(r, z, None, None)
        entries.add("absorbed", shares.absorbed)
        entries.add("zero_sum", shares.zero)
        return Passed([x * shares.positive for x in terms], entries)
    if rule.kernel and len(terms) <= MOST:
        shape = r.shape[1:]
        flat = [np.ascontiguousarray(np.broadcast_to(x[0], shape), r.dtype) for x in terms]
        return Passed(list(_kernels.join(flat, np.ascontiguousarray(r), *rule.kernel)), entries)
    positive, negative = np.zeros_like(terms[0]), np.zeros_like(terms[0])
    for x in terms:
        positive += np.maximum(x, 0)
        negative += np.minimum(x, 0)
    shares, rest = conserving(rule, r, positive + negative, positive, negative)
    entries.add("absorbed", shares.absorbed)
    even = rest / r.dtype.type(len(terms))
    assert shares.negative is not None
    return Passed(
        [np.maximum(x, 0) * shares.positive + np.minimum(x, 0) * shares.negative + even for x in terms], entries
    )


def evenly(count: int, r: Array) -> Passed:
    """An equal part of r for each of `count` inputs."""
    return Passed([r / r.dtype.type(count)] * count, Entries())


@dataclass(frozen=True, eq=False)
class Add(NetworkLayer):
    """Sum of the inputs, as at the end of a residual branch: a linear layer with weights 1."""

    role: ClassVar[str] = "sum"

    def out_shape(self, *shapes: Shape) -> Shape:
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"inputs of a sum must have the same shape, got {', '.join(map(str, shapes))}")
        return shapes[0]

    def apply(self, *inputs: Array) -> Array:
        out = inputs[0] + inputs[1]
        for x in inputs[2:]:
            out += x
        return out

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule, as the terms of a sum."""
        return shared(saved.inputs, saved.y, r, choice.rule)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Evenly."""
        return evenly(len(saved.inputs), r)


@dataclass(frozen=True, eq=False)
class Affine(NetworkLayer):
    """scale * x + shift per channel: a batch normalisation or constants that could not be folded into a neighbour.

    Attributes
    ----------
    scale, shift : real (C,)
    axis : int
        The axis of the channels, counted from 1.
    """

    scale: Array
    shift: Array
    axis: int = 1
    role: ClassVar[str] = "affine"

    def out_shape(self, shape: Shape) -> Shape:
        if self.scale.ndim != 1 or self.scale.shape != self.shift.shape:
            raise ValueError(f"factors of {self.scale.shape} and shifts of {self.shift.shape} are not one per channel")
        if not 1 <= self.axis <= len(shape) or shape[self.axis - 1] != len(self.scale):
            raise ValueError(f"{len(self.scale)} factors for channels of axis {self.axis} were given {shape}")
        return shape

    def apply(self, x: Array) -> Array:
        return x * self._per_channel("scale", x) + self._per_channel("shift", x)

    def _per_channel(self, name: str, x: Array) -> Array:
        return self.cast(name, x.dtype).reshape((-1,) + (1,) * (x.ndim - 1 - self.axis))

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the one input of each output, except for what the bias absorbs.

        If the layer sees the pixels, as `input_affine` chooses.
        """
        (x,) = saved.inputs
        rule = Epsilon(0) if choice.affine == "fold" else choice.rule
        if choice.affine == "pass" or choice.bias != "absorb" or rule.sees != "inputs":
            return self.flat(r, saved, choice)
        shift = np.broadcast_to(self._per_channel("shift", x), x.shape)
        passed = shared([x * self._per_channel("scale", x), shift], saved.y, r, rule)
        passed.entries.add("bias", total(passed.inputs[1]))
        return Passed(passed.inputs[:1], passed.entries)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the input."""
        return Passed([r], Entries())


@dataclass(frozen=True, eq=False)
class Concat(NetworkLayer):
    """The inputs concatenated along `axis` (1: channels)."""

    axis: int = 1

    def out_shape(self, *shapes: Shape) -> Shape:
        out = list(shapes[0])
        out[self.axis - 1] = sum(shape[self.axis - 1] for shape in shapes)
        return tuple(out)

    def apply(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=self.axis)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Each input its own part."""
        ends = np.cumsum([x.shape[self.axis] for x in saved.inputs])
        return Passed(np.split(r, ends[:-1], axis=self.axis), Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth."""
        return self.relevance(r, saved, choice)
