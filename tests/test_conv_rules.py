"""Rules of a network's explanation as values: what they accept, what they tell."""

import json

import numpy as np
import pytest

from fvlrp.network.rules import PRESETS, WORDS
from fvlrp.rules import AlphaBeta, Box, ConvRules, Epsilon, Flat, Gamma, NetworkRules, WSquare, ZPlus


@pytest.mark.parametrize("beta", (0, 0.5, 1, 2.5))
def test_alpha_is_one_more_than_beta(beta):
    assert AlphaBeta(1 + beta, beta).beta == beta
    with pytest.raises(ValueError, match=r"alpha must be 1 \+ beta"):
        AlphaBeta(1.5 + beta, beta)


@pytest.mark.parametrize("make", (Epsilon, Gamma, lambda v: AlphaBeta(1 + 1, v)), ids=("epsilon", "gamma", "beta"))
@pytest.mark.parametrize("value", (-1, np.nan, np.inf, "1", None, True, np.True_))
def test_amounts_are_finite_and_not_negative(make, value):
    with pytest.raises(ValueError, match=r"must be a finite number >= 0, got"):
        make(value)


def test_the_box_rule_needs_both_bounds_in_order():
    assert Box() == Box(None, None)
    assert Box(np.zeros(3), np.ones(3)) == Box((0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match="low and high must be given together"):
        Box(0)
    for low in (True, "0", ("0", "0", "0"), (), None):
        with pytest.raises(ValueError, match=r"low must be a number, or one for each channel|given together"):
            Box(low, (1, 1, 1))
    with pytest.raises(ValueError, match="low must not exceed high"):
        Box((0, 2), (1, 1))
    with pytest.raises(ValueError, match="of one length"):
        Box((0, 0), (1, 1, 1))


def test_the_presets_are_those_documented():
    assert ConvRules.of(None) == ConvRules() and ConvRules().default is None
    assert ConvRules().rule("conv2", "conv", False) == ZPlus() and ConvRules().rule("fc", "dense", False) == Epsilon()
    assert ConvRules("gamma").rule("conv2", "conv", True) == Gamma()
    assert ConvRules.of("paper") == ConvRules.of(AlphaBeta(2, 1))
    composite = ConvRules.of("composite")
    assert isinstance(composite.rule("fc8", "dense", False), Epsilon)
    assert isinstance(composite.named("conv1", "conv", True), Box)
    assert composite.rule("conv2", "conv", False) == ZPlus() and composite.rule("sum", "add", False) == Epsilon()
    assert ConvRules.of("caffe-flat").flat == "caffe"
    with pytest.raises(
        ValueError, match="unknown rules 'lrp'; presets are 'smooth', 'paper', 'composite', 'caffe-flat'"
    ):
        ConvRules.of("lrp")


def test_a_layer_name_takes_precedence_over_first_and_first_over_a_kind():
    rules = ConvRules.of({"conv1": WSquare(), "first": Flat(), "conv": ZPlus()})
    assert rules.named("conv1", "conv", True) == WSquare()
    assert rules.named("stem", "conv", True) == Flat()
    assert rules.named("conv2", "conv", False) == ZPlus()
    assert rules.named("fc", "dense", False) is None


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"bias": "drop"}, "bias must be one of 'absorb', 'distribute', 'ignore', got 'drop'"),
        ({"pool": "mean"}, "pool must be one of 'winner', 'flat'"),
        ({"flat": "toolbox"}, "flat must be one of 'conserving', 'level', 'caffe'"),
        ({"below": ZPlus()}, r"below must be Flat\(\) or WSquare\(\)"),
        ({"layers": ["conv"]}, r"layers must be a mapping of names or kinds to rules, got \['conv'\]"),
        ({"layers": None}, "layers must be a mapping"),
        ({"bias": np.array(["absorb", "ignore"])}, "bias must be one of 'absorb'"),
        ({"layers": {"conv": 1}}, "the rule of 'conv' must be one of Epsilon, AlphaBeta"),
        ({"layers": {"conv": "alpha-beta"}}, "the rule of 'conv' must be one of 'epsilon', 'alphabeta', .*'box', got"),
        ({"below": "gradient"}, "the rule of 'below' must be one of 'epsilon'"),
        ({"default": "flat:1"}, "rule 'flat' takes no numbers after colons, got 'flat:1'"),
        ({"default": "gamma:much"}, "rule 'gamma' takes numbers for gamma after colons, got 'gamma:much'"),
        ({"default": "epsilon:-1"}, "epsilon must be a finite number >= 0, got -1.0"),
        ({"default": 3}, "the rule of 'default' must be one of Epsilon"),
    ),
)
def test_the_error_for_a_bad_choice_lists_the_valid_ones(options, message):
    with pytest.raises(ValueError, match=message):
        ConvRules(**options)


