"""How a model file holds coef_: as float32, or as small integers with one scale for each run of values."""

from __future__ import annotations

import numpy as np

WEIGHTS = {"float32": None, "int8": 127, "int4": 7}  # largest integer of each way to store coef_


def stored(coef: np.ndarray, weights: str, run: int) -> dict[str, np.ndarray]:
    """Arrays that hold coef_ float32 (any, cells * 2 K D): itself, or its integers and the scale of each run of values.

    Two values of "int4" share a byte, the first in its lower half.
    """
    top = WEIGHTS[weights]
    if top is None:
        return {"coef": coef}
    runs = coef.reshape(-1, run)
    scale = (np.abs(runs).max(axis=1) / top).astype(np.float32)
    whole = np.rint(runs / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8).ravel()
    if weights == "int4":
        if len(whole) % 2:
            whole = np.append(whole, np.int8(0))
        whole = ((whole[0::2] + 8) | ((whole[1::2] + 8) << 4)).astype(np.uint8)
    return {"coef": whole, "coef_scale": scale}


def restored(arrays: dict, weights: str, shape: tuple[int, int], run: int) -> np.ndarray:
    """The inverse of `stored`, float32 of the shape that coef_ had; ValueError where it has not as many values."""
    if weights == "float32":
        coef = arrays["coef"]
    else:
        whole, scale = arrays["coef"], arrays["coef_scale"]
        if weights == "int4":
            whole = np.stack([(whole & 15).astype(np.int8) - 8, (whole >> 4).astype(np.int8) - 8], axis=1).ravel()
            whole = whole[: shape[0] * shape[1]]
        coef = (whole.reshape(-1, run) * scale[:, None]).astype(np.float32)
    return np.ascontiguousarray(coef.reshape(shape))
