"""Sums of terms so small that their reciprocal overflows, such as the tails of GELU and SiLU."""

import numpy as np
import pytest

from fvlrp.core.rules import AlphaBeta, Epsilon, Gamma, ZPlus, ratio
from fvlrp.network.layers import Add, Conv, Dense
from fvlrp.network.rules import Choice

RULES = (AlphaBeta(2, 1), AlphaBeta(3.5, 2.5), ZPlus(), Gamma(0.25), Gamma(0), Epsilon(), Epsilon(0))
SMALL = {"float32": 3e-43, "float64": 2e-312}  # of neither type 1 / SMALL is finite


def layers(rng, dtype):
    weight, filters = rng.standard_normal((6, 6)).astype(dtype), rng.standard_normal((6, 1, 3, 3)).astype(dtype)
    none = np.zeros(6, dtype)
    yield "conv", Conv(weight[:, :, None, None], none), 1
    yield "depthwise", Conv(filters, none, pads=(1, 1, 1, 1), groups=6), 1
    yield "dense", Dense(weight, none), 1
    yield "add", Add(), 2


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("sign", (1, -1, 0))
def test_sums_that_vanish_have_no_infinite_share(sign, rule, dtype, rng):
    for name, layer, count in layers(rng, dtype):
        shape = (1, 6, 9, 9) if name != "dense" else (1, 6)
        inputs = [rng.standard_normal(shape).astype(dtype) for _ in range(count)]
        for x in inputs:
            small = SMALL[dtype] * rng.uniform(0.1, 1, x.shape)
            x[:, :3] = (sign * small if sign else small * np.sign(x))[:, :3]
            x[:, 3] *= x[:, 3] > 0
            x[..., ::2] = (sign * small if sign else small)[..., ::2]
        y, saved = layer.forward(*inputs)
        r = rng.standard_normal((2, *y.shape[1:])).astype(dtype)
        passed = layer.relevance(r, saved, Choice(rule))
        arrived = sum(np.sum(part, axis=tuple(range(1, part.ndim)), dtype=np.float64) for part in passed.inputs)
        rest = sum(passed.entries.values())
        total = r.sum(axis=tuple(range(1, r.ndim)), dtype=np.float64)
        size = sum(np.abs(part).sum() for part in passed.inputs) + np.abs(r).sum()
        assert all(np.isfinite(part).all() for part in passed.inputs), name
        assert np.abs(arrived + rest - total).max() <= (1e-5 if dtype == "float32" else 1e-12) * size, name


def test_ratio_counts_what_vanishes_as_lost():
    shares, lost = ratio(np.array([[1.0, 2.0, 4.0]]), np.array([[4.0, 1e-310, -0.0]]))
    assert shares.tolist() == [[0.25, 0, 0]]
    assert lost.tolist() == [6]


def split(x, weight, r, alpha, beta):
    """Relevance of a pointwise convolution's inputs (C, N) by the alpha-beta rule, term by term in float64."""
    terms = weight.astype(float)[:, :, None] * x.astype(float)
    up, down = np.maximum(terms, 0), np.minimum(terms, 0)
    shares = [
        np.divide(factor * r, side.sum(axis=1), out=np.zeros(r.shape), where=side.sum(axis=1) != 0)
        for factor, side in ((alpha, up), (-beta, down))
    ]
    return (up * shares[0][:, None] + down * shares[1][:, None]).sum(axis=0)


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("rule", [AlphaBeta(2, 1), ZPlus()], ids=repr)
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_terms_far_smaller_than_those_of_the_other_sign_get_no_more_than_their_share(sign, many, rule, dtype, rng):
    """As GELU's tail beside large values: halves of sums and differences of such shares would leave rounding error."""
    weight = np.abs(rng.standard_normal((9, 7))).astype(dtype)
    x = sign * rng.uniform(50, 100, (7, 60)).astype(dtype)
    x[0, :: 1 if many else 29] *= -1e-20 if dtype == "float32" else -1e-60
    x[3] *= rng.integers(0, 2, 60)
    r = rng.standard_normal((1, 9, 60)).astype(dtype)
    layer = Conv(weight[:, :, None, None], np.zeros(9, dtype))
    _, saved = layer.forward(x[None, :, None])
    passed = layer.relevance(r[:, :, None], saved, Choice(rule))
    wanted = split(x, weight, r[0].astype(float), *rule.alpha_beta)
    limit = (1e-5 if dtype == "float32" else 1e-12) * np.abs(wanted).max()
    np.testing.assert_allclose(passed.inputs[0][0, :, 0], wanted, rtol=0, atol=limit)
