"""Reshapes, transpositions and gathers: consecutive ones are merged, those without effect are removed.

For `fuse`. Hides which moves of values can be merged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...layers import (
    Concat,
    Expand,
    Flatten,
    Gather,
    Reduce,
    Reshape,
    Slice,
    Transpose,
)
from ..steps import Step
from .rewrite import Graph, become


def tidy(graph: Graph) -> None:
    """Merge consecutive reshapes, transpositions and concatenations, and remove those without effect."""
    for step in list(graph.steps):
        while step.inputs and _joined(step, step.inputs[0]):
            graph.connect(step, step.inputs[0].inputs)
        if isinstance(step.layer, Concat):
            graph.connect(step, [each for source in step.inputs for each in _parts(graph, source, step.layer)])
        if step.layer is not None and len(step.inputs) == 1 and _nothing(step):
            graph.bypass(step, step.inputs[0])


def _joined(step: Step, source: Step) -> bool:
    """Merge a step with its source; whether that was possible."""
    first, second = source.layer, step.layer
    if isinstance(first, Transpose) and isinstance(second, Transpose):
        step.layer = Transpose(tuple(first.order[a - 1] for a in second.order))
    elif isinstance(first, Reshape | Flatten) and isinstance(second, Reshape | Flatten):
        step.layer = Flatten() if len(step.shape) == 1 else Reshape(step.shape)
    elif isinstance(first, Transpose) and isinstance(second, Reduce) and not second.keep:
        kept = [first.order[a] for a in range(len(first.order)) if a + 1 not in second.axes]
        if kept != sorted(kept):
            return False
        step.layer = replace(second, axes=tuple(sorted(first.order[a - 1] for a in second.axes)))
    elif isinstance(first, Reduce) and not first.keep and isinstance(second, Reshape):
        whole = replace(first, keep=True)
        if whole.out_shape(source.inputs[0].shape) != step.shape:
            return False
        step.layer = whole
    else:
        return False
    return True


def _parts(graph: Graph, source: Step, layer: Concat) -> list[Step]:
    """The inputs of a concatenation that is itself an input of one along the same axis; otherwise the input."""
    same = isinstance(source.layer, Concat) and source.layer.axis == layer.axis and graph.alone(source)
    return source.inputs if same else [source]


def _nothing(step: Step) -> bool:
    layer = step.layer
    if isinstance(layer, Transpose):
        return layer.order == tuple(range(1, len(layer.order) + 1))
    return isinstance(layer, Reshape | Flatten | Expand) and step.shape == step.inputs[0].shape


def shuffles(graph: Graph) -> None:
    """Replace channel shuffles (reshape, transposition, reshape) and rolls (concatenated slices) by one gather."""
    for end in list(graph.steps):
        if isinstance(end.layer, Reshape):
            _shuffle(graph, end)
        elif isinstance(end.layer, Concat):
            _roll(graph, end)


def _shuffle(graph: Graph, end: Step) -> None:
    middle = end.inputs[0]
    front = middle.inputs[0] if isinstance(middle.layer, Transpose) else None
    if front is None or not isinstance(front.layer, Reshape):
        return
    source = front.inputs[0]
    order, split = middle.layer.order if isinstance(middle.layer, Transpose) else (), front.shape
    if source.shape != end.shape or len(split) != len(end.shape) + 1 or split[2:] != end.shape[1:]:
        return
    if order == (2, 1, *range(3, len(split) + 1)):
        places = np.arange(end.shape[0], dtype=np.int64).reshape(split[:2]).T.ravel()
        become(graph, end, Gather(places, 1), source, [front, middle, end])


def _roll(graph: Graph, end: Step) -> None:
    layers = [each.layer for each in end.inputs]
    slices = [layer for layer in layers if isinstance(layer, Slice)]
    source = end.inputs[0].inputs[0] if end.inputs[0].inputs else None
    assert isinstance(end.layer, Concat)
    if source is None or len(slices) < len(layers) or any(layer.axis != end.layer.axis for layer in slices):
        return
    if all(each.inputs[0] is source for each in end.inputs):
        places = np.concatenate([s.start + s.step * np.arange(s.count) for s in slices])
        become(graph, end, Gather(places, end.layer.axis), source, [*end.inputs, end])
