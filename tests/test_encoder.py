"""Fisher encoding: the pyramid's cells, and `FisherEncoder` against the equations and VLFeat."""

import re

import numpy as np
import pytest
import reference
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from fvlrp.fisher import encoder
from fvlrp.fisher.encoder import FisherEncoder
from fvlrp.fisher.geometry import Geometry
from fvlrp.fisher.gmm import DiagonalGMM
from fvlrp.fisher.walk import DEPTHS

TYPES = ("float32", "float64")


def cloud(n=500, dims=4, seed=0, dtype="float64"):
    """One cluster, in which components overlap."""
    return np.random.default_rng(seed).gamma(2.0, 1.0, (n, dims)).astype(dtype)


def parameters(gmm):
    return gmm.weights_, gmm.means_, gmm.covariances_


# ---- sums over the pyramid -------------------------------------------------------------------------------------------


def test_finest_cells_are_the_combinations_of_levels():
    geometry = Geometry(61, 83, (4, 6, 8, 10), 3)
    layout = encoder.layout_of(geometry, ((2, 2), (3, 1), (1, 1)))
    cells = geometry.cells(((2, 2), (3, 1), (1, 1)))
    assert sorted(np.concatenate(layout.rows)) == list(range(geometry.n))
    for one, rows in enumerate(layout.rows):
        assert (np.diff(rows) > 0).all()
        assert (np.sort(cells[rows], axis=1) == np.flatnonzero(layout.member[one])).all()
    assert layout.counts.tolist() == np.bincount(cells.ravel(), minlength=8).tolist()


@pytest.mark.parametrize("dtype", TYPES)
def test_projections_computed_again_are_the_same_bits(plain, photo, monkeypatch, dtype):
    kept = plain.trace(photo, dtype).explain("grass", DEPTHS)
    monkeypatch.setattr(encoder, "KEEP", 0)
    trace = plain.trace(photo, dtype)
    assert all(encoded.y is None for _, _, encoded in trace._pass(trace.dtype).encode.fisher.pieces)
    for ex, expected in zip(trace.explain("grass", DEPTHS), kept, strict=True):
        assert np.array_equal(ex.heatmap, expected.heatmap)
        assert all(np.array_equal(ex.relevance[name], expected.relevance[name]) for name in ex.relevance)


@pytest.mark.parametrize("dtype", TYPES)
def test_magnitudes_bound_the_sums_of_absolute_terms(plain, photo, dtype):
    trace = plain.trace(photo, dtype)
    pooled, values = trace._pass(trace.dtype).encode.fisher, trace.descriptors.values.astype(np.float64)
    gmm = plain.gmm_
    y = values @ plain.pca_.components_.T
    gamma, _ = reference.posteriors(y, *parameters(gmm), plain.gate)
    cells = trace.descriptors.geometry.cells(plain.pyramid)
    exact = reference.pooled(y, gamma, cells, 8, *parameters(gmm), magnitude=True).reshape(pooled.sums.shape)
    assert (pooled.magnitudes() >= exact * (1 - 1e-4) - 1e-3).all()


# ---- lists of descriptors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    (
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_cloneable,
    ),
    ids=lambda check: check.__name__,
)
def test_encoder_passes_scikit_learns_checks_of_parameters(check):
    """The other checks fit it to one matrix; the encoder takes lists of matrices."""
    check("FisherEncoder", FisherEncoder(DiagonalGMM(2)))


@pytest.fixture(scope="module")
def mixture():
    return DiagonalGMM(5, random_state=0, max_iter=10).fit(cloud(500))


def encoded_by_the_equations(gmm, x, gate=1e-6):
    gamma, _ = reference.posteriors(x, *parameters(gmm), gate)
    return reference.pooled(x, gamma, np.zeros((len(x), 1), int), 1, *parameters(gmm))[0]


