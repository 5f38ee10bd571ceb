"""Explanations of a convolutional network: the walk from a logit back to the pixels, and what it can be asked for.

Above the depth every layer follows its rule; the layer that the depth names, and all that it is computed from, are
replaced by flat weights: the walk goes through the graph once for any number of targets and depths, and each depth adds
the flat end from its layer down.

Shapes: activations are (1, C, H, W) or (1, n), relevance has the targets on the first axis instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from ..core.stack import EXACT, Explanation, Ledger, Menu, Relevances, Trace, precision
from ..data import images
from .graph import INPUT, KINDS, ancestors
from .layers import Conv, Dense
from .linear import BATCH
from .relevance import JOINS, LINEAR, POOLS, RELEVANCE
from .rules import Box, Choice, ConvRules, Flat, Losses


@dataclass
class Walk:
    """What a walk leaves at one depth.

    Attributes
    ----------
    pixels : real (T, C, H, W)
        Relevance of the network's input.
    losses : Losses
    kept : dict of int to real (T, ...)
        Relevance of nodes' outputs, where it was asked for.
    """

    pixels: np.ndarray
    losses: Losses = field(default_factory=Losses)
    kept: dict[int, np.ndarray] = field(default_factory=dict)


def walk(
    nodes: Sequence,
    x: np.ndarray,
    saved: Sequence[np.ndarray],
    start: np.ndarray,
    depths: Sequence[int],
    exact: Sequence[Choice],
    flat: Sequence[Choice],
    keep: bool = False,
) -> list[Walk]:
    """Relevance from the last node down to each of `depths`, and flat from there to the input.

    Layers that a depth is not computed from follow their rules until they reach one that it is. One pass with the rules
    serves all depths: what crosses from there into the flat part of a depth is set aside for its own end.

    Parameters
    ----------
    nodes : the network's, in topological order
    x, saved : the input, and every node's output
    start : real (T, ...)
        Relevance of the last node's output.
    depths : sequence of int
        Nodes, or INPUT.
    exact, flat : sequence of Choice
        How each node shares relevance above and below a depth.
    keep : bool
        Whether to keep relevance at every node.
    """
    below = [ancestors(nodes, depth) for depth in depths]
    walks = [Walk(np.zeros((len(start), *x.shape[1:]), start.dtype)) for _ in depths]
    waiting: list[dict[int, np.ndarray]] = [{} for _ in depths]  # relevance that has crossed into the flat part
    arrived = {len(nodes) - 1: start}

    def give(store: dict[int, np.ndarray], node: int, r: np.ndarray) -> None:
        store[node] = store[node] + r if node in store else r

    def through(i: int, r: np.ndarray, choice: Choice) -> tuple[Iterable, Losses]:
        node = nodes[i]
        inputs = [x if source == INPUT else saved[source] for source in node.inputs]
        parts, losses = RELEVANCE[type(node.layer)](node.layer, inputs, saved[i], r, choice)
        return zip(node.inputs, parts, strict=True), losses

    for d, flats in enumerate(below):
        if len(nodes) - 1 in flats:
            waiting[d][len(nodes) - 1] = start
    for i in reversed(range(len(nodes))):
        users = [d for d, flats in enumerate(below) if i not in flats]
        r = arrived.pop(i, None)
        if r is None or not users:
            continue
        parts, losses = through(i, r, exact[i])
        for d in users:
            walks[d].losses.include(losses)
            if keep:
                walks[d].kept[i] = r
        for source, part in parts:
            for d in users:
                if source == INPUT or source in below[d]:
                    give(waiting[d], source, part)
            if source != INPUT:
                give(arrived, source, part)
    for d, flats in enumerate(below):
        for i in sorted(flats, reverse=True):
            r = waiting[d].pop(i, None)
            if r is None:
                continue
            parts, losses = through(i, r, flat[i])
            walks[d].losses.include(losses)
            if keep:
                walks[d].kept[i] = r
            for source, part in parts:
                give(waiting[d], source, part)
        walks[d].pixels = waiting[d].get(INPUT, walks[d].pixels)
    return walks


# ---- what can be asked for -------------------------------------------------------------------------------------------


def choices(nodes, rules: ConvRules, box: Callable) -> tuple[list[Choice], list[Choice]]:
    """How each node shares relevance above and below the depth; `box(node, rule)` is the range of a first layer's."""
    # A kind may be one that this network has none of, so that one set of rules serves many networks.
    kinds = sorted(kind for kind, layer in KINDS.items() if layer in LINEAR + JOINS + POOLS)
    names = [node.name for node in nodes]
    for key, _ in rules.layers:
        if key not in ("first", *kinds, *names):
            raise ValueError(
                f"rules name no layer or kind {key!r}; kinds are first, {', '.join(kinds)}; "
                f"layers are {', '.join(names)}"
            )
    exact = [_choice(nodes, i, rules, box) for i in range(len(nodes))]
    return exact, [Choice(rules.below, rules.bias, rules.flat, rules.pool)] * len(nodes)


