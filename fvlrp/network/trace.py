"""One image's forward pass through a network and its explanations, and the valid arguments of explanations.

For `fvlrp.network.network`. Hides how targets, depths and rules are translated into nodes and choices of layers, and
how relevance of the prepared input becomes a heatmap of the photograph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from ..core.layer import Array
from ..core.menu import Menu
from ..core.region import Region
from ..core.rules import Bounds, Rule, ZPlus
from ..core.seen import Seen
from ..core.target import Target
from ..core.trace import Descent, Trace
from ..data import bands
from ..data.images import ImageLike
from ..runtime.caller import stack_level
from ..runtime.types import Classes, Pixels, Values
from .graph import INPUT, KINDS, Node, ancestors, coarse, first_layers, strides
from .layers import NetworkLayer, Saved
from .layers.layer import BATCH
from .preprocess import BANDS, Preprocess
from .rules import PRESETS, Choice, NetworkRules
from .tokens import Layout
from .walk import Walk, walk

ATTENTION = ("softmax", "attention")  # kinds of layers that occur only in networks with attention
DEEP = 8  # convolutions from which rules that amplify leave noise at the pixels; measured with 16 and more
Box: TypeAlias = Callable[[Node, Rule], Bounds | None]


class Net(Protocol):
    """The attributes of a `fvlrp.network.network.Network` that a trace uses."""

    nodes: list[Node]
    shapes: list[tuple[int, ...]]
    preprocess: Preprocess
    classes_: Classes
    binary: bool

    @property
    def layers(self) -> list[str]:
        """Names of the nodes."""

    @property
    def layout(self) -> Layout:
        """Its blocks and tokens."""

    @property
    def coarse_depth(self) -> str:
        """The depth of low resolution."""

    def prepare(self, image: ImageLike) -> npt.NDArray[np.float32]:
        """The network's input for one image, (1, C, h, w)."""

    def trace(self, image: Values, dtype: npt.DTypeLike, /) -> NetworkTrace:
        """One forward pass of one image."""

    def passed(self, x: Array) -> list[Saved]:
        """What every node saves in a forward pass of the prepared input."""

    def per_class(self, outputs: npt.NDArray[np.float64], image: ImageLike) -> npt.NDArray[np.float64]:
        """The score of every class, from the network's outputs."""


def choices(nodes: Sequence[Node], rules: NetworkRules, box: Box) -> list[Choice]:
    """The choices for each node; `box(node, rule)` is the range of the inputs of a layer that sees the pixels.

    Raises
    ------
    ValueError
        Rules name an unknown layer or kind, or a layer that cannot have the rule.
    """
    # Kinds that do not occur in this network are allowed, so that a set of rules can serve many networks.
    kinds = {kind for kind, layer in KINDS.items() if layer.role != "none"}
    kinds |= {name for preset in PRESETS.values() for name in preset.get("layers", {})} - {"first"}
    names = [node.name for node in nodes]
    for key in dict(rules.layers):
        if key not in ("first", *kinds, *names):
            raise ValueError(
                f"rules name no layer or kind {key!r}; kinds are first, {', '.join(sorted(kinds))}; "
                f"layers are {', '.join(names)}"
            )
    first = first_layers(nodes)
    return [_choice(nodes, i, i in first, rules, box) for i in range(len(nodes))]


def _choice(nodes: Sequence[Node], i: int, first: bool, rules: NetworkRules, box: Box) -> Choice:
    node, role = nodes[i], nodes[i].layer.role
    named = rules.named(node.name, node.kind, first and role == "linear")
    if role == "none" and named is not None:
        raise ValueError(f"{node.name!r} ({node.kind}) passes relevance on unchanged and takes no rule")
    if role == "pool" and named is not None and named.sees != "nothing":
        raise ValueError(f"a pool takes the rule Flat() or none, got {named!r} for {node.name!r}")
    rule = rules.rule(node.name, node.kind, first and role == "linear")
    if role == "pool" and named is None:
        rule = ZPlus()  # for any default: the maximum of a window takes all
    bounds = None
    if rule.bounded and role in ("linear", "sum", "affine") and not (first and role == "affine"):
        if not first or role != "linear":
            raise ValueError(f"Box is a rule for the layer that sees the pixels, got it for {node.name!r}")
        bounds = box(node, rule)
    return Choice(
        rule,
        bias=rules.bias,
        flat=rules.flat,
        pool=rules.pool,
        box=bounds,
        below=rules.below,
        attention=rules.attention,
        gate=rules.gate,
        norm=rules.norm,
        affine=rules.input_affine if first else "rule",
    )


