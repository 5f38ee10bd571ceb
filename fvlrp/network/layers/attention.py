"""Matrix products of computed arrays and the softmax between them: attention, in any exporter's form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import Epsilon, total
from ...runtime.memory import zeros
from ..rules import Choice
from .layer import NetworkLayer, Saved, Shape
from .mapping import linear
from .product import joint
from .select import collected


@dataclass(frozen=True, eq=False)
class MatMul(NetworkLayer):
    """scale times the matrix product of two arrays (..., m, k) and (..., k, n), the second of which may be constant.

    Attributes
    ----------
    weight : real (..., k, n) or None
        Constant weights instead of the second input: a separate dense layer for each of the leading axes.
    weights : {-1, 0, 1}
        Which input holds the attention weights, the output of a softmax; -1: neither, as in queries times keys.
    scale : float
        The 1 / sqrt(d) of attention.
    """

    weight: Array | None = None
    weights: int = -1
    scale: float = 1.0
    role: ClassVar[str] = "sum"

    def out_shape(self, *shapes: Shape) -> Shape:
        a, b = (*shapes, self.weight.shape) if self.weight is not None else shapes
        if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
            raise ValueError(f"arrays of {a} and {b} have no matrix product")
        return (*joint(a[:-2], b[:-2]), a[-2], b[-1])

    def apply(self, *inputs: Array) -> Array:
        a, b = (*inputs, self.cast("weight", inputs[0].dtype)) if self.weight is not None else inputs
        y: Array = np.matmul(a, b)
        return y if self.scale == 1 else np.multiply(y, y.dtype.type(self.scale), out=y)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Attention weights are constants and the values get all; or both sides of a product get half.

        ``choice.attention`` "value" is Ali et al. 2022 (arXiv:2202.07304), "both" Achtibat et al. 2024
        (arXiv:2402.05602). If neither side holds attention weights, each gets half. Constant weights follow the rule of
        linear layers.
        """
        if self.weight is not None:
            return self._weighted(r, saved, choice)
        values = 1 - self.weights if self.weights >= 0 and choice.attention == "value" else -1
        z = saved.y if values >= 0 else 2 * saved.y
        shares = Epsilon(choice.rule.stabiliser).shares(r, z)
        entries = Entries(absorbed=shares.absorbed, zero_sum=shares.zero)
        share = shares.positive * r.dtype.type(self.scale)
        parts = [
            zeros((len(r), *x.shape[1:]), r.dtype) if values == 1 - k else self._side(k, share, saved)
            for k, x in enumerate(saved.inputs)
        ]
        return Passed(parts, entries)

    def _side(self, k: int, share: Array, saved: Saved) -> Array:
        """Input k times what `share` gives back to it."""
        a, b = saved.inputs
        back = np.matmul(np.swapaxes(a, -1, -2), share) if k else np.matmul(share, np.swapaxes(b, -1, -2))
        x = saved.inputs[k]
        return collected(back, x.shape[1:]) * x

    def _weighted(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        weight = self.cast("weight", r.dtype) * r.dtype.type(self.scale)
        shape = saved.inputs[0].shape[1:]
        return linear(
            r,
            saved,
            weight,
            choice,
            lambda weights, x: np.matmul(x, weights),
            lambda weights, share: collected(np.matmul(share, np.swapaxes(weights, -1, -2)), shape),
        )

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Attention passes each token's relevance to its value; other products share by contributions.

        The receptive field is the whole image, so flat weights would give a uniform map. If the number of tokens
        changes, as in the attention of a class token, the inputs get equal parts.
        """
        if self.weight is not None:
            return self._weighted(r, saved, replace(choice, rule=choice.below))
        if self.weights < 0:
            return self.relevance(r, saved, choice)
        parts = [zeros((len(r), *x.shape[1:]), r.dtype) for x in saved.inputs]
        values = 1 - self.weights
        x = saved.inputs[values]
        tokens = -2 if values else -1  # the axis of the product that the attention weights mix
        if r.shape[tokens] != x.shape[tokens]:
            r = r.sum(axis=tokens, keepdims=True) / r.dtype.type(x.shape[tokens])
        full = (*np.broadcast_shapes(r.shape[:-2], x.shape[:-2]), *x.shape[-2:])
        parts[values] = collected(np.broadcast_to(r, full), x.shape[1:])
        return Passed(parts, Entries())


@dataclass(frozen=True, eq=False)
class Softmax(NetworkLayer):
    """exp(x) over its sum along `axis` (counted from 1), inside the network."""

    axis: int
    role: ClassVar[str] = "none"

    def out_shape(self, shape: Shape) -> Shape:
        if not 1 <= self.axis <= len(shape):
            raise ValueError(f"an array of {shape} has no axis {self.axis}")
        return shape

    def apply(self, x: Array) -> Array:
        if self.axis == x.ndim - 1:
            return np.asarray(_kernels.softmax(np.ascontiguousarray(x)))
        y: Array = x - x.max(axis=self.axis, keepdims=True)
        np.exp(y, out=y)
        y /= y.sum(axis=self.axis, keepdims=True)
        return y

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """x (r - s sum r), a first-order Taylor expansion: it does not conserve, the entry "softmax" says by how much.

        Source: Achtibat et al. 2024, arXiv:2402.05602, Eq. 11. An input of minus infinity, as masks make, counts as 0.
        """
        (x,), s = saved
        finite = np.where(np.isfinite(x), x, 0)
        sums = r.sum(axis=self.axis, keepdims=True)
        out = finite * (r - s * sums)
        expected = (s * finite).sum(axis=self.axis, keepdims=True)
        kept = total(r) - total(finite * r) + total(expected * sums)
        return Passed([out], Entries(softmax=kept))

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Unchanged."""
        return Passed([r], Entries())
