"""The kernels of sums: relevance of their terms, and shares where z- is at hand, against slow twins."""

import numpy as np
import pytest
import reference

from fvlrp import _kernels

pytestmark = pytest.mark.usefixtures("isa")


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("rule", ((2, 1, -1), (1, 0, -1), (3.5, 2.5, -1), (1, 0, 0.25)))
@pytest.mark.parametrize("count", (1, 2, 3, 8))
def test_join_equals_its_twin(count, rule, dtype, rng):
    for n in (0, 1, 7, 64, 131):
        terms = [rng.standard_normal(n).astype(dtype) for _ in range(count)]
        for term in terms:
            term[: n // 4] = np.abs(term[: n // 4])
            term[n // 4 : n // 3] *= 0
        terms[0][n // 3 : n // 2] = 0
        r = rng.standard_normal((2, n)).astype(dtype)
        got = _kernels.join(terms, r, *rule)
        for t in range(2):
            for part, want in zip(got, reference.join(terms, r[t], *rule), strict=True):
                np.testing.assert_allclose(part[t], want, rtol=2e-4 if dtype == np.float32 else 1e-11, atol=1e-6)
        np.testing.assert_allclose(sum(got), r, rtol=0, atol=1e-3 if dtype == np.float32 else 1e-11)


def test_join_keeps_nan_where_it_is(rng):
    one, other = rng.standard_normal((2, 40)).astype(np.float32)
    one[5] = np.nan
    for part in _kernels.join([one, other], np.ones((1, 40), np.float32), 2, 1):
        assert np.flatnonzero(np.isnan(part[0])).tolist() == [5]


def test_join_refuses_mismatched_arrays():
    x, r = np.ones(5, np.float32), np.ones((2, 5), np.float32)
    for terms, relevance, words in (
        ([], r, "terms must hold 1 to 8 arrays, got 0"),
        ([x] * 9, r, "terms must hold 1 to 8 arrays, got 9"),
        ([x, x[:4]], r, r"terms must have shape \(5\)"),
        ([x, x.astype(float)], r, "terms must be an array of float32"),
        ([x], r[:, :4], r"r must have shape \(any, 5\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            _kernels.join(terms, relevance, 2, 1)
    with pytest.raises(ValueError, match="outside its range"):
        _kernels.join([x], r, -1, 0)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("beta", (0, 1))
def test_shares_reuse_an_available_negative_sum(beta, dtype, rng):
    positive, negative = rng.random((3, 70)).astype(dtype), -rng.random((3, 70)).astype(dtype)
    positive[0, ::3], negative[1, ::4] = 0, 0
    negative[2] *= 1e-25 if dtype == np.float32 else 1e-200  # far below what z - z+ could tell
    r = rng.standard_normal((2, 3, 70)).astype(dtype)
    up, down, kept, lost, doubtful = _kernels.alpha_beta(r, None, positive, 1 + beta, beta, 0, negative)
    wanted = reference.alpha_beta_shares(
        r.astype(float), positive.astype(float), negative.astype(float), 1 + beta, beta
    )
    np.testing.assert_allclose(up, wanted[0], rtol=1e-5)
    assert len(doubtful) == 0 and (down is None) == (beta == 0)
    if beta:
        np.testing.assert_allclose(down, wanted[1], rtol=1e-5)
    np.testing.assert_allclose(kept[0], wanted[0].sum(axis=2), rtol=1e-4)
    np.testing.assert_allclose(lost, wanted[2], rtol=1e-4)
