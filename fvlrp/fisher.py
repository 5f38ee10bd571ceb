"""The Fisher vector's own layers: pooling over a pyramid, normalisation, linear scores, and the way back to pixels.

Forward, every descriptor is encoded once, into the finest pyramid cell it lies in; sums of finest cells give the
pyramid's. Backward, the coefficient tables of the pyramid cells that a finest cell belongs to are merged before the
loop over descriptors. Descriptors zeroed by the contrast threshold are all alike: one stands for all of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from . import _kernels, images, threads
from .geometry import BINS, Geometry, axis_cell, box
from .rules import FisherRules
from .sift import DenseSIFT, Descriptors
from .stack import EXACT, Explanation, Ledger, Relevances, Trace, precision

DEPTHS = ("vector", "descriptor", "bin", "gradient")  # coarse to fine
PYRAMID = ((2, 2), (3, 1), (1, 1))  # (rows, columns) of each level; 8 cells, the preset's order
TOGETHER = 4  # targets at depth "gradient" in one pass: each holds 128 values a descriptor
STEADY = 10.0  # stabilisers from which float denominators do; at 100 heatmaps agree with double to 3e-5
PIECE = 16384  # descriptors in one task: fixed, so that results do not depend on the number of threads


# ---- pooling: project -> assign -> sums, Eqs. 3-4 --------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Finest pyramid cells of one image size: the combinations of cells that descriptors belong to.

    Attributes
    ----------
    finest : int64 (n,)
        Finest cell of every descriptor.
    member : uint8 (finest cells, cells)
        Which pyramid cells each finest cell lies in.
    rows : tuple of int64 arrays
        Descriptors of each finest cell, ascending.
    """

    finest: np.ndarray
    member: np.ndarray
    rows: tuple[np.ndarray, ...]


