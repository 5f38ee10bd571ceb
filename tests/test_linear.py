"""Kernels of convolutional networks against their slow twins: quick convolutions, dense layers, alpha-beta, pools."""

import numpy as np
import pytest
import reference

from fvlrp import _kernels

TOLERANCE = {"float32": 2e-6, "float64": 1e-13}  # of the sum of the absolute values that add up to a number
IMAGES = [  # channels, height, width, outputs, (top, left), output rows, output columns
    (1, 1, 1, 1, (1, 1), 1, 1),
    (16, 14, 14, 16, (1, 1), 14, 14),
    (20, 13, 13, 70, (1, 1), 13, 13),
    (3, 9, 11, 5, (0, 2), 7, 13),
    (33, 2, 5, 3, (2, 2), 4, 7),
    (7, 30, 58, 67, (1, 1), 30, 58),  # several blocks of tiles and of outputs
    (70, 6, 7, 65, (-1, -2), 3, 4),  # several blocks of channels
    (2, 3, 3, 2, (6, 40), 14, 50),  # tiles of nothing but padding
]


pytestmark = pytest.mark.usefixtures("isa")


@pytest.fixture(params=TOLERANCE)
def real(request):
    return request.param


@pytest.fixture
def random():
    return np.random.default_rng(0)


# ---- Winograd's product ----


def product_with_windows(weight, image, pads, rows, cols, sign=0, other=None):
    """The twin by the product kernel in double, which tests of its own hold to columns; and the sum of sizes."""
    shape = len(weight), (rows[1] - rows[0]) * cols
    out, sizes, one = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    window = (3, 3), (1, 1), pads, (1, 1), rows, cols
    for each, part in ((image, sign), (other, -sign)):
        if each is not None:
            w = reference.of_sign(weight.astype(np.float64), part)
            out += _kernels.convolve(w, each.astype(np.float64), *window, one)
            sizes += _kernels.convolve(np.abs(w), np.abs(each).astype(np.float64), *window, one)
    return out, sizes


