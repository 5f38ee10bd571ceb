"""Layers: what they compute is what onnx's reference says, whatever the stride, padding, dilation, groups and bands."""

import numpy as np
import pytest

from fvlrp.network import layers
from fvlrp.network.layers import AveragePool, Conv, MaxPool

onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402

WINDOWS = [
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((3, 2), (2, 3), (2, 0, 1, 2), (1, 1)),
    ((2, 3), (1, 2), (0, 3, 2, 0), (3, 2)),
    ((5, 5), (4, 4), (4, 4, 4, 4), (1, 1)),
    ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 1), (2, 3), (0, 1, 0, 0), (1, 1)),
]


@pytest.fixture
def random():
    return np.random.default_rng(0)


def peer(operator, *inputs, opset=13, **attributes):
    """What onnx's own reference implementation computes."""
    names = [f"i{k}" for k in range(len(inputs))]
    node = onnx.helper.make_node(operator, names, ["y"], **attributes)
    return ReferenceEvaluator(node, opsets={"": opset}).run(None, dict(zip(names, inputs, strict=True)))[0]


@pytest.mark.parametrize("groups, n_in, n_out", [(1, 6, 4), (2, 6, 4), (6, 6, 6), (3, 6, 9)])
@pytest.mark.parametrize("kernel, stride, pads, dilation", WINDOWS)
def test_convolution_is_that_of_onnx(random, kernel, stride, pads, dilation, groups, n_in, n_out):
    x = random.normal(size=(2, n_in, 11, 9))
    weight, bias = random.normal(size=(n_out, n_in // groups, *kernel)), random.normal(size=n_out)
    y = Conv(weight, bias, stride, pads, dilation, groups).apply(x)
    expected = peer("Conv", x, weight, bias, strides=stride, pads=pads, dilations=dilation, group=groups)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 3000, 1 << 20])
def test_bands_of_any_size_give_the_same_convolution(random, monkeypatch, budget):
    x, weight = random.normal(size=(1, 3, 23, 17)), random.normal(size=(4, 3, 3, 3))
    layer = Conv(weight, np.ones(4), (2, 1), (1, 1, 1, 1))
    whole = layer.apply(x)
    monkeypatch.setattr("fvlrp.network.layers.conv.BAND_BYTES", budget)
    np.testing.assert_allclose(layer.apply(x), whole, rtol=1e-13)


