"""The layers of the Fisher-vector stack; each implements the protocol `fvlrp.core.layer.Layer`.

    pixels -> SpatialBins -> Project -> Fisher -> Normalise -> Linear -> scores

`relevance` decomposes exactly. `flat` of the first three layers spreads relevance directly over the pixels that their
outputs cover: those of bins, of whole descriptors, of pyramid cells. A depth says how many layers are flat; only the
topmost of them is called (`walk.py`).

`Encode` combines the first three, for speed. Its relevance equals that of its parts, as the tests prove. All relevance
is (targets, ...). For the walk and the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..core.layer import Passed
from ..core.ledger import Entries
from ..core.region import Region
from ..runtime import limits, threads
from ..runtime.memory import Memory, empty, zeros
from ..runtime.types import Doubles, Floats
from . import relevance as eqs
from . import sift
from .encoder import PYRAMID, TINY, PackedModels, Pooled, encode_fused, encode_projected, pool, total
from .geometry import BINS, Geometry, Part, Pyramid, Scale
from .rules import FisherRules
from .sift import DenseSIFT, Descriptors, Grey
from .supports import spread, spread_cells

NORMALISATIONS = ("intra", "improved")
LEAST = 1.0  # components with a smaller sum of |S| keep a norm below 1: docs/numerics.md §10
LEAST_NORM = 1e-12  # of a vector or a cell, as the kernels have it
TOGETHER = 8  # targets in one pass: docs/numerics.md §7 has the reasons for these sizes
PASS = 64 << 20  # bytes that the values of one scale may fill, for all targets of a pass
PART = 24 << 20  # bytes up to which scales are propagated together


# ---- pixels -> descriptor values -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What `SpatialBins` saves: the grey image (H, W), and the scales whose relevance goes back (all of them)."""

    grey: Grey
    part: Part
    n_jobs: int | None


class SpatialBins:
    """Grey pixels to SIFT values: orientation planes of gradient magnitude, pooled by triangles into 4 x 4 bins.

    Normalising, clipping and truncating a descriptor are elementwise and positive: relevance passes them unchanged.
    """

    def __init__(self, extractor: DenseSIFT) -> None:
        self.sift = extractor

    def forward(self, grey: npt.NDArray[np.float32], *, n_jobs: int | None = None) -> tuple[Descriptors, Seen]:
        """Grey values float32 (H, W) in 0..1 -> Descriptors, of values (n, 128)."""
        descriptors = self.sift.extract_grey(grey, n_jobs)
        return descriptors, Seen(grey, descriptors.geometry.whole, n_jobs)

    def relevance(self, r: Floats, saved: Seen, rule: FisherRules, pixels: Doubles | None = None) -> Passed:
        """Eq. 1 through the triangles: values (targets, n, 128) -> pixels (targets, H, W). Depth "gradient".

        A value is a sum of non-negative terms, triangle times orientation plane, that needs no stabiliser. `pixels` are
        maps to add to. "zero_bin" is relevance of values whose bin holds no gradient at all.
        """
        pixels = zeros((len(r), *saved.grey.shape), np.float64) if pixels is None else pixels
        grey = np.asarray(saved.grey)
        part, alone = saved.part, len(r) >= threads.count(saved.n_jobs) or len(saved.part.scales) == 1
        # A kernel adds to a pixel once: a map for each scale gives the same bits as one map for all.
        maps = [
            [pixels[t] if alone else zeros(saved.grey.shape, np.float64) for _ in part.scales] for t in range(len(r))
        ]

        def one(target: int, scales: Sequence[int]) -> float:
            lost = 0.0
            for i in scales:
                scale = part.scales[i]
                lost += self.sift.spread(grey, scale, r[target, part.rows(scale)], maps[target][i])
            return lost

        groups = [range(len(part.scales))] if alone else [[i] for i in range(len(part.scales))]
        tasks = [partial(one, t, scales) for t in range(len(r)) for scales in groups]
        lost = np.array(threads.run(tasks, saved.n_jobs)).reshape(len(r), -1).sum(axis=1)
        if not alone:
            for target, of_scales in zip(pixels, maps, strict=True):
                for one_scale in of_scales:
                    target += one_scale
        return Passed([pixels], Entries(zero_bin=lost))

    def flat(self, r: Floats, saved: Seen, rule: FisherRules, pixels: Doubles | None = None) -> Passed:
        """Bins evenly over their pixels: values (targets, n, 128) -> pixels (targets, H, W). Depth "bin".

        Relevance may be summed over the 8 orientations already, (targets, n, 16): flat weights do not depend on them.
        `pixels` are maps to add to. "clipped" is what `FisherRules.clip` drops outside the image.
        """
        pixels = zeros((len(r), *saved.grey.shape), np.float64) if pixels is None else pixels
        bins = r if r.shape[2] == BINS * BINS else r.reshape(*r.shape[:2], BINS * BINS, -1).sum(axis=3)
        return Passed([pixels], Entries(clipped=spread(bins, BINS, saved.part, rule, pixels, saved.n_jobs)))


