"""Relevance of every kind of layer: what its inputs get of its output's, by the rule that the layer follows.

Each is a function ``(layer, inputs, y, r, choice) -> (relevance of each input, losses)`` of a layer's inputs, its
output y and the relevance r of that; `RELEVANCE` says which layer has which. Activations are (1, C, H, W) or (1, n),
relevance has the targets on the first axis instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .. import _kernels
from ..runtime.memory import zeros
from . import layers
from .linear import conv, dense
from .rules import Choice, Flat, Losses, WSquare, ratio, total
from .windows import Windows

TINY = 1e-6  # a pool's sum that is a smaller part of its sum of |x| does not say how to share


def unchanged(layer, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """Elementwise layers, normalisation and changes of shape pass relevance on."""
    return [r.reshape(len(r), *inputs[0].shape[1:])], Losses()


def max_pool(
    layer: layers.MaxPool, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice
) -> tuple[list, Losses]:
    """All to the first maximum of a window, row by row; or evenly to its inputs inside the image."""
    (x,) = inputs
    if choice.pool == "flat":
        reads = Windows.of(layer, x, y)
        return [reads.spread(r / reads.counts.astype(r.dtype))], Losses()
    out = zeros((len(r), *x.shape[1:]), r.dtype)
    planes = (np.ascontiguousarray(a) for a in (x[0], y[0], r))
    _kernels.max_pool_back(*planes, layer.kernel, layer.stride, layer.pads, layer.dilation, out)
    return [out], Losses()


def average_pool(layer, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """In proportion to x_i; evenly where the window's sum is rounding, so that no relevance is lost."""
    (x,) = inputs
    reads = Windows.of(layer, x, y)
    even = r / reads.counts.astype(r.dtype)
    if choice.pool == "flat":
        return [reads.spread(even)], Losses()
    sums = reads.sums(x)
    sizes = reads.sums(np.abs(x)) if x.min(initial=0) < 0 else sums
    steady = np.abs(sums) > TINY * sizes
    out = x * reads.spread(np.where(steady, r / np.where(steady, sums, 1), 0))
    if not steady.all():
        out += reads.spread(np.where(steady, 0, even))
    return [out], Losses()


def _join(terms: Sequence[np.ndarray], z: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """Relevance of the terms of a sum z, by the rule; it conserves whatever the rule, but for a stabiliser.

    Terms that all have one sign take all of r in proportion: the other half of an alpha-beta rule would vanish with
    its zero denominator, and such sums are the rule where both branches end in a ReLU. Terms that are all 0 share r.
    """
    losses = Losses()
    if isinstance(choice.rule, Flat | WSquare):
        return [r / r.dtype.type(len(terms))] * len(terms), losses
    if not choice.rule.signed:
        shares = choice.rule.shares(r, z, None, None)
        losses.add("epsilon", shares.absorbed)
        losses.add("zero", shares.zero)
        return [x * shares.positive for x in terms], losses
    positive = sum(np.maximum(x, 0) for x in terms)
    negative = sum(np.minimum(x, 0) for x in terms)
    mixed = (positive > 0) & (negative < 0)
    shares = choice.rule.shares(np.where(mixed, r, 0), positive + negative, positive, negative)
    alone = ~mixed
    above = shares.positive + ratio(np.where(alone, r, 0), positive)[0]
    below = ratio(np.where(alone, r, 0), negative)[0]
    if shares.negative is not None:
        below += shares.negative
    even = np.where((positive == 0) & (negative == 0), r / r.dtype.type(len(terms)), 0)
    return [np.maximum(x, 0) * above + np.minimum(x, 0) * below + even for x in terms], losses


def add(layer: layers.Add, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """A residual sum: a linear layer with weights 1."""
    return _join(inputs, y, r, choice)


def affine(layer: layers.Affine, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """One input per output and a bias: all to the input, but for what the bias absorbs."""
    (x,) = inputs
    if choice.bias != "absorb" or isinstance(choice.rule, Flat | WSquare):
        return [r], Losses()
    shape = (1, -1) + (1,) * (x.ndim - 2)
    shift = np.broadcast_to(layer.cast("shift", x.dtype).reshape(shape), x.shape)
    (out, kept), losses = _join([x * layer.cast("scale", x.dtype).reshape(shape), shift], y, r, choice)
    losses.add("bias", total(kept))
    return [out], losses


def concat(layer: layers.Concat, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """Each input its own part."""
    ends = np.cumsum([x.shape[layer.axis] for x in inputs])
    return np.split(r, ends[:-1], axis=layer.axis), Losses()


def pad(layer: layers.Pad, inputs: Sequence, y: np.ndarray, r: np.ndarray, choice: Choice) -> tuple[list, Losses]:
    """What is inside; relevance of the border has no input to go to."""
    (x,), losses = inputs, Losses()
    top, left = layer.pads[:2]
    inside = (..., slice(top, top + x.shape[2]), slice(left, left + x.shape[3]))
    border = r.copy()
    border[inside] = 0
    losses.add("padding", total(border))
    return [r[inside]], losses


RELEVANCE: dict[type, Callable] = {
    layers.Conv: conv,
    layers.Dense: dense,
    layers.ReLU: unchanged,
    layers.LeakyReLU: unchanged,
    layers.Clip: unchanged,
    layers.LRN: unchanged,
    layers.Flatten: unchanged,
    layers.Reshape: unchanged,
    layers.MaxPool: max_pool,
    layers.AveragePool: average_pool,
    layers.GlobalAveragePool: average_pool,
    layers.Affine: affine,
    layers.Concat: concat,
    layers.Add: add,
    layers.Pad: pad,
}
LINEAR, JOINS = (layers.Conv, layers.Dense), (layers.Add, layers.Affine)
POOLS = (layers.MaxPool, layers.AveragePool, layers.GlobalAveragePool)
