"""The classifier as an estimator: what it learns from, what it refuses, and that fits are reproducible."""

import copy
import os
import pickle
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import reference
import scipy.sparse
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.svm import SVC
from sklearn.utils import get_tags

from fvlrp import Contrast, FisherVectorClassifier, load
from fvlrp.data.labels import parse_labels
from fvlrp.evaluate import average_precision
from fvlrp.fisher import training
from fvlrp.fisher.training import choose_c


def tiny(**parameters):
    return FisherVectorClassifier(**{"n_components": 4, "n_pca": 8, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def pieces(textures):
    """Three small pieces of each of three surfaces."""
    return textures(3, seed=6, shape=(40, 44))


def state(clf):
    """Everything that was learned, as bytes."""
    pca, gmm = clf.pca_, clf.gmm_
    arrays = (pca.components_, pca.mean_, gmm.weights_, gmm.means_, gmm.covariances_, clf.coef_, clf.intercept_)
    return b"".join(array.tobytes() for array in arrays)


# ---- what is learned ----


@pytest.mark.parametrize("name", ["plain", "centred", "multilabel"])
def test_textures_are_classified_above_chance(request, textures, name):
    clf = request.getfixturevalue(name)
    images, labels = textures(4, seed=77, names=tuple(clf.classes_))
    if clf.multilabel_:
        indicator = (np.array(labels)[:, None] == clf.classes_).astype(int)
        assert (clf.predict(images) == indicator).mean() > 0.8
        assert clf.score(images, indicator) == clf.score(images, 2 * indicator - 1) > 0.8
    else:
        right = (clf.predict(images) == labels).mean()
        assert clf.score(images, labels) == right > 0.5  # chance is a third, or a half of two


def test_fitted_parts_have_the_documented_shapes(plain, centred, multilabel):
    for clf, K, D, rows in ((plain, 16, 24, 3), (centred, 16, 24, 1), (multilabel, 7, 13, 3)):
        assert clf.pca_.components_.shape == (D, 128) and clf.pca_.mean_.shape == (128,)
        assert clf.pca_.mean_.any() == (clf is centred)
        assert np.allclose(clf.pca_.components_ @ clf.pca_.components_.T, np.eye(D), atol=1e-6)
        assert clf.gmm_.weights_.shape == (K,) and clf.gmm_.means_.shape == clf.gmm_.covariances_.shape == (K, D)
        assert clf.coef_.shape == (rows, 8 * 2 * K * D) and clf.coef_.dtype == np.float32
        assert clf.intercept_.shape == (rows,) and clf.intercept_.dtype == np.float64
        assert clf.C_ == 5.0
    assert list(plain.classes_) == ["brick", "grass", "gravel"]


def test_scores_are_those_of_svms_on_the_papers_fisher_vectors(pieces):
    """Every part of the forward pass after SIFT, and the SVMs, in NumPy and scikit-learn alone."""
    images, labels = pieces
    clf = tiny(center=True, C=3.0).fit(images, labels)
    gmm, codes = clf.gmm_, []
    for image in images:
        found = clf._sift().extract(image)
        y = reference.project(found.values, clf.pca_.components_, clf.pca_.mean_)
        mixture = gmm.weights_, gmm.means_, gmm.covariances_
        gamma, _ = reference.posteriors(y, *mixture, clf.gate)
        sums = reference.pooled(y, gamma, found.geometry.cells(clf.pyramid), 8, *mixture)
        codes.append(reference.normalise(sums, "intra", len(gmm.weights_)))
    for position, name in enumerate(clf.classes_):
        svm = SVC(C=3.0, kernel="linear", tol=1e-6).fit(codes, np.array(labels) == name)
        assert clf.decision_function(images)[:, position] == pytest.approx(svm.decision_function(codes), abs=5e-3)


def test_images_labelled_0_are_ignored(pieces):
    """A class's SVM never sees the images whose label for it is 0."""
    images, labels = pieces
    signs = np.where(np.array(labels)[:, None] == ["brick", "grass"], 1, -1)
    signs[4, 1] = signs[7, 1] = 0
    clf = tiny().fit(images, signs, class_names=["brick", "grass"])
    codes = np.array([clf._model.vector(image) for image in images])
    for position, column in enumerate(signs.T):
        svm = SVC(C=5.0, kernel="linear", tol=1e-6).fit(codes[column != 0], column[column != 0])
        scores = clf.decision_function(images)[:, position]
        assert scores == pytest.approx(svm.decision_function(codes), abs=5e-3)


def test_decision_function_has_scikit_learns_shapes(plain, centred, multilabel, photo):
    images = [photo, photo[:, ::-1]]
    assert plain.decision_function(images).shape == multilabel.decision_function(images).shape == (2, 3)
    assert centred.decision_function(images).shape == (2,)
    assert plain.scores(photo).tolist() == plain.decision_function(images)[0].tolist()
    score = centred.decision_function([photo])[0]
    assert centred.scores(photo).tolist() == [-score, score]
    assert centred.predict([photo])[0] == centred.classes_[int(score > 0)]


def test_one_column_of_labels_stays_a_column(pieces):
    images, labels = pieces
    clf = tiny().fit(images, (np.array(labels) == "grass").astype(int)[:, None])
    assert clf.decision_function(images).shape == clf.predict(images).shape == (9, 1)
    assert clf.explain(images[0]).target == 0


# ---- labels ----


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["brick", "grass", "gravel"], ["brick", "grass", "gravel"]),
        ([7, 2, 5], [2, 5, 7]),
        ([True, False, True], [False, True]),
        ([1.5, 0.5, 2.5], [0.5, 1.5, 2.5]),
    ],
)
def test_labels_of_any_kind_can_be_predicted_saved_and_explained(pieces, tmp_path, values, classes):
    import fvlrp

    images, labels = pieces
    named = dict(zip(("brick", "grass", "gravel"), values, strict=True))
    wanted = [named[label] for label in labels]
    clf = tiny().fit(images, wanted)
    assert list(clf.classes_) == classes and clf.classes_.dtype == np.array(values).dtype
    assert clf.score(images, wanted) == 1.0
    clf.save(tmp_path / "it")
    again = fvlrp.load(tmp_path / "it")
    assert again.classes_.tolist() == classes
    ex = again.explain(images[0])
    assert ex.target == wanted[0] and type(ex.target) is type(values[0])
    assert [e.target for e in again.explain(images[0], again.classes_)] == classes


