"""Patterns of exporters that are rewritten: the layers that come of them, and the numbers of onnxruntime."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from test_importers import Graph, check, kinds  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*does not say how photographs")


def test_channels_that_are_normalised_one_by_one_are_the_normalisation_of_the_input(tmp_path):
    """As torchvision's Inception and GoogLeNet do (transform_input)."""
    graph = Graph().constant("one", [1], np.int64)
    scales, shifts = np.float32([0.458, 0.448, 0.45]), np.float32([-0.03, -0.088, -0.188])
    for k in range(3):
        graph.constant(f"i{k}", k, np.int64).constant(f"s{k}", scales[k]).constant(f"t{k}", shifts[k])
        graph.add("Gather", f"x i{k}", f"g{k}", axis=1).add("Unsqueeze", f"g{k} one", f"u{k}")
        graph.add("Mul", f"u{k} s{k}", f"m{k}").add("Add", f"m{k} t{k}", f"a{k}")
    graph.add("Concat", "a0 a1 a2", "all", axis=1).conv("all", "c", 3, 4, pads=[1, 1, 1, 1]).pooled("c")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net)[:2] == ["affine", "conv"] and net.nodes[1].inputs == (0,)
    np.testing.assert_array_equal(net.nodes[0].layer.scale, scales)
    np.testing.assert_array_equal(net.nodes[0].layer.shift, shifts)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1, 1)])
def test_channels_in_another_order_are_not_taken_for_that(tmp_path, order):
    graph = Graph().constant("one", [1], np.int64).constant("s", 0.5)
    for place, k in enumerate(order):
        graph.constant(f"i{place}", k, np.int64).add("Gather", f"x i{place}", f"g{place}", axis=1)
        graph.add("Unsqueeze", f"g{place} one", f"u{place}").add("Mul", f"u{place} s", f"a{place}")
    graph.add("Concat", "a0 a1 a2", "all", axis=1).conv("all", "c", 3, 4, pads=[1, 1, 1, 1]).pooled("c")
    assert "concat" in kinds(check(graph.save(tmp_path / "n.onnx")))


def heads(graph, factor_of):
    """Attention of two heads over 16 tokens, the factor 0.5 on queries or keys (or 0.25 on both), as "a"."""
    graph.conv("x", "c", 3, 8, 4, strides=[4, 4]).constant("flat", [0, 8, -1], np.int64).add("Reshape", "c flat", "t8")
    graph.add("Transpose", "t8", "t", perm=[0, 2, 1]).constant("half", 0.5).constant("split", [0, 0, 2, 4], np.int64)
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        graph.weight(f"w{name}", 8, 8).add("MatMul", f"t w{name}", f"{name}0").add("Relu", f"{name}0", f"{name}1")
        last = f"{name}1"
        if name in factor_of:
            graph.add("Mul", f"{last} half", f"{name}s")
            last = f"{name}s"
        graph.add("Reshape", f"{last} split", f"{name}r").add("Transpose", f"{name}r", f"{name}h", perm=order)
    graph.add("MatMul", "qh kh", "l").add("Softmax", "l", "s", axis=-1).add("MatMul", "s vh", "o")
    graph.add("Transpose", "o", "ot", perm=[0, 2, 1, 3]).constant("join", [0, 0, 8], np.int64).add(
        "Reshape", "ot join", "a"
    )
    return graph.add("ReduceMean", "a", "y", axes=[1], keepdims=0)


@pytest.mark.parametrize("factor_of", ["q", "k", "qk"])
def test_a_factor_of_queries_or_keys_goes_into_their_product(tmp_path, factor_of):
    net = check(heads(Graph(), factor_of).save(tmp_path / "n.onnx"))
    assert "scale" not in kinds(net)
    first = next(node.layer for node in net.nodes if node.kind == "matmul")
    assert first.scale == 0.5 ** len(factor_of)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("gate", ["HardSigmoid", "Sigmoid", "Relu"])
def test_one_number_for_each_channel_is_the_gate_of_its_maps(tmp_path, gate, turned):
    """Squeeze and excitation: the gate is known by its shape, whatever makes it and whichever factor it is."""
    graph = Graph().conv("x", "c", 3, 6).add("Relu", "c", "r").add("GlobalAveragePool", "r", "g")
    graph.conv("g", "e", 6, 6, 1).add(gate, "e", "s").add("Mul", "s r" if turned else "r s", "m").pooled("m")
    net = check(graph.save(tmp_path / "n.onnx"))
    (product,) = (node for node in net.nodes if node.kind == "product")
    assert product.layer.gate == int(not turned)


