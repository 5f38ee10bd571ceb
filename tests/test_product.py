"""Dense products and convolutions without columns: the kernel is `@`, whatever the sizes, strides and padding."""

import numpy as np
import pytest
from reference import columns

from fvlrp import _kernels
from fvlrp.network.layers import Conv
from fvlrp.network.layers.contributions import adjoint
from fvlrp.network.windows import scatter, window_count
from fvlrp.runtime.memory import Memory

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of the sum of the absolute values that add up to a number
ROWS = 1, 2, 3, 5, 6, 7, 13, 65  # blocks have 6, 4, 2 or 1
DEPTHS = 0, 1, 3, 127, 300, 600  # panels are 128 or 256 deep
COLUMNS = 1, 3, 8, 15, 17, 49, 64, 70, 200  # panels are of 4 to 64; one column more is computed apart
LAYOUTS = (lambda a: a), np.asfortranarray, (lambda a: a[::-1, ::-1])
MODES = (False, False), (False, True), (True, False), (True, True)  # whether `out` is added to, and has a bias
WINDOWS = [  # image, kernel, stride, pads, dilation
    ((3, 9, 11), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((2, 14, 14), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((40, 8, 90), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((3, 23, 29), (11, 11), (4, 4), (0, 0, 0, 0), (1, 1)),
    ((2, 9, 81), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),  # every other pixel by vectors
    ((5, 12, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((300, 7, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((30, 7, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((6, 14, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((4, 10, 13), (2, 5), (3, 2), (0, 3, 2, 1), (1, 1)),
    ((3, 12, 17), (3, 2), (1, 1), (2, 0, 1, 3), (3, 2)),
    ((2, 3, 2), (3, 3), (1, 1), (4, 4, 4, 4), (1, 1)),  # windows of nothing but padding
    ((2, 1, 1), (5, 5), (2, 2), (4, 4, 4, 4), (1, 1)),
]


pytestmark = pytest.mark.usefixtures("isa", "one_blas_thread")


@pytest.fixture(params=TOLERANCE)
def real(request):
    return request.param


def assert_product(got, a, b, start):
    """`got` is start + a @ b, summed in double."""
    a, b, start = (np.asarray(v, np.float64) for v in (a, b, start))
    allowed = TOLERANCE[str(got.dtype)] * (np.abs(a) @ np.abs(b) + np.abs(start))
    error = np.abs(got - (a @ b + start))
    assert (error <= allowed).all(), (error - allowed).max()


def framed(rng, shape, real):
    """A view of random numbers with others on every side, and its base."""
    base = rng.standard_normal((shape[0] + 2, shape[1] + 5)).astype(real)
    return base[1:-1, 2 : 2 + shape[1]], base


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("rows", ROWS)
def test_product_of_any_size_is_numpys_and_writes_nothing_else(rows, depth, real):
    """Every size in every layout. The mode goes round, so that it meets each layout, and each pair of sizes, too."""
    rng = np.random.default_rng([rows, depth])
    mode = ROWS.index(rows) + DEPTHS.index(depth)
    for n in COLUMNS:
        a, b = framed(rng, (rows, depth), real)[0], framed(rng, (depth, n), real)[0]
        bias = rng.standard_normal(rows).astype(real)
        for layout in LAYOUTS:
            mode += 1
            add, shifted = MODES[mode % len(MODES)]
            left = layout(a)
            out, base = framed(rng, (rows, n), real)
            before, start = base.copy(), np.zeros_like(out)
            if add:
                start += out
            if shifted:
                start += bias[:, None]
            _kernels.product(left, b, out, bias if shifted else None, add)
            assert_product(out, left, b, start)
            before[1:-1, 2 : 2 + n] = out
            np.testing.assert_array_equal(base, before)


def test_product_overwrites_nan(real):
    out = np.full((7, 19), np.nan, real)
    _kernels.product(np.ones((7, 300), real), np.ones((300, 19), real), out)
    assert (out == 300).all()


def test_product_propagates_nan(real):
    b = np.ones((4, 33), real)
    b[2, 32] = np.nan
    out = _kernels.product(np.ones((7, 4), real), b, np.zeros((7, 33), real))
    assert np.isnan(out[:, 32]).all() and (out[:, :32] == 4).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 3, 0), (0, 0, 0)])
def test_matrix_products_of_empty_arrays_are_empty(shape, real):
    m, k, n = shape
    assert _kernels.product(np.ones((m, k), real), np.ones((k, n), real), np.ones((m, n), real)).shape == (m, n)


@pytest.mark.parametrize(("image", "kernel", "stride", "pads", "dilation"), WINDOWS)
def test_convolution_is_the_product_with_columns(image, kernel, stride, pads, dilation, real):
    rng = np.random.default_rng(0)
    height, width = (
        window_count(image[1 + a], kernel[a], stride[a], pads[a], pads[2 + a], dilation[a]) for a in (0, 1)
    )
    x = rng.standard_normal(image).astype(real)
    for rows in (1, 7, 13):
        a = rng.standard_normal((rows, image[0], kernel[0] * kernel[1])).astype(real)
        bias = rng.standard_normal(rows).astype(real)
        for begin, end in ((0, height), (height // 2, height), (0, 1)):
            windows = columns(x, kernel, stride, pads, dilation, (begin, end), width)
            for left in (a, a[:, :, ::-1], np.asfortranarray(a)):
                out, _ = framed(rng, (rows, (end - begin) * width), real)
                start = out + bias[:, None]
                _kernels.convolve(left, x, kernel, stride, pads, dilation, (begin, end), width, out, bias, add=True)
                assert_product(out, left.reshape(rows, -1), windows, start)


@pytest.mark.parametrize(("image", "kernel", "stride", "pads", "dilation"), WINDOWS)
def test_relevance_is_scattered_like_columns(image, kernel, stride, pads, dilation, real):
    rng = np.random.default_rng(0)
    layer = Conv(np.zeros((4, image[0], *kernel)), np.zeros(4), stride, pads, dilation)
    _, height, width = layer.out_shape(image)
    weight = rng.standard_normal((4, image[0] * kernel[0] * kernel[1])).astype(real)
    for rows in ((0, height), (height // 2, height), (0, 1)):
        share = rng.standard_normal((4, rows[1] - rows[0], width)).astype(real)
        out = rng.standard_normal(image).astype(real)
        expected, sizes = out.astype(np.float64), np.abs(out).astype(np.float64)
        flat, window = share.reshape(4, -1).astype(np.float64), (kernel, stride, pads, dilation, *rows)
        scatter(weight.T @ flat, expected, *window)
        scatter(np.abs(weight).T @ np.abs(flat), sizes, *window)
        taps = weight.reshape(4, image[0], -1)
        adjoint(layer.window, taps, 0, share, None, out, rows, Memory(out.dtype))
        assert (np.abs(out - expected) <= TOLERANCE[real] * sizes).all()
        other = rng.standard_normal(share.shape).astype(real)
        scatter(np.maximum(weight, 0).T @ flat, expected, *window)
        scatter(np.minimum(weight, 0).T @ other.reshape(4, -1).astype(np.float64), expected, *window)
        scatter(np.abs(weight).T @ np.abs(other.reshape(4, -1)), sizes, *window)
        adjoint(layer.window, taps, 1, share, other, out, rows, Memory(out.dtype))
        assert (np.abs(out - expected) <= TOLERANCE[real] * sizes).all()


def test_product_refuses_mismatched_arrays():
    a, b, out, bias = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4)), np.ones(2)
    locked = out.copy()
    locked.flags.writeable = False
    for bad, words in (
        ((a.astype(int), b, out), "a must be an array of float32 or float64"),
        ((a[0], b, out), "a must have 2 axes"),
        ((a, b[:2], out), r"b must have shape \(3, any\)"),
        ((a, b.astype(np.float32), out), "b must be an array of float64"),
        ((a, np.asfortranarray(b), out), "b must have contiguous rows"),
        ((a, b[::-1], out), "b must have rows one after the other"),
        ((a, b, out[:1]), r"out must have shape \(2, 4\)"),
        ((a, b, locked), "out must be writable"),
        ((a, b, out, bias[:1]), r"bias must have shape \(2\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            _kernels.product(*bad)
    assert (out == 1).all()


@pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray])
@pytest.mark.parametrize(("rows", "cols"), [(9, 11), (7, 7)])
@pytest.mark.parametrize("channels", [5, 700])  # in one part, and in several
def test_results_are_clipped_once_all_terms_are_in(channels, rows, cols, layout, real):
    rng, n = np.random.default_rng(0), rows * cols
    a, x = rng.standard_normal((7, channels, 1)).astype(real), rng.standard_normal((channels, rows, cols)).astype(real)
    a, bias, base = layout(a), rng.standard_normal(7).astype(real), rng.standard_normal((7, n)).astype(real)
    x[0, -1, -1] = np.nan
    window = (1, 1), (1, 1), (0, 0), (1, 1), (0, rows), cols
    plain, clipped = base.copy(), base.copy()
    _kernels.convolve(a, x, *window, plain, bias, True, 0)
    for low, high in ((0, 6), (0, np.inf), (-0.5, 0.25)):
        clipped[:] = base
        _kernels.convolve(a, x, *window, clipped, bias, True, 0, (low, high))
        np.testing.assert_array_equal(clipped, np.clip(plain, low, high))
        assert np.isnan(clipped).sum() == 7
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.convolve(a, x, *window, clipped, bounds=(np.nan, 0))


def test_convolution_refuses_mismatched_arrays():
    good = {"a": np.ones((2, 3, 4)), "x": np.ones((3, 5, 5)), "kernel": (2, 2), "stride": (1, 1), "pads": (0, 0, 0, 0)}
    good |= {"dilation": (1, 1), "rows": (0, 4), "cols": 4, "out": np.ones((2, 16))}
    _kernels.convolve(**good)
    for bad, words in (
        ({"a": np.ones((2, 3, 5))}, r"a must have shape \(any, 3, 4\)"),
        ({"x": np.ones((3, 5, 10))[:, :, ::2]}, "x must be C-contiguous"),
        ({"out": np.ones((2, 15))}, r"out must have shape \(2, 16\)"),
        ({"stride": (0, 1)}, "outside its range"),
        ({"dilation": (1, -1)}, "outside its range"),
        ({"rows": (-1, 3)}, "outside its range"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            _kernels.convolve(**(good | bad))
