"""Inputs and outputs of ONNX files: their sizes, which output is explained, and what the account of a file says."""

import numpy as np
import pytest

from fvlrp import ConvNet

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402
from test_importers import Graph, check, kinds, session  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT
pytestmark = pytest.mark.filterwarnings("ignore:.*does not say how photographs")
FREE = ("n", 3, "h", "w")


def with_values(graph, path, inputs=(), outputs=()):
    """Save a graph with more inputs and outputs, each (name, shape)."""
    model = graph.model()
    model.graph.input.extend(helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs)
    model.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs)
    onnx.save(model, path)
    return path


def row(graph, source):
    return graph.add("GlobalAveragePool", source, "gap").add("Flatten", "gap", "f")


def two_heads():
    """Scores "y" (n, 5) and "z" (n, 4) of the same maps."""
    graph = row(Graph().conv("x", "c", 3, 4), "c").weight("a", 4, 5).weight("b", 4, 4)
    return graph.add("MatMul", "f a", "y").add("MatMul", "f b", "z")


def test_a_second_input_is_refused_by_name(tmp_path):
    graph = Graph().conv("x", "c", 3, 4).add("Mul", "c mask", "d").pooled("d")
    path = with_values(graph, tmp_path / "n.onnx", inputs=[("mask", [1, 1, 1, 1])])
    with pytest.raises(ValueError, match="must have one input, a photograph; it has 'x', 'mask': export"):
        ConvNet.from_onnx(path)


def test_an_input_of_five_axes_is_refused_with_its_shape(tmp_path):
    graph = Graph(("n", 3, 2, 16, 16)).add("GlobalAveragePool", "x", "g").add("Flatten", "g", "y")
    with pytest.raises(ValueError, match=r"'x' must be \(batch, channels, height, width\), it is .*3, 2, 16, 16"):
        ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))


@pytest.mark.parametrize("operator", ["Relu", "Identity"])
def test_channels_that_no_convolution_states_are_asked_for(tmp_path, operator):
    graph = Graph(("n", "c", "h", "w")).constant("k", 2.0).add("Sqrt", "k", "s")
    graph.add(operator, "x", "r").add("Mul", "r s", "m").pooled("m")
    with pytest.raises(ValueError, match=r"'x' must be \(batch, channels, height, width\)"):
        ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))


def largest(scores="y"):
    """Scores of five classes and the three largest of them."""
    graph = row(Graph().conv("x", "c", 3, 4), "c").weight("a", 4, 5).add("MatMul", "f a", scores)
    graph.constant("k", [3], np.int64).nodes.append(helper.make_node("TopK", [scores, "k"], ["top", "place"]))
    return graph


def test_an_output_that_cannot_be_read_does_not_matter_beside_one_that_can(tmp_path):
    path = with_values(largest(), tmp_path / "n.onnx", outputs=[("top", [1, 3])])
    assert len(check(path).classes_) == 5


def test_scores_inside_the_graph_are_explained_where_the_output_is_a_selection(tmp_path):
    path = largest("inner").add("Identity", "top", "y").save(tmp_path / "n.onnx")
    with pytest.raises(
        ValueError, match=r"selections .* are not supported; give the scores before it as .*, 'inner'; it"
    ):
        ConvNet.from_onnx(path)
    net = ConvNet.from_onnx(path, output="inner")
    assert len(net.classes_) == 5
    assert net.account.notes == ["explains output 'inner', not 'y'"]


@pytest.mark.parametrize(("output", "classes"), [("y", 5), ("z", 4)])
def test_the_output_that_is_named_holds_the_scores(tmp_path, output, classes):
    path = with_values(two_heads(), tmp_path / "n.onnx", outputs=[("z", None)])
    net = ConvNet.from_onnx(path, output=output)
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    assert net.forward(x).shape == (2, classes)
    np.testing.assert_allclose(net.forward(x), session(str(path)).run([output], {"x": x})[0], rtol=1e-4, atol=1e-5)
    assert f"explains output '{output}', not '{'yz'.replace(output, '')}'" in net.account.notes


def test_the_scores_among_several_outputs_must_be_named(tmp_path):
    path = with_values(two_heads(), tmp_path / "n.onnx", outputs=[("z", None)])
    with pytest.raises(ValueError, match="several outputs could hold the scores, 'y', 'z': give the name of one"):
        ConvNet.from_onnx(path)
    with pytest.raises(ValueError, match="output must be one of 'y', 'z', got 'w'"):
        ConvNet.from_onnx(path, output="w")


