"""Quantised networks: in every form that onnxruntime writes, scores and maps are those of real numbers."""

import numpy as np
import pytest

from fvlrp import Network, Preprocess, load
from fvlrp.network.layers import DynamicQuantise
from fvlrp.network.retraining import classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402
from test_importers import Graph, session  # noqa: E402
from test_operators import case, number, weights  # noqa: E402
from test_operators import scores_of as scores_of_text  # noqa: E402

MS = "com.microsoft"


class Quantised(Graph):
    """A graph whose tensors may be whole numbers, by a scale and a zero point for each name."""

    def scales(self, name, scale, zero, dtype=np.uint8):
        return self.constant(f"{name}.s", scale).constant(f"{name}.z", zero, dtype)

    def rounded(self, source, name, scale=0.02, zero=120, dtype=np.uint8):
        return self.scales(name, scale, zero, dtype).add("QuantizeLinear", f"{source} {name}.s {name}.z", name)

    def whole(self, name, shape, low=-127, high=128):
        return self.constant(name, self.random.integers(low, high, shape), np.int8)

    def real(self, name, output):
        return self.add("DequantizeLinear", triple(name), output)

    def model(self):
        model = super().model()
        model.opset_import.append(helper.make_opsetid(MS, 1))
        return model


def triple(name):
    return f"{name} {name}.s {name}.z"


def scores_of(graph, path, n=1):
    """The network of a graph, after its scores were found to be onnxruntime's."""
    graph.save(path)
    net = Network.from_onnx(path, Preprocess((16, 16)))
    x = np.random.default_rng(1).uniform(-1, 1, (n, 3, 16, 16)).astype(np.float32)
    run = session(str(path))
    expected = run.run(None, {"x": x})[0].reshape(n, -1)
    assert np.abs(expected).max() > 1e-3, "the test's own network is dead"
    assert np.abs(net.forward(x) - expected).max() <= 1e-5 * np.abs(expected).max()
    return net


def conv(graph, dtype=np.uint8, zero=120, each=False):
    """x rounded to "q", convolved in whole numbers to "c"."""
    graph.rounded("x", "q", 0.01, zero, dtype)
    graph.whole("w", (8, 3, 3, 3)).constant("b", graph.random.integers(-2000, 2000, 8), np.int32)
    graph.scales("w", graph.random.uniform(0.002, 0.004, 8 if each else ()), np.zeros(8 if each else (), int), np.int8)
    graph.scales("c", 0.02, zero + 3, dtype)
    return graph.add("QLinearConv", f"{triple('q')} {triple('w')} c.s c.z b", "c", pads=[1, 1, 1, 1])


@pytest.mark.parametrize(("dtype", "zero", "each"), [(np.uint8, 120, False), (np.uint8, 128, True), (np.int8, 0, True)])
def test_convolutions_of_whole_numbers(tmp_path, dtype, zero, each):
    net = scores_of(conv(Quantised(), dtype, zero, each).real("c", "r").pooled("r"), tmp_path / "n.onnx", 2)
    assert [node.kind for node in net.nodes[:3]] == ["quantise", "conv", "quantise"]


