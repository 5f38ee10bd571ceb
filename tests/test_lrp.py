"""Relevance of every layer against its equation in dense-matrix form, and the walk: depths, branches, conservation."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fvlrp import lrp
from fvlrp.graph import Node
from fvlrp.layers import (
    LRN,
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Pad,
    ReLU,
    Reshape,
)
from fvlrp.rules import AlphaBeta, Box, ConvRules, Epsilon, Flat, Gamma, WSquare, ZPlus

# ---- every rule, from its equation -----------------------------------------------------------------------------------


def matrix(layer, shape) -> np.ndarray:
    """The weights (outputs, inputs) of a linear layer without its bias, by showing it unit vectors."""
    linear = replace(layer, bias=np.zeros_like(layer.bias))
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.stack([linear.forward(unit[None]).ravel() for unit in units], axis=1)


def twin(layer, x, r, rule, bias="absorb", box=None) -> np.ndarray:
    """R_i from the equation, one output after the other."""
    w = matrix(layer, x.shape[1:])
    b = layer.forward(np.zeros_like(x)).ravel()
    if isinstance(rule, WSquare):
        w = matrix(replace(layer, weight=layer.weight**2), x.shape[1:])
    connected = matrix(replace(layer, weight=np.ones_like(layer.weight)), x.shape[1:]) != 0
    x, out = x.ravel(), np.zeros(x.size)
    for j, relevance in enumerate(r.ravel()):
        z, own = w[j] * x, b[j] if bias != "ignore" else 0.0
        up, down = np.maximum(z, 0), np.minimum(z, 0)
        up_sum, down_sum = up.sum() + max(own, 0), down.sum() + min(own, 0)
        if isinstance(rule, Flat):
            terms = [(1.0, connected[j].astype(float), 0.0, connected[j].sum())]
        elif isinstance(rule, WSquare):
            terms = [(1.0, w[j], 0.0, w[j].sum())]
        elif isinstance(rule, Box):
            low, high = (bound.ravel() for bound in box)
            z = z - low * np.maximum(w[j], 0) - high * np.minimum(w[j], 0)
            terms = [(1.0, z, 0.0, z.sum())]
        elif isinstance(rule, Epsilon):
            total = z.sum() + own
            terms = [(1.0, z, own, total + (rule.epsilon if total >= 0 else -rule.epsilon))]
        elif isinstance(rule, Gamma):
            side, part, total = (up, max(own, 0), up_sum) if z.sum() + own >= 0 else (down, min(own, 0), down_sum)
            terms = [(1.0, z + rule.gamma * side, own + rule.gamma * part, z.sum() + own + rule.gamma * total)]
        else:
            alpha, beta = (1.0, 0.0) if isinstance(rule, ZPlus) else (rule.alpha, rule.beta)
            terms = [(alpha, up, max(own, 0), up_sum), (-beta, down, min(own, 0), down_sum)]
        for factor, each, part, total in terms:
            if total != 0:
                out += factor * each / total * relevance
                if bias == "distribute":
                    out += connected[j] / max(connected[j].sum(), 1) * factor * part / total * relevance
    return out


RULES = (
    AlphaBeta(2, 1),
    AlphaBeta(1, 0),
    AlphaBeta(3.5, 2.5),
    Epsilon(0.01),
    Gamma(0.25),
    Gamma(10),
    ZPlus(),
    WSquare(),
    Flat(),
    Box(),
)


def conv(rng, weight, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True):
    weight = rng.standard_normal(weight)
    b = rng.standard_normal(len(weight)) if bias else np.zeros(len(weight))
    return Conv(weight, b, stride, pads, dilation, groups)


LINEAR = {
    "plain": lambda rng: (conv(rng, (4, 3, 3, 2)), (3, 6, 5)),
    "pointwise": lambda rng: (conv(rng, (4, 3, 1, 1)), (3, 4, 5)),
    "strided": lambda rng: (conv(rng, (4, 2, 3, 3), stride=(2, 3), pads=(1, 0, 1, 2)), (2, 8, 9)),
    "dilated": lambda rng: (conv(rng, (3, 2, 3, 2), pads=(2, 2, 2, 2), dilation=(2, 3)), (2, 6, 7)),
    "grouped": lambda rng: (conv(rng, (6, 2, 3, 3), pads=(1, 1, 1, 1), groups=3), (6, 5, 4)),
    "depthwise": lambda rng: (conv(rng, (4, 1, 3, 3), pads=(1, 1, 1, 1), groups=4), (4, 5, 4)),
    "without bias": lambda rng: (conv(rng, (4, 3, 3, 3), pads=(1, 1, 1, 1), bias=False), (3, 5, 5)),
    "more padding than kernel": lambda rng: (conv(rng, (2, 2, 2, 2), pads=(3, 2, 3, 2)), (2, 3, 3)),
    "dense": lambda rng: (Dense(rng.standard_normal((7, 12)), rng.standard_normal(7)), (12,)),
    "dense on maps": lambda rng: (Dense(rng.standard_normal((7, 12)), np.zeros(7)), (3, 2, 2)),
}


@pytest.fixture(params=LINEAR)
def linear(request):
    return LINEAR[request.param]


def relevance(layer, x, r, choice):
    y = layer.forward(x)
    (part,), losses = lrp.RELEVANCE[type(layer)](layer, [x], y, r, choice)
    return part, losses


@pytest.mark.parametrize("bias", ("absorb", "distribute", "ignore"))
@pytest.mark.parametrize("signed", (False, True), ids=("inputs >= 0", "inputs of both signs"))
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_rule_is_its_equation(linear, rule, signed, bias, monkeypatch):
    monkeypatch.setattr(lrp, "BAND", 512)  # several bands
    monkeypatch.setattr(lrp, "ROWS", 512)  # several blocks
    rng = np.random.default_rng(3)
    layer, shape = linear(rng)
    x = rng.standard_normal((1, *shape))
    if not signed:
        x = np.maximum(x, 0)
    y = layer.forward(x)
    r = rng.standard_normal((2, *y.shape[1:]))
    r[:, 1] = 0  # a channel without relevance
    box = (np.full_like(x, -4.0), np.full_like(x, 5.0)) if isinstance(rule, Box) else None
    got, losses = relevance(layer, x, r, lrp.Choice(rule, bias, box=box))
    want = [twin(layer, x, one, rule, bias, box) for one in r]
    np.testing.assert_allclose(got.reshape(2, -1), want, rtol=1e-10, atol=1e-10 * np.abs(want).max())
    np.testing.assert_allclose(
        r.reshape(2, -1).sum(axis=1) - sum(losses.kinds.values()),
        got.reshape(2, -1).sum(axis=1),
        rtol=1e-9,
        atol=1e-9 * np.abs(want).sum(),
    )


@pytest.mark.parametrize("rule", (WSquare(), Flat()), ids=repr)
def test_flat_and_w_square_conserve_through_padding(linear, rule):
    rng = np.random.default_rng(5)
    layer, shape = linear(rng)
    x = rng.standard_normal((1, *shape))
    r = rng.standard_normal(layer.forward(x).shape)
    sees = replace(layer, weight=np.ones_like(layer.weight), bias=np.zeros_like(layer.bias)).forward(np.ones_like(x))
    r *= sees > 0  # nothing where a window covers padding alone
    got, losses = relevance(layer, x, r, lrp.Choice(rule))
    np.testing.assert_allclose(got.sum(), r.sum(), rtol=1e-12)
    assert not any(np.any(amount) for amount in losses.kinds.values())


def test_windows_that_see_padding_alone_keep_their_relevance_in_the_ledger():
    layer = conv(np.random.default_rng(1), (2, 2, 2, 2), pads=(3, 2, 3, 2), bias=False)
    x = np.ones((1, 2, 3, 3))
    r = np.ones(layer.forward(x).shape)
    for rule in (Flat(), WSquare(), AlphaBeta(), Epsilon(0)):
        got, losses = relevance(layer, x, r, lrp.Choice(rule))
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got.sum() + sum(losses.kinds.values()), r.sum())
        assert losses.kinds["zero"] != 0


def test_two_inputs_of_opposite_weight_by_hand():
    """x = (1, 1), w = (3, -1): z+ = 3, z- = -1, so alpha-beta gives (2, -1) R and epsilon (3, -1) / 2 R."""
    layer, x, r = Dense(np.array([[3.0, -1.0]]), np.zeros(1)), np.ones((1, 2)), np.array([[10.0]])
    np.testing.assert_allclose(relevance(layer, x, r, lrp.Choice(AlphaBeta(2, 1)))[0], [[20, -10]])
    np.testing.assert_allclose(relevance(layer, x, r, lrp.Choice(Epsilon(0)))[0], [[15, -5]])
    np.testing.assert_allclose(relevance(layer, x, r, lrp.Choice(ZPlus()))[0], [[10, 0]])
    np.testing.assert_allclose(relevance(layer, x, r, lrp.Choice(WSquare()))[0], [[9, 1]])
    np.testing.assert_allclose(relevance(layer, x, r, lrp.Choice(Gamma(1)))[0], [[12, -2]])


def test_a_bias_absorbs_its_share_and_the_ledger_names_it():
    layer, x, r = Dense(np.array([[1.0, -1.0]]), np.array([1.0])), np.ones((1, 2)), np.array([[8.0]])
    got, losses = relevance(layer, x, r, lrp.Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose(got, [[8, -8]])
    np.testing.assert_allclose(losses.kinds["bias"], 8)
    got, losses = relevance(layer, x, r, lrp.Choice(AlphaBeta(2, 1), "distribute"))
    np.testing.assert_allclose(got, [[12, -4]])
    assert "bias" not in losses.kinds


def test_a_sign_that_is_missing_is_in_the_ledger():
    layer, x, r = Dense(np.array([[1.0, 2.0]]), np.zeros(1)), np.ones((1, 2)), np.array([[3.0]])
    got, losses = relevance(layer, x, r, lrp.Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose(got, [[2, 4]])
    np.testing.assert_allclose(losses.kinds["zero"], -3)


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize("few", (False, True), ids=("all outputs", "one output"))
def test_float32_resolves_a_sign_that_is_almost_missing(sign, few):
    """z- = z - z+ would be rounding: one weight is 1e-7 of the others."""
    rng = np.random.default_rng(2)
    weight = np.abs(rng.standard_normal((64, 50))).astype(np.float32)
    if few:
        weight[1:] *= rng.choice([-1, 1], weight[1:].shape)
    weight[:, 0] = -1e-7
    weight[0] = np.abs(weight[0])
    weight[0, 0] *= -1
    layer = Dense(sign * weight, np.zeros(64, np.float32))
    x, r = rng.uniform(1, 2, (1, 50)).astype(np.float32), np.ones((1, 64), np.float32)
    got, _ = relevance(layer, x, r, lrp.Choice(AlphaBeta(2, 1)))
    exact = Dense(layer.weight.astype(float), np.zeros(64))
    np.testing.assert_allclose(got, twin(exact, x.astype(float), r, AlphaBeta(2, 1))[None], rtol=1e-4, atol=1e-4)


def test_caffe_flat_multiplies_by_the_channels():
    layer = conv(np.random.default_rng(0), (4, 3, 3, 3))
    x, r = np.ones((1, 3, 8, 8)), np.ones((1, 4, 6, 6))
    got, losses = relevance(layer, x, r, lrp.Choice(Flat(), flat="caffe"))
    np.testing.assert_allclose(got.sum(), 3 * r.sum())
    np.testing.assert_allclose(losses.kinds["flat"], -2 * r.sum())


# ---- layers without weights ------------------------------------------------------------------------------------------


def windows_of(layer, x):
    """(output position, input positions inside the image) of a pool."""
    height, width = x.shape[2:]
    y = layer.forward(x)
    dilation = getattr(layer, "dilation", (1, 1))
    for oy, ox in product(*map(range, y.shape[2:])):
        at = [
            (
                oy * layer.stride[0] - layer.pads[0] + ky * dilation[0],
                ox * layer.stride[1] - layer.pads[1] + kx * dilation[1],
            )
            for ky, kx in product(*map(range, layer.kernel))
        ]
        yield (oy, ox), [(py, px) for py, px in at if 0 <= py < height and 0 <= px < width]


POOLS = {
    "tiling": {"kernel": (2, 2), "stride": (2, 2)},
    "overlapping": {"kernel": (3, 3), "stride": (2, 2)},
    "padded": {"kernel": (3, 2), "stride": (1, 2), "pads": (1, 1, 1, 1)},
    "ceil": {"kernel": (3, 3), "stride": (2, 2), "ceil_mode": True},
}


@pytest.mark.parametrize("kind", [*POOLS, "dilated"])
@pytest.mark.parametrize("pool", ("winner", "flat"))
def test_max_pool_gives_all_to_the_first_winner_or_evenly(kind, pool):
    rng = np.random.default_rng(4)
    options = POOLS.get(kind) or {"kernel": (2, 2), "stride": (2, 1), "dilation": (2, 2)}
    layer = MaxPool(**options)
    x = rng.integers(0, 3, (1, 2, 8, 8)).astype(float)  # many ties
    r = rng.standard_normal((2, *layer.forward(x).shape[1:]))
    want = np.zeros((2, *x.shape[1:]))
    for (oy, ox), inputs in windows_of(layer, x):
        for c in range(2):
            if pool == "winner":
                values = [x[0, c, py, px] for py, px in inputs]
                inputs_c, share = [inputs[values.index(max(values))]], r[:, c, oy, ox]
            else:
                inputs_c, share = inputs, r[:, c, oy, ox] / len(inputs)
            for py, px in inputs_c:
                want[:, c, py, px] += share
    got, losses = relevance(layer, x, r, lrp.Choice(AlphaBeta(), pool=pool))
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(got.sum(), r.sum())
    assert not losses.kinds


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("count_include_pad", (False, True))
def test_average_pool_shares_by_value_and_conserves(kind, count_include_pad):
    rng = np.random.default_rng(6)
    layer = AveragePool(**POOLS[kind], count_include_pad=count_include_pad)
    x = rng.uniform(-0.2, 1, (1, 2, 8, 8))
    x[0, 0] = 0  # a channel with nothing to share by
    r = rng.standard_normal(layer.forward(x).shape)
    want = np.zeros_like(x)
    for (oy, ox), inputs in windows_of(layer, x):
        for c in range(2):
            total = sum(x[0, c, py, px] for py, px in inputs)
            for py, px in inputs:
                want[0, c, py, px] += r[0, c, oy, ox] * (x[0, c, py, px] / total if c else 1 / len(inputs))
    got, _ = relevance(layer, x, r, lrp.Choice(AlphaBeta()))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.sum(), r.sum())


def test_global_average_pool_shares_by_value():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    r = np.array([1.0, 2.0]).reshape(1, 2, 1, 1)
    got, _ = relevance(GlobalAveragePool(), x, r, lrp.Choice(AlphaBeta()))
    np.testing.assert_allclose(got, x / x.sum(axis=(2, 3), keepdims=True) * r)


@pytest.mark.parametrize(
    "layer", (ReLU(), LeakyReLU(0.1), Clip(0, 6), LRN(5), Flatten(1), Reshape((4, 6))), ids=lambda layer: repr(layer)
)
def test_elementwise_layers_and_shapes_pass_relevance_on(layer):
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4))
    r = np.random.default_rng(1).standard_normal((3, *layer.forward(x).shape[1:]))
    got, losses = relevance(layer, x, r, lrp.Choice(AlphaBeta()))
    np.testing.assert_array_equal(got, r.reshape(3, 2, 3, 4))
    assert not losses.kinds


def test_a_border_keeps_what_falls_on_it_and_the_ledger_names_it():
    layer, x = Pad((1, 0, 0, 2), 3.0), np.ones((1, 1, 2, 2))
    r = np.arange(12.0).reshape(1, 1, 3, 4)
    got, losses = relevance(layer, x, r, lrp.Choice(AlphaBeta()))
    np.testing.assert_array_equal(got, [[[[4, 5], [8, 9]]]])
    assert losses.kinds["padding"] == r.sum() - 26


def test_concat_hands_each_input_its_part():
    parts = [np.ones((1, c, 2, 2)) for c in (1, 3, 2)]
    r = np.random.default_rng(0).standard_normal((2, 6, 2, 2))
    got, _ = lrp.RELEVANCE[Concat](Concat(1), parts, np.concatenate(parts, 1), r, lrp.Choice(AlphaBeta()))
    np.testing.assert_array_equal(np.concatenate(got, 1), r)
    assert [part.shape[1] for part in got] == [1, 3, 2]


@pytest.mark.parametrize("rule", (AlphaBeta(2, 1), ZPlus(), Gamma(0.5), Flat(), WSquare(), Epsilon(0)), ids=repr)
def test_a_sum_conserves_whatever_the_signs_of_its_terms(rule):
    rng = np.random.default_rng(0)
    terms = [rng.standard_normal((1, 3, 4, 5)) for _ in range(3)]
    terms[0][:, 0], terms[1][:, 0], terms[2][:, 0] = 1, 2, 3
    terms[0][:, 1] = terms[1][:, 1] = terms[2][:, 1] = -1
    y = Add().forward(*terms)
    r = rng.standard_normal((2, 3, 4, 5))
    got, losses = lrp.RELEVANCE[Add](Add(), terms, y, r, lrp.Choice(rule))
    np.testing.assert_allclose(sum(got), r, atol=1e-9)
    assert not any(np.any(amount) for amount in losses.kinds.values())
    if not isinstance(rule, Flat | WSquare):
        np.testing.assert_allclose(got[1][:, 0], r[:, 0] / 3)


def test_a_sum_of_both_signs_follows_alpha_beta():
    terms = [np.full((1, 1, 1, 1), v) for v in (3.0, 1.0, -2.0)]
    r = np.full((1, 1, 1, 1), 4.0)
    got, _ = lrp.RELEVANCE[Add](Add(), terms, sum(terms), r, lrp.Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose([part.item() for part in got], [6, 2, -4])


def test_zeros_that_are_summed_share_evenly():
    terms, r = [np.zeros((1, 1, 1, 1))] * 2, np.ones((1, 1, 1, 1))
    got, _ = lrp.RELEVANCE[Add](Add(), terms, terms[0], r, lrp.Choice(AlphaBeta()))
    assert [part.item() for part in got] == [0.5, 0.5]


@pytest.mark.parametrize("bias", ("absorb", "distribute", "ignore"))
@pytest.mark.parametrize("rule", (AlphaBeta(2, 1), Epsilon(0.1), Gamma(0.5), Flat()), ids=repr)
def test_an_affine_layer_is_a_pointwise_depthwise_one(rule, bias):
    rng = np.random.default_rng(8)
    layer = Affine(rng.standard_normal(3), rng.standard_normal(3))
    x, r = rng.standard_normal((1, 3, 4, 4)), rng.standard_normal((2, 3, 4, 4))
    got, losses = relevance(layer, x, r, lrp.Choice(rule, bias))
    lost = sum((np.broadcast_to(v, 2) for v in losses.kinds.values()), np.zeros(2))
    np.testing.assert_allclose(got.sum(axis=(1, 2, 3)) + lost, r.sum(axis=(1, 2, 3)), rtol=1e-9, atol=1e-9)
    if isinstance(rule, Epsilon) and bias == "absorb":
        part, total = x * layer.scale[:, None, None], layer.forward(x)
        np.testing.assert_allclose(got, r * part / (total + np.where(total >= 0, 0.1, -0.1)))


# ---- the walk --------------------------------------------------------------------------------------------------------


class Whole:
    """Preprocessing that shows the network every pixel."""

    def undo(self, heatmap, shape):
        return heatmap


class Net:
    """A network of given nodes over photographs scaled to -1..1."""

    def __init__(self, *nodes):
        self.nodes = [Node(*node) for node in nodes]
        self.layers = [node.name for node in self.nodes]
        self.preprocess = Whole()
        self.classes_ = ["cat", "dog", "gull", "pig"]

    def prepare(self, image):
        return (np.asarray(image, np.float32).transpose(2, 0, 1)[None] - 128) / 128

    def activations(self, x):
        saved = []
        for node in self.nodes:
            saved.append(node.layer.forward(*[x if i < 0 else saved[i] for i in node.inputs]))
        return saved


def branched(seed=0, bias=True) -> Net:
    """conv1 - relu1 - pool1 - (left | right) - joined - residual sum - fc: every way to branch and join."""
    rng = np.random.default_rng(seed)
    return Net(
        ("conv1", "conv", conv(rng, (6, 3, 3, 3), pads=(1, 1, 1, 1), bias=bias), (-1,)),
        ("relu1", "relu", ReLU(), (0,)),
        ("pool1", "maxpool", MaxPool((3, 3), (2, 2), ceil_mode=True), (1,)),
        ("left", "conv", conv(rng, (4, 6, 1, 1), bias=bias), (2,)),
        ("left_relu", "relu", ReLU(), (3,)),
        ("right", "conv", conv(rng, (4, 3, 3, 3), pads=(1, 1, 1, 1), groups=2, bias=bias), (2,)),
        ("right_relu", "relu", ReLU(), (5,)),
        ("joined", "concat", Concat(1), (4, 6)),
        ("mix", "conv", conv(rng, (8, 8, 3, 3), pads=(1, 1, 1, 1), bias=bias), (7,)),
        ("sum", "add", Add(), (8, 7)),
        ("relu2", "relu", ReLU(), (9,)),
        ("mean", "averagepool", AveragePool((2, 2), (2, 2), ceil_mode=True), (10,)),
        ("flat", "flatten", Flatten(1), (11,)),
        ("fc", "dense", Dense(rng.standard_normal((4, 8 * 3 * 3)), rng.standard_normal(4) * bias), (12,)),
    )


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(9).integers(0, 256, (11, 12, 3), dtype=np.uint8)


RULE_SETS = (
    "paper",
    "composite",
    "caffe-flat",
    Epsilon(0.1),
    Gamma(0.3),
    ZPlus(),
    WSquare(),
    {"conv": Gamma(1), "mix": Epsilon(1), "first": Box()},
    ConvRules(bias="distribute"),
    ConvRules(bias="ignore"),
    ConvRules(pool="flat"),
    ConvRules(layers={"maxpool": Flat(), "averagepool": Flat()}),
)


@pytest.mark.parametrize("rules", RULE_SETS, ids=repr)
@pytest.mark.parametrize("depth", ("input", "conv1", "pool1", "left", "joined", "sum", "mean"))
def test_the_ledger_closes_at_every_depth(photo, rules, depth):
    for ex in lrp.ConvTrace(branched(), photo, "float64").explain(["dog", "pig"], depth, rules):
        assert ex.ledger.closes(1e-9), ex.ledger
        assert ex.heatmap.shape == (11, 12) and np.isfinite(ex.heatmap).all()
        np.testing.assert_allclose(ex.heatmap.sum(), ex.ledger["heatmap"])
    for ex in lrp.ConvTrace(branched(), photo).explain(["dog", "pig"], depth, rules):
        assert abs(ex.ledger["rounding"]) <= 1e-6 * ex.ledger.size, ex.ledger


def test_without_bias_and_stabiliser_all_of_the_score_arrives(photo):
    net = branched(bias=False)
    for depth in ("input", "conv1", "joined"):
        ex = lrp.ConvTrace(net, photo, "float64").explain(2, depth, Epsilon(0))
        np.testing.assert_allclose(ex.heatmap.sum(), ex.score, rtol=1e-9)


def test_epsilon_of_a_network_without_bias_is_input_times_gradient(photo):
    net = branched(bias=False)
    net.nodes[11] = Node("mean", "maxpool", MaxPool((2, 2), (2, 2), ceil_mode=True), (10,))
    trace = lrp.ConvTrace(net, photo, "float64")
    ex = trace.explain("pig", rules=Epsilon(1e-13))
    step, gradient = 1e-6, np.zeros(trace.x.size)
    for i in range(trace.x.size):
        moved = []
        for sign in (step, -step):
            x = trace.x.copy()
            x.flat[i] += sign
            moved.append(net.activations(x)[-1][0, 3])
        gradient[i] = (moved[0] - moved[1]) / (2 * step)
    want = (trace.x * gradient.reshape(trace.x.shape))[0]
    np.testing.assert_allclose(ex.relevance["input"], want, rtol=1e-4, atol=1e-6 * np.abs(want).max())


def test_flat_at_conv1_is_alpha_beta_averaged_over_the_window():
    """The paper: "averaging lower layer relevances for each convolution operator"; exact without bias."""
    rng = np.random.default_rng(12)
    layer = conv(rng, (3, 2, 3, 3), bias=False)
    x, r = rng.uniform(0.1, 1, (1, 2, 7, 6)), rng.standard_normal((1, 3, 5, 4))
    want = np.zeros_like(x)
    for co, oy, ox in product(range(3), range(5), range(4)):
        one = np.zeros_like(r)
        one[0, co, oy, ox] = r[0, co, oy, ox]
        message = twin(layer, x, one, AlphaBeta(2, 1)).reshape(x.shape)
        window = np.s_[0, :, oy : oy + 3, ox : ox + 3]
        want[window] += message[window].mean()
    got, _ = relevance(layer, x, r, lrp.Choice(Flat()))
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_a_depth_inside_a_branch_leaves_the_other_branch_exact(photo):
    """Depth "left": pool1 gets flat relevance from the left and exact relevance from the right."""
    net, trace = branched(), lrp.ConvTrace(branched(), photo, "float64")
    ex = trace.explain("dog", "left")
    exact = trace.explain("dog", "input").relevance
    saved = net.activations(trace.x)
    rules = lrp.Choice(AlphaBeta(2, 1))
    (left,), _ = lrp.conv(net.nodes[3].layer, [saved[2]], saved[3], exact["left"][None], lrp.Choice(Flat()))
    (right,), _ = lrp.conv(net.nodes[5].layer, [saved[2]], saved[5], exact["right"][None], rules)
    for name in ("left", "right", "joined", "fc"):
        np.testing.assert_allclose(ex.relevance[name], exact[name], atol=1e-12)
    np.testing.assert_allclose(ex.relevance["pool1"], (left + right)[0], atol=1e-12)
    pool, _ = lrp.max_pool(net.nodes[2].layer, [saved[1]], saved[2], left + right, rules)
    flat, _ = lrp.conv(net.nodes[0].layer, [trace.x], saved[0], pool[0], lrp.Choice(Flat()))
    np.testing.assert_allclose(ex.relevance["input"], flat[0][0], atol=1e-12)


def test_depths_share_one_pass_with_the_same_bits(photo):
    trace = lrp.ConvTrace(branched(), photo)
    depths = ("mean", "input", "left", "conv1", "joined")
    for depth, ex in zip(depths, trace.explain("dog", depths), strict=True):
        alone = trace.explain("dog", depth)
        np.testing.assert_array_equal(ex.heatmap, alone.heatmap)
        assert ex.depth == depth and ex.ledger.to_dict() == alone.ledger.to_dict()


@pytest.mark.parametrize(("dtype", "rtol"), (("float32", 1e-5), ("float64", 1e-12)))
def test_targets_share_one_pass(photo, dtype, rtol, monkeypatch):
    trace = lrp.ConvTrace(branched(), photo, dtype)
    together = trace.explain(["dog", 3, np.int64(0)], ["input", "left"])
    monkeypatch.setattr(lrp, "BATCH", 1)  # one target a pass
    apart = trace.explain(["dog", 3, np.int64(0)], ["input", "left"])
    assert [(ex.target, ex.depth) for ex in together] == [
        (target, depth) for target in ("dog", "pig", "cat") for depth in ("input", "left")
    ]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=rtol * np.abs(other.heatmap).max())


def test_relevance_is_there_at_every_layer(photo):
    trace = lrp.ConvTrace(branched(), photo, "float64")
    ex = trace.explain("gull", "pool1")
    assert list(ex.relevance) == [*trace.net.layers, "input"]
    np.testing.assert_allclose(ex.relevance["fc"], [0, 0, ex.score, 0])
    assert ex.relevance["conv1"].shape == (6, 11, 12) and ex.relevance["conv1"].dtype == np.float64
    np.testing.assert_allclose(ex.relevance["input"].sum(axis=0), ex.heatmap)


def test_a_cut_above_a_dense_layer_is_uniform_and_warns(photo):
    trace = lrp.ConvTrace(branched(), photo, "float64")
    with pytest.warns(UserWarning, match=r"dense layer 'fc'.*WSquare"):
        ex = trace.explain("dog", "fc")
    mean = ex.relevance["mean"]
    np.testing.assert_allclose(mean, mean.flat[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace.explain("dog", "mean")
        assert np.ptp(trace.explain("dog", "fc", ConvRules(below=WSquare())).relevance["mean"]) > 0


def test_figure_depths_and_names(photo):
    trace = lrp.ConvTrace(branched(), photo)
    assert trace.figure_depths == ("input", "conv1")
    assert trace.explain("dog", 3).depth == "left" and trace.explain().target == trace.top
    with pytest.raises(ValueError, match=r"unknown depth 'conv9'; depths are 'conv1'.*'input'"):
        trace.explain("dog", "conv9")
    with pytest.raises(ValueError, match=r"unknown depth 14; indices of layers are 0\.\.13"):
        trace.explain("dog", 14)
    with pytest.raises(ValueError, match="unknown target 'cow'; classes are cat, dog"):
        trace.explain("cow")
    with pytest.raises(ValueError, match=r"unknown target 4; indices of classes are 0\.\.3"):
        trace.explain(4)


def test_rules_that_fit_no_layer_are_told_what_does(photo):
    trace = lrp.ConvTrace(branched(), photo)
    with pytest.raises(
        ValueError, match=r"no layer or kind 'convolution'; kinds are first, add.*conv.*; layers are conv1"
    ):
        trace.explain(rules={"convolution": ZPlus()})
    with pytest.raises(ValueError, match=r"'relu1' .* takes no rule"):
        trace.explain(rules={"relu1": ZPlus()})
    with pytest.raises(ValueError, match="a pool takes the rule Flat"):
        trace.explain(rules={"pool1": ZPlus()})
    with pytest.raises(ValueError, match="Box is a rule of the layer that sees the pixels, got it for 'mix'"):
        trace.explain(rules={"mix": Box()})
    with pytest.raises(ValueError, match="Box holds 2 values, the input has 3 channels"):
        trace.explain(rules={"first": Box((0, 0), (1, 1))})


def test_rules_may_name_kinds_that_a_network_has_none_of(photo):
    rng = np.random.default_rng(0)
    net = Net(
        ("conv", "conv", conv(rng, (4, 3, 3, 3)), (-1,)),
        ("mean", "globalaveragepool", GlobalAveragePool(), (0,)),
        ("flat", "flatten", Flatten(1), (1,)),
    )
    assert lrp.ConvTrace(net, photo, "float64").explain(0, rules="composite").ledger.closes()


def test_box_takes_its_range_from_black_and_white(photo):
    trace = lrp.ConvTrace(branched(), photo, "float64")
    given = trace.explain("dog", rules={"first": Box(-1, (255 - 128) / 128)})
    np.testing.assert_array_equal(trace.explain("dog", rules={"first": Box()}).heatmap, given.heatmap)


# ---- another program -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    return np.load(Path(__file__).parent / "data" / "lrp_zennit.npz")


GOLDEN = {
    "alphabeta_2_1": AlphaBeta(2, 1),
    "alphabeta_2_1_no_bias": ConvRules(bias="ignore"),
    "alphabeta_3_2": AlphaBeta(3, 2),
    "epsilon_0.1": Epsilon(0.1),
    "gamma_0.25": Gamma(0.25),
    "zplus": ZPlus(),
    "wsquare": {"first": WSquare()},
    "flat": {"first": Flat()},
    "zbox": {"first": Box(-2.0, 2.5)},
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("dtype", "rtol"), (("float64", 1e-7), ("float32", 1e-4)))
def test_relevance_is_zennits(golden, name, dtype, rtol, photo):
    def weights(i):
        return golden[f"weight_{i}"], golden[f"bias_{i}"]

    net = Net(
        ("c0", "conv", Conv(*weights(0), (2, 2), (1, 1, 1, 1)), (-1,)),
        ("r1", "relu", ReLU(), (0,)),
        ("c2", "conv", Conv(*weights(2), (1, 1), (2, 2, 2, 2), (2, 2), 2), (1,)),
        ("r3", "relu", ReLU(), (2,)),
        ("p4", "maxpool", MaxPool((2, 2), (2, 2)), (3,)),
        ("c5", "conv", Conv(*weights(5)), (4,)),
        ("r6", "relu", ReLU(), (5,)),
        ("f7", "flatten", Flatten(1), (6,)),
        ("d8", "dense", Dense(*weights(8)), (7,)),
        ("r9", "relu", ReLU(), (8,)),
        ("d10", "dense", Dense(*weights(10)), (9,)),
    )
    net.prepare = lambda image: golden["x"]
    net.classes_ = list("abcde")
    trace = lrp.ConvTrace(net, photo, dtype)
    np.testing.assert_allclose(trace.scores, golden["logits"], rtol=1e-5)
    ex = trace.explain(3, rules=GOLDEN[name])
    want = golden[name]
    np.testing.assert_allclose(ex.relevance["input"], want, rtol=rtol, atol=rtol * np.abs(want).max())


# ---- quick products ----


@pytest.mark.parametrize("rule", (AlphaBeta(2, 1), AlphaBeta(1, 0), ZPlus(), Gamma(0.25)), ids=repr)
@pytest.mark.parametrize("signed", (False, True), ids=("inputs >= 0", "inputs of both signs"))
def test_dark_pixels_beside_bright_ones_keep_their_shares_in_single_precision(rule, signed, monkeypatch):
    """Winograd's transforms cancel the bright pixels of a tile: what is left of the dark ones must be summed anew."""
    rng = np.random.default_rng(4)
    x = rng.random((1, 16, 24, 24)) + 0.1
    if signed:
        x *= rng.choice([-1, 1], x.shape)
    x[:, :, :10] *= 1e7
    layer = conv(rng, (16, 16, 3, 3), pads=(1, 1, 1, 1))
    assert layer.quick(24 * 24, np.dtype(np.float32)) and not layer.quick(24 * 24, np.dtype(np.float64))
    y = layer.forward(x)
    r = np.maximum(y, 0)
    (want,), _ = lrp.conv(layer, [x], y, r, lrp.Choice(rule))

    def error() -> float:
        got, losses = lrp.conv(layer, [x.astype(np.float32)], y.astype(np.float32), r.astype(np.float32), choice)
        assert all(np.isfinite(amount).all() for amount in losses.kinds.values())
        return np.abs(got[0] - want)[:, :, 12:].max() / np.abs(want[:, :, 12:]).max()

    choice = lrp.Choice(rule)
    assert error() < 1e-3
    monkeypatch.setattr(lrp, "DOUBT", 1e-30)
    monkeypatch.setattr(lrp, "WEAK", 0.0)
    assert error() > 2e-3
