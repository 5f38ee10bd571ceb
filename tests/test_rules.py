"""The choices of an explanation: small frozen values that refuse what they do not know."""

import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from fvlrp.rules import Epsilon, FisherRules, Flat

WORDS = {
    "bias": ("distribute", "active", "ignore"),
    "mean": ("auto", "none", "centered", "bias"),
    "zero_desc": ("drop", "uniform"),
    "splat": ("box", "box_sym", "tri"),
    "clip": ("renormalise", "drop"),
    "pool_scale": ("sum", "mean"),
    "eps_mode": ("absolute", "relative"),
}


def test_defaults_are_the_papers():
    assert FisherRules().to_dict() == {
        "epsilon_pool": 100.0,
        "epsilon_pca": 100.0,
        "bias": "distribute",
        "mean": "auto",
        "zero_desc": "drop",
        "splat": "box",
        "clip": "renormalise",
        "pool_scale": "sum",
        "eps_mode": "absolute",
    }


@pytest.mark.parametrize("name", WORDS)
def test_options_accept_only_their_choices(name):
    for word in WORDS[name]:
        assert getattr(FisherRules(**{name: word}), name) == word
    with pytest.raises(ValueError, match=f"{name} must be one of {', '.join(map(repr, WORDS[name]))}, got 'flat'"):
        FisherRules(**{name: "flat"})
    assert {field.name for field in fields(FisherRules)} == {*WORDS, "epsilon_pool", "epsilon_pca"}


@pytest.mark.parametrize("name", ["epsilon_pool", "epsilon_pca"])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "100", None, [1.0], np.ones(2), True, np.False_])
def test_stabilisers_are_numbers_not_below_0(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0, got"):
        FisherRules(**{name: value})


def test_rules_are_values():
    rules = FisherRules(epsilon_pool=np.float32(1), epsilon_pca=0)
    assert rules == FisherRules(epsilon_pool=1.0, epsilon_pca=0.0) and hash(rules) == hash(FisherRules(1.0, 0.0))
    assert FisherRules.of(json.loads(json.dumps(rules.to_dict()))) == rules
    with pytest.raises(FrozenInstanceError):
        rules.bias = "ignore"


def test_rules_accept_every_spelling():
    assert FisherRules.of(None) == FisherRules()
    assert FisherRules.of(given := FisherRules(bias="ignore")) is given
    assert FisherRules.of({"bias": "ignore"}) == given
    with pytest.raises(
        ValueError, match="rules has no option 'epsilon'; valid options are epsilon_pool, epsilon_pca, bias"
    ):
        FisherRules.of({"epsilon": 1})


def test_one_epsilon_sets_both_stabilisers():
    assert FisherRules.of("epsilon:1") == FisherRules.of(Epsilon(1)) == FisherRules(epsilon_pool=1, epsilon_pca=1)
    for other in ("gamma:0.25", Flat(), 3):
        with pytest.raises(ValueError, match=r"rules must be a FisherRules value, .*'epsilon:1' or None, got"):
            FisherRules.of(other)
    with pytest.raises(ValueError, match=r"rules must be one of 'epsilon'.*got 'paper'"):
        FisherRules.of("paper")
