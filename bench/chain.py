"""The Fisher-vector pipeline as one would write it without kernels of one's own, in NumPy on a tuned BLAS.

`Chain` is the best float32 form known to us.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
from threadpoolctl import threadpool_limits

from fvlrp.cli.bench import alternate, relative
from fvlrp.fisher import relevance as eqs
from fvlrp.fisher.encoder import layout_of
from fvlrp.fisher.geometry import BINS, Geometry
from fvlrp.fisher.layers import LEAST
from fvlrp.fisher.rules import FisherRules
from fvlrp.fisher.supports import bin_taps, edge_weights
from fvlrp.fisher.walk import walk
from fvlrp.runtime import threads

RULES = FisherRules()


# ---- the same in NumPy -----------------------------------------------------------------------------------------------


class Chain:
    """Descriptors of one image to scores and a heatmap in float32 NumPy, as well as we can write it.

    Rows are taken in the order of their finest pyramid cell, each encoded once, in blocks that stay in cache. The log
    posteriors of a block are one product [y^2, y, 1] A; what divides a row of posteriors goes into the narrower
    factor of later products. Buffers are allocated once.

    Parameters
    ----------
    clf : FisherVectorClassifier
        Fitted, its projection without a mean.
    geometry : Geometry
    n_jobs : int
        Threads over groups of blocks; BLAS should then be limited to one.
    zeroed : bool (n,), optional
        Descriptors that are zeros: one of each finest cell stands for all. None: all rows are treated alike.
    """

    BLOCK = 1024  # rows; a block of posteriors is 1 MB
    FLOOR = np.float32(-80)  # of log posteriors: products of denormal numbers would cost 40 times as much

    def __init__(self, clf, geometry: Geometry, n_jobs: int = 1, zeroed: np.ndarray | None = None):
        if clf.pca_.mean_.any():
            raise ValueError("clf must have a projection without a mean")
        self.geometry, self.n_jobs = geometry, n_jobs
        basis = clf.pca_.components_
        self.priors, self.means, variances = clf.gmm_.weights_, clf.gmm_.means_, clf.gmm_.covariances_
        self.deviations = np.sqrt(variances)
        components, dims = self.means.shape
        self.basis, self.basis_t = (np.ascontiguousarray(a, np.float32) for a in (basis, basis.T))
        constant = np.log(self.priors) - 0.5 * (np.log(variances) + self.means**2 / variances).sum(axis=1)
        logits = np.concatenate([-0.5 / variances, self.means / variances, constant[:, None]], axis=1)
        # Float products are exact enough only about the mean quadratic, which softmax does not see.
        self.logits = np.ascontiguousarray((logits - logits.mean(axis=0)).T, np.float32)
        self.coef, self.intercept, self.kind = clf.coef_, clf.intercept_, clf.normalisation
        self.gate = np.float32(clf.gate)

        layout = layout_of(geometry, tuple(map(tuple, clf.pyramid)))
        self.member = layout.member.astype(np.float64)
        cells, weights = [], []
        for rows in layout.rows:
            empty = np.zeros(len(rows), bool) if zeroed is None else zeroed[rows]
            cells.append(np.concatenate([rows[~empty], rows[empty][:1]]))
            weights.append(np.ones(len(cells[-1]), np.float32))
            if empty.any():
                weights[-1][-1] = empty.sum()
        self.order, self.weights = np.concatenate(cells), np.concatenate(weights)[:, None]
        edges = np.cumsum([0, *map(len, cells)])
        blocks = [
            (cell, slice(at, min(at + self.BLOCK, end)))
            for cell, (begin, end) in enumerate(pairwise(edges))
            for at in range(begin, end, self.BLOCK)
        ]
        self.groups = [blocks[len(blocks) * i // n_jobs : len(blocks) * (i + 1) // n_jobs] for i in range(n_jobs)]
        n = len(self.order)
        self.y, self.r2 = np.empty((n, dims), np.float32), np.empty((n, dims), np.float32)
        self.gamma, self.inverse = np.empty((n, components), np.float32), np.empty((n, 1), np.float32)
        self.bins = np.zeros((geometry.n, BINS * BINS), np.float32)
        self._scratch = [self._room() for _ in range(n_jobs)]
        self._splats = [self._prepare(scale) for scale in geometry.scales]

    def _room(self) -> dict[str, np.ndarray]:
        components, dims = self.means.shape
        widths = {"x": 128, "z": 2 * dims + 1, "zs": 2 * dims + 1, "highest": 1, "poly": 3 * dims, "q": dims, "g": 128}
        return {name: np.empty((self.BLOCK, width), np.float32) for name, width in widths.items()} | {
            "above": np.empty((self.BLOCK, components), bool),
            "ones": np.ones((components, 1), np.float32),
            "eight": np.ones((8, 1), np.float32),
        }

    def _over_blocks(self, step: Callable) -> list:
        """step(cell, rows, scratch) of every block, in groups; the results of each group."""

        def group(blocks, scratch):
            return [
                step(cell, rows, {k: v if k in ("ones", "eight") else v[: rows.stop - rows.start] for k, v in scratch})
                for cell, rows in blocks
            ]

        tasks = [partial(group, b, tuple(s.items())) for b, s in zip(self.groups, self._scratch, strict=True)]
        return [result for results in threads.run(tasks, self.n_jobs) for result in results]

    def assign(self, rows: slice, scratch) -> None:
        """Posteriors of projected rows, up to the factor `inverse` of each."""
        y, gamma, z, highest = self.y[rows], self.gamma[rows], scratch["z"], scratch["highest"]
        dims = y.shape[1]
        np.multiply(y, y, out=z[:, :dims])
        z[:, dims : 2 * dims] = y
        z[:, 2 * dims] = 1
        np.matmul(z, self.logits, out=gamma)
        np.maximum.reduce(gamma, axis=1, keepdims=True, out=highest)
        np.subtract(gamma, highest, out=gamma)
        np.maximum(gamma, self.FLOOR, out=gamma)
        np.exp(gamma, out=gamma)
        np.matmul(gamma, scratch["ones"], out=self.inverse[rows])
        np.greater_equal(gamma, self.gate * self.inverse[rows], out=scratch["above"])
        np.multiply(gamma, scratch["above"], out=gamma)
        np.reciprocal(self.inverse[rows], out=self.inverse[rows])

    def posteriors(self) -> None:
        """Posteriors of all projected rows `y`: `gamma` times `inverse`."""
        self._over_blocks(lambda cell, rows, scratch: self.assign(rows, scratch))

    def project(self, x: np.ndarray) -> None:
        """y of descriptors x float32 (n, 128)."""

        def step(cell, rows, scratch):
            np.take(x, self.order[rows], axis=0, out=scratch["x"], mode="clip")
            np.matmul(scratch["x"], self.basis_t, out=self.y[rows])

        self._over_blocks(step)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Sums float64 (cells, 2, K, D) of Eqs. 3-4 over each pyramid cell, from descriptors float32 (n, 128)."""

        def step(cell, rows, scratch):
            np.take(x, self.order[rows], axis=0, out=scratch["x"], mode="clip")
            np.matmul(scratch["x"], self.basis_t, out=self.y[rows])
            self.assign(rows, scratch)
            np.multiply(scratch["z"], self.inverse[rows] * self.weights[rows], out=scratch["zs"])
            return cell, self.gamma[rows].T @ scratch["zs"]

        components, dims = self.means.shape
        moments = np.zeros((len(self.member), components, 2 * dims + 1))
        for cell, part in self._over_blocks(step):
            moments[cell] += part
        moments = np.tensordot(self.member.T, moments, 1)
        squares, ys, s0 = moments[..., :dims], moments[..., dims : 2 * dims], moments[..., 2 * dims :]
        s1 = (ys - s0 * self.means) / self.deviations
        s2 = (squares - 2 * self.means * ys + self.means**2 * s0) / self.deviations**2
        by_u = 1 / np.sqrt(self.priors)[:, None]
        return np.stack([s1 * by_u, (s2 - s0) * (by_u / np.sqrt(2))], axis=1)

    def scores(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The improved Fisher vector float32 (d,) of the sums, and the scores of all classes."""
        x = sums.astype(np.float32)
        size = np.abs(x)
        if self.kind == "intra":
            by = np.maximum(size.sum(axis=(1, 3), keepdims=True), LEAST)
        else:
            by = np.maximum(np.sqrt((x * x).sum(axis=(1, 2, 3), keepdims=True)), 1e-12)
        x = np.copysign(np.sqrt(size / by), x).ravel()
        x /= np.linalg.norm(x)
        return x, self.coef @ x + self.intercept

    def shares(self, target: int, x: np.ndarray, sums: np.ndarray, epsilon: float) -> np.ndarray:
        """R / (S + epsilon sgn S) of one target, float32, in the sums' shape."""
        r = self.coef[target] * x + np.float32(self.intercept[target] / len(x))
        s = sums.astype(np.float32).ravel()
        return (r / (s + np.copysign(np.float32(epsilon), s))).reshape(sums.shape)

    def tables(self, shares: np.ndarray) -> np.ndarray:
        """Polynomials c0, c1, c2 in y of Eqs. 5-6 per finest cell, component and dimension: float32 (cells, K, 3 D)."""
        merged = np.tensordot(self.member, shares, 1)
        a = merged[:, 0] / np.sqrt(self.priors)[:, None] / self.deviations
        b = merged[:, 1] / np.sqrt(2 * self.priors)[:, None] / self.deviations**2
        c0 = b * (self.means**2 - self.deviations**2) - a * self.means
        return np.concatenate([c0, a - 2 * b * self.means, b], axis=2).astype(np.float32)

    def _relevance(self, tables, cell, rows, scratch) -> None:
        """R2 of a block by one product with its cell's tables and Horner's scheme."""
        y, r2, poly, dims = self.y[rows], self.r2[rows], scratch["poly"], self.y.shape[1]
        np.matmul(self.gamma[rows], tables[cell], out=poly)
        np.multiply(poly[:, 2 * dims :], y, out=r2)
        np.add(r2, poly[:, dims : 2 * dims], out=r2)
        np.multiply(r2, y, out=r2)
        np.add(r2, poly[:, :dims], out=r2)
        np.multiply(r2, self.inverse[rows], out=r2)

    def _back(self, x, epsilon, rows, scratch) -> None:
        """Eq. 1 through the projection, summed over the orientations of each spatial bin."""
        q, g, y, at = scratch["q"], scratch["g"], self.y[rows], self.order[rows]
        np.copysign(epsilon, y, out=q)
        np.add(q, y, out=q)
        np.divide(self.r2[rows], q, out=q)
        np.matmul(q, self.basis, out=g)
        np.take(x, at, axis=0, out=scratch["x"], mode="clip")
        np.multiply(g, scratch["x"], out=g)
        self.bins[at] = (g.reshape(-1, 8) @ scratch["eight"]).reshape(-1, BINS * BINS)

    def relevance(self, shares: np.ndarray) -> None:
        """Eqs. 5-6: r2 of all rows."""
        tables = self.tables(shares)
        self._over_blocks(partial(self._relevance, tables))

    def back(self, x: np.ndarray, epsilon: float) -> np.ndarray:
        """Pixels of the rows' r2, through projection and bins."""
        epsilon = np.float32(epsilon)
        self._over_blocks(lambda cell, rows, scratch: self._back(x, epsilon, rows, scratch))
        return self.splat()

    def explain(self, x: np.ndarray, target: int, epsilon: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
        """Scores of all classes, and the heatmap of one at depth "bin"."""
        sums = self.encode(x)
        vector, scores = self.scores(sums)
        tables = self.tables(self.shares(target, vector, sums, epsilon))
        epsilon = np.float32(epsilon)

        def step(cell, rows, scratch):
            self._relevance(tables, cell, rows, scratch)
            self._back(x, epsilon, rows, scratch)

        self._over_blocks(step)
        return scores, self.splat()

    def _prepare(self, scale):
        taps, lead = bin_taps("box", scale.bin_size)
        along = []
        for axis, length in ((0, self.geometry.height), (1, self.geometry.width)):
            centres = (scale.corners(axis)[:, None] + scale.bin_size * np.arange(BINS)).ravel()
            along.append(edge_weights(length, taps, lead, centres, "renormalise").reshape(-1, BINS))
        weights = along[0][:, None, :, None] * along[1][None, :, None, :]
        return scale, lead, weights.astype(np.float32)

    def splat(self) -> np.ndarray:
        """Pixels of the bins: one strided add per bin of a descriptor, then differences of boxes, summed up once."""
        height, width, pad = self.geometry.height, self.geometry.width, 2 * max(self.geometry.bin_sizes)
        total = np.zeros((height + 2 * pad, width + 2 * pad))
        for scale, lead, weights in self._splats:
            size, step = scale.bin_size, scale.step
            values = self.bins[scale.slice].reshape(scale.rows, scale.cols, BINS, BINS) * weights
            tall, wide = step * (scale.rows - 1) + 1, step * (scale.cols - 1) + 1
            grid = np.zeros((tall + (BINS - 1) * size, wide + (BINS - 1) * size), np.float32)
            for iy in range(BINS):
                for ix in range(BINS):
                    y, x = iy * size, ix * size
                    grid[y : y + tall : step, x : x + wide : step] += values[:, :, iy, ix]
            edges = np.zeros((len(grid) + size, grid.shape[1]))
            edges[: len(grid)] = grid
            edges[size:] -= grid
            at = scale.first + lead + pad
            place = total[at : at + len(edges), at : at + grid.shape[1] + size]
            place[:, : grid.shape[1]] += edges
            place[:, size:] -= edges
        # What lies before the image has been renormalised away from it, so that sums may start at its border.
        return total.cumsum(axis=0).cumsum(axis=1)[pad : pad + height, pad : pad + width]


def against_numpy(clf, image, pairs: int = 7) -> dict[str, float]:
    """From descriptors to a heatmap on one thread: fvlrp and `Chain` in turn, and how far the maps differ."""
    clf = copy.copy(clf).set_params(n_jobs=1)
    trace = clf.trace(image)
    encode, x = trace.stack.encode, trace.descriptors.values.astype(np.float32)
    target = trace.classes.index(trace.top)
    chain = Chain(clf, trace.descriptors.geometry)

    def ours():
        return explain_from(trace, encode.pooled(trace.descriptors, np.float32), target)

    with threadpool_limits(1, "blas"):
        theirs, mine = alternate(partial(chain.explain, x, target), ours, pairs)
        difference = relative(ours(), chain.explain(x, target)[1])
    theirs, mine = 1e3 * float(np.median(theirs)), 1e3 * float(np.median(mine))
    return {"NumPy": theirs, "fvlrp": mine, "ratio": theirs / mine, "difference": difference}


def _upward(trace, saved):
    """The forward pass of a trace with `saved` in the place of what its own pooling saved."""
    return trace.stack.upward(trace._pass(trace.dtype).encode._replace(fisher=saved))


def explain_from(trace, saved, target: int) -> np.ndarray:
    """Pixels at depth "bin" from what pooling saved."""
    targets = [trace.menu.target(trace.classes[target])]
    return walk(trace.stack, _upward(trace, saved), targets, ["bin"], RULES)[0].inputs[0][0]


def shares_of(trace, saved, target: int) -> np.ndarray:
    """R / (S + epsilon sgn S) of a class from what pooling saved: float64 (1, cells, 2, K, D)."""
    stack, passed = trace.stack, _upward(trace, saved)
    r = stack.start([trace.menu.target(trace.classes[target])], passed.linear)
    for layer, kept in ((stack.linear, passed.linear), (stack.normalise, passed.normalise)):
        (r,), _ = layer.relevance(r, kept, RULES)
    return eqs.shares(r, saved, RULES)[0]
