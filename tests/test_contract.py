"""What scikit-learn's tools expect of an image classifier: check_estimator knows tables only, so it is written here."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_html_repr

import fvlrp

SMALL = {"n_components": 4, "bin_sizes": (4,), "step": 6, "n_pca": 8, "pyramid": ((1, 1),), "random_state": 0}


def stripes(angle, n, seed):
    """n photographs of 40 x 36 pixels with stripes of one direction, in noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :36]
    waves = [
        np.sin((x if angle else y) * f + p) for f, p in zip(draw.uniform(0.5, 1, n), draw.uniform(0, 6, n), strict=True)
    ]
    return [np.uint8(np.clip(127 + 60 * wave + 20 * draw.standard_normal(wave.shape), 0, 255)) for wave in waves]


@pytest.fixture(scope="module")
def images():
    return [image for pair in zip(stripes(0, 12, 0), stripes(1, 12, 1), strict=True) for image in pair]


@pytest.fixture(scope="module")
def labels():
    return np.array(["across", "along"] * 12)


@pytest.fixture
def clf():
    return fvlrp.FisherVectorClassifier(**SMALL)


def test_a_clone_has_the_parameters_and_is_not_fitted(clf, images, labels):
    fresh = clone(clf.fit(images, labels))
    assert fresh.get_params() == clf.get_params() and not hasattr(fresh, "coef_") and is_classifier(fresh)


def test_fit_returns_the_estimator_and_twice_gives_the_same(clf, images, labels):
    assert clf.fit(images, labels) is clf
    first = clf.coef_.copy()
    np.testing.assert_array_equal(clf.fit(images, labels).coef_, first)


def test_cross_validation_scores_and_predicts(clf, images, labels):
    assert cross_val_score(clf, images, labels, cv=3).mean() > 0.9
    predicted = cross_val_predict(clf, images, labels, cv=3, method="decision_function")
    assert predicted.shape == (24,) and np.mean((predicted > 0) == (labels == "along")) > 0.9


def test_a_grid_search_runs_and_can_be_pickled(clf, images, labels):
    search = GridSearchCV(clf, {"C": [0.1, 5], "step": [6, 8]}, cv=2, n_jobs=1).fit(images, labels)
    assert search.best_score_ > 0.9 and search.best_estimator_.classes_.tolist() == ["across", "along"]


def test_a_pipeline_passes_images_through(clf, images, labels):
    flip = FunctionTransformer(lambda batch: [image[:, ::-1] for image in batch])
    model = Pipeline([("flip", flip), ("clf", clf)]).fit(images, labels)
    assert model.score(images, labels) > 0.9 and "flip" in estimator_html_repr(model)


def test_parts_are_steps_of_a_pipeline_with_parameters_to_search(images, labels):
    model = make_pipeline(
        fvlrp.DenseSIFT(bin_sizes=(4,), step=6), fvlrp.FisherEncoder(fvlrp.DiagonalGMM(4, random_state=0)), LinearSVC()
    )
    search = GridSearchCV(model, {"densesift__step": [6, 8]}, cv=2).fit(images, labels)
    assert search.best_score_ > 0.9


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_parts_can_output_data_frames(package, images):
    frames = pytest.importorskip(package)
    encoder = make_pipeline(
        fvlrp.DenseSIFT(bin_sizes=(4,), step=6), fvlrp.FisherEncoder(fvlrp.DiagonalGMM(4, random_state=0))
    )
    plain = encoder.fit_transform(images)
    table = clone(encoder.set_output(transform=package)).fit_transform(images)
    assert isinstance(table, frames.DataFrame) and table.shape == (24, 2 * 4 * 128)
    assert (
        list(table.columns) == list(encoder[-1].get_feature_names_out()) and len(set(table.columns)) == table.shape[1]
    )
    np.testing.assert_array_equal(table.to_numpy(), plain)
    assert isinstance(encoder.set_output(transform="default").transform(images), np.ndarray)


def test_output_for_all_of_scikit_learn_holds_too(images):
    pandas = pytest.importorskip("pandas")
    lists = pandas.Series(fvlrp.DenseSIFT(bin_sizes=(4,), step=6).transform(images), index=range(100, 124))
    encoder = fvlrp.FisherEncoder(fvlrp.DiagonalGMM(4, random_state=0)).fit(lists)
    with sklearn.config_context(transform_output="pandas"):
        assert encoder.transform(lists).index.tolist() == list(range(100, 124))
    with pytest.raises(ValueError, match="default, pandas, polars, got 'arrow'"):
        encoder.set_output(transform="arrow")


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_columns_of_tables_are_images_and_labels(package, clf, images, labels, tmp_path):
    from PIL import Image

    frames = pytest.importorskip(package)
    paths = []
    for i, image in enumerate(images):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    table = frames.DataFrame({"path": paths, "label": labels})
    clf.fit(table["path"], table["label"])
    assert clf.classes_.tolist() == ["across", "along"] and clf.score(table["path"], table["label"]) > 0.9