def _choice(nodes, i: int, rules: ConvRules, box: Callable) -> Choice:
    node = nodes[i]
    linear = isinstance(node.layer, LINEAR)
    first = linear and not any(isinstance(nodes[j].layer, LINEAR) for j in ancestors(nodes, i) - {i})
    named = rules.named(node.name, node.kind, first)
    if isinstance(node.layer, POOLS):
        if named is not None and not isinstance(named, Flat):
            raise ValueError(f"a pool takes the rule Flat() or none, got {named!r} for {node.name!r}")
        return Choice(rules.default, pool="winner" if named is None else "flat")
    if named is not None and not isinstance(node.layer, LINEAR + JOINS):
        raise ValueError(f"{node.name!r} ({node.kind}) passes relevance on unchanged and takes no rule")
    rule = rules.default if named is None else named
    if not isinstance(rule, Box):
        return Choice(rule, rules.bias, rules.flat)
    if not first and isinstance(node.layer, LINEAR + JOINS):
        raise ValueError(f"Box is a rule of the layer that sees the pixels, got it for {node.name!r}")
    return Choice(rule, rules.bias, rules.flat, box=box(node, rule) if first else None)


def above_pixels(nodes, node) -> list:
    """The layers between the pixels and a first layer, in their order."""
    chain, source = [], node.inputs[0]
    while source != INPUT:
        if len(nodes[source].inputs) != 1:
            raise ValueError(f"Box needs a layer that sees the pixels alone, got {node.name!r}")
        chain.append(nodes[source].layer)
        source = nodes[source].inputs[0]
    return chain[::-1]


class ConvMenu(Menu):
    """What a network's explanations can be asked for: targets and depths by index, too."""

    def __init__(self, net):
        convs = [node.name for node in net.nodes if isinstance(node.layer, Conv)]
        figure = ("input", convs[0] if convs else net.layers[0])
        super().__init__(net.classes_, (*net.layers, "input"), "input", figure_depths=figure, report_depths=figure)
        self.nodes = net.nodes

    def target(self, target) -> int:
        if isinstance(target, int | np.integer) and not isinstance(target, bool) and target not in self.classes:
            if not 0 <= target < len(self.classes):
                raise ValueError(f"unknown target {target!r}; indices of classes are 0..{len(self.classes) - 1}")
            return int(target)
        return super().target(target)

    def depth(self, depth) -> str:
        if isinstance(depth, int | np.integer) and not isinstance(depth, bool):
            if not 0 <= depth < len(self.nodes):
                raise ValueError(f"unknown depth {depth!r}; indices of layers are 0..{len(self.nodes) - 1}")
            return self.nodes[depth].name
        return super().depth(depth)

    def rules(self, rules) -> ConvRules:
        rules = ConvRules.of(rules)
        choices(self.nodes, rules, box=lambda node, rule: above_pixels(self.nodes, node))
        return rules


# ---- one image: trace and explanations -------------------------------------------------------------------------------


