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

from . import _kernels, threads
from .rules import choose, real, whole

GATE = 1e-6  # posteriors below it do not move a mean by anything that float32 sums would show
SEGMENTS = 8  # of rows, each with its own sums, merged in order: the same bits for any number of threads
BLOCK = 8192  # rows whose posteriors exist at a time


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
    tol : float, default 1e-3
        EM stops when an iteration adds less than this share of all the log-likelihood gained so far.
    n_init_samples : int, default 50000
        Rows that the k-means start (k-means++ seeds) looks at.
    random_state : int, RandomState or None
    n_jobs : int or None
        Threads, as scikit-learn counts; the results do not depend on it.
    verbose : bool

    Attributes
    ----------
    weights_, means_, covariances_ : float64 (K,), (K, D), (K, D)
    converged_ : bool
    n_iter_ : int
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
        tol=1e-3,
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
        choose("weights", self.weights, ("smoothed", "ml"))
        for name in ("n_components", "max_iter", "n_init_samples"):
            if not whole(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        for name in ("variance_floor", "tol"):
            if not real(getattr(self, name)):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}")
        if not 1 <= self.n_components <= len(X):
            raise ValueError(f"n_components must lie in 1..n_samples = {len(X)}, got {self.n_components}")
        if self.n_components > 1 << 16:
            raise ValueError(f"n_components must be at most {1 << 16}, got {self.n_components}")
        if self.max_iter < 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}")
        if not self.variance_floor >= 0:
            raise ValueError(f"variance_floor must not be negative, got {self.variance_floor}")
        variance = X.var(axis=0, dtype=np.float64)
        floor = np.maximum(self.variance_floor * variance, 1e-9)
        self._start(X, floor)

        first = previous = None
        self.converged_, start = False, monotonic()
        for iteration in range(1, self.max_iter + 1):
            loglik, s0, s1, s2 = self._expect(X)
            self._maximise(len(X), s0, s1, s2, floor)
            self.n_iter_, self.lower_bound_ = iteration, loglik / len(X)
            if self.verbose:
                print(f"EM {iteration}: {self.lower_bound_:.5f} a row, {monotonic() - start:.1f} s", file=sys.stderr)
            first = loglik if first is None else first
            gained = loglik - first
            if previous is not None and loglik - previous <= self.tol * max(gained, 0.0):
                self.converged_ = True
                break
            previous = loglik
        return self

    def _start(self, X: np.ndarray, floor: np.ndarray) -> None:
        """Means, variances and weights of a few k-means steps on a sample, from k-means++ seeds."""
        import warnings

        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        random = check_random_state(self.random_state)
        size = max(self.n_init_samples, self.n_components)
        sample = X if len(X) <= size else X[np.sort(random.choice(len(X), size, replace=False))]
        seed = random.randint(np.iinfo(np.int32).max)
        clusters = KMeans(self.n_components, n_init=1, max_iter=20, tol=1e-3, random_state=seed)
        # One BLAS thread: the sums of k-means are then the same for any number of processors. Stopping early, or
        # finding fewer distinct points than clusters, is fine for a start.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = clusters.fit(sample).labels_
        counts = np.bincount(labels, minlength=self.n_components).astype(np.float64)
        self.means_ = clusters.cluster_centers_.astype(np.float64)
        squares = np.zeros_like(self.means_)
        np.add.at(squares, labels, (sample - self.means_[labels]) ** 2)
        self.covariances_ = np.maximum(squares / np.maximum(counts, 1)[:, None], floor)
        self.weights_ = self._weigh(counts)

    def _weigh(self, counts: np.ndarray) -> np.ndarray:
        smooth = 100 * counts.sum() / len(counts) if self.weights == "smoothed" else np.finfo(np.float64).tiny
        return (counts + smooth) / (counts + smooth).sum()

    def _expect(self, X: np.ndarray) -> tuple:
        """Log-likelihood of all rows and their pooled moments."""
        model = self._model(X.dtype, GATE)
        edges = np.linspace(0, len(X), SEGMENTS + 1).astype(int)

        def segment(begin: int, end: int) -> list:
            sums = [0.0, 0.0, 0.0, 0.0]
            for at in range(begin, end, BLOCK):
                encoded, logs = model.posteriors(model.pad(X[at : min(at + BLOCK, end)]), True)
                for i, part in enumerate((logs.sum(), *model.pool(encoded))):
                    sums[i] = sums[i] + part
            return sums

        tasks = [partial(segment, a, b) for a, b in pairwise(edges) if b > a]
        parts = threads.run(tasks, self.n_jobs)
        return tuple(sum(part[i] for part in parts) for i in range(4))

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
        if not (real(self.gate) and 0 <= self.gate < 1):
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
