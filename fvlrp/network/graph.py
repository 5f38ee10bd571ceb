"""A network as a graph: nodes in topological order, and what follows from their connections.

Hides graph searches: ancestors, first layers, strides, ends of blocks. For the modules of this wing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from .layers import LAYERS, NetworkLayer
from .layers.layer import Shape

INPUT = -1  # index of the network's input among those of nodes
COARSE = 7  # pixels between the positions of a map of low resolution: a stride of 8, less what padding adds
ALIKE = 0.8  # a stride is this much of another's that differs only by what padding adds

# Layer classes by the name that nodes, rules and files use.
KINDS: dict[str, type[NetworkLayer]] = {cls.__name__.lower(): cls for cls in LAYERS}


@dataclass(frozen=True)
class Node:
    """A layer in a network: its name, its kind, and the nodes that are its inputs (INPUT: the network's input)."""

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
        No nodes, duplicate names, or a node that precedes its inputs or does not fit their shapes.
    """
    if not nodes:
        raise ValueError("nodes must hold at least one layer, got none")
    taken = {"input"}  # the depth of the pixels
    names: list[object] = [node.name for node in nodes]  # a damaged file may hold anything
    for name in names:
        if not isinstance(name, str) or name in taken:  # names are depths, which must be unambiguous
            raise ValueError(f"layers must have distinct names, strings other than 'input', got {name!r}")
        taken.add(name)
    shapes: list[Shape] = []
    for i, node in enumerate(nodes):
        if not all(INPUT <= k < i for k in node.inputs):
            raise ValueError(f"layer {node.name!r} must come after its inputs, the nodes {node.inputs}")
        try:
            shapes.append(node.layer.out_shape(*(input_shape if k == INPUT else shapes[k] for k in node.inputs)))
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:  # a stride of 0 divides by zero
            raise ValueError(f"layer {node.name!r} does not fit its inputs: {error}") from error
    return shapes


def ancestors(nodes: Sequence[Node], node: int) -> frozenset[int]:
    """A node and all nodes that it is computed from; the empty set for INPUT."""
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


def strides(nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """Stride of each node's output in pixels of the input, along y and x."""
    steps: list[tuple[int, int]] = []
    for node in nodes:
        before = [(1, 1), *(steps[k] for k in node.inputs if k != INPUT)]
        down, across = getattr(node.layer, "stride", (1, 1))
        steps.append((max(y for y, _ in before) * down, max(x for _, x in before) * across))
    return steps


def narrows(nodes: Sequence[Node]) -> list[int]:
    """The nodes that every path from an earlier node to the scores passes through: between blocks, not inside one."""
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
    """The nodes that end a block: a join, or a convolution of all channels after one with a window larger than 1.

    The product of a gate, such as squeeze and excitation, is not a join: the projection follows it.

    A pool or a strided convolution begins a block. A pointwise convolution directly after it does not end the block
    (SqueezeNet's squeeze), but one after a depthwise convolution does (MobileNet's projection).
    """
    narrow, ends, looked = frozenset(narrows(nodes)), [], False
    for i, node in enumerate(nodes):
        kernel, stride = (getattr(node.layer, name, (1, 1)) for name in ("kernel", "stride"))
        conv, joins = node.kind == "conv", len(node.inputs) > 1 and node.kind != "product"
        looked = (looked or max(kernel) > 1) if conv else looked and max(kernel) == 1
        whole = conv and getattr(node.layer, "groups", 1) == 1 and max(stride) == 1
        if i in narrow and (joins or (whole and looked)):
            ends.append(i)
            looked = False
    return ends


def spacing(shape: Shape, size: tuple[int, int]) -> float:
    """Pixels between the positions of a map, (C, H, W) or (H, W, C), of an input of that size; 0 for other arrays.

    From shapes, since pixels may move into channels and maps may grow again.
    """
    if len(shape) != 3 or min(shape) == 0:
        return 0.0
    height, width = min((shape[1:], shape[:2]), key=lambda n: abs(log(n[0] * size[1] / (n[1] * size[0]))))
    return min(size[0] / height, size[1] / width) if min(height, width) > 1 else 0.0


def coarse(nodes: Sequence[Node], shapes: Sequence[Shape], size: tuple[int, int]) -> int:
    """The low-resolution depth: the output of the first block with a stride of 8 or more.

    Without such a block, the first convolution or pool of that stride, or else the first of the largest stride; without
    any, INPUT, since below other layers a map has no positions.

    Parameters
    ----------
    size : (int, int)
        Height and width of the input.
    """
    steps = [spacing(shape, size) for shape in shapes]
    maps = [i for i, step in enumerate(steps) if step]
    among = set(maps)
    ends = [i for i in block_ends(nodes) if i in among]
    if max((steps[i] for i in ends), default=0) < COARSE:
        narrow = frozenset(narrows(nodes))
        windows = [i for i in maps if i in narrow and hasattr(nodes[i].layer, "stride")]
        ends = windows if not ends or max((steps[i] for i in windows), default=0) >= COARSE else ends
    if not ends:
        return INPUT
    wanted = min(COARSE, ALIKE * max(steps[i] for i in ends))
    i = next(i for i in ends if steps[i] >= wanted)
    while i + 1 < len(nodes) and nodes[i + 1].inputs == (i,) and nodes[i + 1].layer.elementwise:
        i += 1  # with the activation after it
    return i
