"""Convolutions in groups of few channels and their adjoint, against loops over windows."""

from functools import cache

import numpy as np
import pytest
from reference import alpha_beta_shares, gamma_shares, grouped, grouped_back

from fvlrp import _kernels

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}  # of the sum of the absolute values that add up to a number
CASES = [  # groups, inputs and outputs of each, image, kernel, stride, pads, dilation, band, cols
    (3, 1, 1, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), (0, 7), 7),
    (2, 1, 1, (14, 14), (3, 3), (2, 2), (0, 0), (1, 1), (0, 7), 7),  # Keras pads behind alone
    (2, 1, 1, (40, 41), (5, 5), (2, 2), (2, 2), (1, 1), (3, 20), 21),
    (2, 1, 1, (9, 70), (7, 7), (1, 1), (3, 3), (1, 1), (0, 9), 70),
    (1, 1, 1, (130, 90), (3, 3), (1, 1), (1, 1), (1, 1), (0, 130), 90),  # several blocks of rows
    (2, 1, 3, (6, 9), (3, 3), (1, 1), (1, 1), (1, 1), (0, 6), 9),  # three outputs a channel
    (2, 1, 9, (5, 4), (3, 3), (1, 2), (1, 1), (1, 1), (0, 5), 2),
    (2, 4, 4, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), (0, 8), 8),
    (3, 2, 5, (8, 11), (3, 2), (3, 2), (1, 0), (2, 3), (0, 2), 4),
    (2, 1, 1, (12, 13), (3, 3), (1, 1), (4, 4), (4, 4), (0, 12), 13),
    (1, 3, 2, (6, 6), (2, 2), (1, 1), (-1, -2), (1, 1), (0, 4), 3),  # cut, not padded
    (2, 1, 1, (3, 2), (3, 3), (1, 1), (9, 9), (1, 1), (0, 15), 14),  # windows of nothing but padding
    (2, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), (0, 1), 1),
    (2, 1, 1, (5, 5), (1, 1), (2, 2), (0, 0), (1, 1), (1, 3), 3),
    (2, 1, 1, (8, 37), (3, 3), (2, 2), (1, 1), (1, 1), (0, 4), 19),
    (2, 1, 2, (11, 70), (5, 5), (2, 2), (1, 1), (1, 1), (0, 5), 35),
    (1, 1, 1, (9, 12), (3, 3), (1, 1), (0, -1), (1, 1), (0, 7), 7),
    (1, 1, 1, (1, 1), (1, 9), (1, 4), (0, 4), (1, 1), (0, 1), 1),
    (4, 1, 1, (5, 7), (1, 1), (2, 3), (0, 0), (1, 1), (0, 3), 3),
    (2, 1, 1, (21, 45), (7, 7), (2, 2), (3, 3), (1, 1), (2, 11), 23),
    (2, 1, 1, (9, 41), (3, 3), (2, 2), (-1, -3), (1, 1), (0, 4), 19),  # cut at a stride of 2
    (2, 1, 1, (4, 3), (5, 5), (2, 2), (7, 9), (1, 1), (0, 8), 9),  # some windows of nothing but padding
    (2, 1, 1, (6, 33), (3, 3), (1, 1), (-2, 1), (1, 1), (1, 4), 33),
    (2, 2, 2, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), (2, 2), 4),  # no rows
    (2, 1, 1, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), (2, 2), 4),
]

WHOLE = [case for case in CASES if case[-2][0] == 0 and case[3] != (130, 90)] + [  # relevance has no bands
    (40, 1, 1, (21, 20), (1, 1), (1, 1), (0, 0), (1, 1), (0, 21), 20),  # several blocks of groups
]
RULES = [(2.0, 1.0, -1.0), (1.0, 0.0, -1.0), (1.0, 0.0, 0.25)]  # alpha, beta, gamma

pytestmark = pytest.mark.usefixtures("isa")


@pytest.fixture(params=TOLERANCE)
def real(request):
    return request.param


