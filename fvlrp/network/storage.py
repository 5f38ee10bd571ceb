"""Nodes as parts of a model file and back. For `fvlrp.network.network`.

Hides how a layer is stored: its arrays by name, all other fields as options in the file's header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeAlias

import numpy as np

from ..runtime.arguments import check_choice
from ..runtime.types import Json, Parsed, Values
from .graph import KINDS, Node
from .layers import Constant, NetworkLayer

Arrays: TypeAlias = dict[str, Values]


def entries_of(nodes: Sequence[Node]) -> list[dict[str, Json]]:
    """One entry for each node, ready for JSON: name, kind, inputs, options."""
    return [
        {"name": node.name, "kind": node.kind, "inputs": list(node.inputs), "options": _options(node.layer)}
        for node in nodes
    ]


def arrays_of(nodes: Sequence[Node]) -> Arrays:
    """Parameters of all nodes, named "<node's index>.<field>"."""
    return {f"{i}.{name}": value for i, node in enumerate(nodes) for name, value in parameters(node.layer).items()}


def nodes_of(entries: Sequence[Mapping[str, Parsed]], arrays: Mapping[str, Values]) -> list[Node]:
    """The nodes that `entries_of` and `arrays_of` describe.

    Raises
    ------
    ValueError
        The kind of an entry is unknown. Damaged entries may also raise LookupError, TypeError or AttributeError.
    """
    nodes = []
    for i, entry in enumerate(entries):
        check_choice("kind of layer", entry["kind"], tuple(KINDS))
        kind = KINDS[entry["kind"]]
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in entry["options"].items()}
        stored = {f.name: arrays[f"{i}.{f.name}"] for f in fields(kind) if f"{i}.{f.name}" in arrays}
        nodes.append(Node(entry["name"], entry["kind"], kind(**stored, **options), tuple(entry["inputs"])))
    return nodes


def parameters(layer: NetworkLayer) -> Arrays:
    """The fields of a layer that are arrays."""
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def check_weights(nodes: Sequence[Node]) -> None:
    """ValueError for a parameter that is NaN, or infinite in a layer other than a mask."""
    for node in nodes:
        for name, values in parameters(node.layer).items():
            if values.dtype.kind != "f":
                continue
            bad = np.isnan(values) if isinstance(node.layer, Constant) else ~np.isfinite(values)
            if bad.any():
                raise ValueError(
                    f"layer {node.name!r} ({node.kind}): its {name} holds {np.count_nonzero(bad)} values that are "
                    "NaN or infinite"
                )


def _options(layer: NetworkLayer) -> dict[str, Json]:
    """The fields of a layer that are not arrays."""
    stored = parameters(layer)
    return {field.name: getattr(layer, field.name) for field in fields(layer) if field.name not in stored}
