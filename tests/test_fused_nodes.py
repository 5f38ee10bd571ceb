"""Nodes that onnxruntime's optimiser writes in the place of several: the layers, scores and maps of those."""

import numpy as np
import pytest

from fvlrp import Network, Preprocess

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402
from test_importers import Graph, session  # noqa: E402

MS = "com.microsoft"


class Fused(Graph):
    """A graph with onnxruntime's own operators, and with tokens."""

    def own(self, operator, inputs, output, **attributes):
        return self.add(operator, inputs, output, domain=MS, **attributes)

    def tokens(self, name, width=8):
        """(n, 16, width) of the photograph."""
        self.conv("x", f"{name}.c", 3, width, 4, strides=[4, 4])
        self.constant(f"{name}.shape", [0, width, -1], np.int64).add("Reshape", f"{name}.c {name}.shape", f"{name}.t")
        return self.add("Transpose", f"{name}.t", name, perm=[0, 2, 1])

    def scored(self, source, width=8):
        self.constant("head.axes", [1], np.int64).add("ReduceMean", source, "mean", axes=[1], keepdims=0)
        return self.weight("head", width, 5).add("MatMul", "mean head", "y")

    def model(self):
        model = super().model()
        model.opset_import.append(helper.make_opsetid(MS, 1))
        return model


def scores_of(graph, path, n=2):
    graph.save(path)
    net = Network.from_onnx(path, Preprocess((16, 16)))
    x = np.random.default_rng(1).uniform(-1, 1, (n, 3, 16, 16)).astype(np.float32)
    expected = session(str(path)).run(None, {"x": x})[0].reshape(n, -1)
    assert np.abs(expected).max() > 1e-3, "the test's own network is dead"
    assert np.abs(net.forward(x) - expected).max() <= 1e-5 * np.abs(expected).max()
    return net


ACTIVATIONS = {
    "Relu": [],
    "LeakyRelu": [0.2],
    "Clip": [-0.1, 0.3],
    "HardSigmoid": [0.3, 0.4],
    "Sigmoid": [],
    "Tanh": [],
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_convolution_with_its_activation(tmp_path, name):
    graph = Fused().weight("w", 6, 3, 3, 3).weight("b", 6)
    numbers = {"activation_params": ACTIVATIONS[name]} if ACTIVATIONS[name] else {}
    graph.own("FusedConv", "x w b", "c", activation=name, pads=[1, 1, 1, 1], **numbers).conv("c", "d", 6, 4).pooled("d")
    net = scores_of(graph, tmp_path / "n.onnx")
    assert net.nodes[0].kind == "conv" and len(net.nodes) == 5


def test_a_convolution_with_a_sum_and_an_activation(tmp_path):
    graph = Fused().conv("x", "z", 3, 6, pads=[1, 1, 1, 1]).weight("w", 6, 6, 3, 3).weight("b", 6)
    graph.own("FusedConv", "z w b z", "c", activation="Relu", pads=[1, 1, 1, 1]).pooled("c")
    assert [node.kind for node in scores_of(graph, tmp_path / "n.onnx").nodes][:4] == ["conv", "conv", "add", "relu"]


def test_a_dense_layer_with_its_activation(tmp_path):
    graph = Fused().conv("x", "c", 3, 6).add("GlobalAveragePool", "c", "g").add("Flatten", "g", "f")
    graph.weight("w", 7, 6).weight("b", 7).own("FusedGemm", "f w b", "h", transB=1, activation="LeakyRelu",
                                               activation_alpha=0.3)  # fmt: skip
    scores_of(graph.weight("v", 7, 5).add("MatMul", "h v", "y"), tmp_path / "n.onnx")


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("side", ["A", "B"])
def test_products_with_their_axes_in_another_order(tmp_path, side, batch, turned):
    """(1, 4, 16, 16) of tokens times itself, its axes moved before the product for the one side."""
    graph = Fused(("n", 3, 16, 16)).conv("x", "c", 3, 4, pads=[1, 1, 1, 1])
    order = [0, 1, 2, 3]
    if batch:
        order = [1, 2, 3, 0] if turned else [1, 2, 0, 3]
    elif turned:
        order = [0, 1, 3, 2]
    graph.add("Transpose", "c", "m", perm=np.argsort(order).tolist())
    attributes = {f"trans{side}": turned, f"transBatch{side}": batch}
    graph.own("FusedMatMul", "m c" if side == "A" else "c m", "p", alpha=0.3, **attributes).pooled("p")
    scores_of(graph, tmp_path / "n.onnx", 1)


@pytest.mark.parametrize("bias", ["", " b"])
@pytest.mark.parametrize("name", ["FastGelu", "BiasGelu"])
def test_gelu_with_and_without_a_bias(tmp_path, name, bias):
    graph = Fused().tokens("t").weight("b", 8)
    scores_of(graph.own(name if bias else "FastGelu", f"t{bias}", "g").scored("g"), tmp_path / "n.onnx")


@pytest.mark.parametrize("rms", [False, True])
def test_sums_with_their_normalisation(tmp_path, rms):
    graph = Fused().tokens("t").tokens("u").weight("g", 8).weight("s", 8).weight("b", 8)
    name, weights = ("SkipSimplifiedLayerNormalization", "g b") if rms else ("SkipLayerNormalization", "g s b")
    outputs = ["k", "", "", "sum"]
    graph.nodes.append(helper.make_node(name, ["t", "u", *weights.split()], outputs, domain=MS, epsilon=1e-5))
    net = scores_of(graph.add("Add", "k sum", "a").scored("a"), tmp_path / "n.onnx")
    assert ("rmsnorm" if rms else "layernorm") in [node.kind for node in net.nodes]


def attention(graph, how):
    """Two heads of four numbers, in the form `how`, as "a"."""
    graph.tokens("t").weight("w", 8, 24).weight("b", 24)
    if how == "one":
        return graph.own("Attention", "t w b", "a", num_heads=2)
    if how == "causal":
        return graph.own("Attention", "t w b", "a", num_heads=2, unidirectional=1, scale=0.7)
    if how == "positions":
        return graph.weight("p", 1, 2, 16, 16).own("Attention", "t w b   p", "a", num_heads=2)
    for k, name in enumerate("qkv"):
        graph.constant(f"w{name}", graph.weights["w"][:, 8 * k : 8 * k + 8])
        graph.constant(f"b{name}", graph.weights["b"][8 * k : 8 * k + 8])
        graph.add("MatMul", f"t w{name}", f"{name}m")
        if how != "heads":
            graph.add("Add", f"{name}m b{name}", name)
    if how == "plain":
        scale = np.float32(0.5)
        graph.constant("shape", [0, 0, 2, 4], np.int64).constant("back", [0, 0, 8], np.int64).constant("scale", scale)
        for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            graph.add("Reshape", f"{name} shape", f"{name}r").add("Transpose", f"{name}r", f"{name}h", perm=order)
        graph.add("MatMul", "qh kh", "l").add("Mul", "l scale", "ls").add("Softmax", "ls", "s", axis=-1)
        graph.add("MatMul", "s vh", "o").add("Transpose", "o", "ot", perm=[0, 2, 1, 3])
        return graph.add("Reshape", "ot back", "a")
    if how == "many":
        return graph.own("MultiHeadAttention", "q k v", "a", num_heads=2)
    return graph.own("MultiHeadAttention", "qm km vm b", "a", num_heads=2)


@pytest.mark.parametrize("how", ["one", "causal", "positions", "many", "heads"])
def test_attention_in_one_node(tmp_path, how):
    graph = attention(Fused(), how).add("Add", "a t", "r").scored("r")
    # onnxruntime reads empty names only where they are written out.
    for each in graph.nodes:
        if how == "positions" and each.op_type == "Attention":
            each.input[:] = ["t", "w", "b", "", "", "p"]
    scores_of(graph, tmp_path / "n.onnx")


@pytest.mark.parametrize("how", ["one", "many", "heads"])
@pytest.mark.parametrize("rules", ["attention", "attnlrp"])
def test_attention_in_one_node_has_the_map_of_attention_in_many(tmp_path, how, rules):
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    maps = []
    for k, form in enumerate((how, "plain")):
        graph = attention(Fused(), form).add("Add", "a t", "r").scored("r")
        net = scores_of(graph, tmp_path / f"{k}.onnx")
        explanation = net.explain(image, 1, rules=rules, dtype="float64")
        assert explanation.ledger.closes(1e-9)
        maps.append(explanation.heatmap)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5, atol=1e-6 * np.abs(maps[1]).max())


