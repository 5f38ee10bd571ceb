"""ONNX files from strangers: no work that a file orders without limit, and no error that does not name the file."""

import re
import time
import warnings

import numpy as np
import pytest

from fvlrp import Network, Preprocess

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_importers import Graph  # noqa: E402

SECONDS = 5.0


def read(path):
    """The network of a file, or the sentence that refuses it; within SECONDS, and by an error that names the file."""
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Network.from_onnx(path)
    except ValueError as error:
        assert str(path) in str(error), error
        return str(error)
    finally:
        assert time.process_time() - begin < SECONDS


def plain():
    return Graph((1, 3, 16, 16)).conv("x", "c", 3, 4)


def added(graph, name):
    """The graph with a constant `name` added to its map, so that its value is needed."""
    return graph.add("Add", f"c {name}", "d").pooled("d")


def whole(graph, **constants):
    """The graph with constants of whole numbers."""
    for name, value in constants.items():
        graph.constant(name, value, np.int64)
    return graph


LARGE = {
    "ConstantOfShape": lambda g: whole(g, s=[1 << 20, 1 << 12]).add("ConstantOfShape", "s", "k"),
    "Range": lambda g: whole(g, a=0, b=1 << 28, i=1).add("Range", "a b i", "k"),
    "Expand": lambda g: whole(g, s=[1 << 20, 1 << 10]).constant("o", [1.0]).add("Expand", "o s", "k"),
    "Tile": lambda g: whole(g, s=[1 << 40]).constant("o", [1.0]).add("Tile", "o s", "k"),
    "Add": lambda g: (
        g.constant("a", np.zeros((1 << 14, 1))).constant("b", np.zeros((1, 1 << 14))).add("Add", "a b", "k")
    ),
    "MatMul": lambda g: (
        g.constant("a", np.zeros((1 << 14, 1))).constant("b", np.zeros((1, 1 << 14))).add("MatMul", "a b", "k")
    ),
    "Pad": lambda g: whole(g, s=[0, 1 << 40]).constant("o", [1.0]).add("Pad", "o s", "k"),
    "OneHot": lambda g: whole(g, o=np.zeros(1 << 12), n=1 << 20).constant("v", [0.0, 1.0]).add("OneHot", "o n v", "k"),
    "Gather": lambda g: whole(g, i=np.zeros(1 << 13)).constant("o", np.zeros((1, 1 << 13))).add("Gather", "o i", "k"),
}


@pytest.mark.parametrize("operator", LARGE)
def test_folding_of_huge_constants_is_refused(tmp_path, operator):
    message = read(added(LARGE[operator](plain()), "k").save(tmp_path / "net.onnx"))
    assert isinstance(message, str) and f"({operator})" in message and "computed from constants" in message


def test_resizing_to_an_absurd_size_is_refused(tmp_path):
    graph = whole(plain(), z=[1, 4, 1 << 15, 1 << 15])
    graph.nodes.append(helper.make_node("Resize", ["c", "", "", "z"], ["d"]))
    assert "(Resize)" in read(graph.pooled("d").save(tmp_path / "net.onnx"))