@pytest.mark.parametrize("dtype, tolerance", (("float32", 1e-5), ("float64", 1e-11)))
@pytest.mark.parametrize("gate", (0.0, 1e-6, 1e-2))
def test_vectors_are_the_sums_of_eqs_3_and_4(mixture, gate, dtype, tolerance):
    lists = [cloud(n, seed=n, dtype=dtype) for n in (1, 300, 7)]
    vectors = FisherEncoder(mixture, gate=gate).fit().transform(lists)
    assert vectors.shape == (3, 2 * 5 * 4) and vectors.dtype == np.float64
    for vector, x in zip(vectors, lists, strict=True):
        expected = encoded_by_the_equations(mixture, x.astype(np.float64), gate)
        assert np.linalg.norm(vector - expected) <= tolerance * np.linalg.norm(expected)


def test_vectors_are_those_of_vlfeat_times_the_number_of_descriptors(mixture):
    fisher = pytest.importorskip("cyvlfeat.fisher").fisher
    x = cloud(400, seed=9, dtype="float32")
    single = (np.ascontiguousarray(a, np.float32) for a in (mixture.means_, mixture.covariances_, mixture.weights_))
    theirs = 400 * np.ravel(fisher(x, *single)).astype(np.float64)
    (ours,) = FisherEncoder(mixture).transform([x])
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


def test_lists_may_be_ragged_empty_of_mixed_types_and_of_any_kind(mixture):
    lists = (cloud(n, seed=n, dtype=dtype) for n, dtype in ((3, "float32"), (0, "float64"), (9, "float64")))
    vectors = FisherEncoder(mixture).transform(lists)
    assert vectors.shape == (3, 40)
    assert not vectors[1].any() and vectors[0].any() and vectors[2].any()
    strided = np.repeat(cloud(9, seed=9), 2, axis=0)[::2]
    np.testing.assert_array_equal(FisherEncoder(mixture).transform([strided])[0], vectors[2])
    np.testing.assert_array_equal(FisherEncoder(mixture).transform([cloud(9, seed=9).tolist()])[0], vectors[2])
    assert FisherEncoder(mixture).transform([]).shape == (0, 40)
    np.testing.assert_array_equal(FisherEncoder(mixture).transform(np.stack([cloud(9, seed=9)]))[0], vectors[2])


def test_vectors_of_several_blocks_add_up(mixture, monkeypatch):
    lists = [cloud(n, seed=n) for n in (100, 23, 24)]
    whole = FisherEncoder(mixture).transform(lists)
    monkeypatch.setattr("fvlrp.fisher.encoder.BLOCK", 23)
    np.testing.assert_allclose(FisherEncoder(mixture).transform(lists), whole, rtol=1e-9, atol=1e-9)


def test_vectors_are_additive_over_descriptors(mixture):
    x, y = cloud(40, seed=1), cloud(70, seed=2)
    a, b, both = FisherEncoder(mixture).transform([x, y, np.concatenate([x, y])])
    np.testing.assert_allclose(a + b, both, rtol=1e-9, atol=1e-9)


def test_a_scikit_learn_mixture_is_accepted(mixture):
    from sklearn.mixture import GaussianMixture

    X = cloud(300)
    diagonal = GaussianMixture(3, covariance_type="diag", random_state=0).fit(X)
    (vector,) = FisherEncoder(diagonal).transform([X])
    np.testing.assert_allclose(vector, encoded_by_the_equations(diagonal, X), rtol=1e-7, atol=1e-7)
    for kind in ("full", "tied", "spherical"):
        other = GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
        with pytest.raises(ValueError, match="covariance_type='diag'"):
            FisherEncoder(other).transform([X])


