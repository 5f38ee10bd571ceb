"""A network as a graph: layers with names, in an order in which each comes after those it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .layers import LAYERS, NetworkLayer

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


def ancestors(nodes: Sequence[Node], node: int) -> frozenset[int]:
    """A node and all that it is computed from, the network's input aside; none for the input itself."""
    found, waiting = set(), [node]
    while waiting:
        i = waiting.pop()
        if i != INPUT and i not in found:
            found.add(i)
            waiting.extend(nodes[i].inputs)
    return frozenset(found)
