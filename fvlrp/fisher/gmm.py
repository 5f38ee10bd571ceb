"""Diagonal Gaussian mixtures by EM on the Fisher vector's own kernels, and the Fisher encoder for descriptor lists.

Soft assignment is the E-step, and the pooled moments of z = (y - mean) / deviation are the M-step: rows are streamed
in blocks, and nothing of size rows x components is ever held.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from time import monotonic

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .. import _kernels
from ..runtime import threads
from ..runtime.arguments import check_choice, is_real, is_whole

GATE = 1e-6  # posteriors below it do not move a mean by anything that float32 sums would show
SEGMENTS = 8  # of rows, each with its own sums, merged in order: the same bits for any number of threads
BLOCK = 8192  # rows whose posteriors exist at a time
SEEDS = 32  # rows to each component that the seeds are chosen from
GROWTH = 4  # EM settles on a share of the rows before it looks at so many times as many


class DiagonalGMM(DensityMixin, BaseEstimator):
    """Gaussian mixture with diagonal covariances, fitted by EM.

    float32 data are processed by the float32 kernels (sums in float64), everything else in float64.

    Parameters
    ----------
    n_components : int, default 256
    weights : {"smoothed", "ml"}
        Mixing weights: proportional to n_k + 100 N / K, which keeps them near 1 / K and 1 / sqrt(weight) tame, or the
        maximum-likelihood n_k / N.
    variance_floor : float, default 0.01
        Smallest variance of a component, in units of the data's variance in that dimension.
    max_iter : int, default 100
        Iterations over all rows, and over each share of them before.
    tol : float, default 5e-4
        EM stops when an iteration adds less than this share of all the log-likelihood gained so far.
    n_init_samples : int, default 50000
        Rows that EM looks at first, chosen at random. Where it has settled on them it goes on with five times as many,
        and so on up to all: most iterations are cheap, and the last ones see every row.
    random_state : int, RandomState or None
    n_jobs : int or None
        Threads, as scikit-learn counts; the results do not depend on it.
    verbose : bool

    Attributes
    ----------
    weights_, means_, covariances_ : float64 (K,), (K, D), (K, D)
    converged_ : bool
    n_iter_ : int
        Iterations over all rows.
    lower_bound_ : float
        Mean log-likelihood of the training rows.
    """

    def __init__(
        self,
        n_components=256,
        *,
        weights="smoothed",
        variance_floor=0.01,
        max_iter=100,
        tol=5e-4,
        n_init_samples=50_000,
        random_state=None,
        n_jobs=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.weights = weights
        self.variance_floor = variance_floor
        self.max_iter = max_iter
        self.tol = tol
        self.n_init_samples = n_init_samples
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X, y=None):
        """Fit the mixture to rows X (n, D); `y` is ignored."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C", ensure_min_samples=2)
        check_choice("weights", self.weights, ("smoothed", "ml"))
        for name in ("n_components", "max_iter", "n_init_samples"):
            if not is_whole(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        for name in ("variance_floor", "tol"):
            if not is_real(getattr(self, name)):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}")
        if not 1 <= self.n_components <= len(X):
            raise ValueError(f"n_components must lie in 1..n_samples = {len(X)}, got {self.n_components}")
        if self.n_components > 1 << 16:
            raise ValueError(f"n_components must be at most {1 << 16}, got {self.n_components}")
        for name in ("max_iter", "n_init_samples"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not self.variance_floor >= 0:
            raise ValueError(f"variance_floor must not be negative, got {self.variance_floor}")
        random = check_random_state(self.random_state)
        floor = np.maximum(self.variance_floor * self._variance(X), 1e-9)
        order = random.permutation(len(X)) if len(X) > self.n_init_samples else None
        gained, start, size = 0.0, monotonic(), max(self.n_init_samples, self.n_components)
        rows = X if order is None else X[np.sort(order[:size])]
        self._start(rows, floor, random)
        while len(rows) < len(X):
            gained = self._climb(rows, floor, gained, start)
            size *= GROWTH
            rows = X[np.sort(order[:size])] if size * GROWTH <= len(X) else X
        self._climb(X, floor, gained, start)
        return self

    def _variance(self, X: np.ndarray) -> np.ndarray:
        """Variance of every column in float64, without a copy of the rows in that type."""
        mean = X.mean(axis=0, dtype=np.float64)

        def block(at: int) -> np.ndarray:
            z = X[at : at + BLOCK] - mean
            return np.einsum("ij,ij->j", z, z)

        return sum(threads.run([partial(block, at) for at in range(0, len(X), BLOCK)], self.n_jobs)) / len(X)

    def _climb(self, X: np.ndarray, floor: np.ndarray, gained: float, start: float) -> float:
        """EM on rows X until an iteration gains little of the log-likelihood per row `gained` so far: all that is."""
        previous, self.converged_ = None, False
        for iteration in range(1, self.max_iter + 1):
            loglik, s0, s1, s2 = self._expect(X)
            self._maximise(len(X), s0, s1, s2, floor)
            self.n_iter_, self.lower_bound_ = iteration, loglik / len(X)
            if self.verbose:
                spent = f"{monotonic() - start:.1f} s"
                print(f"EM on {len(X)} rows, {iteration}: {self.lower_bound_:.5f} a row, {spent}", file=sys.stderr)
            if previous is not None:
                gain = self.lower_bound_ - previous
                gained += gain
                if gain <= self.tol * max(gained, 0.0):
                    self.converged_ = True
                    break
            previous = self.lower_bound_
        return gained

    def _start(self, X: np.ndarray, floor: np.ndarray, random: np.random.RandomState) -> None:
        """Means, variances and weights of the rows next to each of K seeds."""
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
        # Fewer distinct rows than components leave some without rows: these start from all.
        self.means_[counts == 0] = X.mean(axis=0, dtype=np.float64)
        self.covariances_[counts == 0] = X.var(axis=0, dtype=np.float64)
        self.covariances_ = np.maximum(self.covariances_, floor)
        self.weights_ = self._weigh(counts)

    def _weigh(self, counts: np.ndarray) -> np.ndarray:
        smooth = 100 * counts.sum() / len(counts) if self.weights == "smoothed" else np.finfo(np.float64).tiny
        return (counts + smooth) / (counts + smooth).sum()

    def _expect(self, X: np.ndarray) -> tuple:
        """Log-likelihood of all rows and their pooled moments."""
        model = self._model(X.dtype, GATE)
        edges = np.linspace(0, len(X), SEGMENTS + 1).astype(int)

        def moments(block: np.ndarray) -> tuple:
            encoded, logs = model.posteriors(block if model.stride == model.dims else model.pad(block), True)
            return logs.sum(), *model.pool(encoded)

        def segment(begin: int, end: int) -> tuple:
            sums, zeros = [0.0, 0.0, 0.0, 0.0], 0
            for at in range(begin, end, BLOCK):
                block = X[at : min(at + BLOCK, end)]
                zero = block[:, 0] == 0
                zero[zero] = ~block[zero].any(axis=1)
                if zero.any():
                    zeros += np.count_nonzero(zero)
                    block = block[~zero]
                sums = [total + part for total, part in zip(sums, moments(block), strict=True)]
            return sums, zeros

        parts = threads.run([partial(segment, a, b) for a, b in pairwise(edges) if b > a], self.n_jobs)
        sums = [sum(part[i] for part, _ in parts) for i in range(4)]
        # Rows of zeros are all alike, and a fifth of a photograph's descriptors: one stands for all.
        zeros = sum(count for _, count in parts)
        if zeros:
            sums = [total + zeros * part for total, part in zip(sums, moments(np.zeros_like(X[:1])), strict=True)]
        return tuple(sums)

    def _maximise(self, n: int, s0, s1, s2, floor: np.ndarray) -> None:
        """New parameters from moments of z, which are free of the cancellation that raw moments suffer."""
        held = s0 > 10 * np.finfo(np.float64).eps * n
        mean_z = np.zeros_like(s1)
        mean_z[held] = s1[held] / s0[held, None]
        variance_z = np.ones_like(s2)
        variance_z[held] = s2[held] / s0[held, None] - mean_z[held] ** 2
        self.means_ = self.means_ + np.sqrt(self.covariances_) * mean_z
        self.covariances_ = np.maximum(self.covariances_ * variance_z, floor)
        self.weights_ = self._weigh(s0)

    def _model(self, dtype, gate: float) -> _kernels.Model:
        return _kernels.Model(None, None, self.weights_, self.means_, self.covariances_, gate, dtype)

    def _rows(self, X) -> np.ndarray:
        check_is_fitted(self, "weights_")
        return validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)

    def predict_proba(self, X):
        """Posteriors (n, K) of every component, not gated."""
        X = self._rows(X)
        model = self._model(X.dtype, 0.0)

        def block(at: int) -> np.ndarray:
            encoded, _ = model.posteriors(model.pad(X[at : at + BLOCK]))
            # float posteriors below the smallest number are left out, so rows are filled by index.
            dense = np.zeros((len(encoded.y), len(self.weights_)), X.dtype)
            rows = np.repeat(np.arange(len(encoded.y)), np.diff(encoded.indptr))
            dense[rows, encoded.index] = encoded.gamma
            return dense

        return np.concatenate(threads.run([partial(block, at) for at in range(0, len(X), BLOCK)], self.n_jobs))

    def predict(self, X):
        """Most likely component of every row: int64 (n,)."""
        return self.predict_proba(X).argmax(axis=1)

    def score_samples(self, X):
        """Log-likelihood of every row: float64 (n,)."""
        X = self._rows(X)
        model = self._model(X.dtype, GATE)
        blocks = [
            partial(lambda at: model.posteriors(model.pad(X[at : at + BLOCK]), True)[1], at)
            for at in range(0, len(X), BLOCK)
        ]
        return np.concatenate(threads.run(blocks, self.n_jobs))

    def score(self, X, y=None):
        """Mean log-likelihood per row."""
        return float(self.score_samples(X).mean())