def test_the_encoder_gives_the_same_bits_on_two_threads(mixture):
    lists = [cloud(n, seed=n, dtype="float32") for n in (50, 0, 300, 1, 97)]
    one, two = (FisherEncoder(mixture, n_jobs=n).transform(lists) for n in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    "lists, words",
    (
        ([np.zeros((3, 4)), np.zeros((3, 5))], "X[1] must have shape (n, 4), as the mixture has, got (3, 5)"),
        ([np.zeros(4)], "X[0] must have shape (n, 4), as the mixture has, got (4,)"),
        (np.zeros((3, 4)), "X must be a list of (n, D) arrays, one per image, got one array of shape (3, 4): [X]?"),
        ([np.array([[0, 1, np.nan, 2]])], "X[0] holds NaN or infinity"),
        ([np.zeros((1, 4)), np.array([[0, np.inf, 0, 2]], np.float32)], "X[1] holds NaN or infinity"),
    ),
)
def test_arrays_that_are_not_descriptors_of_the_mixture_are_refused(mixture, lists, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        FisherEncoder(mixture).transform(lists)


def test_the_encoder_learns_a_mixture_that_is_not_fitted():
    lists, mixture = [cloud(60, seed=1), cloud(90, seed=2)], DiagonalGMM(2, random_state=0)
    encoder = FisherEncoder(mixture).fit(lists)
    assert not hasattr(mixture, "weights_")
    learned = DiagonalGMM(2, random_state=0).fit(np.concatenate(lists))
    np.testing.assert_array_equal(encoder.transform(lists), FisherEncoder(learned).transform(lists))
    assert FisherEncoder(learned).fit(lists).gmm_ is learned
    with pytest.raises(ValueError, match=r"X\[0\] must have shape \(n, D\), got \(4,\)"):
        FisherEncoder(mixture).fit([np.zeros(4)])


def test_the_encoder_learns_from_an_equal_share_of_each_list():
    lists, mixture = [cloud(60, seed=1), cloud(900, seed=2)], DiagonalGMM(2, random_state=0)
    learned = [FisherEncoder(mixture, n_samples=140, random_state=seed).fit(lists).gmm_ for seed in (3, 3, 4)]
    chosen = np.sort(np.random.RandomState(3).choice(900, 70, replace=False))
    by_hand = DiagonalGMM(2, random_state=0).fit(np.concatenate([lists[0], lists[1][chosen]]))
    np.testing.assert_array_equal(learned[0].means_, by_hand.means_)
    np.testing.assert_array_equal(learned[1].means_, by_hand.means_)
    assert (learned[2].means_ != by_hand.means_).any()
    with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1, got 0"):
        FisherEncoder(mixture, n_samples=0).fit(lists)


def test_bytes_are_encoded_as_float32(mixture):
    values = np.random.default_rng(0).integers(0, 4, (50, 4), dtype=np.uint8)
    encoder = FisherEncoder(mixture)
    np.testing.assert_array_equal(encoder.transform([values]), encoder.transform([values.astype(np.float32)]))


def test_an_unfitted_mixture_is_refused():
    with pytest.raises(NotFittedError):
        FisherEncoder(DiagonalGMM(2)).fit()
    with pytest.raises(NotFittedError):
        FisherEncoder(DiagonalGMM(2)).transform([np.zeros((2, 2))])


@pytest.mark.parametrize("components, dims", ((2, 2), (16, 24), (256, 80)))
@pytest.mark.parametrize("distance", (1e4, 1e6, 1e12))
def test_rows_far_from_every_mean_keep_their_posteriors(isa, components, dims, distance):
    """Logits of -1e9 and below, where neighbouring float32 values are further apart than the gate's threshold of 14."""
    gmm = DiagonalGMM(components, random_state=0, max_iter=2).fit(
        np.random.default_rng(0).standard_normal((3 * components + 100, dims))
    )
    row = np.full((1, dims), distance)
    expected, loglik = reference.posteriors(row, *parameters(gmm))
    for dtype in TYPES:
        x = row.astype(dtype)
        np.testing.assert_allclose(gmm.score_samples(x), loglik, rtol=1e-5)
        np.testing.assert_allclose(gmm.predict_proba(x).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(gmm.predict_proba(x), expected, atol=1e-4)
        np.testing.assert_allclose(
            FisherEncoder(gmm).transform([x])[0], encoded_by_the_equations(gmm, row), rtol=1e-4, atol=1e-4 * distance**2
        )