def test_the_number_of_classes_tells_scores_from_other_outputs(tmp_path):
    path = with_values(two_heads(), tmp_path / "n.onnx", outputs=[("z", None)])
    assert ConvNet.from_onnx(path, classes=["a", "b", "c", "d"]).account.notes == ["explains output 'z', not 'y'"]


def test_a_file_that_computes_nothing_is_refused(tmp_path):
    path = Graph(("n", 3, 1, 1)).add("Identity", "x", "y").save(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match="output 'y' is the input itself"):
        ConvNet.from_onnx(path)


def test_the_logarithm_of_a_softmax_explains_the_scores_before_it(tmp_path):
    graph = row(Graph().conv("x", "c", 3, 4), "c").weight("w", 4, 5).add("MatMul", "f w", "scores")
    path = with_values(graph.add("LogSoftmax", "scores", "y"), tmp_path / "n.onnx")
    net = ConvNet.from_onnx(path)
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    found, expected = net.forward(x), session(str(path)).run(None, {"x": x})[0]
    assert net.nodes[-1].kind == "dense"
    shifted = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(shifted, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_probability_of_one_of_two_classes_is_explained_as_a_difference_of_scores(tmp_path, place, rank):
    graph = row(Graph().conv("x", "c", 3, 4), "c").weight("a", 4, 2).add("MatMul", "f a", "z").add("Softmax", "z", "p")
    graph.constant("place", [place] if rank else place, np.int64).add("Gather", "p place", "y", axis=1)
    path = graph.save(tmp_path / "n.onnx")
    net = ConvNet.from_onnx(path)
    x = np.random.default_rng(1).uniform(-1, 1, (3, 3, 16, 16)).astype(np.float32)
    found = 1 / (1 + np.exp(-net.forward(x)[:, 0]))
    np.testing.assert_allclose(found, session(str(path)).run(None, {"x": x})[0].reshape(3), rtol=1e-5)
    assert net.binary and "softmax" not in kinds(net)
    assert any("difference of the scores" in why for _, why in net.account.dropped)


def test_attention_of_a_file_for_four_images_is_read_for_one(tmp_path):
    """Class tokens and positions are stored for each image, and images joined with heads, as by torch's module."""
    graph = Graph((4, 3, 16, 16)).conv("x", "c", 3, 8, kernel=4, strides=[4, 4])
    graph.constant("flat", [4, 8, 16], np.int64).add("Reshape", "c flat", "r").add(
        "Transpose", "r", "p", perm=[0, 2, 1]
    )
    random = np.random.default_rng(2)
    for name, count in (("cls", 1), ("pos", 17)):
        graph.constant(name, np.tile(random.standard_normal((1, count, 8)), (4, 1, 1)))
    graph.add("Concat", "cls p", "t", axis=1).add("Add", "t pos", "u").add("Transpose", "u", "s", perm=[1, 0, 2])
    graph.constant("heads", [17, 8, 4], np.int64).constant("apart", [4, 2, 17, 4], np.int64)
    for name in "qkv":
        graph.weight(f"w{name}", 8, 8).add("MatMul", f"s w{name}", f"{name}0").add(
            "Reshape", f"{name}0 heads", f"{name}1"
        )
        graph.add("Transpose", f"{name}1", f"{name}2", perm=[1, 0, 2]).add("Reshape", f"{name}2 apart", name)
    graph.add("Transpose", "k", "kt", perm=[0, 1, 3, 2]).add("MatMul", "q kt", "l").add("Softmax", "l", "a", axis=-1)
    graph.add("MatMul", "a v", "o").add("Transpose", "o", "j", perm=[2, 0, 1, 3])
    graph.constant("rows", [68, 8], np.int64).constant("again", [17, 4, 8], np.int64)
    graph.add("Reshape", "j rows", "m").weight("wo", 8, 8).add("MatMul", "m wo", "n").add("Reshape", "n again", "b")
    graph.constant("first", 0, np.int64).add("Gather", "b first", "g", axis=0).weight("h", 8, 5).add(
        "MatMul", "g h", "y"
    )
    check(graph.save(tmp_path / "n.onnx"), n=4)


def test_a_reshape_that_mixes_the_images_of_a_file_is_refused(tmp_path):
    graph = Graph((4, 3, 16, 16)).conv("x", "c", 3, 6, kernel=4, strides=[4, 4])
    graph.constant("s", [6, 64], np.int64).add("Reshape", "c s", "r").add("ReduceMax", "r", "m", axes=[1])
    graph.constant("e", [1, 6], np.int64).add("Reshape", "m e", "y")
    with pytest.raises(
        ValueError, match="it mixes the 4 images that the file is for; export the network for one image"
    ):
        ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))