def test_labels_that_are_missing_are_counted():
    with pytest.raises(ValueError, match="labels must name a class for every image, 1 are NaN"):
        parse_labels([1.0, np.nan, 2.0], 3)


@pytest.mark.parametrize("kind", [list, tuple, lambda labels: np.array(labels, object)])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", np.nan, "b"], "name a class for every image, label 1 is nan"),
        ([None, "a", "b"], "name a class for every image, label 0 is None"),
        ([1, "1", "a"], "all names or all numbers, got '1' and 1"),
        (["a", True, "b"], "all names or all numbers, got 'a' and True"),
    ],
)
def test_labels_are_of_one_kind(kind, labels, words):
    """NumPy would turn a missing label into a class "nan", and 1 and "1" into one class."""
    with pytest.raises(ValueError, match=f"labels must (be )?{words}"):
        parse_labels(kind(labels), 3)


def test_class_names_are_names():
    with pytest.raises(ValueError, match="class_names must be names, numbers or bools"):
        parse_labels([0, 1, 0], 3, [None, "x"])


def test_labels_as_objects_are_strings():
    """pandas stores strings in columns of dtype object."""
    signs, classes, _ = parse_labels(np.array(["b", "a", "b"], object), 3)
    assert classes.dtype.kind == "U" and signs.tolist() == [[-1, 1], [1, -1], [-1, 1]]


def test_a_label_matrix_with_minus_ones_is_voc_style_and_otherwise_an_indicator():
    voc = [[1, -1], [0, 1], [-1, -1]]
    signs, classes, matrix = parse_labels(voc, 3)
    assert signs.tolist() == voc and list(classes) == [0, 1] and matrix
    dense = np.array([[1, 0], [0, 1], [0, 0]])
    for indicator in (dense, dense.astype(bool), scipy.sparse.csr_array(dense)):
        assert parse_labels(indicator, 3)[0].tolist() == [[1, -1], [-1, 1], [-1, -1]]