def test_an_activation_fused_into_a_convolution_changes_nothing(random):
    for kernel, groups in [((3, 3), 1), ((1, 1), 1), ((3, 3), 4)]:
        layer = Conv(random.normal(size=(4, 4 // groups, *kernel)), random.normal(size=4), groups=groups)
        x = random.normal(size=(2, 4, 8, 8)).astype(np.float32)
        for then in (layers.ReLU(), layers.LeakyReLU(0.1), layers.Clip(0, 0.5)):
            np.testing.assert_array_equal(layer.apply(x, then), then.apply(layer.apply(x)))


POOLS = [
    ((3, 3), (2, 2), (0, 0, 0, 0)),
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 2), (1, 2), (1, 1, 1, 0)),
    ((3, 3), (2, 2), (1, 1, 1, 1)),
    ((1, 1), (1, 1), (0, 0, 0, 0)),
]


def windows_by_hand(x, pool, dilation=(1, 1)):
    """Every window as (inside values, how many pixels of it lie in the image or its padding)."""
    _, height, width = x.shape
    out_height, out_width = pool.out_shape(x.shape)[1:]
    (kh, kw), (sy, sx), (top, left, bottom, right) = pool.kernel, pool.stride, pool.pads
    for oy in range(out_height):
        for ox in range(out_width):
            ys = [oy * sy - top + k * dilation[0] for k in range(kh)]
            xs = [ox * sx - left + k * dilation[1] for k in range(kw)]
            inside = x[:, [y for y in ys if 0 <= y < height]][:, :, [c for c in xs if 0 <= c < width]]
            padded = sum(-top <= y < height + bottom for y in ys) * sum(-left <= c < width + right for c in xs)
            yield oy, ox, inside, padded


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel, stride, pads", POOLS)
def test_pools_are_the_maximum_and_the_mean_of_each_window(random, kernel, stride, pads, ceil_mode):
    x = -1 - random.random((2, 5, 8, 9))  # all negative: zeros of a border must not win
    largest = MaxPool(kernel, stride, pads, ceil_mode)
    inner, whole = (AveragePool(kernel, stride, pads, ceil_mode, include) for include in (False, True))
    results = [pool.apply(x)[1] for pool in (largest, inner, whole)]
    for oy, ox, inside, padded in windows_by_hand(x[1], largest):
        np.testing.assert_array_equal(results[0][:, oy, ox], inside.max(axis=(1, 2)))
        np.testing.assert_allclose(results[1][:, oy, ox], inside.mean(axis=(1, 2)), rtol=1e-13)
        np.testing.assert_allclose(results[2][:, oy, ox], inside.sum(axis=(1, 2)) / padded, rtol=1e-13)


def test_a_dilated_maximum_skips_pixels(random):
    x = random.normal(size=(1, 2, 9, 8))
    pool = MaxPool((2, 3), (1, 2), (0, 1, 1, 0), dilation=(3, 2))
    assert pool.apply(x).shape[1:] == pool.out_shape(x.shape[1:])
    for oy, ox, inside, _ in windows_by_hand(x[0], pool, pool.dilation):
        np.testing.assert_array_equal(pool.apply(x)[0, :, oy, ox], inside.max(axis=(1, 2)))


def test_ceil_mode_never_starts_a_window_behind_the_image():
    assert MaxPool((1, 1), (2, 2), (0, 0, 0, 0), True).out_shape((1, 4, 5)) == (1, 2, 3)
    assert MaxPool((3, 3), (2, 2), (0, 0, 0, 0), True).out_shape((1, 112, 113)) == (1, 56, 56)


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_lrn_sums_the_squares_of_the_channels_that_onnx_names(random, size, beta):
    x = random.normal(size=(2, 7, 3, 4))
    y = layers.LRN(size, 0.3, beta, 1.5).apply(x)
    for c in range(7):
        first, last = max(0, c - (size - 1) // 2), min(6, c + int(np.ceil((size - 1) / 2)))
        squares = (x[:, first : last + 1] ** 2).sum(axis=1)
        np.testing.assert_allclose(y[:, c], x[:, c] / (1.5 + 0.3 / size * squares) ** beta, rtol=1e-13)


def test_a_layer_computes_in_the_dtype_of_its_input(random):
    weight, bias = (random.normal(size=shape).astype(np.float32) for shape in ((3, 2, 3, 3), 3))
    per_channel = random.normal(size=2).astype(np.float32)
    for layer in (
        Conv(weight, bias),
        Conv(weight[:2, :1], bias[:2], groups=2),
        Conv(weight[:, :, :1, :1], bias),
        layers.Dense(weight.reshape(3, -1)[:, :3], bias),
        layers.Affine(per_channel, per_channel),
        layers.LRN(3),
        layers.LeakyReLU(0.1),
        layers.Clip(0, 6),
        AveragePool((2, 2), (2, 2)),
        MaxPool((2, 2), (2, 2)),
    ):
        for dtype in (np.float32, np.float64):
            x = random.normal(size=(1, 2, 3, 3)).astype(dtype)
            assert layer.apply(x).dtype == dtype, layer
            assert layer.apply(x).shape[1:] == layer.out_shape(x.shape[1:])


def test_errors_for_mismatched_sizes_name_the_sizes():
    with pytest.raises(ValueError, match="3 channels was given 4"):
        Conv(np.zeros((1, 3, 1, 1)), np.zeros(1)).out_shape((4, 5, 5))
    with pytest.raises(ValueError, match="window of 7 does not fit 5"):
        MaxPool((7, 7), (1, 1)).out_shape((1, 5, 5))
    for shape in ((10,), (12, 10), ()):
        with pytest.raises(ValueError, match=rf"12 inputs was given \({', '.join(map(str, shape))}"):
            layers.Dense(np.zeros((2, 12)), np.zeros(2)).out_shape(shape)
    with pytest.raises(ValueError, match="same shape"):
        layers.Add().out_shape((2, 3, 3), (2, 3, 4))


SHAPES = {
    r"an array of \(3, 4\) has no axes \(3,\)": (layers.Reduce("mean", (3,), True), (3, 4)),
    "how must be one of 'mean', 'sum', 'max', 'logsumexp', got 'median'": (layers.Reduce("median", (1,), True), (3, 4)),
    r"an array of \(5,\) has no height and width": (layers.Resize((8, 8), (0, 0), "linear"), (5,)),
    r"\(4, 6\) is not resized to \(0, 6\)": (layers.Resize((0, 6), (0.1, 1), "linear"), (3, 4, 6)),
    "3 channels do not divide into 2 groups": (layers.GroupNorm(np.ones(3), np.zeros(3), 2, 1e-5), (3, 4, 6)),
    "do not fit 4 channels": (layers.GroupNorm(np.ones(3), np.zeros(3), 3, 1e-5), (4, 4, 6)),
    r"has no axes \(2,\)": (layers.LayerNorm(np.ones(3), np.zeros(3), (2,), 1e-5), (3,)),
    r"has no axes \(0,\)": (layers.RMSNorm(np.ones(3), (0,), 1e-5), (3,)),
    r"an array of 2 axes has no order \(1, 3\)": (layers.Transpose((1, 3)), (3, 4)),
    "3 values from 2 in steps of 1 are not in 4": (layers.Slice(1, 2, 3, 1), (4, 5)),
    r"indices must be in 0\.\.3": (layers.Gather(np.array([0, 4]), 1), (4, 5)),
    r"an array of \(4, 5\) does not expand to \(1, 5\)": (layers.Expand((1, 5)), (4, 5)),
}


@pytest.mark.parametrize("reason", SHAPES)
def test_a_layer_refuses_an_array_that_does_not_fit_and_says_why(reason):
    layer, shape = SHAPES[reason]
    with pytest.raises(ValueError, match=reason):
        layer.out_shape(shape)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown activation 'sine'; known are .*tanh"):
        layers.Activation("sine")


@pytest.mark.parametrize("slope", [-0.5, 1.5])
def test_a_slope_outside_0_to_1_is_applied_below_zero_alone(slope):
    x = np.float32([[-2, -1, 0, 1, 2]])
    np.testing.assert_array_equal(layers.LeakyReLU(slope).apply(x), np.where(x > 0, x, slope * x))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu"])
def test_an_activation_of_a_view_is_that_of_its_copy(name):
    x = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)
    view = x[:, ::2, ::2]
    np.testing.assert_allclose(
        layers.Activation(name).apply(view), layers.Activation(name).apply(view.copy()), rtol=1e-6
    )
