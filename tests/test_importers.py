"""ONNX graphs in: the same scores as onnxruntime, constants folded, and a clear word about what is not supported."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fvlrp
from fvlrp import ConvNet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
IR_VERSION = 8  # what every onnxruntime since 1.14 reads


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), [output], **attributes)


class Graph:
    """A graph under construction, with weights drawn from a seed: fan-in scaled, variances positive."""

    def __init__(self, shape=("n", 3, 16, 16), opset=13):
        self.shape, self.opset, self.nodes, self.weights = shape, opset, [], {}
        self.random = np.random.default_rng(0)

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(node(operator, inputs, output, **attributes))
        return self

    def weight(self, name, *shape):
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 25
        self.weights[name] = (self.random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        return self

    def constant(self, name, value, dtype=np.float32):
        self.weights[name] = np.asarray(value, dtype)
        return self

    def conv(self, source, output, n_in, n_out, kernel=3, bias=True, groups=1, **attributes):
        self.weight(f"{output}.w", n_out, n_in // groups, kernel, kernel)
        names = f"{source} {output}.w"
        if bias:
            self.weight(f"{output}.b", n_out)
            names += f" {output}.b"
        return self.add("Conv", names, output, group=groups, **attributes)

    def batchnorm(self, source, output, channels):
        for part in ("scale", "shift", "mean"):
            self.weight(f"{output}.{part}", channels)
        self.constant(f"{output}.var", self.random.uniform(0.5, 2, channels))
        return self.add(
            "BatchNormalization", f"{source} {output}.scale {output}.shift {output}.mean {output}.var", output
        )

    def pooled(self, source):
        return self.add("GlobalAveragePool", source, "gap").add("Flatten", "gap", "y")

    def model(self):
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [value("x", onnx.TensorProto.FLOAT, self.shape)],
            [value("y", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weight, name) for name, weight in self.weights.items()],
        )
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)

    def save(self, path, **options):
        onnx.save(self.model(), path, **options)
        return path


def session(source):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def check(path, n=2, size=None, rtol=1e-4):
    """The network of `path`, after its scores of a random batch were found to be onnxruntime's."""
    net = ConvNet.from_onnx(path)
    shape = [own or (size or 224) for own in net.input_shape]
    x = np.random.default_rng(1).uniform(-1, 1, (n, *shape)).astype(np.float32)
    run = session(str(path))
    expected = run.run(None, {run.get_inputs()[0].name: x})[0].reshape(n, -1)
    scores = net.forward(x)
    assert np.abs(expected).max() > 1e-3, "the test's own network is dead"
    assert np.abs(scores - expected).max() <= rtol * np.abs(expected).max()
    np.testing.assert_allclose(net.activations(x)[-1], scores, rtol=1e-4, atol=1e-5 * np.abs(scores).max())
    return net


def kinds(net):
    return [layer.kind for layer in net.nodes]


# ---- whole architectures ---------------------------------------------------------------------------------------------


def filled(name, path):
    """Write a weightless model of the onnx package with weights from a seed, and without its softmax.

    Hidden dense layers of 4096 units get 256: the same operators, and VGG19 has 107 MB instead of 570 MB.
    """
    graph, random = onnx.load(LIGHT / f"light_{name}.onnx").graph, np.random.default_rng(0)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [layer for layer in graph.node if layer.op_type not in ("ConstantOfShape", "Softmax")]
    roles = {source: (layer.op_type, i) for layer in layers for i, source in enumerate(layer.input)}
    normal = random.standard_normal(1_000_003, np.float32)  # repeated: drawing 26 million numbers takes longer
    weights = {name: known[name] for name in roles if name in known}
    for maker in graph.node:
        if maker.op_type != "ConstantOfShape":
            continue
        shape, role = known[maker.input[0]], roles[maker.output[0]]
        if role[0] == "Gemm":
            shape = np.where(shape == 4096, 256, shape)
        if len(shape) > 1:
            value = np.resize(normal, shape) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif role in [("BatchNormalization", 2), ("BatchNormalization", 3), ("Conv", 2), ("Gemm", 2)]:
            value = np.resize(normal, shape) * np.float32(0.1)
        else:
            value = random.uniform(0.5, 1.5, shape).astype(np.float32)
        weights[maker.output[0]] = value
    photograph = [value for value in graph.input if value.name not in known and value.name in roles]
    scores = helper.make_tensor_value_info(layers[-1].output[0], onnx.TensorProto.FLOAT, None)
    initialisers = [numpy_helper.from_array(weight, name) for name, weight in weights.items()]
    whole = helper.make_graph(layers, name, photograph, [scores], initialisers)
    onnx.save(helper.make_model(whole, opset_imports=[helper.make_opsetid("", 9)], ir_version=IR_VERSION), path)
    return path


