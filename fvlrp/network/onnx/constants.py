"""Values that depend only on weights and shapes: computed when a layer needs them, within memory limits.

For `read`. Hides where a constant comes from: the file, operators in NumPy (`fold`), or layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .fold import FOLDERS
from .model import Call, Proto, Value, tensor

SPARE = 1 << 28  # most bytes of all constants, in addition to GROWTH times the bytes of the file's weights
GROWTH = 12  # int4 weights become float32, possibly with a transposed copy


class Constants:
    """Tensors whose values do not depend on the photograph.

    Parameters
    ----------
    initialisers : mapping of str to protocol buffers
    size : int
        Bytes of the file's weights; the memory for everything computed from them is limited in proportion.
    other : function of a Call and its inputs (None: left out), returning its outputs
        Computes the operators that are not in FOLDERS.
    """

    def __init__(
        self, initialisers: Mapping[str, Proto], size: int, other: Callable[[Call, list[Value | None]], list[Value]]
    ) -> None:
        self._stored: dict[str, Proto] = dict(initialisers)
        self._makers: dict[str, Call] = {}
        self._values: dict[str, Value] = {}
        self._left = SPARE + GROWTH * size
        self._other = other
        self.folded: list[str] = []  # names of nodes whose values were computed

    def __contains__(self, name: str) -> bool:
        return name in self._values or name in self._stored or name in self._makers

    def put(self, name: str, value: npt.ArrayLike) -> None:
        """A constant of that value."""
        self._values[name] = np.asarray(value)

    def store(self, initialisers: Mapping[str, Proto]) -> None:
        """Weights, those of a branch."""
        self._stored |= initialisers

    def define(self, call: Call) -> None:
        """Constants that the node computes from others, once somebody needs them."""
        self._makers |= {name: call for name in call.outputs if name}

    def value(self, name: str) -> Value:
        """The value of a constant."""
        waiting = [name]
        while waiting:
            latest = waiting[-1]
            if latest in self._values:
                waiting.pop()
            elif latest in self._stored:
                self._values[latest] = tensor(self._stored[latest])
            elif latest not in self._makers:
                raise ValueError(f"tensor {latest!r} comes from no node")
            else:
                call = self._makers[latest]
                missing = [source for source in call.inputs if source and source not in self._values]
                waiting += missing
                if not missing:
                    self._run(call)
        return self._values[name]

    def _run(self, call: Call) -> None:
        inputs = [self._values[source] if source else None for source in call.inputs]
        try:
            results = self._results(call, inputs)
        except Exception as error:  # whatever NumPy says to arrays that do not fit
            raise ValueError(f"{call.title}: its value cannot be computed from constants: {error}") from error
        for name, value in zip(call.outputs, results, strict=False):
            self._left -= value.nbytes
            if name:
                self._values[name] = value
        if self._left < 0:
            raise ValueError(f"{call.title}: constants take too much memory when they are computed")
        if any(name and name not in self._values for name in call.outputs):
            raise ValueError(f"{call.title} has {len(call.outputs)} outputs, {len(results)} can be computed")
        if call.op != "Constant":
            self.folded.append(call.name)

    def _results(self, call: Call, inputs: list[Value | None]) -> list[Value]:
        if call.domain or call.op not in FOLDERS:
            return self._other(call, inputs)
        result = FOLDERS[call.op](call, *inputs)
        return [np.asarray(each) for each in (result if isinstance(result, list | tuple) else [result])]
