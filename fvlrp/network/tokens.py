"""Tokens and blocks: which axes of a network's arrays are positions in the image, and the names of its blocks.

For `fvlrp.network.trace`: depths such as "blocks.6", layers that mix tokens, class tokens. Everything is derived from
the nodes and their shapes; nothing is stored in files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from ..core.layer import Array
from .graph import INPUT, Node, narrows
from .layers import (
    Affine,
    Constant,
    Dense,
    DynamicQuantise,
    Extend,
    Flatten,
    Gather,
    MatMul,
    NetworkLayer,
    Quantise,
    Reduce,
    Reshape,
    Scale,
    Shape,
    Softmax,
    Table,
    Transpose,
)

# Roles of axes: "c" channels, "s" positions in the image, "h" hidden units computed from positions, "m" a mixture.
Roles: TypeAlias = tuple[str, ...]
# Every axis as what was joined to make it, outermost first: (role, length).
_Axes: TypeAlias = tuple[tuple[tuple[str, int], ...], ...]


def roles(nodes: Sequence[Node], shapes: Sequence[Shape], pixels: Shape) -> list[Roles]:
    """The roles of the axes of every node's output.

    Parameters
    ----------
    pixels : (C, H, W)
        Shape of the input.
    """
    source: _Axes = tuple(((role, length),) for role, length in zip("css", pixels, strict=True))
    found: list[_Axes] = []
    for node, shape in zip(nodes, shapes, strict=True):
        found.append(_after(node.layer, [source if k == INPUT else found[k] for k in node.inputs], shape))
    return [tuple(map(_role, axes)) for axes in found]


def _role(axis: tuple[tuple[str, int], ...]) -> str:
    """The role of an axis; parts of length 1 do not count."""
    named = {role for role, length in axis if length > 1} or {role for role, _ in axis[:1]}
    return "m" if len(named) > 1 else next(iter(named), "c")


def _after(layer: NetworkLayer, before: list[_Axes], shape: Shape) -> _Axes:
    first = before[0]
    if isinstance(layer, Reshape | Flatten):
        return _reshaped(first, shape)
    if isinstance(layer, Transpose):
        return tuple(first[axis - 1] for axis in layer.order)
    if isinstance(layer, Gather) and layer.indices.ndim != 1:
        a, role = layer.axis - 1, _role(first[layer.axis - 1])
        return (*first[:a], *(((role, n),) for n in layer.indices.shape), *first[a + 1 :])
    if isinstance(layer, Reduce) and not layer.keep:
        return tuple(axis for a, axis in enumerate(first) if a + 1 not in layer.axes)
    if isinstance(layer, Dense):
        mixed = len(first) > 1 and _role(first[-1]) in "sh"
        return (*first[:-1], (("h" if mixed else "c", shape[-1]),))
    if isinstance(layer, MatMul):
        second = before[1][-1] if len(before) > 1 else (("c", shape[-1]),)
        return (*_joint([axes[:-2] for axes in before], shape[:-2]), first[-2], second)
    return _joint(before, shape)


def _joint(before: list[_Axes], shape: Shape) -> _Axes:
    """The axes of a broadcast result: for each, the axis of an input that has its length."""
    out = []
    for a, length in enumerate(shape):
        own = [axes[a] for axes in before if a < len(axes)]
        fits = [axis for axis in own if prod(n for _, n in axis) == length]
        out.append(fits[0] if fits else ((_role(own[0]) if own else "c", length),))
    return tuple(out)


def _reshaped(axes: _Axes, shape: Shape) -> _Axes:
    """Axes after a reshape, which joins and splits them: every part keeps its role."""
    parts = [part for axis in axes for part in axis if part[1] > 1][::-1]
    out: list[tuple[tuple[str, int], ...]] = []
    for length in shape:
        taken, rest = [], length
        while rest > 1 and parts:
            role, n = parts.pop()
            if n > rest:
                if n % rest:
                    return tuple((("m", each),) for each in shape)
                parts.append((role, n // rest))
                n = rest
            if rest % n:
                return tuple((("m", each),) for each in shape)
            taken.append((role, n))
            rest //= n
        role = _role(axes[min(len(out), len(axes) - 1)]) if axes else "c"
        out.append(tuple(taken) or ((role, length),))
    return tuple(out)


# ---- layers that mix tokens ------------------------------------------------------------------------------------------

# With activations, the layers allowed between two layers of a mixer.
_BETWEEN = (Dense, Affine, Scale, Constant, DynamicQuantise, Quantise, Table)


def mixers(nodes: Sequence[Node], shapes: Sequence[Shape], kinds: Sequence[Roles]) -> dict[int, int]:
    """Dense layers that mix tokens with fixed weights, each with the node whose tokens have the same positions.

    Below a depth such a layer passes the relevance of each token to the same token: flat weights over all tokens would
    give a uniform map. A layer from tokens to hidden units and one from hidden units to tokens are treated as one.
    """
    found: dict[int, int] = {}
    for i, node in enumerate(nodes):
        if not isinstance(node.layer, Dense) or len(shapes[i]) < 2:
            continue
        k = node.inputs[0]
        while k != INPUT and kinds[k][-1] == "h" and shapes[k] != shapes[i]:
            inner = nodes[k]
            if len(inner.inputs) > 1 or not (inner.layer.elementwise or isinstance(inner.layer, _BETWEEN)):
                break
            k = inner.inputs[0]
        if k != INPUT and kinds[k][-1] in "sh" and shapes[k] == shapes[i]:
            found[i] = k
    return found


def class_tokens(nodes: Sequence[Node], kinds: Sequence[Roles], shapes: Sequence[Shape]) -> tuple[int, int, int] | None:
    """Tokens without a position in the image: how many come first, how many last, and the number of all tokens."""
    for i, node in enumerate(nodes):
        layer = node.layer
        if isinstance(layer, Extend) and layer.axis == 1 and len(shapes[i]) == 2 and kinds[i][0] == "s":
            return layer.before.shape[0], layer.after.shape[0], shapes[i][0]
    return None


# ---- blocks ----------------------------------------------------------------------------------------------------------

_INDEXED = re.compile(r"(^|[a-zA-Z_.\-])\d+$")


def blocks(nodes: Sequence[Node]) -> dict[str, int]:
    """The blocks of a network by name, each with its last node, from the names that exporters give to nodes.

    A block is a numbered module ("blocks.6", "layer1.0", "encoder.layers.encoder_layer_3") that every path passes
    through and that has several layers with weights. If the names do not tell, the blocks of a transformer are counted:
    "blocks.0", "blocks.1" and so on.
    """
    narrow = frozenset(narrows(nodes))
    last: dict[str, int] = {}
    weights: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for path in _modules(node.name):
            last[path] = i
            weights[path] = weights.get(path, 0) + (node.layer.role == "linear")
    names = {node.name for node in nodes}
    found = {p: i for p, i in last.items() if i in narrow and weights[p] > 1 and p not in names and i < len(nodes) - 1}
    return {p: i for p, i in found.items() if not _model(p, found, last)} or _counted(nodes, narrow)


def _model(path: str, found: Iterable[str], modules: Iterable[str]) -> bool:
    """Whether a module is a whole model, such as "dinov2": it contains blocks, and no other number is beside it."""
    beside = re.compile(rf"{re.escape(path.rstrip('0123456789'))}\d+$")
    return any(p.startswith(f"{path}.") for p in found) and sum(1 for other in modules if beside.match(other)) == 1


def _modules(name: str) -> list[str]:
    """The numbered modules around a node, outermost first: of "blocks/blocks.0/attn/MatMul", "blocks.0"."""
    path = ""
    for part in name.split("/")[:-1] if "/" in name else []:
        tail = path.rsplit(".", 1)[-1]
        if path and (part == path or part.startswith(f"{path}.")):
            path = part
        elif path and (part == tail or part.startswith(f"{tail}.")):
            path = path[: len(path) - len(tail)] + part
        else:
            path = f"{path}.{part}" if path else part
    words = path.split(".")
    paths = (".".join(words[: k + 1]) for k in range(len(words)))
    return [each for each in paths if _INDEXED.search(each)]


def _counted(nodes: Sequence[Node], narrow: frozenset[int]) -> dict[str, int]:
    """The blocks of a transformer by structure: sums that everything passes through, where attention follows again."""
    sums = [i for i in sorted(narrow) if len(nodes[i].inputs) > 1]
    attends = [i for i, node in enumerate(nodes) if isinstance(node.layer, Softmax)]
    found: dict[str, int] = {}
    begin = 0
    for at, end in enumerate(sums):
        following = sums[at + 1] if at + 1 < len(sums) else len(nodes)
        inside = any(begin <= i < end for i in attends)
        again = at + 1 == len(sums) or any(end < i < following for i in attends)
        if inside and again:
            found[f"blocks.{len(found)}"] = end
            begin = end
    return found


def coarse_block(
    nodes: Sequence[Node], shapes: Sequence[Shape], kinds: Sequence[Roles], pixels: Shape, found: dict[str, int]
) -> str | None:
    """The first block with a stride of 8 pixels or more between its tokens, or the largest there is.

    None for networks without tokens.
    """
    attentive = any(isinstance(node.layer, Softmax) for node in nodes)
    areas = {}  # pixels of the input for each place
    for name, i in sorted(found.items(), key=lambda item: item[1]):
        if "s" in kinds[i] and (attentive or len(shapes[i]) == 2):
            places = prod(n for n, role in zip(shapes[i], kinds[i], strict=True) if role == "s")
            areas[name] = pixels[1] * pixels[2] / places
    wanted = min(60.0, max(areas.values(), default=0.0))  # 8 x 8, and there may be a class token
    return next((name for name, area in areas.items() if area >= wanted), None)


@dataclass(frozen=True)
class Layout:
    """The blocks and tokens of one network.

    Attributes
    ----------
    blocks : mapping of str to int
        Names of blocks and their last nodes.
    mixers : mapping of int to int
        See `mixers`.
    outside : (int, int, int) or None
        See `class_tokens`.
    coarse : str or None
        The first block at the resolution of patches; None for networks without tokens.
    """

    blocks: Mapping[str, int]
    mixers: Mapping[int, int]
    outside: tuple[int, int, int] | None
    coarse: str | None

    @classmethod
    def of(cls, nodes: Sequence[Node], shapes: Sequence[Shape], pixels: Shape) -> Layout:
        """The layout of a network whose input has the shape `pixels`, (C, H, W)."""
        kinds, found = roles(nodes, shapes, pixels), blocks(nodes)
        low = coarse_block(nodes, shapes, kinds, pixels, found)
        return cls(found, mixers(nodes, shapes, kinds), class_tokens(nodes, kinds, shapes), low)

    def block(self, name: str) -> str | None:
        """The block of a name, or of the end of one if that is the only one."""
        if name in self.blocks:
            return name
        ends = [each for each in self.blocks if each.endswith(f".{name}")]
        return ends[0] if len(ends) == 1 else None

    def on_patches(self, r: Array) -> float:
        """The part of relevance (tokens, ...) that patches hold, by the amounts that the ledger would show."""
        if self.outside is None:
            return 1.0
        first, last, count = self.outside
        sums = r.reshape(len(r), -1).sum(axis=1, dtype=np.float64)
        held = sums[first : count - last].sum()
        size = abs(held) + abs(sums.sum() - held)
        return float(abs(held) / size) if size else 0.0
