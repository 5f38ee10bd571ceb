"""Normalisations that a file writes with means and square roots, the scales and shifts after them, and their groups.

For `fuse`. Layer and root-mean-square normalisations are recognised by their values: the steps are run on random arrays
and compared with the layer that would replace them.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ....core.layer import Array
from ...layers import (
    Activation,
    Add,
    Affine,
    Constant,
    Expand,
    GlobalAveragePool,
    GroupNorm,
    LayerNorm,
    NetworkLayer,
    Product,
    Quotient,
    Reduce,
    Reshape,
    RMSNorm,
    Scale,
)
from ..steps import Step
from .affines import per_channel, spread
from .rewrite import Graph, become, regions, run

LARGEST = 1 << 22  # most values of an array on which a normalisation is tested

# docs/numerics.md, "Functions written out in steps"
_TOLERANCE = 1e-5  # of values, relative to the largest
_EQUAL = 1e-6  # of factors along an axis, relative to the largest
_ZERO = 1e-9  # shifts below it are rounding errors


def _statistical(step: Step) -> bool:
    """Whether a step may be part of a normalisation."""
    if isinstance(step.layer, Activation):
        return step.layer.name in ("pow", "sqrt", "reciprocal")
    return isinstance(
        step.layer, Reduce | GlobalAveragePool | Expand | Add | Scale | Constant | Product | Quotient | Affine
    )


def normalisations(graph: Graph) -> None:
    """Replace normalisations written in steps, and fold in the scale and shift after a normalisation that has none."""
    for end in list(graph.steps):
        if isinstance(end.layer, Product | Quotient | Add):
            best = None
            for source, region in regions(graph, end, _statistical):
                layer = _normalisation(source, region) if source.shape == end.shape else None
                best = best if layer is None else (layer, source, region)
                if isinstance(layer, LayerNorm):  # a layer norm of x is also an RMS norm of x - mean: take the former
                    break
            if best is not None:
                become(graph, end, *best)
    for step in list(graph.steps):
        before = step.inputs[0] if len(step.inputs) == 1 else None
        if before is not None and graph.alone(before):
            layer = _with_factors(before.layer, step.layer, before.shape)
            if layer is not None:
                become(graph, step, layer, before.inputs[0], [before, step])


def _as_groups(layer: NetworkLayer | None, shape: tuple[int, ...]) -> NetworkLayer | None:
    """A plain normalisation of each channel separately as a group normalisation; any other layer unchanged."""
    if not isinstance(layer, LayerNorm) or len(shape) < 2 or layer.axes != tuple(range(2, len(shape) + 1)):
        return layer
    if (layer.scale != 1).any() or layer.shift.any():
        return layer
    return GroupNorm(np.ones(shape[0], np.float32), np.zeros(shape[0], np.float32), shape[0], layer.epsilon)


def _normalisation(source: Step, region: list[Step]) -> NetworkLayer | None:
    """The normalisation that a region computes, if it is one."""
    axes = {layer.axes if isinstance(layer, Reduce) else (2, 3) for layer in _means(region)}
    roots = [step for step in region if isinstance(step.layer, Activation) and _is_root(step.layer)]
    if len(axes) != 1 or len(roots) != 1 or prod(source.shape) > LARGEST:
        return None
    (over,) = axes
    before = roots[0].inputs[0].layer
    epsilon = float(before.value) if isinstance(before, Constant) and before.value.size == 1 else 0.0
    epsilon = float(f"{epsilon:.6g}")
    random = np.random.default_rng(0)
    inputs = [random.normal(0.3, size, (1, *source.shape)) for size in (1.0, 1.0, 0.01)]
    outputs = [run(region, source, x) for x in inputs]
    one, none = np.ones(()), np.zeros(())
    for plain in (LayerNorm(one, none, over, epsilon), RMSNorm(one, over, epsilon)):
        a, b, c = (plain.apply(x) for x in inputs)
        scale = (outputs[0] - outputs[1]) / np.where(a == b, 1, a - b)
        shift = outputs[0] - scale * a
        size = np.abs(outputs[2]).max() + 1e-30
        if not np.isfinite(scale).all() or np.abs(scale * c + shift - outputs[2]).max() > _TOLERANCE * size:
            continue
        factor, added = _compressed(scale[0], over), _compressed(shift[0], over)
        if factor is None or added is None:
            continue
        if isinstance(plain, LayerNorm):
            return LayerNorm(factor, added, over, epsilon)
        if not added.any():
            return RMSNorm(factor, over, epsilon)
    return None


def _means(region: list[Step]) -> list[NetworkLayer]:
    return [
        step.layer
        for step in region
        if isinstance(step.layer, GlobalAveragePool) or (isinstance(step.layer, Reduce) and step.layer.how == "mean")
    ]


def _is_root(layer: Activation) -> bool:
    return layer.name == "sqrt" or (layer.name == "pow" and abs(layer.a) == 0.5)


def _compressed(value: Array, over: tuple[int, ...]) -> Array | None:
    """Values without the axes they are constant along; None if they vary along other axes than `over` or the first."""
    value = np.where(np.abs(value) < _ZERO, 0, value)
    size = np.abs(value).max()
    for axis in reversed(range(value.ndim)):
        first = np.take(value, [0], axis=axis)
        if np.abs(value - first).max() <= _EQUAL * size:
            value = first
    varying = {axis + 1 for axis, length in enumerate(value.shape) if length > 1}
    if not varying <= set(over) and varying != {1}:
        return None
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    return np.asarray(value, np.float32)


def _with_factors(
    first: NetworkLayer | None, second: NetworkLayer | None, shape: tuple[int, ...]
) -> NetworkLayer | None:
    """A normalisation with the scale or shift after it folded in; None if it has one already."""
    if isinstance(second, Affine):
        scaled = _with_factors(first, Scale(spread(second.scale, second.axis, shape)), shape)
        return _with_factors(scaled, Constant(spread(second.shift, second.axis, shape)), shape)
    value = second.factor if isinstance(second, Scale) else second.value if isinstance(second, Constant) else None
    if value is not None and not (isinstance(first, LayerNorm) and _along(value, first.axes, len(shape))):
        first = _as_groups(first, shape)
    if isinstance(first, GroupNorm) and isinstance(second, Scale | Constant):
        return _with_channels(first, second, shape)
    if value is None or not isinstance(first, LayerNorm | RMSNorm) or not _along(value, first.axes, len(shape)):
        return None
    plain = bool((first.scale == 1).all()) and not (isinstance(first, LayerNorm) and first.shift.any())
    if isinstance(second, Scale):
        return replace(first, scale=value) if plain else None
    if isinstance(first, LayerNorm) and not first.shift.any():
        return replace(first, shift=value)
    return None


def _along(value: Array, axes: tuple[int, ...], rank: int) -> bool:
    """Whether a constant that broadcasts against the last of `rank` axes varies only along `axes`."""
    offset = rank - value.ndim + 1
    return all(length == 1 or axis + offset in axes for axis, length in enumerate(value.shape))


def _with_channels(first: GroupNorm, second: Scale | Constant, shape: tuple[int, ...]) -> NetworkLayer | None:
    plain = bool((first.scale == 1).all() and not first.shift.any())
    value = per_channel(second.factor if isinstance(second, Scale) else second.value, shape)
    if value is None or value[1] != 1:
        return None
    numbers = np.array(np.broadcast_to(value[0], shape[0]), np.float32)
    if isinstance(second, Scale):
        return replace(first, scale=numbers) if plain else None
    return replace(first, shift=numbers) if not first.shift.any() else None


def groups(graph: Graph) -> None:
    """Replace a normalisation between two reshapes, to groups of channels and back, by a group normalisation."""
    for end in list(graph.steps):
        if not isinstance(end.layer, Reshape) or len(end.shape) < 2:
            continue
        norm = end.inputs[0]
        front = norm.inputs[0] if len(norm.inputs) == 1 else None
        if front is None or not isinstance(front.layer, Reshape) or front.inputs[0].shape != end.shape:
            continue
        groups, layer = front.shape[0], norm.layer
        whole = tuple(range(2, len(front.shape) + 1))
        over_groups = (isinstance(layer, LayerNorm) and layer.axes == whole) or (
            isinstance(layer, GroupNorm) and layer.groups == groups
        )
        if not over_groups or not isinstance(layer, LayerNorm | GroupNorm) or end.shape[0] % groups:
            continue
        if (layer.scale == 1).all() and not layer.shift.any():
            one, none = np.ones(end.shape[0], np.float32), np.zeros(end.shape[0], np.float32)
            group = GroupNorm(one, none, groups, layer.epsilon)
            become(graph, end, group, front.inputs[0], [front, norm, end])
    graph.refresh()
    normalisations(graph)