def loop():
    """A Loop of 2^62 rounds."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [value("n", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, [1])],
        [value("still", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, [1])],
    )
    return helper.make_node("Loop", ["times", "yes", "o"], ["looped"], body=body)


def test_unused_nodes_are_never_computed(tmp_path):
    graph = LARGE["ConstantOfShape"](plain()).add("Identity", "k", "unused")
    whole(graph, times=1 << 62).constant("yes", True, np.bool_).constant("o", [0.0])
    graph.nodes.append(loop())
    assert isinstance(read(graph.pooled("c").save(tmp_path / "net.onnx")), Network)
    graph.nodes = graph.nodes[:-2]
    message = read(added(graph, "looped").save(tmp_path / "net.onnx"))
    assert "(Loop)" in message and "loop" in message


def test_many_copies_of_a_constant_are_limited_in_all(tmp_path):
    graph = plain().constant("k0", np.zeros((1, 1 << 20)))
    for i in range(400):
        graph.add("Neg", f"k{i}", f"k{i + 1}")
    graph.add("ReduceSum", "k400", "k", keepdims=0)
    message = read(added(graph, "k").save(tmp_path / "net.onnx"))
    assert isinstance(message, str) and "too much memory" in message


def functions(depth, times):
    """A model whose function f<depth> calls the one before it a number of times, down to one Relu."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    relu = [helper.make_node("Relu", ["a"], ["b"])]
    made = [helper.make_function("local", "f0", ["a"], ["b"], relu, imports)]
    for level in range(1, depth + 1):
        nodes, source = [], "a"
        for i in range(times):
            target = "b" if i == times - 1 else f"t{i}"
            nodes.append(helper.make_node(f"f{level - 1}", [source], [target], domain="local"))
            source = target
        made.append(helper.make_function("local", f"f{level}", ["a"], ["b"], nodes, imports))
    graph = plain()
    graph.nodes.append(helper.make_node(f"f{depth}", ["c"], ["d"], domain="local"))
    model = graph.pooled("d").model()
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend(made)
    return model


def test_function_inlining_is_limited(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(functions(3, 2), path)
    assert isinstance(read(path), Network)
    onnx.save(functions(24, 2), path)
    assert "when its functions are written out" in read(path)
    onnx.save(functions(60, 1), path)
    assert "nested more than" in read(path)


def test_a_function_that_calls_itself_is_refused(tmp_path):
    model = functions(1, 1)
    model.functions[1].node[0].op_type = "f1"
    onnx.save(model, tmp_path / "net.onnx")
    assert "nested more than" in read(tmp_path / "net.onnx")


def test_a_cyclic_graph_is_refused(tmp_path):
    graph = plain().add("Relu", "e", "d").add("Relu", "d", "e").pooled("e")
    assert "its own output" in read(graph.save(tmp_path / "net.onnx"))


@pytest.mark.parametrize("backwards", [False, True])
def test_long_chains_take_time_in_proportion(tmp_path, backwards):
    graph = plain()
    for i in range(3000):
        graph.add("Identity" if i % 2 else "Tanh", f"t{i}" if i else "c", f"t{i + 1}")
    graph.pooled("t3000")
    if backwards:  # as some tools leave it
        graph.nodes.reverse()
    assert len(read(graph.save(tmp_path / "net.onnx")).layers) == 1503


DAMAGE = {
    "strides of 0": (lambda n: n.attribute.append(helper.make_attribute("strides", [0, 1])), "strides must be"),
    "huge pads": (lambda n: n.attribute.append(helper.make_attribute("pads", [1 << 40] * 4)), "too large"),
    "negative pads": (lambda n: n.attribute.append(helper.make_attribute("pads", [-1] * 4)), "pads"),
    "no groups": (lambda n: setattr(next(a for a in n.attribute if a.name == "group"), "i", 0), "groups"),
    "a type of attribute": (lambda n: n.attribute.append(helper.make_attribute("dilations", "x")), r"\(Conv\)"),
    "an input that is not there": (lambda n: n.input.__setitem__(0, "nowhere"), "nowhere|one input"),
    "no inputs": (lambda n: n.ClearField("input"), "one input"),
    "another operator": (lambda n: setattr(n, "op_type", "BatchNormalization"), r"\(BatchNormalization\)"),
    "no operator": (lambda n: setattr(n, "op_type", ""), "not supported"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_nodes_are_named(tmp_path, case):
    change, words = DAMAGE[case]
    model = plain().pooled("c").model()
    change(model.graph.node[0])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    message = read(tmp_path / "net.onnx")
    assert isinstance(message, str) and re.search(words, message), message


@pytest.mark.parametrize("dims", [[4, 3, 3], [1 << 40, 3, 3, 3], [-4, 3, 3, 3], [0, 3, 3, 3]])
def test_weights_with_other_dims_than_their_data_are_refused(tmp_path, dims):
    model = plain().pooled("c").model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "c.w")
    del weight.dims[:]
    weight.dims.extend(dims)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert isinstance(read(tmp_path / "net.onnx"), str)


def mutated(model, random):
    """A copy of a model with a few things changed that a parser lets pass."""
    copy = type(model).FromString(model.SerializeToString())
    graph = copy.graph
    numbers = [0, 1, -1, 2, 7, 1 << 31, 1 << 40, -(1 << 62), 255]
    names = (
        [name for node in graph.node for name in node.output] + [t.name for t in graph.initializer] + ["", "nowhere"]
    )
    for _ in range(random.integers(1, 4)):
        node = graph.node[random.integers(len(graph.node))]
        tensor = graph.initializer[random.integers(len(graph.initializer))]
        what = random.integers(6)
        if what == 0 and node.input:
            node.input[random.integers(len(node.input))] = names[random.integers(len(names))]
        elif what == 1 and node.attribute:
            attribute = node.attribute[random.integers(len(node.attribute))]
            if len(attribute.ints):
                attribute.ints[random.integers(len(attribute.ints))] = numbers[random.integers(len(numbers))]
            else:
                attribute.i = numbers[random.integers(len(numbers))]
        elif what == 2:
            node.op_type = graph.node[random.integers(len(graph.node))].op_type
        elif what == 3 and len(tensor.dims):
            tensor.dims[random.integers(len(tensor.dims))] = numbers[random.integers(len(numbers))]
        elif what == 4:
            shape = tuple(random.integers(0, 4, random.integers(0, 5)))
            tensor.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), tensor.name))
        elif len(graph.node) > 1:
            graph.node.remove(node)
    return copy


