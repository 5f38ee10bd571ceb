"""The account of an import: which nodes of a file were fused, folded or dropped, and what was assumed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...runtime.types import Json


@dataclass
class Account:
    """How the nodes of a file were converted.

    Attributes
    ----------
    fused : list of (str, list of str)
        A layer, as "name (kind)", and the nodes that were fused into it.
    folded : list of str
        Nodes whose values were computed from constants.
    dropped : list of (str, str)
        A node, as "name (operator)", and why it has no layer.
    notes : list of str
        What was assumed or chosen, such as outputs and sizes.
    """

    fused: list[tuple[str, list[str]]] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The account as text, one fact per line."""
        out = [f"note: {note}" for note in self.notes]
        out += [f"fused into {layer}: {', '.join(nodes)}" for layer, nodes in self.fused]
        if self.folded:
            out.append(f"folded {len(self.folded)} nodes that follow from constants: {_short(self.folded)}")
        reasons: dict[str, list[str]] = {}
        for node, why in self.dropped:
            reasons.setdefault(why, []).append(node)
        out += [f"dropped {_short(nodes)}: {why}" for why, nodes in reasons.items()]
        return out

    def to_dict(self) -> dict[str, Json]:
        """The account, ready for JSON."""
        return {
            "fused": [{"layer": layer, "nodes": nodes} for layer, nodes in self.fused],
            "folded": list(self.folded),
            "dropped": [{"node": node, "why": why} for node, why in self.dropped],
            "notes": list(self.notes),
        }


def _short(names: list[str], most: int = 6) -> str:
    """Some names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