OPERATORS = {
    "QLinearAdd": lambda g: g.add("QLinearAdd", f"{triple('c')} {triple('c')} d.s d.z", "d", domain=MS),
    "QLinearMul": lambda g: g.add("QLinearMul", f"{triple('c')} {triple('c')} d.s d.z", "d", domain=MS),
    "QLinearSigmoid": lambda g: g.add("QLinearSigmoid", f"{triple('c')} d.s d.z", "d", domain=MS),
    "QLinearLeakyRelu": lambda g: g.add("QLinearLeakyRelu", f"{triple('c')} d.s d.z", "d", domain=MS, alpha=0.1),
    "QLinearAveragePool": lambda g: g.add(
        "QLinearAveragePool", f"{triple('c')} d.s d.z", "d", domain=MS, kernel_shape=[3, 3], strides=[2, 2]
    ),
    "QLinearGlobalAveragePool": lambda g: g.add("QLinearGlobalAveragePool", f"{triple('c')} d.s d.z", "d", domain=MS),
    "QLinearConcat": lambda g: g.add("QLinearConcat", f"d.s d.z {triple('c')} {triple('c')}", "d", domain=MS, axis=1),
    "QLinearSoftmax": lambda g: g.scales("d", 1 / 256, 0).add(
        "QLinearSoftmax", f"{triple('c')} d.s d.z", "d", domain=MS, axis=3, opset=13
    ),
    "QLinearSoftmax, 1 / scale not whole": lambda g: g.scales("d", 0.0036, 3).add(
        "QLinearSoftmax", f"{triple('c')} d.s d.z", "d", domain=MS, axis=3, opset=13
    ),
    "QLinearMatMul": lambda g: (
        g.whole("m", (16, 5))
        .scales("m", g.random.uniform(0.002, 0.004, 5), np.zeros(5), np.int8)
        .add("QLinearMatMul", f"{triple('c')} {triple('m')} d.s d.z", "d")
    ),
    "MaxPool": lambda g: g.scales("d", 0.02, 123).add("MaxPool", "c", "d", kernel_shape=[2, 2]),
    "Pad": lambda g: (
        g.scales("d", 0.02, 123)
        .constant("p", [0, 0, 1, 2, 0, 0, 0, 1], np.int64)
        .constant("v", 200, np.uint8)
        .add("Pad", "c p v", "d")
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_on_whole_numbers(tmp_path, name):
    graph = conv(Quantised()).scales("d", 0.03, 110)
    scores_of(OPERATORS[name](graph).real("d", "r").add("Relu", "r", "a").pooled("a"), tmp_path / "n.onnx")


HALVES = {  # of values by powers of two, many of which lie halfway between two steps
    "QLinearAdd": lambda g: g.add("QLinearAdd", f"{triple('q')} {triple('p')} d.s d.z", "d", domain=MS),
    "QLinearMul": lambda g: g.add("QLinearMul", f"{triple('q')} {triple('p')} d.s d.z", "d", domain=MS),
    "QLinearAveragePool": lambda g: g.add(
        "QLinearAveragePool", f"{triple('q')} d.s d.z", "d", domain=MS, kernel_shape=[2, 2], strides=[2, 2]
    ),
    "QLinearLeakyRelu": lambda g: g.add("QLinearLeakyRelu", f"{triple('q')} d.s d.z", "d", domain=MS, alpha=0.5),
    "QLinearConcat": lambda g: g.add("QLinearConcat", f"d.s d.z {triple('q')} {triple('p')}", "d", domain=MS, axis=1),
}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("zero", [120, 121])
def test_values_between_two_steps_are_rounded_as_by_onnxruntime(tmp_path, name, zero):
    graph = Quantised().rounded("x", "q", 1 / 64, 100).add("Sigmoid", "x", "g").rounded("g", "p", 1 / 64, 90)
    scores_of(HALVES[name](graph.scales("d", 1 / 32, zero)).real("d", "r").pooled("r"), tmp_path / "n.onnx")


@pytest.mark.parametrize("scale", [2 / 255, 2 / 255.0003, 2 / 255.01])  # of x, beside that of the sum
@pytest.mark.parametrize(("dtype", "zero", "whole", "low"), [(np.uint8, 127, 255, 0), (np.int8, -1, 127, -128)])
def test_a_constant_that_puts_all_values_between_two_steps(tmp_path, dtype, zero, whole, low, scale):
    """As 1 + erf(x) does, where rounding errors of float32 decide: one step in 255 for half of the values."""
    graph = Quantised().rounded("x", "q", scale, zero, dtype)
    graph.constant("k", whole, dtype).scales("k", 1 / 255, low, dtype).scales("d", 2 / 255, low, dtype)
    graph.add("QLinearAdd", f"{triple('q')} {triple('k')} d.s d.z", "d", domain=MS).real("d", "r").pooled("r")
    net = scores_of(graph, tmp_path / "n.onnx")
    net.save(tmp_path / "n.fvlrp")
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(load(tmp_path / "n.fvlrp").forward(x), net.forward(x))


@pytest.mark.parametrize("rounded", [True, False])
def test_dense_layers_of_whole_numbers(tmp_path, rounded):
    graph = conv(Quantised()).scales("d", 0.02, 120)
    graph.add("QLinearGlobalAveragePool", f"{triple('c')} d.s d.z", "d", domain=MS).add("Flatten", "d", "f")
    graph.whole("m", (5, 8)).scales("m", 0.004, 0, np.int8).constant(
        "mb", graph.random.integers(-999, 999, 5), np.int32
    )
    graph.scales("f", 0.02, 120).scales("o", 0.01, 130)
    inputs = f"{triple('f')} {triple('m')} mb" + (" o.s o.z" if rounded else "")
    graph.add("QGemm", inputs, "o" if rounded else "y", domain=MS, transB=1)
    net = scores_of(graph.real("o", "y") if rounded else graph, tmp_path / "n.onnx")
    last = classifier(net.nodes)
    assert last is not None and net.nodes[last].kind == "dense", "retrain would append a head to the scores"


def test_dynamic_quantisation_scales_are_read(tmp_path):
    """What quantize_dynamic writes, and what onnxruntime's optimiser makes of it."""
    graph = Quantised()
    graph.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "q.s", "q.z"]))
    graph.whole("w", (8, 3, 3, 3)).constant("w.s", 0.003).constant("w.z", 0, np.int8)
    graph.add("ConvInteger", "q w q.z w.z", "i", pads=[1, 1, 1, 1]).add("Cast", "i", "f", to=1)
    graph.add("Mul", "q.s w.s", "s").add("Mul", "f s", "c").add("Relu", "c", "r").pooled("r")
    graph.nodes[-1].output[0] = "g"
    graph.nodes.append(helper.make_node("DynamicQuantizeLinear", ["g"], ["h", "h.s", "h.z"]))
    graph.whole("m", (8, 6)).constant("m.s", graph.random.uniform(0.002, 0.004, 6)).constant("m.z", [3] * 6, np.int8)
    graph.add("MatMulIntegerToFloat", "h m h.s m.s h.z m.z", "k", domain=MS).add("Relu", "k", "l")
    graph.whole("n", (6, 5)).constant("n.s", 0.01).constant("n.z", 0, np.int8).weight("nb", 5)
    graph.add("DynamicQuantizeMatMul", "l n n.s n.z nb", "y", domain=MS)
    net = scores_of(graph, tmp_path / "n.onnx")
    assert [node.kind for node in net.nodes].count("dynamicquantise") == 3
    exact = net.explain(np.zeros((16, 16, 3), np.uint8) + 90, 1, dtype="float64")
    assert exact.ledger.closes(1e-9)


