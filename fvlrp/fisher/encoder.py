"""Fisher encoding, Eqs. 3-4: descriptors to sums over a spatial pyramid, and the public `FisherEncoder`.

Hides how the sums are computed. Every descriptor is encoded once, into the finest pyramid cell that contains it; the
sums of all levels are sums over finest cells. Descriptors below the contrast threshold are all zero, so only one is
encoded. Rows are encoded in pieces whose number depends only on the image, so that results are bit-identical for any
number of threads. For the modules of this wing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..core.estimator import Transformer, check_fitted
from ..runtime import threads
from ..runtime.arguments import is_real, is_whole
from ..runtime.types import Doubles, Floats, Precision, Untyped
from .geometry import Geometry, Pyramid, axis_cell, cell_count
from .gmm import BLOCK, GATE, check_magnitude
from .sift import Described, Descriptors

Indices: TypeAlias = npt.NDArray[np.int64]
Room: TypeAlias = tuple[Floats, npt.NDArray[np.uint16], Floats]  # memory for y, indices and posteriors
Moments: TypeAlias = tuple[Doubles, Doubles, Doubles]  # sums of gamma (K,), gamma z (K, D), gamma z^2 (K, D)

PYRAMID: Pyramid = ((2, 2), (3, 1), (1, 1))  # (rows, columns) of each level: 8 cells, in the preset's order
PIECE = 4096  # descriptors in one task: docs/numerics.md §7
PIECES = 16  # most tasks of one finest cell: each has its own sums, 0.3 MB with the preset
TINY = 1e-12  # a float64 sum below TINY times the size of its terms is rounding error: docs/numerics.md §3
KEEP = 1 << 18  # most descriptors whose projections are kept (84 MB); otherwise they are recomputed


# ---- the pyramid -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Finest pyramid cells of one image size: the combinations of cells that descriptors belong to.

    Attributes
    ----------
    member : uint8 (finest cells, cells)
        1 for the pyramid cells that each finest cell lies in.
    rows : tuple of int64 arrays
        Descriptors of each finest cell, ascending.
    """

    member: npt.NDArray[np.uint8]
    rows: tuple[Indices, ...]

    @cached_property
    def counts(self) -> Indices:
        """Descriptors in each pyramid cell: int64 (cells,)."""
        return self.member.T.astype(np.int64) @ np.array([len(rows) for rows in self.rows], np.int64)


@lru_cache(maxsize=4)
def layout_of(geometry: Geometry, pyramid: Pyramid) -> Layout:
    """The layout of a geometry; cached, since photographs come in few sizes."""
    # The cells of a frame follow from each axis separately: finest cells are products of the combinations along y and
    # x, and no array of all descriptors has to be sorted.
    combinations, strips = zip(*(_strips(geometry, pyramid, axis) for axis in (0, 1)), strict=True)
    member = np.zeros((len(combinations[0]), len(combinations[1]), cell_count(pyramid)), np.uint8)
    offset = 0
    for level, (rows, cols) in enumerate(pyramid):
        of_level = offset + combinations[0][:, None, level] + rows * combinations[1][None, :, level]
        np.put_along_axis(member, of_level[..., None], 1, axis=2)
        offset += rows * cols
    finest = []
    for cell in np.ndindex(member.shape[:2]):
        parts = [
            (scale.start + np.flatnonzero(y == cell[0])[:, None] * scale.cols + np.flatnonzero(x == cell[1])).ravel()
            for scale, y, x in zip(geometry.scales, *strips, strict=True)
        ]
        finest.append(np.concatenate(parts))
    return Layout(member.reshape(len(finest), -1), tuple(finest))


def _strips(geometry: Geometry, pyramid: Pyramid, axis: int) -> tuple[Indices, list[Indices]]:
    """Combinations of the levels' cells along an axis, int64 (strips, levels); per scale, the strip of every frame."""
    length = (geometry.height, geometry.width)[axis]
    frames = [scale.centres(axis) for scale in geometry.scales]
    cells = np.stack([axis_cell(np.concatenate(frames), level[axis], length) for level in pyramid], axis=1)
    combinations, strip = np.unique(cells, axis=0, return_inverse=True)
    return combinations, np.split(strip.reshape(-1), np.cumsum([len(f) for f in frames[:-1]]))


# ---- sums over the pyramid -------------------------------------------------------------------------------------------


class PackedModels:
    """Kernel models of one projection and mixture, packed on first use for a dtype and an instruction set.

    The parameters are those of `_kernels.Model` without the dtype. Packed models are not pickled.
    """

    def __init__(
        self,
        basis: Doubles | None,
        mean: Doubles | None,
        priors: Doubles | None = None,
        means: Doubles | None = None,
        variances: Doubles | None = None,
        gate: float = 0.0,
    ) -> None:
        self._parameters = basis, mean, priors, means, variances, gate
        self._packed: dict[tuple[str, str], _kernels.Model] = {}

    def of(self, dtype: npt.DTypeLike) -> _kernels.Model:
        """The model for float32 or float64 arithmetic."""
        key = np.dtype(dtype).char, _kernels.isa()
        if key not in self._packed:
            self._packed[key] = _kernels.Model(*self._parameters, dtype)
        return self._packed[key]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": {}}


