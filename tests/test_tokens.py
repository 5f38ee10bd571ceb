"""Transformers: the golden checks of attention, and depths among tokens."""

import warnings

import numpy as np
import pytest

from fvlrp import Network, Preprocess, cli
from fvlrp.core import captions
from fvlrp.network.graph import Node
from fvlrp.network.layers import (
    Activation,
    Add,
    Concat,
    Conv,
    Dense,
    Extend,
    Flatten,
    Gather,
    LayerNorm,
    MatMul,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)
from fvlrp.network.rules import Choice, NetworkRules
from fvlrp.network.trace import choices
from fvlrp.network.walk import walk
from fvlrp.rules import Epsilon

SIZE, PATCH, WIDTH, HEADS, CLASSES = 8, 4, 6, 2, 3
TOKENS, DEPTH = (SIZE // PATCH) ** 2, WIDTH // HEADS


class Built:
    """Nodes under construction, by name."""

    def __init__(self, seed=0):
        self.nodes, self.random = [], np.random.default_rng(seed)

    def add(self, name, layer, *inputs):
        names = [node.name for node in self.nodes]
        self.nodes.append(Node.of(name, layer, tuple(names.index(i) if i else -1 for i in inputs)))
        return name

    def weight(self, *shape):
        return self.random.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))

    def dense(self, name, source, n_in, n_out):
        return self.add(name, Dense(self.weight(n_out, n_in), np.zeros(n_out)), source)

    def norm(self, name, source):
        scale = self.random.uniform(0.5, 1.5, WIDTH)
        return self.add(name, LayerNorm(scale, np.zeros(WIDTH), (2,)), source)

    def patches(self):
        self.add("patch/Conv", Conv(self.weight(WIDTH, 3, PATCH, PATCH), np.zeros(WIDTH), (PATCH, PATCH)), "")
        self.add("patch/Reshape", Reshape((WIDTH, TOKENS)), "patch/Conv")
        return self.add("patch/Transpose", Transpose((2, 1)), "patch/Reshape")

    def heads(self, block, x, tokens, what):
        projected = self.dense(f"{block}/attn/{what}/MatMul", x, WIDTH, WIDTH)
        split = self.add(f"{block}/attn/{what}/Reshape", Reshape((tokens, HEADS, DEPTH)), projected)
        order = (2, 3, 1) if what == "k" else (2, 1, 3)
        return self.add(f"{block}/attn/{what}/Transpose", Transpose(order), split)

    def block(self, block, x, tokens=TOKENS):
        normed = self.norm(f"{block}/norm1/Norm", x)
        q, k, v = (self.heads(block, normed, tokens, what) for what in "qkv")
        scores = self.add(f"{block}/attn/MatMul", MatMul(None, -1, DEPTH**-0.5), q, k)
        weights = self.add(f"{block}/attn/Softmax", Softmax(3), scores)
        mixed = self.add(f"{block}/attn/MatMul_1", MatMul(None, 0), weights, v)
        together = self.add(f"{block}/attn/Transpose", Transpose((2, 1, 3)), mixed)
        joined = self.add(f"{block}/attn/Reshape", Reshape((tokens, WIDTH)), together)
        x = self.add(f"{block}/Add", Add(), x, self.dense(f"{block}/attn/proj/MatMul", joined, WIDTH, WIDTH))
        hidden = self.dense(f"{block}/mlp/fc1/MatMul", self.norm(f"{block}/norm2/Norm", x), WIDTH, 9)
        hidden = self.add(f"{block}/mlp/act/Gelu", Activation("gelu"), hidden)
        return self.add(f"{block}/Add_1", Add(), x, self.dense(f"{block}/mlp/fc2/MatMul", hidden, 9, WIDTH))

    def network(self):
        return Network(self.nodes, (3, SIZE, SIZE), preprocess=Preprocess((SIZE, SIZE)))


def transformer(class_token=False, names="blocks/blocks.{}"):
    """Two blocks without biases, shifts or position embeddings; a mean over tokens at the end, or a class token."""
    built = Built()
    x, tokens = built.patches(), TOKENS
    if class_token:
        x = built.add("cls/Concat", Extend(built.weight(1, WIDTH), np.zeros((0, WIDTH))), x)
        tokens += 1
    for i in range(2):
        x = built.block(names.format(i), x, tokens)
    x = built.norm("norm/Norm", x)
    if class_token:
        x = built.add("first/Flatten", Flatten(), built.add("first/Slice", Slice(1, 0, 1), x))
    else:
        x = built.add("mean/Mean", Reduce("mean", (1,), False), x)
    built.dense("head/Gemm", x, WIDTH, CLASSES)
    return built.network()