RANGES = {  # of the values that DynamicQuantizeLinear rounds, each float32
    "both signs": lambda random: random.standard_normal(300) * 10.0 ** random.integers(-30, 20),
    "positive": lambda random: random.uniform(3, 4, 300),
    "negative": lambda random: random.uniform(-4, -3, 300),
    "halves": lambda random: random.integers(-255, 256, 300) / 2,
    "zeros": lambda random: np.zeros(300),
    "one value": lambda random: np.full(300, random.standard_normal()),
    "below the normal numbers": lambda random: random.standard_normal(300) * 1e-40,
}


@pytest.mark.parametrize("name", RANGES)
def test_rounding_by_the_range_of_values_is_onnxruntimes_bit_for_bit(name):
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (uint8[n] q, float s, uint8 z) {'
    run = session(onnx.parser.parse_model(text + "q, s, z = DynamicQuantizeLinear (x) }").SerializeToString())
    for seed in range(30):
        x = RANGES[name](np.random.default_rng(seed)).astype(np.float32)
        steps, scale, zero = run.run(None, {"x": x})
        expected = (steps.astype(np.float32) - np.float32(zero)) * scale
        np.testing.assert_array_equal(DynamicQuantise().apply(x[None])[0], expected)


def test_values_dequantised_by_a_scale_that_the_photograph_decided(tmp_path):
    graph = Quantised()
    graph.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "q.s", "q.z"]))
    graph.real("q", "d").conv("d", "c", 3, 6).pooled("c")
    scores_of(graph, tmp_path / "net.onnx")