def test_class_names_follow_the_sorted_labels_or_the_columns():
    assert list(parse_labels([3, 1, 2], 3, ["one", "two", "three"])[1]) == ["one", "two", "three"]
    assert list(parse_labels([[1, 0], [0, 1]], 2, class_names=("x", "y"))[1]) == ["x", "y"]
    assert list(parse_labels(["dog", "cat", "dog"], 3, ["cat", "dog"])[1]) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dog", "cat", "dog"], ["dog", "cat"]),
        (["a", "b", "c"], ["b", "x", "y"]),
        ([0, 1, 1], [1, 0]),
        ([0, 1, 1], ["1", "0"]),
        ([True, False, True], ["True", "False"]),
        ([0.0, 1.0, 1.0], ["1", "0"]),
        ([0, 1, 1], ["True", "False"]),
        (["dog", "cat", "dog"], ["Dog", "Cat "]),
    ],
)
def test_class_names_never_swap_labels(labels, names):
    with pytest.raises(ValueError, match=r"class_names must follow the sorted labels .*leave class_names out"):
        parse_labels(labels, 3, names)


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        (["a", "b"], None, r"one row per image: 3 images, labels of shape \(2,\)"),
        (None, None, "class for every image, got None"),
        (["a", "a", "a"], None, "at least two classes, got"),
        (np.zeros((3, 2, 2)), None, r"shape \(n,\) or \(n, n_classes\), got \(3, 2, 2\)"),
        ([[1, 2], [0, 1], [1, 0]], None, "hold 1, 0 or -1 only, got .*2"),
        ([[1, np.nan], [0, 1], [1, 0]], None, "hold 1, 0 or -1 only"),
        ([[1, -1], [1, -1], [-1, -1]], ["cat", "dog"], r"class dog must hold .*, got only \[-1\]: leave its"),
        ([[1, 1], [1, 0], [-1, 1]], None, r"class 1 must hold examples .*, got only \[0, 1\]"),
        ([[1, 0], [0], [1, 1]], None, "labels must be one per image, or rows of one length"),
        ([None, 1, 2], None, "labels must be names, numbers or bools, got"),
        ([b"a", b"b", b"a"], None, "labels must be names, numbers or bools, got .*b'a'"),
        (["a", "b", "a"], 2, "class_names must be a sequence of names, got 2"),
        (["a", "b", "a"], "xy", "class_names must be a sequence of names, got 'xy'"),
        ([0, 1, 1], {"cat", "dog"}, "class_names must be a sequence of names in the order .*, got a set, which has no"),
        ([0, 1, 1], {"dog": 1, "cat": 0}, "class_names must be a sequence of names in the order .*, got a dict"),
        (["a", "b", "a"], ["x"], r"class_names must name the 2 classes .*, got 1 names"),
        (["a", "b", "a"], ["x", "x"], "class_names must be different names"),
        ([[1, 0], [0, 1], [0, 1]], ["x", "y", "z"], "class_names must name 2 columns of labels, got 3 names"),
        ([[1, 0], [0, 1], [0, 1]], ["x", "x"], "class_names must be different names"),
    ],
)
def test_unlearnable_labels_are_refused(labels, names, words):
    with pytest.raises(ValueError, match=words):
        parse_labels(labels, 3, names)


def test_score_ignores_classes_without_examples(multilabel, textures):
    images, labels = textures(2, seed=8)
    signs = np.where(np.array(labels)[:, None] == multilabel.classes_, 1, -1)
    signs[:, 2] = -1  # no image of gravel: its average precision is undefined
    signs[3, 0] = 0
    wanted = average_precision(signs, multilabel.decision_function(images))
    assert np.isnan(wanted[2]) and multilabel.score(images, signs) == np.nanmean(wanted)


def test_score_requires_labels_of_the_form_given_to_fit(plain, multilabel, photo):
    with pytest.raises(ValueError, match=r"one row per image: 1 images, labels of shape \(2,\)"):
        plain.score([photo], ["brick", "grass"])
    with pytest.raises(ValueError, match=r"one row per image: 1 images, labels of shape \(\)"):
        plain.score([photo], "brick")
    with pytest.raises(ValueError, match=r"shape \(n,\), a class per image, as those learned from, got \(1, 3\)"):
        plain.score([photo], [[1, 0, 0]])
    with pytest.raises(ValueError, match=r"shape \(n, 3\), a column per class, as those learned from, got \(1,\)"):
        multilabel.score([photo], ["brick"])


