"""ONNX graphs as layers: read once, simplified, and never needed again.

Parsing is the only work left to the package onnx. Whatever follows from constants is computed while reading; batch
normalisations and channelwise constants move into the convolution or dense layer beside them where that is exact.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from . import layers
from .graph import INPUT, Node
from .layers import Affine, Conv, Dense, NetworkLayer

OLDEST_OPSET = 7
UNKNOWN = -(1 << 40)  # a length that depends on the photograph; stays below -1 in all arithmetic that exporters do


@dataclass(eq=False)
class _Step:
    """A layer while the network is being put together; `inputs` are steps, None is the network's input."""

    name: str
    layer: NetworkLayer
    inputs: list[_Step | None]
    shape: tuple[int, ...]  # of its output, without the batch axis


def read(path, size: tuple[int, int]) -> tuple[list[Node], tuple]:
    """The layers of an ONNX file and the shape of its input, (C, H, W).

    Parameters
    ----------
    path : path
    size : (int, int)
        Height and width to assume where the file leaves them free; they are None in the shape returned.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    OSError
        There is no such file, or data it refers to is missing.
    ValueError
        It is no ONNX file, or holds what fvlrp does not support: the message names the node and the operator.
    """
    name = os.fspath(path)
    model = _parsed(name)
    if not model.HasField("graph"):  # such as an empty file, which is a message without fields
        raise ValueError(f"{name} is not an ONNX file, or it is damaged: it has no graph")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ValueError(f"{name} uses ONNX opset {opset}; expected {OLDEST_OPSET} or later: convert it with onnx")
    try:
        return _Reader(model.graph, opset, size).read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _parsed(name: str):
    try:
        import onnx
    except ImportError:
        raise ImportError("reading ONNX files needs the package onnx: pip install 'fvlrp[onnx]'") from None
    if not os.path.isfile(name):
        raise FileNotFoundError(f"no ONNX file {name}")
    try:
        return onnx.load(name, format="protobuf")  # whatever the name ends in
    except OSError:
        raise
    except onnx.checker.ValidationError as error:  # how onnx reports weights missing from beside the file
        raise OSError(f"cannot read the weights that {name} refers to: {error}") from error
    except Exception as error:  # protobuf's error has no public name that all versions share
        raise ValueError(f"{name} is not an ONNX file, or it is damaged: {error}") from error