def drawn(case, real):
    """Weights, image and the arguments of a convolution, and the generator for the rest."""
    groups, inputs, outputs, size, kernel, stride, pads, dilation, rows, cols = case
    rng = np.random.default_rng(7)
    a = rng.standard_normal((groups * outputs, inputs, kernel[0] * kernel[1])).astype(real)
    x = rng.standard_normal((groups * inputs, *size)).astype(real)
    return a, x, (kernel, stride, pads, dilation, rows), cols, rng


def signs(other):
    return [(0, None), (1, None), (-1, None), (2, None), (1, other), (-1, other)]


@cache
def forward(case, real):
    """A convolution, what it is added to, and what the twin makes of every sign: the same for every instruction set."""
    a, x, window, cols, rng = drawn(case, real)
    rows = window[-1]
    n = (rows[1] - rows[0]) * cols
    other = rng.standard_normal(x.shape).astype(real)
    base = rng.standard_normal((len(a), n + 3)).astype(real)
    bias = rng.standard_normal(len(a)).astype(real)
    alone, beside = (grouped(np.abs(a), np.abs(v), *window, cols).reshape(len(a), n) for v in (x, other))
    expected = [
        (sign, second, grouped(a, x, *window, cols, sign, second).reshape(len(a), n),
         alone if second is None else alone + beside)
        for sign, second in signs(other)
    ]  # fmt: skip
    return a, x, window, cols, base, bias, expected


@cache
def backward(case, real):
    """Shares, what they are added to, and the sums by the twin for every sign: the same for every instruction set."""
    a, x, window, cols, rng = drawn(case, real)
    rows = window[-1]
    share, other = rng.standard_normal((2, len(a), rows[1] - rows[0], cols)).astype(real)
    base = rng.standard_normal(x.shape).astype(real)
    sizes = grouped_back(np.abs(a), np.abs(share) + np.abs(other), x.shape, *window)
    expected = [
        (sign, second, base + grouped_back(a, share, x.shape, *window, sign, second)) for sign, second in signs(other)
    ]
    return a, window, share, base, sizes, expected


@cache
def explained(case, real, numbers):
    """A convolution with inputs and relevance, and what the twins make of the latter."""
    (alpha, beta, gamma), outputs = numbers, case[2]
    a, x, window, cols, rng = drawn(case, real)
    *window, (_, rows) = window
    bias, r = rng.standard_normal(len(a)).astype(real), rng.standard_normal((2, len(a), rows, cols)).astype(real)
    x[: case[1]] = np.abs(x[: case[1]])
    if case[0] > 2:
        r[:, outputs : 2 * outputs] = 0
    above, below, band = np.maximum(x, 0), np.minimum(x, 0), (0, rows)
    shift = np.maximum(bias, 0)[:, None], np.minimum(bias, 0)[:, None]
    up, down = (
        grouped(a, above, *window, band, cols, sign, below).reshape(len(a), -1) + part
        for sign, part in zip((1, -1), shift, strict=True)
    )
    z, flat = (up + down).astype(real), r.reshape(2, len(a), -1).astype(float)
    if gamma >= 0:
        high, low, lost = gamma_shares(flat, z.astype(float), up, gamma)
    else:
        high, low, lost = alpha_beta_shares(flat, up, down, alpha, beta)
    expected, sizes = np.empty((2, 2, *x.shape))
    for t in (0, 1):
        one, other = (share[t].reshape(r.shape[1:]) for share in (high, low))
        sides = (grouped_back(a, one, x.shape, *window, band, sign, other) for sign in (1, -1))
        expected[t] = sum(side * part for side, part in zip(sides, (above, below), strict=True))
        sizes[t] = np.abs(x) * grouped_back(np.abs(a), np.abs(one) + np.abs(other), x.shape, *window, band)
    kept = (high * shift[0] + low * shift[1]).sum(axis=(1, 2))
    return a, x, bias, r, z.reshape(r.shape[1:]), window, expected, sizes, kept, lost