# ---- images ----


def test_images_come_as_paths_pictures_or_arrays(pieces, tmp_path):
    images, labels = pieces
    given = list(images)
    for i in (0, 4):
        Image.fromarray(images[i]).save(tmp_path / f"{i}.png")
    given[0], given[4] = str(tmp_path / "0.png"), tmp_path / "4.png"
    given[1], given[5] = Image.fromarray(images[1]), np.repeat(images[5][:, :, None], 3, axis=2)
    mixed, arrays = tiny().fit(given, labels), tiny().fit(np.array(images), labels)
    assert np.allclose(mixed.decision_function(given), arrays.decision_function(images), atol=1e-3)
    given[5] = images[5]  # grey as RGB comes back within rounding error; all other images are bit-identical
    assert state(tiny().fit(given, labels)) == state(arrays)


def test_arguments_that_are_not_sequences_of_images_are_refused(plain, photo, tmp_path):
    for images, words in (
        ("folder", "sequence of paths, PIL images or arrays, got str"),
        (Path("folder"), "sequence of paths"),
        (Image.fromarray(photo), r"sequence of paths.*got Image: \[image\]\?"),
        (photo, r"one array of shape \(50, 55, 3\): \[image\]\?"),
        (iter([photo]), "sequence of paths"),
        (photo[:, :, 0], r"one array of shape \(50, 55\): \[image\]\?"),
        ([], "at least one image, got none"),
    ):
        for call in (plain.decision_function, plain.predict, lambda given: tiny().fit(given, ["a"])):
            with pytest.raises(ValueError, match=words):
                call(images)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_unusable_image_is_named(plain, pieces, tmp_path, n_jobs):
    images, labels = pieces
    Image.fromarray(images[0]).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(images[0][:12]).save(tmp_path / "low.png")
    for bad, error, words in (
        (tmp_path / "none.png", FileNotFoundError, r"^cannot read image .*none\.png: no such file$"),
        (tmp_path, IsADirectoryError, r"^cannot read image .*: it is a folder$"),
        (tmp_path / "half.png", OSError, r"cannot read image .*half\.png"),
        (tmp_path / "text.jpg", OSError, r"cannot read image .*text\.jpg"),
        (tmp_path / "low.png", ValueError, r"images\[3\] \(.*low\.png\): .*12 x 44 pixels is too small.*22 x 22"),
        (images[0][:, :20], ValueError, r"images\[3\]: .*40 x 20 pixels is too small"),
        (np.full((40, 40), np.nan), ValueError, r"images\[3\]: .*NaN"),
        (images[0] * 1.0, ValueError, r"images\[3\]: .*divide an image in 0\.\.255 by 255"),
        (None, TypeError, r"images\[3\]: image must be a path.*NoneType"),
        (np.zeros((2, 40, 40, 3)), ValueError, r"images\[3\]: .*shape \(2, 40, 40, 3\); expected"),
    ):
        given = [*images[:3], bad, *images[4:]]
        with pytest.raises(error, match=words):
            tiny(n_jobs=n_jobs).fit(given, labels)
        with pytest.raises(error, match=words):
            copy.copy(plain).set_params(n_jobs=n_jobs).decision_function(given)


def test_a_refused_fit_does_not_change_the_model(pieces):
    images, labels = pieces
    clf = tiny().fit(images, labels)
    before, scores = state(clf), clf.decision_function(images).tobytes()
    with pytest.raises(ValueError, match=r"images\[1\]: .*too small"):
        clf.fit([images[0], images[1][:9]], ["x", "y"])
    assert state(clf) == before and clf.predict(images).tolist() == labels
    assert clf.decision_function(images).tobytes() == scores


@pytest.mark.parametrize("stage", ["sample_descriptors", "principal_components", "encode_images", "fit_svms"])
def test_an_interrupted_fit_does_not_change_the_model(pieces, monkeypatch, stage):
    images, labels = pieces
    clf = tiny().fit(images, labels)
    before, scores = state(clf), clf.decision_function(images).tobytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, stage, interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(images[::-1], labels)
    assert state(clf) == before and clf.decision_function(images).tobytes() == scores


# ---- codes in a file ----