def attends(nodes: Sequence[Node]) -> bool:
    """Whether the network has attention."""
    return any(node.kind in ATTENTION for node in nodes)


def coarse_depth(net: Net) -> str:
    """The low-resolution depth: the first block whose positions are 8 pixels or more apart.

    "input" for networks without maps. If that block has a class token, from which scores are read, the block at which
    patches hold the largest share of relevance. It is measured on an image of noise, since it depends much more on the
    network than on the photograph.
    """
    if net.layout.coarse is None:
        found = coarse(net.nodes, net.shapes, net.preprocess.size)
        blocks = [name for name, last in net.layout.blocks.items() if last == found]
        return "input" if found == INPUT else min(blocks, key=len, default=net.layers[found])
    tokens = 0 if net.layout.outside is None else net.layout.outside[2]
    if net.shapes[net.layout.blocks[net.layout.coarse]][0] != tokens:  # patches alone: a class token, if any, is later
        return net.layout.coarse
    height, width = net.preprocess.size
    channels = net.preprocess.channels if net.preprocess.order == BANDS else 3
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    saved = net.passed(net.prepare(noise))
    logits = saved[-1].y
    start = np.where(logits == logits.max(), logits, 0)
    chosen = choices(net.nodes, NetworkRules.preset("attention"), lambda node, rule: None)
    kept = walk(net.nodes, saved[0].inputs[0], saved, start, [INPUT], chosen, keep=True)[0].kept
    ends = {name: i for name, i in net.layout.blocks.items() if i in kept and net.shapes[i][0] == tokens}
    return max(ends, key=lambda name: net.layout.on_patches(kept[ends[name]][0]), default=net.layout.coarse)


def above_pixels(nodes: Sequence[Node], node: Node) -> list[NetworkLayer]:
    """The layers between the pixels and a first layer, in order."""
    chain, source = [], node.inputs[0]
    while source != INPUT:
        if len(nodes[source].inputs) != 1:
            raise ValueError(f"Box needs a layer whose only input is the pixels, got {node.name!r}")
        chain.append(nodes[source].layer)
        source = nodes[source].inputs[0]
    return chain[::-1]


