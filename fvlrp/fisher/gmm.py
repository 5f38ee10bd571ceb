"""Diagonal Gaussian mixtures, fitted by EM with the kernels of the Fisher vector.

Soft assignment is the E-step; the M-step follows from the pooled moments of z = (y - mean) / deviation. Rows are
streamed in blocks, so no array of rows x components is ever stored. Hides how rows are divided and seeds are chosen.
For the encoder and the classifier of this wing; `DiagonalGMM` is public.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from time import monotonic
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from .. import _kernels
from ..core.estimator import Estimator, check_fitted
from ..runtime import cluster, threads
from ..runtime.arguments import check_choice, is_real, is_whole
from ..runtime.types import Doubles, Floats

Moments: TypeAlias = tuple[float, Doubles, Doubles, Doubles]  # log-likelihood; sums of gamma, gamma z and gamma z^2

GATE = 1e-6  # posteriors below it count as 0: docs/numerics.md §1
SEGMENTS = 8  # of rows, each with its own sums, merged in order: results do not depend on the number of threads
FARTHEST = 1e18  # in deviations, of a float32 row in one dimension: the squares of 128 stay below 3.4e38
BLOCK = 8192  # rows whose posteriors exist at the same time
SEEDS = 32  # rows per component among which seeds are chosen
GROWTH = 4  # EM converges on a share of the rows, then continues with GROWTH times as many


class DiagonalGMM(Estimator):
    """Gaussian mixture with diagonal covariances, fitted by EM.

    float32 data are processed by the float32 kernels, with sums in float64; everything else in float64.

    Parameters
    ----------
    n_components : int, default 256
    weights : {"smoothed", "ml"}
        Mixing weights: proportional to n_k + 100 N / K, which keeps them near 1 / K and 1 / sqrt(weight) small; or the
        maximum-likelihood estimate n_k / N.
    variance_floor : float, default 0.01
        Smallest variance of a component, as a fraction of the data's variance in that dimension.
    max_iter : int, default 100
        Most iterations on all rows, and on each share of them before.
    tol : float, default 5e-4
        EM stops when an iteration improves the log-likelihood by less than this fraction of the total gain so far.
    n_init_samples : int, default 50000
        Number of rows, chosen at random, on which EM starts. After convergence it continues with four times as many,
        and so on up to all rows: most iterations are cheap, and the last ones use every row.
    random_state : int, RandomState or None
    n_jobs : int or None
        Threads, as in scikit-learn. Results do not depend on it.
    verbose : bool
        Whether to show every iteration on stderr.

    Attributes
    ----------
    weights_, means_, covariances_ : float64 (K,), (K, D), (K, D)
    converged_ : bool
    n_iter_ : int
        Iterations over all rows.
    lower_bound_ : float
        Mean log-likelihood of the training rows.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(1000, 8))
    >>> gmm = fvlrp.DiagonalGMM(n_components=4, random_state=0).fit(rows)
    >>> gmm.means_.shape, round(float(gmm.weights_.sum()), 6)
    ((4, 8), 1.0)
    >>> gmm.predict_proba(rows[:2]).shape
    (2, 4)
    """

    n_features_in_: int  # scikit-learn's validate_data sets and compares it

    def __init__(
        self,
        n_components: int = 256,
        *,
        weights: str = "smoothed",
        variance_floor: float = 0.01,
        max_iter: int = 100,
        tol: float = 5e-4,
        n_init_samples: int = 50_000,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.weights = weights
        self.variance_floor = variance_floor
        self.max_iter = max_iter
        self.tol = tol
        self.n_init_samples = n_init_samples
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: npt.ArrayLike, y: object = None) -> DiagonalGMM:
        """Fit the mixture to rows X (n, D); `y` is ignored.

        Raises
        ------
        ValueError
            A parameter out of range, or rows that are not finite.
        """
        from sklearn.utils import check_random_state
        from sklearn.utils.validation import validate_data

        rows: Floats = validate_data(self, X, dtype=[np.float64, np.float32], order="C", ensure_min_samples=2)
        self._check(len(rows))
        random = check_random_state(self.random_state)
        floor = np.maximum(self.variance_floor * self._variance(rows), 1e-9)  # 1e-9 for constant data
        order = random.permutation(len(rows)) if len(rows) > self.n_init_samples else None
        gained, start, size = 0.0, monotonic(), max(self.n_init_samples, self.n_components)
        share = rows if order is None else rows[np.sort(order[:size])]
        self._start(share, floor, random)
        while order is not None and len(share) < len(rows):
            gained = self._climb(share, floor, gained, start)
            size *= GROWTH
            share = rows[np.sort(order[:size])] if size * GROWTH <= len(rows) else rows
        self._climb(rows, floor, gained, start)
        return self

    def _check(self, n_samples: int) -> None:
        """Raise ValueError, naming the parameter, unless all are in range."""
        check_choice("weights", self.weights, ("smoothed", "ml"))
        for name in ("n_components", "max_iter", "n_init_samples"):
            if not is_whole(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        for name in ("variance_floor", "tol"):
            if not is_real(getattr(self, name)):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}")
        if not 1 <= self.n_components <= n_samples:
            raise ValueError(f"n_components must lie in 1..n_samples = {n_samples}, got {self.n_components}")
        if self.n_components > 1 << 16:
            raise ValueError(f"n_components must be at most {1 << 16}, got {self.n_components}")
        for name in ("max_iter", "n_init_samples"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not self.variance_floor >= 0:
            raise ValueError(f"variance_floor must not be negative, got {self.variance_floor}")

    def _variance(self, X: Floats) -> Doubles:
        """Variance of every column in float64, without a copy of the rows in that type."""
        mean = X.mean(axis=0, dtype=np.float64)

        def block(at: int) -> Doubles:
            z = X[at : at + BLOCK] - mean
            squares: Doubles = np.einsum("ij,ij->j", z, z)
            return squares

        total = np.zeros(X.shape[1])
        for part in threads.run([partial(block, at) for at in range(0, len(X), BLOCK)], self.n_jobs):
            total += part
        return total / len(X)

    def _climb(self, X: Floats, floor: Doubles, gained: float, start: float) -> float:
        """EM on rows X until it converges; the log-likelihood per row gained so far, `gained` included.

        `start` is when `fit` began.
        """
        previous: float | None = None
        self.converged_ = False
        pool = cluster.workers(self.n_jobs)
        edges = np.linspace(0, len(X), SEGMENTS + 1).astype(int).tolist()
        segments = [pool.keep(X[begin:end]) for begin, end in pairwise(edges) if end > begin]
        for iteration in range(1, self.max_iter + 1):
            loglik, s0, s1, s2 = self._expect(segments, pool, X.dtype)
            self._maximise(len(X), s0, s1, s2, floor)
            self.n_iter_, self.lower_bound_ = iteration, loglik / len(X)
            if self.verbose:
                spent = f"{monotonic() - start:.1f} s"
                print(f"EM on {len(X)} rows, {iteration}: {self.lower_bound_:.5f} per row, {spent}", file=sys.stderr)
            if previous is not None:
                gain = self.lower_bound_ - previous
                gained += gain
                if gain <= self.tol * max(gained, 0.0):
                    self.converged_ = True
                    break
            previous = self.lower_bound_
        return gained

    def _start(self, X: Floats, floor: Doubles, random: np.random.RandomState) -> None:
        """Start from the means, variances and weights of the rows next to each of K seeds."""
        if len(X) > SEEDS * self.n_components:
            X = X[np.sort(random.choice(len(X), SEEDS * self.n_components, replace=False))]
        # One BLAS thread: the same bits for any number of processors.
        with threadpool_limits(1, "blas"):
            labels = nearest_seeds(X, self.n_components, random)
            members = np.zeros((self.n_components, len(X)), X.dtype)
            members[labels, np.arange(len(X))] = 1
            counts = members.sum(axis=1, dtype=np.float64)
            held = np.maximum(counts, 1)[:, None]
            self.means_ = (members @ X).astype(np.float64) / held
            offsets = X - self.means_[labels].astype(X.dtype)
            self.covariances_ = (members @ (offsets * offsets)).astype(np.float64) / held
        # With fewer distinct rows than components, some components have no rows: these start from all rows.
        self.means_[counts == 0] = X.mean(axis=0, dtype=np.float64)
        self.covariances_[counts == 0] = X.var(axis=0, dtype=np.float64)
        self.covariances_ = np.maximum(self.covariances_, floor)
        self.weights_ = self._weigh(counts)

    def _weigh(self, counts: Doubles) -> Doubles:
        """Mixing weights of components that hold `counts` (K,) rows."""
        smooth = 100 * counts.sum() / len(counts) if self.weights == "smoothed" else np.finfo(np.float64).tiny
        weights: Doubles = (counts + smooth) / (counts + smooth).sum()
        return weights

    def _expect(self, segments: Sequence[Floats], pool: cluster.Workers, dtype: npt.DTypeLike) -> Moments:
        """E-step: log-likelihood of all rows, and their pooled moments: the sums of those of each segment."""
        mixture = self.weights_, self.means_, self.covariances_
        parts = list(pool.each(_expect_segment, ((*mixture, segment) for segment in segments)))
        totals = parts[0][0]
        for moments, _ in parts[1:]:
            totals = _added(totals, moments)
        # Rows of zeros are a fifth of a photograph's descriptors, and identical: one represents all.
        zeros = sum(count for _, count in parts)
        if not zeros:
            return totals
        row = np.zeros((1, self.means_.shape[1]), dtype)
        return _added(totals, _moments(self._kernels_model(dtype, GATE), row), zeros)

    def _maximise(self, n: int, s0: Doubles, s1: Doubles, s2: Doubles, floor: Doubles) -> None:
        """M-step: parameters from moments of z, which are free of the cancellation that raw moments suffer."""
        held = s0 > 10 * np.finfo(np.float64).eps * n
        mean_z = np.zeros_like(s1)
        mean_z[held] = s1[held] / s0[held, None]
        variance_z = np.ones_like(s2)
        variance_z[held] = s2[held] / s0[held, None] - mean_z[held] ** 2
        self.means_ = self.means_ + np.sqrt(self.covariances_) * mean_z
        self.covariances_ = np.maximum(self.covariances_ * variance_z, floor)
        self.weights_ = self._weigh(s0)

    def _kernels_model(self, dtype: npt.DTypeLike, gate: float) -> _kernels.Model:
        return _kernels.Model(None, None, self.weights_, self.means_, self.covariances_, gate, dtype)

    def _rows(self, X: npt.ArrayLike) -> Floats:
        from sklearn.utils.validation import validate_data

        check_fitted(self, "weights_")
        rows: Floats = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)
        check_magnitude(rows, self.covariances_, "X")
        return rows

    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Posteriors (n, K) of every component, not gated; float32 for float32 rows, else float64."""
        rows = self._rows(X)
        model = self._kernels_model(rows.dtype, 0.0)

        def block(at: int) -> Floats:
            encoded, _ = model.posteriors(model.pad(rows[at : at + BLOCK]))
            # Posteriors below the smallest normal number are left out, so entries are placed by index.
            dense = np.zeros((len(encoded.indptr) - 1, len(self.weights_)), rows.dtype)
            dense[np.repeat(np.arange(len(dense)), np.diff(encoded.indptr)), encoded.index] = encoded.gamma
            return dense

        return np.concatenate(threads.run([partial(block, at) for at in range(0, len(rows), BLOCK)], self.n_jobs))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Most likely component of every row: int64 (n,)."""
        labels: npt.NDArray[np.int64] = self.predict_proba(X).argmax(axis=1)
        return labels

    def score_samples(self, X: npt.ArrayLike) -> Doubles:
        """Log-likelihood of every row: float64 (n,)."""
        rows = self._rows(X)
        model = self._kernels_model(rows.dtype, GATE)

        def block(at: int) -> Doubles:
            return log_likelihoods(model, rows[at : at + BLOCK])[1]

        return np.concatenate(threads.run([partial(block, at) for at in range(0, len(rows), BLOCK)], self.n_jobs))

    def score(self, X: npt.ArrayLike, y: object = None) -> float:
        """Mean log-likelihood per row; `y` is ignored."""
        return float(self.score_samples(X).mean())


def _expect_segment(weights: Doubles, means: Doubles, covariances: Doubles, X: Floats) -> tuple[Moments, int]:
    """Log-likelihood and moments of some rows except rows of zeros, and the number of these."""
    model = _kernels.Model(None, None, weights, means, covariances, GATE, X.dtype)
    size = model.components
    totals: Moments = (0.0, np.zeros(size), np.zeros((size, model.dims)), np.zeros((size, model.dims)))
    zeros = 0
    for at in range(0, len(X), BLOCK):
        block = X[at : at + BLOCK]
        zero = block[:, 0] == 0
        zero[zero] = ~block[zero].any(axis=1)
        if zero.any():
            zeros += int(np.count_nonzero(zero))
            block = block[~zero]
        totals = _added(totals, _moments(model, block))
    return totals, zeros


def _moments(model: _kernels.Model, block: Floats) -> Moments:
    """Log-likelihood and pooled moments of a block of rows."""
    encoded, logs = log_likelihoods(model, block)
    return float(logs.sum()), *model.pool(encoded)


def log_likelihoods(model: _kernels.Model, block: Floats) -> tuple[_kernels.Encoded, Doubles]:
    """Posteriors of a block of rows (n, D), and the log-likelihood of each (n,)."""
    encoded, logs = model.posteriors(block if model.stride == model.dims else model.pad(block), True)
    assert logs is not None
    return encoded, logs


def _added(total: Moments, part: Moments, times: int = 1) -> Moments:
    """`total` with `times` the moments of `part`."""
    loglik, s0, s1, s2 = part
    return total[0] + times * loglik, total[1] + times * s0, total[2] + times * s1, total[3] + times * s2


def check_magnitude(rows: Floats, variances: Doubles, name: str) -> None:
    """ValueError for float32 rows (n, D) that are so far from a mixture that their squared distances overflow float32.

    They would have no posterior, a likelihood of 0, and a Fisher vector of zeros.
    """
    if rows.dtype != np.float32 or not rows.size:
        return
    largest, deviation = max(float(rows.max()), -float(rows.min())), float(np.sqrt(np.min(variances)))
    if largest > FARTHEST * deviation:
        raise ValueError(
            f"{name} has float32 values of up to {largest:.3g}, of which the squares overflow in units of the "
            f"mixture's smallest variance ({deviation**2:.3g}): expected smaller values, or float64"
        )


def nearest_seeds(X: Floats, count: int, random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Which of `count` rows, chosen by greedy k-means++, each row of X (n, D) lies next to: int64 (n,).

    Every seed is the best of a few candidates, drawn by their squared distance from the seeds before it.
    scikit-learn's `kmeans_plusplus` does the same, four times slower.
    """
    columns = np.ascontiguousarray((X - X.mean(axis=0, dtype=np.float64).astype(X.dtype)).T)
    squares = np.einsum("ij,ij->j", columns, columns)
    distance, labels = np.full(len(X), np.inf, X.dtype), np.zeros(len(X), np.int64)
    trials = 2 + int(np.log(count))
    found, nearer = np.empty((2, trials, len(X)), X.dtype)
    candidates = np.full(trials, random.randint(len(X)))
    for seed in range(count):
        np.matmul(-2 * columns[:, candidates].T, columns, out=found)
        found += squares
        found += squares[candidates, None]
        np.maximum(found, 0, out=found)
        best = found[np.minimum(found, distance, out=nearer).sum(axis=1, dtype=np.float64).argmin()]
        closer = best < distance
        labels[closer] = seed
        distance[closer] = best[closer]
        reach = np.cumsum(distance, dtype=np.float64)
        candidates = np.minimum(np.searchsorted(reach, random.random_sample(trials) * reach[-1]), len(X) - 1)
    return labels