@dataclass(frozen=True)
class Pooled:
    """What pooling saves: enough to recompute every Psi, without storing any.

    Attributes
    ----------
    model : Model
        The packed model that `values` were encoded with.
    values : (n, inputs)
        The input: descriptors for a model with a projection; nothing (inputs = 0) for a mixture alone.
    geometry : Geometry
    layout : Layout
    pieces : tuple of (finest cell, int64 rows, Encoded)
        Non-zero descriptors by finest cell.
    zeros : tuple of int64 arrays
        Rows of the zero descriptors of each finest cell.
    zero : (Encoded, moments), or None
        The encoding of a zero descriptor; None if there are none.
    sums : float64 (cells, 2, K, D)
        S: un-normalised sums of Psi over each pyramid cell, first order, then second.
    occupancy : float64 (cells, K)
        Sums of posteriors over each pyramid cell.
    priors : float64 (K,)
    counts : int64 (cells,)
        Descriptors in each pyramid cell.
    n_jobs : int or None
    some : bool
        Whether pieces and zeros leave out descriptors, whose relevance is then 0; see `only`.
    """

    model: _kernels.Model
    values: Described
    geometry: Geometry
    layout: Layout
    pieces: tuple[tuple[int, Indices, _kernels.Encoded], ...]
    zeros: tuple[Indices, ...]
    zero: tuple[_kernels.Encoded, Moments] | None
    sums: Doubles
    occupancy: Doubles
    priors: Doubles
    counts: Indices
    n_jobs: int | None
    some: bool = False

    def only(self, chosen: npt.NDArray[np.bool_]) -> Pooled:
        """A copy through which relevance reaches only the descriptors `chosen` (n,)."""
        pieces = []
        for cell, rows, encoded in self.pieces:
            mask = chosen[rows]
            if not mask.any():
                continue
            sizes = np.diff(encoded.indptr)
            entries, indptr = np.repeat(mask, sizes), np.concatenate([[0], np.cumsum(sizes[mask])])
            y = None if encoded.y is None else encoded.y[mask]
            one = _kernels.Encoded(
                y, indptr.astype(encoded.indptr.dtype), encoded.index[entries], encoded.gamma[entries]
            )
            pieces.append((cell, rows[mask], one))
        zeros = tuple(rows[chosen[rows]] for rows in self.zeros)
        return replace(self, pieces=tuple(pieces), zeros=zeros, some=True)

    @property
    def dtype(self) -> Precision:
        """float32 or float64: the type of the arithmetic."""
        return np.dtype(self.model.dtype)

    def magnitudes(self) -> Doubles:
        """Upper bounds of sum |Psi|, in the shape of the sums (docs/numerics.md §2)."""
        s0, by = self.occupancy[..., None], 1 / np.sqrt(self.priors)[:, None]
        s2 = self.sums[:, 1] * (np.sqrt(2) / by) + s0  # sum gamma z^2
        s2[s2 <= TINY * s0] = 0  # the rounding error of z = 0
        return np.stack([np.sqrt(s0 * s2) * by, (s2 + s0) * (by / np.sqrt(2))], axis=1)


def pool(
    model: _kernels.Model,
    descriptors: Descriptors,
    values: Described,
    pyramid: Pyramid,
    priors: Doubles,
    encode: Callable[[list[Indices]], list[tuple[_kernels.Encoded, Moments]]],
    n_jobs: int | None,
    keep: bool = True,
) -> Pooled:
    """Sums of Psi over the pyramid; `encode` maps lists of rows to their posteriors and moments.

    With ``keep=False`` pieces may share memory for their posteriors, and `Pooled.pieces` is empty.
    """
    layout = layout_of(descriptors.geometry, pyramid)
    pieces, zeros = [], []
    for cell, rows in enumerate(layout.rows):
        zeroed = descriptors.zeroed[rows]
        zeros.append(rows[zeroed])
        pieces += [(cell, piece) for piece in _pieces(rows[~zeroed])]
    done = encode([rows for _, rows in pieces])
    first = next((rows[:1] for rows in zeros if len(rows)), None)
    zero = None if first is None else encode([first])[0]
    parts = [(cell, 1, moments) for (cell, _), (_, moments) in zip(pieces, done, strict=True)]
    if zero is not None:
        parts += [(cell, len(rows), zero[1]) for cell, rows in enumerate(zeros) if len(rows)]
    sums, occupancy = _kernels.merge(parts, layout.member, priors, model.dims)
    kept = tuple((cell, rows, one) for (cell, rows), (one, _) in zip(pieces, done, strict=True)) if keep else ()
    return Pooled(
        *(model, values, descriptors.geometry, layout, kept, tuple(zeros), zero),
        *(sums, occupancy, priors, layout.counts, n_jobs),
    )


