"""Windows: how the bands of an image fit together, and that their adjoint and their covers are those of the twin."""

import numpy as np
import pytest
from reference import columns

from fvlrp.network.layers import Conv, Dense, GlobalAveragePool, MaxPool
from fvlrp.network.windows import Windows, scatter, window_count

WINDOWS = [  # kernel, stride, pads, dilation
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((2, 5), (3, 2), (0, 3, 2, 1), (1, 1)),
    ((3, 2), (1, 2), (2, 0, 1, 3), (3, 2)),
    ((3, 2), (2, 1), (6, 4, 5, 3), (1, 1)),  # windows of nothing but padding
    ((1, 1), (2, 3), (0, 1, 0, 0), (1, 1)),
]


def counts(kernel, stride, pads, dilation):
    """Rows and columns of windows on 11 x 9 pixels."""
    return (window_count((11, 9)[a], kernel[a], stride[a], pads[a], pads[2 + a], dilation[a]) for a in (0, 1))


@pytest.mark.parametrize("window", WINDOWS)
def test_scatter_is_the_adjoint_of_columns(window):
    random = np.random.default_rng(0)
    x = random.normal(size=(3, 11, 9))
    rows, cols = counts(*window)
    for begin, end in [(0, rows), (0, 1), (rows - 1, rows)]:
        windows = columns(x, *window, (begin, end), cols)
        values, back = random.normal(size=windows.shape), np.zeros_like(x)
        scatter(values, back, *window, begin, end)
        assert np.vdot(windows, values) == pytest.approx(np.vdot(x, back), rel=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_cover_the_pixels_that_columns_hold(window):
    kernel, stride, pads, dilation = window
    rows, cols = counts(*window)
    x, y = np.random.default_rng(0).normal(size=(1, 1, 11, 9)), np.zeros((1, 1, rows, cols))
    reads = Windows.of(MaxPool(kernel, stride, pads, False, dilation), x, y)
    for image, got in ((x[0], reads.sums(x)), (np.ones((1, 11, 9)), reads.counts)):
        held = columns(image, *window, (0, rows), cols).sum(axis=0)
        np.testing.assert_allclose(got.ravel(), held, rtol=1e-12, atol=1e-12)
    shares = np.arange(1.0, 1 + rows * cols).reshape(rows, cols)
    assert (reads.spread(shares) * x).sum() == pytest.approx((reads.sums(x) * shares).sum(), rel=1e-12)


def test_a_global_pool_has_one_window():
    reads = Windows.of(GlobalAveragePool(), np.zeros((1, 2, 3, 5)), np.zeros((1, 2, 1, 1)))
    assert reads.counts == 15 and (reads.spread(np.ones((1, 1))) == np.ones((3, 5))).all()


@pytest.mark.parametrize("stride", [(0, 1), (1, -1), (0.5, 1), (1, 2.0)])
@pytest.mark.parametrize("layer", ["conv", "pool", "dilated"])
def test_windows_of_impossible_steps_are_refused_before_any_image(layer, stride):
    weight, bias = np.ones((2, 3, 2, 2), np.float32), np.zeros(2, np.float32)
    made = {
        "conv": Conv(weight, bias, stride=stride),
        "pool": MaxPool((2, 2), stride),
        "dilated": MaxPool((2, 2), (1, 1), dilation=stride),
    }[layer]
    with pytest.raises(ValueError, match="strides"):
        made.out_shape((3, 8, 8))


@pytest.mark.parametrize("bias", [(), (0,), (1,), (3,), (1, 2)])
def test_a_bias_must_have_a_number_for_each_output(bias):
    bias = np.zeros(bias, np.float32)
    with pytest.raises(ValueError, match="bias"):
        Conv(np.ones((2, 3, 2, 2), np.float32), bias).out_shape((3, 8, 8))
    with pytest.raises(ValueError, match="bias"):
        Dense(np.ones((2, 3), np.float32), bias).out_shape((3,))