def test_training_from_memory_mapped_codes_gives_the_same_model(pieces, monkeypatch, tmp_path):
    images, labels = pieces
    wanted = state(tiny().fit(images, labels))
    monkeypatch.setattr(training, "CODES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen, encode = [], training.encode_images

    def encode_and_look(images, codes, *rest):
        seen.append((type(codes), [path.stat().st_size for path in tmp_path.rglob("codes")]))
        encode(images, codes, *rest)

    monkeypatch.setattr(training, "encode_images", encode_and_look)
    assert state(tiny().fit(images, labels)) == wanted
    assert seen == [(np.memmap, [9 * 8 * 2 * 4 * 8 * 4])]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("full", ["from the start", "as the file grows"])
def test_a_full_temporary_folder_fails_before_any_work(pieces, monkeypatch, tmp_path, full):
    """Writing to a memory-mapped file on a full disk would kill the process (SIGBUS)."""
    images, labels = pieces
    clf = tiny().fit(images, labels)
    before = state(clf)
    monkeypatch.setattr(training, "CODES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if full == "from the start":
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 99, 1))
    else:
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    monkeypatch.setattr(training, "sample_descriptors", lambda *_: pytest.fail("too late"))
    with pytest.raises(OSError, match=rf"needs 18432 bytes .*folder {tmp_path} has \d+ free: set TMPDIR to a folder"):
        clf.fit(images, labels)
    assert state(clf) == before and not list(tmp_path.iterdir())


# ---- parameters ----


def test_scikit_learn_tags_allow_matrices_of_labels():
    assert get_tags(FisherVectorClassifier()).classifier_tags.multi_label


def test_an_estimator_can_be_cloned_and_set(plain):
    parameters = plain.get_params()
    assert parameters["n_components"] == 16 and parameters["C"] == 5.0 and parameters["step"] == 3
    twin = clone(plain).set_params(n_jobs=2)
    assert twin.get_params() == {**parameters, "n_jobs": 2} and not hasattr(twin, "coef_")
    assert FisherVectorClassifier(**parameters).get_params() == parameters


def test_defaults_are_the_preset():
    preset = FisherVectorClassifier().get_params()
    wanted = {
        "bin_sizes": (4, 6, 8, 10),
        "step": 3,
        "magnif": 6.0,
        "window_size": 1.5,
        "contrast_threshold": 0.005,
        "max_height": 480,
        "n_pca": 80,
        "center": False,
        "n_components": 256,
        "gate": 1e-6,
        "variance_floor": 0.01,
        "pyramid": ((2, 2), (3, 1), (1, 1)),
        "normalisation": "intra",
        "C": 5.0,
    }
    assert {name: preset[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"C": 0}, "C must be a positive number or 'auto', got 0"),
        ({"C": "best"}, "C must be one of 'auto', got 'best'"),
        ({"C": None}, "C must be a positive number or 'auto', got None"),
        ({"n_pca": 129}, r"n_pca must be a whole number in 1\.\.128, got 129"),
        ({"n_pca": 2.5}, r"n_pca must be a whole number in 1\.\.128, got 2.5"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1, got 0"),
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
        ({"gate": 0.5}, r"gate must lie in \[0, 1 / n_components = 0.25\), got 0.5"),
        ({"pyramid": ()}, "pyramid must list"),
        ({"pyramid": 3}, "pyramid must list"),
        ({"pyramid": ((2, 2), (0, 1))}, "pyramid must list"),
        ({"pyramid": ((1.5, 2),)}, "pyramid must list"),
        ({"pyramid": ((2, 2), "ab")}, "pyramid must list"),
        ({"normalisation": "l2"}, "normalisation must be one of 'intra', 'improved', got 'l2'"),
        ({"max_height": "480"}, "max_height must be a positive whole number of rows or None, got '480'"),
        ({"max_height": 0}, "max_height must be a positive whole number of rows or None, got 0"),
        ({"max_height": 99.5}, "max_height must be a positive whole number of rows or None, got 99.5"),
        ({"max_height": 21}, "max_height must be at least 22 rows, which one descriptor needs, got 21"),
        ({"mirror": "no"}, "mirror must be one of True, False, got 'no'"),
        ({"C": True}, "C must be a positive number or 'auto', got True"),
        ({"n_pca": True}, r"n_pca must be a whole number in 1\.\.128, got True"),
        ({"gate": "0"}, r"gate must lie in \[0, 1 / n_components = 0.25\), got '0'"),
        ({"gate": None}, r"gate must lie in \[0, 1 / n_components = 0.25\), got None"),
        ({"max_iter": 2.5}, "max_iter must be a whole number, got 2.5"),
        ({"variance_floor": "x"}, "variance_floor must be a number, got 'x'"),
        ({"bin_sizes": ()}, "bin_sizes must name at least one"),
        ({"step": 0}, "step must be at least 1 pixel"),
        ({"weights": "equal"}, "weights must be one of 'smoothed', 'ml', got 'equal'"),
        ({"n_components": 10**6}, r"n_components must lie in|gate must lie in"),
        ({"random_state": "seed"}, "seed"),
        ({"n_jobs": 0}, "n_jobs must not be 0"),
    ],
)
def test_parameters_out_of_range(pieces, parameters, words):
    with pytest.raises(ValueError, match=words):
        tiny(**parameters).fit(*pieces)