def test_keys_and_values_may_come_split_into_heads(tmp_path):
    """As onnxruntime writes attention across two sources: queries (n, 16, 8), keys and values (n, 2, 16, 4)."""
    graph = Fused().tokens("t").constant("heads", [0, 0, 2, 4], np.int64)
    for name in "kv":
        graph.weight(f"w{name}", 8, 8).add("MatMul", f"t w{name}", f"{name}m").add(
            "Reshape", f"{name}m heads", f"{name}r"
        )
        graph.add("Transpose", f"{name}r", name, perm=[0, 2, 1, 3])
    net = scores_of(graph.own("MultiHeadAttention", "t k v", "a", num_heads=2).scored("a"), tmp_path / "n.onnx")
    assert [node.kind for node in net.nodes].count("matmul") == 2


REFUSED = {
    "queries and keys in one": ("MultiHeadAttention", "t", "queries, keys and values in one tensor.*expected three"),
    "a layout of one machine": ("nchwc.Conv", "x w", "laid out for one processor.*ORT_ENABLE_EXTENDED.*before"),
    "a mask of tokens": ("MultiHeadAttention", "t t t  m", "key_padding_mask"),
    "an unknown activation": ("FusedConv", "x w", "'Elu' is not supported.*Relu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_for_unsupported_features_suggest_a_way_out(tmp_path, case):
    name, inputs, message = REFUSED[case]
    graph = Fused().weight("w", 4, 3, 3, 3).tokens("t").constant("m", np.ones((1, 16)), np.int32)
    domain, _, operator = f"{MS}.{name}".rpartition(".")
    node = helper.make_node(operator, inputs.split(" "), ["y"], domain=domain)
    if operator == "MultiHeadAttention":
        node.attribute.append(helper.make_attribute("num_heads", 2))
    if operator == "FusedConv":
        node.attribute.append(helper.make_attribute("activation", "Elu"))
    graph.nodes.append(node)
    graph.save(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match=message):
        Network.from_onnx(tmp_path / "n.onnx")
