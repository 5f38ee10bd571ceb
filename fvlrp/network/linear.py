"""Relevance of convolutions and dense layers: shares over z+ and z- of every output, and their way back to the inputs.

z+ and z- are the sums of an output's terms w x of either sign; a rule divides by them, or by their sum z, which the
forward pass has left. z- is z - z+, which saves a product; where that would be rounding, both are summed anew.

Shapes: activations are (1, C, H, W) or (1, n), relevance has the targets (T) on the first axis instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import _kernels
from ..runtime.memory import Memory, empty, zeros
from .layers import Conv, Dense
from .rules import AlphaBeta, Box, Choice, Flat, Losses, Shares, WSquare, ZPlus, ratio, total
from .windows import Windows, bands, convolve, reach, scatter

BAND = 1 << 23  # bytes of one band's shares, or columns where there are any: they stay in the last cache
ROWS = 1 << 22  # bytes of a dense layer's weights in one block
BATCH = 1 << 26  # values of one activation for all targets of a pass; more targets take several passes
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

    layer: Conv
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
        window = self.layer.kernel, self.layer.stride, self.layer.pads, self.layer.dilation
        out = empty((len(self.weight), (self.rows[1] - self.rows[0]) * self.width), self.weight.dtype)
        return multiply(self.weight, x, window, self.rows, self.width, out, None, False, sign, other, *doubt)

    def _scatter(self, sign: int, share: np.ndarray, other: np.ndarray | None, out: np.ndarray) -> None:
        shape = len(self.weight), self.rows[1] - self.rows[0], self.width
        share, other = (None if s is None else np.ascontiguousarray(s).reshape(shape) for s in (share, other))
        _scatter(self.layer, self.weight, sign, share, other, out, self.rows, self.memory)

    def _windows(self, pixels: np.ndarray) -> np.ndarray:
        """The inputs of single pixels of the band: (C * taps, pixels)."""
        at = pixels // self.width + self.rows[0], pixels % self.width
        where, inside = [], []
        for a in (0, 1):
            taps = np.arange(self.layer.kernel[a])[:, None] * self.layer.dilation[a] - self.layer.pads[a]
            where.append(at[a] * self.layer.stride[a] + taps)
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


def _piece(choice: Choice, piece, bias: np.ndarray | None, z, r, losses: Losses, up, down) -> np.ndarray | None:
    """One piece of a linear layer, outputs z (m, N) with relevance r (T, m, N): what goes back is added to up, down.

    Returns
    -------
    real (T, m, N) or None
        Relevance to be spread evenly over each output's inputs.
    """
    if isinstance(choice.rule, WSquare | Box):  # for WSquare weights and z are squares and their sums
        denominators = z if isinstance(choice.rule, WSquare) else piece.own(1, None)
        share, zero = ratio(r, denominators)
        losses.add("zero", zero)
        piece.give(Shares(share, share if isinstance(choice.rule, WSquare) else None), up, down)
        return None
    shares, kept = _shares(choice, r, z, piece, bias)
    losses.add("epsilon", shares.absorbed)
    losses.add("zero", shares.zero)
    piece.give(shares, up, down)
    if bias is None or choice.bias == "ignore":
        return None
    if choice.bias == "distribute":
        return _bias_part(shares, bias)
    losses.add("bias", _bias_total(shares, kept, bias))
    return None


def _sides(x: np.ndarray, choice: Choice) -> tuple[np.ndarray, np.ndarray | None]:
    """The two sides of the inputs (C, ...) that a rule multiplies with W+ and W-; one where it needs but one."""
    if isinstance(choice.rule, Box):
        low, high = (bound.reshape(x.shape).astype(x.dtype, copy=False) for bound in choice.box)
        return x - low, x - high
    if isinstance(choice.rule, WSquare) or not choice.rule.signed or x.min(initial=0) >= 0:
        return x, None
    return np.maximum(x, 0), np.minimum(x, 0)


def _merge(choice: Choice, above, below, up: np.ndarray, down: np.ndarray | None) -> np.ndarray:
    """Relevance of the inputs from their sides and what multiplies each, in place of `up`."""
    if isinstance(choice.rule, WSquare):
        return up
    up *= above
    if down is not None:
        up += np.multiply(down, below, out=down)
    return up


def dense(layer: Dense, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """Relevance of a dense layer's input.

    Rows of W without relevance are never read; the others once for the denominators and once for the way back, since
    reading them is the cost.
    """
    (x,), losses, rule, dtype = inputs, Losses(), choice.rule, r.dtype
    n, shape = x[0].size, (len(r), *x.shape[1:])
    if isinstance(rule, Flat):
        return [np.repeat(r.sum(axis=1, keepdims=True) / dtype.type(n), n, axis=1).reshape(shape)], losses
    above, below = _sides(x[0].reshape(n), choice)
    up = np.zeros((len(r), n), dtype)
    down = None if below is None else np.zeros_like(up)
    rows, spread = np.flatnonzero(r.any(axis=0)), np.zeros(len(r))
    ready = layer.weight.dtype == dtype and layer.weight.flags.c_contiguous and not isinstance(rule, WSquare)
    step = max(1, len(rows) if ready else ROWS // (n * r.itemsize))
    for at in range(0, len(rows), step):
        block = rows[at : at + step]
        weight, own, z = layer.weight, block, y[0, block][:, None]
        if not ready:
            weight, own = np.ascontiguousarray(layer.weight[block], dtype), np.arange(len(block))
        if isinstance(rule, WSquare):
            np.square(weight, out=weight)
            z = weight.sum(axis=1)[:, None]
        bias = layer.bias[block].astype(dtype, copy=False)
        if isinstance(rule, AlphaBeta | ZPlus) and choice.bias != "distribute":
            alpha, beta = (1.0, 0.0) if isinstance(rule, ZPlus) else (rule.alpha, rule.beta)
            share = np.ascontiguousarray(r[:, block])
            bias = None if choice.bias == "ignore" else bias
            kept, lost = _kernels.dense_alpha_beta(weight, own, above, below, bias, share, alpha, beta, up, down)
            losses.add("zero", lost)
            if bias is not None and bias.any():
                losses.add("bias", kept)
            continue
        piece, share = DensePiece(weight, own, above, below), r[:, block][:, :, None]
        evenly = _piece(choice, piece, bias if bias.any() else None, z, share, losses, up, down)
        if evenly is not None:
            spread += total(evenly)
    result = _merge(choice, above, below, up, down)
    result += (spread / n).astype(dtype)[:, None]
    return [result.reshape(shape)], losses


def _evenly(layer: Conv, x: np.ndarray, r: np.ndarray, losses: Losses) -> np.ndarray:
    """Relevance r (T, Co, oh, ow) spread evenly over each output's inputs inside the image: (T, C, H, W)."""
    reads, channels = Windows.of(layer, x, r), layer.weight.shape[1]
    per_group = r.reshape(len(r), layer.groups, -1, *r.shape[2:]).sum(axis=2)
    share, lost = ratio(per_group, reads.counts * r.dtype.type(channels))
    losses.add("zero", lost)
    return np.repeat(reads.spread(share), channels, axis=1)