@pytest.mark.parametrize(("channels", "height", "width", "outputs", "pads", "rows", "cols"), IMAGES)
def test_winograd_equals_the_direct_convolution(random, channels, height, width, outputs, pads, rows, cols):
    x, other = random.standard_normal((2, channels, height, width)).astype(np.float32)
    weight = random.standard_normal((outputs, channels, 9)).astype(np.float32)
    turned = np.ascontiguousarray(weight.transpose(1, 0, 2)[:, :, ::-1]).transpose(1, 0, 2)[:, :, ::-1]
    bias = random.standard_normal(outputs).astype(np.float32)
    for left in (weight, turned, np.asfortranarray(weight)):
        for sign, second in ((0, None), (1, None), (-1, None), (2, None), (1, other), (-1, other)):
            for band in ((0, rows), (rows // 2, rows)):
                expected, sizes = product_with_windows(left, x, pads, band, cols, sign, second)
                base = random.standard_normal((outputs + 2, sizes.shape[1] + 3)).astype(np.float32)
                out, before = base[1:-1, 2:-1], base.copy()
                start = out + bias.astype(np.float64)[:, None]
                _kernels.winograd(left, x, pads, band, cols, out, bias, True, sign, second)
                tiles = sizes.max(axis=1, keepdims=True)  # rounding of a tile's brightest pixel reaches its darkest
                assert (np.abs(out - expected - start) <= 2e-6 * (tiles + np.abs(start))).all()
                before[1:-1, 2:-1] = out
                np.testing.assert_array_equal(base, before)


def test_winograd_equals_its_twin(random):
    x, other = random.standard_normal((2, 5, 6, 7)).astype(np.float32)
    weight = random.standard_normal((3, 5, 9)).astype(np.float32)
    for sign, second in ((0, None), (1, other), (-1, other), (2, None)):
        out = _kernels.winograd(weight, x, (1, 1), (1, 6), 7, np.empty((3, 35), np.float32), None, False, sign, second)
        expected = reference.convolution(weight, x, (1, 1), (1, 6), 7, sign, second)
        np.testing.assert_allclose(out, expected, atol=2e-5)


def test_winograd_is_within_its_float32_error_bound(random):
    """The points +-1, +-2 that textbooks choose would be three times as far off."""
    x = np.maximum(random.standard_normal((256, 14, 14)), 0).astype(np.float32)
    weight = random.standard_normal((64, 256, 9)).astype(np.float32)
    expected, sizes = product_with_windows(weight, x, (1, 1), (0, 14), 14)
    out = _kernels.winograd(weight, x, (1, 1), (0, 14), 14, np.empty((64, 196), np.float32))
    assert np.sqrt(np.mean((out - expected) ** 2)) < 1.5e-7 * sizes.mean()


def test_winograd_marks_results_that_may_be_rounding_error(random):
    """Pixels of 1e6 beside pixels of 1: sums of the small ones drown in the transforms, and are no numbers then."""
    x = random.random((16, 12, 12)).astype(np.float32)
    x[:, :5] *= 1e6
    weight = random.standard_normal((8, 16, 9)).astype(np.float32)
    weight[0], weight[1] = np.abs(weight[0]), -np.abs(weight[1])  # z- of 0, z+ of 0
    window = weight, x, (1, 1), (0, 12), 12
    z = np.ascontiguousarray(reference.convolution(*window), np.float32)
    expected = reference.convolution(*window, 1)
    limits = reference.cancelled(*window) * 1e-3
    plain = _kernels.winograd(*window, np.empty_like(z), sign=1)
    checked = _kernels.winograd(*window, np.empty_like(z), sign=1, doubt=1e-3, whole=z)
    known = ~np.isnan(checked)
    assert 0.3 < known.mean() < 0.9
    assert (np.abs(plain / np.where(expected == 0, 1, expected) - 1)[known] < 2e-3).all()
    near = np.minimum(expected, np.abs(z - expected)) / limits
    assert not known[near < 0.99].any() and known[near > 1.01].all()
    alone = _kernels.winograd(*window, np.empty_like(z), sign=1, doubt=1e-3)
    assert np.isnan(alone[(expected / limits) < 0.99]).all() and not np.isnan(alone[(expected / limits) > 1.01]).any()
    sizes = _kernels.winograd(*window, np.empty_like(z), sign=2, doubt=1e-3, whole=z)
    assert np.isnan(sizes[:2]).all()  # |W| x is z where all weights are positive, and -z where all are negative
    assert not np.isnan(sizes[2:]).all()


@pytest.mark.parametrize("sign", [0, 1, -1, 2])
def test_nan_reaches_the_outputs_that_depend_on_it(random, sign):
    x, weight = random.random((8, 9, 9)).astype(np.float32), random.random((8, 8, 9)).astype(np.float32)
    x[3, 4, 4] = np.nan
    out = _kernels.winograd(weight, x, (1, 1), (0, 9), 9, np.empty((8, 81), np.float32), sign=sign).reshape(8, 9, 9)
    assert np.isnan(out[:, 3:6, 3:6]).all() and np.isfinite(out[:, 8, 8]).all()
    x[3, 4, 4], weight[2, 5, 0] = 0, np.nan
    out = _kernels.winograd(weight, x, (1, 1), (0, 9), 9, np.empty((8, 81), np.float32), sign=sign)
    assert np.isnan(out[2]).all() and np.isfinite(np.delete(out, 2, axis=0)).all()


def test_winograd_refuses_mismatched_arrays():
    x, out = np.ones((4, 5, 5), np.float32), np.ones((2, 25), np.float32)
    good = {"a": np.ones((2, 4, 9), np.float32), "x": x, "pads": (1, 1), "rows": (0, 5), "cols": 5, "out": out}
    _kernels.winograd(**good)
    for bad, words in (
        ({"a": np.ones((2, 3, 9), np.float32)}, r"a must be float32 of shape \(any, 4, 9\)"),
        ({"a": np.ones((2, 4, 9))}, "a must be float32"),
        ({"x": x.astype(np.float64)}, "x must be an array of float32"),
        ({"other": x[:2]}, "other must have shape"),
        ({"other": x}, "outside its range"),
        ({"other": x, "sign": 2}, "outside its range"),
        ({"sign": 3}, "outside its range"),
        ({"doubt": -1.0}, "outside its range"),
        ({"whole": out}, "outside its range"),
        ({"out": out[:, :24]}, r"out must have shape \(2, 25\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            _kernels.winograd(**(good | bad))


# ---- weights of one sign ----


@pytest.mark.parametrize("sign", [0, 1, -1, 2])
def test_products_take_weights_of_one_sign(random, sign, real):
    a, b = random.standard_normal((13, 300)).astype(real), random.standard_normal((300, 70)).astype(real)
    a[3, 7] = np.nan
    out = _kernels.product(a, b, np.empty((13, 70), real), sign=sign)
    expected = reference.of_sign(a.astype(np.float64), sign) @ b.astype(np.float64)
    assert np.isnan(out[3]).all()
    np.testing.assert_allclose(np.delete(out, 3, 0), np.delete(expected, 3, 0), rtol=0, atol=300 * TOLERANCE[real])


# ---- dense layers ----


@pytest.mark.parametrize("n", [1, 3, 16, 37, 3000])
@pytest.mark.parametrize("rows", [(), (2,), (0, 4, 5), (6, 5, 4, 3, 2, 1, 0), (1, 1)])
def test_dense_sums_and_their_adjoint_equal_their_twins(random, n, rows, real):
    weight, x = random.standard_normal((7, n)).astype(real), random.standard_normal(n).astype(real)
    rows = np.array(rows, np.int64)
    above, below = np.maximum(x, 0), np.minimum(x, 0)
    shares = random.standard_normal((2, 3, len(rows))).astype(real)
    for under in (below, None):
        sums = _kernels.dense_sums(weight, rows, above, under)
        zero = np.zeros_like(above)
        for got, want in zip(sums, reference.dense_terms(weight, above, zero if under is None else under), strict=True):
            np.testing.assert_allclose(got, want[rows], rtol=TOLERANCE[real], atol=TOLERANCE[real])
        start = random.standard_normal((2, 3, n)).astype(real)
        up, down = start.copy()
        _kernels.dense_back(weight, rows, *shares, up, None if under is None else down)
        back = reference.dense_back(weight[rows], *shares)
        np.testing.assert_allclose(up, start[0] + back[0], atol=20 * TOLERANCE[real])
        np.testing.assert_allclose(down, start[1] + (0 if under is None else back[1]), atol=20 * TOLERANCE[real])


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 37), (600, 9), (9, 70_000)])
def test_dense_alpha_beta_is_its_parts(random, m, n, beta, real):
    weight, x = random.standard_normal((m, n)).astype(real), random.standard_normal(n).astype(real)
    weight[0] = np.abs(weight[0])
    rows, bias = np.arange(m)[::-1].copy(), random.standard_normal(m).astype(real)
    bias[-1] = np.abs(bias[-1])
    for above, below in ((np.maximum(x, 0), np.minimum(x, 0)), (np.abs(x), None)):  # the latter: z- of row 0 is 0
        under = np.zeros_like(x) if below is None else below
        r = random.standard_normal((2, m)).astype(real)
        up, down = np.zeros((2, n), real), None if below is None else np.zeros((2, n), real)
        kept, lost = _kernels.dense_alpha_beta(weight, rows, above, below, bias, r, 1 + beta, beta, up, down)
        high, low = reference.dense_terms(weight[rows].astype(np.float64), above, under)
        high, low = high + np.maximum(bias, 0), low + np.minimum(bias, 0)
        sums = high[:, None], low[:, None]
        positive, negative, zero = reference.alpha_beta_shares(r[:, :, None].astype(float), *sums, 1 + beta, beta)
        want = reference.dense_back(weight[rows].astype(np.float64), positive[:, :, 0], negative[:, :, 0])
        tolerance = {"rtol": 0, "atol": 50 * TOLERANCE[real] * np.abs(want[0]).max()}
        np.testing.assert_allclose(up, want[0], **tolerance)
        if below is not None:
            np.testing.assert_allclose(down, want[1], **tolerance)
        took = positive[:, :, 0] @ np.maximum(bias, 0) + negative[:, :, 0] @ np.minimum(bias, 0)
        np.testing.assert_allclose(kept, took, rtol=1e3 * TOLERANCE[real], atol=1e3 * TOLERANCE[real])
        np.testing.assert_allclose(lost, zero, atol=1e2 * TOLERANCE[real])
        assert (below is not None or beta == 0) or zero.any()


def test_dense_kernels_propagate_nan(real):
    weight, rows = np.ones((3, 21), real), np.arange(3)
    weight[1, 20] = np.nan
    up, down = _kernels.dense_sums(weight, rows, np.ones(21, real))
    assert np.isnan([up[1], down[1]]).all() and (up[[0, 2]] == 21).all() and (down[[0, 2]] == 0).all()
    back = np.zeros((1, 21), real)
    _kernels.dense_back(weight, rows, np.ones((1, 3), real), np.ones((1, 3), real), back)
    assert np.isnan(back[0, 20]) and (back[0, :20] == 3).all()


def test_dense_kernels_refuse_mismatched_arrays(real):
    weight, x, shares = np.ones((3, 5), real), np.ones(5, real), np.ones((1, 2), real)
    for rows in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="outside its range"):
            _kernels.dense_sums(weight, np.array(rows), x)
        with pytest.raises(ValueError, match="outside its range"):
            _kernels.dense_back(weight, np.array(rows), shares, shares, np.ones((1, 5), real))
    with pytest.raises(ValueError, match=r"above must have shape \(5\)"):
        _kernels.dense_sums(weight, np.array([0]), x[:4])
    one = np.ones((1, 3), real)
    with pytest.raises(ValueError, match="down must be an array where below is one"):
        _kernels.dense_alpha_beta(weight, np.arange(3), weight[0], weight[0], None, one, 2, 1, np.ones((1, 5), real))
    with pytest.raises(ValueError, match="up must have shape"):
        _kernels.dense_back(weight, np.array([0, 1]), shares, shares, np.ones((2, 5), real))
    with pytest.raises(TypeError, match=r"up must be an array of float.*, got NoneType"):
        _kernels.dense_back(weight, np.array([0, 1]), shares, shares, None)