# ---- descriptor values -> principal components -----------------------------------------------------------------------


@dataclass(frozen=True)
class Projected:
    """What `Project` saves: the descriptors, and the scales whose relevance goes back (all of them)."""

    descriptors: Descriptors
    part: Part
    n_jobs: int | None


class Project:
    """PCA: y = (x - mean) components^T.

    Both directions are plain NumPy, written after Eq. 1: the kernels of `Encode` are tested against it.

    Parameters
    ----------
    components : float64 (D, 128)
        Orthonormal rows.
    mean : float64 (128,)
        Zero where the projection subtracts nothing.
    """

    def __init__(self, components: npt.ArrayLike, mean: npt.ArrayLike) -> None:
        self.components, self.mean = np.asarray(components, np.float64), np.asarray(mean, np.float64)

    def forward(
        self, descriptors: Descriptors, *, dtype: npt.DTypeLike = np.float32, n_jobs: int | None = None
    ) -> tuple[Descriptors, Projected]:
        """Descriptors of values (n, 128) -> the same of values real (n, D), in `dtype`."""
        y = ((descriptors.values - self.mean) @ self.components.T).astype(dtype)
        return replace(descriptors, values=y), Projected(descriptors, descriptors.geometry.whole, n_jobs)

    def relevance(self, r: Floats, saved: Projected, rule: FisherRules) -> Passed:
        """Eq. 1 with its stabiliser: components (targets, n, D) -> values (targets, n, 128).

        R_i = sum_j z_ij R_j / (z_j + epsilon sgn z_j) with z_ij = P_ji x_i, in float64. Ledger: "absorbed_pca" is
        R_j epsilon / (abs(z_j) + epsilon); "mean" is what the mean absorbs; "zero_desc" is the relevance of zero
        descriptors.
        """
        how = eqs.Projection.of(rule, self.mean)
        x = saved.descriptors.values - (self.mean if how.treatment == "centered" else 0.0)
        shift = self.components @ self.mean if how.treatment == "bias" else np.zeros(len(self.components))
        z = x @ self.components.T - shift
        # Without a stabiliser, a sum within rounding error of 0 counts as 0, and 0 / 0 = 0: docs/numerics.md §3.
        magnitude = np.abs(x) @ np.abs(self.components.T) + np.abs(shift)
        none = (how.epsilon == 0) & (np.abs(z) <= TINY * magnitude)
        inverse = np.divide(1, z + np.copysign(how.epsilon, z + 0.0), out=np.zeros(z.shape), where=~none)
        alive = x.any(axis=1)
        rest = r[:, ~alive].sum(axis=2, dtype=np.float64)

        q = r * inverse
        out = (x * (q @ self.components)).astype(r.dtype, copy=False)
        kept = np.where(none, 1, how.epsilon * np.abs(inverse))[alive]
        entries = Entries(absorbed_pca=(r[:, alive] * kept).sum(axis=(1, 2)), zero_desc=rest.sum(axis=1))
        if how.treatment == "bias":
            entries["mean"] = -(q[:, alive] @ shift).sum(axis=1)
        if how.uniform:
            out[:, ~alive] = rest[:, :, None] / x.shape[1]
            entries["zero_desc"] = np.zeros(len(r))
        return Passed([out], entries)

    def flat(self, r: Floats, saved: Projected, rule: FisherRules, pixels: Doubles | None = None) -> Passed:
        """Descriptors evenly over their 4s x 4s pixels: (targets, n, D) -> pixels (targets, H, W). Depth "descriptor".

        Relevance may be summed over the components already, (targets, n, 1). `pixels` are maps to add to.
        """
        geometry = saved.descriptors.geometry
        pixels = zeros((len(r), geometry.height, geometry.width), np.float64) if pixels is None else pixels
        totals = r if r.shape[2] == 1 else r.sum(axis=2, dtype=np.float64, keepdims=True)
        return Passed([pixels], Entries(clipped=spread(totals, 1, saved.part, rule, pixels, saved.n_jobs)))


