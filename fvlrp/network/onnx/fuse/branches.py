"""Parallel convolutions of one array whose outputs are summed: one convolution.

For `fuse`. Hides how kernels of different sizes and positions are added.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...layers import (
    Add,
    Affine,
    Conv,
)
from ..steps import Step
from .affines import affines, as_affine, single
from .rewrite import Graph, become


def branches(graph: Graph) -> None:
    """Merge parallel convolutions and scales of one array, whose outputs are summed, into one convolution.

    RepVGG, MobileOne, RepViT and FastViT are trained in this form, and their authors merge the branches for inference
    (Ding et al. 2021, arXiv:2101.03697). Files come in either form, and branches that cancel would get relevance
    without bound. The array itself is a branch if a batch normalisation follows; otherwise it is a block's residual.
    """
    for end in list(graph.steps):
        if not isinstance(end.layer, Add):
            continue
        source = min(end.inputs, key=lambda step: graph.place[id(step)])
        if source.inputs and not any(source in step.inputs for step in end.inputs):
            source = source.inputs[0]
        branches = [_as_branch(graph, step, source, _normalised_next(graph, end)) for step in end.inputs]
        known = [layer for layer in branches if layer is not None]
        convolutions = [layer for layer in known if isinstance(layer, Conv)]
        if len(known) < len(end.inputs) or not convolutions:
            continue
        groups = convolutions[0].groups
        summed = _summed([_as_conv(layer, groups) if isinstance(layer, Affine) else layer for layer in known])
        if summed is not None and summed.out_shape(source.shape) == end.shape:
            become(graph, end, summed, source, [*(step for step in end.inputs if step is not source), end])
    graph.refresh()
    affines(graph)


def _normalised_next(graph: Graph, step: Step) -> bool:
    return graph.alone(step) and all(isinstance(other.layer, Affine) for other in graph.readers(step))


def _as_branch(graph: Graph, step: Step, source: Step, itself: bool) -> Conv | Affine | None:
    """The layer of a step that reads `source` and can be merged into a convolution: a convolution or affine layer."""
    if step is source and len(step.shape) == 3:
        one = np.ones(step.shape[0], np.float32)
        return Affine(one, np.zeros_like(one)) if itself else None
    if step.inputs != [source] or len(step.shape) != 3 or not graph.alone(step):
        return None
    affine = None if source.layer is None else as_affine(step.layer, step.shape)
    if affine is not None:
        return affine if affine.axis == 1 else None
    return step.layer if isinstance(step.layer, Conv) else None


def _as_conv(affine: Affine, groups: int) -> Conv:
    """A scale and shift of each channel as a 1 x 1 convolution with that many groups."""
    channels = len(affine.scale)
    weight = np.zeros((channels, channels // groups, 1, 1), np.float32)
    own = np.arange(channels)
    weight[own, own % (channels // groups), 0, 0] = affine.scale
    return Conv(weight, affine.shift, groups=groups)


def _summed(layers: list[Conv]) -> Conv | None:
    """The sum of several convolutions as one; their kernels may differ only in size and position."""
    first = layers[0]
    alike = all(
        layer.stride == first.stride and layer.groups == first.groups and len(layer.weight) == len(first.weight)
        and (layer.dilation == (1, 1) or layer.kernel == (1, 1))
        for layer in layers
    )  # fmt: skip
    if not alike:
        return None
    before = [max(layer.pads[axis] for layer in layers) for axis in (0, 1)]
    # Beyond the output's own position: the taps that a kernel reads, and how far the window may leave the image.
    reach = [max(layer.kernel[axis] - layer.pads[axis] for layer in layers) for axis in (0, 1)]
    spare = [max(layer.pads[axis + 2] - layer.kernel[axis] + layer.pads[axis] for layer in layers) for axis in (0, 1)]
    shape = (*first.weight.shape[:2], before[0] + reach[0], before[1] + reach[1])
    weight, bias = np.zeros(shape), np.zeros(shape[0])
    for layer in layers:
        (kh, kw), (top, left) = layer.kernel, (before[0] - layer.pads[0], before[1] - layer.pads[1])
        weight[:, :, top : top + kh, left : left + kw] += layer.weight
        bias += layer.bias
    pads = (before[0], before[1], spare[0] + reach[0], spare[1] + reach[1])
    return replace(first, weight=single(weight), bias=single(bias), pads=pads, dilation=(1, 1))