def test_a_dequantised_uint8_input_is_read(tmp_path):
    graph = Quantised(("n", 3, 16, 16)).scales("x", 1 / 255, 0).real("x", "r").conv("r", "c", 3, 6).pooled("c")
    model = graph.model()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, tmp_path / "n.onnx")
    net = Network.from_onnx(tmp_path / "n.onnx", Preprocess((16, 16), high=255))
    x = np.random.default_rng(1).integers(0, 256, (1, 3, 16, 16), np.uint8)
    expected = session(str(tmp_path / "n.onnx")).run(None, {"x": x})[0]
    np.testing.assert_allclose(net.forward(x.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)


def test_both_forms_of_a_quantised_network_have_one_map(tmp_path):
    """Whole numbers throughout, and pairs of QuantizeLinear and DequantizeLinear around real operators."""
    whole = conv(Quantised(), each=True).real("c", "r").conv("r", "o", 8, 4).pooled("o")
    pairs = Quantised()
    pairs.rounded("x", "q", 0.01, 120).real("q", "qr")
    pairs.weights |= whole.weights
    pairs.add("DequantizeLinear", triple("w"), "wr", axis=0)
    pairs.constant("b", whole.weights["b"] * whole.weights["q.s"] * whole.weights["w.s"])
    pairs.add("Conv", "qr wr b", "cr", pads=[1, 1, 1, 1]).add("QuantizeLinear", "cr c.s c.z", "c").real("c", "r")
    pairs.add("Conv", "r o.w o.b", "o").pooled("o")
    nets = [scores_of(graph, tmp_path / f"{k}.onnx") for k, graph in enumerate((whole, pairs))]
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    one, other = (net.explain(image, 1, dtype="float64") for net in nets)
    np.testing.assert_allclose(one.heatmap, other.heatmap, rtol=1e-6, atol=1e-9 * np.abs(other.heatmap).max())
    assert one.ledger.closes(1e-9)


def test_dequantised_integers_that_were_never_quantised_are_refused(tmp_path):
    graph = Quantised().add("Relu", "x", "q").scales("q", 0.1, 3).real("q", "r").conv("r", "c", 3, 4).pooled("c")
    graph.save(tmp_path / "n.onnx")
    with pytest.raises(
        ValueError, match=r"\(DequantizeLinear\).*'q' is not quantised; expected integers from Quant.*feeds.*'c'"
    ):
        Network.from_onnx(tmp_path / "n.onnx")


ROUNDED = "{0} = QuantizeLinear ({1}, s, z)\n {2} = DequantizeLinear ({0}, s, z)\n "
ATTENTION = """r = Reshape (x, u)\n k = MatMul (r, w)\n l = Transpose <perm = [0, 2, 1]> (k)\n m = MatMul (r, l)
 a = Softmax <axis = -1> (m)\n {0} v = MatMul (r, o)\n p = MatMul ({1}, v)\n t = ReduceMean (p, i)"""
GATE = "a = Sigmoid (x)\n {0} c = Conv <pads = [1, 1, 1, 1]> (x, e)\n p = Mul (c, {1})\n t = ReduceMean (p, j)"


@pytest.mark.parametrize("body", [ATTENTION, GATE], ids=["attention", "gate"])
def test_weights_and_gates_keep_their_rules_behind_a_rounding(tmp_path, body):
    """Steps of 1 / 65535 of a softmax or a sigmoid change nothing but the last digits of a map."""
    constants = {
        "u": (0, 6, 12), "w": weights(12, 12), "o": weights(12, 4), "e": weights(3, 3, 3, 3),
        "s": number(1 / 65535), "z": "uint16 {0}", "i": (1,), "j": (2, 3),
    }  # fmt: skip
    rounded = body.format(ROUNDED.format("q", "a", "d"), "d")
    image = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)
    maps = []
    for name, text in (("real", body.format("", "a")), ("rounded", rounded)):
        model = onnx.parser.parse_model(case(text, 21, **constants))
        onnx.save(model, tmp_path / f"{name}.onnx")
        net = Network.from_onnx(tmp_path / f"{name}.onnx", Preprocess((4, 6)))
        maps.append(net.explain(image, 1, dtype="float64").heatmap)
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-3 * np.abs(maps[0]).max())


GELU = """c = Conv <pads = [1, 1, 1, 1]> (x, e)\n {c} h = Mul ({c_}, k)\n f = Erf (h)\n g = Add (f, one)
 {g} p = Mul ({c_}, {g_})\n {p} t = Mul ({p_}, half)"""