X = np.random.default_rng(5).normal(size=(1, 3, SIZE, SIZE))


def relevance(net, x, target, rules):
    saved = net.passed(x)
    start = np.zeros_like(saved[-1].y)
    start[0, target] = saved[-1].y[0, target]
    done = walk(net.nodes, x, saved, start, [-1], choices(net.nodes, rules, lambda node, rule: None))[0]
    return done.pixels[0], done.entries, start.sum()


# ---- the golden checks -----------------------------------------------------------------------------------------------


def detached(net, x0, x, attention):
    """The scores at x of the network whose nonlinear parts are constants as they are at x0, but for attention.

    "value": softmaxes are constants, too. "both": softmaxes move, and changes of queries and keys count a quarter, of
    values a half, as AttnLRP distributes relevance.
    """
    constant, moved = net.passed(x0), []

    def part(value, base, share):
        return (1 - share) * base + share * value

    for i, node in enumerate(net.nodes):
        inputs = [x if k == -1 else moved[k] for k in node.inputs]
        at = [x0 if k == -1 else constant[k].y for k in node.inputs]
        layer = node.layer
        if isinstance(layer, Activation):
            y = inputs[0] * (constant[i].y / at[0])
        elif isinstance(layer, LayerNorm):
            deviation = np.sqrt(at[0].var(axis=2, keepdims=True) + layer.epsilon)
            y = layer.scale * (inputs[0] - inputs[0].mean(axis=2, keepdims=True)) / deviation
        elif isinstance(layer, Softmax):
            y = constant[i].y if attention == "value" else layer.apply(inputs[0])
        elif isinstance(layer, MatMul) and attention == "both":
            shares = (1.0, 0.5) if layer.weights == 0 else (0.25, 0.25)
            inputs = [part(v, base, s) for v, base, s in zip(inputs, at, shares, strict=True)]
            if layer.weights == 0:  # the weights bring half of what goes to them: queries and keys have a quarter of it
                inputs[0] = part(inputs[0], at[0], 1.0)
            y = layer.apply(*inputs)
        else:
            y = layer.apply(*inputs)
        moved.append(y)
    return moved[-1][0]


@pytest.mark.parametrize("attention", ["value", "both"])
def test_without_a_stabiliser_relevance_is_input_times_gradient_of_the_detached_network(attention):
    net = transformer()
    rules = NetworkRules(default=Epsilon(0), attention=attention)
    pixels, _, _ = relevance(net, X, 1, rules)
    gradient, step = np.zeros(X.shape), 1e-5
    for place in np.ndindex(*X.shape):
        ends = []
        for sign in (1, -1):
            x = X.copy()
            x[place] += sign * step
            ends.append(detached(net, X, x, attention)[1])
        gradient[place] = (ends[0] - ends[1]) / (2 * step)
    wanted = (X * gradient)[0]
    np.testing.assert_allclose(pixels, wanted, rtol=0, atol=1e-7 * np.abs(wanted).max())


def test_without_biases_and_constants_value_relevance_is_the_score():
    net = transformer()
    pixels, entries, score = relevance(net, X, 0, NetworkRules(default=Epsilon(0), attention="value"))
    assert abs(pixels.sum() - score) <= 1e-10 * np.abs(pixels).sum()
    assert all(np.abs(amount).max() <= 1e-12 for amount in entries.values())


@pytest.mark.parametrize("attention", ["value", "both"])
def test_heads_are_block_diagonal(attention):
    """Several heads are single heads side by side."""
    rng = np.random.default_rng(0)
    a, v, r = (rng.normal(size=(1, 4, *shape)) for shape in ((5, 5), (5, 3), (5, 3)))
    layer, choice = MatMul(None, 0), Choice(Epsilon(0.01), attention=attention)
    _, saved = layer.forward(a, v)
    together, _ = layer.relevance(r, saved, choice)
    for h in range(4):
        _, alone = layer.forward(a[:, h : h + 1], v[:, h : h + 1])
        for part, whole in zip(layer.relevance(r[:, h : h + 1], alone, choice).inputs, together, strict=True):
            np.testing.assert_allclose(part, whole[:, h : h + 1], rtol=1e-12, atol=0)


