"""The Fisher vector's pooling over a pyramid, and the way back through it: descriptors to sums, shares to descriptors.

Forward, every descriptor is encoded once, into the finest pyramid cell it lies in; sums of finest cells give the
pyramid's. Backward, the coefficient tables of the pyramid cells that a finest cell belongs to are merged before the
loop over descriptors. Descriptors zeroed by the contrast threshold are all alike: one stands for all of a cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain

import numpy as np

from .. import _kernels
from ..core.trace import EXACT
from ..runtime import threads
from ..runtime.memory import Memory, empty
from .geometry import BINS, Geometry, axis_cell
from .rules import FisherRules
from .sift import Descriptors

PYRAMID = ((2, 2), (3, 1), (1, 1))  # (rows, columns) of each level; 8 cells, the preset's order
PIECE = 4096  # descriptors in one task; more where a cell would have more than PIECES: each costs a sum of its own
PIECES = 16
KEEP = 1 << 18  # descriptors up to which projections are kept; of more, the way back makes them again, the same bits

# Sums that are computed again in double: see Fisher.settled.
DOUBT = 5e-6  # of sqrt(sum g z^2 / pi), for either order: what few sums in float are off by
WIDE = 20  # times the sum g that a sum g z^2 hardly exceeds
BELONGS = 0.001  # posteriors from which on terms are mended first: what the others are off by is a small part
DOUBTFUL = 512  # descriptors of one task


@dataclass(frozen=True)
class Layout:
    """Finest pyramid cells of one image size: the combinations of cells that descriptors belong to.

    Attributes
    ----------
    member : uint8 (finest cells, cells)
        Which pyramid cells each finest cell lies in.
    rows : tuple of int64 arrays
        Descriptors of each finest cell, ascending.
    """

    member: np.ndarray
    rows: tuple[np.ndarray, ...]


@lru_cache(maxsize=4)
def layout_of(geometry: Geometry, pyramid: tuple[tuple[int, int], ...]) -> Layout:
    """The layout of a geometry; kept, since photographs come in few sizes."""
    # Each axis decides by itself which cell of every level a frame lies in: finest cells are the products of the
    # combinations on either axis, and no array of all descriptors is sorted.
    combinations, strips = zip(*(_strips(geometry, pyramid, axis) for axis in (0, 1)), strict=True)
    member = np.zeros(
        (len(combinations[0]), len(combinations[1]), sum(rows * cols for rows, cols in pyramid)), np.uint8
    )
    offset = 0
    for level, (rows, cols) in enumerate(pyramid):
        cells = offset + combinations[0][:, None, level] + rows * combinations[1][None, :, level]
        np.put_along_axis(member, cells[..., None], 1, axis=2)
        offset += rows * cols
    rows = []
    for cell in np.ndindex(member.shape[:2]):
        parts = [
            (scale.start + np.flatnonzero(y == cell[0])[:, None] * scale.cols + np.flatnonzero(x == cell[1])).ravel()
            for scale, y, x in zip(geometry.scales, *strips, strict=True)
        ]
        rows.append(np.concatenate(parts))
    return Layout(member.reshape(len(rows), -1), tuple(rows))


def _strips(geometry: Geometry, pyramid, axis: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Combinations of the levels' cells along an axis, int64 (strips, levels); per scale, the strip of every frame."""
    length = (geometry.height, geometry.width)[axis]
    frames = [scale.centres(axis) for scale in geometry.scales]
    cells = np.stack([axis_cell(np.concatenate(frames), level[axis], length) for level in pyramid], axis=1)
    combinations, strip = np.unique(cells, axis=0, return_inverse=True)
    return combinations, np.split(strip.reshape(-1), np.cumsum([len(f) for f in frames[:-1]]))


