"""The one idea as a type: what every layer of both stacks owes.

A classifier is a stack or a graph of layers. A forward pass leaves what each layer saved; an explanation walks the
layers backwards. Down to the depth the walk calls `Layer.relevance`, below it `Layer.flat`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from .ledger import Entries

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Saved = TypeVar("Saved")
Rule = TypeVar("Rule", contravariant=True)


class Passed(NamedTuple):
    """What a layer makes of the relevance of its output.

    Attributes
    ----------
    inputs : list of real (targets, ...)
        Relevance of each input, in the order of `Layer.forward`'s arguments.
    entries : Entries
        What stays behind: ``r.sum() = sum of inputs + sum of entries`` for every target.
    """

    inputs: list[Array]
    entries: Entries


@runtime_checkable
class Layer(Protocol[Saved, Rule]):
    """A mapping with its three forms: forward, exact relevance and flat relevance.

    Relevance has one row per target, ``(targets, ...)``, in the shape of the layer's output. The computation runs in
    the type of the arrays: float32, or float64 in exact mode, where each `Passed` adds up to 1e-9.
    """

    def forward(self, *inputs: Any) -> tuple[Any, Saved]:
        """The output, and what `relevance` and `flat` need to know of this pass."""

    def relevance(self, r: Array, saved: Saved, rule: Rule) -> Passed:
        """Relevance of the inputs by the layer's rule: what exact decomposition means here."""

    def flat(self, r: Array, saved: Saved, rule: Rule) -> Passed:
        """Relevance of the inputs below the depth: spread over the receptive field, whatever the activations were."""