def test_a_file_for_batches_of_four_is_read_for_one_image(tmp_path):
    graph = Graph((4, 3, 16, 16)).conv("x", "c", 3, 6, pads=[1, 1, 1, 1])
    graph.constant("s", [4, 6, 256], np.int64).add("Reshape", "c s", "r").add("ReduceMax", "r", "m", axes=[2])
    graph.constant("e", [4, 6, 2], np.int64).add("Expand", "m e", "d").add("Flatten", "d", "y")
    path = graph.save(tmp_path / "n.onnx")
    net = ConvNet.from_onnx(path)
    assert "the file is for batches of 4 images; read for one" in net.account.notes
    x = np.random.default_rng(1).uniform(-1, 1, (4, 3, 16, 16)).astype(np.float32)
    expected = session(str(path)).run(None, {"x": x})[0]
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.forward(x[2:3]), expected[2:3], rtol=1e-4, atol=1e-5)


def test_channels_may_come_last(tmp_path):
    """As Keras has them: transposed, computed with channels first, and transposed back."""
    graph = Graph(("n", 12, 14, 3)).add("Transpose", "x", "t", perm=[0, 3, 1, 2]).conv("t", "c", 3, 6)
    graph.add("Transpose", "c", "b", perm=[0, 2, 3, 1]).constant("k", np.linspace(0.5, 2, 6)).add("Mul", "b k", "m")
    graph.add("Relu", "m", "r").add("Transpose", "r", "u", perm=[0, 3, 1, 2]).conv("u", "d", 6, 5)
    graph.add("Transpose", "d", "v", perm=[0, 2, 3, 1]).add("ReduceMean", "v", "y", axes=[1, 2], keepdims=0)
    path = graph.save(tmp_path / "n.onnx")
    net = ConvNet.from_onnx(path)
    assert net.input_shape == (3, 12, 14) and "transpose" not in kinds(net)
    assert net.account.notes == ["the file's input is (batch, height, width, channels)"]
    x = np.random.default_rng(1).uniform(-1, 1, (2, 12, 14, 3)).astype(np.float32)
    expected = session(str(path)).run(None, {"x": x})[0]
    np.testing.assert_allclose(net.forward(x.transpose(0, 3, 1, 2)), expected, rtol=1e-4, atol=1e-5)


