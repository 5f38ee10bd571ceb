"""The parts of a model file: their names, types and shapes, and what is not among them."""

import copy
import json

import numpy as np
import pytest

from fvlrp.fisher import parts
from fvlrp.fisher.classifier import FisherVectorClassifier

SHAPES = {
    "classes": ("<U6", (3,)),
    "pca_components": ("<f4", (24, 128)),
    "pca_mean": ("<f4", (128,)),
    "gmm_weights": ("<f4", (16,)),
    "gmm_means": ("<f4", (16, 24)),
    "gmm_covariances": ("<f4", (16, 24)),
    "coef": ("<f4", (3, 8 * 2 * 16 * 24)),
    "intercept": ("<f8", (3,)),
}
FOR_ONE_USE = {"class_weight", "memory", "n_jobs", "random_state", "verbose"}


def test_a_file_has_these_arrays(plain):
    _, arrays = plain.to_parts()
    assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == SHAPES


def test_a_mixture_that_float32_would_round_stays_in_float64(plain):
    clf = copy.copy(plain)
    clf.gmm_ = copy.copy(plain.gmm_)
    clf.gmm_.means_ = plain.gmm_.means_ + 1e-9
    _, arrays = clf.to_parts()
    assert arrays["gmm_means"].dtype == np.float64 and arrays["gmm_covariances"].dtype == np.float32
    np.testing.assert_array_equal(arrays["gmm_means"], clf.gmm_.means_)


def test_a_header_holds_the_parameters_except_those_for_one_use(plain):
    header, _ = plain.to_parts("int8")
    assert set(header) == {"parameters", "random_state", "weights", "multilabel", "C"}
    assert set(header["parameters"]) == set(plain.get_params()) - FOR_ONE_USE
    assert (header["weights"], header["multilabel"], header["C"]) == ("int8", False, 5.0)
    assert parts.parameters_of(json.loads(json.dumps(header))) == {**header["parameters"], "random_state": 0}


@pytest.mark.parametrize(
    ("seed", "stored"), [(3, 3), (np.int64(3), 3), (None, None), (np.random.RandomState(3), None)], ids=repr
)
def test_a_seed_is_stored_and_a_generator_is_not(plain, seed, stored):
    header, _ = copy.copy(plain).set_params(random_state=seed).to_parts()
    assert header["random_state"] == stored and type(header["random_state"]) is type(stored)


def test_parts_make_the_classifier_whose_parts_they_are(plain):
    header, arrays = plain.to_parts()
    again_header, again = FisherVectorClassifier.from_parts(json.loads(json.dumps(header)), arrays).to_parts()
    assert again_header == header and again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, strict=True)
