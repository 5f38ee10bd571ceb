"""Scales and shifts of channels: combined, and folded into the convolution or dense layer next to them.

For `fuse`. Hides which pairs of neighbouring layers can be combined exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ....core.layer import Array
from ...layers import (
    Affine,
    Concat,
    Constant,
    Conv,
    Dense,
    DynamicQuantise,
    Flatten,
    NetworkLayer,
    Pad,
    Quantise,
    Reshape,
    Scale,
    Slice,
)
from ..steps import Step
from .rewrite import Graph, become


def per_channel(value: Array, shape: tuple[int, ...]) -> tuple[Array, int] | None:
    """A constant that varies along one axis only, as one number for each channel of it, and that axis (counted from 1).

    The constant broadcasts against the last axes; a single number counts as one along the first axis. None: the
    constant varies along several axes.
    """
    offset = len(shape) - value.ndim
    long = [axis for axis, length in enumerate(value.shape) if length > 1]
    if len(long) > 1:
        return None
    return value.reshape(-1), (long[0] + offset + 1 if long else 1)


def spread(value: Array, axis: int, shape: tuple[int, ...]) -> Array:
    """One number for each channel of an axis, reshaped to broadcast along that axis."""
    return value.reshape(-1, *(1,) * (len(shape) - axis))


def as_affine(layer: NetworkLayer | None, shape: tuple[int, ...]) -> Affine | None:
    """A scale or shift of channels as an affine layer."""
    if isinstance(layer, Affine):
        return layer
    value = layer.factor if isinstance(layer, Scale) else layer.value if isinstance(layer, Constant) else None
    found = None if value is None or not shape else per_channel(value, shape)
    if found is None:
        return None
    numbers, axis = found
    numbers = np.array(np.broadcast_to(numbers, shape[axis - 1]), np.float32)
    if isinstance(layer, Scale):
        return Affine(numbers, np.zeros_like(numbers), axis)
    return Affine(np.ones_like(numbers), numbers, axis)


def affines(graph: Graph) -> None:
    """Combine scales and shifts of channels, and fold them into neighbouring convolutions or dense layers if exact."""
    _input_channels(graph)
    for step in list(graph.steps):
        if isinstance(step.layer, Conv) and step.inputs[0].layer is None:
            step.layer = _one_by_one(step.layer) or step.layer
        if isinstance(step.layer, Constant) and _is_prepared(step.inputs[0]):
            step.layer = as_affine(step.layer, step.shape) or step.layer
        while len(step.inputs) == 1 and graph.alone(step.inputs[0]) and step.inputs[0].layer is not None:
            source = step.inputs[0]
            merged = _merged(source, step)
            if merged is None:
                break
            name = source.name if isinstance(step.layer, Affine | Scale | Constant) else step.name
            become(graph, step, merged, source.inputs[0], [source, step])
            step.name = name


def _is_prepared(step: Step) -> bool:
    """Whether a step holds the pixels, at most rounded, scaled and shifted."""
    while isinstance(step.layer, Quantise | DynamicQuantise | Affine | Scale):
        step = step.inputs[0]
    return step.layer is None


def _one_by_one(layer: Conv) -> Affine | None:
    """A convolution that only scales and shifts each channel: where it sees the pixels, it normalises the input."""
    outputs, inputs = len(layer.weight), layer.weight.shape[1] * layer.groups
    if layer.kernel != (1, 1) or layer.stride != (1, 1) or any(layer.pads) or outputs != inputs:
        return None
    weight = layer.weight.reshape(outputs, -1)
    if layer.groups == outputs:
        return Affine(weight[:, 0], layer.bias)
    if layer.groups > 1 or np.count_nonzero(weight) != np.count_nonzero(weight.diagonal()):
        return None
    return Affine(np.array(weight.diagonal()), layer.bias)


def _merged(source: Step, step: Step) -> NetworkLayer | None:
    """One layer for two consecutive steps; None if that would not be exact."""
    first, second = source.layer, step.layer
    pixels = _is_prepared(source.inputs[0])
    if isinstance(second, Affine | Scale | Constant):
        if isinstance(first, Affine | Scale | Constant):
            return _together(first, second, step.shape, pixels)
        affine = as_affine(second, step.shape)
        if affine is not None and not isinstance(second, Scale):
            return _after(first, affine, step.shape)
    if isinstance(second, Conv) and isinstance(first, Pad) and first.value == 0 and first.axis == 2:
        top, left, bottom, right = (a + b for a, b in zip(first.pads, second.pads, strict=True))
        return replace(second, pads=(top, left, bottom, right))
    if isinstance(first, Affine) and not pixels and isinstance(second, Conv | Dense):
        return _before(first, second, source.shape)
    return None


def _together(first: NetworkLayer, second: NetworkLayer, shape: tuple[int, ...], pixels: bool) -> NetworkLayer | None:
    """Two scales, or scales and shifts of channels, as one layer.

    A scale of channels after a shift stays a layer of its own (LayerScale), unless both act on the pixels, where they
    are the normalisation of the input.
    """
    if isinstance(first, Scale) and isinstance(second, Scale):
        product = first.factor * second.factor
        return Scale(np.asarray(product)) if product.ndim <= len(shape) else None
    if isinstance(second, Scale) and isinstance(first, Affine) and second.factor.size > 1 and not pixels:
        return None
    a, b = as_affine(first, shape), as_affine(second, shape)
    if a is None or b is None:
        return None
    if a.axis != b.axis:  # one number for all channels fits any axis
        if (a.scale == a.scale[0]).all() and (a.shift == a.shift[0]).all():
            a = _uniform(a, b, shape)
        elif (b.scale == b.scale[0]).all() and (b.shift == b.shift[0]).all():
            b = _uniform(b, a, shape)
        else:
            return None
    scale, shift = a.scale.astype(np.float64), a.shift.astype(np.float64)
    return Affine(single(scale * b.scale), single(shift * b.scale + b.shift), a.axis)


def single(values: npt.ArrayLike) -> Array:
    """`values` in float32, the type of weights."""
    return np.asarray(values, np.float32)


def _uniform(affine: Affine, other: Affine, shape: tuple[int, ...]) -> Affine:
    """An affine layer with one scale and one shift for all channels, along the axis of another."""
    length = shape[other.axis - 1]
    return Affine(np.full(length, affine.scale[0]), np.full(length, affine.shift[0]), other.axis)


def _after(layer: NetworkLayer | None, affine: Affine, shape: tuple[int, ...]) -> NetworkLayer | None:
    """A convolution or dense layer, with a scale and shift of each output channel folded in."""
    wanted = 1 if isinstance(layer, Conv) else len(shape)
    if not isinstance(layer, Conv | Dense):
        return None
    scale, shift = affine.scale.astype(np.float64), affine.shift.astype(np.float64)
    if affine.axis != wanted:
        if (scale != scale[0]).any() or (shift != shift[0]).any():
            return None
        scale, shift = scale[:1], shift[:1]
    if (scale == 1).all():
        return replace(layer, bias=single(layer.bias + shift))
    weight = layer.weight * scale.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    return replace(layer, weight=single(weight), bias=single(layer.bias * scale + shift))


def _before(affine: Affine, layer: Conv | Dense, shape: tuple[int, ...]) -> NetworkLayer | None:
    """A convolution or dense layer, with a scale and shift of each input channel folded in; padding must stay zero."""
    if isinstance(layer, Conv) and (affine.axis != 1 or (any(layer.pads) and affine.shift.any())):
        return None
    if isinstance(layer, Dense) and affine.axis != len(shape):
        return None
    groups = layer.groups if isinstance(layer, Conv) else 1
    per_group = (groups, len(layer.weight) // groups, layer.weight.shape[1], -1)
    weight = layer.weight.astype(np.float64).reshape(per_group)
    bias = layer.bias + np.einsum("goik,gi->go", weight, affine.shift.reshape(groups, -1)).ravel()
    weight = weight * affine.scale.reshape(groups, 1, -1, 1)
    return replace(layer, weight=single(weight.reshape(layer.weight.shape)), bias=single(bias))


def _input_channels(graph: Graph) -> None:
    """Channels normalised one by one and concatenated, as in torchvision's transform_input: one affine layer."""
    for end in graph.steps:
        if not isinstance(end.layer, Concat) or end.layer.axis != 1:
            continue
        channels = [_channel(each) for each in end.inputs]
        source = next((channel[0] for channel in channels if channel is not None), None)
        if source is None or len(channels) != source.shape[0]:
            continue
        scales, shifts, region = [], [], [end]
        for k, channel in enumerate(channels):
            if channel is None or channel[0] is not source or channel[1] != k:
                break
            scales.append(channel[2])
            shifts.append(channel[3])
            region = [*channel[4], *region]
        else:
            become(graph, end, Affine(single(scales), single(shifts)), source, region)
    graph.refresh()


def _channel(step: Step) -> tuple[Step, int, float, float, list[Step]] | None:
    """For a step that scales and shifts one channel: source, channel, scale, shift and the steps in between."""
    scale, shift = 1.0, 0.0
    region: list[Step] = []
    while isinstance(step.layer, Scale | Constant | Affine | Reshape | Flatten):
        if isinstance(step.layer, Scale | Constant | Affine):
            affine = as_affine(step.layer, step.shape)
            if affine is None or affine.scale.std() or affine.shift.std():
                return None
            shift += scale * float(affine.shift[0])
            scale *= float(affine.scale[0])
        region.insert(0, step)
        step = step.inputs[0]
    if not isinstance(step.layer, Slice) or step.layer.axis != 1 or step.layer.count != 1:
        return None
    return step.inputs[0], step.layer.start, scale, shift, [step, *region]
