"""The walk through a network: depths, branches, conservation, what can be asked for, and another program's numbers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fvlrp import Network, sheet
from fvlrp.network import trace as lrp
from fvlrp.network.graph import Node
from fvlrp.network.layers import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ReLU,
)
from fvlrp.network.rules import Choice
from fvlrp.network.tokens import Layout
from fvlrp.rules import AlphaBeta, Box, ConvRules, Epsilon, Flat, Gamma, WSquare, ZPlus


def conv(rng, weight, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True):
    weight = rng.standard_normal(weight)
    b = rng.standard_normal(len(weight)) if bias else np.zeros(len(weight))
    return Conv(weight, b, stride, pads, dilation, groups)


class Whole:
    """Preprocessing that shows the network every pixel."""

    size, order = (11, 12), "RGB"

    def undo(self, heatmap, shape):
        return heatmap

    def box(self, shape):
        return 0, 0, *shape


class Net:
    """A network of given nodes over photographs scaled to -1..1."""

    def __init__(self, *nodes, shape=(3, 11, 12)):
        self.nodes = [Node(*node) for node in nodes]
        self.layers = [node.name for node in self.nodes]
        self.preprocess = Whole()
        self.classes_, self.binary = ["cat", "dog", "gull", "pig"], False
        self.shapes = self._shapes(shape)
        self.layout = Layout.of(self.nodes, self.shapes, shape)

    @property
    def coarse_depth(self):
        return lrp.coarse_depth(self)

    def _shapes(self, shape):
        shapes = []
        for node in self.nodes:
            shapes.append(node.layer.out_shape(*[shape if i < 0 else shapes[i] for i in node.inputs]))
        return shapes

    def per_class(self, outputs, image):
        return outputs

    def prepare(self, image):
        return (np.asarray(image, np.float32).transpose(2, 0, 1)[None] - 128) / 128

    def passed(self, x):
        saved = []
        for node in self.nodes:
            saved.append(node.layer.forward(*[x if i < 0 else saved[i].y for i in node.inputs])[1])
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
    ConvRules(AlphaBeta(2, 1), bias="distribute"),
    ConvRules(AlphaBeta(2, 1), bias="ignore"),
    ConvRules(AlphaBeta(2, 1), pool="flat"),
    ConvRules(AlphaBeta(2, 1), layers={"maxpool": Flat(), "averagepool": Flat()}),
)


@pytest.mark.parametrize("rules", RULE_SETS, ids=repr)
@pytest.mark.parametrize("depth", ("input", "conv1", "pool1", "left", "joined", "sum", "mean"))
def test_the_ledger_closes_at_every_depth(photo, rules, depth):
    for ex in lrp.NetworkTrace(branched(), photo, "float64").explain(["dog", "pig"], depth, rules):
        assert ex.ledger.closes(1e-9), ex.ledger
        assert ex.heatmap.shape == (11, 12) and np.isfinite(ex.heatmap).all()
        np.testing.assert_allclose(ex.heatmap.sum(), ex.ledger["heatmap"])
    for ex in lrp.NetworkTrace(branched(), photo).explain(["dog", "pig"], depth, rules):
        assert abs(ex.ledger["rounding"]) <= 1e-6 * ex.ledger.size, ex.ledger


def test_without_bias_and_stabiliser_all_of_the_score_arrives(photo):
    net = branched(bias=False)
    for depth in ("input", "conv1", "joined"):
        ex = lrp.NetworkTrace(net, photo, "float64").explain(2, depth, Epsilon(0))
        np.testing.assert_allclose(ex.heatmap.sum(), ex.score, rtol=1e-9)


def test_epsilon_of_a_network_without_bias_is_input_times_gradient(photo):
    net = branched(bias=False)
    net.nodes[11] = Node("mean", "maxpool", MaxPool((2, 2), (2, 2), ceil_mode=True), (10,))
    trace = lrp.NetworkTrace(net, photo, "float64")
    ex = trace.explain("pig", rules=Epsilon(1e-13))
    step, gradient = 1e-6, np.zeros(trace.x.size)
    for i in range(trace.x.size):
        moved = []
        for sign in (step, -step):
            x = trace.x.copy()
            x.flat[i] += sign
            moved.append(net.passed(x)[-1].y[0, 3])
        gradient[i] = (moved[0] - moved[1]) / (2 * step)
    want = (trace.x * gradient.reshape(trace.x.shape))[0]
    np.testing.assert_allclose(ex.relevance["input"], want, rtol=1e-4, atol=1e-6 * np.abs(want).max())


def test_a_depth_inside_a_branch_leaves_the_other_branch_exact(photo):
    """Depth "left": pool1 gets flat relevance from the left and exact relevance from the right."""
    net, trace = branched(), lrp.NetworkTrace(branched(), photo, "float64")
    ex = trace.explain("dog", "left", "paper")
    exact = trace.explain("dog", "input", "paper").relevance
    saved = net.passed(trace.x)
    rules = Choice(AlphaBeta(2, 1))
    (left,), _ = net.nodes[3].layer.relevance(exact["left"][None], saved[3], Choice(Flat()))
    (right,), _ = net.nodes[5].layer.relevance(exact["right"][None], saved[5], rules)
    for name in ("left", "right", "joined", "fc"):
        np.testing.assert_allclose(ex.relevance[name], exact[name], atol=1e-12)
    np.testing.assert_allclose(ex.relevance["pool1"], (left + right)[0], atol=1e-12)
    pool, _ = net.nodes[2].layer.relevance(left + right, saved[2], rules)
    flat, _ = net.nodes[0].layer.relevance(pool[0], saved[0], Choice(Flat()))
    np.testing.assert_allclose(ex.relevance["input"], flat[0][0], atol=1e-12)


def test_depths_share_one_pass_with_the_same_bits(photo):
    trace = lrp.NetworkTrace(branched(), photo)
    depths = ("mean", "input", "left", "conv1", "joined")
    for depth, ex in zip(depths, trace.explain("dog", depths), strict=True):
        alone = trace.explain("dog", depth)
        np.testing.assert_array_equal(ex.heatmap, alone.heatmap)
        assert ex.depth == depth and ex.ledger.to_dict() == alone.ledger.to_dict()


@pytest.mark.parametrize(("dtype", "rtol"), (("float32", 1e-5), ("float64", 1e-12)))
def test_targets_share_one_pass(photo, dtype, rtol, monkeypatch):
    trace = lrp.NetworkTrace(branched(), photo, dtype)
    together = trace.explain(["dog", 3, np.int64(0)], ["input", "left"])
    monkeypatch.setattr(lrp, "BATCH", 1)  # one target a pass
    apart = trace.explain(["dog", 3, np.int64(0)], ["input", "left"])
    assert [(ex.target, ex.depth) for ex in together] == [
        (target, depth) for target in ("dog", "pig", "cat") for depth in ("input", "left")
    ]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=rtol * np.abs(other.heatmap).max())


def test_relevance_is_there_at_every_layer(photo):
    trace = lrp.NetworkTrace(branched(), photo, "float64")
    ex = trace.explain("gull", "pool1")
    assert list(ex.relevance) == [*trace.net.layers, "input"]
    np.testing.assert_allclose(ex.relevance["fc"], [0, 0, ex.score, 0])
    assert ex.relevance["conv1"].shape == (6, 11, 12) and ex.relevance["conv1"].dtype == np.float64
    np.testing.assert_allclose(ex.relevance["input"].sum(axis=0), ex.heatmap)


def deep(convolutions):
    """Convolutions of 3 channels one behind the other, and four classes."""
    draw = np.random.default_rng(convolutions)
    layers = [(f"c{i}", "conv", conv(draw, (3, 3, 3, 3), pads=(1, 1, 1, 1)), (i - 1,)) for i in range(convolutions)]
    end = convolutions - 1
    dense = Dense(draw.standard_normal((4, 3), np.float32), np.zeros(4, np.float32))
    tail = ("mean", "globalaveragepool", GlobalAveragePool(), (end,)), ("f", "flatten", Flatten(1), (end + 1,))
    return Net(*layers, *tail, ("fc", "dense", dense, (end + 2,)))


@pytest.mark.parametrize(
    ("convolutions", "rules", "depth", "warns"),
    [
        (8, "paper", "input", True),
        (8, Epsilon(0.01), "input", True),
        (8, AlphaBeta(1, 0), "input", False),
        (8, None, "input", False),
        (8, {"conv": ZPlus(), "dense": AlphaBeta(2, 1)}, "input", False),
        (8, "paper", "c3", False),
        (7, "paper", "input", False),
    ],
)
def test_rules_that_are_poor_at_the_pixels_of_deep_networks_warn(photo, convolutions, rules, depth, warns):
    trace = lrp.NetworkTrace(deep(convolutions), photo)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace.explain("dog", depth, rules)
    found = [(w.filename, "convolutions down to the pixels" in str(w.message)) for w in caught]
    assert found == ([(__file__, True)] if warns else [])


def test_a_warning_points_at_the_line_of_the_caller_and_is_shown_once():
    draw = np.random.default_rng(0)
    net = Network(deep(8).nodes, (3, 24, 20), ["a", "b", "c", "d"])
    image = draw.integers(0, 256, (30, 30, 3), np.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            net.explain(image, rules="paper")
        sheet([net], [image, image], ["a", "b"])
    text = Path(__file__).read_text(encoding="utf-8").splitlines()
    lines = [(w.filename, text[w.lineno - 1].strip()) for w in caught]
    assert lines == [
        (__file__, 'net.explain(image, rules="paper")'),
        (__file__, 'sheet([net], [image, image], ["a", "b"])'),
    ]


def test_figure_1_takes_the_papers_rules(photo):
    trace = lrp.NetworkTrace(branched(), photo)
    assert trace.menu.figure_rules == ConvRules.of("paper") != trace.menu.rules(None)


def test_a_cut_above_a_dense_layer_is_uniform_and_warns(photo):
    trace = lrp.NetworkTrace(branched(), photo, "float64")
    with pytest.warns(UserWarning, match=r"dense layer 'fc'.*WSquare"):
        ex = trace.explain("dog", "fc")
    mean = ex.relevance["mean"]
    np.testing.assert_allclose(mean, mean.flat[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace.explain("dog", "mean")
        assert np.ptp(trace.explain("dog", "fc", ConvRules(below=WSquare())).relevance["mean"]) > 0


def test_figure_depths_and_names(photo):
    trace = lrp.NetworkTrace(branched(), photo)
    assert trace.menu.figure_depths == ("input", "joined")
    assert trace.explain("dog", 3).depth == "left" and trace.explain().target == trace.top
    with pytest.raises(ValueError, match=r"unknown depth 'conv9': did you mean 'conv1'\?; depths are 'conv1'.*'input'"):
        trace.explain("dog", "conv9")
    with pytest.raises(ValueError, match=r"unknown depth 14; indices of layers are 0\.\.13"):
        trace.explain("dog", 14)
    with pytest.raises(ValueError, match="unknown target 'cow'; classes are cat, dog"):
        trace.explain("cow")
    with pytest.raises(ValueError, match=r"unknown target 4; indices of classes are 0\.\.3"):
        trace.explain(4)


def test_the_error_for_rules_that_match_no_layer_lists_the_layers(photo):
    trace = lrp.NetworkTrace(branched(), photo)
    with pytest.raises(
        ValueError, match=r"no layer or kind 'convolution'; kinds are first, add.*conv.*; layers are conv1"
    ):
        trace.explain(rules={"convolution": ZPlus()})
    with pytest.raises(ValueError, match=r"'relu1' .* takes no rule"):
        trace.explain(rules={"relu1": ZPlus()})
    with pytest.raises(ValueError, match="a pool takes the rule Flat"):
        trace.explain(rules={"pool1": ZPlus()})
    with pytest.raises(ValueError, match="Box is a rule for the layer that sees the pixels, got it for 'mix'"):
        trace.explain(rules={"mix": Box()})
    with pytest.raises(ValueError, match="Box holds 2 values, the input has 3 channels"):
        trace.explain(rules={"first": Box((0, 0), (1, 1))})


def test_rules_may_name_kinds_absent_from_the_network(photo):
    rng = np.random.default_rng(0)
    net = Net(
        ("conv", "conv", conv(rng, (4, 3, 3, 3)), (-1,)),
        ("mean", "globalaveragepool", GlobalAveragePool(), (0,)),
        ("flat", "flatten", Flatten(1), (1,)),
    )
    assert lrp.NetworkTrace(net, photo, "float64").explain(0, rules="composite").ledger.closes()


def test_the_box_rule_takes_its_bounds_from_black_and_white(photo):
    trace = lrp.NetworkTrace(branched(), photo, "float64")
    given = trace.explain("dog", rules={"first": Box(-1, (255 - 128) / 128)})
    np.testing.assert_array_equal(trace.explain("dog", rules={"first": Box()}).heatmap, given.heatmap)


# ---- another program -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    return np.load(Path(__file__).parent / "data" / "lrp_zennit.npz")


GOLDEN = {
    "alphabeta_2_1": AlphaBeta(2, 1),
    "alphabeta_2_1_no_bias": ConvRules(AlphaBeta(2, 1), bias="ignore"),
    "alphabeta_3_2": AlphaBeta(3, 2),
    "epsilon_0.1": Epsilon(0.1),
    "gamma_0.25": Gamma(0.25),
    "zplus": ZPlus(),
    "wsquare": ConvRules(AlphaBeta(2, 1), {"first": WSquare()}),
    "flat": ConvRules(AlphaBeta(2, 1), {"first": Flat()}),
    "zbox": ConvRules(AlphaBeta(2, 1), {"first": Box(-2.0, 2.5)}),
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
        shape=golden["x"].shape[1:],
    )
    net.prepare = lambda image: golden["x"]
    net.classes_ = list("abcde")
    trace = lrp.NetworkTrace(net, photo, dtype)
    np.testing.assert_allclose(trace.scores, golden["logits"], rtol=1e-5)
    ex = trace.explain(3, rules=GOLDEN[name])
    want = golden[name]
    np.testing.assert_allclose(ex.relevance["input"], want, rtol=rtol, atol=rtol * np.abs(want).max())
