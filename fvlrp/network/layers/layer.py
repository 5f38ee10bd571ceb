"""What every layer of a network owes, and what it gets in return.

For the files of this package: each holds the layers of one kind. Arrays have a leading axis, images of a batch in a
forward pass and targets in relevance, and then the shape of one image; layers know the latter alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ..rules import Choice

Shape: TypeAlias = tuple[int, ...]

BATCH = 1 << 26  # values of one activation for all targets of a pass; more targets take several passes


class Saved(NamedTuple):
    """What a forward pass leaves of a layer.

    Attributes
    ----------
    inputs : tuple of real (1, ...)
    y : real (1, ...)
        The output.
    """

    inputs: tuple[Array, ...]
    y: Array


@dataclass(frozen=True, eq=False)
class NetworkLayer:
    """A layer of a network: parameters, and its mapping in three forms (see `fvlrp.core.layer.Layer`).

    Subclasses are frozen dataclasses; fields that are arrays are parameters, all others options. They owe `apply`,
    `out_shape` unless it is that of the input, `relevance` and `flat`. A layer computes in the type of its inputs:
    float32, or float64 in exact mode.

    Attributes
    ----------
    role : {"linear", "sum", "affine", "pool", "none"}
        Which rules may name the layer: any; any but `Box`, and the same for a channelwise affine, which has an option
        of its own where it sees the pixels; `Flat` alone; or none, because relevance passes unchanged. The first
        "linear" layers behind the pixels are what rules call "first".
    elementwise : bool
        Whether each value of the output depends on the value in its place alone, and `apply` takes `out`, an array for
        the result that may be its input.
    """

    role: ClassVar[str] = "none"
    elementwise: ClassVar[bool] = False

    # Any: subclasses name their own inputs, one, two or a varying number; types can say that only so.
    def apply(self, *inputs: Any, **options: Any) -> Array:
        """The output (n, ...) of the inputs (n, ...)."""
        raise NotImplementedError

    def out_shape(self, *shapes: Any, **options: Any) -> Shape:
        """Shape of the output, from those of the inputs, without the leading axis. ValueError where they do not fit."""
        first: Shape = shapes[0]
        return first

    def forward(self, *inputs: Array) -> tuple[Array, Saved]:
        """The output, and what `relevance` and `flat` need to know of this pass."""
        y = self.apply(*inputs)
        return y, Saved(inputs, y)

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Relevance of each input, of the output's relevance `r` (targets, ...), by the rule that `choice` holds."""
        raise NotImplementedError

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Relevance of each input below the depth: spread over the receptive field."""
        raise NotImplementedError

    @cached_property
    def _casts(self) -> dict[tuple[str, np.dtype[Any]], Array]:
        return {}

    def cast(self, name: str, dtype: npt.DTypeLike) -> Array:
        """Parameter `name` in `dtype`, kept for the next time."""
        value: Array = getattr(self, name)
        if value.dtype == dtype:
            return value
        key = name, np.dtype(dtype)
        if key not in self._casts:
            self._casts[key] = value.astype(dtype)
        return self._casts[key]


class Unchanged(NetworkLayer):
    """A layer of one input through which relevance passes unchanged: activations, normalisations, shapes."""

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All of it, in the shape of the input."""
        return Passed([r.reshape(len(r), *saved.inputs[0].shape[1:])], Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """As above the depth: the receptive field is the input itself."""
        return self.relevance(r, saved, choice)
