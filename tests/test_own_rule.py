"""User-defined rules, one class each, as in CONTRIBUTING.md, against their equations in dense-matrix form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from twins import matrix

from fvlrp.core.layer import Array
from fvlrp.network.layers import Add, Affine, AveragePool, Conv, Dense, Saved
from fvlrp.network.rules import Choice
from fvlrp.rules import Epsilon, NetworkRules, Rule, Shares, ratio


@dataclass(frozen=True)
class RelativeEpsilon(Rule):
    """R_i = sum_j z_ij / (z_j + s sgn z_j) R_j, s being `epsilon` times the mean |z| of the layer's outputs."""

    epsilon: float = 0.01

    def fitted(self, z: Array) -> Rule:
        return Epsilon(self.epsilon * float(np.abs(z).mean()))


@dataclass(frozen=True)
class Absolute(Rule):
    """R_i = sum_j |z_ij| / sum_i |z_ij| R_j: nothing changes its sign."""

    signed: ClassVar[bool] = True

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        assert positive is not None and negative is not None  # since the rule is signed
        share, zero = ratio(r, positive - negative)
        return Shares(share, -share, 0.0, zero)


def relative_epsilon(rule, z, b, scale):
    """Each contribution's part of R_j, and the bias's, from the equation; `scale` is the layer's mean |z_j|."""
    total = z.sum() + b
    below = total + np.copysign(rule.epsilon * scale, total)
    return z / below, b / below


def absolute(rule, z, b, scale):
    total = np.abs(z).sum() + abs(b)
    return np.abs(z) / total, abs(b) / total


def conv(rng):
    weight, bias = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    return Conv(weight, bias, (2, 1), (1, 0, 1, 2)), [(3, 6, 5)]


def depthwise(rng):
    return Conv(rng.standard_normal((4, 1, 3, 3)), rng.standard_normal(4), pads=(1, 1, 1, 1), groups=4), [(4, 5, 5)]


def dense(rng):
    return Dense(rng.standard_normal((7, 5)), rng.standard_normal(7)), [(5,)]


def tokens(rng):
    return Dense(rng.standard_normal((7, 5)), rng.standard_normal(7)), [(4, 5)]


def average(rng):
    return AveragePool((2, 2), (2, 2)), [(3, 4, 4)]


def add(rng):
    return Add(), [(2, 3, 4)] * 3


def affine(rng):
    return Affine(rng.standard_normal(3), rng.standard_normal(3)), [(3, 4, 4)]


@pytest.mark.parametrize("signed", (False, True), ids=("inputs >= 0", "inputs of both signs"))
@pytest.mark.parametrize(("rule", "equation"), ((RelativeEpsilon(0.3), relative_epsilon), (Absolute(), absolute)))
@pytest.mark.parametrize("make", (conv, depthwise, dense, tokens, average, add, affine))
def test_a_user_defined_rule_is_its_equation_in_every_linear_layer(make, rule, equation, signed):
    rng = np.random.default_rng(0)
    layer, shapes = make(rng)
    inputs = tuple(rng.standard_normal((1, *shape)) for shape in shapes)
    inputs = inputs if signed else tuple(np.abs(x) for x in inputs)
    w, x = matrix(layer, shapes), np.concatenate([x.ravel() for x in inputs])
    y = layer.apply(*inputs)
    b = layer.apply(*(np.zeros_like(x) for x in inputs)).ravel()
    r = rng.standard_normal((2, *y.shape[1:]))
    want, kept = np.zeros((2, x.size)), np.zeros(2)
    for j, z in enumerate(w * x):
        parts, bias = equation(rule, z, b[j], np.abs(y).mean())
        want += np.outer(r.reshape(2, -1)[:, j], parts)
        kept += r.reshape(2, -1)[:, j] * bias
    passed = layer.relevance(r, Saved(inputs, y), Choice(rule))
    got = np.concatenate([part.reshape(2, -1) for part in passed.inputs], axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(passed.entries.get("bias", 0), kept, rtol=1e-10, atol=1e-12)
    balance = got.sum(axis=1) + sum(np.asarray(amount) for amount in passed.entries.values())
    np.testing.assert_allclose(balance, r.reshape(2, -1).sum(axis=1), rtol=1e-10)


def test_a_user_defined_rule_is_accepted_everywhere():
    rules = NetworkRules.of({"conv": RelativeEpsilon(0.1)})
    assert rules.named("c", "conv", False) == RelativeEpsilon(0.1)
    assert rules.to_dict()["layers"] == {"conv": "relativeepsilon:0.1"}


def test_a_rule_has_the_shares_of_the_rule_fitted_to_the_layer():
    r, z = np.ones((1, 2)), np.array([3.0, -1.0])
    got = RelativeEpsilon(0.5).shares(r, z, None, None)  # the mean of |z| is 2
    np.testing.assert_array_equal(got.positive, Epsilon(1.0).shares(r, z).positive)


def test_a_rule_without_shares_is_refused_where_it_is_defined():
    with pytest.raises(TypeError, match="Empty must define `shares`, or `fitted`"):
        type("Empty", (Rule,), {})
