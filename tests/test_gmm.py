"""The mixture against plain EM and scikit-learn's."""

import re

import numpy as np
import pytest
import reference
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from fvlrp import FisherEncoder
from fvlrp.fisher.gmm import DiagonalGMM, nearest_seeds

TYPES = ("float32", "float64")


def blobs(n=600, n_centres=4, dims=3, seed=0, dtype="float64"):
    """Clusters of different spreads, many standard deviations apart."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-10, 10, (n_centres, dims))
    spread = rng.uniform(0.4, 1.2, (n_centres, dims))
    label = rng.integers(0, n_centres, n)
    return (centres[label] + spread[label] * rng.standard_normal((n, dims))).astype(dtype)


def counted(seen, expect):
    """An E-step that appends its number of rows to `seen`."""
    return lambda gmm, segments, *how: seen.append(sum(map(len, segments))) or expect(gmm, segments, *how)


def cloud(n=500, dims=4, seed=0, dtype="float64"):
    """One cluster, in which components overlap."""
    return np.random.default_rng(seed).gamma(2.0, 1.0, (n, dims)).astype(dtype)


def parameters(gmm):
    return gmm.weights_, gmm.means_, gmm.covariances_


def assert_same_bits(one, other):
    for a, b in zip(parameters(one), parameters(other), strict=True):
        assert a.tobytes() == b.tobytes()


@parametrize_with_checks([DiagonalGMM(n_components=2, max_iter=20), DiagonalGMM(n_components=1, weights="ml")])
def test_mixture_passes_every_check_of_scikit_learn(estimator, check):
    check(estimator)


# ---- EM --------------------------------------------------------------------------------------------------------------


def em_step(X, weights, means, variances, floor, smooth):
    """Plain EM in raw moments."""
    gamma, loglik = reference.posteriors(X, weights, means, variances)
    n = gamma.sum(axis=0)
    means = (gamma.T @ X) / n[:, None]
    variances = np.array([g @ (X - m) ** 2 for g, m in zip(gamma.T, means, strict=True)]) / n[:, None]
    weights = n + smooth * len(X) / len(n)
    return weights / weights.sum(), means, np.maximum(variances, floor), loglik.mean()


@pytest.mark.parametrize("zeros", (0, 1, 60))
@pytest.mark.parametrize("weights, smooth", (("ml", 0), ("smoothed", 100)))
def test_each_step_equals_plain_em(weights, smooth, zeros):
    """Three steps from the same start; rows of zeros, which the fit represents by a single one, change nothing."""
    X = cloud(300)
    X[:zeros] = 0
    X[100, 0] = X[101, 1:] = 0  # rows that are zero only in part
    gmm = DiagonalGMM(5, weights=weights, variance_floor=1e-4, tol=0.0, max_iter=1, random_state=0).fit(X)
    floor = 1e-4 * X.var(axis=0)
    for steps in (2, 3, 4):
        *expected, loglik = em_step(X, *parameters(gmm), floor, smooth)
        gmm = clone(gmm).set_params(max_iter=steps).fit(X)
        for got, want in zip(parameters(gmm), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)  # posteriors below the gate are left out
        assert gmm.lower_bound_ == pytest.approx(loglik, rel=1e-9)


def test_the_log_likelihood_never_falls():
    X = cloud(500)
    bounds = [
        DiagonalGMM(6, weights="ml", variance_floor=1e-6, tol=0.0, max_iter=steps, random_state=1).fit(X).lower_bound_
        for steps in range(1, 21)
    ]
    assert (np.diff(bounds) > -1e-9).all()
    assert bounds[-1] > bounds[0] + 1e-3


def test_the_fit_is_as_good_as_scikit_learns():
    from sklearn.mixture import GaussianMixture

    X = blobs(800)
    ours = DiagonalGMM(4, weights="ml", variance_floor=1e-6, tol=1e-7, random_state=0).fit(X)
    theirs = GaussianMixture(4, covariance_type="diag", reg_covar=0, tol=1e-7, n_init=5, random_state=0).fit(X)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-6)
    order, other = np.argsort(ours.means_[:, 0]), np.argsort(theirs.means_[:, 0])
    for a, b in zip(parameters(ours), parameters(theirs), strict=False):
        np.testing.assert_allclose(a[order], b[other], rtol=1e-4, atol=1e-4)


def test_methods_are_those_of_scikit_learn_with_the_same_parameters():
    from sklearn.mixture import GaussianMixture

    X = cloud(300)
    ours = DiagonalGMM(5, random_state=0, max_iter=5).fit(X)
    theirs = GaussianMixture(5, covariance_type="diag")
    theirs.weights_, theirs.means_, theirs.covariances_ = parameters(ours)
    theirs.precisions_cholesky_ = 1 / np.sqrt(ours.covariances_)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10)
    assert ours.score(X) == pytest.approx(theirs.score(X))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_em_stops_when_an_iteration_gains_little_of_the_total_gain():
    X = cloud(500)

    def fit(**parameters):
        return DiagonalGMM(6, weights="ml", random_state=1, **parameters).fit(X)

    stopped = fit(tol=1e-2)
    assert stopped.converged_ and 2 < stopped.n_iter_ < 100
    bounds = [fit(tol=0.0, max_iter=steps).lower_bound_ for steps in range(1, stopped.n_iter_ + 1)]
    gains, gained = np.diff(bounds), np.array(bounds[1:]) - bounds[0]
    assert gains[-1] <= 1e-2 * gained[-1]
    assert (gains[:-1] > 1e-2 * gained[:-1]).all()
    assert not fit(tol=0.0, max_iter=3).converged_


def test_smoothed_weights_lie_near_one_over_k():
    X = blobs(1000, 4)
    ml, smoothed = (DiagonalGMM(4, weights=w, random_state=0).fit(X) for w in ("ml", "smoothed"))
    n = ml.predict_proba(X).sum(axis=0)  # the clusters are far apart: EM has converged
    np.testing.assert_allclose(ml.weights_, n / 1000, rtol=1e-6)
    n = smoothed.predict_proba(X).sum(axis=0)
    np.testing.assert_allclose(smoothed.weights_, (n + 100 * 1000 / 4) / (1000 + 100 * 1000), rtol=1e-6)
    assert np.abs(4 * smoothed.weights_ - 1).max() < 0.03 < np.abs(4 * ml.weights_ - 1).max()


def test_variances_are_at_least_a_fraction_of_those_of_the_data():
    X = blobs(300, 3)
    X[:100] = 50  # a component of one point
    gmm = DiagonalGMM(4, variance_floor=0.01, random_state=0).fit(X)
    floor = 0.01 * X.var(axis=0)
    assert (gmm.covariances_ >= 0.01 * gmm._variance(X)).all()  # exactly; X.var sums in another order
    np.testing.assert_allclose(gmm.covariances_.min(axis=0), floor, rtol=1e-12)
    tight = DiagonalGMM(4, variance_floor=1e-12, random_state=0).fit(X)
    assert tight.covariances_.min() == 1e-9


def test_float32_data_give_the_fit_of_float64_data():
    X = blobs(dtype="float32")
    single, double = (DiagonalGMM(4, random_state=0, max_iter=10).fit(X.astype(dtype)) for dtype in TYPES)
    for a, b in zip(parameters(single), parameters(double), strict=True):
        assert a.dtype == b.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(single.means_, double.means_)  # the float32 kernels were used
    assert single.predict_proba(X).dtype == np.float32
    assert double.predict_proba(X.astype(float)).dtype == np.float64
    assert single.score_samples(X).dtype == np.float64


@pytest.mark.parametrize("dtype", TYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype):
    X = cloud(1003, dtype=dtype)
    parameters = {"max_iter": 5, "n_init_samples": 200, "random_state": 0}
    one, *others = (DiagonalGMM(7, n_jobs=n, **parameters).fit(X) for n in (None, 1, 2, 3))
    for other in others:
        assert_same_bits(one, other)
        assert other.predict_proba(X).tobytes() == one.predict_proba(X).tobytes()
        assert other.score_samples(X).tobytes() == one.score_samples(X).tobytes()


def test_the_random_state_determines_the_fit():
    X = cloud(400)
    one, same = (DiagonalGMM(6, random_state=3, max_iter=5).fit(X) for _ in range(2))
    assert_same_bits(one, same)
    assert_same_bits(one, DiagonalGMM(6, random_state=np.random.RandomState(3), max_iter=5).fit(X))
    other = DiagonalGMM(6, random_state=4, max_iter=5).fit(X)
    assert not np.array_equal(np.sort(one.means_, axis=0), np.sort(other.means_, axis=0))


def test_em_converges_on_growing_subsets_of_the_rows(monkeypatch):
    """The same final likelihood with fewer iterations over all rows; each subset is four times the one before."""
    X, seen = blobs(8000, 12), []
    expect = DiagonalGMM._expect
    monkeypatch.setattr(DiagonalGMM, "_expect", counted(seen, expect))
    parameters = {"weights": "ml", "tol": 1e-4, "random_state": 0}
    whole = DiagonalGMM(12, n_init_samples=8000, **parameters).fit(X)
    assert set(seen) == {8000}
    seen.clear()
    shares = DiagonalGMM(12, n_init_samples=300, **parameters).fit(X)
    assert sorted(seen) == seen and list(dict.fromkeys(seen)) == [300, 1200, 8000]
    assert shares.n_iter_ == seen.count(8000) < whole.n_iter_
    assert shares.lower_bound_ > whole.lower_bound_ - 0.01 * np.abs(whole.lower_bound_)


def test_iterations_are_limited_on_every_subset(monkeypatch):
    seen, expect = [], DiagonalGMM._expect
    monkeypatch.setattr(DiagonalGMM, "_expect", counted(seen, expect))
    gmm = DiagonalGMM(4, n_init_samples=100, max_iter=2, tol=0.0, random_state=0).fit(cloud(1000))
    assert seen == [100, 100, 1000, 1000] and gmm.n_iter_ == 2 and not gmm.converged_


def test_seeds_lie_as_close_to_the_rows_as_those_of_scikit_learn():
    from sklearn.cluster import kmeans_plusplus

    X = cloud(3000, 6)

    def spread(centres):
        return ((X[:, None] - centres) ** 2).sum(axis=2).min(axis=1).sum()

    theirs = np.mean([spread(kmeans_plusplus(X, 40, random_state=seed)[0]) for seed in range(5)])
    random = np.mean([spread(X[np.random.default_rng(seed).choice(3000, 40, replace=False)]) for seed in range(5)])
    ours = []
    for seed in range(5):
        labels = nearest_seeds(X, 40, np.random.RandomState(seed))
        within = [X[labels == label] for label in range(40)]
        assert all(len(rows) for rows in within)
        # Distances to the means of clusters, which are shorter than to the seeds; the same for scikit-learn's below.
        ours.append(sum(((rows - rows.mean(axis=0)) ** 2).sum() for rows in within))
    moved = []
    for seed in range(5):
        centres = kmeans_plusplus(X, 40, random_state=seed)[0]
        label = ((X[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        moved.append(sum(((X[label == k] - X[label == k].mean(axis=0)) ** 2).sum() for k in range(40)))
    assert np.mean(ours) < 1.05 * np.mean(moved) < 1.05 * theirs < random


def test_rows_in_several_blocks_add_up(monkeypatch):
    X = cloud(500)
    whole = DiagonalGMM(4, random_state=0, max_iter=4).fit(X)
    monkeypatch.setattr("fvlrp.fisher.gmm.BLOCK", 23)
    pieces = DiagonalGMM(4, random_state=0, max_iter=4).fit(X)
    for a, b in zip(parameters(pieces), parameters(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    for got, expected in ((pieces.predict_proba(X), whole.predict_proba(X)), (pieces.predict(X), whole.predict(X))):
        np.testing.assert_allclose(got, expected, rtol=1e-8)
    np.testing.assert_allclose(pieces.score_samples(X), whole.score_samples(X), rtol=1e-8)


# ---- odd data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ("smoothed", "ml"))
@pytest.mark.parametrize("dtype", TYPES)
def test_fewer_distinct_points_than_components_are_fitted(dtype, weights):
    X = np.repeat(np.array([[0, 0], [1, 5], [4, 2]], dtype), 20, axis=0)
    gmm = DiagonalGMM(6, weights=weights, random_state=0).fit(X)
    assert all(np.isfinite(a).all() for a in parameters(gmm))
    assert (gmm.weights_ > 0).all() and gmm.weights_.sum() == pytest.approx(1)
    assert len(np.unique(gmm.predict_proba(X).round(3), axis=0)) == 3
    np.testing.assert_allclose(gmm.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


def test_constant_data_are_fitted():
    gmm = DiagonalGMM(2, random_state=0).fit(np.full((10, 3), 7.0))
    np.testing.assert_allclose(gmm.means_, 7)
    np.testing.assert_allclose(gmm.covariances_, 1e-9)


@pytest.mark.parametrize(
    "change, words",
    (
        ({"n_components": 11}, "n_components must lie in 1..n_samples = 10, got 11"),
        ({"n_components": 0}, "n_components must lie in 1..n_samples = 10, got 0"),
        ({"weights": "equal"}, "weights must be one of 'smoothed', 'ml', got 'equal'"),
        ({"n_components": 2.5}, "n_components must be a whole number, got 2.5"),
        ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
        ({"max_iter": 1.5}, "max_iter must be a whole number, got 1.5"),
        ({"n_init_samples": 0}, "n_init_samples must be a whole number of at least 1, got 0"),
        ({"variance_floor": -1.0}, "variance_floor must not be negative, got -1.0"),
        ({"n_jobs": 0}, "n_jobs must not be 0"),
    ),
)
def test_parameters_out_of_range_are_refused(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        DiagonalGMM(2).set_params(**change).fit(cloud(10))


def test_posteriors_are_not_gated_and_sum_to_one():
    X = blobs(200, dims=2)
    double = DiagonalGMM(4, random_state=0).fit(X)
    proba = double.predict_proba(X)
    expected, _ = reference.posteriors(X, *parameters(double))
    np.testing.assert_allclose(proba, expected, rtol=1e-9, atol=1e-300)
    assert 0 < proba.min() < 1e-12  # far below the gate of encoding
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    single = double.predict_proba(X.astype(np.float32))
    np.testing.assert_allclose(single.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(single, expected, atol=1e-4)
    assert ((single > 0) & (single < 1e-12)).any()


def test_posteriors_have_a_column_per_fitted_component():
    gmm = DiagonalGMM(3, random_state=0).fit(cloud(60)).set_params(n_components=2)
    assert gmm.predict_proba(cloud(5)).shape == (5, 3)


def test_an_unfitted_mixture_is_refused():
    with pytest.raises(NotFittedError):
        DiagonalGMM(2).predict_proba(np.zeros((2, 2)))


def test_float32_rows_whose_distances_overflow_are_refused(rng):
    gmm = DiagonalGMM(n_components=3, random_state=0).fit(rng.standard_normal((90, 4)))
    far = np.full((2, 4), 1e20, np.float32)
    for verb in (gmm.predict_proba, gmm.score_samples, lambda rows: FisherEncoder(gmm).transform([rows])):
        with pytest.raises(ValueError, match=r"float32 values of up to 1e\+20, of which the squares overflow"):
            verb(far)
        assert np.isfinite(verb(far.astype(np.float64))).all()
    far *= 1e-3
    assert gmm.predict_proba(far).sum(axis=1) == pytest.approx(1) and np.isfinite(gmm.score_samples(far)).all()