def test_a_reshape_of_tokens_leaves_the_size_free(tmp_path):
    """Its length was computed for one size; for another, it is another, and the layers are the same."""
    graph = Graph(FREE).conv("x", "c", 3, 6, pads=[1, 1, 1, 1]).constant("s", [0, 6, -1], np.int64)
    graph.add("Reshape", "c s", "r").constant("k", np.linspace(0.5, 2, 6).reshape(6, 1)).add("Mul", "r k", "m")
    graph.add("Softmax", "m", "a", axis=2).add("Mul", "a r", "p").add("ReduceSum", "p", "y", keepdims=0)
    graph.constant("axes", [2], np.int64)
    graph.nodes[-1].input.append("axes")
    path = graph.save(tmp_path / "n.onnx")
    assert check(path, size=20).input_shape == (3, None, None)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 9, 30)).astype(np.float32)
    expected = session(str(path)).run(None, {"x": x})[0]
    np.testing.assert_allclose(ConvNet.from_onnx(path).forward(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["dense", "positions", "pooled"])
def test_layers_that_depend_on_the_size_fix_it(tmp_path, how):
    """A dense layer of all values, a constant for each pixel, a window as large as the map: all for 224 x 224."""
    graph = Graph(FREE)
    if how == "dense":
        graph.conv("x", "c", 3, 1, kernel=16, strides=[16, 16]).add("Flatten", "c", "f")
        graph.weight("w", 196, 5).add("MatMul", "f w", "y")
    if how == "positions":
        graph.conv("x", "c", 3, 2, kernel=16, strides=[16, 16]).weight("p", 1, 2, 14, 14).add("Add", "c p", "a")
        graph.add("Relu", "a", "r").pooled("r")
    if how == "pooled":
        graph.conv("x", "c", 3, 2, kernel=16, strides=[16, 16]).add("Shape", "c", "s").constant("i", [2, 3], np.int64)
        graph.add("Gather", "s i", "hw").add("Cast", "hw", "real", to=1).add("ReduceProd", "real", "count", keepdims=0)
        graph.add("ReduceSum", "c", "sum", keepdims=0).constant("axes", [2, 3], np.int64)
        graph.nodes[-1].input.append("axes")
        graph.add("Div", "sum count", "y")
    path = graph.save(tmp_path / "n.onnx")
    net = check(path, size=224)
    assert net.input_shape == (3, 224, 224)
    assert net.account.notes == ["the input is fixed at 224 x 224 pixels: layers depend on its size"]


def test_a_size_that_the_network_does_not_take_says_which_was_tried(tmp_path):
    graph = Graph(FREE).conv("x", "c", 3, 1).add("Flatten", "c", "f").weight("w", 100, 5).add("MatMul", "f w", "y")
    with pytest.raises(ValueError, match=r"it was read for 224 x 224 pixels: .*preprocess=fvlrp\.Preprocess"):
        ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))


@pytest.mark.parametrize("taken", [True, False])
def test_a_condition_that_is_constant_leaves_its_branch(tmp_path, taken):
    """As exporters of PyTorch write `squeeze`; the branch that is not taken has an operator that is not supported."""
    value = helper.make_tensor_value_info
    good = helper.make_graph([helper.make_node("Relu", ["c"], ["g"])], "good", [], [value("g", FLOAT, None)])
    bad = helper.make_graph([helper.make_node("Det", ["c"], ["b"])], "bad", [], [value("b", FLOAT, None)])
    graph = Graph().conv("x", "c", 3, 4).constant("which", taken, bool)
    branches = {"then_branch": good if taken else bad, "else_branch": bad if taken else good}
    graph.add("If", "which", "i", **branches).pooled("i")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net)[:2] == ["conv", "relu"]
    assert any(f"the {'then' if taken else 'else'} branch, by a constant" in why for _, why in net.account.dropped)


def test_a_branch_may_be_a_constant(tmp_path):
    value = helper.make_tensor_value_info
    numbers = helper.make_tensor("n", FLOAT, [1, 4, 1, 1], [0.5, 1.0, -1.0, 2.0])
    inner = [helper.make_node("Constant", [], ["k"], value=numbers)]
    branch = helper.make_graph(inner, "constant", [], [value("k", FLOAT, None)])
    graph = Graph().conv("x", "c", 3, 4).constant("which", True, bool)
    graph.add("If", "which", "i", then_branch=branch, else_branch=branch).add("Mul", "c i", "m").pooled("m")
    check(graph.save(tmp_path / "n.onnx"))


@pytest.mark.parametrize("size", [1, 16], ids=["channels", "photograph"])
@pytest.mark.parametrize("steps", ["Sub", "Sub Div", "Mul Sub"])
def test_a_mean_subtracted_in_the_graph_is_no_evidence(tmp_path, steps, size):
    """As in networks of Caffe's time: the mean alone took all relevance, .52 of a score of .51."""
    graph, source = Graph(), "x"
    graph.constant("c0", np.linspace(0.4, 0.5, 3 * size * size).reshape(3, size, size))
    graph.constant("c1", np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1))
    for k, step in enumerate(steps.split()):
        graph.add(step, f"{source} {'c0' if step == 'Sub' else 'c1'}", f"s{k}")
        source = f"s{k}"
    net = ConvNet.from_onnx(graph.conv(source, "c", 3, 4).pooled("c").save(tmp_path / "n.onnx"))
    assert size > 1 or net.nodes[0].kind == "affine"
    ledger = net.explain(np.zeros((16, 16, 3), np.uint8) + 90, 1, rules="epsilon:0", dtype="float64").ledger
    assert "constants" not in str(ledger) and ledger.closes(1e-9)