def nearest_seeds(X: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """Which of `count` rows, chosen by greedy k-means++, each row of X (n, D) lies next to: int64 (n,).

    Every seed is the best of a few candidates, drawn by their squared distance from the seeds before it. scikit-learn's
    `kmeans_plusplus` is the same, four times slower.
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


class FisherEncoder(TransformerMixin, BaseEstimator):
    """Fisher vectors of lists of descriptors: un-normalised sums of Eqs. 3-4 over each list.

    Parameters
    ----------
    gmm : DiagonalGMM, or anything with weights_, means_ and diagonal covariances_
        Used as it is where it is fitted: `transform` then needs no `fit`. An unfitted one is cloned, and `fit` learns
        it from the rows of all lists.
    gate : float, default 1e-6
        Posteriors below it count as 0.
    n_jobs : int or None

    Attributes
    ----------
    gmm_ : the mixture that is used, once `fit` was called
    """

    def __init__(self, gmm, *, gate=GATE, n_jobs=None):
        self.gmm = gmm
        self.gate = gate
        self.n_jobs = n_jobs

    def fit(self, X=None, y=None):
        """Learn the mixture from the lists of descriptors X, unless it is given fitted; `y` is ignored."""
        if hasattr(self.gmm, "weights_"):
            self.gmm_ = self.gmm
            return self
        if X is None:
            check_is_fitted(self.gmm, "weights_")
        self.gmm_ = clone(self.gmm).fit(np.concatenate([_rows(i, x) for i, x in enumerate(_lists(X))]))
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "gmm_") or hasattr(self.gmm, "weights_")

    def transform(self, X: Iterable) -> np.ndarray:
        """Sums float64 (m, 2 K D) of m arrays of descriptors (n_i, D), laid out [u_1..u_K, v_1..v_K], each of length D.

        A list of no descriptors has a vector of zeros. Arrays of float32 or uint8 are encoded in float32 (sums in
        float64).
        """
        gmm = self.gmm if hasattr(self.gmm, "weights_") else getattr(self, "gmm_", self.gmm)
        check_is_fitted(gmm, "weights_")
        weights, means, covariances = (np.asarray(a, np.float64) for a in (gmm.weights_, gmm.means_, gmm.covariances_))
        if covariances.shape != means.shape:
            raise ValueError(
                f"gmm.covariances_ must be diagonal, of shape {means.shape}, got {covariances.shape}: "
                "fit the mixture with covariance_type='diag'"
            )
        if not (is_real(self.gate) and 0 <= self.gate < 1):
            raise ValueError(f"gate must lie in [0, 1), got {self.gate!r}")
        lists = [_rows(i, x, means.shape[1]) for i, x in enumerate(_lists(X))]
        models = {
            dtype: _kernels.Model(None, None, weights, means, covariances, self.gate, dtype)
            for dtype in {x.dtype for x in lists}
        }

        def encode(x: np.ndarray) -> np.ndarray:
            model, s0, s1, s2 = models[x.dtype], 0.0, 0.0, 0.0
            for at in range(0, len(x), BLOCK):
                a, b, c = model.pool(model.posteriors(model.pad(x[at : at + BLOCK]))[0])
                s0, s1, s2 = s0 + a, s1 + b, s2 + c
            if not len(x):
                return np.zeros(2 * means.size)
            by_u = 1 / np.sqrt(weights)[:, None]
            return np.concatenate([(s1 * by_u).ravel(), ((s2 - s0[:, None]) * by_u / np.sqrt(2)).ravel()])

        return np.array(threads.run([partial(encode, x) for x in lists], self.n_jobs)).reshape(
            len(lists), 2 * means.size
        )


def _lists(X) -> Iterable:
    if isinstance(X, np.ndarray) and X.ndim == 2:
        raise ValueError(f"X must be a list of (n, D) arrays, one an image, got one array of shape {X.shape}: [X]?")
    return X


def _rows(i: int, x, dims: int | None = None) -> np.ndarray:
    """Descriptors as real (n, D), in the precision that they are encoded in."""
    x = np.asarray(x)
    x = np.ascontiguousarray(x, np.float32 if x.dtype in (np.float32, np.uint8) else np.float64)
    if x.ndim != 2 or dims not in (None, x.shape[1]):
        wanted = "(n, D)" if dims is None else f"(n, {dims}), as the mixture has"
        raise ValueError(f"X[{i}] must have shape {wanted}, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"X[{i}] holds NaN or infinity")
    return x