@pytest.mark.parametrize("numbers", RULES)
@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_relevance_in_groups_is_its_parts_by_either_rule(case, numbers, real):
    a, x, bias, r, z, window, expected, sizes, kept, lost = explained(case, real, numbers)
    out = np.full_like(expected, np.nan, real)
    took, dropped = _kernels.grouped_alpha_beta(a, x, bias, r, z, out, *window, *numbers)
    assert (np.abs(out - expected) <= 30 * TOLERANCE[real] * sizes).all()
    np.testing.assert_allclose(took, kept, rtol=0, atol=30 * TOLERANCE[real] * (np.abs(r).sum() + 1))
    np.testing.assert_allclose(dropped, lost, rtol=0, atol=30 * TOLERANCE[real] * (np.abs(r).sum() + 1))


def test_groups_without_relevance_take_no_part(real):
    rng = np.random.default_rng(0)
    x, a = rng.standard_normal((5, 6, 20)).astype(real), rng.standard_normal((5, 1, 9)).astype(real)
    r, z = rng.standard_normal((2, 5, 6, 20)).astype(real), np.ones((5, 6, 20), real)
    r[:, 1:3], r[0, 3], x[1:3] = 0, 0, np.nan
    out, window = np.full((2, *x.shape), np.nan, real), ((3, 3), (1, 1), (1, 1), (1, 1))
    kept, lost = _kernels.grouped_alpha_beta(a, x, None, r, z, out, *window, 2.0, 1.0)
    assert (out[:, 1:3] == 0).all() and (out[0, 3] == 0).all() and out[1, 3].any()
    assert np.isfinite(out).all() and np.isfinite([kept, lost]).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution_in_groups_is_the_sum_over_windows(case, real):
    a, x, window, cols, base, bias, twin = forward(case, real)
    n = base.shape[1] - 3
    for sign, second, expected, sizes in twin:
        for add, shift in ((False, None), (True, bias)):
            out = base.copy()
            _kernels.grouped(a, x, *window, cols, out[:, :n], shift, add, sign, second)
            start = (base[:, :n] if add else 0) + (0 if shift is None else shift[:, None])
            assert (np.abs(out[:, :n] - expected - start) <= TOLERANCE[real] * (sizes + 10)).all()
            assert (out[:, n:] == base[:, n:]).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_grouped_back_is_the_adjoint_of_the_convolution(case, real):
    a, window, share, base, sizes, twin = backward(case, real)
    for sign, second, expected in twin:
        out = base.copy()
        _kernels.grouped_back(a, share, out, *window, sign, second)
        assert (np.abs(out - expected) <= TOLERANCE[real] * (sizes + 10)).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_results_are_clipped_once_all_terms_are_in(real, outputs):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3 * outputs, 1, 9)).astype(real)
    x, other = rng.standard_normal((2, 3, 9, 20)).astype(real)
    x[0, 4, 4] = np.nan
    base = rng.standard_normal((len(a), 180)).astype(real)
    bias = rng.standard_normal(len(a)).astype(real)
    window = (3, 3), (1, 1), (1, 1), (1, 1), (0, 9), 20
    plain, clipped = base.copy(), base.copy()
    _kernels.grouped(a, x, *window, plain, bias, True, 1, other)
    for low, high in ((0, 1), (0, np.inf), (-0.5, 0.25)):
        clipped[:] = base
        _kernels.grouped(a, x, *window, clipped, bias, True, 1, other, (low, high))
        np.testing.assert_array_equal(clipped, np.clip(plain, low, high))
        assert np.isnan(clipped).sum() == 9 * outputs
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.grouped(a, x, *window, clipped, bounds=(1, 0))


def test_weights_may_have_any_memory_order(real):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6, 5)).astype(real)
    share = rng.standard_normal((8, 6, 5)).astype(real)
    base = rng.standard_normal((9, 8, 2)).astype(real)
    window = (3, 3), (1, 1), (1, 1), (1, 1), (0, 6)
    turned = base.transpose(1, 2, 0)[:, :, ::-1]
    plain = np.ascontiguousarray(turned)
    outs, backs = [], []
    for a in (turned, plain):
        outs.append(_kernels.grouped(a, x, *window, 5, np.empty((8, 30), real)))
        backs.append(_kernels.grouped_back(a, share, np.zeros_like(x), *window))
    np.testing.assert_array_equal(*outs)
    np.testing.assert_array_equal(*backs)


