"""Explanations of a convolutional network: the walk from a logit back to the pixels, and what it can be asked for.

Above the depth every layer follows its rule; the layer that the depth names, and all that it is computed from, are
replaced by flat weights: the walk goes through the graph once for any number of targets and depths, and each depth adds
the flat end from its layer down.

Shapes: activations are (1, C, H, W) or (1, n), relevance has the targets on the first axis instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.ledger import Entries
from ..core.menu import Menu
from ..core.target import Target
from ..core.trace import Descent, Trace
from .graph import INPUT, KINDS, ancestors
from .layers import Conv, Dense, Saved
from .layers.layer import BATCH
from .rules import Box, Choice, ConvRules, Flat


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

    pixels: np.ndarray
    entries: Entries = field(default_factory=Entries)
    kept: dict[int, np.ndarray] = field(default_factory=dict)


def walk(
    nodes: Sequence,
    x: np.ndarray,
    saved: Sequence[Saved],
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
    x : the input
    saved : what the forward pass left of every node
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

    for d, flats in enumerate(below):
        if len(nodes) - 1 in flats:
            waiting[d][len(nodes) - 1] = start
    for i in reversed(range(len(nodes))):
        users = [d for d, flats in enumerate(below) if i not in flats]
        r = arrived.pop(i, None)
        if r is None or not users:
            continue
        passed = nodes[i].layer.relevance(r, saved[i], exact[i])
        for d in users:
            walks[d].entries.include(passed.entries)
            if keep:
                walks[d].kept[i] = r
        for source, part in zip(nodes[i].inputs, passed.inputs, strict=True):
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
            passed = nodes[i].layer.flat(r, saved[i], flat[i])
            walks[d].entries.include(passed.entries)
            if keep:
                walks[d].kept[i] = r
            for source, part in zip(nodes[i].inputs, passed.inputs, strict=True):
                give(waiting[d], source, part)
        walks[d].pixels = waiting[d].get(INPUT, walks[d].pixels)
    return walks


# ---- what can be asked for -------------------------------------------------------------------------------------------


def choices(nodes, rules: ConvRules, box: Callable) -> tuple[list[Choice], list[Choice]]:
    """How each node shares relevance above and below the depth; `box(node, rule)` is the range of a first layer's."""
    # A kind may be one that this network has none of, so that one set of rules serves many networks.
    kinds = sorted(kind for kind, layer in KINDS.items() if layer.role != "none")
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
    role = node.layer.role
    first = role == "linear" and not any(nodes[j].layer.role == "linear" for j in ancestors(nodes, i) - {i})
    named = rules.named(node.name, node.kind, first)
    if role == "pool":
        if named is not None and not isinstance(named, Flat):
            raise ValueError(f"a pool takes the rule Flat() or none, got {named!r} for {node.name!r}")
        return Choice(rules.default, pool="winner" if named is None else "flat")
    if named is not None and role == "none":
        raise ValueError(f"{node.name!r} ({node.kind}) passes relevance on unchanged and takes no rule")
    rule = rules.default if named is None else named
    if not isinstance(rule, Box):
        return Choice(rule, rules.bias, rules.flat)
    if not first and role != "none":
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
        super().__init__(
            net.classes_,
            (*net.layers, "input"),
            "input",
            representations=(*net.layers, "input"),
            figure_depths=figure,
            report_depths=figure,
        )
        self.nodes = net.nodes

    def position(self, name) -> int:
        """A class, or its index: unless classes are integers, which then mean themselves and nothing else."""
        index = isinstance(name, int | np.integer) and not isinstance(name, bool)
        if not index or all(isinstance(known, int) for known in self.classes):
            return super().position(name)
        if not 0 <= name < len(self.classes):
            raise ValueError(f"unknown target {name!r}; indices of classes are 0..{len(self.classes) - 1}")
        return int(name)

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
        super().__init__(net, image, dtype, ConvMenu(net))
        self.net = net
        self.x = np.asarray(net.prepare(self.source), self.dtype)
        self._saved = net.passed(self.x)
        self.scores = self._saved[-1].y.reshape(-1).astype(np.float64)
        if len(self.scores) != len(self.classes):
            raise ValueError(f"the network has {len(self.scores)} outputs and {len(self.classes)} classes")

    def _descend(self, targets: Sequence[Target], depths: Sequence[str], rules) -> list[Descent]:
        exact, flat = self._choices(rules)
        at = [self._node(depth) for depth in depths]
        self._warn(at, rules)
        batch = max(1, BATCH // max(a.size for a in (self.x, *(saved.y for saved in self._saved))))
        descents = []
        for first in range(0, len(targets), batch):
            some = targets[first : first + batch]
            walks = walk(self.net.nodes, self.x, self._saved, self._start(some), at, exact, flat)
            descents += [self._descent(t, target, done) for t, target in enumerate(some) for done in walks]
        return descents

    def _node(self, depth: str) -> int:
        return INPUT if depth == "input" else self.net.layers.index(depth)

    def _start(self, targets: Sequence[Target]) -> np.ndarray:
        """The targets' logits times their coefficients, one target a row; all others 0."""
        logits = self._saved[-1].y
        terms = np.stack([target.coefficients(logits.size) for target in targets])
        return (terms * logits.reshape(-1)).astype(self.dtype).reshape(len(terms), *logits.shape[1:])

    def _descent(self, t: int, target: Target, done: Walk) -> Descent:
        seen = done.pixels[t].sum(axis=0, dtype=np.float64)
        heatmap = self.net.preprocess.undo(seen, self.image.shape[:2])
        return Descent(heatmap, target.score(self.scores), done.entries.of(t))

    def relevance(self, target: Target, depth: str, rules, name: str) -> np.ndarray:
        args = self.net.nodes, self.x, self._saved, self._start([target]), [self._node(depth)], *self._choices(rules)
        done = walk(*args, keep=True)[0]
        if name == "input":
            return done.pixels[0]
        i = self.net.layers.index(name)
        return done.kept[i][0] if i in done.kept else np.zeros(self._saved[i].y.shape[1:])

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
                    stacklevel=4,
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
            ends = [layer.apply(end) for end in ends]
        return np.minimum(*ends), np.maximum(*ends)
