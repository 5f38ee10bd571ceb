"""Estimators that do not inherit from scikit-learn's classes, and that scikit-learn takes for its own."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from fvlrp.core.estimator import Estimator, Transformer, check_fitted


class Nearest(Estimator):
    """The class of the nearest mean, which lies on the side of `shift`."""

    _mixins = ("ClassifierMixin",)

    def __init__(self, shift=0.0, *, part=None, names=("a", "b")):
        self.shift, self.part, self.names = shift, part, names

    def fit(self, X, y, sample_weight=None):
        self.weighed_ = sample_weight is not None
        self.classes_ = np.unique(y)
        self.means_ = np.array([X[y == label].mean(axis=0) for label in self.classes_]) + self.shift
        return self

    def predict(self, X):
        return self.classes_[np.linalg.norm(X[:, None] - self.means_, axis=2).argmin(axis=1)]

    def score(self, X, y, sample_weight=None):
        return float(np.mean(self.predict(X) == y))


class Reference(ClassifierMixin, BaseEstimator):
    """The same parameters in scikit-learn's own class."""

    def __init__(self, shift=0.0, *, part=None, names=("a", "b")):
        self.shift, self.part, self.names = shift, part, names


@pytest.fixture
def points(rng):
    return rng.normal(size=(60, 3)) + np.repeat([[0.0], [4.0]], 30, axis=0), np.repeat(["a", "b"], 30)


def test_parameters_are_those_of_a_scikit_learn_estimator():
    mine, theirs = Nearest(2.0, part=Nearest(1.0)), Reference(2.0, part=Reference(1.0))
    assert {k: v for k, v in mine.get_params().items() if k != "part"} == {
        k: v for k, v in theirs.get_params().items() if k != "part"
    }
    assert mine.get_params(deep=False).keys() == theirs.get_params(deep=False).keys()
    for estimator in (mine, theirs):
        assert estimator.set_params(shift=3, part__shift=5) is estimator
        assert (estimator.shift, estimator.part.shift) == (3, 5)
        with pytest.raises(ValueError, match="colour"):
            estimator.set_params(colour=1)


@pytest.mark.parametrize("params", [{}, {"shift": 1.5}, {"names": ("c",), "part": 3}])
def test_repr_is_scikit_learns(params):
    assert repr(Nearest(**params)) == repr(Reference(**params)).replace("Reference", "Nearest")
    assert "Nearest" in Nearest(**params)._repr_html_()


def test_scikit_learn_takes_it_for_a_classifier(points):
    assert is_classifier(Nearest()) and get_tags(Nearest()).estimator_type == "classifier"
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(Nearest())
    check_is_fitted(Nearest().fit(*points))


def test_it_is_cloned_copied_and_pickled(points):
    fitted = Nearest(0.5).fit(*points)
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params() and not hasattr(twin, "means_")
    for again in (copy.copy(fitted), copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(again.means_, fitted.means_)


def test_it_works_in_pipelines_and_searches(points):
    search = GridSearchCV(make_pipeline(StandardScaler(), Nearest()), {"nearest__shift": [0.0, 9.0]}, cv=3)
    assert search.fit(*points).best_params_ == {"nearest__shift": 0.0} and search.best_score_ > 0.9
    assert cross_val_score(Nearest(), *points).mean() > 0.9


def test_a_transformer_is_a_step_of_a_pipeline(points):
    class Doubled(Transformer):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return 2 * X

        def __sklearn_is_fitted__(self):
            return True

    pipeline = make_pipeline(Doubled(), Nearest()).fit(*points)
    assert np.array_equal(Doubled().fit_transform(points[0]), 2 * points[0])
    assert pipeline.score(*points) > 0.9 and get_tags(Doubled()).transformer_tags is not None


def test_metadata_is_routed_to_it(points):
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, Nearest().set_fit_request(sample_weight=True))
        assert clone(pipeline).fit(*points, sample_weight=np.ones(60))[-1].weighed_
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError):
            make_pipeline(scaler, Nearest()).fit(*points, sample_weight=np.ones(60))


def test_properties_of_an_unfitted_classifier_raise_not_fitted():
    """NotFittedError is an AttributeError, which a ``__getattr__`` would hide."""

    class Lazy(Nearest):
        @property
        def centre(self):
            check_fitted(self, "means_", "call fit first")
            return self.means_.mean(axis=0)

    with pytest.raises(sklearn.exceptions.NotFittedError, match="this Lazy is not fitted; call fit first"):
        _ = Lazy().centre
