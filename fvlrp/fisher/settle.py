"""Sums whose sign is uncertain in float32, recomputed in float64.

Shares are R / (S + epsilon sgn S): if S is within rounding error of 0, a wrong sign turns R / epsilon into
-R / epsilon. Hides which sums are in doubt and which descriptors contribute to them. docs/numerics.md §2 derives both
constants. For the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..runtime import threads
from ..runtime.types import Doubles
from .encoder import PIECE, PackedModels, Pooled

Indices: TypeAlias = npt.NDArray[np.int64]

DOUBT = 7.5e-7  # error of a float32 sum, in units of sqrt(sum gamma sum gamma z^2 / pi), which bounds sum |Psi|
SHOWS = 3e-6  # least size of a sum's terms at which a wrong sign matters, in units of epsilon times the number of sums


def in_doubt(pooled: Pooled, epsilon: Doubles) -> npt.NDArray[np.bool_]:
    """Which sums may have the wrong sign and matter if they have: bool (cells, 2, K, D).

    `epsilon` (cells,) is the stabiliser of each cell's sums.
    """
    doubtful = np.empty(pooled.sums.shape, bool)
    second, shows = np.sqrt(2 / pooled.priors)[:, None], np.square(SHOWS * pooled.sums.size * epsilon)
    for cell, sums in enumerate(pooled.sums):  # cell by cell: intermediate arrays stay in the L2 cache
        s0 = pooled.occupancy[cell][:, None]
        squares = sums[1] * second  # sum gamma z^2 / pi, about the sum of Psi^2 of either order
        squares += s0 / pooled.priors[:, None]
        limits = squares * (DOUBT**2 * s0)
        limits *= squares > shows[cell]
        np.less(np.square(sums), limits, out=doubtful[cell])
    return doubtful


def settled(pooled: Pooled, models: PackedModels, epsilon: Doubles, everything: Callable[[], Doubles]) -> Pooled:
    """`pooled` with its doubtful sums recomputed by the float64 form of `models`.

    `everything` returns all sums of a float64 pass. That is cheaper if doubtful sums have many descriptors, and the
    only way if posteriors were not kept.
    """
    doubtful = in_doubt(pooled, epsilon)
    if not doubtful.any():
        return pooled
    pairs = np.argwhere(doubtful.any(axis=(1, 3))).tolist()  # cells and components
    rows = [_rows_of(pooled, cell, component) for cell, component in pairs]
    if not pooled.pieces or 2 * sum(map(len, rows)) > len(pooled.values):
        return replace(pooled, sums=everything())
    exact, sums = models.of(np.float64), pooled.sums.copy()
    for (cell, component), members in zip(pairs, rows, strict=True):
        anew = _sums_of(pooled, exact, cell, component, members)
        sums[cell, :, component] = np.where(doubtful[cell, :, component], anew, sums[cell, :, component])
    return replace(pooled, sums=sums)


def _rows_of(pooled: Pooled, cell: int, component: int) -> Indices:
    """The non-zero descriptors of a pyramid cell that have a posterior of the component."""
    found = [np.empty(0, np.int64)]
    for finest, rows, encoded in pooled.pieces:
        if pooled.layout.member[finest, cell]:
            entries = np.flatnonzero(encoded.index == component)
            found.append(rows[np.searchsorted(encoded.indptr, entries, side="right") - 1])
    return np.concatenate(found)


def _sums_of(pooled: Pooled, exact: _kernels.Model, cell: int, component: int, rows: Indices) -> Doubles:
    """Sums of a component's Psi over descriptors `rows` and the zeroed ones of a pyramid cell: float64 (2, D)."""
    blank = np.zeros((1, pooled.values.shape[1]), pooled.values.dtype)
    zeroed = sum(len(rows) for finest, rows in enumerate(pooled.zeros) if pooled.layout.member[finest, cell])
    pieces = np.array_split(rows, -(-len(rows) // PIECE)) if len(rows) else []
    done = threads.run([partial(exact.encode, pooled.values, piece) for piece in pieces], pooled.n_jobs)
    parts = [(1, moments) for _, moments in done] + ([(zeroed, exact.encode(blank)[1])] if zeroed else [])
    s0, s1, s2 = (sum(times * moments[i][component] for times, moments in parts) for i in range(3))
    prior = pooled.priors[component]
    return np.stack([s1 / np.sqrt(prior), (s2 - s0) / np.sqrt(2 * prior)])
