"""The graph under rewriting, and what passes that look for a region of steps have in common.

For the passes of `fuse`, which change steps in place: the step at the end of a region becomes the layer that the region
computes, so that its readers do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ....core.layer import Array
from ...layers import (
    NetworkLayer,
)
from ..steps import Step, needed, readers

FARTHEST = 24  # most steps of a formula


@dataclass(eq=False)
class Graph:
    """Steps in an order in which each comes after those it reads.

    Attributes
    ----------
    last : Step
        The output.
    fused : list of Step
        Those that stand for several nodes.
    """

    last: Step
    fused: list[Step] = field(default_factory=list)
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Take the steps anew that the output needs."""
        self.steps = needed(self.last)
        self.place = {id(step): at for at, step in enumerate(self.steps)}
        self.uses = readers(self.steps)
        self.uses[id(self.last)] += 1
        self._readers: dict[int, list[Step]] = {}
        for step in self.steps:
            self.connect(step, step.inputs)

    def connect(self, step: Step, inputs: list[Step]) -> None:
        """Let a step read others."""
        step.inputs = inputs
        for source in inputs:
            self._readers.setdefault(id(source), []).append(step)

    def bypass(self, step: Step, source: Step) -> None:
        """Let the readers of a step read another one."""
        for other in self._readers.get(id(step), []):
            self.connect(other, [source if each is step else each for each in other.inputs])
        if self.last is step:
            self.last = source

    def readers(self, step: Step) -> list[Step]:
        """The steps that read a step."""
        return [other for other in self._readers.get(id(step), []) if step in other.inputs]

    def alone(self, step: Step) -> bool:
        """Whether a step has one reader."""
        return self.uses[id(step)] == 1


def become(graph: Graph, step: Step, layer: NetworkLayer, source: Step, region: Iterable[Step]) -> None:
    """Let a step be `layer` of `source`, in the place of a region that it is the end of."""
    nodes = dict.fromkeys(name for each in region for name in each.nodes)
    step.layer = layer
    graph.connect(step, [source])
    step.nodes = list(nodes)
    if len(nodes) > 1:
        step.name = _common(step.nodes) or step.name
        graph.fused.append(step)


def _common(names: list[str]) -> str:
    """The module that nodes have in common, where their names are paths."""
    paths = [name.strip("/").split("/")[:-1] for name in names]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def regions(graph: Graph, end: Step, inside: Callable[[Step], bool]) -> Iterable[tuple[Step, list[Step]]]:
    """Steps that a region which ends in `end` is computed from alone, the nearest first, and the region in order."""
    place = graph.place
    region, border = [end], {id(source): source for source in end.inputs}
    while len(region) <= FARTHEST:
        latest = max(border.values(), key=lambda step: place[id(step)])
        if len(border) == 1:
            yield latest, sorted(region, key=lambda step: place[id(step)])
        if not inside(latest) or not latest.inputs:
            return
        del border[id(latest)]
        region.append(latest)
        border |= {id(source): source for source in latest.inputs}


def run(region: list[Step], source: Step, value: Array) -> Array:
    """What the steps of a region make of a value (n, ...) of its source."""
    arrays = {id(source): value}
    with np.errstate(all="ignore"):
        for step in region:
            assert step.layer is not None
            arrays[id(step)] = step.layer.apply(*(arrays[id(each)] for each in step.inputs))
    return arrays[id(region[-1])]
