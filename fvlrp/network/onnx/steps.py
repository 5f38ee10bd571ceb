"""A network under construction: steps that hold layers, and tensors of the file as views of their outputs.

For `read` and `fuse`. The arrays of a step are those of one image. A tensor of the file has a batch axis in addition,
wherever the exporter put it. All shapes are for a batch of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..layers import NetworkLayer, Shape


@dataclass(eq=False)
class Step:
    """A layer and its inputs.

    Attributes
    ----------
    name : str
        Readable, not yet unique.
    layer : NetworkLayer or None
        None: the network's input.
    inputs : list of Step
    shape : tuple of int
        Shape of its output, for one image.
    nodes : list of str
        Names of the file's nodes that it represents.
    scope : str
        The module from which it was exported, if the file says so.
    """

    name: str
    layer: NetworkLayer | None
    inputs: list[Step]
    shape: Shape
    nodes: list[str] = field(default_factory=list)
    scope: str = ""


class View(NamedTuple):
    """A tensor of the file: the output of a step, and the position of its batch axis, of length 1 (None: none)."""

    step: Step
    batch: int | None

    @property
    def shape(self) -> Shape:
        """Its shape in the file."""
        shape = self.step.shape
        return shape if self.batch is None else (*shape[: self.batch], 1, *shape[self.batch :])

    def axis(self, axis: int) -> int:
        """The layer's axis (counted from 1) for an axis of the file."""
        rank = len(self.shape)
        if not -rank <= axis < rank:
            raise ValueError(f"an array of {self.shape} has no axis {axis}")
        axis %= rank
        if axis == self.batch:
            raise ValueError(f"axis {axis} is that of the batch: images of a batch must stay apart")
        return axis + 1 - (self.batch is not None and axis > self.batch)


def needed(last: Step) -> list[Step]:
    """The steps that `last` depends on, and itself, in topological order."""
    order: list[Step] = []
    done: set[int] = set()
    waiting = [(last, False)]
    while waiting:
        step, ready = waiting.pop()
        if ready:
            order.append(step)
        elif id(step) not in done:
            done.add(id(step))
            waiting.append((step, True))
            waiting += [(source, False) for source in reversed(step.inputs)]
    return order


def readers(steps: Iterable[Step]) -> Counter[int]:
    """How often each step is read, by its id."""
    return Counter(id(source) for step in steps for source in step.inputs)


def made(name: str, layer: NetworkLayer, inputs: Sequence[Step], like: Step | None = None) -> Step:
    """A step whose shape follows from its inputs; nodes and scope are those of `like`."""
    step = Step(name, layer, list(inputs), layer.out_shape(*(source.shape for source in inputs)))
    if like is not None:
        step.nodes, step.scope = list(like.nodes), like.scope
    return step