# ---- alpha-beta ----


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
@pytest.mark.parametrize(("targets", "m", "n"), [(1, 1, 1), (1, 5, 70), (3, 4, 64), (2, 3, 131)])
def test_alpha_beta_shares_equal_their_twin(random, targets, m, n, beta, real):
    positive, negative = random.uniform(0.5, 2, (2, m, n)).astype(real)
    r = random.standard_normal((targets, m, n + 5)).astype(real)[:, :, 2 : 2 + n]
    positive[0, 0] = negative[-1, -1] = 0
    z = positive - negative
    up, down, kept, lost, doubtful = _kernels.alpha_beta(r, z, positive, 1 + beta, beta, 0.0)
    want = reference.alpha_beta_shares(r.astype(np.float64), positive, z - positive, 1 + beta, beta)
    for got, share, sums in zip((up, down) if beta else (up,), want[:2], kept, strict=False):
        np.testing.assert_allclose(got, share, rtol=10 * TOLERANCE[real])
        np.testing.assert_allclose(sums, share.sum(axis=2), atol=1e3 * TOLERANCE[real])
    np.testing.assert_allclose(lost, want[2], atol=100 * TOLERANCE[real])
    assert len(doubtful) == 0 and (down is None) == (beta == 0)


@pytest.mark.parametrize(("targets", "m", "n"), [(1, 1, 1), (1, 5, 70), (3, 4, 64), (2, 3, 131)])
def test_gamma_shares_are_their_twin(random, targets, m, n, real):
    positive, negative = random.uniform(0.5, 2, (2, m, n)).astype(real)
    r = random.standard_normal((targets, m, n)).astype(real)
    positive[-1, -1], z = np.nan, positive - negative
    positive[0, 0] = z[0, 0] = 0
    z[-1, -1], r[:, -1, -1] = 1, 0 if n == 1 else 1
    up, down, kept, lost, doubtful = _kernels.alpha_beta(r, z, positive, 1.0, 0.0, 0.0, gamma=0.25)
    want = reference.gamma_shares(r.astype(np.float64), z.astype(np.float64), np.nan_to_num(positive), 0.25)
    for got, share, sums in zip((up, down), want[:2], kept, strict=True):
        share[:, -1, -1] = 0
        np.testing.assert_allclose(got, share, rtol=10 * TOLERANCE[real])
        np.testing.assert_allclose(sums, share.sum(axis=2), atol=1e3 * TOLERANCE[real])
    np.testing.assert_allclose(lost, want[2], atol=100 * TOLERANCE[real])
    assert n == 1 or doubtful is None or doubtful.tolist() == [m * n - 1]