def test_weights_of_photographs_count_as_copies_do(clf, images, labels):
    """To the support vector machine: the mixture is learned from the photographs, whatever their weights."""
    weights = np.ones(24)
    weights[:4] = 0  # as if they were not there
    weighed = clone(clf).fit(images, labels, sample_weight=weights)
    plain = clone(clf).fit(images, labels)
    assert not np.allclose(weighed.coef_, plain.coef_)
    wrong = labels.copy()
    wrong[:4] = labels[:4][::-1]
    again = clone(clf).fit(images, wrong, sample_weight=weights)
    np.testing.assert_allclose(again.coef_, weighed.coef_, rtol=1e-5, atol=1e-7)  # labels of weight 0 say nothing


def test_balanced_class_weights_favour_the_rare_class(images, labels):
    rare = [i for i in range(24) if labels[i] == "across" or i < 6]
    some, names = [images[i] for i in rare], labels[rare]
    balanced = fvlrp.FisherVectorClassifier(**SMALL, C=0.01, class_weight="balanced").fit(some, names)
    plain = fvlrp.FisherVectorClassifier(**SMALL, C=0.01).fit(some, names)
    assert balanced.decision_function(images).mean() > plain.decision_function(images).mean()
    by_hand = {"across": len(names) / 2 / np.sum(names == "across"), "along": len(names) / 2 / np.sum(names == "along")}
    given = fvlrp.FisherVectorClassifier(**SMALL, C=0.01, class_weight=by_hand).fit(some, names)
    np.testing.assert_array_equal(given.coef_, balanced.coef_)


def test_weights_are_routed_through_a_search(clf, images, labels):
    with sklearn.config_context(enable_metadata_routing=True):
        asked = clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        search = GridSearchCV(asked, {"C": [1, 5]}, cv=2)
        search.fit(images, labels, sample_weight=np.r_[np.zeros(4), np.ones(20)])
    alone = (
        clone(clf).set_params(**search.best_params_).fit(images, labels, sample_weight=np.r_[np.zeros(4), np.ones(20)])
    )
    np.testing.assert_allclose(search.best_estimator_.coef_, alone.coef_)


def test_scores_become_probabilities(clf, images, labels):
    model = CalibratedClassifierCV(clf, cv=2).fit(images, labels)
    probabilities = model.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.mean(model.classes_[probabilities.argmax(axis=1)] == labels) > 0.9


def test_a_fitted_classifier_can_be_calibrated_without_refitting(clf, images, labels):
    from sklearn.frozen import FrozenEstimator

    fitted = clf.fit(images, labels)
    model = CalibratedClassifierCV(FrozenEstimator(fitted)).fit(images, labels)
    assert model.predict_proba(images).shape == (24, 2)


def test_an_unfitted_classifier_says_so(clf, images):
    from sklearn.exceptions import NotFittedError

    for call in (clf.predict, clf.decision_function):
        with pytest.raises(NotFittedError):
            call(images)


def test_parameters_are_checked_in_fit_and_not_before(images, labels):
    clf = fvlrp.FisherVectorClassifier(n_components=-1)
    with pytest.raises(ValueError, match="n_components"):
        clf.fit(images, labels)


def test_the_picture_of_a_notebook_names_it(clf):
    assert "FisherVectorClassifier" in clf._repr_html_() and "SVC" not in clf._repr_html_()


def test_tags_say_that_images_are_no_tables(clf):
    from sklearn.utils import get_tags

    for estimator in (clf, fvlrp.DenseSIFT()):
        assert not get_tags(estimator).input_tags.two_d_array
    assert get_tags(clf).estimator_type == "classifier" and get_tags(clf).requires_fit
    assert not get_tags(fvlrp.DenseSIFT()).requires_fit and get_tags(fvlrp.DiagonalGMM()).input_tags.two_d_array


