"""Fisher-vector models trained elsewhere: they have the same scores here as there."""

import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.svm import LinearSVC

import fvlrp

SIFT = {"bin_sizes": (4,), "step": 6}
K, D = 3, 6


def improved(vector):
    """Signed square roots, then the L2 norm: the "improved" normalisation of a vector of one cell."""
    roots = np.sign(vector) * np.sqrt(abs(vector))
    return roots / np.linalg.norm(roots)


@pytest.fixture(scope="module")
def images():
    draw = np.random.default_rng(0)
    return [np.uint8(draw.integers(0, 255, (48, 40))) for _ in range(8)]


@pytest.fixture(scope="module")
def descriptors(images):
    return [rows.astype(float) for rows in fvlrp.DenseSIFT(**SIFT).transform(images)]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "whitened"])
def pca(request, descriptors):
    return PCA(D, whiten=request.param, random_state=0).fit(np.concatenate(descriptors))


@pytest.fixture(scope="module")
def gmm(pca, descriptors):
    return GaussianMixture(K, covariance_type="diag", random_state=0).fit(pca.transform(np.concatenate(descriptors)))


def test_parts_of_scikit_learn_score_as_their_pipeline_does(images, descriptors, pca, gmm):
    sums = fvlrp.FisherEncoder(gmm).transform([pca.transform(rows) for rows in descriptors])
    vectors = np.array([improved(vector) for vector in sums])
    svm = LinearSVC().fit(vectors, list("abcabcab"))
    clf = fvlrp.FisherVectorClassifier.from_sklearn(pca, gmm, svm, pyramid=((1, 1),), **SIFT)
    np.testing.assert_allclose(clf.decision_function(images), svm.decision_function(vectors), rtol=1e-3, atol=1e-4)
    assert clf.predict(images).tolist() == svm.predict(vectors).tolist()
    assert clf.explain(images[0], "b", dtype="float64").ledger.closes()


def test_two_classes_of_scikit_learn_have_one_row(images, descriptors, pca, gmm, tmp_path):
    sums = fvlrp.FisherEncoder(gmm).transform([pca.transform(rows) for rows in descriptors])
    vectors = np.array([improved(vector) for vector in sums])
    svm = LinearSVC().fit(vectors, list("abababab"))
    clf = fvlrp.FisherVectorClassifier.from_sklearn(pca, gmm, svm, pyramid=((1, 1),), **SIFT)
    np.testing.assert_allclose(clf.decision_function(images), svm.decision_function(vectors), rtol=1e-3, atol=1e-4)
    clf.save(tmp_path / "x.fvlrp")
    again = fvlrp.load(tmp_path / "x.fvlrp")
    np.testing.assert_allclose(again.decision_function(images), clf.decision_function(images), rtol=1e-4, atol=1e-5)


def test_weights_in_the_order_of_scikit_image_are_repaired(images, descriptors, pca, gmm):
    feature = pytest.importorskip("skimage.feature")
    raw = np.array([feature.fisher_vector(pca.transform(rows), gmm, improved=False) for rows in descriptors])
    vectors = np.array([improved(vector[K:]) for vector in raw])  # trained without the K entries: the same scores
    svm = LinearSVC().fit(vectors, list("abcabcab"))
    coef = np.concatenate([np.zeros((3, K)), svm.coef_], axis=1)
    parts = pca.components_ / (np.sqrt(pca.explained_variance_)[:, None] if pca.whiten else 1)
    arrays = (parts, gmm.weights_, gmm.means_, gmm.covariances_, coef, svm.intercept_, svm.classes_)
    options = {"mean": pca.mean_, "pyramid": ((1, 1),), **SIFT}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = fvlrp.FisherVectorClassifier.from_arrays(*arrays, order="skimage", **options)
    np.testing.assert_allclose(clf.decision_function(images), svm.decision_function(vectors), rtol=1e-3, atol=1e-4)
    coef[:, :K] = 0.1
    with pytest.warns(UserWarning, match="3 weights of mixture weights are left out"):
        fvlrp.FisherVectorClassifier.from_arrays(*arrays, order="skimage", **options)


def test_weights_in_the_order_of_vlfeat_are_taken_as_they_are(images, descriptors, pca, gmm):
    fisher = pytest.importorskip("cyvlfeat.fisher").fisher
    projected = [pca.transform(rows) for rows in descriptors]
    mixture = [np.float32(a) for a in (gmm.means_, gmm.covariances_, gmm.weights_)]
    vectors = np.array([fisher(np.float32(y), *mixture, improved=True) for y in projected])
    svm = LinearSVC().fit(vectors, list("abcabcab"))
    clf = fvlrp.FisherVectorClassifier.from_sklearn(pca, gmm, svm, pyramid=((1, 1),), **SIFT)
    np.testing.assert_allclose(clf.decision_function(images), svm.decision_function(vectors), rtol=5e-3, atol=5e-4)


def test_descriptors_of_another_scale_give_the_same_scores(images, pca, gmm):
    draw = np.random.default_rng(1)
    common = (gmm.weights_, gmm.means_, gmm.covariances_, draw.normal(size=(3, 2 * K * D)), np.zeros(3), list("abc"))
    rows = pca.components_
    options = {"pyramid": ((1, 1),), **SIFT}
    plain = fvlrp.FisherVectorClassifier.from_arrays(rows, *common, mean=pca.mean_, **options)
    unit = fvlrp.FisherVectorClassifier.from_arrays(
        rows * 255, *common, mean=pca.mean_ / 255, descriptor_scale=1 / 255, **options
    )
    np.testing.assert_allclose(unit.decision_function(images), plain.decision_function(images), rtol=1e-4)


def test_parameters_are_kept_as_they_are_given(pca, gmm):
    parts = (gmm.weights_, gmm.means_, gmm.covariances_, np.ones((3, 2 * K * D)), np.zeros(3), list("abc"))
    given = {"pyramid": [[1, 1]], "bin_sizes": 4, "n_jobs": 2, "verbose": True, "random_state": 3, "memory": "kept"}
    params = fvlrp.FisherVectorClassifier.from_arrays(pca.components_, *parts, **given).get_params()
    assert {name: params[name] for name in given} == given
    assert (params["n_components"], params["n_pca"], params["center"]) == (K, D, False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"components": np.zeros(128)}, r"components must have shape \(D, 128\), got \(128,\)"),
        ({"components": np.zeros((D, 64))}, r"pca_components must be real numbers of shape \(6, 128\)"),
        ({"covariances": np.ones((K, D, D))}, "covariances must be diagonal"),
        ({"coef": np.zeros((2, 7))}, "coef must be real numbers of shape"),
        ({"coef": np.full((2, 2 * K * D), np.nan)}, "coef holds 72 values that are NaN"),
        ({"order": "matlab"}, "order"),
        (
            {"order": "skimage", "coef": np.zeros((2, 2))},
            r"coef must have 1 x \(K \+ 2 K D\) columns with K = 3, got 2",
        ),
        ({"descriptor_scale": 0}, "descriptor_scale must be a positive number, got 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    arrays = {
        "components": np.zeros((D, 128)),
        "weights": np.full(K, 1 / K),
        "means": np.zeros((K, D)),
        "covariances": np.ones((K, D)),
        "coef": np.zeros((2, 2 * K * D)),
        "intercept": np.zeros(2),
        "classes": ["a", "b"],
        "multilabel": True,
    }
    with pytest.raises(ValueError, match=message):
        fvlrp.FisherVectorClassifier.from_arrays(**{**arrays, "pyramid": ((1, 1),), **change})