def total(geometry: Geometry, parts: Iterable[Pooled]) -> Pooled:
    """Sums over the strips of an image. Posteriors are not kept: relevance recomputes them strip by strip."""
    parts = iter(parts)
    first = next(parts)
    sums, occupancy, counts = first.sums, first.occupancy, first.counts
    for part in parts:
        sums, occupancy, counts = sums + part.sums, occupancy + part.occupancy, counts + part.counts
    return Pooled(
        *(first.model, first.values[:0], geometry, Layout(first.layout.member[:0], ()), (), (), None),
        *(sums, occupancy, first.priors, counts, first.n_jobs),
    )


def _pieces(rows: Indices) -> list[Indices]:
    """Rows of one cell in pieces, one for each task. They depend only on the number of rows, not on that of threads."""
    count = min(-(-len(rows) // PIECE), PIECES)
    return np.array_split(rows, count) if count else []


def encode_fused(
    model: _kernels.Model, values: Described, keep: bool, n_jobs: int | None, pieces: list[Indices]
) -> list[tuple[_kernels.Encoded, Moments]]:
    """Posteriors and moments of lists of rows, by one kernel that projects, assigns and pools tile by tile."""
    lengths = [len(rows) for rows in pieces]
    room: list[Room] | None
    if not keep and threads.count(n_jobs) == 1:  # all pieces in the same memory, which stays in cache
        (widest,) = model.room([max(lengths, default=0)])
        room = [(widest[0][:n], *widest[1:]) for n in lengths]
    else:
        room = model.room(lengths) if len(values) <= KEEP else None
    if room:
        places = zip(pieces, room, strict=True)
        return threads.run([partial(model.encode, values, rows, place) for rows, place in places], n_jobs)
    return threads.run([partial(_encode_sparingly, model, values, rows) for rows in pieces], n_jobs)


def _encode_sparingly(model: _kernels.Model, values: Described, rows: Indices) -> tuple[_kernels.Encoded, Moments]:
    """The result of `model.encode` without projections and in arrays of minimal size."""
    encoded, moments = model.encode(values, rows)
    return _kernels.Encoded(None, encoded.indptr, encoded.index.copy(), encoded.gamma.copy()), moments


def encode_projected(
    model: _kernels.Model, y: Described, n_jobs: int | None, pieces: list[Indices]
) -> list[tuple[_kernels.Encoded, Moments]]:
    """The same for rows real (n, D) that are already projected, by a model without a projection."""

    def one(rows: Indices) -> tuple[_kernels.Encoded, Moments]:
        encoded, _ = model.posteriors(model.pad(y[rows]))
        return encoded, model.pool(encoded)

    return threads.run([partial(one, rows) for rows in pieces], n_jobs)


# ---- lists of descriptors --------------------------------------------------------------------------------------------


class FisherEncoder(Transformer):
    """Fisher vectors of lists of descriptors: un-normalised sums of Eqs. 3-4 over each list.

    Parameters
    ----------
    gmm : DiagonalGMM, or anything with weights_, means_ and diagonal covariances_
        A fitted mixture is used unchanged, and `transform` needs no `fit`. An unfitted mixture is cloned, and `fit`
        learns it from rows of all lists.
    gate : float, default 1e-6
        Posteriors below it count as 0.
    n_samples : int, default 500000
        Number of rows from which an unfitted mixture is learned: an equal, random share of each list. More rows cost
        time without improving the mixture.
    random_state : int, RandomState or None
        Seed of that choice.
    n_jobs : int or None
        Threads, as in scikit-learn. Results do not depend on it.

    Attributes
    ----------
    gmm_ : the mixture in use, after `fit`

    Examples
    --------
    >>> lists = [np.random.default_rng(i).normal(size=(100 + i, 8)) for i in range(3)]
    >>> encoder = fvlrp.FisherEncoder(fvlrp.DiagonalGMM(4, random_state=0)).fit(lists)
    >>> encoder.transform(lists).shape
    (3, 64)
    """

    def __init__(
        self,
        gmm: Untyped,
        *,
        gate: float = GATE,
        n_samples: int = 500_000,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.gmm = gmm
        self.gate = gate
        self.n_samples = n_samples
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Iterable[npt.ArrayLike] | None = None, y: object = None) -> FisherEncoder:
        """Learn the mixture from the lists of descriptors X, unless it is fitted already; `y` is ignored."""
        if hasattr(self.gmm, "weights_"):
            self.gmm_ = self.gmm
            return self
        if X is None:
            check_fitted(self.gmm, "weights_")
        assert X is not None  # or that has raised
        from sklearn.base import clone
        from sklearn.utils import check_random_state

        if not (is_whole(self.n_samples) and self.n_samples >= 1):
            raise ValueError(f"n_samples must be a whole number of at least 1, got {self.n_samples!r}")
        lists, random = list(_lists(X)), check_random_state(self.random_state)
        share = max(1, self.n_samples // max(1, len(lists)))
        rows = [_some(_rows(i, x), share, random) for i, x in enumerate(lists)]
        self.gmm_ = clone(self.gmm).fit(np.concatenate(rows))
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "gmm_") or hasattr(self.gmm, "weights_")

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Names of the columns of `transform`: u_k_d (first order), then v_k_d (second order), counted from 0."""
        components, dims = np.shape(self._mixture().means_)
        names = [f"{order}_{k}_{d}" for order in "uv" for k in range(components) for d in range(dims)]
        return np.array(names, object)

    def _mixture(self) -> Untyped:
        gmm = self.gmm if hasattr(self.gmm, "weights_") else getattr(self, "gmm_", self.gmm)
        check_fitted(gmm, "weights_")
        return gmm

    def transform(self, X: Iterable[npt.ArrayLike]) -> Untyped:
        """Sums float64 (m, 2 K D) of m arrays of descriptors (n_i, D), laid out [u_1..u_K, v_1..v_K], each of length D.

        An empty list gives a vector of zeros. float32 and uint8 arrays are encoded in float32, with sums in float64.
        After `set_output` the result is a table of pandas or polars.

        Raises
        ------
        ValueError
            A list that is not (n, D) or not finite, a mixture that is not diagonal, or a `gate` outside [0, 1).
        """
        gmm = self._mixture()
        weights, means, covariances = (np.asarray(a, np.float64) for a in (gmm.weights_, gmm.means_, gmm.covariances_))
        if covariances.shape != means.shape:
            raise ValueError(
                f"gmm.covariances_ must be diagonal, of shape {means.shape}, got {covariances.shape}: "
                "fit the mixture with covariance_type='diag'"
            )
        if not (is_real(self.gate) and 0 <= self.gate < 1):
            raise ValueError(f"gate must be a number in [0, 1), got {self.gate!r}")
        lists = [_rows(i, x, means.shape[1]) for i, x in enumerate(_lists(X))]
        for i, x in enumerate(lists):
            check_magnitude(x, covariances, f"X[{i}]")
        models = PackedModels(None, None, weights, means, covariances, self.gate)
        packed = {dtype: models.of(dtype) for dtype in {x.dtype for x in lists}}
        tasks = [partial(_fisher_vector, packed[x.dtype], x, weights) for x in lists]
        sums = np.array(threads.run(tasks, self.n_jobs)).reshape(len(lists), 2 * means.size)
        return self._put_out(sums, X)


def _fisher_vector(model: _kernels.Model, x: Floats, priors: Doubles) -> Doubles:
    """Eqs. 3-4 summed over rows x real (n, D): float64 (2 K D,)."""
    s0, s1, s2 = np.zeros(model.components), *np.zeros((2, model.components, model.dims))
    for at in range(0, len(x), BLOCK):
        encoded, _ = model.posteriors(model.pad(x[at : at + BLOCK]))
        for total, part in zip((s0, s1, s2), model.pool(encoded), strict=True):
            total += part
    first, second = 1 / np.sqrt(priors)[:, None], 1 / np.sqrt(2 * priors)[:, None]
    return np.concatenate([(s1 * first).ravel(), ((s2 - s0[:, None]) * second).ravel()])


def _some(x: Floats, count: int, random: np.random.RandomState) -> Floats:
    """At most `count` of the rows x, in order."""
    return x if len(x) <= count else x[np.sort(random.choice(len(x), count, replace=False))]


def _lists(X: Iterable[npt.ArrayLike]) -> Iterable[npt.ArrayLike]:
    if isinstance(X, np.ndarray) and X.ndim == 2:
        raise ValueError(f"X must be a list of (n, D) arrays, one per image, got one array of shape {X.shape}: [X]?")
    return X


def _rows(i: int, x: npt.ArrayLike, dims: int | None = None) -> Floats:
    """Descriptors as real (n, D), in the precision in which they are encoded."""
    given = np.asarray(x)
    real = np.float32 if given.dtype in (np.float32, np.uint8) else np.float64
    rows: Floats = np.ascontiguousarray(given, real)
    if rows.ndim != 2 or dims not in (None, rows.shape[1]):
        wanted = "(n, D)" if dims is None else f"(n, {dims}), as the mixture has"
        raise ValueError(f"X[{i}] must have shape {wanted}, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"X[{i}] holds NaN or infinity")
    return rows