def test_bands_give_the_same_bits(real):
    rng = np.random.default_rng(0)
    x, a = rng.standard_normal((3, 61, 50)).astype(real), rng.standard_normal((3, 1, 9)).astype(real)
    window = (3, 3), (1, 1), (1, 1), (1, 1)
    whole, parts = np.empty((2, 3, 61 * 50), real)
    _kernels.grouped(a, x, *window, (0, 61), 50, whole)
    for begin, end in ((0, 7), (7, 8), (8, 61)):
        _kernels.grouped(a, x, *window, (begin, end), 50, parts[:, begin * 50 : end * 50])
    np.testing.assert_array_equal(whole, parts)


def test_nan_reaches_only_the_windows_that_contain_it(real):
    rng = np.random.default_rng(0)
    x, a = rng.standard_normal((2, 9, 20)).astype(real), rng.standard_normal((2, 1, 9)).astype(real)
    x[0, 4, 19] = np.nan
    out = np.empty((2, 180), real)
    _kernels.grouped(a, x, (3, 3), (1, 1), (1, 1), (1, 1), (0, 9), 20, out)
    expected = np.zeros((2, 9, 20), bool)
    expected[0, 3:6, 18:] = True
    assert (np.isnan(out).reshape(expected.shape) == expected).all()


def test_bad_arguments_are_refused_by_name(real):
    x, a, out = np.zeros((4, 5, 5), real), np.zeros((4, 1, 9), real), np.zeros((4, 25), real)
    window = (3, 3), (1, 1), (1, 1), (1, 1), (0, 5)
    share = np.zeros((4, 5, 5), real)
    for weights in (a[:, :, :8], np.zeros((4, 3, 9), real), a[:3], np.zeros((4, 0, 9), real)):
        with pytest.raises(ValueError, match="a must"):
            _kernels.grouped(weights, x, *window, 5, out)
        with pytest.raises(ValueError, match="a must"):
            _kernels.grouped_back(weights, share, x, *window)
    with pytest.raises(ValueError, match="out must have shape"):
        _kernels.grouped(a, x, *window, 5, out[:3])
    with pytest.raises(ValueError, match="other must have shape"):
        _kernels.grouped(a, x, *window, 5, out, None, False, 1, x[:3])
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.grouped(a, x, *window, 5, out, None, False, 2, x)
    with pytest.raises(ValueError, match="share must have shape"):
        _kernels.grouped_back(a, share[:, :4], x, *window)
    with pytest.raises(TypeError, match="share must be"):
        _kernels.grouped_back(a, share.astype("int32"), x, *window)
    r, rest = np.zeros((1, 4, 5, 5), real), (np.zeros((1, 4, 5, 5), real), (3, 3), (1, 1), (1, 1), (1, 1), 2.0, 1.0)
    with pytest.raises(ValueError, match="r must have shape"):
        _kernels.grouped_alpha_beta(a, x, None, r[:, :3], x, *rest)
    with pytest.raises(ValueError, match="z must have shape"):
        _kernels.grouped_alpha_beta(a, x, None, r, x[:3], *rest)
    with pytest.raises(ValueError, match="bias must have shape"):
        _kernels.grouped_alpha_beta(a, x, np.zeros(3, real), r, x, *rest)
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.grouped_alpha_beta(a, x, None, r, x, *rest[:-1], -1.0)
    with pytest.raises(ValueError, match="out must have shape"):
        _kernels.grouped_alpha_beta(a, x, None, r, x, x, *rest[1:])
    read_only = x.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writable"):
        _kernels.grouped_back(a, share, read_only, *window)
    _kernels.grouped(a, read_only, *window, 5, out)  # what is only read may be read-only
