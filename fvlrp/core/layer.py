"""The layer protocol: the methods that every layer of both stacks implements.

A classifier is a stack or a graph of layers. In a forward pass each layer saves what it will need; an explanation walks
the layers backwards. The walk calls `Layer.relevance` down to the depth, and `Layer.flat` below it. For both stacks.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from ..runtime.types import Floats
from .ledger import Entries

Array: TypeAlias = Floats
# What layers of one kind alone know: pixels, descriptors, arrays.
Own: TypeAlias = Any  # type: ignore[explicit-any]  # every layer has parameters and results of its own
Saved = TypeVar("Saved")
Rule = TypeVar("Rule", contravariant=True)


class Passed(NamedTuple):
    """The relevance of a layer's inputs, and what the layer keeps.

    Attributes
    ----------
    inputs : list of real (targets, ...)
        Relevance of each input, in the order of `Layer.forward`'s arguments.
    entries : Entries
        What the layer keeps: ``r.sum() = sum of inputs + sum of entries`` for every target.
    """

    inputs: list[Array]
    entries: Entries


@runtime_checkable
class Layer(Protocol[Saved, Rule]):
    """A mapping in three forms: forward, exact relevance and flat relevance.

    Relevance has one row per target, ``(targets, ...)``, in the shape of the layer's output. Layers compute in the type
    of the arrays: float32, or float64 in exact mode, where each `Passed` conserves relevance to 1e-9.
    """

    def forward(self, *inputs: Own) -> tuple[Own, Saved]:
        """The output, and what `relevance` and `flat` need from this pass."""

    def relevance(self, r: Array, saved: Saved, rule: Rule) -> Passed:
        """Relevance of the inputs by `rule`: the exact decomposition."""

    def flat(self, r: Array, saved: Saved, rule: Rule) -> Passed:
        """Relevance of the inputs below the depth: spread over the receptive field, independent of the activations."""