@pytest.mark.parametrize("reader", ["rows", "output"])
def test_a_transposition_is_saved_though_others_read_what_lies_between(tmp_path, reader):
    """Channels last between two convolutions; what else reads them gets its own order back."""
    graph = Graph(("n", 3, 8, 8)).conv("x", "c", 3, 4, pads=[1, 1, 1, 1]).add("Transpose", "c", "t", perm=[0, 2, 3, 1])
    graph.constant("k", [0.5, 1, -1, 2]).add("Mul", "t k", "m").add("Relu", "m", "r")
    if reader == "output":
        graph.add("Flatten", "r", "y")
    else:
        graph.add("Transpose", "r", "b", perm=[0, 3, 1, 2]).conv("b", "d", 4, 5).add("GlobalAveragePool", "d", "g")
        graph.add("Flatten", "g", "f").add("Flatten", "r", "rows").weight("w", 256, 5).add("MatMul", "rows w", "p")
        graph.add("Add", "f p", "y")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net).count("transpose") <= 1


def test_a_maximum_over_moved_axes_is_one_over_the_axes_before(tmp_path):
    graph = Graph(("n", 3, 8, 8)).conv("x", "c", 3, 4).add("Softmax", "c", "s", axis=2)
    graph.add("Transpose", "s", "t", perm=[0, 2, 3, 1]).add("ReduceMax", "t", "y", axes=[1, 2], keepdims=0)
    net = check(graph.save(tmp_path / "n.onnx"))
    assert "transpose" not in kinds(net) and net.nodes[-1].layer.axes == (2, 3)


def test_a_maximum_that_leaves_axes_in_another_order_keeps_its_transposition(tmp_path):
    graph = Graph(("n", 3, 8, 8)).conv("x", "c", 3, 4).add("Softmax", "c", "s", axis=2)
    graph.add("Transpose", "s", "t", perm=[0, 3, 2, 1]).add("ReduceMax", "t", "m", axes=[2], keepdims=0)
    assert "transpose" in kinds(check(graph.add("Flatten", "m", "y").save(tmp_path / "n.onnx")))


def test_factors_along_two_axes_stay_two_layers(tmp_path):
    """A normalisation of channels and a shift of columns: no one affine layer has both."""
    graph = Graph(("n", 3, 8, 8)).conv("x", "c", 3, 4, pads=[1, 1, 1, 1]).add("Relu", "c", "r").batchnorm("r", "b", 4)
    graph.weight("row", 8).add("Add", "b row", "a").add("Relu", "a", "s").pooled("s")
    found = kinds(check(graph.save(tmp_path / "n.onnx")))
    assert "affine" in found and len(found) == 7


TWICE = {
    "scaled twice": ("Mul", "w8", "Mul", "v8"),
    "shifted, then scaled": ("Add", "w8", "Mul", "v8"),
    "shifted twice": ("Add", "w8", "Add", "v8"),
    "scaled by rows": ("Mul", "w81", "Add", "v8"),
}


@pytest.mark.parametrize("name", TWICE)
def test_only_the_first_scale_and_shift_after_a_normalisation_are_its_own(tmp_path, name):
    first, a, second, b = TWICE[name]
    graph = Graph(("n", 3, 8, 8)).conv("x", "c", 3, 4, pads=[1, 1, 1, 1]).weight("s", 8).weight("z", 8)
    graph.weight("w8", 8).weight("v8", 8).weight("w81", 8, 1)
    graph.add("LayerNormalization", "c s z", "n", axis=-1)
    graph.add(first, f"n {a}", "p").add(second, f"p {b}", "q").add("Relu", "q", "r").pooled("r")
    graph.opset = 17
    found = kinds(check(graph.save(tmp_path / "n.onnx")))
    assert "layernorm" in found and found.index("relu") > found.index("layernorm") + 1


def test_names_of_paths_leave_their_common_part_to_the_layer_of_them_all(tmp_path):
    """A normalisation written out in steps takes the name of the module that its nodes share."""
    graph = Graph(("n", 3, 8, 8)).conv("x", "c", 3, 4, pads=[1, 1, 1, 1]).constant("two", 2.0).constant("eps", 1e-5)
    graph.add("ReduceMean", "c", "m", axes=[-1]).add("Sub", "c m", "d").add("Pow", "d two", "p")
    graph.add("ReduceMean", "p", "v", axes=[-1]).add("Add", "v eps", "e").add("Sqrt", "e", "q").add("Div", "d q", "n")
    for i, each in enumerate(graph.nodes[1:]):
        each.name = f"/blocks/norm1/step{i}/{each.op_type}" if i else "/blocks/norm1/mean/ReduceMean"
    net = check(graph.add("Relu", "n", "r").pooled("r").save(tmp_path / "n.onnx"))
    assert net.nodes[1].kind == "layernorm" and net.nodes[1].name == "blocks/norm1"
