"""coef_ in a file: itself, or integers that come back within half a step of each run's scale."""

import numpy as np
import pytest

from fvlrp.fisher.weights import WEIGHTS, restored, stored


@pytest.fixture
def coef():
    values = np.random.default_rng(0).standard_normal((3, 5 * 7)).astype(np.float32)  # 15 runs of 7: an odd number
    values[1, :7] = 0
    return values


@pytest.mark.parametrize("weights", WEIGHTS)
def test_stored_weights_are_restored_within_half_a_step(coef, weights):
    again = restored(stored(coef, weights, 7), weights, coef.shape, 7)
    assert again.dtype == np.float32 and again.shape == coef.shape and not again[1, :7].any()
    steps = np.abs(coef).reshape(-1, 7).max(axis=1) / (WEIGHTS[weights] or np.inf)
    assert (np.abs(again - coef).reshape(-1, 7) <= 0.5001 * steps[:, None]).all()


def test_four_bit_weights_take_half_a_byte(coef):
    assert stored(coef, "int4", 7)["coef"].nbytes == (coef.size + 1) // 2


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_wrong_number_of_values_is_refused(coef, weights):
    with pytest.raises(ValueError, match=r"coef(_scale)? must be real numbers of shape \(.*\), got float32 of shape"):
        restored(stored(coef, weights, 7), weights, (4, 35), 7)


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: a.astype(np.int16), lambda a: a[None]])
def test_integers_of_another_type_or_number_are_refused(coef, weights, change):
    arrays = stored(coef, weights, 7)
    with pytest.raises(ValueError, match=r"coef must be u?int8 of shape \(\d+,\), got"):
        restored({**arrays, "coef": change(arrays["coef"])}, weights, coef.shape, 7)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_that_are_not_finite_are_refused(coef, weights):
    arrays = stored(coef, weights, 7)
    name = "coef" if weights == "float32" else "coef_scale"
    for bad in (np.nan, np.inf):
        arrays[name] = arrays[name].copy()
        arrays[name].flat[3] = bad
        with pytest.raises(ValueError, match=f"{name} holds 1 values that are NaN or infinite"):
            restored(arrays, weights, coef.shape, 7)


def test_an_unknown_weight_storage_is_refused(coef):
    for weights in ("int2", None, ["int8"]):
        with pytest.raises(ValueError, match="weights must be one of 'float32', 'int8', 'int4', got"):
            restored(stored(coef, "int8", 7), weights, coef.shape, 7)
