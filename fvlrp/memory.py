"""Arrays that pieces of work use one after the other; fresh pages would cost as much as the arithmetic."""

from __future__ import annotations

from math import prod

import numpy as np

from . import _kernels


class Memory:
    """Named arrays of one type, kept for the next piece."""

    def __init__(self, dtype):
        self.dtype, self._flat = np.dtype(dtype), {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Uninitialised memory of a shape, the same at each call with this name. It begins with a cache line."""
        size = prod(shape)
        if name not in self._flat or self._flat[name].size < size:
            self._flat[name] = _kernels.aligned((size,), self.dtype)
        return self._flat[name][:size].reshape(shape)