def test_permutations_go_there_and_back_without_any_error():
    rng = np.random.default_rng(0)
    x, start = rng.normal(size=(1, 6, 5, 4)), rng.normal(size=(3, 6, 5, 4))
    shuffled, turned = Gather(rng.permutation(6), 1), Transpose((3, 1, 2))
    back = (Transpose((2, 3, 1)), Gather(np.argsort(shuffled.indices), 1))
    steps, y, r = [], x, start
    for layer in (shuffled, turned, *back):
        y, saved = layer.forward(y)
        steps.append((layer, saved))
    np.testing.assert_array_equal(y, x)
    for layer, saved in reversed(steps):
        (r_in,), _ = layer.relevance(r, saved, Choice(Epsilon()))
        r = r_in
    np.testing.assert_array_equal(r, start)


# ---- depths among tokens ---------------------------------------------------------------------------------------------

IMAGE = np.random.default_rng(3).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def patch_sums(heatmap):
    height, width = (n // (SIZE // PATCH) for n in heatmap.shape)
    return heatmap.reshape(SIZE // PATCH, height, SIZE // PATCH, width).sum(axis=(1, 3))


@pytest.mark.parametrize("names", ["blocks/blocks.{}", "blocks.{}", "vit/encoder/layers/encoder_layer_{}", "x{}"])
def test_blocks_are_named_depths_for_every_exporter(names):
    net = transformer(names=names)
    wanted = {
        "blocks/blocks.{}": ["blocks.0", "blocks.1"],
        "blocks.{}": ["blocks.0", "blocks.1"],
        "vit/encoder/layers/encoder_layer_{}": [f"vit.encoder.layers.encoder_layer_{i}" for i in range(2)],
        "x{}": ["x0", "x1"],
    }[names]
    assert list(net.layout.blocks) == wanted
    assert [net.nodes[i].name for i in net.layout.blocks.values()] == [names.format(i) + "/Add_1" for i in range(2)]
    by_name = net.explain(IMAGE, target=0, depth=wanted[0])
    assert by_name.depth == wanted[0]
    np.testing.assert_array_equal(
        by_name.heatmap, net.explain(IMAGE, target=0, depth=names.format(0) + "/Add_1").heatmap
    )
    if wanted[0].startswith("vit"):
        assert net.explain(IMAGE, target=0, depth="encoder_layer_1").depth == wanted[1]
    with pytest.raises(ValueError, match=r"unknown depth 'blocks\.7'.*; depths are 'input', '" + wanted[0]):
        net.explain(IMAGE, target=0, depth="blocks.7")


def test_info_names_the_blocks_that_are_depths(tmp_path, capsys):
    transformer().save(tmp_path / "net.fvlrp")
    assert cli.main(["info", str(tmp_path / "net.fvlrp")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "blocks: blocks.0, blocks.1" in lines
    assert any(line.startswith("default depths: explain input, figures (input, blocks.") for line in lines)


def test_blocks_without_names_are_counted():
    net = transformer()
    nodes = [Node(f"n{i}", node.kind, node.layer, node.inputs) for i, node in enumerate(net.nodes)]
    plain = Network(nodes, net.input_shape, preprocess=net.preprocess)
    assert plain.layout.blocks == net.layout.blocks


@pytest.mark.parametrize("block", ["blocks.0", "blocks.1"])
def test_below_a_block_each_token_keeps_its_relevance(block):
    """A map of patches: what a patch's token holds at the block's output is what the patch has in the heatmap."""
    net = transformer()
    trace = net.trace(IMAGE, dtype="float64")
    ex = trace.explain(target=1, depth=block)
    tokens = ex.relevance[net.nodes[net.layout.blocks[block]].name].sum(axis=1)
    np.testing.assert_allclose(patch_sums(ex.heatmap).ravel(), tokens, rtol=1e-9, atol=1e-12)
    assert ex.ledger.closes(1e-9)
    # Within a patch all pixels have the same part.
    blown = np.kron(patch_sums(ex.heatmap), np.ones((8, 12))) / 96
    np.testing.assert_allclose(ex.heatmap, blown, rtol=0, atol=1e-9 * np.abs(ex.heatmap).max())


def test_class_tokens_are_spread_evenly_and_named():
    net = transformer(class_token=True)
    trace = net.trace(IMAGE, dtype="float64")
    for block in ("blocks.0", "blocks.1"):
        ex = trace.explain(target=2, depth=block)
        tokens = ex.relevance[net.nodes[net.layout.blocks[block]].name].sum(axis=1)
        amount = ex.ledger["class_token"]
        assert amount == pytest.approx(tokens[0], rel=1e-9)
        wanted = tokens[1:] + amount / TOKENS
        np.testing.assert_allclose(patch_sums(ex.heatmap).ravel(), wanted, rtol=1e-9, atol=1e-12)
        assert ex.heatmap.sum() == pytest.approx(ex.ledger["heatmap"] + amount)
        assert captions.in_map(ex.ledger) == pytest.approx(ex.summary()["heatmap_sum"], rel=1e-9)
        assert f"map {ex.heatmap.sum():+.2f}".replace("-", "−") in captions.brief(ex.ledger)
        assert ex.ledger.closes(1e-9)
    assert tokens[0] != 0 and not tokens[1:].any(), "all of it is on the class token behind the last block"
    assert net.coarse_depth == net.menu.figure_depths[1] == "blocks.0" and net.describe()["kind"] == "transformer"
    assert "class_token" not in trace.explain(target=2, depth="input").ledger


def test_a_class_token_that_comes_late_leaves_the_coarse_depth_to_blocks_of_patches():
    built = Built()
    x = built.block("blocks/blocks.0", built.patches())
    x = built.add("cls/Concat", Extend(built.weight(1, WIDTH), np.zeros((0, WIDTH))), x)
    x = built.block("blocks/blocks.1", x, TOKENS + 1)
    x = built.add("first/Flatten", Flatten(), built.add("first/Slice", Slice(1, 0, 1), x))
    built.dense("head/Gemm", x, WIDTH, CLASSES)
    net = built.network()
    assert net.layout.outside == (1, 0, TOKENS + 1) and net.coarse_depth == "blocks.0"


def test_a_model_whose_name_ends_in_a_number_is_no_block():
    net = transformer(names="dinov2/layer.{}")
    assert list(net.layout.blocks) == ["dinov2.layer.0", "dinov2.layer.1"]
    assert list(transformer(names="layer1/layer1.{}").layout.blocks) == ["layer1.0", "layer1.1"]


def mixer(hidden):
    """One block that mixes tokens by two dense layers over them, and a mean."""
    built = Built()
    x = built.patches()
    turned = built.add("blocks.0/Transpose", Transpose((2, 1)), x)
    made = built.dense("blocks.0/tokens/fc1/MatMul", turned, TOKENS, hidden)
    made = built.add("blocks.0/tokens/act/Gelu", Activation("gelu"), made)
    made = built.dense("blocks.0/tokens/fc2/MatMul", made, hidden, TOKENS)
    x = built.add("blocks.0/Add", Add(), x, built.add("blocks.0/Transpose_1", Transpose((2, 1)), made))
    x = built.add("mean/Mean", Reduce("mean", (1,), False), x)
    built.dense("head/Gemm", x, WIDTH, CLASSES)
    return built.network()


@pytest.mark.parametrize("hidden", [3, TOKENS, 7])
def test_layers_that_mix_tokens_pass_each_its_own_below_a_depth(hidden):
    net = mixer(hidden)
    ex = net.trace(IMAGE, dtype="float64").explain(target=0, depth="blocks.0")
    tokens = ex.relevance["blocks.0/Add"].sum(axis=1)
    np.testing.assert_allclose(patch_sums(ex.heatmap).ravel(), tokens, rtol=1e-9, atol=1e-12)
    assert ex.ledger.closes(1e-9) and net.coarse_depth == "blocks.0"


def test_parts_of_an_image_put_together_are_no_block():
    built = Built()
    built.add("a.0/Conv", Conv(built.weight(4, 3, 3, 3), np.zeros(4)), "")
    built.add("b.0/Conv", Conv(built.weight(4, 3, 3, 3), np.zeros(4)), "")
    joined = built.add("Concat", Concat(1), "a.0/Conv", "b.0/Conv")
    built.dense("head/Gemm", built.add("mean/Mean", Reduce("mean", (2, 3), False), joined), 8, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert built.network().layout.blocks == {}