@pytest.mark.parametrize(
    "name",
    ["bvlc_alexnet", "vgg19", "squeezenet", "resnet50", "inception_v1", "inception_v2", "densenet121", "shufflenet"],
)
def test_reference_architectures_score_as_in_onnxruntime(tmp_path, name):
    if not (LIGHT / f"light_{name}.onnx").exists():
        pytest.skip("this onnx package comes without the weightless reference models")
    net = check(filled(name, tmp_path / "net.onnx"), n=1)
    assert "affine" not in kinds(net) or name == "densenet121"
    assert net.input_shape == (3, 224, 224)


@pytest.mark.parametrize("name", ["squeezenet_v1.1", "tiny_darknet"])
def test_trained_networks_score_as_in_onnxruntime(name):
    if not os.environ.get("FVLRP_DATA"):
        pytest.skip("set FVLRP_DATA to the folder with cnn/*.onnx")
    check(Path(os.environ["FVLRP_DATA"]) / f"cnn/{name}.onnx")


@pytest.mark.parametrize("opset", [7, 13, 18])
def test_caffenet_scores_as_in_onnxruntime(tmp_path, opset):
    graph = Graph((1, 3, 227, 227), opset)
    ceil = {"kernel_shape": [3, 3], "strides": [2, 2], **({"ceil_mode": 1} if opset >= 10 else {"pads": [0, 0, 1, 1]})}
    lrn = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    graph.conv("x", "conv1", 3, 96, 11, strides=[4, 4]).add("Relu", "conv1", "relu1")
    graph.add("MaxPool", "relu1", "pool1", **ceil).add("LRN", "pool1", "norm1", **lrn)
    graph.conv("norm1", "conv2", 96, 256, 5, groups=2, pads=[2] * 4).add("Relu", "conv2", "relu2")
    graph.add("MaxPool", "relu2", "pool2", **ceil).add("LRN", "pool2", "norm2", **lrn)
    graph.conv("norm2", "conv3", 256, 384, pads=[1] * 4).add("Relu", "conv3", "relu3")
    graph.conv("relu3", "conv4", 384, 384, groups=2, pads=[1] * 4).add("Relu", "conv4", "relu4")
    graph.conv("relu4", "conv5", 384, 256, groups=2, pads=[1] * 4).add("Relu", "conv5", "relu5")
    graph.add("MaxPool", "relu5", "pool5", **ceil).add("Flatten", "pool5", "flat")
    for name, source, n_in, n_out in [("fc6", "flat", 256 * 6 * 6, 64), ("fc7", "drop6", 64, 32)]:
        graph.weight(f"{name}.w", n_out, n_in).weight(f"{name}.b", n_out)
        graph.add("Gemm", f"{source} {name}.w {name}.b", name, transB=1).add("Relu", name, f"relu{name[2]}")
        graph.add("Dropout", f"relu{name[2]}", f"drop{name[2]}")
    graph.weight("fc8.w", 20, 32).weight("fc8.b", 20).add("Gemm", "drop7 fc8.w fc8.b", "y", transB=1)
    net = check(graph.save(tmp_path / "caffenet.onnx"), n=1)
    assert net.layers[:4] == ["conv1", "relu1", "pool1", "norm1"]


# ---- one construct at a time -----------------------------------------------------------------------------------------


def test_batch_normalisation_goes_into_the_convolution_before_it(tmp_path):
    graph = Graph().conv("x", "c", 3, 8, bias=False).batchnorm("c", "b", 8).add("Relu", "b", "r").pooled("r")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert net.layers[0] == "c" and kinds(net) == ["conv", "relu", "globalaveragepool", "flatten"]


def test_batch_normalisation_goes_into_the_convolution_behind_it(tmp_path):
    graph = Graph().conv("x", "c", 3, 8).add("Relu", "c", "r").batchnorm("r", "b", 8)
    graph.conv("b", "d", 8, 6, groups=2).pooled("d")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net)[:3] == ["conv", "relu", "conv"]


def test_batch_normalisation_before_zero_padding_is_not_folded(tmp_path):
    graph = Graph().conv("x", "c", 3, 8).add("Relu", "c", "r").batchnorm("r", "b", 8)
    graph.conv("b", "d", 8, 6, pads=[1] * 4).pooled("d")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net)[:4] == ["conv", "relu", "affine", "conv"]


def test_batch_normalisation_is_not_folded_when_its_convolution_has_another_reader(tmp_path):
    graph = Graph().conv("x", "c", 3, 8).batchnorm("c", "b", 8).add("Add", "b c", "s").pooled("s")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net)[:3] == ["conv", "affine", "add"]


