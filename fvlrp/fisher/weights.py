"""The arrays of a model file: coef_ as float32 or as small integers, and checks of all arrays.

Hides how integers are packed. For `parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.arguments import check_choice
from ..runtime.types import Classes, Floats, Values

Arrays: TypeAlias = Mapping[str, Values]

LARGEST = 1e9  # in magnitude, of everything learned: products of three of them stay within float32
WEIGHTS = {"float32": None, "int8": 127, "int4": 7}  # formats of coef_ and their largest integers


def stored(coef: npt.NDArray[np.float32], weights: str, run: int) -> dict[str, Values]:
    """coef_ float32 (any, cells * 2 K D) as arrays of a file: itself, or integers with a scale for each run of values.

    Two "int4" values share a byte, the first in the lower half.
    """
    check_choice("weights", weights, tuple(WEIGHTS))
    top = WEIGHTS[weights]
    if top is None:
        return {"coef": coef}
    runs = coef.reshape(-1, run)
    scale = (np.abs(runs).max(axis=1) / top).astype(np.float32)
    whole = np.rint(runs / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8).ravel()
    if weights == "int4":
        if len(whole) % 2:
            whole = np.append(whole, np.int8(0))
        packed = ((whole[0::2] + 8) | ((whole[1::2] + 8) << 4)).astype(np.uint8)
        return {"coef": packed, "coef_scale": scale}
    return {"coef": whole, "coef_scale": scale}


def restored(arrays: Arrays, weights: str, shape: tuple[int, int], run: int) -> npt.NDArray[np.float32]:
    """The inverse of `stored`: coef_ float32 of `shape`.

    Raises
    ------
    ValueError
        Arrays of another type or number of values, or values that are not finite.
    """
    check_choice("weights", weights, tuple(WEIGHTS))
    count = shape[0] * shape[1]
    if weights == "float32":
        return checked("coef", arrays, shape, dtype=np.float32)
    scale = checked("coef_scale", arrays, (count // run,), dtype=np.float32)
    packed, (length, dtype) = arrays["coef"], {"int8": (count, np.int8), "int4": (-(-count // 2), np.uint8)}[weights]
    if packed.shape != (length,) or packed.dtype != dtype:
        raise ValueError(f"coef must be {np.dtype(dtype)} of shape ({length},), got {packed.dtype} {packed.shape}")
    if weights == "int4":
        whole = np.stack([(packed & 15).astype(np.int8) - 8, (packed >> 4).astype(np.int8) - 8], axis=1).ravel()[:count]
    else:
        whole = packed
    return np.ascontiguousarray((whole.reshape(-1, run) * scale[:, None]).astype(np.float32).reshape(shape))


def checked(
    name: str,
    arrays: Arrays,
    shape: tuple[int, ...],
    *,
    positive: bool = False,
    dtype: type[np.float32 | np.float64] = np.float64,
) -> Values:
    """The array `name` as `dtype`; ValueError unless it holds finite real numbers of `shape`, and > 0 if `positive`."""
    array = arrays[name]
    if array.dtype.kind != "f" or array.shape != shape:
        raise ValueError(f"{name} must be real numbers of shape {shape}, got {array.dtype} of shape {array.shape}")
    values: Floats = np.ascontiguousarray(array, dtype)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    if values.size and (largest := max(float(values.max()), -float(values.min()))) > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST:g} in magnitude, or float32 overflows; got {largest:g}")
    if positive and not (values > 0).all():
        raise ValueError(f"{name} must be positive, got {values.min():g}")
    return values


def checked_classes(classes: Values) -> Classes:
    """The names of the classes (n,); ValueError unless there is at least one and all differ."""
    if classes.ndim != 1 or not len(classes):
        raise ValueError(f"classes must be a list of names, got an array of shape {classes.shape}")
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ValueError("classes holds values that are NaN or infinite")
    names, counts = np.unique(classes, return_counts=True)
    if len(names) != len(classes):
        raise ValueError(f"classes must be different names, got {names[counts > 1].tolist()[0]!r} more than once")
    return classes
