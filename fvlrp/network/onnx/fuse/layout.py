"""Removal of the transpositions that exporters put around every layer of channels-last networks.

For `fuse`. A region of layers that work in any order of axes is computed in another order if that removes more
transpositions than it adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ....core.layer import Array
from ...layers import (
    Activation,
    Add,
    Affine,
    Clip,
    Concat,
    Constant,
    Expand,
    Gather,
    LeakyReLU,
    Maximum,
    NetworkLayer,
    Pad,
    PReLU,
    Product,
    Quantise,
    Quotient,
    Reduce,
    ReLU,
    Scale,
    Select,
    Slice,
    Softmax,
    Transpose,
)
from ..steps import Step, made
from .rewrite import Graph

Order = tuple[int, ...]
MOST_TURNS = 2_000_000  # times the steps of a graph: bounds the work


def inverse(order: Order) -> Order:
    """The inverse permutation."""
    return tuple(int(a) + 1 for a in np.argsort(order))


def moved(layer: NetworkLayer | None, order: Order) -> NetworkLayer | None:
    """The layer for arrays whose axis ``order[k - 1]`` was axis k; None if it depends on the order of axes."""

    def turned(value: Array) -> Array:
        full = value.reshape((1,) * (len(order) - value.ndim) + value.shape)
        return np.ascontiguousarray(np.transpose(full, [a - 1 for a in inverse(order)])) if value.size > 1 else value

    if isinstance(layer, Activation | ReLU | LeakyReLU | Clip | Add | Product | Quotient | Maximum):
        return layer
    if isinstance(layer, Scale):
        return Scale(turned(layer.factor))
    if isinstance(layer, Constant):
        return Constant(turned(layer.value))
    if isinstance(layer, PReLU):
        return PReLU(turned(layer.slope))
    if isinstance(layer, Select):
        return Select(turned(layer.mask), turned(layer.value))
    if isinstance(layer, Quantise):
        return replace(
            layer, scale=turned(layer.scale), zero=turned(layer.zero), pitch=turned(layer.pitch),
            offset=turned(layer.offset), origin=turned(layer.origin),
        )  # fmt: skip
    if isinstance(layer, Gather) and layer.indices.ndim != 1:
        return None
    if isinstance(layer, Affine | Concat | Slice | Softmax | Gather):
        return replace(layer, axis=order[layer.axis - 1])
    if isinstance(layer, Expand):
        return Expand(tuple(layer.shape[a - 1] for a in inverse(order)))
    if isinstance(layer, Reduce) and layer.keep:
        return replace(layer, axes=tuple(sorted(order[a - 1] for a in layer.axes)))
    if isinstance(layer, Pad) and order[layer.axis] == order[layer.axis - 1] + 1:
        return replace(layer, axis=order[layer.axis - 1])
    return None


@dataclass(eq=False)
class _Region:
    """Neighbouring steps that could be computed in another order of axes.

    Attributes
    ----------
    entering : list of (outside, inside)
    leaving : list of (inside, outside)
        Outside is None for the network's output.
    """

    steps: list[Step]
    entering: list[tuple[Step, Step]]
    leaving: list[tuple[Step, Step | None]]

    def gain(self, order: Order) -> int:
        """Number of transpositions saved by computing the region in another order of axes."""
        if any(moved(step.layer, order) is None for step in self.steps):
            return 0
        came = {id(source): _order(source) == order for source, _ in self.entering}
        gone = [(step, outside) for step, outside in self.leaving if _order(outside) == inverse(order)]
        left = {id(step) for step, outside in self.leaving if _order(outside) != inverse(order)}
        return sum(1 if vanishes else -1 for vanishes in came.values()) + len(gone) - len(left)

    def best(self) -> Order | None:
        """The order that saves most transpositions; None if none saves any."""
        orders = {_order(source) for source, _ in self.entering}
        orders |= {inverse(order) for _, outside in self.leaving if (order := _order(outside))}
        gains = {order: self.gain(order) for order in sorted(orders - {()})}
        order = max(gains, key=lambda each: gains[each], default=())
        return order if order and gains[order] > 0 else None


def _order(step: Step | None) -> Order:
    return step.layer.order if step is not None and isinstance(step.layer, Transpose) else ()


def settle(graph: Graph) -> None:
    """Compute each region in the order of axes that needs fewest transpositions."""
    for _ in range(max(8, MOST_TURNS // len(graph.steps))):
        turns = ((region, region.best()) for region in _regions(graph.steps, graph.last))
        region, order = next(((region, order) for region, order in turns if order), (None, None))
        if region is None or order is None:
            return
        _turn(graph, region, order)
        graph.refresh()


def _regions(steps: list[Step], last: Step) -> list[_Region]:
    """Regions of neighbouring steps of the same rank that work in any order of axes."""
    root: dict[int, int] = {}

    def find(key: int) -> int:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    free = [step for step in steps if step.layer is not None and _movable(step)]
    root |= {id(step): id(step) for step in free}
    for step in free:
        for source in step.inputs:
            if id(source) in root and len(source.shape) == len(step.shape):
                root[find(id(step))] = find(id(source))
    regions: dict[int, _Region] = {}
    for step in free:
        regions.setdefault(find(id(step)), _Region([], [], [])).steps.append(step)
    for step in steps:
        own = find(id(step)) if id(step) in root else None
        for source in step.inputs:
            other = find(id(source)) if id(source) in root else None
            if own is not None and other != own:
                regions[own].entering.append((source, step))
            if other is not None and other != own:
                regions[other].leaving.append((source, step))
    if id(last) in root:
        regions[find(id(last))].leaving.append((last, None))
    return list(regions.values())


def _movable(step: Step) -> bool:
    rank = len(step.shape)
    return (
        rank > 1
        and moved(step.layer, tuple(range(1, rank + 1))) is not None
        and all(len(source.shape) == rank for source in step.inputs)
    )


def _turn(graph: Graph, region: _Region, order: Order) -> None:
    """Compute a region in another order of axes, and transpose what other steps read of it."""
    inside = set(map(id, region.steps))
    turned: dict[int, Step] = {}
    for source, _ in region.entering:
        if id(source) not in turned:
            fits = _order(source) == order
            turned[id(source)] = source.inputs[0] if fits else _transposed(source, inverse(order))
    for step in region.steps:
        step.layer = moved(step.layer, order)
        step.inputs = [source if id(source) in inside else turned[id(source)] for source in step.inputs]
    for step in region.steps:
        assert step.layer is not None
        step.shape = tuple(step.shape[a - 1] for a in inverse(order))
    graph.refresh()
    back: dict[int, Step] = {}
    for step, outside in region.leaving:
        if outside is not None and _order(outside) == inverse(order):
            graph.bypass(outside, step)
            continue
        if id(step) not in back:
            back[id(step)] = _transposed(step, order)
        if outside is None:
            graph.last = back[id(step)]
        else:
            outside.inputs = [back[id(step)] if source is step else source for source in outside.inputs]


def _transposed(step: Step, order: Order) -> Step:
    return made(f"{step.name}_transposed", Transpose(order), [step], step)