@dataclass(frozen=True)
class Pooled:
    """What the forward pass of `Fisher` saves: enough to recompute every Psi, and nothing of their size.

    Attributes
    ----------
    descriptors : Descriptors
    layout : Layout
    pieces : tuple of (finest cell, int64 rows, Encoded)
        Non-zero descriptors by finest cell.
    zeros : tuple of int64 arrays
        Rows of zeroed descriptors of each finest cell.
    zero : Encoded
        The one encoding of a zeroed descriptor.
    sums : float64 (cells, 2, K, D)
        S: un-normalised sums of Psi over each pyramid cell, first order then second.
    occupancy : float64 (cells, K)
        Sums of posteriors over each pyramid cell.
    counts : int64 (cells,)
        Descriptors in each pyramid cell.
    """

    descriptors: Descriptors
    layout: Layout
    pieces: tuple
    zeros: tuple[np.ndarray, ...]
    zero: object
    sums: np.ndarray
    occupancy: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class DescriptorRelevance:
    """Relevance of every descriptor, for several targets; only what was asked for is there.

    Attributes
    ----------
    total : float64 (targets, n) or None
    pca : real (targets, n, D) or None
    bins : real (targets, n, 4, 4) or None
    sift : real (targets, n, 128) or None
    absorbed, mean, zero_desc : float64 (targets,)
        What the projection's stabiliser, its mean and zeroed descriptors keep from the spatial bins.
    """

    total: np.ndarray | None
    pca: np.ndarray | None
    bins: np.ndarray | None
    sift: np.ndarray | None
    absorbed: np.ndarray
    mean: np.ndarray
    zero_desc: np.ndarray