class _Reader:
    """One graph on its way to layers.

    Every tensor is a constant, in `constants`, or the output of a step, in `steps`; those behind the softmax at the end
    are in `after_softmax`, too.
    """

    def __init__(self, graph, opset: int, size: tuple[int, int]):
        from onnx import numpy_helper

        self.graph, self.opset = graph, opset
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.steps: dict[str, _Step | None] = {}
        self.order: list[_Step] = []
        self.after_softmax: set[str] = set()
        if graph.sparse_initializer:
            raise ValueError("sparse initialisers are not supported; expected dense weights")
        inputs = [value for value in graph.input if value.name not in self.constants]
        used = {name for node in graph.node for name in node.input}
        inputs = [value for value in inputs if value.name in used]
        if len(inputs) != 1:
            raise ValueError(f"the graph must have one input, a photograph; it has {[v.name for v in inputs]}")
        if len(graph.output) != 1:
            raise ValueError(f"the graph must have one output, the scores; it has {[v.name for v in graph.output]}")
        lengths = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim]
        if len(lengths) != 4 or lengths[1] is None:
            raise ValueError(f"input {inputs[0].name!r} must be (batch, channels, height, width), it is {lengths}")
        self.input_shape = tuple(lengths[1:])
        self.free = None in self.input_shape
        self.batch = lengths[0]
        self.first_shape = tuple(own or given for own, given in zip(self.input_shape, (0, *size), strict=True))
        self.steps[inputs[0].name] = None
        self.names = {"input"}

    # ---- the walk ----

    def read(self) -> tuple[list[Node], tuple]:
        for node in self.graph.node:
            try:
                self._node(node)
            except (ValueError, IndexError, TypeError, KeyError) as error:
                raise ValueError(f"node {_label(node)!r} ({node.op_type}): {error}") from error
        output = self.graph.output[0].name
        if self.steps.get(output) is None:
            raise ValueError(f"output {output!r} does not depend on the input")
        last = self.steps[output]
        if len(last.shape) > 1 and prod(last.shape) == last.shape[0]:  # (C, 1, 1): fully convolutional
            last = self._append("scores", layers.Flatten(), [last])
        if len(last.shape) > 1:
            raise ValueError(f"the output must be one score per class, it has the shape {last.shape}")
        return self._nodes(_simplified(self.order, last), last), self.input_shape

    @staticmethod
    def _nodes(steps: list[_Step], last: _Step) -> list[Node]:
        place = {id(step): i for i, step in enumerate(steps)} | {id(None): INPUT}
        return [Node.of(step.name, step.layer, tuple(place[id(source)] for source in step.inputs)) for step in steps]

    def _node(self, node) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise ValueError(f"operators of the domain {node.domain!r} are not supported")
        names = [name for name in node.input if name]
        if node.op_type == "Shape" and node.input[0] in self.steps:
            self._constant(node, self._shape(node))
        elif all(name in self.constants for name in names):
            self._fold(node)
        elif node.op_type in _READERS:
            if any(name in self.after_softmax for name in names) and node.op_type not in _BEHIND_SOFTMAX:
                raise ValueError("nothing may be computed from a softmax: relevance starts at the scores before it")
            _READERS[node.op_type](self, node)
            if node.op_type in _SOFTMAX or node.input[0] in self.after_softmax:
                self.after_softmax.add(node.output[0])
        else:
            raise ValueError(f"this operator is not supported; supported are {', '.join(sorted(_READERS))}")

    def _append(self, name: str, layer: NetworkLayer, inputs: list) -> _Step:
        shape = layer.out_shape(*(self.first_shape if step is None else step.shape for step in inputs))
        unique, copies = name, 1
        while unique in self.names:
            copies += 1
            unique = f"{name}_{copies}"
        self.names.add(unique)
        step = _Step(unique, layer, inputs, shape)
        self.order.append(step)
        return step

    def _emit(self, node, layer: NetworkLayer, inputs: list | None = None) -> None:
        """The node's output is `layer` applied to the steps it reads (its first input, unless given)."""
        inputs = [self._step(node, 0)] if inputs is None else inputs
        self.steps[node.output[0]] = self._append(_label(node), layer, inputs)
        for name in node.output[1:]:
            if any(name in other.input for other in self.graph.node if name):
                raise ValueError(f"its output {name!r} is used, only the first is supported")

    def _alias(self, node) -> None:
        self.steps[node.output[0]] = self._step(node, 0)

    def _step(self, node, i: int) -> _Step | None:
        name = node.input[i]
        if name not in self.steps:
            raise ValueError(f"input {i} ({name!r}) must come from the photograph, it is a constant")
        return self.steps[name]

    def _in_shape(self, node, i: int = 0) -> tuple[int, ...]:
        step = self._step(node, i)
        return self.first_shape if step is None else step.shape

    # ---- constants ----

    def _constant(self, node, value) -> None:
        self.constants[node.output[0]] = np.asarray(value)

    def _shape(self, node) -> np.ndarray:
        """What Shape gives: 0 for the batch, which Reshape copies, and UNKNOWN where the photograph decides."""
        lengths = list(self._in_shape(node))
        if self.free and len(lengths) == 3:
            lengths[1:] = [1 if length == 1 else UNKNOWN for length in lengths[1:]]
        attributes = _attributes(node)
        return np.array([0, *lengths], np.int64)[attributes.get("start", 0) : attributes.get("end")]

    def _fold(self, node) -> None:
        """A node whose inputs are all constants, computed by onnx itself."""
        from onnx import ValueInfoProto, helper
        from onnx.reference import ReferenceEvaluator

        feeds = {name: self.constants[name] for name in node.input if name}
        outputs = [name for name in node.output if name]
        try:
            # As a model of its own, since a single node is taken for one of the newest opset.
            inputs = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in feeds.items()
            ]
            graph = helper.make_graph([node], "constants", inputs, [ValueInfoProto(name=name) for name in outputs])
            opset = [helper.make_opsetid("", self.opset)]
            results = ReferenceEvaluator(helper.make_model(graph, opset_imports=opset)).run(None, feeds)
        except Exception as error:  # whatever the operator's own reference implementation stumbles over
            raise ValueError(f"its value cannot be computed from constants: {error}") from error
        self.constants.update(zip(outputs, map(np.asarray, results), strict=True))

    def _value(self, node, i: int, default=None):
        """Constant input `i`; `default` where it is absent."""
        if i >= len(node.input) or not node.input[i]:
            return default
        if node.input[i] not in self.constants:
            raise ValueError(f"input {i} ({node.input[i]!r}) must be a constant")
        return self.constants[node.input[i]]

    def _weights(self, node, i: int, default=None):
        value = self._value(node, i, default)
        return None if value is None else np.asarray(value, np.float32)

    def _option(self, node, name: str, i: int, default=None):
        """An argument that is an attribute in early opsets and input `i` in later ones."""
        return _attributes(node).get(name, self._value(node, i, default))

    # ---- operators ----

    def _conv(self, node) -> None:
        given, weight = _attributes(node), self._weights(node, 1)
        if weight.ndim != 4:
            raise ValueError(f"its weight has shape {weight.shape}; expected two spatial axes")
        bias = self._weights(node, 2, np.zeros(len(weight)))
        stride, dilation = _pair(given, "strides"), _pair(given, "dilations")
        pads = self._pads(node, weight.shape[2:], stride, dilation)
        self._emit(node, Conv(weight, bias, stride, pads, dilation, given.get("group", 1)))

    def _pads(self, node, kernel, stride, dilation) -> tuple[int, int, int, int]:
        given = _attributes(node)
        how = given.get("auto_pad", b"NOTSET").decode()
        if how in ("NOTSET", ""):
            return tuple(given.get("pads", (0, 0, 0, 0)))
        if how == "VALID":
            return 0, 0, 0, 0
        if self.free and stride != (1, 1):
            raise ValueError(f"auto_pad {how} needs a fixed input size; the graph leaves height and width free")
        totals = [
            max(0, (-(-length // s) - 1) * s + d * (k - 1) + 1 - length)
            for length, k, s, d in zip(self._in_shape(node)[1:], kernel, stride, dilation, strict=True)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (*small, *large) if how == "SAME_UPPER" else (*large, *small)

    def _gemm(self, node) -> None:
        given, weight = _attributes(node), self._weights(node, 1)
        if given.get("transA", 0):
            raise ValueError("transA is not supported: rows are images")
        weight = weight if given.get("transB", 0) else weight.T
        if given.get("alpha", 1.0) != 1:  # a copy of a large layer takes longer than its product
            weight = given["alpha"] * weight
        bias = given.get("beta", 1.0) * np.broadcast_to(self._weights(node, 2, np.zeros(1)), (1, len(weight)))[0]
        self._dense(node, weight, bias)

    def _matmul(self, node) -> None:
        weight = self._weights(node, 1)
        if weight.ndim != 2:
            raise ValueError(f"its weight has shape {weight.shape}; expected (n_in, n_out)")
        self._dense(node, weight.T, np.zeros(weight.shape[1]))

    def _dense(self, node, weight, bias) -> None:
        if len(self._in_shape(node)) != 1:
            raise ValueError(f"it reads an array of {self._in_shape(node)} per image; expected one axis: flatten first")
        self._emit(node, Dense(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)))

    def _clip(self, node) -> None:
        low = float(self._option(node, "min", 1, -np.inf))
        high = float(self._option(node, "max", 2, np.inf))
        self._emit(node, layers.ReLU() if (low, high) == (0, np.inf) else layers.Clip(low, high))

    def _pool(self, node, average: bool) -> None:
        given = _attributes(node)
        kernel = tuple(given["kernel_shape"])
        if len(kernel) != 2:
            raise ValueError(f"its kernel has {len(kernel)} axes; expected height and width")
        stride, dilation = _pair(given, "strides"), _pair(given, "dilations")
        pads = self._pads(node, kernel, stride, dilation)
        ceil_mode = bool(given.get("ceil_mode", 0))
        if not average:
            self._emit(node, layers.MaxPool(kernel, stride, pads, ceil_mode, dilation))
            return
        if dilation != (1, 1):
            raise ValueError(f"dilations {dilation} are not supported for averages")
        include = bool(given.get("count_include_pad", 0))
        self._emit(node, layers.AveragePool(kernel, stride, pads, ceil_mode, include))

    def _mean(self, node) -> None:
        rank = 1 + len(self._in_shape(node))
        axes = self._option(node, "axes", 1)
        if axes is None or sorted(int(axis) % rank for axis in np.ravel(axes)) != [2, 3] or rank != 4:
            raise ValueError(f"the mean must be over height and width, axes 2 and 3; got {axes}")
        if _attributes(node).get("keepdims", 1):
            self._emit(node, layers.GlobalAveragePool())
            return
        pooled = self._append(f"{_label(node)}_mean", layers.GlobalAveragePool(), [self._step(node, 0)])
        self._emit(node, layers.Flatten(), [pooled])

    def _lrn(self, node) -> None:
        given = _attributes(node)
        beta, alpha, bias = (given.get(name, d) for name, d in (("beta", 0.75), ("alpha", 1e-4), ("bias", 1.0)))
        # Attributes are float32: their shortest decimal form is what was meant.
        self._emit(node, layers.LRN(given["size"], *(float(str(np.float32(v))) for v in (alpha, beta, bias))))

    def _batchnorm(self, node) -> None:
        if _attributes(node).get("training_mode", 0):
            raise ValueError("it is in training mode; export the network for inference")
        scale, shift, mean, variance = (np.asarray(self._weights(node, i), np.float64) for i in range(1, 5))
        # The attribute is float32: 1e-5 comes as 9.99999974e-6, which other programs use as it is.
        scale = scale / np.sqrt(variance + _attributes(node).get("epsilon", 1e-5))
        self._affine(node, 0, scale, shift - mean * scale)

    def _affine(self, node, i: int, scale, shift) -> None:
        """scale * x + shift, with x input `i`; numbers for all channels, or arrays (C,)."""
        channels = self._in_shape(node, i)[0]
        scale, shift = (np.array(np.broadcast_to(value, channels), np.float32) for value in (scale, shift))
        self._emit(node, Affine(scale, shift), [self._step(node, i)])

    def _channelwise(self, node, i: int) -> np.ndarray:
        """Constant input `i` as a number or one value per channel of the other input; refused if it is neither."""
        value, other = np.asarray(self._value(node, i), np.float64), self._in_shape(node, 1 - i)
        if value.size == 1:
            return value.reshape(())
        shape = (1,) * (1 + len(other) - value.ndim) + value.shape
        if len(shape) != 1 + len(other) or shape != (1, other[0], *(1,) * (len(other) - 1)):
            raise ValueError(f"its constant has shape {value.shape}; expected one number, or one per channel")
        return value.ravel()

    def _arithmetic(self, node) -> None:
        constant = [name in self.constants for name in node.input]
        if not any(constant):
            if node.op_type != "Add":
                raise ValueError("only sums of two computed arrays are supported")
            self._sum(node)
            return
        i = constant.index(True)
        value = self._channelwise(node, i)
        if node.op_type == "Mul":
            self._affine(node, 1 - i, value, 0)
        elif node.op_type == "Add":
            self._affine(node, 1 - i, 1, value)
        elif node.op_type == "Sub":
            self._affine(node, 1 - i, *((1, -value) if i else (-1, value)))
        elif i:
            self._affine(node, 0, 1 / value, 0)
        else:
            raise ValueError("a constant divided by a computed array is not supported")

    def _sum(self, node) -> None:
        if len(node.input) == 1:
            self._alias(node)
            return
        self._emit(node, layers.Add(), [self._step(node, i) for i in range(len(node.input))])

    def _concat(self, node) -> None:
        axis = _attributes(node)["axis"] % (1 + len(self._in_shape(node)))
        if axis == 0:
            raise ValueError("images of a batch must stay apart: axis 0 is not supported")
        self._emit(node, layers.Concat(axis), [self._step(node, i) for i in range(len(node.input))])

    def _flatten(self, node) -> None:
        axis = _attributes(node).get("axis", 1) % (1 + len(self._in_shape(node)))
        if axis != 1:
            raise ValueError(f"axis {axis} is not supported; expected 1, one row per image")
        self._to_shape(node, (-1,))

    def _reshape(self, node) -> None:
        target = [int(length) for length in np.ravel(self._option(node, "shape", 1))]
        source = self._in_shape(node)
        if _attributes(node).get("allowzero", 0) and 0 in target:
            raise ValueError("allowzero is not supported")
        if min(target) < -1:
            raise ValueError("its shape depends on the photograph's size; export the network with a fixed input size")
        # -1 for the batch is right where the rest takes up the whole of one image.
        keeps_batch = target[0] in (0, self.batch) or (target[0] == -1 and 0 not in target[1:])
        if not keeps_batch or (target[0] == -1 and prod(target[1:]) != prod(source)):
            raise ValueError(f"shape {target} does not keep the images of a batch apart")
        rest = [source[i] if length == 0 else length for i, length in enumerate(target[1:])]
        self._to_shape(node, tuple(rest))

    def _to_shape(self, node, shape: tuple[int, ...]) -> None:
        """The same numbers in another shape, one that `layers.Reshape` takes; nothing where it is the same shape."""
        source = self._in_shape(node)
        made = layers.Reshape(shape).out_shape(source)
        if made == source:
            self._alias(node)
        else:
            self._emit(node, layers.Flatten() if len(made) == 1 else layers.Reshape(shape))

    def _squeeze(self, node) -> None:
        source = (0, *self._in_shape(node))
        axes = self._option(node, "axes", 1)
        axes = [i for i, n in enumerate(source) if n == 1] if axes is None else [int(a) % len(source) for a in axes]
        if 0 in axes or any(source[axis] != 1 for axis in axes):
            raise ValueError(f"axes {axes} of an array of (batch, {', '.join(map(str, source[1:]))}) cannot be dropped")
        self._to_shape(node, tuple(length for i, length in enumerate(source) if i and i not in axes))

    def _unsqueeze(self, node) -> None:
        source = self._in_shape(node)
        added = np.ravel(self._option(node, "axes", 1))
        axes = sorted(int(axis) % (1 + len(source) + len(added)) for axis in added)
        if 0 in axes:
            raise ValueError("axis 0 is not supported: it is the batch")
        shape = list(source)
        for axis in axes:
            shape.insert(axis - 1, 1)
        self._to_shape(node, tuple(shape))

    def _transpose(self, node) -> None:
        source = (0, *self._in_shape(node))
        order = _attributes(node).get("perm", range(len(source))[::-1])
        long = [axis for axis in order if source[axis] != 1]
        if order[0] != 0 or long != sorted(long):
            raise ValueError(
                f"perm {list(order)} of an array of {source[1:]} moves pixels; only axes of length 1 may move"
            )
        self._to_shape(node, tuple(source[axis] for axis in order[1:]))

    def _pad(self, node) -> None:
        given = _attributes(node)
        if given.get("mode", b"constant") != b"constant":
            raise ValueError(f"mode {given['mode'].decode()!r} is not supported; expected a constant border")
        rank = 1 + len(self._in_shape(node))
        axes = self._value(node, 3)
        axes = range(rank) if axes is None else [int(axis) % rank for axis in axes]
        flat = [int(pad) for pad in np.ravel(self._option(node, "pads", 1))]
        pads = np.zeros((2, rank), int)
        pads[:, list(axes)] = np.reshape(flat, (2, -1))
        if rank != 4 or pads[:, :2].any() or pads.min() < 0:
            raise ValueError(f"pads {flat} are not supported; expected a border around height and width")
        if not pads.any():
            self._alias(node)
            return
        value = float(self._option(node, "value", 2, 0.0))
        self._emit(node, layers.Pad(tuple(int(pad) for pad in pads[:, 2:].ravel()), value))

    def _cast(self, node) -> None:
        from onnx import TensorProto

        if _attributes(node)["to"] not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
            raise ValueError("activations may only be cast to floating-point numbers")
        self._alias(node)

    def _softmax(self, node) -> None:
        shape = self._in_shape(node)
        axis = _attributes(node).get("axis", 1 if self.opset < 13 else -1) % (1 + len(shape))
        if prod(shape) != shape[0] or (axis != 1 and self.opset >= 13):
            raise ValueError("softmax is supported only over the classes, at the end of the network")
        self._alias(node)

    def _relu(self, node) -> None:
        self._emit(node, layers.ReLU())

    def _leaky(self, node) -> None:
        self._emit(node, layers.LeakyReLU(float(np.float32(_attributes(node).get("alpha", 0.01)))))

    def _global(self, node) -> None:
        self._emit(node, layers.GlobalAveragePool())


_SOFTMAX = ("Softmax", "LogSoftmax")
_BEHIND_SOFTMAX = ("Reshape", "Flatten", "Squeeze", "Identity", "Cast")
_READERS: dict[str, Callable] = {
    "Add": _Reader._arithmetic,
    "AveragePool": partial(_Reader._pool, average=True),
    "BatchNormalization": _Reader._batchnorm,
    "Cast": _Reader._cast,
    "Clip": _Reader._clip,
    "Concat": _Reader._concat,
    "Conv": _Reader._conv,
    "Div": _Reader._arithmetic,
    "Dropout": _Reader._alias,
    "Flatten": _Reader._flatten,
    "Gemm": _Reader._gemm,
    "GlobalAveragePool": _Reader._global,
    "Identity": _Reader._alias,
    "LRN": _Reader._lrn,
    "LeakyRelu": _Reader._leaky,
    "LogSoftmax": _Reader._softmax,
    "MatMul": _Reader._matmul,
    "MaxPool": partial(_Reader._pool, average=False),
    "Mul": _Reader._arithmetic,
    "Pad": _Reader._pad,
    "ReduceMean": _Reader._mean,
    "Relu": _Reader._relu,
    "Reshape": _Reader._reshape,
    "Softmax": _Reader._softmax,
    "Squeeze": _Reader._squeeze,
    "Sub": _Reader._arithmetic,
    "Sum": _Reader._sum,
    "Transpose": _Reader._transpose,
    "Unsqueeze": _Reader._unsqueeze,
}


def _label(node) -> str:
    """A readable name: the node's own, or that of its output."""
    return (node.name or node.output[0]).lstrip("/") or node.op_type.lower()


def _attributes(node) -> dict:
    from onnx.helper import get_attribute_value

    return {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}


def _pair(given: dict, name: str) -> tuple[int, int]:
    return tuple(given.get(name, (1, 1)))


# ---- simplification --------------------------------------------------------------------------------------------------


def _simplified(order: list[_Step], last: _Step) -> list[_Step]:
    """The steps that the output needs, channelwise constants and borders moved into their neighbours where exact."""
    steps = _needed(order, last)
    # A merged step reads what the one it took in read, so that these counts stay right.
    readers = Counter(id(source) for step in steps for source in step.inputs)
    gone = set()
    for step in steps:
        while (source := step.inputs[0]) is not None and readers[id(source)] == 1:
            merged = _merged(source.layer, step.layer)
            if merged is None:
                break
            if isinstance(step.layer, Affine):  # what a normalisation belongs to gives the name
                step.name = source.name
            step.layer, step.inputs = merged, source.inputs
            gone.add(id(source))
    return [step for step in steps if id(step) not in gone]


def _needed(order: list[_Step], last: _Step) -> list[_Step]:
    wanted, needed = [last], set()
    while wanted:
        step = wanted.pop()
        if step is not None and id(step) not in needed:
            needed.add(id(step))
            wanted += step.inputs
    return [step for step in order if id(step) in needed]


def _merged(first: NetworkLayer, second: NetworkLayer) -> NetworkLayer | None:
    """One layer that does what `first` and then `second` do, or None."""
    if isinstance(second, Affine):
        if isinstance(first, Affine):
            return Affine(first.scale * second.scale, first.shift * second.scale + second.shift)
        if isinstance(first, Conv | Dense):
            return _scaled(first, second)
    if isinstance(second, Conv) and isinstance(first, layers.Pad) and first.value == 0:
        return replace(second, pads=tuple(a + b for a, b in zip(first.pads, second.pads, strict=True)))
    if isinstance(first, Affine) and isinstance(second, Conv | Dense):
        return _fed(first, second)
    return None


def _scaled(layer: Conv | Dense, affine: Affine) -> NetworkLayer:
    """Convolution or dense layer, then a scale and a shift per output."""
    scale = affine.scale.astype(np.float64)
    weight = layer.weight * scale.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    bias = layer.bias * scale + affine.shift
    return replace(layer, weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _fed(affine: Affine, layer: Conv | Dense) -> NetworkLayer | None:
    """A scale and a shift per input channel, then a convolution or dense layer; the border must stay zero."""
    if isinstance(layer, Conv) and any(layer.pads) and affine.shift.any():
        return None
    if isinstance(layer, Dense) and layer.weight.shape[1] != len(affine.scale):
        return None
    groups = layer.groups if isinstance(layer, Conv) else 1
    per_group = (groups, len(layer.weight) // groups, layer.weight.shape[1], -1)
    weight = layer.weight.astype(np.float64).reshape(per_group)
    bias = layer.bias + np.einsum("goik,gi->go", weight, affine.shift.reshape(groups, -1)).ravel()
    weight = weight * affine.scale.reshape(groups, 1, -1, 1)
    return replace(layer, weight=weight.reshape(layer.weight.shape).astype(np.float32), bias=bias.astype(np.float32))
