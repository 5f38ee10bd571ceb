"""A small residual network with seeded weights, written with onnx alone, at 224 x 224 pixels."""

import tempfile
from pathlib import Path
from time import process_time

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from skimage import data

import fvlrp

WIDTHS = (32, 64, 128)


class Writer:
    """Nodes and weights of an ONNX graph, in order."""

    def __init__(self):
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(0)

    def add(self, operator, *inputs, **attributes):
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape):
        values = self.rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, x, inputs, outputs, size, step=1):
        pads = [size // 2] * 4
        return self.add("Conv", x, self.weight(outputs, inputs, size, size), pads=pads, strides=[step, step])


def write(path):
    graph = Writer()
    x = graph.add("Relu", graph.conv("pixels", 3, WIDTHS[0], 7, 2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for inputs, outputs in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
        step = 1 if inputs == outputs else 2
        inner = graph.conv(graph.add("Relu", graph.conv(x, inputs, outputs, 3, step)), outputs, outputs, 3)
        x = graph.add("Relu", graph.add("Add", inner, graph.conv(x, inputs, outputs, 1, step)))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.add("Gemm", x, graph.weight(10, WIDTHS[-1]), transB=1)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 224, 224])
    scores = helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 10])
    made = helper.make_graph(graph.nodes, "residual", [pixels], [scores], graph.weights)
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Explanation:
    """A forward pass, and the way back from it."""

    timer = staticmethod(process_time)

    def setup(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "residual.onnx")
            write(path)
            self.net = fvlrp.Network.from_onnx(path, preprocess=fvlrp.Preprocess(size=(224, 224)), n_jobs=1)
        self.photo = data.astronaut()
        self.trace = self.net.trace(self.photo)

    def time_predict(self):
        self.net.decision_function([self.photo])

    def time_trace(self):
        self.net.trace(self.photo)

    def time_explain(self):
        self.trace.explain(0)

    def time_half_way(self):
        self.trace.explain(0, depth="maxpool2")
