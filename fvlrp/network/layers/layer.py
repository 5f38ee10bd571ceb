"""The base class of all layers of a network, and what layers save in a forward pass.

For the other modules of this package. Arrays have a leading axis (images of a batch in a forward pass, targets in
relevance) followed by the shape for one image; layers work with the latter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...core.layer import Array, Own, Passed
from ...core.ledger import Entries
from ..rules import Choice

Shape: TypeAlias = tuple[int, ...]

BATCH = 1 << 26  # values of one activation for all targets of a pass; more targets take several passes


class Saved(NamedTuple):
    """What a layer saves in a forward pass.

    Attributes
    ----------
    inputs : tuple of real (1, ...)
    y : real (1, ...)
        The output.
    """

    inputs: tuple[Array, ...]
    y: Array


@dataclass(frozen=True, eq=False)
class NetworkLayer(ABC):
    """A layer of a network: parameters, and a mapping in three forms (see `fvlrp.core.layer.Layer`).

    Subclasses are frozen dataclasses; fields that are arrays are parameters, all others options. They implement
    `apply`, `relevance`, `flat`, and `out_shape` unless the output has the shape of the input. A layer computes in the
    dtype of its inputs: float32, or float64 in exact mode.

    Attributes
    ----------
    role : {"linear", "sum", "affine", "pool", "none"}
        Which rules the layer can have. "linear": any; "sum" and "affine": any but `Box` (an affine that sees the pixels
        has the option `input_affine`); "pool": only `Flat`; "none": no rule, since relevance passes unchanged. The
        "linear" layers closest to the pixels are called "first" in rules.
    elementwise : bool
        Whether each value of the output depends only on the input at the same position, and `apply` accepts `out`, an
        array for the result that may be the input.
    """

    role: ClassVar[str] = "none"
    elementwise: ClassVar[bool] = False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the largest output of a layer that only clips its input."""
        return None

    # Subclasses have one, two or any number of inputs, which no other signature can express.
    @abstractmethod
    def apply(self, *inputs: Own, **options: Own) -> Array:
        """The output (n, ...) of the inputs (n, ...)."""

    def out_shape(self, *shapes: Own, **options: Own) -> Shape:
        """Shape of the output, from those of the inputs, without the leading axis. ValueError if they do not fit."""
        first: Shape = shapes[0]
        return first

    def forward(self, *inputs: Array) -> tuple[Array, Saved]:
        """The output, and what `relevance` and `flat` need from this pass."""
        y = self.apply(*inputs)
        return y, Saved(inputs, y)

    @abstractmethod
    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Relevance of each input, of the output's relevance `r` (targets, ...), by the rule that `choice` holds."""

    @abstractmethod
    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Relevance of each input below the depth: spread over the receptive field."""

    @cached_property
    def _casts(self) -> dict[tuple[str, object], Array]:
        return {}

    def cast(self, name: str, dtype: npt.DTypeLike) -> Array:
        """Parameter `name` in `dtype`; the conversion is cached."""
        value: Array = getattr(self, name)
        if value.dtype == dtype:
            return value
        key = name, np.dtype(dtype)
        if key not in self._casts:
            self._casts[key] = value.astype(dtype)
        return self._casts[key]


class Unchanged(NetworkLayer):
    """A layer with one input through which relevance passes unchanged, such as an activation."""

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All of it, in the shape of the input."""
        return Passed([r.reshape(len(r), *saved.inputs[0].shape[1:])], Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """The same as above the depth: the receptive field of a value is that value."""
        return self.relevance(r, saved, choice)
