"""Eqs. 5-6 and Eq. 1: relevance of the pyramid's sums back to descriptors, and through the PCA to their values.

Eqs. 5-6 give a descriptor, per dimension, R_i = sum over k of Psi_k,i R_k,i / (S_k,i + epsilon sgn S_k,i), added over
the pyramid cells that the descriptor lies in. `shares` is the quotient R / (S + epsilon sgn S); `tables` folds it and
Psi into one polynomial in y per component and dimension; `back` evaluates the polynomials for every descriptor and,
through the projection, Eq. 1. The kernels are in csrc/fisher/vector.inc.c (`shares`) and csrc/fisher/relevance.inc.c.
tests/test_kernels.py checks both equations, with the sign of each epsilon. Hides how rows are cut into pieces, zero
descriptors, and buffers. For the layers of this wing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..core.ledger import Entries
from ..runtime import threads
from ..runtime.memory import Memory, empty
from ..runtime.types import Doubles, Floats
from .encoder import Pooled
from .geometry import BINS, Part
from .rules import FisherRules, Treatment


def shares(r: Doubles, pooled: Pooled, rules: FisherRules, out: Doubles | None = None) -> tuple[Doubles, Entries]:
    """R / (S + epsilon sgn S) of every sum, the weight of each Psi in Eqs. 5-6, and the entries of the ledger.

    Parameters
    ----------
    r : float64 (targets, cells, 2, K, D)
        Relevance of the sums.
    out : the same, optional
        Where the shares go; may be `r` itself.

    Returns
    -------
    shares : float64, the shape of r
    entries : Entries
        "absorbed_pool", R epsilon / (abs(S) + epsilon); "empty_cell", relevance of cells without descriptors;
        "zero_sum", relevance of sums that are 0 in other cells.
    """
    cells, counts = len(pooled.sums), pooled.counts
    sums, epsilon = pooled.sums.reshape(cells, -1), rules.stabilisers(pooled.sums, counts)
    # Without a stabiliser, a sum within rounding error of 0 counts as 0: dividing by it would amplify noise.
    bounds = None if rules.epsilon_pool else pooled.magnitudes().reshape(cells, -1)
    out = empty(r.shape, np.float64) if out is None else out

    def one(of: Doubles, to: Doubles) -> tuple[float, float, float]:
        _, left = _kernels.shares(of.reshape(cells, -1), sums, counts, epsilon, bounds, to.reshape(cells, -1))
        return left

    left = threads.run([partial(one, *pair) for pair in zip(r, out, strict=True)], pooled.n_jobs)
    kinds = ("absorbed_pool", "empty_cell", "zero_sum")
    return out, Entries(zip(kinds, np.array(left).reshape(-1, 3).T.copy(), strict=True))


def tables(given: Doubles, pooled: Pooled, memory: Memory) -> Floats:
    """Shares (targets, cells, 2, K, D) as polynomials in y: real (finest cells, targets, K, 3, stride).

    The table of a finest cell adds up the shares of the pyramid cells that contain it. The result lies in `memory`.
    """
    model, layout = pooled.model, pooled.layout
    out = memory.take("tables", len(layout.rows), len(given), model.components, 3, model.stride)
    tasks = [
        partial(model.tables, share, layout.member[cell], table)
        for cell, rows in enumerate(layout.rows)
        if len(rows)
        for share, table in zip(given, out[cell], strict=True)
    ]
    threads.run(tasks, pooled.n_jobs)
    return out


@dataclass(frozen=True)
class Projection:
    """How relevance is propagated back through the projection.

    Attributes
    ----------
    epsilon : float
        Stabiliser of Eq. 1.
    treatment : {"none", "centered", "bias"}
        Of the projection's mean.
    shares_zeroed : bool
        Whether zero descriptors have values by which to share relevance.
    uniform : bool
        If they have none: whether their relevance is spread evenly; otherwise it is dropped.
    """

    epsilon: float
    treatment: Treatment
    shares_zeroed: bool
    uniform: bool

    @classmethod
    def of(cls, rules: FisherRules, mean: Doubles) -> Projection:
        """The choices of `rules` for a projection with `mean` (128,)."""
        uniform = rules.zero_desc == "uniform"
        return cls(rules.epsilon_pca, rules.treatment(mean), rules.shares_zeroed(mean), uniform)


@dataclass(frozen=True)
class DescriptorRelevance:
    """Relevance of descriptors for several targets; None for what was not requested.

    Attributes
    ----------
    total : float64 (targets, n) or None
        Per descriptor.
    pca : real (targets, n, D) or None
        Per projected dimension.
    bins : real (targets, n, 16) or None
        Per spatial bin.
    sift : real (targets, n, 128) or None
        Per descriptor value.
    entries : Entries
        What the projection keeps from bins and values: "absorbed_pca", "zero_desc" and, where the mean absorbs,
        "mean".
    """

    total: Doubles | None
    pca: Floats | None
    bins: Floats | None
    sift: Floats | None
    entries: Entries


def back(
    table: Floats,
    pooled: Pooled,
    wanted: Collection[str],
    memory: Memory,
    projection: Projection | None = None,
    part: Part | None = None,
) -> DescriptorRelevance:
    """Relevance of descriptors through `table` (see `tables`), and through the projection if one is given.

    Parameters
    ----------
    wanted : collection of "total", "pca", "bins", "sift"
        The last two need a projection.
    memory : Memory
        Of the dtype of the pass. Holds all results but the totals.
    part : Part, optional
        Only these scales.
    """
    model = pooled.model
    begin, end = (part.begin, part.end) if part else (0, len(pooled.values))
    x, targets, n = pooled.values[begin:end], table.shape[1], end - begin
    widths = {"pca": model.dims, "bins": BINS * BINS, "sift": x.shape[1]}
    # Every row is written below, in a piece or as a zero descriptor, unless some were left out.
    total = empty((targets, n), np.float64) if "total" in wanted else None
    out = {name: memory.take(name, targets, n, width) for name, width in widths.items() if name in wanted}
    if pooled.some:
        for rows_of_all in (*([] if total is None else [total]), *out.values()):
            rows_of_all.fill(0)
    through = projection if projection and ("bins" in out or "sift" in out) else None
    epsilon, treatment = (through.epsilon, through.treatment) if through else (0.0, "none")
    values = out.get("pca"), out.get("bins"), out.get("sift")

    def piece(cell: int, rows: npt.NDArray[np.int64], encoded: _kernels.Encoded) -> tuple[Doubles, Doubles]:
        absorbed, by_mean = np.zeros(targets), np.zeros(targets)
        ledger = (absorbed, by_mean) if through else (None, None)
        model.relevance(x, rows, encoded, table[cell], epsilon, treatment, total, *values, *ledger)
        return absorbed, by_mean

    pieces = _between(pooled, begin, end) if part else pooled.pieces
    done = threads.run([partial(piece, *p) for p in pieces], pooled.n_jobs)
    absorbed, by_mean, dropped = np.zeros(targets), np.zeros(targets), np.zeros(targets)
    for piece_absorbed, piece_mean in done:  # in order: the same bits for any number of threads
        absorbed += piece_absorbed
        by_mean += piece_mean

    for cell, rows in enumerate(pooled.zeros):
        rows = rows[slice(*np.searchsorted(rows, (begin, end)))] - begin
        if not len(rows):
            continue
        one = _zeroed(table[cell], pooled, through, {name: values.shape[2] for name, values in out.items()})
        absorbed += len(rows) * one.entries["absorbed_pca"]
        dropped += len(rows) * one.entries["zero_desc"]
        if total is not None:
            total[:, rows] = one.total
        for name, of_all in out.items():
            _repeat(getattr(one, name), rows, of_all)

    entries = Entries()
    if through:
        entries |= {"absorbed_pca": absorbed, "zero_desc": dropped}
        if through.treatment == "bias":
            entries["mean"] = by_mean
    return DescriptorRelevance(total, *values, entries)


def _repeat(row: Floats, rows: npt.NDArray[np.int64], values: Floats) -> None:
    """``values[:, rows] = row``, for row (targets, 1, width), in half of NumPy's time: a row is copied as one item."""
    item = np.dtype((np.void, values.itemsize * values.shape[2]))
    for one, of_all in zip(row.view(item)[..., 0], values.view(item)[..., 0], strict=True):
        of_all[rows] = one