class NetworkMenu(Menu[NetworkRules]):
    """The valid targets, depths and rules of a network; targets and depths may also be indices.

    A network with a single score f has two classes: the second explains f, the first -f.
    """

    def __init__(self, net: Net) -> None:
        names = (*net.layers, "input")
        super().__init__(list(net.classes_), (*net.layout.blocks, *names), "input", representations=names)
        self.nodes, self._net, self._binary = net.nodes, net, net.binary

    @property
    def figure_depths(self) -> tuple[str, ...]:
        """The pixels, and the low-resolution depth."""
        return "input", self._net.coarse_depth

    @property
    def report_depths(self) -> tuple[str, ...]:
        """The low-resolution depth and the pixels: coarse to fine."""
        return tuple(dict.fromkeys(self.figure_depths[::-1]))

    @property
    def figure_rules(self) -> NetworkRules:
        """The paper's rules; the default rules for a network with attention."""
        return self.rules(None) if attends(self.nodes) else NetworkRules.preset("paper")

    def at(self, position: int) -> Target:
        if not self._binary:
            return super().at(position)
        return Target(self.classes[position], ((0, 1.0 if position else -1.0),))

    def position(self, name: object) -> int:
        """A class, or its index. If the classes are integers, an integer is always a class, never an index."""
        if not _index(name) or all(isinstance(known, int) for known in self.classes):
            return super().position(name)
        if not 0 <= name < len(self.classes):
            raise ValueError(f"unknown target {name!r}; indices of classes are 0..{len(self.classes) - 1}")
        return int(name)

    def depth(self, depth: object) -> str:
        """A layer's name or index, a block's name ("blocks.6"), or "input"."""
        if not _index(depth):
            block = self._net.layout.block(depth) if isinstance(depth, str) and depth not in self.depths else None
            return super().depth(depth) if block is None else block
        if not 0 <= depth < len(self.nodes):
            raise ValueError(f"unknown depth {depth!r}; indices of layers are 0..{len(self.nodes) - 1}")
        return self.nodes[int(depth)].name

    def rules(self, rules: object) -> NetworkRules:
        """`rules` as a NetworkRules value; None: "attention" for networks with attention, otherwise "smooth"."""
        if rules is None:
            rules = "attention" if attends(self.nodes) else "smooth"
        read = NetworkRules.of(rules)

        def seen(node: Node, rule: Rule) -> None:
            above_pixels(self.nodes, node)

        choices(self.nodes, read, seen)
        return read

    def region(self, region: object) -> None:
        """None. A network sees the whole photograph at its own resolution: explaining a part would cost as much."""
        if region is not None:
            raise ValueError(
                f"region must be None for a network, which reduces the photograph to its own size, got {region!r}: "
                "explain a crop of the photograph instead"
            )