def test_rules_can_be_spelled():
    rules = ConvRules(default="gamma:0.5", layers={"conv": "Flat", "fc": "alphabeta:1:0", "first": "box:-1:1"})
    assert rules == ConvRules(Gamma(0.5), {"conv": Flat(), "fc": AlphaBeta(1, 0), "first": Box(-1, 1)})
    assert ConvRules.of("epsilon:0.1") == ConvRules(Epsilon(0.1))
    assert ConvRules.of({"conv": "zplus"}) == ConvRules.of({"conv": ZPlus()})
    assert ConvRules(below="wsquare").below == WSquare()
    with pytest.raises(ValueError, match=r"unknown rules 'lrp'; presets are .*; rules are epsilon, .*, box"):
        ConvRules.of("lrp")


def test_rules_can_be_changed_by_text():
    rules = ConvRules.of("composite")
    changed = rules.changed({"first": "wsquare", "bias": "ignore", "pool": "flat"})
    assert changed == ConvRules(
        Epsilon(), {"conv": ZPlus(), "first": WSquare()}, bias="ignore", pool="flat"
    ) and rules == ConvRules.of("composite")  # fmt: skip
    assert rules.changed({"pool": "flat"}, layers=["pool"]).named("pool", "maxpool", False) == Flat()


@pytest.mark.parametrize(
    "rules", [*PRESETS, "box:-1:1", "gamma:0.1", "epsilon:1e-09", Box((0, -2.1), (1, 2.64)), Box()]
)
def test_rules_are_read_back_from_a_file(rules):
    rules = NetworkRules.of(rules)
    assert NetworkRules.of(json.loads(json.dumps(rules.to_dict()))) == rules


def test_rules_of_a_saved_explanation_are_validated():
    with pytest.raises(ValueError, match="rules have no option 'epsilon'; valid ones are default, layers, below"):
        NetworkRules.of({"layers": {}, "epsilon": 1})
    assert NetworkRules.of({"layers": "gamma"}) == NetworkRules(layers={"layers": Gamma()})  # a layer of that name


def test_presets_of_other_programs():
    plus = NetworkRules.of("epsilon_plus")
    assert plus == NetworkRules(Epsilon(1e-6), {"conv": ZPlus()})
    assert NetworkRules.of("epsilon_plus_flat").named("c", "conv", True) == Flat()
    assert NetworkRules.of("epsilon_gamma_box") == NetworkRules(Epsilon(1e-6), {"conv": Gamma(0.25), "first": Box()})
    assert NetworkRules.of("attnlrp").attention == "both" and NetworkRules.of("cplrp").attention == "value"
    attention = NetworkRules.of("attention")
    assert attention.named("qkv", "dense", False) == Gamma(0.05) and attention.named("p", "conv", False) == Gamma(0.25)
    assert ConvRules is NetworkRules


@pytest.mark.parametrize("field", WORDS)
def test_option_words_are_validated_and_have_a_default(field):
    assert getattr(NetworkRules(), field) == WORDS[field][0]
    for word in WORDS[field]:
        assert getattr(NetworkRules(**{field: word}), field) == word
    with pytest.raises(ValueError, match=f"{field} must be one of '{WORDS[field][0]}'"):
        NetworkRules(**{field: "other"})


def test_the_error_for_invalid_rules_lists_the_valid_forms():
    with pytest.raises(ValueError, match="rules must be a NetworkRules value, a rule, a mapping"):
        ConvRules.of(3)


def test_rules_can_be_compared_hashed_and_written_down():
    one = ConvRules(layers={"fc": Epsilon(1), "conv": ZPlus()})
    other = ConvRules(layers={"conv": ZPlus(), "fc": Epsilon(1)})
    assert one == other and hash(one) == hash(other)
    assert one.to_dict()["layers"] == {"conv": "zplus", "fc": "epsilon:1"}


def test_minus_zero_takes_the_sign_of_plus_zero():
    z, r = np.array([-0.0, 0.0]), np.ones((1, 2))
    np.testing.assert_array_equal(Epsilon(0.5).shares(r, z, None, None).positive, [[2, 2]])
