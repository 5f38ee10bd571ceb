"""Classic classifiers of flattened images, as scikit-learn's converter writes them: onnxruntime scores or refusal."""

import numpy as np
import pytest

from fvlrp import Network, Preprocess

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402

ML = "ai.onnx.ml"
RANDOM = np.random.default_rng(0)


def node(operator, inputs, outputs, domain="", **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), domain=domain, **attributes)


def constant(name, value):
    return node("Constant", "", name, value=onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))


def linear(source, n_in, n_out, end, rows=None):
    """A linear classifier with scores "s"."""
    weight = RANDOM.normal(size=(n_out, n_in)) / 8
    weight = weight if rows is None else np.asarray(rows) * weight[:1]
    return node(
        "LinearClassifier", source, "label s", ML, coefficients=weight.ravel().tolist(),
        intercepts=(np.full(n_out, 0.1) if rows is None else 0.1 * np.ravel(rows)).tolist(),
        post_transform=end, classlabels_ints=list(range(n_out)),
    )  # fmt: skip


def hidden(source, n_in, n_out, name, function):
    return [
        constant(f"{name}w", RANDOM.normal(size=(n_in, n_out)) / 4), constant(f"{name}b", RANDOM.normal(size=n_out)),
        node("MatMul", f"{source} {name}w", f"{name}m"), node("Add", f"{name}m {name}b", f"{name}a"),
        node(function, f"{name}a", name),
    ]  # fmt: skip


SCALER = node("Scaler", "x", "z", ML, offset=RANDOM.random(64).tolist(), scale=(1 + RANDOM.random(64)).tolist())
PCA = [
    SCALER, constant("mean", RANDOM.random(64)), node("Sub", "z mean", "c"),
    constant("w", RANDOM.normal(size=(64, 12)) / 8), node("MatMul", "c w", "p"),
]  # fmt: skip
NORMALISED = node("Normalizer", "s", "y", ML, norm="L1")
CASES = {  # nodes, and what the output is of the scores
    "logistic regression": ([linear("x", 64, 5, "SOFTMAX"), NORMALISED], "softmax"),
    "one against the rest": ([linear("x", 64, 5, "LOGISTIC"), node("Identity", "s", "y")], "sigmoid"),
    "ridge": ([linear("x", 64, 5, "NONE"), node("Identity", "s", "y")], ""),
    "two classes": ([linear("x", 64, 2, "LOGISTIC", [[-1], [1]]), node("Identity", "s", "y")], "both"),
    "principal components": ([*PCA, linear("p", 12, 5, "SOFTMAX"), NORMALISED], "softmax"),
    "rows of length 1": (
        [node("Normalizer", "x", "u", ML, norm="L2"), linear("u", 64, 5, "SOFTMAX"), NORMALISED], "softmax",
    ),
    "perceptron": ([*hidden("x", 64, 9, "h", "Relu"), *hidden("h", 9, 5, "y", "Softmax")], "softmax"),
    "perceptron of two classes": (
        [
            *hidden("x", 64, 9, "h", "Tanh"), *hidden("h", 9, 1, "q", "Sigmoid"),
            constant("1", 1.0), node("Sub", "1 q", "o"), node("Concat", "o q", "y", axis=1),
        ],
        "both",
    ),
}  # fmt: skip


def saved(nodes, path, shape=("n", 64), more=()):
    value = helper.make_tensor_value_info
    outputs = [value("y", onnx.TensorProto.FLOAT, None), *more]
    graph = helper.make_graph(nodes, "g", [value("x", onnx.TensorProto.FLOAT, shape)], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def probabilities(end, scores):
    if end == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    own = 1 / (1 + np.exp(-scores))
    return {"": scores, "sigmoid": own, "both": np.hstack([1 - own, own])}[end]


@pytest.mark.filterwarnings("ignore:.*does not say how photographs")
@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_onnxruntime(tmp_path, name):
    nodes, end = CASES[name]
    net = Network.from_onnx(saved(nodes, tmp_path / "net.onnx"))
    x = RANDOM.random((3, 1, 8, 8), np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(["y"], {"x": x.reshape(3, 64)})[0]
    np.testing.assert_allclose(probabilities(end, net.forward(x)), wanted, rtol=1e-4, atol=1e-6)
    assert net.binary == (end == "both") and net.input_shape == (1, 8, 8)
    assert net.explain(np.arange(64, dtype=np.uint8).reshape(8, 8), dtype="float64").ledger.closes(1e-9)


@pytest.mark.filterwarnings("ignore:.*does not say how photographs")
def test_predicted_labels_beside_the_scores_are_no_scores(tmp_path):
    nodes, _ = CASES["logistic regression"]
    labels = [helper.make_tensor_value_info("label", onnx.TensorProto.INT64, None)]
    assert len(Network.from_onnx(saved(nodes, tmp_path / "net.onnx", more=labels)).classes_) == 5


def test_rows_of_pixels_have_the_size_that_is_given_or_are_square(tmp_path):
    path = saved([linear("x", 96, 5, "NONE"), node("Identity", "s", "y")], tmp_path / "net.onnx", ("n", 96))
    assert Network.from_onnx(path, Preprocess((8, 12), order="grey")).input_shape == (1, 8, 12)
    with pytest.raises(ValueError, match=r"'x' has 96 values, which are not a square .*preprocess=fvlrp\.Preprocess"):
        Network.from_onnx(path)
    net = Network.from_onnx(path, Preprocess((4, 8)))
    assert net.input_shape == (3, 4, 8) and "one row of pixels, (height, width, RGB)" in net.account.notes[0]
    x = RANDOM.random((2, 3, 4, 8), np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = session.run(["y"], {"x": np.moveaxis(x, 1, 3).reshape(2, 96)})[0]
    np.testing.assert_allclose(net.forward(x), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*does not say how photographs")
def test_grey_images_may_have_no_axis_of_channels(tmp_path):
    nodes = [node("Flatten", "x", "f"), linear("f", 64, 5, "NONE"), node("Identity", "s", "y")]
    net = Network.from_onnx(saved(nodes, tmp_path / "net.onnx", ("n", 8, 8)))
    x = RANDOM.random((2, 1, 8, 8), np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(net.forward(x), session.run(["y"], {"x": x[:, 0]})[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("TreeEnsembleClassifier", "x", "l y", ML)], "decision trees .*nearest is LinearClassifier"),
        ([node("SVMClassifier", "x", "l y", ML)], "kernel machines .*nearest is LinearClassifier"),
        ([node("Normalizer", "x", "y", ML, norm="MAX")], "norm 'MAX' is not supported"),
        ([linear("x", 64, 5, "PROBIT"), node("Identity", "s", "y")], "post_transform 'PROBIT' is not supported"),
        ([node("Imputer", "x", "y", ML)], "this operator is not supported; nearest are"),
    ],
)
def test_others_are_rejected_with_the_node_and_the_reason(tmp_path, nodes, words):
    with pytest.raises(ValueError, match=rf"node '.*\(ai\.onnx\.ml.*{words}"):
        Network.from_onnx(saved(nodes, tmp_path / "net.onnx"))
