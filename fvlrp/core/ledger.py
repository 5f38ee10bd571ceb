"""Where relevance goes: what single layers keep (`Entries`), and the balance of an explanation (`Ledger`).

For `core` and both stacks. Deals in numbers and names only; it does not depend on layers or rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Amount: TypeAlias = "npt.NDArray[np.float64] | float"  # one value per target, or one for all

# What each entry of a ledger means, for its readers. Both stacks use these names and no others.
MEANINGS = {
    "score": "the score that is explained",
    "heatmap": "what arrived at the pixels; the map sums to this and class_token",
    "rounding": "float32 rounding error",
    "bias": "the share of biases, which no input accounts for",
    "absorbed": "what the stabiliser epsilon absorbed",
    "absorbed_pool": "what epsilon absorbed where descriptors are pooled",
    "absorbed_pca": "what epsilon absorbed in the projection",
    "zero_sum": "relevance of sums that are exactly 0, which nothing accounts for",
    "empty_cell": "relevance of pyramid cells without descriptors or pixels",
    "mean": "the share of the projection's mean",
    "zero_desc": "relevance of areas without texture, whose descriptors are zero",
    "zero_bin": "relevance of bins without any gradient",
    "clipped": "what fell outside the image",
    "padding": "what fell on the border that the network adds",
    "constants": "the share of constants inside the network, such as position embeddings",
    "class_token": "relevance of class tokens, which have no position: spread evenly over the map, part of its sum",
    "softmax": "what the rule of the softmax in attention does not conserve",
    "flat": "the difference that the Caffe toolbox's flat rule makes",
}


class Entries(dict[str, Amount]):
    """What a layer keeps, by kind: float64 (targets,), each computed from its own formula."""

    def add(self, kind: str, amount: Amount) -> None:
        """Add `amount` to the entry `kind`."""
        self[kind] = self.get(kind, 0.0) + amount

    def include(self, other: Mapping[str, Amount]) -> None:
        """Add all entries of `other`."""
        for kind, amount in other.items():
            self.add(kind, amount)

    def of(self, target: int) -> dict[str, float]:
        """The entries of one target."""
        return {kind: float(np.ravel(amount)[target if np.ndim(amount) else 0]) for kind, amount in self.items()}


class Ledger(Mapping[str, float]):
    """Where every unit of relevance went: ``score = sum of all other entries``.

    "score" is what was put in, "heatmap" what arrived at the pixels. The sum of the map, ``ex.heatmap.sum()``, is
    "heatmap", except for vision transformers with class tokens: their relevance at the depth has no position, is
    spread evenly over the map and has an entry of its own, so that the map sums to "heatmap" + "class_token". The
    other entries are signed amounts that layers kept (`meaning` explains each). Each is computed from its own formula,
    never as the remainder of a balance, with one exception: in fast mode (float32), "rounding" is the remainder. Exact
    mode has no such entry.

    Parameters
    ----------
    entries : mapping of str to float
        With "score" and "heatmap".
    exact : bool
        Whether everything was computed in float64.

    Examples
    --------
    >>> from skimage import data
    >>> ledger = fvlrp.load("voc20").explain(data.chelsea(), "cat").ledger
    >>> kept = sum(amount for name, amount in ledger.items() if name not in ("score", "heatmap"))
    >>> bool(np.isclose(ledger["heatmap"] + kept, ledger["score"]))
    True
    """

    def __init__(self, entries: Mapping[str, float], exact: bool) -> None:
        self.exact = exact
        self._entries = {name: float(amount) for name, amount in entries.items()}
        if not exact:
            heatmap = self._entries.pop("heatmap")
            self._entries.pop("rounding", None)
            kept = sum(amount for name, amount in self._entries.items() if name != "score")
            self._entries["rounding"] = self._entries["score"] - heatmap - kept
            self._entries["heatmap"] = heatmap

    def __getitem__(self, name: str) -> float:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> float:
        """Sum of the absolute amounts: the tolerance of `closes` is relative to it."""
        return sum(map(abs, self._entries.values()))

    @property
    def residual(self) -> float:
        """What the entries do not explain, rounding error included: score - heatmap - all other entries."""
        return self["score"] - sum(
            amount for name, amount in self._entries.items() if name not in ("score", "rounding")
        )

    def closes(self, rtol: float = 1e-9) -> bool:
        """Whether |residual| is at most `rtol` times `size`; in float32, `rtol` is at least 1e-5."""
        return abs(self.residual) <= (rtol if self.exact else max(rtol, 1e-5)) * self.size

    @staticmethod
    def meaning(name: str) -> str:
        """What an entry means, in words."""
        return MEANINGS.get(name, name)

    def to_dict(self) -> dict[str, float]:
        """The entries as a plain dictionary, ready for JSON."""
        return dict(self._entries)

    def __str__(self) -> str:
        width = max(map(len, self._entries))
        return "\n".join(f"{name:<{width}}  {amount:+.6g}" for name, amount in self._entries.items())

    def __repr__(self) -> str:
        return f"Ledger({', '.join(f'{name}={amount:.6g}' for name, amount in self._entries.items())})"
