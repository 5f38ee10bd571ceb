"""Import of Caffe networks, without Caffe: a prototxt (layers, as text) and a caffemodel (weights, as bytes).

For `fvlrp.network.importing`, which only calls `read_network`. Follows Caffe's conventions: pools round their size up,
padding counts in averages, photographs are BGR in 0..255. Files are not trusted: every defect raises a ValueError that
names the file and the layer.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.types import Parsed
from .graph import INPUT, Node, ancestors
from .layers import (
    LRN,
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    NetworkLayer,
    ReLU,
)
from .preprocess import Preprocess
from .protobuf import Message, fields, parse_text, varint

Array = npt.NDArray[np.float32]
# Layers that do not change the scores at test time; `Split` copies.
SKIPPED = {"Dropout", "Split", "Accuracy", "Silence"}
SOURCES = {"Input", "Data", "ImageData", "MemoryData", "HDF5Data", "DummyData", "WindowData"}
# Final layers that only rescale the scores: the scores before them are explained.
ENDS = {"Softmax", "SoftmaxWithLoss", "Sigmoid", "SigmoidCrossEntropyLoss", "HingeLoss"}
SEVERAL = {"Sigmoid", "SigmoidCrossEntropyLoss"}  # final layers of multi-label networks
# Layer types in files before 2015: number, name in the text form, and today's name.
OLD_TYPES = {
    3: ("CONCAT", "Concat"),
    4: ("CONVOLUTION", "Convolution"),
    5: ("DATA", "Data"),
    6: ("DROPOUT", "Dropout"),
    8: ("FLATTEN", "Flatten"),
    14: ("INNER_PRODUCT", "InnerProduct"),
    15: ("LRN", "LRN"),
    17: ("POOLING", "Pooling"),
    18: ("RELU", "ReLU"),
    19: ("SIGMOID", "Sigmoid"),
    20: ("SOFTMAX", "Softmax"),
    21: ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
    22: ("SPLIT", "Split"),
    25: ("ELTWISE", "Eltwise"),
}
OLD_NAMES = dict(OLD_TYPES.values())


@dataclass(frozen=True, eq=False)
class Imported:
    """A network as stored in its files.

    Attributes
    ----------
    nodes : list of Node
    input_shape : (C, H, W)
    multilabel : bool
        Whether the scores ended in a sigmoid.
    preprocess : Preprocess
        BGR in 0..255, less the mean that the prototxt states.
    states_mean : bool
        Whether it states one.
    """

    nodes: list[Node]
    input_shape: tuple[int, int, int]
    multilabel: bool
    preprocess: Preprocess
    states_mean: bool


def read_network(prototxt: str | os.PathLike[str], caffemodel: str | os.PathLike[str]) -> Imported:
    """The layers of a Caffe network, with their weights.

    Parameters
    ----------
    prototxt : path
        The network for deployment or testing; layers of the training phase are skipped.
    caffemodel : path
        The weights, by name of the layer.

    Raises
    ------
    OSError
        One of the files cannot be read.
    ValueError
        A file is damaged, the files do not belong together, or a layer type is not supported. The message names the
        file and the layer.
    """
    try:
        net = parse_text(Path(prototxt).read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(prototxt)} is not a prototxt, or it is damaged: {error}") from error
    try:
        weights = read_weights(Path(caffemodel).read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise ValueError(f"{os.fspath(caffemodel)} is not a caffemodel, or it is damaged: {error}") from error
    try:
        return _Builder(net, weights, Path(prototxt).parent).build()
    except ValueError as error:
        raise ValueError(f"{os.fspath(prototxt)}: {error}") from error


# ---- weights ----


def _blob(data: memoryview) -> Array:
    """BlobProto: its values in the shape it states, the old four numbers or the new list."""
    old, shape, parts = [1, 1, 1, 1], None, []
    for number, wire, value in fields(data):
        if 1 <= number <= 4 and wire == 0:
            old[number - 1] = value
        elif number in (5, 8) and wire != 0:  # data, double_data; packed, or one value a field
            parts.append(np.frombuffer(value, "<f4" if number == 5 else "<f8"))
        elif number == 7:
            shape = _dims(value)
    values = np.concatenate(parts).astype(np.float32) if parts else np.empty(0, np.float32)
    stated = old if shape is None else shape
    if prod(stated) != values.size:
        raise ValueError(f"a blob of shape {tuple(stated)} holds {values.size} values")
    return values.reshape(stated)


def _dims(data: memoryview) -> list[int]:
    dims: list[int] = []
    for number, wire, value in fields(data):
        if number == 1 and wire == 0:
            dims.append(value)
        elif number == 1:
            at = 0
            while at < len(value):
                dim, at = varint(value, at)
                dims.append(dim)
    return dims


def read_weights(data: bytes) -> dict[str, list[Array]]:
    """The blobs of every layer of a NetParameter, by the layer's name; layers without blobs are left out."""
    weights: dict[str, list[Array]] = {}
    for number, wire, value in fields(memoryview(data)):
        if number not in (2, 100) or wire != 2:  # `layers` before 2015, `layer` since
            continue
        of_name, of_blobs = (1, 7) if number == 100 else (4, 6)
        name, blobs = "", []
        for part, kind, content in fields(value):
            if part == of_name and kind == 2:
                name = bytes(content).decode("utf-8", "replace")
            elif part == of_blobs and kind == 2:
                blobs.append(_blob(content))
        if blobs:
            weights[name] = blobs
    return weights