@pytest.mark.parametrize("n", [1, 2, 16, 37, 200])
def test_outputs_are_alive_if_any_target_has_relevance_there(n, real):
    r = np.zeros((2, 2 * n + 4, n), real)
    r[0, :n], r[1, n : 2 * n] = np.eye(n), -np.eye(n)
    r[1, 2 * n, -1], r[:, 2 * n + 1], r[:, 2 * n + 2, 0] = np.nan, -0.0, 1e-40 if real == "float32" else 1e-310
    for some in (slice(None), slice(1, None), slice(3, 3)):
        np.testing.assert_array_equal(_kernels.alive(r[:, some]), (r[:, some] != 0).any(axis=(0, 2)))
        np.testing.assert_array_equal(_kernels.alive(r[:0, some]), np.zeros(len(r[0, some]), bool))
    with pytest.raises(ValueError, match="must be C-contiguous"):
        _kernels.alive(np.zeros((2, 3, 4), real)[:, :, ::2])
    with pytest.raises(TypeError, match="float32 or float64"):
        _kernels.alive(np.zeros((2, 3, 4), int))


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [-1.0, 0.5])
def test_halves_multiply_x_and_its_size(random, beta, gamma, real):
    positive, negative = random.uniform(0.5, 2, (2, 3, 77)).astype(real)
    r, z = random.standard_normal((2, 3, 77)).astype(real), positive - negative
    up, down, *_ = _kernels.alpha_beta(r, z, positive, 1 + beta, beta, 0.0, gamma=gamma)
    first, second, *_ = _kernels.alpha_beta(r, z, positive, 1 + beta, beta, 0.0, gamma=gamma, halves=True)
    below = np.zeros_like(up) if down is None else down
    np.testing.assert_allclose(first, (up + below) / 2, rtol=TOLERANCE[real], atol=TOLERANCE[real])
    np.testing.assert_allclose(
        first if second is None else second, (up - below) / 2, rtol=TOLERANCE[real], atol=10 * TOLERANCE[real]
    )