def test_batch_normalisation_of_dense_outputs_and_inputs_is_folded(tmp_path):
    graph = Graph().conv("x", "c", 3, 8).add("GlobalAveragePool", "c", "g").add("Flatten", "g", "f")
    graph.batchnorm("f", "b", 8).weight("w", 8, 5).add("MatMul", "b w", "m").weight("v", 5).add("Add", "v m", "s")
    graph.batchnorm("s", "y", 5)
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net) == ["conv", "globalaveragepool", "flatten", "dense"]


def test_trailing_shifts_are_folded_and_input_normalisation_is_kept(tmp_path):
    graph = Graph().constant("mean", [[[[0.1]], [[0.2]], [[-0.3]]]]).constant("std", 0.25).constant("two", [2.0])
    graph.add("Sub", "x mean", "a").add("Div", "a std", "b").conv("b", "c", 3, 4)
    graph.add("Sub", "two c", "d").add("Mul", "d two", "e").pooled("e")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net) == ["affine", "conv", "scale", "globalaveragepool", "flatten"]


@pytest.mark.parametrize("groups", [1, 3])
def test_a_convolution_that_normalises_each_channel_of_the_input_is_its_normalisation(tmp_path, groups):
    graph = Graph().conv("x", "n", 3, 3, kernel=1, groups=groups).conv("n", "c", 3, 4, pads=[1, 1, 1, 1]).pooled("c")
    if groups == 1:
        graph.weights["n.w"] *= np.eye(3, dtype=np.float32)[:, :, None, None]
    assert kinds(check(graph.save(tmp_path / "n.onnx"))) == ["affine", "conv", "globalaveragepool", "flatten"]
    if groups == 1:
        graph.weights["n.w"][0, 1] = 1e-6  # which mixes two channels
        assert kinds(check(graph.save(tmp_path / "n.onnx")))[:2] == ["conv", "conv"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_with_the_name_of_the_file_and_the_layer(tmp_path, bad):
    graph = Graph().conv("x", "c", 3, 4).batchnorm("c", "b", 4).add("Relu", "b", "r").pooled("r")
    graph.weights["c.b"][1] = bad
    with pytest.raises(ValueError, match=r"n\.onnx: layer 'c' \(conv\): its bias holds 1 values that are NaN or inf"):
        ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))
    graph.weights["c.b"][1], graph.weights["b.var"][2] = 0, -1  # whose root is NaN
    named = r"n\.onnx: layer 'c' \(conv\): its (weight|bias) holds "
    with pytest.raises(ValueError, match=named), np.errstate(invalid="ignore"):
        ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))


def test_scores_that_overflow_are_an_error_instead_of_an_explanation_of_nan(tmp_path):
    graph = Graph().conv("x", "c", 3, 4).add("Relu", "c", "r").pooled("r")
    graph.weights["c.w"][:] = 3e38
    net = ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))
    image = np.full((16, 16, 3), 200, np.uint8)
    for verb in (net.explain, net.scores, lambda image: net.decision_function([image])):
        with pytest.raises(ValueError, match="scores of the image are not finite"), np.errstate(all="ignore"):
            verb(image)


def test_scores_that_are_not_finite_name_the_network_and_the_photograph(tmp_path):
    graph = Graph().conv("x", "c", 3, 4).add("Relu", "c", "r").pooled("r")
    graph.weights["c.w"][:] = 3e38
    path, photograph = graph.save(tmp_path / "n.onnx"), tmp_path / "p.png"
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(photograph)
    net = ConvNet.from_onnx(path)
    net.save(tmp_path / "n.fvlrp")
    for own in (net, fvlrp.load(tmp_path / "n.fvlrp")):
        for verb in (
            own.explain,
            own.trace,
            own.scores,
            lambda image, own=own: own.decision_function([image]),
            lambda image, own=own: own.predict([image]),
            lambda image, own=own: own.predict_proba([image]),
            lambda image, own=own: list(own.explain_many([image])),
        ):
            with pytest.raises(ValueError, match="are not finite") as caught, np.errstate(all="ignore"):
                verb(photograph)
            assert own.file in str(caught.value) and str(caught.value).count(str(photograph)) == 1


