"""Types that every wing shares. Those that stay open are here too, each with the reason.

Imports no module of the package. For every ring above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

# What JSON holds, as it is written.
Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

Span: TypeAlias = "slice[int]"  # from start to stop
Window: TypeAlias = "tuple[slice[int], slice[int]]"  # rows and columns

# The element type of an array that the kernels fill.
Element = TypeVar("Element", bound="np.float32 | np.float64 | np.int64 | np.int32 | np.uint16 | np.uint8 | np.bool")

Singles: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.float32 | np.float64]  # float32, or float64 in exact mode
Precision: TypeAlias = np.dtype[np.float32 | np.float64]  # float32: fast, float64: exact
Pixels: TypeAlias = npt.NDArray[np.uint8 | np.float32]  # 0..255, or in [0, 1]

Classes: TypeAlias = npt.NDArray[np.str_ | np.int64 | np.float64 | np.bool]  # names, numbers or bools (n_classes,)

# NumPy declares no operators for arrays of any type: these stay open.
Values: TypeAlias = npt.NDArray[Any]  # type: ignore[explicit-any]  # a file's or a caller's, before it is checked

# An object of a package without types: scikit-learn's, joblib's, threadpoolctl's, dask's, pydicom's, protobuf's.
Untyped: TypeAlias = Any  # type: ignore[explicit-any]  # nothing is known of it

# A value of a document that was parsed. Whoever reads it checks it.
Parsed: TypeAlias = Any  # type: ignore[explicit-any]  # what json.loads and the like return