# ---- principal components -> sums over pyramid cells -----------------------------------------------------------------


class Fisher:
    """Eqs. 3-4 summed over a spatial pyramid, and Eqs. 5-6 back.

    Parameters
    ----------
    weights, means, covariances : float64 (K,), (K, D), (K, D)
        The mixture.
    gate : float
        Posteriors below it count as 0, in the forward pass and in relevance.
    pyramid : sequence of (rows, columns)
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        means: npt.ArrayLike,
        covariances: npt.ArrayLike,
        gate: float = 1e-6,
        pyramid: Pyramid = PYRAMID,
    ) -> None:
        self.weights, self.means, self.covariances = (np.asarray(a, np.float64) for a in (weights, means, covariances))
        self.gate, self.pyramid = gate, tuple((int(rows), int(cols)) for rows, cols in pyramid)
        self.models = PackedModels(None, None, self.weights, self.means, self.covariances, gate)

    def forward(self, projected: Descriptors, *, n_jobs: int | None = None) -> tuple[Doubles, Pooled]:
        """Descriptors of values real (n, D) -> un-normalised sums S float64 (cells, 2, K, D)."""
        model = self.models.of(projected.values.dtype)
        nothing = np.empty((len(projected), 0), np.uint8)
        encode = partial(encode_projected, model, projected.values, n_jobs)
        pooled = pool(model, projected, nothing, self.pyramid, self.weights, encode, n_jobs)
        return pooled.sums, pooled

    def relevance(self, r: Floats, saved: Pooled, rule: FisherRules) -> Passed:
        """Eqs. 5-6: sums (targets, cells, 2, K, D) -> components of descriptors, real (targets, n, D)."""
        given, entries = eqs.shares(np.asarray(r, np.float64), saved, rule)
        memory = Memory(saved.dtype)
        found = eqs.back(eqs.tables(given, saved, memory), saved, ("pca",), memory)
        assert found.pca is not None
        return Passed([found.pca], entries)

    def flat(self, r: Floats, saved: Pooled, rule: FisherRules) -> Passed:
        """Cells evenly over their pixels: (targets, cells, 2, K, D) -> pixels (targets, H, W). Depth "vector"."""
        cells = r.reshape(len(r), len(saved.sums), -1).sum(axis=2)
        pixels, lost = spread_cells(cells, self.pyramid, saved.geometry)
        return Passed([pixels], Entries(empty_cell=lost))


# ---- sums -> normalised vector -> scores -----------------------------------------------------------------------------


class Normalise:
    """Signed square root and L2 norms of the sums.

    Elementwise and sign-preserving but for a constant per cell or component, it passes relevance on unchanged.
    Un-normalised sums go in: dividing them by the number of descriptors would cancel.

    Parameters
    ----------
    kind : {"intra", "improved"}
        "intra": signed square root, L2 norm per cell and component over both orders, one L2 norm over all (Arandjelovic
        and Zisserman, All about VLAD, CVPR 2013). "improved": L2 norm per cell, signed square root, one L2 norm over
        all (Chatfield et al. 2011, and the paper).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def forward(self, sums: Doubles) -> tuple[Doubles, tuple[int, ...]]:
        """Sums (cells, 2, K, D) -> vector float64 (cells * 2 K D,)."""
        if self.kind == "intra":
            return _kernels.normalise_intra(sums, LEAST), sums.shape
        return _kernels.normalise(sums.reshape(len(sums), -1)), sums.shape

    def factors(self, squares: Doubles, sizes: Doubles) -> Doubles:
        """What `forward` multiplies sgn(S) sqrt|S| by, (cells, K) or (cells, 1).

        From sums of S^2 and of |S| over both orders (cells, K).
        """
        if self.kind == "intra":
            scale = 1 / np.maximum(sizes, LEAST)
        else:
            scale = 1 / np.maximum(np.sqrt(squares.sum(axis=1, keepdims=True)), LEAST_NORM)
        # The L2 norm after the signed root is the square root of the L1 norm before it.
        whole = np.sqrt(np.sum(sizes * scale))
        factors: Doubles = np.sqrt(scale) / max(whole, LEAST_NORM)
        return factors

    def relevance(self, r: Floats, saved: tuple[int, ...], rule: FisherRules) -> Passed:
        """(targets, cells * 2 K D) -> (targets, cells, 2, K, D)."""
        return Passed([r.reshape(len(r), *saved)], Entries())

    flat = relevance  # an element's receptive field is the element