def _flat(layer: Conv, x: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """`Flat` for a convolution: conserving, or as the Caffe toolbox has it."""
    losses = Losses()
    if choice.flat == "conserving":
        return [_evenly(layer, x, r, losses)], losses
    reads, channels = Windows.of(layer, x, r), layer.weight.shape[1]
    size = r.dtype.type(layer.kernel[0] * layer.kernel[1])
    losses.add("flat", total(r * (1 - reads.counts * channels / size)))
    per_group = r.reshape(len(r), layer.groups, -1, *r.shape[2:]).sum(axis=2)
    return [np.repeat(reads.spread(per_group / size), channels, axis=1)], losses


def _square_sums(layer: Conv, x: np.ndarray, y: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Sum of w^2 over the taps of each window inside the image: (Co, oh, ow)."""
    within = []
    for a in (0, 1):
        covers = np.zeros((y.shape[2 + a], layer.kernel[a]), squares.dtype)
        for k in range(layer.kernel[a]):
            offset = k * layer.dilation[a] - layer.pads[a]
            covers[reach(x.shape[2 + a], 0, len(covers), offset, layer.stride[a])[0], k] = 1
        within.append(covers)
    return within[0] @ squares.sum(axis=1) @ within[1].T


def _scatter(layer: Conv, weight, sign: int, share, other, out: np.ndarray, rows: tuple[int, int], memory: Memory):
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
    if layer.stride != (1, 1):
        flat = weight.reshape(len(weight), -1).T
        part = memory.take("columns", len(flat), share[0].size)
        _kernels.product(flat, share.reshape(len(share), -1), part, sign=sign)
        if other is not None:
            _kernels.product(flat, other.reshape(len(share), -1), part, add=True, sign=-sign)
        scatter(part, out, layer.kernel, layer.stride, layer.pads, layer.dilation, begin, end)
        return
    tall, wide = (layer.dilation[a] * (layer.kernel[a] - 1) for a in (0, 1))
    top, left = layer.pads[:2]
    first, last = max(0, begin - top), min(height, end - top + tall)
    if first >= last:
        return
    turned = weight.transpose(1, 0, 2)[:, :, ::-1]
    window = layer.kernel, (1, 1), (tall - top + begin, wide - left), layer.dilation
    target = out.reshape(channels, -1)[:, first * width : last * width]
    convolve(turned, share, window, (first, last), width, target, None, True, sign, other)


def _bands(layer: Conv, r: np.ndarray) -> list[tuple[int, int]]:
    """Bands of output rows whose shares, or columns where there are any, stay in the cache.

    The whole image, but for many targets, where `convolve` transforms it: filters are transformed anew for each band.
    """
    rows, width = r.shape[2:]
    if layer.quick(rows * width, r.dtype):
        step = BATCH * r.itemsize // (4 * r[0, :, 0].nbytes * len(r)) // 4 * 4
        return bands(rows, 1, max(4, step))
    n_out = len(layer.weight) // layer.groups
    per_row = width * r.itemsize * (2 * n_out if layer.stride == (1, 1) else layer.weight[0].size)
    return bands(rows, per_row, BAND)


def conv(layer: Conv, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """Relevance of a convolution's input, band by band of output rows.

    Forward products are needed for z+ alone; channels without relevance take no part.
    """
    (x,), losses, rule, dtype = inputs, Losses(), choice.rule, r.dtype
    if isinstance(rule, Flat):
        return _flat(layer, x, r, choice)
    above, below = _sides(np.ascontiguousarray(x[0]), choice)
    signed, size = above, None
    if below is not None:
        signed, size = above + below, above - below
    up = zeros((len(r), *x.shape[1:]), dtype)
    down = None if size is None else zeros(up.shape, dtype)
    even = np.zeros_like(r) if choice.bias == "distribute" and layer.bias.any() else None
    weights = layer.cast("weight", dtype)
    squares = None
    if isinstance(rule, WSquare):
        weights = np.square(weights)
        squares = _square_sums(layer, x, y, weights)
    width, n_in, n_out = y.shape[3], weights.shape[1], len(weights) // layer.groups
    weights = weights.reshape(*weights.shape[:2], -1)
    relevance = np.ascontiguousarray(r).reshape(*r.shape[:2], -1)
    z = np.ascontiguousarray(y[0] if squares is None else squares).reshape(len(weights), -1)
    memory, cut = Memory(dtype), _bands(layer, r)

    for g in range(layer.groups):
        ins, mine = slice(g * n_in, (g + 1) * n_in), slice(g * n_out, (g + 1) * n_out)
        alive = relevance[:, mine].any(axis=(0, 2))
        outs = mine if alive.all() else np.flatnonzero(alive) + mine.start
        if not alive.any():
            continue
        weight, bias, own, share = weights[outs], layer.cast("bias", dtype)[outs], z[outs], relevance[:, outs]
        sides = [None if side is None else side[ins] for side in (signed, size)]
        inner = up[:, ins], None if down is None else down[:, ins]
        for begin, end in cut:
            some = slice(begin * width, end * width)
            if not share[:, :, some].any():
                continue
            piece = ConvPiece(layer, weight, *sides, (begin, end), width, memory)
            evenly = _piece(
                choice, piece, bias if bias.any() else None, own[:, some], share[:, :, some], losses, *inner
            )
            if evenly is not None:
                even.reshape(relevance.shape)[:, outs, some] = evenly
    sides = (above, below) if n_in <= FEW else (signed, size)
    out = _merge(choice, *sides, up, down)
    if even is not None:
        out += _evenly(layer, x, even, losses)
    return [out], losses