@pytest.mark.parametrize("classes", [["a", None, "b", "c"], [1, "1", 2, 3], [1.0, np.nan, 2, 3], {"a", "b", "c", "d"}])
def test_classes_are_names_or_numbers_in_an_order(tmp_path, classes):
    path = Graph().conv("x", "c", 3, 4).pooled("c").save(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match="classes must be "):
        ConvNet.from_onnx(path, classes=classes)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_branches_of_one_array_that_are_summed_are_one_convolution(tmp_path, groups, stride):
    """As RepVGG, MobileOne and FastViT are trained: windows of several sizes, and a normalisation beside them."""
    graph = Graph().conv("x", "a", 3, 8).add("Relu", "a", "r")
    for kernel, name in ((3, "c"), (1, "d"), (5, "e")):
        around = [kernel // 2] * 4
        graph.conv("r", name, 8, 8, kernel, bias=False, groups=groups, pads=around, strides=[stride] * 2)
        graph.batchnorm(name, f"{name}n", 8)
    graph.add("Add", "cn dn", "s").add("Add", "en s", "t")
    if stride == 1:
        graph.batchnorm("r", "b", 8).add("Add", "b t", "u")
    graph.add("Relu", "u" if stride == 1 else "t", "v").pooled("v")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net) == ["conv", "relu", "conv", "relu", "globalaveragepool", "flatten"]
    assert net.nodes[2].layer.kernel == (5, 5)


def test_adjacent_windows_become_one_convolution(tmp_path):
    graph = Graph().conv("x", "a", 3, 8).add("Relu", "a", "r")
    graph.conv("r", "c", 8, 8, pads=[2, 0, 0, 1])
    graph.conv("r", "d", 8, 8, kernel=2, pads=[0, 0, 1, 0]).add("Add", "c d", "s").pooled("s")
    assert kinds(check(graph.save(tmp_path / "n.onnx"))).count("conv") == 2


def test_the_array_itself_is_a_branch_in_front_of_a_normalisation_and_else_a_residual(tmp_path):
    graph = Graph().conv("x", "a", 3, 8).add("Relu", "a", "r").conv("r", "c", 8, 8, groups=8, pads=[1] * 4)
    plain = graph.add("Add", "c r", "s").add("Relu", "s", "t").pooled("t")
    assert kinds(check(plain.save(tmp_path / "residual.onnx")))[2:5] == ["conv", "add", "relu"]
    graph.nodes = graph.nodes[:-3]
    graph.batchnorm("s", "n", 8).add("Relu", "n", "t").pooled("t")
    assert kinds(check(graph.save(tmp_path / "branch.onnx")))[2:4] == ["conv", "relu"]


def test_branches_with_other_readers_are_not_merged(tmp_path):
    graph = Graph().conv("x", "a", 3, 8).add("Relu", "a", "r").conv("r", "c", 8, 8, kernel=1)
    graph.conv("r", "d", 8, 8, kernel=1).add("Add", "c d", "s").add("Mul", "s c", "t").pooled("t")
    assert kinds(check(graph.save(tmp_path / "n.onnx"))).count("conv") == 3


def test_residual_sums_of_two_and_three(tmp_path):
    graph = Graph().conv("x", "a", 3, 4, pads=[1] * 4).conv("x", "b", 3, 4, pads=[1] * 4).add("Add", "a b", "s")
    graph.add("Relu", "s", "r").add("Sum", "s r a", "t").add("Add", "t t", "u").pooled("u")
    assert kinds(check(graph.save(tmp_path / "n.onnx")))[2:6] == ["add", "relu", "add", "add"]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size", [15, 16])
def test_automatic_padding(tmp_path, auto_pad, size):
    graph = Graph((1, 3, size, size)).conv("x", "c", 3, 6, kernel=4, strides=[3, 2], auto_pad=auto_pad)
    graph.add("MaxPool", "c", "p", kernel_shape=[2, 3], strides=[2, 2], auto_pad=auto_pad)
    graph.add("AveragePool", "p", "q", kernel_shape=[2, 2], auto_pad=auto_pad).pooled("q")
    check(graph.save(tmp_path / "n.onnx"), n=1)


def test_dilation_depthwise_and_leaky(tmp_path):
    graph = Graph().conv("x", "c", 3, 6, dilations=[2, 3], pads=[2, 3, 2, 3])
    graph.conv("c", "d", 6, 6, groups=6, strides=[2, 1]).add("LeakyRelu", "d", "r", alpha=0.2)
    graph.conv("r", "e", 6, 12, groups=6).pooled("e")
    check(graph.save(tmp_path / "n.onnx"))


