"""The graph being rewritten, and what passes that look for regions of steps have in common.

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
    """Steps in topological order.

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
        """Collect the steps that the output needs."""
        self.steps = needed(self.last)
        self.place = {id(step): at for at, step in enumerate(self.steps)}
        self.uses = readers(self.steps)
        self.uses[id(self.last)] += 1
        self._readers: dict[int, list[Step]] = {}
        for step in self.steps:
            self.connect(step, step.inputs)

    def connect(self, step: Step, inputs: list[Step]) -> None:
        """Make a step read `inputs`."""
        step.inputs = inputs
        for source in inputs:
            self._readers.setdefault(id(source), []).append(step)

    def bypass(self, step: Step, source: Step) -> None:
        """Make the readers of a step read `source` instead."""
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
    """Replace a region by `layer` of `source`; the step at its end, `step`, takes the layer."""
    nodes = dict.fromkeys(name for each in region for name in each.nodes)
    step.layer = layer
    graph.connect(step, [source])
    step.nodes = list(nodes)
    if len(nodes) > 1:
        step.name = _common(step.nodes) or step.name
        graph.fused.append(step)


def _common(names: list[str]) -> str:
    """The module that nodes have in common, if their names are paths."""
    paths = [name.strip("/").split("/")[:-1] for name in names]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def regions(graph: Graph, end: Step, inside: Callable[[Step], bool]) -> Iterable[tuple[Step, list[Step]]]:
    """Regions that end in `end` and read a single step, the smallest first: that step, and the region in order."""
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


def run(region: list[Step], source: Step, value: Array, without: type[NetworkLayer] | None = None) -> Array:
    """The output of a region for a value (n, ...) of its source; layers of a class `without` return their input."""
    arrays = {id(source): value}
    with np.errstate(all="ignore"):
        for step in region:
            assert step.layer is not None
            inputs = [arrays[id(each)] for each in step.inputs]
            skipped = without is not None and isinstance(step.layer, without)
            arrays[id(step)] = inputs[0] if skipped else step.layer.apply(*inputs)
    return arrays[id(region[-1])]
