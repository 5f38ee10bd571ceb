"""Contributions of inputs to outputs of convolutions and dense layers: sums of either sign, and the backward pass.

A piece is some outputs of a layer with the weights and inputs that contribute to them. It computes z+ and z-, the sums
of contributions w x of either sign, asks the rule for shares, and propagates these to the inputs. z- is z - z+, which
saves a product; where that may be rounding error, both are summed from their own terms. For `conv` and `dense` of this
package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ... import _kernels
from ...core.layer import Array
from ...core.ledger import Entries
from ...core.rules import Rule, Shares, vanishes
from ...runtime.memory import Memory, empty
from ..windows import Sign, Window, convolve, opposite, product, scatter

# `convolve`, or `product`, which is never in doubt.
Multiply: TypeAlias = Callable[..., Array]  # type: ignore[explicit-any]  # the two differ in their last arguments
Sums: TypeAlias = npt.NDArray[np.float64]

BAND = 1 << 23  # bytes of one band's shares (or columns, if used): they stay in the last-level cache
# A float32 sum that is less than this part of what it was computed from, of z+ for z- = z - z+ or of what Winograd's
# transforms may have cancelled, is recomputed from its own terms (docs/numerics.md, "Sums of one sign").
TRUSTED = 1e-2
# Part of the other sum below which shares by z+ or z- are so large that halves of sums and differences of them cannot
# tell the terms of either sign apart; the products of the signs can.
EVEN = {"float32": 1e-6, "float64": 1e-8}
PIXEL_CHANNELS = (
    4  # input channels up to which inputs of both signs have separate products (docs/numerics.md, "Two signs at once")
)


class Piece(ABC):
    """Some outputs of a linear layer, (outputs, N), and what contributes to them."""

    @abstractmethod
    def sums(self, sign: Sign, bias: Array | None) -> Array:
        """z+ (`sign` 1) or z- (-1) from its own contributions and the biases of its sign, (outputs, N)."""

    @abstractmethod
    def give(self, shares: Shares, up: Array, down: Array | None) -> None:
        """Add shares (T, outputs, N), taken back through the weights, to the factors of either side of the inputs."""

    def both(self, z: Array, bias: Array | None, r: Array) -> tuple[Array, Array]:
        """z+ and z- of outputs z with relevance r (T, outputs, N)."""
        return self.sums(1, bias), self.sums(-1, bias)

    def shares(self, rule: Rule, r: Array, z: Array, bias: Array | None) -> tuple[Shares, Sums | None]:
        """The rule's shares of r (T, outputs, N) for outputs z.

        And, where they are at hand, the sums of positive and negative shares over N: (2, T, outputs).
        """
        if not rule.plain:
            return rule.shares(r, self.sums(1, None), None, None), None
        if not rule.signed:
            return rule.shares(r, z, None, None), None
        return rule.shares(r, z, *self.both(z, bias, r)), None


@dataclass
class DensePiece(Piece):
    """Some outputs of a dense layer for one image: `rows` of weights (any, n), and both sides of the inputs (n,)."""

    weight: Array
    rows: npt.NDArray[np.int64]
    above: Array
    below: Array | None

    def sums(self, sign: Sign, bias: Array | None) -> Array:
        return _biased(self._terms[sign < 0][:, None].copy(), bias, sign)

    def total(self, bias: Array) -> Array:
        """z (outputs, 1), biases included, summed in float64: for a few outputs."""
        x = self.above.astype(np.float64) if self.below is None else self.above.astype(np.float64) + self.below
        z: Array = self.weight[self.rows].astype(np.float64) @ x + bias
        return z[:, None]

    @cached_property
    def _terms(self) -> tuple[Array, Array]:
        """z+ and z- without biases: one reading of the weights gives both."""
        up, down = _kernels.dense_sums(self.weight, self.rows, self.above, self.below)
        return up, down

    def give(self, shares: Shares, up: Array, down: Array | None) -> None:
        dtype = self.weight.dtype
        positive = np.ascontiguousarray(shares.positive[:, :, 0], dtype)
        negative = np.zeros_like(positive) if shares.negative is None else shares.negative[:, :, 0]
        _kernels.dense_back(self.weight, self.rows, positive, np.ascontiguousarray(negative, dtype), up, down)


@dataclass
class ConvPiece(Piece):
    """Some outputs of a convolution in a band of rows: weights (m, C, taps) and inputs x (C, H, W).

    If inputs have both signs, z+ and z- are half the sum and difference of W x and |W| |x|: one additional product
    instead of two. The backward pass applies W^T and |W|^T to half the sum and difference of the shares. A share by a
    small z+ then multiplies terms of z-, which cancel except for rounding error. So with few input channels, as for
    pixels less a mean, the four products are computed instead: they cost little there, and all relevance ends there.

    Attributes
    ----------
    x, size : (C, H, W), (C, H, W) or None
        Sum and difference of the two sides of the inputs, usually x and |x|; `size` is None if there is one side.
    rows, width : (begin, end), int
        The band of output rows, and pixels of each.
    halves : bool
        Whether shares may be halves of the sum and the difference of those of either sign; `halved`: whether they are.
    uneven : bool
        Whether some shares of one sign are so much larger than those of the other that the four products are needed.
    """

    window: Window
    weight: Array
    x: Array
    size: Array | None
    rows: tuple[int, int]
    width: int
    memory: Memory
    halves: bool = False
    halved: bool = False
    uneven: bool = False

    @property
    def apart(self) -> bool:
        """Whether the inputs >= 0 and those <= 0 have products of their own."""
        return self.size is not None and len(self.x) <= PIXEL_CHANNELS

    def sums(self, sign: Sign, bias: Array | None) -> Array:
        above, below = self.x, None
        if self.size is not None:
            above, below = ((self.x + side) * self.x.dtype.type(0.5) for side in (self.size, -self.size))
        return _biased(self._product(product, above, sign, below), bias, sign)

    def both(self, z: Array, bias: Array | None, r: Array) -> tuple[Array, Array]:
        """z+, and z- as z - z+; both from their own contributions where that may be rounding error."""
        positive = self._positive(z, bias)
        negative = z - positive
        weak = ~((-negative >= TRUSTED * positive) & (positive >= -TRUSTED * negative))
        if weak.any():
            alive = r.any(axis=0)  # outputs without relevance need no denominator
            positive[weak & ~alive] = negative[weak & ~alive] = 0
            weak &= alive
        count = np.count_nonzero(weak)
        if count > weak.size // 16:
            return self.sums(1, bias), self.sums(-1, bias)
        if count:
            outputs, pixels = np.nonzero(weak)
            positive[outputs, pixels], negative[outputs, pixels] = self._single(bias, outputs, pixels)
        return np.maximum(positive, 0, out=positive), np.minimum(negative, 0, out=negative)

    def shares(self, rule: Rule, r: Array, z: Array, bias: Array | None) -> tuple[Shares, Sums | None]:
        if rule.kernel is None:
            return super().shares(rule, r, z, bias)
        alpha, beta, gamma = rule.kernel
        both, self.halved = self.size is not None, self.halves and self.size is not None and not self.apart
        sums = z if both or beta or gamma >= 0 else None, self._positive(z, bias, both or beta > 0)
        up, down, kept, lost, doubtful = _kernels.alpha_beta(
            r, *sums, alpha, beta, TRUSTED, gamma=gamma, halves=self.halved
        )
        if doubtful is None:
            self.halved = False
            own = self.sums(1, bias), self.sums(-1, bias)
            self.uneven = self._uneven(rule, *own)
            return rule.shares(r, z, *own), None
        single = None
        if len(doubtful):
            outputs, pixels = np.divmod(doubtful, z.shape[1])
            single = self._single(bias, outputs, pixels)
            self.uneven = self._uneven(rule, *single)
            if self.uneven and self.halved:  # halves have lost the smaller share
                self.halves = False
                return self.shares(rule, r, z, bias)
        if self.halved:
            kept = np.stack([kept[0] + kept[1], kept[0] - kept[1]]) if down is not None else kept + kept
        if single:
            lost = lost + self._repair(rule, r, z, (outputs, pixels), single, Shares(up, down), kept)
        return Shares(up, down, 0.0, lost), kept

    def _uneven(self, rule: Rule, positive: Array, negative: Array) -> bool:
        """Whether a share by z+ or z- is too large for halves, and there are inputs of both signs that have them."""
        if self.size is None or self.apart or rule.alpha_beta is None:
            return False
        even = EVEN[positive.dtype.name]
        small = (positive < even * -negative) & ~vanishes(positive)
        if rule.alpha_beta[1]:
            small |= (-negative < even * positive) & ~vanishes(negative)
        return bool(small.any())

    def _repair(self, rule: Rule, r: Array, z: Array, at: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
                single: tuple[Array, Array], shares: Shares, kept: Sums) -> Sums | float:  # fmt: skip
        """Recompute shares at positions of (m, N) in place, by z+ and z- of their own terms; returns what is lost."""
        outputs, pixels = at
        some = rule.shares(r[:, outputs, pixels], z[outputs, pixels], *single)
        for totals, own in zip(kept, (some.positive, some.negative), strict=True):
            for total_of, mine in zip(totals, () if own is None else own, strict=own is not None):
                np.add.at(total_of, outputs, mine)
        positive, negative = some.positive, some.negative
        if self.halved:
            other = 0 if negative is None else negative
            positive, negative = (positive + other) / 2, (positive - other) / 2
        shares.positive[:, outputs, pixels] = positive
        if shares.negative is not None and negative is not None:
            shares.negative[:, outputs, pixels] = negative
        return some.zero

    def give(self, shares: Shares, up: Array, down: Array | None) -> None:
        """Add the factors of x to `up` and of |x| to `down`; if `apart`, those of inputs >= 0 and of inputs <= 0."""
        for t, positive in enumerate(shares.positive):
            negative = None if shares.negative is None else shares.negative[t]
            if shares.negative is shares.positive:
                self._back(0, positive, None, up[t])
            elif down is None:
                self._back(1, positive, negative, up[t])
            elif self.apart:
                self._back(1, positive, negative, up[t])
                self._back(-1, positive, negative, down[t])
            elif self.uneven:
                above, below = np.zeros_like(up[t]), np.zeros_like(up[t])
                self._back(1, positive, negative, above)
                self._back(-1, positive, negative, below)
                up[t] += np.where(self.x > 0, above, below)
            elif self.halved:
                self._back(0, positive, None, up[t])
                self._back(2, positive if negative is None else negative, None, down[t])
            else:
                half = positive * positive.dtype.type(0.5)
                rest = 0 if negative is None else negative * negative.dtype.type(0.5)
                self._back(0, half + rest, None, up[t])
                self._back(2, half - rest, None, down[t])

    def _positive(self, z: Array, bias: Array | None, check: bool = True) -> Array:
        """z+ (m, N) of outputs z, biases included: NaN where it, or z - z+, may be rounding error.

        Without `check`, z - z+ is not tested if no input is negative.
        """
        if self.size is None:
            return _biased(self._product(convolve, self.x, 1, None, TRUSTED, z if check else None), bias, 1)
        if self.apart:
            return self.sums(1, bias)
        own = z if bias is None else z - bias[:, None]
        sums = self._product(convolve, self.size, 2, None, TRUSTED, own)
        sums += own
        sums *= sums.dtype.type(0.5)
        return _biased(sums, bias, 1)

    def _single(
        self, bias: Array | None, outputs: npt.NDArray[np.intp], pixels: npt.NDArray[np.intp]
    ) -> tuple[Array, Array]:
        """z+ and z- of single outputs at single pixels of the band, summed in float64: (count,) twice."""
        own = np.zeros(len(outputs)) if bias is None else bias[outputs].astype(np.float64)
        positive, negative = np.maximum(own, 0), np.minimum(own, 0)
        step = max(1, BAND // (16 * self.weight[0].size))
        for some in (slice(at, at + step) for at in range(0, len(outputs), step)):
            terms = self.weight[outputs[some]].reshape(len(outputs[some]), -1).astype(np.float64)
            terms *= self._seen(pixels[some]).T
            positive[some] += np.maximum(terms, 0).sum(axis=1)
            negative[some] += np.minimum(terms, 0).sum(axis=1)
        return positive.astype(self.weight.dtype), negative.astype(self.weight.dtype)

    def _seen(self, pixels: npt.NDArray[np.intp]) -> Array:
        """The inputs that single pixels of the band see: (C * taps, pixels)."""
        at = pixels // self.width + self.rows[0], pixels % self.width
        where, inside = [], []
        for a in (0, 1):
            taps = np.arange(self.window.kernel[a])[:, None] * self.window.dilation[a] - self.window.pads[a]
            where.append(at[a] * self.window.stride[a] + taps)
            inside.append((where[a] >= 0) & (where[a] < self.x.shape[1 + a]))
            where[a][~inside[a]] = 0
        taken = self.x[:, where[0][:, None], where[1][None]] * (inside[0][:, None] & inside[1][None])
        seen: Array = taken.reshape(-1, len(pixels))
        return seen

    def _product(
        self, multiply: Multiply, x: Array, sign: Sign, other: Array | None, *doubt: float | Array | None
    ) -> Array:
        out = empty((len(self.weight), (self.rows[1] - self.rows[0]) * self.width), self.weight.dtype)
        return multiply(self.weight, x, self.window, self.rows, self.width, out, None, False, sign, other, *doubt)

    def _back(self, sign: Sign, share: Array, other: Array | None, out: Array) -> None:
        shape = len(self.weight), self.rows[1] - self.rows[0], self.width
        mine = np.ascontiguousarray(share).reshape(shape)
        second = None if other is None else np.ascontiguousarray(other).reshape(shape)
        adjoint(self.window, self.weight, sign, mine, second, out, self.rows, self.memory)


@dataclass
class GroupedPiece(Piece):
    """All outputs of a convolution in narrow groups: weights (m, channels, taps), and both sides of the inputs."""

    window: Window
    weight: Array
    above: Array
    below: Array | None
    shape: tuple[int, int]

    def sums(self, sign: Sign, bias: Array | None) -> Array:
        rows, cols = self.shape
        out = empty((len(self.weight), rows * cols), self.weight.dtype)
        _kernels.grouped(self.weight, self.above, *self.window, (0, rows), cols, out, None, False, sign, self.below)
        return _biased(out, bias, sign)

    def give(self, shares: Shares, up: Array, down: Array | None) -> None:
        for t, positive in enumerate(shares.positive):
            if shares.negative is shares.positive:
                self._back(0, positive, None, up[t])
                if down is not None:
                    self._back(0, positive, None, down[t])
                continue
            negative = None if shares.negative is None else shares.negative[t]
            self._back(1, positive, negative, up[t])
            if down is not None:
                self._back(-1, positive, negative, down[t])

    def _back(self, sign: Sign, share: Array, other: Array | None, out: Array) -> None:
        shape = len(self.weight), *self.shape
        mine = np.ascontiguousarray(share).reshape(shape)
        second = None if other is None else np.ascontiguousarray(other).reshape(shape)
        _kernels.grouped_back(self.weight, mine, out, *self.window, (0, shape[1]), sign, second)


def through(rule: Rule, policy: str, piece: Piece, bias: Array | None, z: Array, r: Array, entries: Entries,
            up: Array, down: Array | None) -> Array | None:  # fmt: skip
    """One piece of a linear layer, outputs z (m, N) with relevance r (T, m, N): adds its factors to `up` and `down`.

    Parameters
    ----------
    policy : {"absorb", "distribute", "ignore"}
        How the biases (m,) are treated.

    Returns
    -------
    real (T, m, N) or None
        Relevance of the biases, to be spread evenly over each output's inputs.
    """
    if bias is not None and policy == "ignore":
        z, bias = z - bias[:, None], None
    shares, kept = piece.shares(rule, r, z, bias)
    entries.add("absorbed", shares.absorbed)
    entries.add("zero_sum", shares.zero)
    piece.give(shares, up, down)
    if bias is None or not rule.plain:
        return None
    if policy == "distribute":
        return _bias_part(shares, bias)
    entries.add("bias", _bias_total(shares, kept, bias))
    return None


def _biased(sums: Array, bias: Array | None, sign: int) -> Array:
    """z+ or z- (m, N) with the biases (m,) of its sign, in place."""
    if bias is not None:
        sums += (np.maximum(bias, 0) if sign > 0 else np.minimum(bias, 0))[:, None]
    return sums


def _bias_part(shares: Shares, bias: Array) -> Array:
    """Relevance that falls to the biases (outputs,), of the shape of the shares."""
    if shares.negative is shares.positive:
        return shares.positive * bias[:, None]
    part = shares.positive * np.maximum(bias, 0)[:, None]
    if shares.negative is not None:
        part += shares.negative * np.minimum(bias, 0)[:, None]
    return part


def _bias_total(shares: Shares, kept: Sums | None, bias: Array) -> Sums:
    """The sums of `_bias_part`, (targets,), without its array; `kept` as from `Piece.shares`."""
    if shares.negative is shares.positive:
        amount: Sums = shares.positive.sum(axis=2) @ bias.astype(np.float64)
        return amount
    above = shares.positive.sum(axis=2) if kept is None else kept[0]
    amount = above @ np.maximum(bias, 0).astype(np.float64)
    if shares.negative is not None:
        below = shares.negative.sum(axis=2) if kept is None else kept[1]
        amount += below @ np.minimum(bias, 0).astype(np.float64)
    return amount


def adjoint(window: Window, weight: Array, sign: Sign, share: Array, other: Array | None, out: Array,
            rows: tuple[int, int], memory: Memory) -> None:  # fmt: skip
    """The adjoint of a convolution: add transposed weights times shares to the inputs of a band of output rows.

    With stride 1 that is itself a convolution of the shares with the weights rotated by 180°, without columns.
    For few channels it would read more windows than the product with the transposed weights writes columns.

    Parameters
    ----------
    weight : real (m, C, kh * kw)
    sign : int
        0 for all weights; 1 for W+ and -1 for W-, the other sign meeting `other`; 2 for |W|.
    share, other : real (m, oh of the band, ow)
        `other` may be None.
    out : real (C, H, W)
        Added to.
    """
    (channels, height, width), (begin, end) = out.shape, rows
    if window.stride != (1, 1) or channels <= PIXEL_CHANNELS:
        flat = weight.reshape(len(weight), -1).T
        part = memory.take("columns", len(flat), share[0].size)
        _kernels.product(flat, share.reshape(len(share), -1), part, sign=sign)
        if other is not None:
            _kernels.product(flat, other.reshape(len(share), -1), part, add=True, sign=opposite(sign))
        scatter(part, out, *window, begin, end)
        return
    tall, wide = (window.dilation[a] * (window.kernel[a] - 1) for a in (0, 1))
    top, left = window.pads[:2]
    first, last = max(0, begin - top), min(height, end - top + tall)
    if first >= last:
        return
    turned = weight.transpose(1, 0, 2)[:, :, ::-1]
    back = Window(window.kernel, (1, 1), (tall - top + begin, wide - left, 0, 0), window.dilation)
    target = out.reshape(channels, -1)[:, first * width : last * width]
    convolve(turned, share, back, (first, last), width, target, None, True, sign, other)