def _zeroed(table: Floats, pooled: Pooled, through: Projection | None, widths: dict[str, int]) -> DescriptorRelevance:
    """Relevance of one zero descriptor of a finest cell, as from `back`; `widths` are those of the result's arrays."""
    model, targets = pooled.model, table.shape[0]
    assert pooled.zero is not None
    encoded, _ = pooled.zero
    shares_own = through is not None and through.shares_zeroed
    total, absorbed = np.zeros((targets, 1)), np.zeros(targets)
    own = {
        name: np.zeros((targets, 1, width), pooled.dtype)
        for name, width in widths.items()
        if name == "pca" or shares_own
    }
    blank = np.zeros((1, pooled.values.shape[1]), pooled.values.dtype)
    epsilon, treatment = (through.epsilon, through.treatment) if through else (0.0, "none")
    values = own.get("pca"), own.get("bins"), own.get("sift")
    model.relevance(blank, None, encoded, table, epsilon, treatment, total, *values, absorbed if shares_own else None)
    dropped = np.zeros(targets)
    if through and not shares_own:
        if not through.uniform:
            dropped = total[:, 0]
        for name, width in widths.items():
            if name not in own:
                own[name] = np.zeros((targets, 1, width), pooled.dtype)
                own[name] += total[:, :, None] / width if through.uniform else 0
    return DescriptorRelevance(
        total,
        own.get("pca"),
        own.get("bins"),
        own.get("sift"),
        Entries(absorbed_pca=absorbed, zero_desc=dropped),
    )


def _between(pooled: Pooled, begin: int, end: int) -> list[tuple[int, npt.NDArray[np.int64], _kernels.Encoded]]:
    """Pieces restricted to descriptors begin .. end - 1, with rows counted from `begin`."""
    cut = []
    for cell, rows, encoded in pooled.pieces:
        first, last = np.searchsorted(rows, (begin, end))
        if first == last:
            continue
        indptr = encoded.indptr[first : last + 1]
        entries = slice(indptr[0], indptr[-1])
        y = None if encoded.y is None else encoded.y[first:last]
        one = _kernels.Encoded(y, indptr - indptr[0], encoded.index[entries], encoded.gamma[entries])
        cut.append((cell, rows[first:last] - begin, one))
    return cut