# ---- layers ----


@dataclass
class _Builder:
    """Builds nodes from the messages of a prototxt."""

    net: Message
    weights: dict[str, list[Array]]
    folder: Path
    nodes: list[Node] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    tops: dict[str, int] = field(default_factory=dict)  # the node that computes each blob now: layers work in place
    scores: int | None = None  # the node that computes what an end reads
    multilabel: bool = False

    def build(self) -> Imported:
        layers = [*self.net.get("layer", []), *self.net.get("layers", [])]
        layers = [layer for layer in layers if _in_test_phase(layer)]
        self.input_shape = self._input_shape(layers)
        for layer in layers:
            kind = _kind(layer)
            if kind in SOURCES:
                continue
            if kind in ENDS:
                self._end(layer, kind)
                continue
            name = str(_one(layer, "name", kind))
            try:
                self._layer(name, kind, layer)
            except (ValueError, TypeError, ArithmeticError) as error:
                raise ValueError(f"layer {name!r} ({kind}): {error}") from error
        if not self.nodes:
            raise ValueError("it has no layers that compute anything")
        last = len(self.nodes) - 1 if self.scores is None else self.scores
        if len(self.shapes[last]) > 1:
            last = self._append("scores", Flatten(), [last])
        preprocess, stated = self._preprocess(layers)
        return Imported(folded(self.nodes, last), self.input_shape, self.multilabel, preprocess, stated)

    def _end(self, layer: Message, kind: str) -> None:
        """The scores are what the last of the ends reads."""
        read = [self.tops[str(bottom)] for bottom in layer.get("bottom", [])[:1] if str(bottom) in self.tops]
        if read and read[0] != INPUT:
            self.scores, self.multilabel = read[0], kind in SEVERAL

    def _input_shape(self, layers: list[Message]) -> tuple[int, int, int]:
        """Channels, height and width, and the blob that is the photograph."""
        sources = [layer for layer in layers if _kind(layer) in SOURCES]
        if self.net.get("input"):
            top = str(self.net["input"][0])
            dims = self.net.get("input_dim", [])[:4]
            if self.net.get("input_shape"):
                dims = self.net["input_shape"][0].get("dim", [])
        elif sources:
            top = str(_one(sources[0], "top", "data"))
            shapes = _part(sources[0], "input_param").get("shape", [])
            dims = shapes[0].get("dim", []) if shapes else []
            if not dims:
                crop = int(_one(_part(sources[0], "transform_param"), "crop_size", 0))
                dims = [1, 3, crop, crop] if crop else []
        else:
            raise ValueError("it does not state its input; expected `input` and `input_dim`, or a layer of type Input")
        if len(dims) != 4 or not all(isinstance(dim, int) and dim > 0 for dim in dims[1:]):
            raise ValueError(f"the input must have four lengths (batch, channels, height, width), got {dims}")
        self.tops[top] = INPUT
        return dims[1], dims[2], dims[3]

    def _layer(self, name: str, kind: str, layer: Message) -> None:
        bottoms = [str(bottom) for bottom in layer.get("bottom", [])]
        unknown = [bottom for bottom in bottoms if bottom not in self.tops]
        if unknown and kind in SKIPPED:  # an accuracy reads labels
            return
        if unknown or not bottoms:
            raise ValueError(f"it reads {unknown}, which no layer before it computes")
        inputs = [self.tops[bottom] for bottom in bottoms]
        node = inputs[0]
        if kind not in SKIPPED:
            if kind not in KNOWN:
                known = ", ".join(sorted({*KNOWN, *SKIPPED, *ENDS, *SOURCES}))
                raise ValueError(f"fvlrp knows no layers of this type; it knows {known}")
            for made in KNOWN[kind](layer, self.weights.get(name, []), *(self._shape(k) for k in inputs)):
                node = self._append(name, made, inputs)
                inputs = [node]
        for top in layer.get("top", []):
            self.tops[str(top)] = node

    def _shape(self, node: int) -> tuple[int, ...]:
        return self.input_shape if node == INPUT else self.shapes[node]

    def _append(self, name: str, layer: NetworkLayer, inputs: list[int]) -> int:
        shape = layer.out_shape(*(self._shape(k) for k in inputs))
        names = {node.name for node in self.nodes} | {"input"}
        unique, i = name, 2
        while unique in names:
            unique, i = f"{name}_{i}", i + 1
        self.nodes.append(Node.of(unique, layer, tuple(inputs)))
        self.shapes.append(shape)
        return len(self.nodes) - 1

    # ---- photographs ----

    def _preprocess(self, layers: list[Message]) -> tuple[Preprocess, bool]:
        """BGR in 0..255, less the mean and times the scale of the data layer's transform_param."""
        parts = [_part(layer, "transform_param") for layer in layers if _kind(layer) in SOURCES]
        part = parts[0] if parts else {}
        mean = tuple(float(value) for value in part.get("mean_value", []))
        file = self.folder / str(_one(part, "mean_file", "")) if part.get("mean_file") else None
        if file is not None and file.is_file():
            planes = _blob(memoryview(file.read_bytes()))
            mean = tuple(planes.reshape(-1, *planes.shape[-2:]).mean(axis=(1, 2)).tolist())
        scale = float(_one(part, "scale", 1))
        channels = self.input_shape[0]
        if len(mean) not in (1, channels) or not scale:
            mean = (0.0,)
        # Caffe subtracts the mean and then multiplies; ours divides by std in the end.
        made = Preprocess(
            self.input_shape[1:],
            order="BGR" if channels == 3 else "grey",
            high=255,
            mean=mean,
            std=(1 / scale if scale else 1.0,),
        )
        return made, mean != (0.0,)