def test_alpha_beta_lists_sums_that_may_be_rounding_error(real):
    positive, z, r = np.ones((3, 40), real), np.full((3, 40), -1.0, real), np.ones((2, 3, 40), real)
    z[0, 1], z[1, 2] = 1, 1 - 1e-5  # z- of 0, and next to nothing beside z+
    positive[2, 3], z[2, 3] = 1e-6, -1  # z+ next to nothing
    positive[1, 7] = np.nan
    positive[0, 9], z[0, 9], r[:, 0, 9] = np.nan, np.nan, 0  # nothing to share there
    up, down, _, lost, doubtful = _kernels.alpha_beta(r, z, positive, 2.0, 1.0, 1e-4)
    assert doubtful.tolist() == [1, 42, 47, 83] and not lost.any()
    for shares in (up, down):
        assert not shares.reshape(2, -1)[:, [*doubtful, 9]].any() and np.isfinite(shares).all()
    assert _kernels.alpha_beta(r, z, positive, 1.0, 0.0, 1e-4)[-1].tolist() == [47, 83]
    assert _kernels.alpha_beta(r, None, positive, 1.0, 0.0, 1e-4)[-1].tolist() == [47]
    assert _kernels.alpha_beta(r, positive, positive, 2.0, 1.0, 1e-4)[-1] is None  # more than one in sixteen
    with pytest.raises(ValueError, match="z must be given"):
        _kernels.alpha_beta(r, None, positive, 2.0, 1.0, 1e-4)