class Scored(NamedTuple):
    """What `Linear` saves: its input float64 (d,), and the scores (n_scores,)."""

    x: Doubles
    scores: Doubles
    n_jobs: int | None


class Linear:
    """Scores w . x + b of linear classifiers.

    Parameters
    ----------
    coef : float32 or float64 (n_scores, d)
    intercept : float64 (n_scores,)
    """

    def __init__(self, coef: Floats, intercept: Doubles) -> None:
        self.coef, self.intercept = coef, intercept

    def forward(self, x: Doubles, *, exact: bool = False, n_jobs: int | None = None) -> tuple[Doubles, Scored]:
        """x float64 (d,) -> scores float64 (n_scores,); products in float32 unless `exact`."""
        if exact or self.coef.dtype != np.float32:
            scores = np.concatenate([row[None].astype(np.float64) @ x for row in self.coef])
        else:
            scores, narrow = np.empty(len(self.coef)), x.astype(np.float32)
            groups = np.array_split(np.arange(len(scores)), min(threads.count(n_jobs), len(scores)))
            spans = [slice(rows[0], rows[-1] + 1) for rows in groups]
            threads.run([partial(_kernels.scores, self.coef[span], narrow, scores[span]) for span in spans], n_jobs)
        scores = scores + self.intercept
        return scores, Scored(x, scores, n_jobs)

    def relevance(self, r: Floats, saved: Scored, rule: FisherRules) -> Passed:
        """Relevance of scores (targets, n_scores) -> of dimensions (targets, d): w_d x_d and a share of the intercept.

        "bias" is the part of the intercept that no dimension gets. A score of exactly 0 gives no relevance: 0 / 0 = 0.
        """
        factors = np.divide(r, saved.scores, out=np.zeros(r.shape), where=saved.scores != 0)
        out = empty((len(r), len(saved.x)), np.float64)

        def one(factor: Doubles, to: Doubles) -> Entries:
            used = np.flatnonzero(factor)
            first = used[:1].tolist() or [0]
            np.multiply(self.coef[first[0]], saved.x, out=to, dtype=np.float64)
            if factor[first[0]] != 1:
                to *= factor[first[0]]
            for row in used[1:]:
                to += factor[row] * np.multiply(self.coef[row], saved.x, dtype=np.float64)
            return rule.share_intercept(to, float(factor @ self.intercept), saved.x)

        left = threads.run([partial(one, *pair) for pair in zip(factors, out, strict=True)], saved.n_jobs)
        return Passed([out], Entries({kind: np.array([entries[kind] for entries in left]) for kind in left[0]}))

    def flat(self, r: Floats, saved: Scored, rule: FisherRules) -> Passed:
        """Each score evenly over all dimensions; no depth of this stack ends here."""
        return Passed([np.repeat(r.sum(axis=1, keepdims=True) / len(saved.x), len(saved.x), axis=1)], Entries())