@pytest.mark.parametrize("opset", [9, 13])
def test_clipping_from_attributes_or_inputs(tmp_path, opset):
    graph = Graph(opset=opset).conv("x", "c", 3, 6)
    if opset < 11:
        graph.add("Clip", "c", "r", min=0.0, max=0.5)
    else:
        graph.constant("low", 0).constant("high", 0.5).add("Clip", "c low high", "r")
    assert kinds(check(graph.pooled("r").save(tmp_path / "n.onnx")))[1] == "clip"


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 0]},
        {"strides": [1, 1], "dilations": [2, 1], "pads": [1, 1, 0, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER", "kernel_shape": [3, 3]},
        {"strides": [2, 2], "output_shape": [32, 31]},
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(tmp_path, groups, attributes):
    graph = Graph(("n", 3, 16, 16)).conv("x", "c", 3, 4, pads=[1, 1, 1, 1]).weight("t.w", 4, 6 // groups, 3, 3)
    graph.weight("t.b", 6).add("ConvTranspose", "c t.w t.b", "t", group=groups, **attributes).add("Relu", "t", "r")
    net = check(graph.pooled("r").save(tmp_path / "n.onnx"))
    exact = net.explain(np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8), 1, dtype="float64")
    assert exact.ledger.closes(1e-9)


CONDITIONS = {  # name: (operators of "c" and the constants "zero", "one" and "slope", to "r"; the layer they are)
    "relu": (lambda g: g.add("Greater", "c zero", "b").add("Where", "b c zero", "r"), "relu"),
    "leaky": (
        lambda g: g.add("LessOrEqual", "zero c", "b").add("Mul", "c slope", "s").add("Where", "b c s", "r"),
        "leakyrelu",
    ),
    "elu": (
        lambda g: g.add("Exp", "c", "e").add("Sub", "e one", "s").add("Less", "c zero", "b").add("Where", "b s c", "r"),
        "activation",
    ),
    "mask": (
        lambda g: g.add("GreaterOrEqual", "c zero", "b").add("Not", "b", "n").add("Cast", "n", "f", to=1)
        .add("Mul", "c f", "r"),
        "activation",
    ),
    "larger": (lambda g: g.conv("x", "d", 3, 4).add("Greater", "c d", "b").add("Where", "b c one", "r"), "product"),
    "both": (
        lambda g: g.add("Greater", "c zero", "b").add("Less", "c slope", "d").add("And", "b d", "e")
        .add("Or", "e d", "o").add("Where", "o c one", "r"),
        "product",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_that_the_photograph_decides(tmp_path, name):
    """Spellings of activations, as of tf.where; others are products with 0 and 1."""
    build, kind = CONDITIONS[name]
    graph = Graph().conv("x", "c", 3, 4).constant("zero", 0.0).constant("one", 1.0).constant("slope", 0.25)
    build(graph)
    net = check(graph.pooled("r").save(tmp_path / "n.onnx"))
    assert kind in kinds(net) and ("product" in kinds(net)) == (kind == "product" or name == "mask")


@pytest.mark.parametrize("power", [1, 2, 3])
def test_pools_of_norms(tmp_path, power):
    graph = Graph().conv("x", "c", 3, 4).add("LpPool", "c", "l", kernel_shape=[3, 2], strides=[2, 2], p=power)
    check(graph.add("GlobalLpPool", "l", "g", p=power).add("Flatten", "g", "y").save(tmp_path / "n.onnx"))


def test_an_axis_backwards(tmp_path):
    """As tf2onnx writes tf.reverse."""
    graph = Graph().constant("n", [16] * 4, np.int64).conv("x", "c", 3, 4, pads=[1, 1, 1, 1])
    graph.add("Transpose", "c", "t", perm=[3, 1, 2, 0]).add("ReverseSequence", "t n", "r", time_axis=0, batch_axis=1)
    graph.add("Transpose", "r", "u", perm=[3, 1, 2, 0]).conv("u", "d", 4, 5).pooled("d")
    assert "transpose" not in kinds(check(graph.save(tmp_path / "n.onnx")))


def test_weights_standardised_by_an_old_normalisation(tmp_path):
    """Before opset 14, five outputs say that a batch normalisation computes its statistics: timm's NFNets do."""
    graph = Graph(opset=13).weight("w", 1, 4, 27).batchnorm("w", "b", 4).constant("shape", [4, 3, 3, 3], np.int64)
    graph.nodes[-1].output.extend(["m", "v", "sm", "sv"])
    graph.add("Reshape", "b shape", "k").add("Conv", "x k", "c").pooled("c")
    net = ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))
    rows = graph.weights["w"][0]
    rows = (rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
    wanted = rows * graph.weights["b.scale"][:, None] + graph.weights["b.shift"][:, None]
    np.testing.assert_allclose(net.nodes[0].layer.weight.reshape(4, 27), wanted, rtol=1e-5, atol=1e-6)


PATCHES = [
    ((3, 3), {"strides": [3, 3]}),
    ((2, 3), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    ((3, 3), {"strides": [1, 1], "dilations": [2, 1]}),
    ((2, 2), {"strides": [4, 4]}),
]


@pytest.mark.parametrize(("kernel", "attributes"), PATCHES)
def test_patches_are_put_together_and_added_where_they_overlap(tmp_path, kernel, attributes):
    """Col2Im, as torch's fold is exported."""
    stride, dilation = attributes["strides"], attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0] * 4)
    places = [(15 + pads[i] + pads[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    graph = Graph(opset=18).conv("x", "c", 3, 2 * kernel[0] * kernel[1], pads=[1, 1, 1, 1])
    graph.constant("shape", [0, 0, -1], np.int64).constant("first", [0, 0], np.int64).constant("last", places, np.int64)
    graph.constant("axes", [2, 3], np.int64).add("Slice", "c first last axes", "s").add("Reshape", "s shape", "p")
    graph.constant("size", [15, 15], np.int64).constant("k", kernel, np.int64)
    graph.add("Col2Im", "p size k", "i", **attributes).conv("i", "d", 2, 4).add("Relu", "d", "r").pooled("r")
    check(graph.save(tmp_path / "n.onnx"))


def test_castlike_gives_a_constant_the_dtype_of_its_other_input(tmp_path):
    """As torch's exporter writes scalars before its optimisation."""
    graph = (
        Graph(opset=15)
        .constant("two", 2, np.int64)
        .conv("x", "c", 3, 4)
        .add("CastLike", "two c", "f")
        .add("Sqrt", "f", "r")
    )
    check(graph.add("Mul", "c r", "m").pooled("m").save(tmp_path / "n.onnx"))


@pytest.mark.parametrize("sizes", [[1, 2, 3], 2, 4])
def test_lists_of_parts_are_read_as_the_parts(tmp_path, sizes):
    """As torch's exporter writes splits before its optimisation."""
    graph = Graph().conv("x", "c", 3, 6).constant("sizes", sizes, np.int64).constant("last", -1, np.int64)
    graph.constant("first", 0, np.int64).add("SplitToSequence", "c sizes", "l", axis=1)
    graph.add("SequenceAt", "l first", "a").add("SequenceAt", "l last", "b").add("Concat", "b a", "e", axis=1)
    graph.constant("weights", [[[[2.0]], [[3.0]]]]).constant("one", 1, np.int64)
    graph.add("SplitToSequence", "weights one", "w", axis=1).add("SequenceAt", "w last", "v").add("Mul", "e v", "d")
    check(graph.pooled("d").save(tmp_path / "n.onnx"))


def test_guards_against_nan_are_removed(tmp_path):
    """As torch's exporter writes attention: rows of a softmax without any token are set to 0."""
    graph = Graph().conv("x", "c", 3, 4).add("Softmax", "c", "s", axis=3).add("IsNaN", "s", "n").constant("zero", 0.0)
    graph.add("Where", "n zero s", "w").add("Mul", "w c", "m").pooled("m")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert "select" not in kinds(net)
    assert any("finite" in line for line in net.account.lines())


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("opset", [11, 19])
def test_windows_larger_than_the_image_are_cut_off_at_its_border(tmp_path, operator, opset):
    """As the last pool of Hugging Face's EfficientNet, whose window is as large as it has channels."""
    graph = Graph(opset=opset).conv("x", "c", 3, 6)
    graph.add(operator, "c", "p", kernel_shape=[640, 640], strides=[640, 640], ceil_mode=1).add("Flatten", "p", "y")
    check(graph.save(tmp_path / "n.onnx"))


def test_zero_padding_is_folded_into_the_convolution_and_other_padding_is_not(tmp_path):
    graph = Graph().constant("p", [0, 0, 1, 2, 0, 0, 0, 1], np.int64).constant("one", 1.0)
    graph.add("Pad", "x p", "a").conv("a", "c", 3, 4).add("Pad", "c p one", "b").conv("b", "d", 4, 5).pooled("d")
    net = check(graph.save(tmp_path / "n.onnx"))
    assert kinds(net)[:3] == ["conv", "pad", "conv"] and net.nodes[0].layer.pads == (1, 2, 0, 1)


def test_the_shape_arithmetic_of_exporters_is_computed_while_reading(tmp_path):
    graph = Graph().conv("x", "c", 3, 4, strides=[4, 4]).constant("zero", 0, np.int64)
    graph.add("Shape", "c", "s").add("Gather", "s zero", "n").constant("ax", [0], np.int64)
    graph.add("Unsqueeze", "n ax", "u").constant("rest", [-1], np.int64).add("Concat", "u rest", "t", axis=0)
    graph.add("Identity", "c", "i").add("Reshape", "i t", "f").weight("w", 64, 5).add("MatMul", "f w", "y")
    assert kinds(check(graph.save(tmp_path / "n.onnx"))) == ["conv", "flatten", "dense"]


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("opset, keep", [(11, 0), (13, 1), (18, 0)])
def test_global_means_and_squeezes(tmp_path, opset, keep, batch):
    graph = Graph((batch, 3, 16, 16), opset).conv("x", "c", 3, 6)
    if opset < 18:
        graph.add("ReduceMean", "c", "m", axes=[-2, -1], keepdims=keep)
    else:
        graph.constant("ax", [2, 3], np.int64).add("ReduceMean", "c ax", "m", keepdims=keep)
    if keep:
        graph.constant("sq", [2, 3], np.int64).add("Squeeze", "m sq", "m2").add("LogSoftmax", "m2", "z", axis=-1)
        graph.add("Identity", "m2", "y")
    else:
        graph.add("Identity", "m", "y")
    net = check(graph.save(tmp_path / "n.onnx"), n=1)
    assert kinds(net) == ["conv", "globalaveragepool", "flatten"]


def test_a_transposition_after_global_pooling_is_a_reshape(tmp_path):
    graph = (
        Graph().conv("x", "c", 3, 6).add("GlobalAveragePool", "c", "g").add("Transpose", "g", "t", perm=[0, 2, 3, 1])
    )
    graph.add("Flatten", "t", "y")
    check(graph.save(tmp_path / "n.onnx"))


def test_a_final_softmax_is_left_out_even_before_reshapes(tmp_path):
    graph = Graph().conv("x", "c", 3, 6).add("GlobalAveragePool", "c", "g").add("Softmax", "g", "s", axis=1)
    graph.add("Flatten", "s", "y")
    net = ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))
    assert kinds(net) == ["conv", "globalaveragepool", "flatten"]


def test_weights_next_to_the_file_are_found_or_reported_missing(tmp_path):
    graph = Graph().conv("x", "c", 3, 64, 5).pooled("c")
    path = graph.save(tmp_path / "n.onnx", save_as_external_data=True, location="n.data", size_threshold=16)
    assert (tmp_path / "n.data").stat().st_size > 64 * 75 * 4
    check(path)
    (tmp_path / "n.data").unlink()
    with pytest.raises(OSError, match=r"the weights of .*n\.onnx, .* keep both files together .*n\.data"):
        ConvNet.from_onnx(path)


def test_a_dynamic_input_size_stays_dynamic(tmp_path):
    graph = Graph(("n", 3, "h", "w")).conv("x", "c", 3, 6, auto_pad="SAME_UPPER").pooled("c")
    net = check(graph.save(tmp_path / "n.onnx"), size=40)
    assert net.input_shape == (3, None, None)
    assert net.forward(np.zeros((1, 3, 33, 50), np.float32)).shape == (1, 6)


@pytest.mark.parametrize("shape", [None, ("n", "c", "h", "w")])
def test_channels_that_the_file_leaves_open_are_those_of_the_first_convolution(tmp_path, shape):
    graph = Graph(shape).constant("mean", [[[[0.5]], [[0.4]], [[0.3]]]]).add("Sub", "x mean", "d")
    net = check(graph.conv("d", "c", 3, 6).pooled("c").save(tmp_path / "n.onnx"), size=20)
    assert net.input_shape == (3, None, None)


def test_names_are_unique_and_never_that_of_the_input(tmp_path):
    graph = Graph().conv("x", "input", 3, 4).add("Relu", "input", "r1").add("Relu", "r1", "r2").pooled("r2")
    for layer, name in zip(graph.nodes, ["input", "/act/Relu", "/act/Relu", "g", "f"], strict=True):
        layer.name = name
    assert ConvNet.from_onnx(graph.save(tmp_path / "n.onnx")).layers == ["input_2", "act/Relu", "act/Relu_2", "g", "f"]


def test_scores_and_their_softmax_are_one_output(tmp_path):
    graph = Graph().conv("x", "c", 3, 4).add("GlobalAveragePool", "c", "gap").add("Flatten", "gap", "f")
    graph.weight("w", 4, 5).add("MatMul", "f w", "scores").add("Softmax", "scores", "y")
    model = graph.model()
    model.graph.output.append(helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "n.onnx")
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    expected = session(str(tmp_path / "n.onnx")).run(["scores"], {"x": x})[0]
    np.testing.assert_allclose(ConvNet.from_onnx(tmp_path / "n.onnx").forward(x), expected, rtol=1e-4, atol=1e-5)


def test_a_probability_for_each_image_is_a_network_of_two_classes(tmp_path):
    """A sigmoid of scores (n, 1), of which the file takes the column."""
    graph = Graph((1, 3, 16, 16)).conv("x", "c", 3, 1).add("GlobalAveragePool", "c", "gap").add("Flatten", "gap", "f")
    graph.constant("0", 0, np.int64).add("Gather", "f 0", "g", axis=1).add("Sigmoid", "g", "y")
    net = ConvNet.from_onnx(graph.save(tmp_path / "n.onnx"))
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    expected = session(str(tmp_path / "n.onnx")).run(None, {"x": x})[0]
    assert net.binary and net.forward(x).shape == (1, 1)
    np.testing.assert_allclose(1 / (1 + np.exp(-net.forward(x)[0])), expected, rtol=1e-4)
    assert net.explain(np.zeros((16, 16, 3), np.uint8) + 90).ledger.closes(1e-5)


# ---- refusals --------------------------------------------------------------------------------------------------------


REFUSED = {
    "operator": (
        lambda g: g.add("Det", "c", "t").pooled("t"),
        r"'t' \(Det\).*not supported; nearest are MatMul and ReduceSum.*feeds.*'gap'",
    ),
    "map at the end": (lambda g: g.add("Relu", "c", "z"), "one score per class"),
    "batch mixed": (
        lambda g: g.constant("s", [4, -1], np.int64).add("Reshape", "c s", "z"),
        "one score per class",
    ),
    "mean over the batch": (
        lambda g: g.add("ReduceMean", "c", "t", axes=[0, 2, 3], keepdims=0).add("Relu", "t", "z"),
        r"\(ReduceMean\).*images of a batch must stay apart",
    ),
    "loop": (lambda g: g.constant("n", 2**62, np.int64).add("Loop", "n  c", "z"), r"\(Loop\).*unrolled"),
    "selection": (lambda g: g.add("GlobalMaxPool", "c", "f").add("ArgMax", "f", "z", axis=1), r"\(ArgMax\).*`output`"),
    "recurrence": (lambda g: g.weight("k", 1, 4, 4).add("LSTM", "c k k", "z", hidden_size=1), "recurrent"),
    "a mask of pixels": (
        lambda g: g.constant("z0", 0.0).constant("no", -np.inf).add("Less", "c z0", "b").add("Where", "b no c", "z"),
        r"\(Where\).*mask that depends on the photograph",
    ),
    "randomness": (lambda g: g.add("RandomNormalLike", "c", "z"), "random numbers.*inference"),
    "boxes": (lambda g: g.add("NonMaxSuppression", "c c", "z"), "whole images.*`output`"),
    "a spectrum": (lambda g: g.add("DFT", "c", "z"), "complex numbers.*nearest"),
    "a volume": (
        lambda g: (
            g.constant("a", [2], np.int64)
            .add("Unsqueeze", "c a", "v")
            .weight("k", 4, 4, 1, 3, 3)
            .add("Conv", "v k", "z")
        ),
        "3-D convolutions.*nearest is Conv of one or two",
    ),
    "whole numbers": (lambda g: g.add("Cast", "c", "z", to=7), "floating-point"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_for_unsupported_nodes_name_them(tmp_path, case):
    build, message = REFUSED[case]
    graph = Graph().conv("x", "c", 3, 4)
    build(graph)
    graph.nodes[-1].output[0] = "y"
    graph.save(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match=message):
        ConvNet.from_onnx(tmp_path / "n.onnx")


def test_old_opsets_other_files_and_missing_files_are_refused(tmp_path):
    Graph(opset=6).conv("x", "c", 3, 4).pooled("c").save(tmp_path / "old.onnx")
    with pytest.raises(ValueError, match="opset 6; expected 7"):
        ConvNet.from_onnx(tmp_path / "old.onnx")
    for name in ("text.onnx", "text.json", "text.txt"):
        (tmp_path / name).write_text('{"this is": "no network at all"}')
        with pytest.raises(ValueError, match=r"^[^\n]*not an ONNX file[^\n]*$"):
            ConvNet.from_onnx(tmp_path / name)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"not an ONNX file.* no graph"):
        ConvNet.from_onnx(tmp_path / "empty.onnx")
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        ConvNet.from_onnx(tmp_path / "none.onnx")


def test_a_file_may_have_any_name(tmp_path):
    path = Graph().conv("x", "c", 3, 4).pooled("c").save(tmp_path / "n.onnx")
    for name in ("n.json", "n.pb", "n.txt"):
        assert len(ConvNet.from_onnx(path.rename(tmp_path / name)).layers) == 3
        path = tmp_path / name


def test_without_onnx_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'fvlrp\[onnx\]'"):
        ConvNet.from_onnx(tmp_path / "n.onnx")