@pytest.mark.parametrize("bits", [8, 16])
def test_an_activation_whose_steps_are_rounded_is_that_activation(tmp_path, bits):
    """The 1 of a GELU is no evidence: with 16 bits the map is that of the real network; scores are onnxruntime's."""
    steps, zero, dtype = (1 << bits) - 1, 1 << bits - 1, f"uint{bits}"
    constants = {
        "e": weights(3, 3, 3, 3), "k": number(0.5**0.5), "one": number(1), "half": number(0.5),
        "s": number(10 / steps), "z": f"{dtype} {{{zero}}}",
    }  # fmt: skip
    real = GELU.format(**dict.fromkeys("cgp", ""), c_="c", g_="g", p_="p")
    rounded = {name: ROUNDED.format(f"{name}q", name, f"{name}d") for name in "cgp"}
    text = case(GELU.format(**rounded, c_="cd", g_="gd", p_="pd"), 21, **constants)
    found, expected = scores_of_text(text, tmp_path / "rounded.onnx")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    onnx.save(onnx.parser.parse_model(case(real, 21, **constants)), tmp_path / "real.onnx")
    one, other = (Network.from_onnx(tmp_path / f"{name}.onnx", Preprocess((4, 6))) for name in ("real", "rounded"))
    assert [node.kind for node in other.nodes] == ["conv", "quantise", "table", "flatten"]
    image = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)
    maps = [net.explain(image, 30, dtype="float64").heatmap for net in (one, other)]
    assert np.abs(maps[1] - maps[0]).max() <= 1e-3 * 256 / (1 << bits - 8) * np.abs(maps[0]).max()


NORMALISED = """{x} a = Sub ({x_}, m)\n {a} b = Div ({a_}, v)\n {b} c = Conv <pads = [1, 1, 1, 1]> ({b_}, e)
 t = ReduceMean (c, j)"""


def test_a_rounded_normalisation_of_the_input_is_no_evidence(tmp_path):
    """The mean of the photographs took all relevance where a file rounds pixels before it subtracts the mean."""
    constants = {
        "e": weights(4, 3, 3, 3), "j": (2, 3), "s": number(8 / 65535), "z": "uint16 {32768}",
        "m": "float[1, 3, 1, 1] {0.485, 0.456, 0.406}", "v": "float[1, 3, 1, 1] {0.229, 0.224, 0.225}",
    }  # fmt: skip
    rounded = {name: ROUNDED.format(f"{name}q", name, f"{name}d") for name in "xab"}
    texts = (
        NORMALISED.format(x="", a="", b="", x_="x", a_="a", b_="b"),
        NORMALISED.format(**rounded, x_="xd", a_="ad", b_="bd"),
    )
    image, maps = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8), []
    for name, text in zip(("real", "rounded"), texts, strict=True):
        onnx.save(onnx.parser.parse_model(case(text, 21, **constants)), tmp_path / f"{name}.onnx")
        net = Network.from_onnx(tmp_path / f"{name}.onnx", Preprocess((4, 6)))
        maps.append(net.explain(image, 1, dtype="float64").heatmap)
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-3 * np.abs(maps[0]).max())


def test_scores_before_a_rounded_sigmoid_are_explained(tmp_path):
    body = "c = Conv (x, e)\n m = ReduceMean (c, j)\n p = Sigmoid (m)\n " + ROUNDED.format("q", "p", "t")
    text = case(body, 21, e=weights(4, 3, 3, 3), j=(2, 3), s=number(1 / 255), z="uint8 {0}")
    found, expected = scores_of_text(text, tmp_path / "n.onnx")
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), expected, atol=0.51 / 255)
    assert Network.from_onnx(tmp_path / "n.onnx", Preprocess((4, 6))).multilabel_


def test_a_network_that_divides_rounded_pixels_by_255_is_fed_255(tmp_path):
    body = ROUNDED.format("q", "x", "d") + "a = Mul (d, f)\n c = Conv (a, e)\n t = ReduceMean (c, j)"
    text = case(body, 21, e=weights(4, 3, 3, 3), j=(2, 3), s=number(1), z="uint8 {0}", f=number(1 / 255))
    onnx.save(onnx.parser.parse_model(text), tmp_path / "n.onnx")
    with pytest.warns(UserWarning, match=r"0\.\.255"):
        assert Network.from_onnx(tmp_path / "n.onnx").preprocess.high == 255