# ---- the first three in one ------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What `Encode` saves: what each of its parts saves.

    Of an image too large for that, `strips` are its parts, which relevance computes again one after another; `project`
    has no descriptors, and `fisher` the sums of all strips.
    """

    bins: Seen
    project: Projected
    fisher: Pooled
    strips: tuple[Geometry, ...] = ()


class Encode:
    """Grey pixels to Fisher sums: SpatialBins, Project and Fisher as one layer, for speed.

    Forward, one kernel projects, assigns and pools tile by tile: nothing of descriptors x components is ever written.
    Backward, one kernel takes several targets from the sums through Eqs. 5-6 and Eq. 1, scale by scale, so that
    relevance of values never exists for the whole image.
    """

    def __init__(self, bins: SpatialBins, project: Project, fisher: Fisher) -> None:
        self.bins, self.project, self.fisher = bins, project, fisher
        mixture = fisher.weights, fisher.means, fisher.covariances
        self.models = PackedModels(project.components, project.mean, *mixture, fisher.gate)

    @property
    def parts(self) -> tuple[SpatialBins, Project, Fisher]:
        """The layers that this one combines, from the pixels up."""
        return self.bins, self.project, self.fisher

    def forward(
        self,
        grey: Grey,
        *,
        dtype: npt.DTypeLike = np.float32,
        n_jobs: int | None = None,
        keep: bool = True,
    ) -> tuple[Doubles, Parts]:
        """Grey values float32 (H, W) in 0..1 -> sums float64 (cells, 2, K, D), computed in `dtype` after SIFT.

        With ``keep=False`` posteriors are not kept, and the backward pass is not possible.
        """
        geometry = self.bins.sift.geometry(*grey.shape)
        if geometry.n > sift.WHOLE:
            parts = self._streamed(grey, geometry, dtype, n_jobs)
            return parts.fisher.sums, parts
        assert isinstance(grey, np.ndarray)
        descriptors, seen = self.bins.forward(grey, n_jobs=n_jobs)
        pooled = self.pooled(descriptors, dtype, n_jobs, keep)
        return pooled.sums, Parts(seen, Projected(descriptors, descriptors.geometry.whole, n_jobs), pooled)

    def again(self, saved: Parts, dtype: npt.DTypeLike) -> Parts:
        """What the forward pass of the same descriptors saves in another dtype."""
        if saved.strips:
            return self._streamed(saved.bins.grey, saved.bins.part.geometry, dtype, saved.bins.n_jobs)
        descriptors, n_jobs = saved.project.descriptors, saved.bins.n_jobs
        return saved._replace(fisher=self.pooled(descriptors, dtype, n_jobs))

    def _streamed(self, grey: Grey, geometry: Geometry, dtype: npt.DTypeLike, n_jobs: int | None) -> Parts:
        """The forward pass of an image in strips; only their sums are kept."""
        self.bins.sift.check()
        strips = self.bins.sift.strips(geometry, sift.STRIP)
        pooled = total(geometry, (self._strip(grey, one, dtype, n_jobs, keep=False).fisher for one in strips))
        none = Descriptors(pooled.values, np.empty(0, np.bool_), geometry)
        return Parts(Seen(grey, geometry.whole, n_jobs), Projected(none, geometry.whole, n_jobs), pooled, strips)

    def _strip(
        self, grey: Grey, geometry: Geometry, dtype: npt.DTypeLike, n_jobs: int | None, keep: bool = True
    ) -> Parts:
        """The forward pass of one strip of an image."""
        seen = np.ascontiguousarray(grey[geometry.pixels])
        descriptors = self.bins.sift.extract_strip(seen, geometry, n_jobs)
        pooled = self.pooled(descriptors, dtype, n_jobs, keep)
        return Parts(Seen(seen, geometry.whole, n_jobs), Projected(descriptors, geometry.whole, n_jobs), pooled)

    def _kept(self, saved: Parts) -> Iterator[Parts]:
        """What the backward pass needs: all that was saved, or one strip after another."""
        if not saved.strips:
            yield saved
        for geometry in saved.strips:
            yield self._strip(saved.bins.grey, geometry, saved.fisher.dtype, saved.bins.n_jobs)

    def _gathered(self, saved: Parts, one: Callable[[Parts], Floats]) -> Floats:
        """Relevance of all descriptors (targets, n, ...), assembled from `one` of each strip."""
        if not saved.strips:
            return one(saved)
        out: Floats | None = None
        for strip in self._kept(saved):
            found = one(strip)
            if out is None:
                size = found[:, :1].nbytes * saved.bins.part.geometry.n
                limits.require(size, f"relevance of {saved.bins.part.geometry.n} descriptors")
                out = np.empty((len(found), saved.bins.part.geometry.n, *found.shape[2:]), found.dtype)
            whole = {scale.bin_size: scale for scale in saved.bins.part.scales}
            for scale in strip.bins.part.scales:
                begin = whole[scale.bin_size].start + scale.above * scale.cols
                out[:, begin : begin + scale.count] = found[:, scale.slice]
        assert out is not None
        return out

    def pooled(
        self, descriptors: Descriptors, dtype: npt.DTypeLike, n_jobs: int | None = None, keep: bool = True
    ) -> Pooled:
        """Sums of descriptors, and what their backward pass needs."""
        model = self.models.of(dtype)
        encode = partial(encode_fused, model, descriptors.values, keep, n_jobs)
        fisher = self.fisher
        return pool(model, descriptors, descriptors.values, fisher.pyramid, fisher.weights, encode, n_jobs, keep)

    def relevance(self, r: Floats, saved: Parts, rule: FisherRules) -> Passed:
        """All parts by relevance: sums (targets, cells, 2, K, D) -> pixels (targets, H, W)."""
        return self.descend(r.copy(), saved, rule, [0])[0]

    def flat(self, r: Floats, saved: Parts, rule: FisherRules) -> Passed:
        """The topmost part is flat: cells over their pixels."""
        return self.fisher.flat(r, saved.fisher, rule)

    def at(self, name: str, r: Floats, saved: Parts, rule: FisherRules) -> Floats:
        """Relevance between the parts: "descriptor" (targets, n), "pca" (.., D), "sift" (.., 128), "bin" (.., 4, 4)."""
        given, _ = eqs.shares(np.asarray(r, np.float64), saved.fisher, rule)
        projection = eqs.Projection.of(rule, self.project.mean)
        field = {"descriptor": "total", "bin": "bins"}.get(name, name)

        def one(kept: Parts) -> Floats:
            memory = Memory(kept.fisher.dtype)
            table = eqs.tables(given, kept.fisher, memory)
            values: Floats = getattr(eqs.back(table, kept.fisher, [field], memory, projection), field)
            return values

        found = self._gathered(saved, one)
        return found.reshape(*found.shape[:2], BINS, BINS) if name == "bin" else found

    def by_component(self, r: Floats, saved: Parts, rule: FisherRules) -> Doubles:
        """What reaches descriptors through each component of the mixture: (targets, cells, 2, K, D) -> (targets, K).

        Eqs. 5-6 summed over descriptors: R S / (S + epsilon sgn S), added over cells, orders and dimensions.
        """
        given, _ = eqs.shares(np.asarray(r, np.float64), saved.fisher, rule)
        reached: Doubles = np.einsum("tcokd,cokd->tk", given, saved.fisher.sums)
        return reached

    def through(self, components: Sequence[int], r: Doubles, saved: Parts, rule: FisherRules) -> Doubles:
        """What reaches each descriptor through single components: (cells, 2, K, D) of one target -> (components, n).

        Summed over all components it is the relevance of descriptors, at("descriptor").
        """
        given, _ = eqs.shares(np.asarray(r[None], np.float64), saved.fisher, rule)

        def one(kept: Parts) -> Doubles:
            pooled, memory = kept.fisher, Memory(kept.fisher.dtype)
            out = np.empty((len(components), len(pooled.values)))
            for at in range(0, len(components), TOGETHER):
                some = components[at : at + TOGETHER]
                alone = zeros((len(some), *given.shape[1:]), np.float64)
                for of_one, k in zip(alone, some, strict=True):
                    of_one[:, :, k] = given[0, :, :, k]
                totals = eqs.back(eqs.tables(alone, pooled, memory), pooled, ("total",), memory).total
                assert totals is not None
                out[at : at + len(some)] = totals
            return out

        return np.asarray(self._gathered(saved, one), np.float64)

    def descend(
        self, r: Floats, saved: Parts, rule: FisherRules, flats: Sequence[int], region: Region | None = None
    ) -> list[Passed]:
        """Sums to pixels for several depths at once: for each, how many of the parts are flat (0 to 3).

        `r` (targets, cells, 2, K, D) is overwritten. With a region of the grey image, at least two are flat for
        descriptors that do not reach into it.
        """
        found = {3: self.flat(r, saved, rule)} if 3 in flats else {}
        below = [n for n in dict.fromkeys(flats) if n != 3]
        if below:
            found |= self._through(np.asarray(r, np.float64), saved, rule, below, region)
        return [found[n] for n in flats]

    def _through(
        self, r: Doubles, saved: Parts, rule: FisherRules, flats: Sequence[int], region: Region | None
    ) -> dict[int, Passed]:
        """The same for depths below the sums, a few scales at a time."""
        given, pooling = eqs.shares(r, saved.fisher, rule, out=r)  # the shares take the place of r
        memory, projection = Memory(saved.fisher.dtype), eqs.Projection.of(rule, self.project.mean)
        shape = len(r), *saved.bins.grey.shape
        maps, kept = {n: zeros(shape, np.float64) for n in flats}, {n: Entries(pooling) for n in flats}
        for one in self._kept(saved):
            table, rows = eqs.tables(given, one.fisher, memory), one.bins.part.geometry.pixels
            parts = self._scales_together(one, len(r) * _value_bytes(flats, one.fisher.dtype))
            for (fisher, least), part in product(_divided(one.fisher, region), parts):
                at = {n: max(n, least) for n in flats}
                values = eqs.back(table, fisher, [_VALUES[n] for n in at.values()], memory, projection, part)
                for n in flats:
                    if at[n] < 2:
                        kept[n].include(values.entries)
                    kept[n].include(self._to_pixels(at[n], values, one, part, rule, maps[n][:, rows]))
        return {n: Passed([maps[n]], kept[n]) for n in flats}

    def _to_pixels(
        self, flats: int, values: eqs.DescriptorRelevance, saved: Parts, part: Part, rule: FisherRules, pixels: Doubles
    ) -> Entries:
        """ADD relevance of some scales to maps by the layer that comes next; what it keeps."""
        if flats == 2:
            assert values.total is not None
            return self.project.flat(values.total[:, :, None], replace(saved.project, part=part), rule, pixels).entries
        seen = replace(saved.bins, part=part)
        if flats == 1:
            assert values.bins is not None
            return self.bins.flat(values.bins, seen, rule, pixels).entries
        assert values.sift is not None
        return self.bins.relevance(values.sift, seen, rule, pixels).entries

    def targets_together(self, saved: Parts, flats: Sequence[int]) -> int:
        """Targets in one pass: at most TOGETHER, and only as many as have their values of one scale in PASS bytes."""
        most = min(max(scale.count for scale in saved.bins.part.scales), sift.STRIP if saved.strips else sift.WHOLE)
        return max(1, min(TOGETHER, PASS // (most * _value_bytes(flats, saved.fisher.dtype))))

    def _scales_together(self, saved: Parts, size: int) -> list[Part]:
        """Consecutive scales in parts of at most PART bytes, at `size` bytes per descriptor, or of one scale."""
        groups: list[list[Scale]] = []
        for scale in saved.bins.part.scales:
            if groups and size * (scale.slice.stop - groups[-1][0].start) <= PART:
                groups[-1].append(scale)
            else:
                groups.append([scale])
        return [Part(saved.bins.part.geometry, tuple(group)) for group in groups]


_VALUES = {0: "sift", 1: "bins", 2: "total"}  # what the layer below takes, by the number of flat parts


def _divided(pooled: Pooled, region: Region | None) -> list[tuple[Pooled, int]]:
    """Descriptors that reach into the region, and the others, with the least number of parts that are flat for them."""
    if region is None:
        return [(pooled, 0)]
    near = pooled.geometry.touching(*region)
    if near.all():
        return [(pooled, 0)]
    return [(pooled.only(chosen), least) for chosen, least in ((near, 0), (~near, 2)) if chosen.any()]


def _value_bytes(flats: Sequence[int], dtype: npt.DTypeLike) -> int:
    """Bytes per descriptor and target of what the depths need, at most."""
    values = {0: 128, 1: BINS * BINS}
    return 8 + np.dtype(dtype).itemsize * sum(values.get(n, 0) for n in flats)