def networks():
    """Models of two kinds to damage."""
    residual = Graph((1, 3, 16, 16)).conv("x", "a", 3, 4, pads=[1] * 4).batchnorm("a", "b", 4).add("Sigmoid", "b", "s")
    residual.add("Mul", "b s", "m").conv("m", "c", 4, 4, pads=[1] * 4).add("Add", "m c", "d")
    residual.add("MaxPool", "d", "p", kernel_shape=[2, 2], strides=[2, 2]).pooled("p")
    tokens = Graph((1, 3, 16, 16), 17).conv("x", "c", 3, 8, kernel=4, strides=[4, 4])
    whole(tokens, s=[1, 8, 16]).add("Reshape", "c s", "r").add("Transpose", "r", "t", perm=[0, 2, 1])
    tokens.weight("g", 8).weight("h", 8).add("LayerNormalization", "t g h", "n", axis=-1)
    tokens.add("Transpose", "n", "k", perm=[0, 2, 1]).add("MatMul", "n k", "q").add("Softmax", "q", "w", axis=-1)
    tokens.add("MatMul", "w n", "v").add("Add", "v t", "u")
    tokens.add("ReduceMean", "u", "e", axes=[1], keepdims=0).weight("f", 8, 5).add("MatMul", "e f", "y")
    return [residual.model(), tokens.model()]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("seed", range(150))
def test_mutated_files_are_read_or_refused_by_their_name(tmp_path, seed, kind):
    path = tmp_path / "net.onnx"
    path.write_bytes(mutated(networks()[kind], np.random.default_rng(seed)).SerializeToString())
    net = read(path)
    if isinstance(net, Network):
        with np.errstate(all="ignore"):
            assert net.forward(np.zeros((1, *net.input_shape), np.float32)).shape[0] == 1


def test_files_that_were_not_mutated_are_read(tmp_path):
    for model in networks():
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        net = Network.from_onnx(tmp_path / "net.onnx", Preprocess((16, 16)))
        assert net.account is not None and len(net.forward(np.ones((2, 3, 16, 16), np.float32))) == 2
