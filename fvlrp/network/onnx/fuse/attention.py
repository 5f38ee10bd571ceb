"""Attention and gates: which input of a product holds weights, and the scale factors around products.

For `fuse`. Hides how products of attention and of gates are recognised.
"""

from __future__ import annotations

from dataclasses import replace

from ...layers import (
    Activation,
    Affine,
    Clip,
    Constant,
    Conv,
    Dense,
    DynamicQuantise,
    Expand,
    Flatten,
    Gather,
    MatMul,
    Product,
    Quantise,
    Reshape,
    Scale,
    Select,
    Slice,
    Softmax,
    Transpose,
)
from ..steps import Step
from .rewrite import Graph

_MOVES = Reshape | Flatten | Transpose


def attention(graph: Graph) -> None:
    """Mark which input of a matrix product holds attention weights, and absorb the scale factors around products."""
    for step in list(graph.steps):
        if not isinstance(step.layer, MatMul) or len(step.inputs) != 2:
            continue
        weights = next((k for k in (0, 1) if _from_softmax(step.inputs[k])), -1)
        step.layer = replace(step.layer, weights=weights)
        for k in (0, 1):
            _take_factor(graph, step, k)
    graph.refresh()
    for step in list(graph.steps):
        source = step.inputs[0] if len(step.inputs) == 1 else None
        if source is None or not isinstance(step.layer, Scale) or step.layer.factor.size != 1:
            continue
        if isinstance(source.layer, MatMul) and len(source.inputs) == 2 and graph.alone(source):
            source.layer = replace(source.layer, scale=source.layer.scale * float(step.layer.factor))
            graph.bypass(step, source)


def _from_softmax(step: Step) -> bool:
    """Whether an array is the output of a softmax, possibly moved, masked, or mixed across heads."""
    while len(step.inputs) == 1:
        if isinstance(step.layer, Softmax):
            return True
        if not isinstance(
            step.layer,
            _MOVES
            | Quantise
            | DynamicQuantise
            | Scale
            | Select
            | Constant
            | Affine
            | Dense
            | Conv
            | Expand
            | Slice
            | Gather,
        ):
            return False
        step = step.inputs[0]
    return False


def _take_factor(graph: Graph, step: Step, k: int) -> None:
    """Absorb a scalar factor of input k into the product: scaling the queries, the keys or both is equivalent."""
    above = step.inputs[k]
    while isinstance(above.layer, Reshape | Transpose | Flatten | Expand) and graph.alone(above):
        above = above.inputs[0]
    layer = above.layer
    if isinstance(layer, Scale) and layer.factor.size == 1 and graph.alone(above):
        assert isinstance(step.layer, MatMul)
        step.layer = replace(step.layer, scale=step.layer.scale * float(layer.factor))
        graph.bypass(above, above.inputs[0])


def gates(graph: Graph) -> None:
    """Mark which input of a product is a gate, that is, says how much of the other passes."""
    for step in graph.steps:
        if isinstance(step.layer, Product):
            a, b = (_gate(each, step.shape) for each in step.inputs)
            step.layer = Product(-1 if a == b else int(b > a))


def _gate(step: Step, shape: tuple[int, ...]) -> int:
    """How certainly an array is a gate: 3 if broadcast over channels, 2 for a sigmoid's output, 1 for a tanh's."""
    if step.shape != shape or isinstance(step.layer, Expand):
        return 3
    while isinstance(step.layer, _MOVES | Quantise | DynamicQuantise):
        step = step.inputs[0]
    if isinstance(step.layer, Softmax):
        return 2
    if isinstance(step.layer, Activation):
        return {"sigmoid": 2, "hardsigmoid": 2, "step": 2, "tanh": 1}.get(step.layer.name, 0)
    return 2 if isinstance(step.layer, Clip) and (step.layer.low, step.layer.high) == (0, 1) else 0