def test_nothing_works_before_fit(photo, tmp_path):
    clf = tiny()
    for call in (
        lambda: clf.predict([photo]),
        lambda: clf.explain(photo),
        lambda: clf.save(tmp_path / "it"),
        clf.uncenter,
    ):
        with pytest.raises(NotFittedError, match="call fit, or load a model"):
            call()
    assert not list(tmp_path.iterdir())


# ---- reproducibility ----


@pytest.mark.parametrize("parameters", [{}, {"mirror": True, "center": True, "C": "auto"}], ids=["preset", "others"])
def test_the_same_seed_learns_the_same_bytes(pieces, parameters):
    first, again, threads, other = (
        tiny(**parameters, n_samples=900, random_state=seed, n_jobs=n_jobs).fit(*pieces)
        for seed, n_jobs in ((5, None), (np.random.RandomState(5), 1), (5, 2), (6, None))
    )
    assert state(first) == state(again) == state(threads) != state(other)
    assert first.C_ == threads.C_
    images = pieces[0]
    assert threads.decision_function(images).tobytes() == first.decision_function(images).tobytes()


def test_mirroring_learns_from_the_mirror_images(pieces):
    images, labels = pieces
    mirrored = tiny(mirror=True).fit(images, labels)
    codes = np.array([mirrored._model.vector(image) for image in (*images, *(image[:, ::-1] for image in images))])
    for position, name in enumerate(mirrored.classes_):
        svm = SVC(C=5.0, kernel="linear", tol=1e-6).fit(codes, np.tile(np.array(labels) == name, 2))
        scores = mirrored.decision_function(images)[:, position]
        assert scores == pytest.approx(svm.decision_function(codes[:9]), abs=5e-3)


@pytest.mark.parametrize("seed", [0, None, np.random.RandomState(5)], ids=["seed", "none", "generator"])
def test_memory_caches_everything_that_does_not_depend_on_C(pieces, tmp_path, monkeypatch, seed):
    images, labels = pieces
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray((255 * image).astype(np.uint8)).save(path)
    learned, real = [], training.encode_images
    monkeypatch.setattr(training, "encode_images", lambda *args: (learned.append(1), real(*args)))

    def fit(C, **parameters):
        return tiny(C=C, random_state=copy.deepcopy(seed), memory=str(tmp_path / "kept"), **parameters).fit(
            paths, labels
        )

    one = fit(1.0)
    for again in (fit(1.0), fit(1.0, n_jobs=2)):
        assert state(again) == state(one)
    assert state(fit("auto")) != state(one) and len(learned) == 1
    if seed is not None:
        bare = tiny(C="auto", random_state=copy.deepcopy(seed)).fit(paths, labels)
        assert state(bare) == state(fit("auto")), "the generator continues from its state after the cached stages"
    del learned[:]
    fit(1.0, n_samples=500)
    assert len(learned) == 1
    os.utime(paths[0], (1, 1))
    fit(1.0)
    assert len(learned) == 2, "a file has changed"


def test_memory_may_be_a_folder_or_a_joblib_memory(pieces):
    with pytest.raises(ValueError, match="memory"):
        tiny(memory=3).fit(*pieces)
    assert "memory" not in tiny(memory="x")._lasting()