def _index(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


class NetworkTrace(Trace[NetworkRules]):
    """The forward pass of one image through a network.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    x : real (1, C, h, w)
        The prepared input of the network.
    scores, classes : as in Trace
        Scores before any softmax or sigmoid.

    Parameters
    ----------
    net : a Network
    image : path, PIL image or array
    dtype : {"float32", "float64"}
        Fast, or exact: ledgers close to 1e-9.
    """

    kind = "network"

    def __init__(self, net: Net, image: ImageLike, dtype: npt.DTypeLike = "float32") -> None:
        self.net = net
        super().__init__(net, image, dtype, NetworkMenu(net))
        self.x: Array = np.asarray(net.prepare(self.source), self.dtype)
        self._saved = net.passed(self.x)
        self._logits: npt.NDArray[np.float64] = self._saved[-1].y.reshape(-1).astype(np.float64)
        self.scores = net.per_class(self._logits, image)

    @property
    def _bands(self) -> int:
        """The number of channels if they are not colours, otherwise 0."""
        read = self.net.preprocess
        return read.channels if read.order == BANDS else 0

    def _pixels(self, image: ImageLike) -> Pixels:
        return bands.load(image, self._bands) if self._bands else super()._pixels(image)

    def _picture(self, pixels: Pixels) -> npt.NDArray[np.uint8]:
        return bands.shown(pixels) if self._bands else super()._picture(pixels)

    @property
    def seen(self) -> Seen:
        read = self.net.preprocess
        return Seen(*read.box(self.image.shape[:2]), *read.size)

    def stride(self, depth: str) -> tuple[int, int]:
        at = self._node(depth)
        return (1, 1) if at == INPUT else strides(self.net.nodes)[at]

    def relevance(self, target: Target, depth: str, rules: NetworkRules, name: str) -> npt.NDArray[np.float64]:
        done = self._walks([target], [depth], rules, keep=True)[0]
        i = self._node(name)
        found = done.pixels if i == INPUT else done.kept.get(i, np.zeros((1, *self._saved[i].y.shape[1:])))
        return np.asarray(found[0], np.float64)

    def _descend(
        self, targets: Sequence[Target], depths: Sequence[str], rules: NetworkRules, region: Region | None
    ) -> list[Descent]:
        self._warn(depths, rules)
        batch = max(1, BATCH // max(a.size for a in (self.x, *(saved.y for saved in self._saved))))
        descents = []
        for first in range(0, len(targets), batch):
            some = targets[first : first + batch]
            walks = self._walks(some, depths, rules)
            descents += [self._descent(t, target, done) for t, target in enumerate(some) for done in walks]
        return descents

    def _walks(
        self, targets: Sequence[Target], depths: Sequence[str], rules: NetworkRules, keep: bool = False
    ) -> list[Walk]:
        nodes, at = self.net.nodes, [self._node(depth) for depth in depths]
        chosen, start = choices(nodes, rules, self._box), self._start(targets)
        return walk(nodes, self.x, self._saved, start, at, chosen, keep, self.net.layout.mixers)

    def _node(self, depth: str) -> int:
        if depth == "input":
            return INPUT
        return self.net.layers.index(depth) if depth in self.net.layers else self.net.layout.blocks[depth]

    def _start(self, targets: Sequence[Target]) -> Array:
        """The relevance of the scores, one row per target: score times coefficient, 0 for all others."""
        terms = np.stack([target.coefficients(self._logits.size) * self._logits for target in targets])
        return terms.astype(self.dtype).reshape(len(terms), *self._saved[-1].y.shape[1:])

    def _descent(self, t: int, target: Target, done: Walk) -> Descent:
        seen, entries = done.pixels[t].sum(axis=0, dtype=np.float64), done.entries.of(t)
        seen += entries.get("class_token", 0.0) / seen.size  # without a position: spread evenly over the patches
        heatmap = self.net.preprocess.undo(seen, self.image.shape[:2])
        return Descent(heatmap, target.score(self._logits), entries)

    def _warn(self, depths: Sequence[str], rules: NetworkRules) -> None:
        self._warn_of_noise(depths, rules)
        self._warn_of_uniform_maps(depths, rules)

    def _warn_of_noise(self, depths: Sequence[str], rules: NetworkRules) -> None:
        """Warn of rules whose heatmaps of deep networks are known to be poor at the pixels."""
        chosen = [rules.rule(node.name, node.kind, False) for node in self.net.nodes if node.kind == "conv"]
        loud = [rule for rule in chosen if rule.amplifies]
        if "input" in depths and len(loud) >= DEEP and not attends(self.net.nodes):
            warnings.warn(
                f"{loud[0]!r} in {len(loud)} convolutions down to the pixels: such maps are often no better than a "
                f"random order; use the default rules, or a coarser depth, such as {self.net.coarse_depth!r}",
                stacklevel=stack_level(),
            )

    def _warn_of_uniform_maps(self, depths: Sequence[str], rules: NetworkRules) -> None:
        """Warn if a dense layer is flat: its relevance is then spread uniformly over the image."""
        if rules.below.sees != "nothing":
            return
        for depth in depths:
            below = sorted(ancestors(self.net.nodes, self._node(depth)))
            # A dense layer on separate positions, such as tokens, keeps the positions.
            cut = [i for i in below if self.net.nodes[i].kind == "dense" and len(self.net.shapes[i]) == 1]
            if cut:
                warnings.warn(
                    f"depth {depth!r} replaces the dense layer {self.net.layers[cut[-1]]!r} by flat weights: "
                    "the heatmap is uniform over its inputs; choose a depth below it, or "
                    "rules=NetworkRules(below=WSquare())",
                    stacklevel=stack_level(),
                )

    def _box(self, node: Node, rule: Rule) -> Bounds:
        """Least and greatest input of a first layer, real (1, C, H, W): from the rule, or for black and white."""
        given = rule.range_of(self.x)
        one, other = self._black_and_white() if given is None else given
        for layer in above_pixels(self.net.nodes, node):
            one, other = layer.apply(one), layer.apply(other)
        return np.minimum(one, other), np.maximum(one, other)

    def _black_and_white(self) -> Bounds:
        """The prepared input for a black and a white photograph; for bands, for their least and largest value."""
        shown = self.source if self._bands else self.image
        levels = (0, 255) if shown.dtype == np.uint8 else (shown.min(), shown.max())
        black, white = (self.net.prepare(np.full_like(shown, level)) for level in levels)
        return black.astype(self.dtype), white.astype(self.dtype)
