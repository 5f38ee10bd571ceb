"""Fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ..rules import AlphaBeta, Choice, Flat, WSquare, ZPlus, total
from .contributions import DensePiece, merged, sides_of, through
from .layer import NetworkLayer, Saved, Shape

ROWS = 1 << 22  # bytes of weights in one block


@dataclass(frozen=True, eq=False)
class Dense(NetworkLayer):
    """Fully connected: weight (n_out, n_in), bias (n_out,), on (n, n_in) or anything that flattens to it."""

    weight: Array
    bias: Array
    role: ClassVar[str] = "linear"

    def out_shape(self, shape: Shape) -> Shape:
        if prod(shape) != self.weight.shape[1]:
            raise ValueError(f"a dense layer of {self.weight.shape[1]} inputs was given {prod(shape)}")
        return (len(self.weight),)

    def apply(self, x: Array) -> Array:
        return x.reshape(len(x), -1) @ self.cast("weight", x.dtype).T + self.cast("bias", x.dtype)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule, some outputs at a time.

        Rows of W without relevance are never read; the others once for the denominators and once for the way back,
        since reading them is the cost.
        """
        (x,), y = saved
        entries, rule, dtype = Entries(), choice.rule, r.dtype
        if isinstance(rule, Flat):
            return self._evenly(r, x)
        n, shape = x[0].size, (len(r), *x.shape[1:])
        above, below = sides_of(x[0].reshape(n), choice)
        up = np.zeros((len(r), n), dtype)
        down = None if below is None else np.zeros_like(up)
        rows, spread = np.flatnonzero(r.any(axis=0)), np.zeros(len(r))
        ready = self.weight.dtype == dtype and self.weight.flags.c_contiguous and not isinstance(rule, WSquare)
        step = max(1, len(rows) if ready else ROWS // (n * r.itemsize))
        for at in range(0, len(rows), step):
            block = rows[at : at + step]
            weight, own, z = self.weight, block, y[0, block][:, None]
            if not ready:
                weight, own = np.ascontiguousarray(self.weight[block], dtype), np.arange(len(block))
            if isinstance(rule, WSquare):
                np.square(weight, out=weight)
                z = weight.sum(axis=1)[:, None]
            bias = self.bias[block].astype(dtype, copy=False)
            if isinstance(rule, AlphaBeta | ZPlus) and choice.bias != "distribute":
                alpha, beta = (1.0, 0.0) if isinstance(rule, ZPlus) else (rule.alpha, rule.beta)
                share = np.ascontiguousarray(r[:, block])
                bias = None if choice.bias == "ignore" else bias
                kept, lost = _kernels.dense_alpha_beta(weight, own, above, below, bias, share, alpha, beta, up, down)
                entries.add("zero_sum", lost)
                if bias is not None and bias.any():
                    entries.add("bias", kept)
                continue
            piece, share = DensePiece(weight, own, above, below), r[:, block][:, :, None]
            evenly = through(choice, piece, bias if bias.any() else None, z, share, entries, up, down)
            if evenly is not None:
                spread += total(evenly)
        result = merged(choice, above, below, up, down)
        result += (spread / n).astype(dtype)[:, None]
        return Passed([result.reshape(shape)], entries)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Evenly over all inputs, or by the squares of the weights: what the rule below the depth says."""
        return self.relevance(r, saved, choice)

    def _evenly(self, r: Array, x: Array) -> Passed:
        n = x[0].size
        spread = np.repeat(r.sum(axis=1, keepdims=True) / r.dtype.type(n), n, axis=1)
        return Passed([spread.reshape(len(r), *x.shape[1:])], Entries())
