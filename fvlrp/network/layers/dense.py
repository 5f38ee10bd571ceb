"""Fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import Rule, total
from ..rules import Choice
from .contributions import DensePiece, through
from .conv import Conv
from .layer import NetworkLayer, Saved, Shape

ROWS = 1 << 22  # bytes of weights in one block
SCORE_TERMS = 1 << 18  # weights of so few outputs that their sums are scores (docs/numerics.md, "Scores near 0")


@dataclass(frozen=True, eq=False)
class Dense(NetworkLayer):
    """Fully connected along the last axis: weight (n_out, n_in), bias (n_out,), on (n, ..., n_in).

    The axes between are positions, such as tokens, which do not mix.
    """

    weight: Array
    bias: Array
    role: ClassVar[str] = "linear"

    def out_shape(self, shape: Shape) -> Shape:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"a dense layer's weight {self.weight.shape} and bias {self.bias.shape} do not fit")
        if not shape or shape[-1] != self.weight.shape[1]:
            raise ValueError(f"a dense layer of {self.weight.shape[1]} inputs was given {shape}: its last axis differs")
        return (*shape[:-1], len(self.weight))

    def apply(self, x: Array) -> Array:
        y: Array = x @ self.cast("weight", x.dtype).T
        y += self.cast("bias", x.dtype)
        return y

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule, separately for each position."""
        return self._by(choice.rule, r, saved, choice)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Evenly over the inputs of a position, or by the squares of the weights, as `below` chooses."""
        return self._by(choice.below, r, saved, choice)

    def _by(self, rule: Rule, r: Array, saved: Saved, choice: Choice) -> Passed:
        (x,), y = saved
        n = x.shape[-1]
        if rule.sees == "nothing":
            even = r.sum(axis=-1, keepdims=True) / r.dtype.type(n)
            return Passed([np.repeat(even, n, axis=-1)], Entries())
        if x[0].size > n:
            return self._positions(rule, r, saved, choice)
        rows = r.reshape(len(r), -1)
        out, entries = self._single(rule.fitted(y), rows, x.reshape(n), y.reshape(-1), choice)
        return Passed([out.reshape(len(r), *x.shape[1:])], entries)

    @cached_property
    def _pointwise(self) -> Conv:
        return Conv(self.weight[:, :, None, None], self.bias)

    def _positions(self, rule: Rule, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Several positions, treated as the pixels of a 1 x 1 convolution."""

        def channels_first(values: Array) -> Array:
            """(n, ..., channels) as (n, channels, positions, 1)."""
            return np.ascontiguousarray(values.reshape(len(values), -1, values.shape[-1]).swapaxes(1, 2))[..., None]

        (x,), y = saved
        turned = Saved((channels_first(x),), channels_first(y))
        (out,), entries = self._pointwise.by(rule, channels_first(r), turned, choice)
        return Passed([out[..., 0].swapaxes(1, 2).reshape(len(r), *x.shape[1:])], entries)

    def _single(self, rule: Rule, r: Array, x: Array, y: Array, choice: Choice) -> tuple[Array, Entries]:
        """Relevance of the inputs x (n,) of one position, some outputs y at a time.

        The cost is that of reading W: rows without relevance are skipped, the others are read once for the denominators
        and once for the relevance of the inputs.
        """
        entries, dtype, n = Entries(), r.dtype, len(x)
        above, below = rule.inputs(x, choice.box)
        up = np.zeros((len(r), n), dtype)
        down = None if below is None else np.zeros_like(up)
        rows, spread = np.flatnonzero(r.any(axis=0)), np.zeros(len(r))
        ready = self.weight.dtype == dtype and self.weight.flags.c_contiguous and rule.plain
        step = max(1, len(rows) if ready else ROWS // (n * r.itemsize))
        for at in range(0, len(rows), step):
            block = rows[at : at + step]
            weight, own = self.weight, block
            if not ready:
                weight, own = rule.weights(np.ascontiguousarray(self.weight[block], dtype)), np.arange(len(block))
            bias = self.bias[block].astype(dtype, copy=False)
            biased = bias if bias.any() else None
            if rule.alpha_beta and choice.bias != "distribute":
                biased = None if choice.bias == "ignore" else biased
                share = np.ascontiguousarray(r[:, block])
                kept, lost = _kernels.dense_alpha_beta(
                    weight, own, above, below, biased, share, *rule.alpha_beta, up, down
                )
                entries.include({"zero_sum": lost} | ({} if biased is None else {"bias": kept}))
                continue
            piece = DensePiece(weight, own, above, below)
            z = piece.total(bias) if rule.plain and len(rows) * n <= SCORE_TERMS else y[block][:, None]
            evenly = through(rule, choice.bias, piece, biased, z, r[:, block][:, :, None], entries, up, down)
            if evenly is not None:
                spread += total(evenly)
        up *= above
        if down is not None and below is not None:
            up += np.multiply(down, below, out=down)
        up += (spread / n).astype(dtype)[:, None]
        return up, entries
