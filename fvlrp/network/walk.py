"""The walk through a network, from the relevance of its scores back to the pixels.

Above the depth every layer follows its rule; the layer named by the depth, and all layers that it is computed from, are
flat. For `fvlrp.network.trace`. The walk depends on no kind of layer or rule: it only calls `relevance` and `flat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.layer import Array
from ..core.ledger import Entries
from ..core.rules import nonzero
from .graph import INPUT, Node, ancestors
from .layers import Saved
from .rules import Choice


@dataclass
class Walk:
    """The result of a walk for one depth.

    Attributes
    ----------
    pixels : real (T, C, H, W)
        Relevance of the network's input.
    entries : Entries
        What layers kept on the way.
    kept : dict of int to real (T, ...)
        Relevance of the outputs of nodes, if requested.
    """

    pixels: Array
    entries: Entries = field(default_factory=Entries)
    kept: dict[int, Array] = field(default_factory=dict)


def walk(
    nodes: Sequence[Node],
    x: Array,
    saved: Sequence[Saved],
    start: Array,
    depths: Sequence[int],
    choices: Sequence[Choice],
    keep: bool = False,
    mixers: Mapping[int, int] | None = None,
) -> list[Walk]:
    """Relevance from the last node down to each of `depths`, and flat from there to the input.

    Every node follows its rule unless the depth is computed from it. One pass with the rules serves all depths: the
    relevance that enters the flat part of a depth is set aside, and each flat part is finished separately.

    Parameters
    ----------
    nodes : the network's, in topological order
    x : real (1, C, H, W)
        The input.
    saved : what every node saved in the forward pass
    start : real (T, ...)
        Relevance of the last node's output.
    depths : sequence of int
        Nodes, or INPUT.
    choices : sequence of Choice
        The choices for each node.
    keep : bool
        Whether to keep relevance at every node.
    mixers : mapping of int to int, optional
        Nodes that pass their relevance below a depth to another node, position by position (see `tokens.mixers`).
    """
    below = [ancestors(nodes, depth) for depth in depths]
    walks = [Walk(np.zeros((len(start), *x.shape[1:]), start.dtype)) for _ in depths]
    waiting: list[dict[int, Array]] = [{} for _ in depths]  # relevance that has crossed into the flat part
    arrived = {len(nodes) - 1: start}

    for d, flats in enumerate(below):
        if len(nodes) - 1 in flats:
            waiting[d][len(nodes) - 1] = start
    for i in reversed(range(len(nodes))):
        users = [d for d, flats in enumerate(below) if i not in flats]
        r = arrived.pop(i, None)
        if r is None or not users or not nonzero(r):  # queries and keys, where attention is a constant
            continue
        passed = nodes[i].layer.relevance(r, saved[i], choices[i])
        for d in users:
            walks[d].entries.include(passed.entries)
            if keep:
                walks[d].kept[i] = r
        for source, part in zip(nodes[i].inputs, passed.inputs, strict=True):
            for d in users:
                if source == INPUT or source in below[d]:
                    _give(waiting[d], source, part)
            if source != INPUT:
                _give(arrived, source, part)
    for done, flats, store in zip(walks, below, waiting, strict=True):
        for i in sorted(flats, reverse=True):
            r = store.pop(i, None)
            if r is None:
                continue
            if mixers and i in mixers:
                _give(store, mixers[i], r)
                continue
            passed = nodes[i].layer.flat(r, saved[i], choices[i])
            done.entries.include(passed.entries)
            if keep:
                done.kept[i] = r
            for source, part in zip(nodes[i].inputs, passed.inputs, strict=True):
                _give(store, source, part)
        done.pixels = store.get(INPUT, done.pixels)
    return walks


def _give(store: dict[int, Array], node: int, r: Array) -> None:
    """Add to the relevance of a node."""
    store[node] = store[node] + r if node in store else r