def test_c_is_chosen_by_cross_validation_on_the_training_images(rng):
    """Two classes that differ along one noisy direction; more images than folds."""
    signs = np.where(np.arange(40) % 2, 1, -1)[:, None]
    x = rng.standard_normal((40, 60)) * 0.2
    x[:, :1] += 0.1 * signs
    chosen = choose_c(x @ x.T, signs, np.random.RandomState(0))
    assert 1.6 <= chosen <= 7.8 and chosen == round(chosen, 1)
    assert chosen == choose_c(x @ x.T, signs, np.random.RandomState(0))
    copies = np.concatenate([x, x])  # both copies of an image in one fold: none is validated on its own copy
    assert choose_c(copies @ copies.T / 2, np.concatenate([signs, signs]), np.random.RandomState(0), copies=2) <= 7.8


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_choosing_c_works_with_fewer_images_than_folds(rng, n):
    signs = np.where(np.arange(n) % 2, 1, -1)[:, None]
    x = rng.standard_normal((n, 5))
    assert 1.6 <= choose_c(x @ x.T, signs, np.random.RandomState(0)) <= 7.8


def test_uncentering_keeps_the_scores(centred, photo):
    moved = copy.deepcopy(centred)
    assert moved.uncenter() is moved
    assert not moved.pca_.mean_.any() and centred.pca_.mean_.any()
    assert moved.scores(photo) == pytest.approx(centred.scores(photo), abs=1e-4)
    exact, wanted = (clf.trace(photo, "float64").scores for clf in (moved, centred))
    assert exact == pytest.approx(wanted, abs=1e-9)
    zeroed = moved.trace(photo).descriptors.zeroed
    assert not moved.explain(photo, "brick").relevance["bin"][zeroed].any()
    assert centred.explain(photo, "brick").relevance["bin"][zeroed].any()


def test_a_pickled_classifier_gives_the_same_results(multilabel, photo):
    again = pickle.loads(pickle.dumps(multilabel))
    assert state(again) == state(multilabel)
    assert again.scores(photo).tolist() == multilabel.scores(photo).tolist()
    assert np.array_equal(again.explain(photo, "grass").heatmap, multilabel.explain(photo, "grass").heatmap)


def test_pickles_that_name_the_projection_by_its_former_module_load(plain):
    assert pickle.loads(b"cfvlrp.fisher.classifier\nProjection\n.") is type(plain.pca_)


def test_a_pickled_explanation_has_the_kept_relevance_and_no_forward_pass(multilabel, photo):
    ex = multilabel.explain(photo, "grass", keep=("bin", "vector"))
    pickled = pickle.dumps(ex)
    assert len(pickled) < ex.heatmap.nbytes + ex.image.nbytes + sum(r.nbytes for r in ex.relevance.kept.values()) + 4096
    again = pickle.loads(pickled)
    assert np.array_equal(again.heatmap, ex.heatmap) and list(again.relevance) == ["bin", "vector"]
    for name in again.relevance:
        assert np.array_equal(again.relevance[name], multilabel.explain(photo, "grass").relevance[name])
    assert copy.deepcopy(multilabel.explain(photo, "grass")).relevance["bin"].shape[1:] == (4, 4)


def test_a_contrast_is_the_difference_of_two_explanations(multilabel, plain, centred, photo):
    for clf, (a, b) in ((multilabel, ("grass", "brick")), (plain, ("gravel", "brick")), (centred, ("gravel", "brick"))):
        trace = clf.trace(photo, "float64")
        both, one, other = trace.explain([Contrast(a, b), a, b], "bin")
        assert both.score == pytest.approx(one.score - other.score, rel=1e-12) and both.ledger.closes()
        np.testing.assert_allclose(both.heatmap, one.heatmap - other.heatmap, atol=1e-12 * abs(one.heatmap).max())


