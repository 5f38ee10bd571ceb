"""Elementwise functions, softmax and layer normalisation, against their formulas in float64."""

import numpy as np
import pytest
import reference

from fvlrp import _kernels

# Of a result itself, however small.
RELATIVE = {"float32": 2e-6, "float64": 1e-14}
SMALLEST = {"float32": 2e-36, "float64": 1e-300}  # what is smaller may be 0
LENGTHS = 0, 1, 3, 15, 16, 17, 33, 257, 1000

pytestmark = pytest.mark.usefixtures("isa")


@pytest.fixture(params=RELATIVE)
def real(request):
    return request.param


def everywhere(real):
    """Values of all sizes and both signs, small steps around 0 and 1, and the ends of float32's exponential."""
    size = np.concatenate([np.logspace(-30, 4, 4000), np.linspace(0, 12, 4001), np.linspace(80, 110, 301)])
    return np.concatenate([size, -size]).astype(real)


@pytest.mark.parametrize("function", _kernels.FUNCTIONS)
def test_functions_are_accurate_relative_to_small_results(function, real):
    x = everywhere(real)
    got, expected = _kernels.activate(function, x), reference.activated(function, x)
    assert got.dtype == x.dtype
    allowed = RELATIVE[real] * np.abs(expected)
    if real == "float64" and function.startswith("gelu"):
        allowed *= (
            1 + x.astype(float) ** 2 + np.abs(x.astype(float)) ** 3
        )  # exp multiplies its argument's rounding error
    error = np.abs(got.astype(float) - expected)
    worst = np.argmax(error - allowed - SMALLEST[real])
    assert (error <= allowed + SMALLEST[real]).all(), (x[worst], got[worst], expected[worst])


@pytest.mark.parametrize("function", _kernels.FUNCTIONS)
def test_activations_of_nan_infinity_and_zero(function, real):
    x = np.array([np.nan, np.inf, -1e30, 0.0], real)
    got = _kernels.activate(function, x)
    top = np.inf if function in ("silu", "gelu", "gelu_tanh", "hard_swish") else 1
    bottom = -1 if function in ("tanh", "erf") else 0
    start = 0.5 if function.endswith("sigmoid") else 0
    assert np.isnan(got[0]) and got[1] == top and got[2] == bottom and got[3] == start


@pytest.mark.parametrize("length", LENGTHS)
def test_activations_of_every_length_work_in_place(length, real):
    rng = np.random.default_rng(length)
    x = rng.standard_normal((3, length)).astype(real)
    for function in _kernels.FUNCTIONS:
        expected = _kernels.activate(function, np.resize(x, 4096))[: x.size].reshape(x.shape)
        own = x.copy()
        assert _kernels.activate(function, own, own) is own
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_softmax_of_rows(length, real):
    rng = np.random.default_rng(length)
    x = (rng.standard_normal((2, 5, length)) * 20).astype(real)
    expected = reference.softmax(x)
    got = _kernels.softmax(x)
    assert (np.abs(got - expected) <= 2 * RELATIVE[real] * expected + SMALLEST[real]).all()
    np.testing.assert_allclose(got.sum(axis=-1, dtype=float), 1, rtol=1e-6)
    own = x.copy()
    np.testing.assert_array_equal(_kernels.softmax(own, own), got)


def test_softmax_of_masks_and_nan(real):
    x = np.zeros((4, 20), real)
    x[0, 5:] = -np.inf
    x[1, 3] = np.nan
    x[2] = -np.inf
    x[3, 1] = 1e4
    got = _kernels.softmax(x)
    assert (got[0, 5:] == 0).all() and (got[0, :5] == got.dtype.type(0.2)).all()
    assert np.isnan(got[1:3]).all()
    assert got[3, 1] == 1 and got[3].sum() == 1


@pytest.mark.parametrize("plain", (False, True), ids=("layer", "rms"))
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_layer_norm_of_rows(length, plain, real):
    rng = np.random.default_rng(length)
    shift = np.array([3, 0, -50, 1e3, 0])[:, None]
    x = (rng.standard_normal((2, 5, length)) + shift).astype(real)
    weight, bias = rng.standard_normal((2, length)).astype(real)
    got, mean, inverse = _kernels.layer_norm(x, weight, bias, 1e-5, None, plain)
    expected, true_mean, true_inverse = reference.layer_norm(x, weight, bias, 1e-5, plain)
    # Terms that may cancel; in float64 the difference to the mean is rounded, too.
    size = np.abs(expected - bias) + np.abs(bias) + 1e-6 * np.abs(weight)
    if real == "float64":
        size = size + np.abs(true_mean * true_inverse)[..., None] * np.abs(weight)
    assert (np.abs(got - expected) <= RELATIVE[real] * size + (length == 1) * 1e-7).all()
    np.testing.assert_allclose(mean, true_mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(inverse, true_inverse, rtol=1e-9)
    own = x.copy()
    np.testing.assert_array_equal(_kernels.layer_norm(own, weight, bias, 1e-5, own, plain)[0], got)
    bare = _kernels.layer_norm(x, None, None, 1e-5, None, plain)[0]
    np.testing.assert_allclose(bare * weight + bias, got, rtol=1e-5, atol=1e-5)


def test_bad_arguments_are_refused_by_name(real):
    x = np.zeros((3, 4), real)
    with pytest.raises(ValueError, match=r"function must be one of 'sigmoid', .*, got 'relu'"):
        _kernels.activate("relu", x)
    for call in (
        lambda *a: _kernels.activate("silu", *a),
        _kernels.softmax,
        lambda a, b=None: _kernels.layer_norm(a, None, None, 0, b),
    ):
        with pytest.raises(TypeError, match="x must be"):
            call(x.astype("int32"))
        with pytest.raises(TypeError, match="x must be"):
            call(x[0, 0])
        with pytest.raises(ValueError, match="x must be C-contiguous"):
            call(x[:, ::2])
        with pytest.raises(ValueError, match="out must have shape"):
            call(x, x[:2])
        locked = x.copy()
        locked.flags.writeable = False
        call(locked)
        with pytest.raises(ValueError, match="out must be writable"):
            call(x, locked)
    with pytest.raises(ValueError, match="weight must have shape"):
        _kernels.layer_norm(x, x[0, :3], None, 0)
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.layer_norm(x, None, None, -1.0)