def folded(nodes: Sequence[Node], last: int) -> list[Node]:
    """Nodes that `last` is computed from, channelwise constants put into the convolution that nothing else reads."""
    kept = sorted(ancestors(nodes, last))
    readers = Counter(source for i in kept for source in nodes[i].inputs)
    out: list[Node] = []
    place = {INPUT: INPUT}
    for i in kept:
        node, before = nodes[i], place[nodes[i].inputs[0]]
        conv = out[before].layer if before != INPUT else None
        if isinstance(node.layer, Affine) and isinstance(conv, Conv) and readers[nodes[i].inputs[0]] == 1:
            weight = conv.weight * node.layer.scale[:, None, None, None]
            conv = replace(conv, weight=weight, bias=conv.bias * node.layer.scale + node.layer.shift)
            out[before] = Node.of(out[before].name, conv, out[before].inputs)
            place[i] = before
            continue
        out.append(Node.of(node.name, node.layer, tuple(place[source] for source in node.inputs)))
        place[i] = len(out) - 1
    return out


# ---- one function for each type of layer: what it becomes ----


def convolution(layer: Message, blobs: list[Array], shape: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "convolution_param")
    filters, groups = int(_one(part, "num_output")), int(_one(part, "group", 1))
    kernel = _pair(part, "kernel")
    if kernel is None:
        raise ValueError("it states no kernel_size")
    pad, stride = _pair(part, "pad") or (0, 0), _pair(part, "stride") or (1, 1)
    dilation = _pair(part, "dilation") or (1, 1)
    if filters < 1 or groups < 1 or shape[0] % groups:
        raise ValueError(f"{filters} filters in {groups} groups do not fit {shape[0]} channels")
    weight = _shaped(blobs, 0, (filters, shape[0] // groups, *kernel))
    bias = _shaped(blobs, 1, (filters,)) if _one(part, "bias_term", True) else np.zeros(filters, np.float32)
    return [Conv(weight, bias, stride, (*pad, *pad), dilation, groups)]


def inner_product(layer: Message, blobs: list[Array], shape: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "inner_product_param")
    outputs = int(_one(part, "num_output"))
    if _one(part, "transpose", False):
        weight = np.ascontiguousarray(_shaped(blobs, 0, (prod(shape), outputs)).T)
    else:
        weight = _shaped(blobs, 0, (outputs, prod(shape)))
    bias = _shaped(blobs, 1, (outputs,)) if _one(part, "bias_term", True) else np.zeros(outputs, np.float32)
    dense = Dense(weight, bias)
    return [Flatten(), dense] if len(shape) > 1 else [dense]


def relu(layer: Message, _blobs: list[Array], _shape: tuple[int, ...]) -> list[NetworkLayer]:
    slope = float(_one(_part(layer, "relu_param"), "negative_slope", 0))
    return [LeakyReLU(slope) if slope else ReLU()]


def pooling(layer: Message, _blobs: list[Array], shape: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "pooling_param")
    how = str(_one(part, "pool", "MAX"))
    if how not in ("MAX", "AVE", "0", "1"):
        raise ValueError(f"it pools by {how}; expected MAX or AVE")
    average = how in ("AVE", "1")
    if _one(part, "global_pooling", False):
        if average:
            return [GlobalAveragePool()]
        return [MaxPool((shape[1], shape[2]), (1, 1))]
    kernel = _pair(part, "kernel")
    if kernel is None:
        raise ValueError("it states no kernel_size")
    pad, stride = _pair(part, "pad") or (0, 0), _pair(part, "stride") or (1, 1)
    up = str(_one(part, "round_mode", "CEIL")) in ("CEIL", "0")
    if average:
        return [AveragePool(kernel, stride, (*pad, *pad), up, count_include_pad=True)]
    return [MaxPool(kernel, stride, (*pad, *pad), up)]


def lrn(layer: Message, _blobs: list[Array], _shape: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "lrn_param")
    if str(_one(part, "norm_region", "ACROSS_CHANNELS")) not in ("ACROSS_CHANNELS", "0"):
        raise ValueError("it normalises within channels; expected ACROSS_CHANNELS")
    alpha, beta, k = (float(_one(part, key, usual)) for key, usual in (("alpha", 1), ("beta", 0.75), ("k", 1)))
    return [LRN(int(_one(part, "local_size", 5)), alpha, beta, k)]


def batch_norm(layer: Message, blobs: list[Array], shape: tuple[int, ...]) -> list[NetworkLayer]:
    mean, variance = (_shaped(blobs, i, (shape[0],)).astype(np.float64) for i in (0, 1))
    total = float(blobs[2].ravel()[0]) if len(blobs) > 2 and blobs[2].size else 1.0
    eps = float(_one(_part(layer, "batch_norm_param"), "eps", 1e-5))
    if total:  # sums of moving averages are stored, with their weight
        mean, variance = mean / total, variance / total
    scale = 1 / np.sqrt(variance + eps)
    return [Affine(scale.astype(np.float32), (-mean * scale).astype(np.float32))]


def scale(layer: Message, blobs: list[Array], *shapes: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "scale_param")
    if len(shapes) != 1 or _one(part, "axis", 1) != 1:
        raise ValueError("it scales by another layer's output or along another axis; expected constants of channels")
    channels = (shapes[0][0],)
    shift = _shaped(blobs, 1, channels) if _one(part, "bias_term", False) else np.zeros(channels, np.float32)
    return [Affine(_shaped(blobs, 0, channels), shift)]


def bias(_layer: Message, blobs: list[Array], *shapes: tuple[int, ...]) -> list[NetworkLayer]:
    if len(shapes) != 1:
        raise ValueError("it adds another layer's output; expected constants of channels")
    return [Affine(np.ones(shapes[0][0], np.float32), _shaped(blobs, 0, (shapes[0][0],)))]


def power(layer: Message, _blobs: list[Array], shape: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "power_param")
    if float(_one(part, "power", 1)) != 1:
        raise ValueError(f"its power is {_one(part, 'power')}; expected 1")
    scale, shift = (
        np.full(shape[0], float(_one(part, key, usual)), np.float32) for key, usual in (("scale", 1), ("shift", 0))
    )
    return [Affine(scale, shift)]


def concat(layer: Message, _blobs: list[Array], *shapes: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "concat_param")
    axis = int(_one(part, "axis", _one(part, "concat_dim", 1)))
    if axis < 0:
        axis += len(shapes[0]) + 1
    if not 1 <= axis <= len(shapes[0]):
        raise ValueError(f"it concatenates along axis {axis}, that of the batch or none")
    return [Concat(axis)]


def eltwise(layer: Message, _blobs: list[Array], *shapes: tuple[int, ...]) -> list[NetworkLayer]:
    part = _part(layer, "eltwise_param")
    if str(_one(part, "operation", "SUM")) not in ("SUM", "1") or set(part.get("coeff", [])) - {1}:
        raise ValueError("expected the operation SUM with coefficients of 1")
    return [Add()]


def flatten(_layer: Message, _blobs: list[Array], _shape: tuple[int, ...]) -> list[NetworkLayer]:
    return [Flatten()]


# What makes layers of a description, and of weights and shapes where it takes them.
Maker: TypeAlias = Callable[..., Sequence[NetworkLayer]]  # type: ignore[explicit-any]  # each kind takes its own
KNOWN: dict[str, Maker] = {
    "Convolution": convolution,
    "InnerProduct": inner_product,
    "ReLU": relu,
    "Pooling": pooling,
    "LRN": lrn,
    "BatchNorm": batch_norm,
    "Scale": scale,
    "Bias": bias,
    "Power": power,
    "Concat": concat,
    "Eltwise": eltwise,
    "Flatten": flatten,
}


def _kind(layer: Message) -> str:
    kind = _one(layer, "type", "")
    if isinstance(kind, int):
        return OLD_TYPES.get(kind, ("", str(kind)))[1]
    return OLD_NAMES.get(str(kind), str(kind))


def _in_test_phase(layer: Message) -> bool:
    phases = [str(rule["phase"][0]) for rule in layer.get("include", []) if rule.get("phase")]
    excluded = [str(rule["phase"][0]) for rule in layer.get("exclude", []) if rule.get("phase")]
    return (not phases or "TEST" in phases) and "TEST" not in excluded


def _part(layer: Message, key: str) -> Message:
    parts = layer.get(key, [])
    return parts[0] if parts and isinstance(parts[0], dict) else {}


def _one(message: Message, key: str, usual: object = None) -> Parsed:
    values = message.get(key)
    if values:
        return values[0]
    if usual is None:
        raise ValueError(f"it states no {key}")
    return usual


def _pair(part: Message, key: str) -> tuple[int, int] | None:
    """Height and width of `key`, which is spelt key_h and key_w, or once or twice as kernel_size, pad, stride."""
    if f"{key}_h" in part or f"{key}_w" in part:
        return int(_one(part, f"{key}_h", 0)), int(_one(part, f"{key}_w", 0))
    values = part.get("kernel_size" if key == "kernel" else key, [])
    if not values:
        return None
    return int(values[0]), int(values[-1])


def _shaped(blobs: list[Array], i: int, shape: tuple[int, ...]) -> Array:
    """Blob i in `shape`; old files pad shapes with ones."""
    if i >= len(blobs):
        raise ValueError(f"the caffemodel has {len(blobs)} arrays for it, expected {i + 1}: is it another network's?")
    if blobs[i].size != prod(shape):
        raise ValueError(f"its array {i} has the shape {blobs[i].shape}, expected {shape}: is it another network's?")
    return np.ascontiguousarray(blobs[i].reshape(shape))