@lru_cache(maxsize=16)
def layout_of(geometry: Geometry, pyramid: tuple[tuple[int, int], ...]) -> Layout:
    """The layout of a geometry; kept, since photographs come in few sizes."""
    n_cells = sum(rows * cols for rows, cols in pyramid)
    combinations, finest = np.empty((1, 0), np.int64), np.zeros(geometry.n, np.int64)
    # Level by level, combinations so far and the next level's cell as one number: sorting rows of cells takes ten times
    # as long, which a training set of many sizes would pay over and over.
    for column in geometry.cells(pyramid).T:
        pairs, finest = np.unique(finest * n_cells + column, return_inverse=True)
        combinations = np.column_stack([combinations[pairs // n_cells], pairs % n_cells])
    member = np.zeros((len(combinations), n_cells), np.uint8)
    member[np.arange(len(combinations))[:, None], combinations] = 1
    order = np.argsort(finest, kind="stable")
    rows = np.split(order, np.searchsorted(finest[order], np.arange(1, len(combinations))))
    return Layout(finest, member, tuple(rows))


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
    total : float64 (targets, n)
    pca : real (targets, n, D) or None
    bins : real (targets, n, 4, 4) or None
    sift : real (targets, n, 128) or None
    absorbed, mean, zero_desc : float64 (targets,)
        What the projection's stabiliser, its mean and zeroed descriptors keep from the spatial bins.
    """

    total: np.ndarray
    pca: np.ndarray | None
    bins: np.ndarray | None
    sift: np.ndarray | None
    absorbed: np.ndarray
    mean: np.ndarray
    zero_desc: np.ndarray


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

        Where that is not to be kept (None), the pieces write into the same memory, which stays in cache.
        """
        model, zero, zero_sums = self.packed(dtype)
        layout = layout_of(descriptors.geometry, self.pyramid)
        zeroed = descriptors.zeroed
        pieces, zeros = [], []
        for cell, rows in enumerate(layout.rows):
            empty = zeroed[rows]
            zeros.append(rows[empty])
            rows = rows[~empty]
            pieces += [(cell, rows[at : at + PIECE]) for at in range(0, len(rows), PIECE)]
        lengths = [len(rows) for _, rows in pieces]
        if keep or threads.count(n_jobs) > 1:
            room = model.room(lengths)
        else:
            (widest,) = model.room([max(lengths, default=0)])
            room = [(widest[0][:n], *widest[1:]) for n in lengths]
        done = threads.run(
            [
                partial(model.encode, descriptors.values, rows, place)
                for (_, rows), place in zip(pieces, room, strict=True)
            ],
            n_jobs,
        )

        shape = (len(layout.rows), *self.means.shape)
        s0, s1, s2 = np.zeros(shape[:2]), np.zeros(shape), np.zeros(shape)
        for (cell, _), (_, sums) in zip(pieces, done, strict=True):
            for total, part in zip((s0, s1, s2), sums, strict=True):
                total[cell] += part
        for cell, rows in enumerate(zeros):
            if len(rows):
                for total, part in zip((s0, s1, s2), zero_sums, strict=True):
                    total[cell] += len(rows) * part
        member = layout.member.T.astype(np.float64)
        s0, s1, s2 = (np.einsum("cf,f...->c...", member, s) for s in (s0, s1, s2))
        by_u = 1 / np.sqrt(self.weights)[:, None]
        sums = np.stack([s1 * by_u, (s2 - s0[..., None]) * (by_u / np.sqrt(2))], axis=1)
        if not keep:
            return sums, None
        counts = layout.member.T.astype(np.int64) @ np.array([len(rows) for rows in layout.rows], np.int64)
        saved = Pooled(
            descriptors,
            layout,
            tuple((cell, rows, encoded) for (cell, rows), (encoded, _) in zip(pieces, done, strict=True)),
            tuple(zeros),
            zero,
            sums,
            s0,
            counts,
        )
        return sums, saved

    def spread(self, saved: Pooled) -> np.ndarray:
        """Upper bounds of sum |Psi|, the shape of the sums: what small |S| are told from rounding by."""
        by_u = 1 / np.sqrt(self.weights)[:, None]
        s0 = saved.occupancy[..., None]
        s2 = saved.sums[:, 1] * (np.sqrt(2) / by_u) + s0
        # Cauchy-Schwarz: (sum g |z|)^2 <= sum g * sum g z^2.
        return np.stack([np.sqrt(s0 * np.maximum(s2, 0)) * by_u, (s2 + s0) * (by_u / np.sqrt(2))], axis=1)

    def relevance(
        self, shares: np.ndarray, saved: Pooled, rules: FisherRules, want: frozenset[str], n_jobs=None
    ) -> DescriptorRelevance:
        """Relevance of descriptors from shares R / (S +- epsilon), float64 (targets, cells, 2, K, D).

        `want` names what is computed beside the totals: "pca", "bin", "sift".
        """
        dtype = saved.zero.y.dtype
        model, zero, _ = self.packed(dtype)
        x = saved.descriptors.values
        targets, n, dims = len(shares), len(x), model.dims
        mean = self.mean_treatment(rules)
        through = bool(want & {"bin", "sift"})
        # Every row is written below, by a piece or as one of the zeroed descriptors.
        total = np.empty((targets, n))
        pca = np.empty((targets, n, dims), dtype) if "pca" in want else None
        bins = np.empty((targets, n, 16), dtype) if "bin" in want else None
        sift = np.empty((targets, n, 128), dtype) if "sift" in want else None

        cells = len(saved.layout.rows)
        used = [cell for cell in range(cells) if len(saved.layout.rows[cell])]
        tables = np.empty((cells, targets, model.components, 3, model.stride), dtype)
        threads.run(
            [
                partial(model.tables, shares[t], saved.layout.member[cell], tables[cell, t])
                for cell in used
                for t in range(targets)
            ],
            n_jobs,
        )

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
                pca,
                bins,
                sift,
                absorbed if through else None,
                past if through else None,
            )
            return absorbed, past

        done = threads.run([partial(piece, *p) for p in saved.pieces], n_jobs)
        absorbed, past, dropped = np.zeros(targets), np.zeros(targets), np.zeros(targets)
        for part_absorbed, part_past in done:  # in order: the same bits for any number of threads
            absorbed += part_absorbed
            past += part_past
        # A zeroed descriptor has values to share by only where the mean was subtracted from it.
        passes = mean == "centered" and self.mean.any()
        blank = np.zeros((1, x.shape[1]), np.uint8)
        for cell, rows in enumerate(saved.zeros):
            if not len(rows):
                continue
            one = {
                "total": np.zeros((targets, 1)),
                "pca": np.zeros((targets, 1, dims), dtype) if pca is not None else None,
                "bins": np.zeros((targets, 1, 16), dtype) if bins is not None and passes else None,
                "sift": np.zeros((targets, 1, 128), dtype) if sift is not None and passes else None,
                "absorbed": np.zeros(targets) if through and passes else None,
            }
            model.relevance(blank, None, zero, tables[cell], rules.epsilon_pca, mean, **one)
            total[:, rows] = one["total"]
            if pca is not None:
                pca[:, rows] = one["pca"]
            if not through:
                continue
            if passes:
                absorbed += len(rows) * one["absorbed"]
            drops = not passes and rules.zero_desc == "drop"
            if drops:
                dropped += len(rows) * one["total"][:, 0]
            for values, key in ((bins, "bins"), (sift, "sift")):
                if values is not None:
                    even = 0 if drops else (one["total"] / values.shape[2])[:, :, None]
                    values[:, rows] = one[key] if passes else even
        if bins is not None:
            bins = bins.reshape(targets, n, BINS, BINS)
        return DescriptorRelevance(total, pca, bins, sift, absorbed, past, dropped)

    def mean_treatment(self, rules: FisherRules) -> str:
        """The rule's treatment of the mean, with "auto" resolved for this projection."""
        if rules.mean != "auto":
            return rules.mean
        return "centered" if self.mean.any() else "none"


# ---- normalisation and linear scores ---------------------------------------------------------------------------------


class Normalise:
    """Per-cell L2, then the signed square root, then one global L2: the improved Fisher vector.

    Elementwise and sign-preserving but for constants per cell, it passes relevance on unchanged.
    """

    name = "normalise"

    def forward(self, sums: np.ndarray) -> tuple[np.ndarray, None]:
        """Sums (cells, 2, K, D) -> vector float64 (cells * 2 K D,). 1 / N cancels in the first norm."""
        return _kernels.normalise(sums.reshape(len(sums), -1)), None

    def relevance(self, r: np.ndarray, saved: None, rules: FisherRules) -> np.ndarray:
        return r


class Linear:
    """Scores w . x + b of a linear classifier.

    Parameters
    ----------
    coef : float32 (n_scores, d)
    intercept : float64 (n_scores,)
    """

    name = "linear"
    BLOCK = 2048  # float products run over so many values before they are summed in double

    def __init__(self, coef: np.ndarray, intercept: np.ndarray):
        self.coef, self.intercept = coef, intercept

    def forward(self, x: np.ndarray, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """x float64 (d,) -> scores float64 (n_scores,); saves x."""
        d = len(x)
        if exact or d % self.BLOCK:
            scores = np.concatenate([row[None].astype(np.float64) @ x for row in self.coef])
        else:
            blocks = self.coef.reshape(len(self.coef), -1, self.BLOCK).transpose(1, 0, 2)
            parts = np.matmul(blocks, x.astype(np.float32).reshape(-1, self.BLOCK, 1))
            scores = parts[..., 0].sum(axis=0, dtype=np.float64)
        return scores + self.intercept, x

    def relevance(self, score: int, sign: int, saved: np.ndarray, rules: FisherRules, active: np.ndarray):
        """R of each dimension, float64 (d,), w_d x_d and its part of the intercept; and what "ignore" leaves out.

        `active` marks the dimensions that hold anything (S != 0); `sign` is -1 for the first of two classes.
        """
        bias = sign * float(self.intercept[score])
        r = np.multiply(self.coef[score], saved, dtype=np.float64)
        if sign < 0:
            np.negative(r, out=r)
        if rules.bias == "distribute":
            r += bias / len(r)
            return r, 0.0
        count = np.count_nonzero(active)
        if rules.bias == "active" and count:
            r[active] += bias / count
            return r, 0.0
        return r, bias


# ---- the flat end: from a representation to pixels -------------------------------------------------------------------


def edge_weights(length: int, taps: np.ndarray, lead: int, centres: np.ndarray, clip: str) -> np.ndarray:
    """What multiplies a value at each centre: 1 / the weight of its kernel inside the image, or of all of it."""
    if clip == "drop":
        return np.full(len(centres), 1 / taps.sum())
    before = np.concatenate([[0.0], np.cumsum(taps)])
    low = np.clip(-(centres + lead), 0, len(taps))
    high = np.clip(length - (centres + lead), 0, len(taps))
    return 1 / (before[high] - before[low])


def kernel(splat: str, bin_size: int) -> tuple[np.ndarray, int]:
    """Taps of a bin's pixels along one axis, float64, and the offset of the first from the bin's centre."""
    if splat == "tri":
        t = np.arange(-(bin_size - 1), bin_size)
        return 1 - np.abs(t) / bin_size, int(t[0])
    if splat == "box_sym" and bin_size % 2 == 0:
        return np.concatenate([[0.5], np.ones(bin_size - 1), [0.5]]), -(bin_size // 2)
    if splat == "box_sym":
        return np.ones(bin_size), -((bin_size - 1) // 2)
    low, high = box(bin_size)
    return np.ones(high - low), low


class Supports:
    """Flat below the depth: relevance of a representation, spread over the pixels that it was computed from."""

    def __init__(self, geometry: Geometry, pyramid):
        self.geometry, self.pyramid = geometry, pyramid

    def vector(self, cells: np.ndarray) -> tuple[np.ndarray, float]:
        """Relevance of pyramid cells (cells,), flat over each cell's pixels. A cell without pixels keeps its own."""
        height, width = self.geometry.height, self.geometry.width
        pixels, lost, at = np.zeros((height, width)), 0.0, 0
        for rows, cols in self.pyramid:
            y, x = axis_cell(np.arange(height), rows, height), axis_cell(np.arange(width), cols, width)
            level = cells[at : at + rows * cols].reshape(cols, rows).T
            area = np.outer(np.bincount(y, minlength=rows), np.bincount(x, minlength=cols))
            lost += level[area == 0].sum()
            pixels += (level / np.maximum(area, 1))[np.ix_(y, x)]
            at += rows * cols
        return pixels, lost

    def scale(self, scale, values: np.ndarray, bins: int, rules: FisherRules) -> tuple[np.ndarray, float]:
        """Pixels of one scale's values (rows, cols, bins, bins), and what was clipped; bins = 1 is the whole area."""
        height, width = self.geometry.height, self.geometry.width
        pixels = np.zeros((height, width))
        if scale.count == 0:
            return pixels, 0.0
        taps, lead, spacing, weights, inside = clipped_supports(height, width, scale, bins, rules.splat, rules.clip)
        _kernels.splat(values, spacing, scale.first, scale.step, *weights, taps, lead, pixels)
        clipped = 0.0
        if rules.clip == "drop":
            outside = 1 - inside[0][:, None, :, None] * inside[1][None, :, None, :]
            clipped = float((values * outside).sum(dtype=np.float64))
        return pixels, clipped


@lru_cache(maxsize=64)
def clipped_supports(height: int, width: int, scale, bins: int, splat: str, clip: str) -> tuple:
    """Taps, offset and spacing of a scale's kernel; per axis, what multiplies each value, and its share inside."""
    size = scale.bin_size
    if bins == 1:
        taps, lead, spacing = np.ones(BINS * size), box(size)[0], 0
    else:
        (taps, lead), spacing = kernel(splat, size), size
    weights, inside = [], []
    for axis, length in ((0, height), (1, width)):
        centres = (scale.corners(axis)[:, None] + spacing * np.arange(bins)).ravel()
        weight = edge_weights(length, taps, lead, centres, clip)
        kept = edge_weights(length, taps, lead, centres, "renormalise")
        weights.append(weight.reshape(-1, bins))
        inside.append((weight / kept).reshape(-1, bins))
    return taps, lead, spacing, weights, inside


# ---- one image: trace and explanations -------------------------------------------------------------------------------


class FisherStack:
    """pixels -> dense SIFT -> Fisher sums -> normalised vector -> linear scores, as one value that can be traced."""

    def __init__(self, sift: DenseSIFT, fisher: Fisher, linear: Linear | None, classes: Sequence, max_height):
        self.sift, self.fisher, self.linear, self.classes = sift, fisher, linear, list(classes)
        self.normalise = Normalise()
        self.max_height = max_height

    def grey(self, image) -> np.ndarray:
        """Image in, grey float32 of working size out; it may be smaller than the input (see `max_height`)."""
        return images.grey(image, self.max_height)

    def encode(self, image, dtype=np.float32, mirror: bool = False, n_jobs=None) -> np.ndarray:
        """The improved Fisher vector of an image, float64 (cells * 2 K D,)."""
        grey = self.grey(image)
        if mirror:
            grey = np.ascontiguousarray(grey[:, ::-1])
        sums, _ = self.fisher.forward(self.sift.extract_grey(grey, n_jobs), dtype, n_jobs, keep=False)
        return self.normalise.forward(sums)[0]

    def scores(self, image, dtype=np.float32, n_jobs=None) -> np.ndarray:
        """Scores of every class, float64 (n_classes,)."""
        return self.per_class(
            self.linear.forward(self.encode(image, dtype, n_jobs=n_jobs), np.dtype(dtype) == EXACT)[0]
        )

    def per_class(self, scores: np.ndarray) -> np.ndarray:
        """One score per class: of two classes with one hyperplane, positive speaks for the second."""
        two = len(scores) == 1 and len(self.classes) == 2
        return np.array([-scores[0], scores[0]]) if two else scores


class FisherTrace(Trace):
    """The forward pass of one image through a Fisher-vector classifier.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    grey : float32 (h, w), what was explained: `image`, perhaps reduced
    descriptors : Descriptors
    vector : float64 (cells * 2 K D,), the normalised Fisher vector
    scores, classes : as in Trace
    """

    depths = DEPTHS
    default_depth = "bin"
    figure_depths = ("bin", "descriptor")  # the paper's high and low resolution
    report_depths = DEPTHS

    def __init__(self, stack: FisherStack, image, dtype=np.float32, n_jobs=None):
        dtype = precision(dtype)
        self.stack, self.dtype, self.n_jobs = stack, dtype, n_jobs
        self.image = images.rgb(image).copy()  # the caller may change an array that is its own picture
        self.grey = stack.grey(image)
        self.descriptors = stack.sift.extract_grey(self.grey, n_jobs)
        self._forward: dict[np.dtype, Pooled] = {}
        self.vector, _ = stack.normalise.forward(self._pooled(dtype).sums)
        scores, self._saved = stack.linear.forward(self.vector, dtype == EXACT)
        super().__init__(stack.per_class(scores), stack.classes)
        self._known = {dtype: (self._saved, self.scores)}

    def _pooled(self, dtype) -> Pooled:
        if dtype not in self._forward:
            self._forward[dtype] = self.stack.fisher.forward(self.descriptors, dtype, self.n_jobs)[1]
        return self._forward[dtype]

    def _walked(self, rules: FisherRules) -> Pooled:
        """The pass that relevance walks back through.

        With a small stabiliser, float denominators are noise near 0: at epsilon 1 heatmaps of smooth photographs were
        off by up to 1 %. And a rule that counts nonzero sums must not hang on a float posterior that slips past the
        gate, which makes a component's sums nonzero. Both walk in double.
        """
        counts = rules.bias == "active" or rules.eps_mode == "relative"
        steady = not counts and min(rules.epsilon_pool, rules.epsilon_pca) >= STEADY
        return self._pooled(self.dtype if steady else EXACT)

    def _scored(self, pooled: Pooled) -> tuple[np.ndarray, np.ndarray]:
        """Vector and scores of a pass: shares divide by its sums, so that what they share must be its own."""
        dtype = pooled.zero.y.dtype
        if dtype not in self._known:
            x, _ = self.stack.normalise.forward(pooled.sums)
            self._known[dtype] = (x, self.stack.per_class(self.stack.linear.forward(x, exact=True)[0]))
        return self._known[dtype]

    def _start(self, position: int, pooled: Pooled, rules: FisherRules) -> tuple[np.ndarray, float]:
        """Relevance of the vector's dimensions for a target, in the sums' shape, and the intercept left out."""
        two = len(self.stack.linear.coef) == 1 and len(self.classes) == 2
        score, sign = (0, 1 if position else -1) if two else (position, 1)
        sums = pooled.sums
        x, _ = self._scored(pooled)
        r, bias = self.stack.linear.relevance(score, sign, x, rules, sums.ravel() != 0)
        return self.stack.normalise.relevance(r, None, rules).reshape(sums.shape), bias

    def _shares(self, r: np.ndarray, pooled: Pooled, rules: FisherRules) -> tuple[np.ndarray, dict[str, float]]:
        """R / (S + epsilon sgn S) of every dimension, and where the rest stays: absorbed, empty cells, zero sums."""
        sums, counts = pooled.sums, pooled.counts
        if rules.eps_mode == "relative":  # in units of the median |S| of each cell
            epsilon = np.array([np.median(np.abs(s[s != 0])) if s.any() else 0.0 for s in sums]) * rules.epsilon_pool
        else:  # S / N and Psi / N stabilised by epsilon are S and Psi stabilised by N epsilon
            epsilon = rules.epsilon_pool * (counts if rules.pool_scale == "mean" else np.ones(len(counts)))
        # With no stabiliser, a sum that rounding cannot tell from 0 is 0: dividing by it would amplify noise.
        spread = None if rules.epsilon_pool else self.stack.fisher.spread(pooled).reshape(len(sums), -1)
        flat = (len(sums), -1)
        shares, left = _kernels.shares(r.reshape(flat), sums.reshape(flat), counts, epsilon, spread)
        return shares.reshape(sums.shape), dict(zip(("absorbed_pool", "empty_cell", "zero_sum"), left, strict=True))

    def _explain(self, positions: list[int], depths: list[str], rules) -> list[Explanation]:
        rules = FisherRules.of(rules)
        if "gradient" in depths and len(positions) > TOGETHER:
            groups = [positions[at : at + TOGETHER] for at in range(0, len(positions), TOGETHER)]
            return [explanation for group in groups for explanation in self._explain(group, depths, rules)]
        exact = self.dtype == EXACT
        pooled = self._walked(rules)
        _, scores = self._scored(pooled)
        starts = [self._start(position, pooled, rules) for position in positions]
        want = frozenset({"bin": "bin", "gradient": "sift"}[d] for d in depths if d in ("bin", "gradient"))
        shares, losses, below = [], [], None
        if set(depths) - {"vector"}:
            for r, _ in starts:
                share, loss = self._shares(r, pooled, rules)
                shares.append(share)
                losses.append(loss)
            below = self.stack.fisher.relevance(np.stack(shares), pooled, rules, want, self.n_jobs)
        supports = Supports(self.descriptors.geometry, self.stack.fisher.pyramid)

        explanations = []
        for t, position in enumerate(positions):
            r, bias = starts[t]
            head = {"score": float(scores[position])}
            if rules.bias != "distribute":
                head["bias"] = bias
            for depth in depths:
                entries = dict(head)
                if depth == "vector":
                    pixels, entries["empty_cell"] = supports.vector(r.reshape(len(r), -1).sum(axis=1))
                else:
                    entries |= losses[t]
                    pixels, more = self._pixels(depth, t, below, supports, rules)
                    entries |= more
                heatmap = images.resample_conserving(pixels, self.image.shape[:2])
                entries["heatmap"] = heatmap.sum()
                explanations.append(
                    Explanation(
                        heatmap=heatmap,
                        score=scores[position],
                        target=self.classes[position],
                        depth=depth,
                        rules=rules,
                        relevance=self._relevances(position, pooled, rules),
                        ledger=Ledger(entries, exact),
                        image=self.image,
                    )
                )
        return explanations

    def _pixels(self, depth: str, t: int, below: DescriptorRelevance, supports: Supports, rules: FisherRules):
        """Pixels of one target at one depth below the vector, float64 (h, w), and the ledger's entries."""
        entries: dict[str, float] = {}
        if depth != "descriptor":
            entries = {"absorbed_pca": below.absorbed[t], "zero_desc": below.zero_desc[t]}
            if self.stack.fisher.mean_treatment(rules) == "bias":
                entries["pca_mean"] = below.mean[t]
        if depth == "gradient":
            pixels, entries["zero_bin"] = self.stack.sift.pixels(self.grey, below.sift[t], self.n_jobs)
            return pixels, entries
        values, bins = (below.bins[t], BINS) if depth == "bin" else (below.total[t], 1)
        scales = self.descriptors.geometry.scales
        done = threads.run(
            [
                partial(supports.scale, s, values[s.slice].reshape(s.rows, s.cols, bins, bins), bins, rules)
                for s in scales
            ],
            self.n_jobs,
        )
        entries["clipped"] = sum(clipped for _, clipped in done)
        pixels = np.zeros(self.grey.shape)
        for part, _ in done:
            pixels += part
        return pixels, entries

    def _relevances(self, position: int, pooled: Pooled, rules: FisherRules) -> Relevances:
        def below(*want: str) -> DescriptorRelevance:
            share, _ = self._shares(self._start(position, pooled, rules)[0], pooled, rules)
            return self.stack.fisher.relevance(share[None], pooled, rules, frozenset(want), self.n_jobs)

        return Relevances(
            {
                "vector": lambda: self._start(position, pooled, rules)[0].ravel(),
                "descriptor": lambda: below().total[0],
                "pca": lambda: below("pca").pca[0],
                "sift": lambda: below("sift").sift[0],
                "bin": lambda: below("bin").bins[0],
            }
        )