def _pieces(rows: np.ndarray) -> list[np.ndarray]:
    """Rows of one cell for one task each: cut by their number alone, so that no number of threads changes a bit."""
    count = min(-(-len(rows) // PIECE), PIECES)
    return np.array_split(rows, count) if count else []


def _encode_sparingly(model, values: np.ndarray, rows: np.ndarray) -> tuple:
    """What `model.encode` returns, without the projections and in arrays no longer than their entries."""
    encoded, sums = model.encode(values, rows)
    return _kernels.Encoded(None, encoded.indptr, encoded.index.copy(), encoded.gamma.copy()), sums


def _between(pieces, begin: int, end: int) -> list[tuple]:
    """Pieces cut to the descriptors begin .. end - 1, their rows counted from `begin`."""
    cut = []
    for cell, rows, encoded in pieces:
        first, last = np.searchsorted(rows, (begin, end))
        if first == last:
            continue
        indptr = encoded.indptr[first : last + 1]
        entries = slice(indptr[0], indptr[-1])
        y = None if encoded.y is None else encoded.y[first:last]
        one = _kernels.Encoded(y, indptr - indptr[0], encoded.index[entries], encoded.gamma[entries])
        cut.append((cell, rows[first:last] - begin, one))
    return cut


def _put_rows(out: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """Row values[t, 0] of each target t into the rows `rows` of out[t]."""
    out[:, rows] = values


class Fisher:
    """Descriptors -> un-normalised Fisher sums per pyramid cell (Eqs. 3-4), and relevance back (Eqs. 5-6, Eq. 1).

    Parameters
    ----------
    components, mean : float64 (D, 128), (128,)
        The projection y = (x - mean) components^T.
    weights, means, covariances : float64 (K,), (K, D), (K, D)
        The mixture.
    gate : float
        Posteriors below it count as 0, forward and backward alike.
    pyramid : sequence of (rows, columns)
    """

    name = "fisher"

    def __init__(self, components, mean, weights, means, covariances, gate=1e-6, pyramid=PYRAMID):
        self.components, self.mean = np.asarray(components, np.float64), np.asarray(mean, np.float64)
        self.weights, self.means, self.covariances = (np.asarray(a, np.float64) for a in (weights, means, covariances))
        self.gate, self.pyramid = gate, tuple(map(tuple, pyramid))
        self._packed: dict = {}

    @property
    def n_cells(self) -> int:
        return sum(rows * cols for rows, cols in self.pyramid)

    def __getstate__(self):
        return {**self.__dict__, "_packed": {}}

    def packed(self, dtype) -> tuple:
        """(model, Encoded of a zero descriptor, its sums) for a real type and the instruction set in use; kept."""
        key = (np.dtype(dtype), _kernels.isa())
        if key not in self._packed:
            model = _kernels.Model(
                self.components, self.mean, self.weights, self.means, self.covariances, self.gate, dtype
            )
            zero = np.zeros((1, self.components.shape[1]), np.uint8)
            self._packed[key] = (model, *model.encode(zero))
        return self._packed[key]

    def forward(
        self, descriptors: Descriptors, dtype=np.float32, n_jobs=None, keep: bool = True
    ) -> tuple[np.ndarray, Pooled | None]:
        """Sums S float64 (cells, 2, K, D) of Psi over each pyramid cell, and what the way back needs.

        Where that is not to be kept (None), one piece after another writes into the same memory, which stays in cache.
        """
        model, zero, zero_sums = self.packed(dtype)
        layout = layout_of(descriptors.geometry, self.pyramid)
        pieces, zeroed = [], []
        for cell, rows in enumerate(layout.rows):
            zero_rows = descriptors.zeroed[rows]
            zeroed.append(rows[zero_rows])
            pieces += [(cell, piece) for piece in _pieces(rows[~zero_rows])]
        lengths = [len(rows) for _, rows in pieces]
        if not keep and threads.count(n_jobs) == 1:
            (widest,) = model.room([max(lengths, default=0)])
            room = [(widest[0][:n], *widest[1:]) for n in lengths]
        else:
            room = model.room(lengths) if len(descriptors) <= KEEP else None
        if room:
            tasks = [
                partial(model.encode, descriptors.values, rows, place)
                for (_, rows), place in zip(pieces, room, strict=True)
            ]
        else:
            tasks = [partial(_encode_sparingly, model, descriptors.values, rows) for _, rows in pieces]
        done = threads.run(tasks, n_jobs)
        parts = [(cell, 1, part) for (cell, _), (_, part) in zip(pieces, done, strict=True)]
        parts += [(cell, len(rows), zero_sums) for cell, rows in enumerate(zeroed) if len(rows)]
        sums, occupancy = _kernels.merge(parts, layout.member, self.weights, self.means.shape[1])
        if not keep:
            return sums, None
        counts = layout.member.T.astype(np.int64) @ np.array([len(rows) for rows in layout.rows], np.int64)
        encoded = tuple((cell, rows, one) for (cell, rows), (one, _) in zip(pieces, done, strict=True))
        return sums, Pooled(descriptors, layout, encoded, tuple(zeroed), zero, sums, occupancy, counts)

    def settled(self, saved: Pooled, epsilon: np.ndarray, exact: Callable[[], np.ndarray], n_jobs=None) -> Pooled:
        """The same, but for sums whose sign a float cannot tell, where epsilon sgn S jumps: they are mended in double.

        One photograph in four has such a sum of terms that come to more than the stabilisers `epsilon` (cells,); with
        its sign wrong, heatmaps were off by up to .2 %. Smaller terms hardly show. Where there are too many, all sums
        are those that `exact` returns: float64 (cells, 2, K, D) of a pass in double.
        """
        dtype = saved.zero.y.dtype
        by = np.stack([1 / np.sqrt(self.weights), 1 / np.sqrt(2 * self.weights)])
        s0 = saved.occupancy
        # What comes near 0 by a sum g z^2 of WIDE times the sum g is looked at closely.
        matters = by[0] * np.sqrt(WIDE) * s0 > epsilon[:, None]
        limits = np.where(matters, DOUBT * by[0] * np.sqrt(WIDE * s0), 0)
        near = np.flatnonzero(np.abs(saved.sums) < limits[:, None, :, None])
        cells, blocks, components, dims = np.unravel_index(near, saved.sums.shape)
        s2 = np.maximum(saved.sums[cells, 1, components, dims] / by[1, components] + s0[cells, components], 0)
        sizes = by[0, components] * np.sqrt(s2)
        doubtful = np.abs(saved.sums.ravel()[near]) < DOUBT * sizes
        doubtful &= np.sqrt(s0[cells, components]) * sizes > epsilon[cells]
        if not doubtful.any():
            return saved
        sums, left = saved.sums.copy(), len(saved.descriptors) // 2

        # First what the largest terms are off by is taken back; where that is not enough, all terms are computed anew.
        for least in (BELONGS, 0):
            pairs, which = np.unique(np.stack([cells, components], axis=1)[doubtful], axis=0, return_inverse=True)
            rows = [self._belonging(saved, *pair, least) for pair in pairs]
            left -= sum(map(len, chain(*rows)))
            if left < 0:
                return replace(saved, sums=exact())
            for at, (pair, pieces) in enumerate(zip(pairs, rows, strict=True)):
                terms = self._terms(saved, *pair, pieces, EXACT, n_jobs)
                rough = self._terms(saved, *pair, pieces, dtype, n_jobs) if least else None
                for i in np.flatnonzero(doubtful)[which.ravel() == at]:
                    place, term = (cells[i], blocks[i], components[i], dims[i]), (blocks[i], dims[i])
                    sums[place] = terms[term] if rough is None else sums[place] + (terms[term] - rough[term])
            doubtful &= np.abs(sums.ravel()[near]) < DOUBT / 10 * sizes
            if not doubtful.any():
                break
        return replace(saved, sums=sums)

    def _belonging(self, saved: Pooled, cell: int, component: int, least: float) -> list[np.ndarray]:
        """Non-zero descriptors of a pyramid cell whose posterior of a component is not gated and at least `least`."""
        rows = []
        for finest, piece, encoded in saved.pieces:
            if saved.layout.member[finest, cell]:
                entries = np.flatnonzero((encoded.index == component) & (encoded.gamma >= least))
                rows.append(piece[np.searchsorted(encoded.indptr, entries, side="right") - 1])
        return rows

    def _terms(self, saved: Pooled, cell: int, component: int, pieces: list[np.ndarray], dtype, n_jobs) -> np.ndarray:
        """Sums of Psi of a component, float64 (2, D), over these descriptors and the zeroed ones of a pyramid cell."""
        model, _, zero_sums = self.packed(dtype)
        parts = [part for rows in pieces if len(rows) for part in np.array_split(rows, -(-len(rows) // DOUBTFUL))]
        done = threads.run([partial(model.encode, saved.descriptors.values, part) for part in parts], n_jobs)
        zeroed = sum(len(rows) for finest, rows in enumerate(saved.zeros) if saved.layout.member[finest, cell])
        found = [(1, moments) for _, moments in done] + [(zeroed, zero_sums)]
        s0, s1, s2 = (sum(times * moments[i][component] for times, moments in found) for i in range(3))
        return np.stack([s1 / np.sqrt(self.weights[component]), (s2 - s0) / np.sqrt(2 * self.weights[component])])

    def spread(self, saved: Pooled) -> np.ndarray:
        """Upper bounds of sum |Psi|, the shape of the sums: what small |S| are told from rounding by."""
        by_u = 1 / np.sqrt(self.weights)[:, None]
        s0 = saved.occupancy[..., None]
        s2 = saved.sums[:, 1] * (np.sqrt(2) / by_u) + s0
        # Cauchy-Schwarz: (sum g |z|)^2 <= sum g * sum g z^2.
        return np.stack([np.sqrt(s0 * np.maximum(s2, 0)) * by_u, (s2 + s0) * (by_u / np.sqrt(2))], axis=1)

    def tables(self, shares: np.ndarray, saved: Pooled, n_jobs=None, memory: Memory | None = None) -> np.ndarray:
        """Shares R / (S +- epsilon) float64 (targets, cells, 2, K, D) as one table for each finest cell and target.

        They lie in `memory`, of the walk's type, where that is given.
        """
        dtype = saved.zero.y.dtype
        model, _, _ = self.packed(dtype)
        cells = len(saved.layout.rows)
        memory = memory or Memory(dtype)
        tables = memory.take("tables", cells, len(shares), model.components, 3, model.stride)
        tasks = [
            partial(model.tables, share, saved.layout.member[cell], table)
            for cell in range(cells)
            if len(saved.layout.rows[cell])
            for share, table in zip(shares, tables[cell], strict=True)
        ]
        threads.run(tasks, n_jobs)
        return tables

    def relevance(
        self,
        tables: np.ndarray,
        saved: Pooled,
        rules: FisherRules,
        want: frozenset[str],
        n_jobs=None,
        part=None,
        memory: Memory | None = None,
    ) -> DescriptorRelevance:
        """Relevance of descriptors through `tables` (see there).

        `want` names what is computed: "total", "pca", "bin", "sift". `part` (begin, end) asks for these
        descriptors only; results but the totals lie in `memory`, of the walk's type, where that is given.
        """
        dtype = saved.zero.y.dtype
        model, zero, _ = self.packed(dtype)
        begin, end = part or (0, len(saved.descriptors))
        x = saved.descriptors.values[begin:end]
        targets, n = tables.shape[1], end - begin
        mean, passes = self.mean_treatment(rules), self.passes_zeroed(rules)
        through = bool(want & {"bin", "sift"})
        widths = {"pca": model.dims, "bin": BINS * BINS, "sift": x.shape[1]}
        memory = memory or Memory(dtype)
        # Every row is written below, by a piece or as one of the zeroed descriptors.
        total = empty((targets, n), np.float64) if "total" in want else None
        out = {name: memory.take(name, targets, n, width) for name, width in widths.items() if name in want}

        def piece(cell, rows, encoded):
            absorbed, past = np.zeros(targets), np.zeros(targets)
            model.relevance(
                x,
                rows,
                encoded,
                tables[cell],
                rules.epsilon_pca,
                mean,
                total,
                out.get("pca"),
                out.get("bin"),
                out.get("sift"),
                absorbed if through else None,
                past if through else None,
            )
            return absorbed, past

        pieces = saved.pieces if part is None else _between(saved.pieces, begin, end)
        tasks: list = [partial(piece, *p) for p in pieces]
        absorbed, past, dropped = np.zeros(targets), np.zeros(targets), np.zeros(targets)
        drops = not passes and rules.zero_desc == "drop"
        blank = np.zeros((1, x.shape[1]), np.uint8)
        for cell, rows in enumerate(saved.zeros):
            rows = rows[slice(*np.searchsorted(rows, (begin, end)))] - begin
            if not len(rows):
                continue
            one = {"total": np.zeros((targets, 1)), "absorbed": np.zeros(targets) if through and passes else None}
            own = {name: np.zeros((targets, 1, widths[name]), dtype) for name in out if name == "pca" or passes}
            one |= {{"bin": "bins"}.get(name, name): values for name, values in own.items()}
            model.relevance(blank, None, zero, tables[cell], rules.epsilon_pca, mean, **one)
            if through and passes:
                absorbed += len(rows) * one["absorbed"]
            if through and drops:
                dropped += len(rows) * one["total"][:, 0]
            if total is not None:
                tasks.append(partial(_put_rows, total, rows, one["total"]))
            for name, values in out.items():
                if name not in own:
                    own[name] = np.zeros((targets, 1, widths[name]), dtype)
                    own[name] += 0 if drops else one["total"][:, :, None] / widths[name]
                tasks.append(partial(_put_rows, values, rows, own[name]))
        done = threads.run(tasks, n_jobs)
        for part_absorbed, part_past in done[: len(pieces)]:  # in order: the same bits for any number of threads
            absorbed += part_absorbed
            past += part_past
        bins = out["bin"].reshape(targets, n, BINS, BINS) if "bin" in out else None
        return DescriptorRelevance(total, out.get("pca"), bins, out.get("sift"), absorbed, past, dropped)

    def passes_zeroed(self, rules: FisherRules) -> bool:
        """Whether a zeroed descriptor has values to share relevance by: only where the mean was subtracted from it."""
        return self.mean_treatment(rules) == "centered" and bool(self.mean.any())

    def mean_treatment(self, rules: FisherRules) -> str:
        """The rule's treatment of the mean, with "auto" resolved for this projection."""
        if rules.mean != "auto":
            return rules.mean
        return "centered" if self.mean.any() else "none"