class ConvTrace(Trace):
    """The forward pass of one image through a network.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    x : real (1, C, h, w)
        What the network sees of it.
    scores, classes : as in Trace
        Logits, before any softmax.

    Parameters
    ----------
    net : ConvNet
    image : path, PIL image or array
    dtype : {"float32", "float64"}
        Fast, or exact: then ledgers close to 1e-9.
    """

    def __init__(self, net, image, dtype="float32"):
        self.net, self.dtype = net, precision(dtype)
        self.image = images.rgb(image).copy()  # the caller may change an array that is its own picture
        self.x = np.asarray(net.prepare(image), self.dtype)
        self._saved = net.activations(self.x)
        super().__init__(self._saved[-1].reshape(-1).astype(np.float64), ConvMenu(net))
        if len(self.scores) != len(self.classes):
            raise ValueError(f"the network has {len(self.scores)} outputs and {len(self.classes)} classes")

    def _explain(self, positions: list[int], depths: list[str], rules) -> list[Explanation]:
        exact, flat = self._choices(rules)
        at = [INPUT if depth == "input" else self.net.layers.index(depth) for depth in depths]
        self._warn(at, rules)
        batch = max(1, BATCH // max(a.size for a in (self.x, *self._saved)))
        explanations = []
        for first in range(0, len(positions), batch):
            some = positions[first : first + batch]
            walks = walk(self.net.nodes, self.x, self._saved, self._start(some), at, exact, flat)
            for t, position in enumerate(some):
                explanations += [
                    self._explanation(t, position, depth, node, done, rules)
                    for depth, node, done in zip(depths, at, walks, strict=True)
                ]
        return explanations

    def _start(self, positions: list[int]) -> np.ndarray:
        """The targets' logits, one a row; all others 0."""
        logits = self._saved[-1]
        start = np.zeros((len(positions), logits.size), self.dtype)
        start[np.arange(len(positions)), positions] = logits.reshape(-1)[positions]
        return start.reshape(len(start), *logits.shape[1:])

    def _explanation(self, t: int, position: int, depth: str, node: int, done: Walk, rules: ConvRules) -> Explanation:
        seen = done.pixels[t].sum(axis=0, dtype=np.float64)
        heatmap = self.net.preprocess.undo(seen, self.image.shape[:2])
        entries = {"score": float(self.scores[position])}
        entries |= {kind: np.broadcast_to(amount, len(done.pixels))[t] for kind, amount in done.losses.kinds.items()}
        return Explanation(
            heatmap=heatmap,
            score=self.scores[position],
            target=self.classes[position],
            depth=depth,
            rules=rules,
            relevance=self._relevances(position, node, rules),
            ledger=Ledger({**entries, "heatmap": heatmap.sum()}, self.dtype == EXACT),
            image=self.image,
        )

    def _relevances(self, position: int, depth: int, rules: ConvRules) -> Relevances:
        @cache
        def done() -> Walk:
            args = self.net.nodes, self.x, self._saved, self._start([position]), [depth], *self._choices(rules)
            return walk(*args, keep=True)[0]

        def at(i: int) -> np.ndarray:
            kept = done().kept
            return kept[i][0] if i in kept else np.zeros(self._saved[i].shape[1:])

        makers = {name: partial(at, i) for i, name in enumerate(self.net.layers)}
        return Relevances({**makers, "input": lambda: done().pixels[0]})

    def _warn(self, depths: list[int], rules: ConvRules) -> None:
        """Flat weights below a dense layer know nothing of where its relevance came from."""
        if not isinstance(rules.below, Flat):
            return
        for depth in depths:
            names = [self.net.nodes[i].name for i in sorted(ancestors(self.net.nodes, depth))]
            cut = [name for name in names if isinstance(self.net.nodes[self.net.layers.index(name)].layer, Dense)]
            if cut:
                warnings.warn(
                    f"depth {self.net.layers[depth]!r} puts flat weights in the place of the dense layer {cut[-1]!r}: "
                    "the heatmap is uniform over its inputs; choose a depth below it, or "
                    "rules=ConvRules(below=WSquare())",
                    stacklevel=5,
                )

    def _choices(self, rules: ConvRules) -> tuple[list[Choice], list[Choice]]:
        return choices(self.net.nodes, rules, self._box)

    def _box(self, node, rule: Box) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest input of a first layer, real (1, C, H, W): the rule's, or those of black and white."""
        if rule.low is None:
            ends = [np.asarray(self.net.prepare(np.full_like(self.image, level)), self.dtype) for level in (0, 255)]
        else:
            ends = []
            for value in (rule.low, rule.high):
                if np.size(value) not in (1, self.x.shape[1]):
                    raise ValueError(f"Box holds {np.size(value)} values, the input has {self.x.shape[1]} channels")
                ends.append(np.broadcast_to(np.reshape(value, (1, -1, 1, 1)), self.x.shape).astype(self.dtype))
        for layer in above_pixels(self.net.nodes, node):
            ends = [layer.forward(end) for end in ends]
        return np.minimum(*ends), np.maximum(*ends)
