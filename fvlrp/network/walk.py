"""The walk through a network, from the relevance of its scores back to the pixels.

Above the depth every layer follows its rule; the layer that the depth names, and all that it is computed from, are
flat. For `fvlrp.network.trace`. The walk knows no kind of layer and no rule: it calls `relevance` and `flat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.layer import Array
from ..core.ledger import Entries
from .graph import INPUT, Node, ancestors
from .layers import Saved
from .rules import Choice


@dataclass
class Walk:
    """What a walk leaves at one depth.

    Attributes
    ----------
    pixels : real (T, C, H, W)
        Relevance of the network's input.
    entries : Entries
        What was kept back on the way.
    kept : dict of int to real (T, ...)
        Relevance of nodes' outputs, where it was asked for.
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

    Layers that a depth is not computed from follow their rules until they reach one that it is. One pass with the rules
    serves all depths: what crosses from there into the flat part of a depth is set aside for its own end.

    Parameters
    ----------
    nodes : the network's, in topological order
    x : real (1, C, H, W)
        The input.
    saved : what the forward pass left of every node
    start : real (T, ...)
        Relevance of the last node's output.
    depths : sequence of int
        Nodes, or INPUT.
    choices : sequence of Choice
        What each node is told.
    keep : bool
        Whether to keep relevance at every node.
    mixers : mapping of int to int, optional
        Nodes that below a depth hand their relevance on to another node, place by place (see `tokens.mixers`).
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
        if r is None or not users or not r.any():  # queries and keys, where attention is a constant
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
    """Add relevance to what a node has."""
    store[node] = store[node] + r if node in store else r
