"""A network as a graph: layers with names, in an order in which each comes after those it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .layers import LAYERS, NetworkLayer
from .layers.layer import Shape

INPUT = -1  # what nodes call the network's input

# What a node's `kind` calls each layer; rules and files spell it this way, too.
KINDS: dict[str, type[NetworkLayer]] = {cls.__name__.lower(): cls for cls in LAYERS}


@dataclass(frozen=True)
class Node:
    """A layer in its place: its name, its kind and the nodes it reads (INPUT is the network's input)."""

    name: str
    kind: str
    layer: NetworkLayer
    inputs: tuple[int, ...]

    @classmethod
    def of(cls, name: str, layer: NetworkLayer, inputs: tuple[int, ...]) -> Node:
        """A node of the layer's own kind."""
        return cls(name, type(layer).__name__.lower(), layer, inputs)


def output_shapes(nodes: Sequence[Node], input_shape: Shape) -> list[Shape]:
    """Shape of every node's output, without the batch axis.

    Raises
    ------
    ValueError
        There are no nodes, two have one name, one comes before a node it reads, or does not fit the shapes it reads.
    """
    if not nodes:
        raise ValueError("nodes must hold at least one layer, got none")
    taken = {"input"}  # the depth of the pixels
    names: list[object] = [node.name for node in nodes]  # a damaged file may hold anything
    for name in names:
        if not isinstance(name, str) or name in taken:  # names are depths, which must be unambiguous
            raise ValueError(f"layers must have names of their own, strings other than 'input', got {name!r}")
        taken.add(name)
    shapes: list[Shape] = []
    for i, node in enumerate(nodes):
        if not all(INPUT <= k < i for k in node.inputs):
            raise ValueError(f"layer {node.name!r} must come after those it reads, {node.inputs}")
        try:
            shapes.append(node.layer.out_shape(*(input_shape if k == INPUT else shapes[k] for k in node.inputs)))
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:  # a stride of 0 divides by zero
            raise ValueError(f"layer {node.name!r} does not fit what it reads: {error}") from error
    return shapes


def ancestors(nodes: Sequence[Node], node: int) -> frozenset[int]:
    """A node and all that it is computed from, the network's input aside; none for the input itself."""
    found, waiting = set(), [node]
    while waiting:
        i = waiting.pop()
        if i != INPUT and i not in found:
            found.add(i)
            waiting.extend(nodes[i].inputs)
    return frozenset(found)


def first_layers(nodes: Sequence[Node]) -> frozenset[int]:
    """The nodes that see the pixels: no layer with weights comes before them."""
    found: set[int] = set()
    for i, node in enumerate(nodes):
        if all(k == INPUT or (k in found and nodes[k].layer.role != "linear") for k in node.inputs):
            found.add(i)
    return frozenset(found)


def strides(nodes: Sequence[Node]) -> list[int]:
    """How many pixels of the input lie between neighbours in each node's output, along the axis with fewer."""
    steps: list[int] = []
    for node in nodes:
        before = max((1 if k == INPUT else steps[k] for k in node.inputs), default=1)
        steps.append(before * min(getattr(node.layer, "stride", (1, 1))))
    return steps


def narrows(nodes: Sequence[Node]) -> list[int]:
    """The nodes that everything before them passes through on its way to the scores: between blocks, not inside one."""
    last = list(range(len(nodes)))  # the last node that reads each
    for i, node in enumerate(nodes):
        for k in node.inputs:
            if k != INPUT:
                last[k] = i
    found, reach = [], 0
    for i in range(len(nodes)):
        if reach <= i:
            found.append(i)
        reach = max(reach, last[i])
    return found


def block_ends(nodes: Sequence[Node]) -> list[int]:
    """The nodes that end a block: a join, or a convolution of all channels once a window has looked around.

    A pool or a convolution with a stride begins a block, and a pointwise convolution behind it does not end one yet
    (SqueezeNet's squeeze); behind a depthwise one it does (MobileNet's projection).
    """
    narrow, ends, looked = frozenset(narrows(nodes)), [], False
    for i, node in enumerate(nodes):
        kernel, stride = (getattr(node.layer, name, (1, 1)) for name in ("kernel", "stride"))
        conv = node.kind == "conv"
        looked = (looked or max(kernel) > 1) if conv else looked and max(kernel) == 1
        whole = conv and getattr(node.layer, "groups", 1) == 1 and max(stride) == 1
        if i in narrow and (len(node.inputs) > 1 or (whole and looked)):
            ends.append(i)
            looked = False
    return ends


def coarse(nodes: Sequence[Node], shapes: Sequence[tuple[int, ...]]) -> int:
    """The depth of low resolution: the output of the first block with a stride of 8 or more.

    A network without such a block has that of its largest stride; one without blocks, its first layer with weights.
    """
    steps = strides(nodes)
    ends = [i for i in block_ends(nodes) if len(shapes[i]) == 3 and min(shapes[i][1:]) > 1]
    if not ends:
        return next((i for i, node in enumerate(nodes) if node.layer.role == "linear"), 0)
    wanted = min(8, max(steps[i] for i in ends))
    i = next(i for i in ends if steps[i] >= wanted)
    while i + 1 < len(nodes) and nodes[i + 1].inputs == (i,) and nodes[i + 1].layer.elementwise:
        i += 1  # with the activation behind it
    return i
