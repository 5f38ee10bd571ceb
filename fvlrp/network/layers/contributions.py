"""What the inputs of convolutions and dense layers contribute to their outputs: z+ and z-, shares, and the way back.

z+ and z- are the sums of an output's terms w x of either sign; a rule divides by them, or by their sum z, which the
forward pass has left. z- is z - z+, which saves a product; where that would be rounding, both are summed anew. For
`conv` and `dense` of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ... import _kernels
from ...core.ledger import Entries
from ...runtime.memory import Memory, empty
from ..rules import AlphaBeta, Box, Choice, Shares, WSquare, ZPlus, ratio
from ..windows import Window, convolve, scatter

BAND = 1 << 23  # bytes of one band's shares, or columns where there are any: they stay in the last cache
WEAK = 1e-2  # z- = z - z+ is trusted down to this part of z+; below, it is summed from its own terms
FEW = 4  # channels of a convolution up to which inputs of both signs go apart
DOUBT = 1e-3  # a sum below this part of what a quick product's transforms may have cancelled is summed from its terms


@dataclass
class DensePiece:
    """Some outputs of a dense layer: `rows` of weights (any, n), and both sides of the inputs (n,)."""

    weight: np.ndarray
    rows: np.ndarray
    above: np.ndarray
    below: np.ndarray | None

    def own(self, sign: int, bias: np.ndarray | None) -> np.ndarray:
        """z+ (sign 1) or z- (sign -1) from its own terms, (outputs, 1), biases included."""
        return _biased(self.terms[sign < 0][:, None], bias, sign)

    @cached_property
    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        return _kernels.dense_sums(self.weight, self.rows, self.above, self.below)

    def give(self, shares: Shares, up: np.ndarray, down: np.ndarray | None) -> None:
        """Add what goes back with shares (T, outputs, 1) to what multiplies either side, (T, n)."""
        positive = np.ascontiguousarray(shares.positive[:, :, 0])
        negative = np.zeros_like(positive) if shares.negative is None else shares.negative[:, :, 0]
        _kernels.dense_back(self.weight, self.rows, positive, np.ascontiguousarray(negative), up, down)


@dataclass
class ConvPiece:
    """Some outputs of a convolution in a band of rows: weights (m, C, taps) and inputs x (C, H, W).

    Where inputs have both signs, z+ and z- are half the sum and difference of W x and |W| |x|, which is one product
    more instead of two; and what goes back is W^T and |W|^T times half the sum and difference of the shares. A share by
    a small z+ then meets the terms of z-, which cancel, but for rounding: where FEW channels come in, as of pixels less
    a mean, the four products are made instead. They cost little there, and pixels are where all relevance ends.

    Attributes
    ----------
    size : (C, H, W) or None
        |x|; None where no input is negative. Under Box, x and size are sum and difference of x - low and x - high.
    """

    window: Window
    weight: np.ndarray
    x: np.ndarray
    size: np.ndarray | None
    rows: tuple[int, int]
    width: int
    memory: Memory

    @property
    def apart(self) -> bool:
        """Whether the inputs >= 0 and those <= 0 have products of their own."""
        return self.size is not None and len(self.x) <= FEW

    def positive(self, z: np.ndarray, bias: np.ndarray | None, check: bool = True) -> np.ndarray:
        """z+ (m, N) of outputs z, biases included: not a number where rounding may have spoilt it, or z - z+.

        Without `check` for the latter, z may be whatever it is where no input is negative.
        """
        if self.size is None:
            return _biased(self._product(convolve, self.x, 1, None, DOUBT, z if check else None), bias, 1)
        if self.apart:
            return self.own(1, bias)
        own = z if bias is None else z - bias[:, None]
        sums = self._product(convolve, self.size, 2, None, DOUBT, own)
        sums += own
        sums *= sums.dtype.type(0.5)
        return _biased(sums, bias, 1)

    def own(self, sign: int, bias: np.ndarray | None) -> np.ndarray:
        """z+ (sign 1) or z- (sign -1) from their own terms alone, (m, N), biases included."""
        above, below = self.x, None
        if self.size is not None:
            above, below = ((self.x + side) * self.x.dtype.type(0.5) for side in (self.size, -self.size))
        return _biased(self._product(_direct, above, sign, below), bias, sign)

    def single(self, bias: np.ndarray | None, outputs: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of single outputs at single pixels of the band, summed in double: (count,) twice."""
        own = np.zeros(len(outputs)) if bias is None else bias[outputs].astype(np.float64)
        positive, negative = np.maximum(own, 0), np.minimum(own, 0)
        step = max(1, BAND // (16 * self.weight[0].size))
        for some in (slice(at, at + step) for at in range(0, len(outputs), step)):
            terms = self.weight[outputs[some]].reshape(len(outputs[some]), -1).astype(np.float64)
            terms *= self._windows(pixels[some]).T
            positive[some] += np.maximum(terms, 0).sum(axis=1)
            negative[some] += np.minimum(terms, 0).sum(axis=1)
        return positive.astype(self.weight.dtype), negative.astype(self.weight.dtype)

    def give(self, shares: Shares, up: np.ndarray, down: np.ndarray | None) -> None:
        """Add what goes back with shares (T, m, N): to `up` what multiplies x, to `down` what multiplies |x|.

        Where the inputs are `apart`: what multiplies those >= 0, and those <= 0.
        """
        for t, positive in enumerate(shares.positive):
            negative = None if shares.negative is None else shares.negative[t]
            if shares.negative is shares.positive:
                self._scatter(0, positive, None, up[t])
            elif down is None or self.apart:
                self._scatter(1, positive, negative, up[t])
                if self.apart:
                    self._scatter(-1, positive, negative, down[t])
            else:
                half = positive * positive.dtype.type(0.5)
                rest = 0 if negative is None else negative * negative.dtype.type(0.5)
                self._scatter(0, half + rest, None, up[t])
                self._scatter(2, half - rest, None, down[t])

    def _product(self, multiply: Callable, x: np.ndarray, sign: int, other, *doubt) -> np.ndarray:
        out = empty((len(self.weight), (self.rows[1] - self.rows[0]) * self.width), self.weight.dtype)
        return multiply(self.weight, x, self.window, self.rows, self.width, out, None, False, sign, other, *doubt)

    def _scatter(self, sign: int, share: np.ndarray, other: np.ndarray | None, out: np.ndarray) -> None:
        shape = len(self.weight), self.rows[1] - self.rows[0], self.width
        share, other = (None if s is None else np.ascontiguousarray(s).reshape(shape) for s in (share, other))
        adjoint(self.window, self.weight, sign, share, other, out, self.rows, self.memory)

    def _windows(self, pixels: np.ndarray) -> np.ndarray:
        """The inputs of single pixels of the band: (C * taps, pixels)."""
        at = pixels // self.width + self.rows[0], pixels % self.width
        where, inside = [], []
        for a in (0, 1):
            taps = np.arange(self.window.kernel[a])[:, None] * self.window.dilation[a] - self.window.pads[a]
            where.append(at[a] * self.window.stride[a] + taps)
            inside.append((where[a] >= 0) & (where[a] < self.x.shape[1 + a]))
            where[a][~inside[a]] = 0
        taken = self.x[:, where[0][:, None], where[1][None]] * (inside[0][:, None] & inside[1][None])
        return taken.reshape(-1, len(pixels))


def _direct(weight, x, window, rows, width: int, out, bias, add, sign: int, other) -> np.ndarray:
    """`convolve` term by term, whatever the window."""
    _kernels.convolve(weight, x, *window, rows, width, out, bias, add, sign)
    if other is not None:
        _kernels.convolve(weight, other, *window, rows, width, out, None, True, -sign)
    return out


def _biased(sums: np.ndarray, bias: np.ndarray | None, sign: int) -> np.ndarray:
    """z+ or z- (m, N) with its biases (m,), in place."""
    if bias is not None:
        sums += (np.maximum(bias, 0) if sign > 0 else np.minimum(bias, 0))[:, None]
    return sums


def _denominators(z, piece, bias: np.ndarray | None, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z+ and z- (outputs, N), the latter as z - z+: and both from their own terms where that would be rounding."""
    if isinstance(piece, DensePiece):
        return piece.own(1, bias), piece.own(-1, bias)
    positive = piece.positive(z, bias)
    negative = z - positive
    weak = ~((-negative >= WEAK * positive) & (positive >= -WEAK * negative))
    if weak.any():
        alive = r.any(axis=0)  # outputs without relevance need no denominator
        positive[weak & ~alive] = negative[weak & ~alive] = 0
        weak &= alive
    count = np.count_nonzero(weak)
    if count > weak.size // 16:
        return piece.own(1, bias), piece.own(-1, bias)
    if count:
        outputs, pixels = np.nonzero(weak)
        positive[outputs, pixels], negative[outputs, pixels] = piece.single(bias, outputs, pixels)
    return np.maximum(positive, 0, out=positive), np.minimum(negative, 0, out=negative)


def _alpha_beta(rule: AlphaBeta, z, piece, bias: np.ndarray | None, r: np.ndarray) -> tuple[Shares, np.ndarray | None]:
    """The shares of `AlphaBeta`, and their sums over pixels (2, T, outputs), in one pass over the outputs."""
    if isinstance(piece, DensePiece):
        return rule.shares(r, z, piece.own(1, bias), piece.own(-1, bias)), None
    check = rule.beta > 0 or piece.size is not None
    sums = z if check else None, piece.positive(z, bias, check)
    up, down, kept, lost, doubtful = _kernels.alpha_beta(r, *sums, rule.alpha, rule.beta, WEAK)
    if doubtful is None:
        return rule.shares(r, z, piece.own(1, bias), piece.own(-1, bias)), None
    if len(doubtful):
        outputs, pixels = np.divmod(doubtful, z.shape[1])
        some = rule.shares(r[:, outputs, pixels], None, *piece.single(bias, outputs, pixels))
        lost = lost + some.zero
        for shares, sums, own in ((up, kept[0], some.positive), (down, kept[1], some.negative)):
            if own is not None:
                shares[:, outputs, pixels] = own
                for mine, total_of in zip(own, sums, strict=True):
                    np.add.at(total_of, outputs, mine)
    return Shares(up, down, 0.0, lost), kept


def _shares(choice: Choice, r, z, piece, bias: np.ndarray | None) -> tuple[Shares, np.ndarray | None]:
    """The rule's shares of relevance r (T, outputs, N) for one piece with outputs z (outputs, N).

    And, where they are at hand, the sums of both over N: float64 (2, T, outputs).
    """
    rule = choice.rule
    if choice.bias == "ignore" and bias is not None:
        z, bias = z - bias[:, None], None
    if not rule.signed:
        return rule.shares(r, z, None, None), None
    if isinstance(rule, ZPlus):
        rule = AlphaBeta(1.0, 0.0)
    if isinstance(rule, AlphaBeta):
        return _alpha_beta(rule, z, piece, bias, r)
    return rule.shares(r, z, *_denominators(z, piece, bias, r)), None


def _bias_part(shares: Shares, bias: np.ndarray) -> np.ndarray:
    """Relevance that falls to the biases (outputs,), of the shape of the shares."""
    if shares.negative is shares.positive:
        return shares.positive * bias[:, None]
    part = shares.positive * np.maximum(bias, 0)[:, None]
    if shares.negative is not None:
        part += shares.negative * np.minimum(bias, 0)[:, None]
    return part


def _bias_total(shares: Shares, kept: np.ndarray | None, bias: np.ndarray) -> np.ndarray:
    """The sums of `_bias_part`, float64 (targets,), without its array; `kept` as from `_shares`."""
    if shares.negative is shares.positive:
        return shares.positive.sum(axis=2) @ bias.astype(np.float64)
    above = shares.positive.sum(axis=2) if kept is None else kept[0]
    amount = above @ np.maximum(bias, 0).astype(np.float64)
    if shares.negative is not None:
        below = shares.negative.sum(axis=2) if kept is None else kept[1]
        amount += below @ np.minimum(bias, 0).astype(np.float64)
    return amount


def through(choice: Choice, piece, bias: np.ndarray | None, z, r, entries: Entries, up, down) -> np.ndarray | None:
    """One piece of a linear layer, outputs z (m, N) with relevance r (T, m, N): what goes back is added to up, down.

    Returns
    -------
    real (T, m, N) or None
        Relevance to be spread evenly over each output's inputs.
    """
    if isinstance(choice.rule, WSquare | Box):  # for WSquare weights and z are squares and their sums
        denominators = z if isinstance(choice.rule, WSquare) else piece.own(1, None)
        share, zero = ratio(r, denominators)
        entries.add("zero_sum", zero)
        piece.give(Shares(share, share if isinstance(choice.rule, WSquare) else None), up, down)
        return None
    shares, kept = _shares(choice, r, z, piece, bias)
    entries.add("absorbed", shares.absorbed)
    entries.add("zero_sum", shares.zero)
    piece.give(shares, up, down)
    if bias is None or choice.bias == "ignore":
        return None
    if choice.bias == "distribute":
        return _bias_part(shares, bias)
    entries.add("bias", _bias_total(shares, kept, bias))
    return None


def sides_of(x: np.ndarray, choice: Choice) -> tuple[np.ndarray, np.ndarray | None]:
    """The two sides of the inputs (C, ...) that a rule multiplies with W+ and W-; one where it needs but one."""
    if isinstance(choice.rule, Box):
        low, high = (bound.reshape(x.shape).astype(x.dtype, copy=False) for bound in choice.box)
        return x - low, x - high
    if isinstance(choice.rule, WSquare) or not choice.rule.signed or x.min(initial=0) >= 0:
        return x, None
    return np.maximum(x, 0), np.minimum(x, 0)


def merged(choice: Choice, above, below, up: np.ndarray, down: np.ndarray | None) -> np.ndarray:
    """Relevance of the inputs from their sides and what multiplies each, in place of `up`."""
    if isinstance(choice.rule, WSquare):
        return up
    up *= above
    if down is not None:
        up += np.multiply(down, below, out=down)
    return up


def adjoint(window: Window, weight, sign: int, share, other, out: np.ndarray, rows: tuple[int, int], memory: Memory):
    """The adjoint of a convolution: add transposed weights times shares to the inputs of a band of output rows.

    With stride 1 that is itself a convolution, of the shares with the weights turned by half a turn: no columns exist.

    Parameters
    ----------
    weight : real (m, C, kh * kw)
    sign : int
        0 for all weights; 1 for W+ and -1 for W-, the other sign meeting `other`.
    share, other : real (m, oh of the band, ow)
        `other` may be None.
    out : real (C, H, W)
        Added to.
    """
    (channels, height, width), (begin, end) = out.shape, rows
    if window.stride != (1, 1):
        flat = weight.reshape(len(weight), -1).T
        part = memory.take("columns", len(flat), share[0].size)
        _kernels.product(flat, share.reshape(len(share), -1), part, sign=sign)
        if other is not None:
            _kernels.product(flat, other.reshape(len(share), -1), part, add=True, sign=-sign)
        scatter(part, out, *window, begin, end)
        return
    tall, wide = (window.dilation[a] * (window.kernel[a] - 1) for a in (0, 1))
    top, left = window.pads[:2]
    first, last = max(0, begin - top), min(height, end - top + tall)
    if first >= last:
        return
    turned = weight.transpose(1, 0, 2)[:, :, ::-1]
    back = window.kernel, (1, 1), (tall - top + begin, wide - left), window.dilation
    target = out.reshape(channels, -1)[:, first * width : last * width]
    convolve(turned, share, back, (first, last), width, target, None, True, sign, other)