# ---- pools ----


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pads", "dilation", "out"),
    [
        ((1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), (1, 1)),
        ((3, 8, 10), (2, 2), (2, 2), (0, 0), (1, 1), (4, 5)),
        ((2, 9, 35), (3, 3), (2, 2), (1, 1), (1, 1), (5, 18)),
        ((2, 7, 8), (3, 2), (1, 3), (1, 0), (2, 1), (4, 3)),
        ((2, 5, 4), (2, 2), (2, 2), (0, 0), (1, 1), (3, 2)),  # a last window that sticks out
        ((1, 2, 2), (2, 2), (1, 1), (3, 3), (1, 1), (6, 6)),  # windows of nothing but padding
    ],
)
def test_pools_equal_their_twin(random, shape, kernel, stride, pads, dilation, out, real):
    x = random.integers(-3, 3, shape).astype(real)  # with ties
    window = kernel, stride, pads, dilation
    y = np.empty((shape[0], *out), real)
    _kernels.max_pool(x, *window, y)
    maxima, where = reference.max_pool(x, *window, out)
    np.testing.assert_array_equal(y, maxima)
    r = random.standard_normal((2, *y.shape)).astype(real)
    r[:, :, 0] = 0
    start = random.standard_normal((2, *shape)).astype(real)
    back, expected = start.copy(), start.astype(np.float64).reshape(2, shape[0], -1)
    _kernels.max_pool_back(x, y, r, *window, back)
    for t, c, oy, ox in np.ndindex(r.shape):
        if where[c, oy, ox] >= 0:
            expected[t, c, where[c, oy, ox]] += r[t, c, oy, ox]
    np.testing.assert_allclose(back.reshape(expected.shape), expected, atol=10 * TOLERANCE[real])


def test_a_maximum_propagates_nan(real):
    x = np.zeros((1, 6, 40), real)
    x[0, 3, 21] = np.nan
    y = np.empty((1, 3, 20), real)
    _kernels.max_pool(x, (2, 2), (2, 2), (0, 0), (1, 1), y)
    assert np.isnan(y[0, 1, 10]) and np.isnan(y).sum() == 1


def test_pools_refuse_mismatched_arrays(real):
    x, y = np.ones((2, 4, 4), real), np.ones((2, 2, 2), real)
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.max_pool(x, (2, 2), (0, 2), (0, 0), (1, 1), y)
    with pytest.raises(ValueError, match="out must have shape"):
        _kernels.max_pool(x, (2, 2), (2, 2), (0, 0), (1, 1), y[:1])
    with pytest.raises(ValueError, match="r must have shape"):
        _kernels.max_pool_back(x, y, y[None, :1], (2, 2), (2, 2), (0, 0), (1, 1), x[None].copy())