def test_predictions_are_of_the_labels_kind(clf, images, labels):
    for kinds in (labels.tolist(), labels == "along", np.where(labels == "along", 7, 3), labels.astype(object)):
        predicted = clone(clf).fit(images, kinds).predict(images)
        assert predicted.tolist() == list(kinds) and predicted.dtype.kind == np.array(list(kinds)).dtype.kind


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "class for every image, got None"),
        (np.r_[np.inf, np.zeros(23)], "0 are NaN and 1 infinite"),
        (np.linspace(0, 1, 24), "must be classes, got 24 different numbers for 24 images, such as 0.0"),
        (np.array([["a"], ["b"]] * 12), r"got \['a', 'b'\]: give names as one label per image, of shape \(n,\)"),
        (["a"] * 24, "at least two classes"),
        (["a", "b"] * 11, "one row per image: 24 images"),
    ],
)
def test_labels_that_name_no_classes_are_refused(labels, words, clf, images):
    with pytest.raises(ValueError, match=words):
        clf.fit(images, labels)


def test_nothing_but_fit_changes_the_estimator_and_fit_changes_no_parameter(clf, images, labels):
    copies = [image.copy() for image in images]
    parameters = repr(clf.get_params())
    assert vars(clf).keys() == clf.get_params().keys()
    names = set(vars(clf.fit(copies, labels)))
    clf.predict(copies), clf.score(copies, labels), clf.explain(copies[0], "along")
    assert set(vars(clf)) == names and repr(clf.get_params()) == parameters
    assert all(np.array_equal(a, b) for a, b in zip(copies, images, strict=True))


def test_scores_do_not_depend_on_the_order_or_number_of_images(clf, images, labels):
    scores = clf.fit(images, labels).decision_function(images)
    np.testing.assert_array_equal(clf.decision_function(images[::-1])[::-1], scores)
    np.testing.assert_array_equal([clf.decision_function([image])[0] for image in images], scores)


def test_weights_of_1_are_no_weights_and_weights_of_2_are_copies(clf, images, labels, monkeypatch):
    """Copies change the sample of descriptors that the mixture is learned from: it is the same here."""
    plain = clone(clf).fit(images, labels)
    np.testing.assert_array_equal(clone(clf).fit(images, labels, sample_weight=[1] * 24).coef_, plain.coef_)

    def same(self, images, random):
        self.pca_, self.gmm_ = plain.pca_, plain.gmm_

    monkeypatch.setattr(fvlrp.FisherVectorClassifier, "_learn_descriptors", same)
    counts = np.where(np.arange(24) < 6, 2, 1)
    rare = clone(clf).set_params(C=0.01)  # small enough for weights to matter
    weighed = clone(rare).fit(images, labels, sample_weight=counts)
    copied = clone(rare).fit(list(np.repeat(np.array(images), counts, axis=0)), np.repeat(labels, counts))
    np.testing.assert_allclose(weighed.coef_, copied.coef_, rtol=1e-4, atol=1e-6 * abs(copied.coef_).max())
    assert not np.allclose(weighed.coef_, clone(rare).fit(images, labels).coef_, rtol=1e-2)


def test_weights_reach_the_classifier_through_a_pipeline(clf, images, labels):
    from sklearn.metrics import accuracy_score, make_scorer
    from sklearn.model_selection import cross_validate

    with sklearn.config_context(enable_metadata_routing=True):
        asked = clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weights = {"sample_weight": np.r_[np.zeros(4), np.ones(20)]}
        pipeline = Pipeline([("clf", asked)]).fit(images, labels, **weights)
        assert pipeline.score(images, labels, **weights) > 0.9
        # Before 1.8, scikit-learn refuses the weights of any pipeline that is scored by its own score().
        old = sklearn.__version__.startswith(("1.6.", "1.7."))
        scoring = make_scorer(accuracy_score).set_score_request(sample_weight=True) if old else None
        scores = cross_validate(pipeline, images, labels, scoring=scoring, cv=2, params=weights, error_score="raise")
    np.testing.assert_array_equal(pipeline[-1].coef_, clone(clf).fit(images, labels, **weights).coef_)
    assert scores["test_score"].min() > 0.8


def test_it_works_inside_other_estimators(clf, images, labels):
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.model_selection import TunedThresholdClassifierCV
    from sklearn.multiclass import OneVsRestClassifier

    for model in (
        VotingClassifier([("small", clf), ("weak", clone(clf).set_params(C=0.1))]),
        StackingClassifier([("clf", clf)], cv=2),
        TunedThresholdClassifierCV(clf, cv=2),
        OneVsRestClassifier(clf),
    ):
        assert model.fit(images, labels).score(images, labels) > 0.9, model