def test_explain_takes_an_array_of_paths_as_a_list(plain, photo, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, pixels in zip(paths, (photo, photo[::-1]), strict=True):
        Image.fromarray(pixels).save(path)
    listed = plain.explain(list(map(str, paths)))
    for given in (np.array(list(map(str, paths))), np.array(paths)):
        assert [ex.score for ex in plain.explain(given)] == [ex.score for ex in listed]


def test_explain_many_keeps_the_order_and_names_the_failed_image(plain, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photograph")
    images = [photo, broken, photo[:, ::-1], photo]
    found = list(plain.explain_many(images, "grass", ("bin", "descriptor"), n_jobs=2, errors="return"))
    assert [type(one).__name__ for one in found] == ["list", "OSError", "list", "list"]
    for image, one in zip(images, found, strict=True):
        if one is not found[1]:
            alone = plain.explain(image, "grass", ("bin", "descriptor"))
            assert all(np.array_equal(a.heatmap, b.heatmap) for a, b in zip(one, alone, strict=True))
    with pytest.raises(OSError, match=r"broken\.jpg"):
        list(plain.explain_many(images, "grass"))
    with pytest.raises(ValueError, match="unknown target 'bird'"):
        plain.explain_many(images, "bird")
    with pytest.raises(ValueError, match="errors must be one of 'raise', 'return', got 'skip'"):
        plain.explain_many(images, errors="skip")


def test_progress_goes_to_stderr_only(pieces, capsys):
    clf = tiny(verbose=True).fit(*pieces)
    told = capsys.readouterr()
    assert told.out == "" and "encoded image 9" in told.err
    assert state(clf) == state(tiny().fit(*pieces))
    assert capsys.readouterr().err == ""


def test_a_step_changed_after_fitting_is_used_and_saved(plain, photo, tmp_path):
    clf = load(saved(plain, tmp_path))
    fine = clf.trace(photo).descriptors.geometry
    coarse = clf.set_params(step=2 * clf.step).trace(photo).descriptors.geometry
    assert coarse.step == 2 * fine.step and coarse.n < fine.n
    assert load(saved(clf, tmp_path)).step == clf.step


def test_nothing_works_after_a_change_of_the_number_of_components(plain, photo, tmp_path):
    clf = load(saved(plain, tmp_path)).set_params(n_components=3)
    for call in (lambda: clf.save(tmp_path / "other.fvlrp"), lambda: clf.trace(photo), lambda: clf.predict([photo])):
        with pytest.raises(ValueError, match=r"fitted with n_components=16, and n_components is now 3.*fit again"):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pyramid", ((1, 1), (3, 1), (2, 2))),  # the fitted number of cells, in another order
        ("pyramid", ((4, 2),)),
        ("normalisation", "improved"),
        ("n_pca", 12),
        ("magnif", 3.0),
        ("window", "gaussian"),
        ("window_size", 2.0),
        ("contrast_threshold", 0.0),
        ("quantize", False),
        ("angles", "exact"),
    ],
)
def test_parameters_that_coef_depends_on_cannot_change_after_fit(plain, photo, name, value):
    clf, was = copy.copy(plain), getattr(plain, name)
    clf.set_params(**{name: value})
    for call in (lambda: clf.scores(photo), lambda: clf.explain(photo), clf.uncenter, clf.describe, lambda: clf.menu):
        with pytest.raises(
            ValueError, match=re.escape(f"fitted with {name}={was!r}, and {name} is now {value!r}: set_")
        ):
            call()
    assert np.array_equal(clf.set_params(**{name: was}).scores(photo), plain.scores(photo))


def test_equal_parameters_of_another_type_are_no_change(plain, photo):
    clf = copy.copy(plain).set_params(pyramid=[[2, 2], [3, 1], [1, 1]], bin_sizes=np.array([4, 6, 8, 10]), magnif=6)
    assert np.array_equal(clf.scores(photo), plain.scores(photo))
    sizes = [4, 6]
    fewer = clf.set_params(bin_sizes=sizes).scores(photo)
    sizes[1] = 8  # in place
    assert not np.array_equal(clf.scores(photo), fewer)


@pytest.mark.parametrize(
    "change",
    [{"bin_sizes": (4, 8)}, {"step": 4}, {"max_height": 54}, {"gate": 0.0}],
    ids=lambda change: next(iter(change)),
)
def test_the_sampling_grid_may_change_after_fitting(plain, textures, change):
    images, _ = textures(4, seed=9)
    scores, before = (clf.decision_function(images) for clf in (copy.copy(plain).set_params(**change), plain))
    assert not np.array_equal(scores, before)
    assert np.corrcoef(scores.ravel(), before.ravel())[0, 1] > 0.9


def saved(clf, folder):
    clf.save(folder / "saved.fvlrp")
    return folder / "saved.fvlrp"
