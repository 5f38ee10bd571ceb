"""Import of ONNX files: any exporter's graph as a few canonical layers, with an account of how nodes were converted.

For `fvlrp.network.importing`, which only calls `read_network`. A file is parsed (`model`) and its nodes are converted
(`read`, with one module for each family of operators); constants are computed on demand (`constants`, `fold`), and
patterns become layers (`fuse`, with one module for each family of layers). Files are not trusted: sizes are limited,
loops are rejected, and every defect raises a ValueError that names the file and the node.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ...core.layer import Array
from ..graph import INPUT, Node
from ..layers import (
    Activation,
    Affine,
    Concat,
    Constant,
    Conv,
    Dense,
    Flatten,
    Gather,
    NetworkLayer,
    Quantise,
    Reshape,
    Scale,
    Shape,
    Slice,
    Softmax,
    Transpose,
)
from . import arithmetic, classic, fused, moves, planes, products, quantised, reductions
from .account import Account
from .fuse import Graph, simplified
from .model import Model, load
from .read import Reader
from .steps import Step, View

__all__ = ["Account", "Imported", "read_network"]

_COMPUTING = (
    arithmetic.OPERATORS
    | classic.OPERATORS
    | fused.OPERATORS
    | planes.OPERATORS
    | products.OPERATORS
    | reductions.OPERATORS
)
_MOVING = moves.OPERATORS | {name: _COMPUTING[name] for name in ("Identity", "MaxPool")}
OPERATORS = (
    {name: quantised.of_numbers(operator) for name, operator in _COMPUTING.items()}
    | {name: quantised.moving(operator) for name, operator in _MOVING.items()}
    | quantised.OPERATORS
)
APART = 32  # pixels by which a second input size differs, to find out which layers depend on the size


@dataclass(frozen=True, eq=False)
class Imported:
    """A network as stored in a file.

    Attributes
    ----------
    nodes : list of Node
    input_shape : (C, H, W)
        H and W are None if the file leaves them free and no layer depends on them.
    multilabel : bool
        Whether the scores ended in a sigmoid.
    high : float
        The value of white that the network expects, if it normalises its input itself; otherwise 0 (unknown).
    black : float
        The value of black: 0, or -128 for an int8 input, whose white is then 127.
    metadata : dict of str to str
    account : Account
    """

    nodes: list[Node]
    input_shape: tuple[int, int | None, int | None]
    multilabel: bool
    high: float
    black: float
    metadata: dict[str, str]
    account: Account


def read_network(
    path: str | os.PathLike[str], size: tuple[int, int], output: str | None = None, counts: Sequence[int] = ()
) -> Imported:
    """The network of an ONNX file.

    Parameters
    ----------
    path : path
    size : (int, int)
        Height and width to assume if the file leaves them free.
    output : str, optional
        Name of the output or inner tensor that holds the scores; None: the only output that can.
    counts : sequence of int, optional
        Numbers of scores that are likely, to choose among several outputs.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    OSError
        The file, or a file that it refers to, cannot be read.
    ValueError
        The file is not ONNX, or something in it is not supported; the message names the node and the operator.
    """
    name = os.fspath(path)
    model = load(name)
    try:
        return _Import(model, size, output, counts).run()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{name} is damaged, or is built in a way that fvlrp does not know: {error!r}") from error


@dataclass(eq=False)
class _Read:
    """A file read for one input size."""

    graph: Graph
    reader: Reader
    output: str
    ends: list[tuple[str, str]]
    multilabel: bool


class _Import:
    """The conversion of a model to nodes."""

    def __init__(self, model: Model, size: tuple[int, int], output: str | None, counts: Sequence[int]) -> None:
        if not model.inputs:
            raise ValueError("the graph must have one input, a photograph; no node reads one")
        self.name, shape = next(iter(model.inputs.items()))
        if len(model.inputs) > 1:
            named = ", ".join(map(repr, model.inputs))
            raise ValueError(
                f"the graph must have one input, a photograph; it has {named}: "
                "export the network with the values of all others as constants in the file"
            )
        shape = _planes(self.name, shape, size)
        if len(shape) != 4:
            raise ValueError(f"input {self.name!r} must be (batch, channels, height, width), it is {shape}")
        self.model, self.output, self.counts = model, output, counts
        self.batch = shape[0] or 1
        square = isinstance(shape[1], int) and shape[1] == shape[2] != shape[3]
        self.rank = len(model.inputs[self.name] or shape)
        self.last = shape[1] not in (1, 3) and (shape[3] in (1, 3) or square)  # channels last
        channels, height, width = (shape[3], shape[1], shape[2]) if self.last else shape[1:]
        channels = _channels_read(model, self.name) if channels is None else channels
        if channels is None:
            raise ValueError(f"input {self.name!r} must be (batch, channels, height, width), it is {shape}")
        self.channels = channels
        self.free = height is None or width is None
        self.declared = height, width
        self.size = height or size[0], width or size[1]
        self.candidates = self._candidates()

    def run(self) -> Imported:
        try:
            read = self._first_read()
        except ValueError as error:
            if not self.free:
                raise
            raise ValueError(
                f"{error}; the file leaves the size of its input free, and it was read for "
                f"{self.size[0]} x {self.size[1]} pixels: "
                "if the network is for another size, give it as preprocess=fvlrp.Preprocess((height, width), ...)"
            ) from error
        account = Account()
        height, width = self.declared
        if self.free and not self._any_size(read):
            account.notes.append(
                f"the input is fixed at {self.size[0]} x {self.size[1]} pixels: layers depend on its size"
            )
            height, width = self.size
        nodes = _nodes(read.graph)
        self._explain(account, read, nodes)
        return Imported(
            nodes, (self.channels, height, width), read.multilabel, _white(read.graph, self.model.black is not None),
            self.model.black or 0, self.model.metadata, account,
        )  # fmt: skip

    def _first_read(self) -> _Read:
        """The file as read for its own size; outputs that cannot be read do not matter if others can."""
        try:
            return self._read(self.size)
        except ValueError:
            every = self.candidates
            self.candidates = [name for name in every if len(every) > 1 and self._readable(name)]
            if len(self.candidates) in (0, len(every)):
                raise
            return self._read(self.size)

    def _readable(self, output: str) -> bool:
        try:
            self._reader(self.size, [output])
        except ValueError:
            return False
        return True

    def _reader(self, size: tuple[int, int], outputs: Sequence[str]) -> Reader:
        """What the outputs are computed from, as steps."""
        source = Step("input", None, [], (self.channels, *size))
        reader = Reader(self.model, OPERATORS, self.name, View(source, 0), self.batch)
        view = View(source, 0)
        if self.last:
            reader.call = replace(self.model.calls[0], name="channels_last", scope="")
            view = reader.transposed(view, (0, 2, 3, 1))
        if self.rank < 4:
            reader.call = replace(self.model.calls[0], name="pixels", scope="")
            view = reader.reshaped(view, (1, *size) if self.rank == 3 else (1, prod(source.shape)))
        reader.views[self.name] = view
        reader.wholes |= set() if self.model.black is None else {self.name}
        reader.run(self.model.calls, set(outputs))
        return reader

    def _read(self, size: tuple[int, int]) -> _Read:
        reader = self._reader(size, self.candidates)
        output = self._chosen(reader, self.candidates)
        reader.call = replace(self.model.calls[-1], name="scores", scope="")
        last = _scores(reader, output)
        graph = simplified(last)
        ends, multilabel = _without_ends(graph)
        return _Read(graph, reader, output, ends, multilabel)

    def _candidates(self) -> list[str]:
        """Outputs that may hold the scores; the caller may name any tensor inside the graph."""
        outputs = self.model.outputs
        if self.output is not None:
            if self.output not in outputs and not any(self.output in call.outputs for call in self.model.calls):
                raise ValueError(f"output must be one of {', '.join(map(repr, outputs))}, got {self.output!r}")
            return [self.output]
        if not outputs:
            raise ValueError("the graph has no output")
        flat = [
            name for name, shape in outputs.items() if shape is None or _row(shape[1:] if len(shape) > 1 else shape)
        ]
        return flat or list(outputs)

    def _chosen(self, reader: Reader, candidates: Sequence[str]) -> str:
        """The output that holds the scores."""
        rows = [name for name in candidates if name in reader.views and _row(reader.views[name].step.shape)]
        if len(rows) > 1:
            rows = [n for n in rows if prod(reader.views[n].shape) in self.counts] or rows
        if len(rows) > 1:
            rows = [n for n in rows if _learned(reader.views[n].step)] or rows
            rows = list({id(_before_ends(reader.views[n].step)): n for n in reversed(rows)}.values())[::-1]
        if len(rows) == 1 or (len(rows) > 1 and self.output is not None):
            return rows[0]
        if rows:
            named = ", ".join(map(repr, rows))
            raise ValueError(f"several outputs could hold the scores, {named}: give the name of one as `output`")
        (name, *_) = candidates
        if name not in reader.views:
            raise ValueError(f"output {name!r} does not depend on the input")
        shape = reader.views[name].step.shape
        raise ValueError(f"output {name!r} must be one score per class, it has the shape {shape} for each image")

    def _any_size(self, read: _Read) -> bool:
        """Whether the layers are the same for another input size; if so, reshapes get a free length (-1)."""
        other = tuple(own or n + APART for own, n in zip(self.declared, self.size, strict=True))
        try:
            second = self._read((other[0], other[1]))
        except ValueError:
            return False
        return _alike(read.graph.steps, second.graph.steps)

    def _explain(self, account: Account, read: _Read, nodes: list[Node]) -> None:
        steps = [step for step in read.graph.steps if step.layer is not None]
        merged = {id(step) for step in read.graph.fused}
        for step, node in zip(steps, nodes, strict=True):
            if id(step) in merged:
                account.fused.append((f"{node.name} ({node.kind})", step.nodes))
        account.folded += read.reader.constants.folded
        account.dropped += [(f"{name} ({op})", why) for name, op, why in read.reader.passed]
        account.dropped += read.ends
        if self.rank == 2:
            account.notes.append(f"the file's input is one row of pixels, (height, width{', RGB' * self.last})")
        elif self.last:
            account.notes.append("the file's input is (batch, height, width, channels)")
        if len(self.model.outputs) > 1 or read.output not in self.model.outputs:
            others = [name for name in self.model.outputs if name != read.output]
            account.notes.append(f"explains output {read.output!r}, not {', '.join(map(repr, others))}")
        if self.batch > 1:
            account.notes.append(f"the file is for batches of {self.batch} images; read for one")


def _planes(name: str, shape: tuple[int | None, ...] | None, size: tuple[int, int]) -> tuple[int | None, ...]:
    """The shape of an input with all its axes: (batch, height, width) is grey, one row of pixels grey or RGB."""
    if shape is None:
        return (None,) * 4
    if len(shape) == 3:
        return (shape[0], 1, *shape[1:])
    if len(shape) != 2 or shape[1] is None:
        return shape
    for channels in (1, 3):  # the caller's size, or a square
        side = math.isqrt(shape[1] // channels)
        for height, width in (size, (side, side)):
            if channels * height * width == shape[1]:
                return (shape[0], 1, height, width) if channels == 1 else (shape[0], height, width, 3)
    raise ValueError(
        f"input {name!r} has {shape[1]} values, which are not a square grey or RGB image: "
        "give its size as preprocess=fvlrp.Preprocess((height, width), ...)"
    )


def _channels_read(model: Model, name: str) -> int | None:
    """Number of input channels of the first convolution, for a file that leaves the input's shape open."""
    same = {name}
    for call in model.calls:
        if not call.inputs or call.inputs[0] not in same:
            continue
        if call.op == "Conv":
            weight = model.initialisers.get(call.inputs[1])
            return None if weight is None else int(weight.dims[1]) * int(call.get("group", 1))
        if call.op in ("Add", "Cast", "Div", "Identity", "Mul", "Pad", "Sub"):
            same.update(call.outputs)
    return None


def _row(shape: Sequence[int | None]) -> bool:
    """Whether a shape without its batch axis is one row of numbers; axes of length 1 do not count."""
    return sum(n != 1 for n in shape) <= 1


def _before_ends(step: Step) -> Step:
    """The scores before a softmax, sigmoid or change of shape at the end."""
    while isinstance(step.layer, Reshape | Flatten | Softmax | Activation | Quantise):
        step = step.inputs[0]
    return step


def _learned(step: Step) -> bool:
    """Whether scores are computed by a dense layer or convolution."""
    while isinstance(step.layer, Reshape | Flatten | Softmax | Activation | Constant | Scale | Affine | Quantise):
        step = step.inputs[0]
    return isinstance(step.layer, Dense | Conv)


def _scores(reader: Reader, output: str) -> Step:
    """The output as one row of scores for each image."""
    step = reader.views[output].step
    if step.layer is None:
        raise ValueError(f"output {output!r} is the input itself")
    return reader.moulded(step, (prod(step.shape),))


def _without_ends(graph: Graph) -> tuple[list[tuple[str, str]], bool]:
    """Drop a final softmax or sigmoid: scores before it are explained. What was dropped, and whether multi-label."""
    ends: list[tuple[str, str]] = []
    multilabel, step, behind = False, graph.last, graph.last
    while isinstance(step.layer, Reshape | Flatten | Quantise):
        step = step.inputs[0]
    layer = step.layer
    if isinstance(layer, Activation) and layer.name == "log" and isinstance(step.inputs[0].layer, Softmax):
        ends.append((step.name, "scores before the softmax are explained"))
        step = step.inputs[0]
        layer = step.layer
    if isinstance(layer, Softmax) and step.shape[layer.axis - 1] == prod(step.shape):
        ends.append((step.name, "scores before the softmax are explained"))
    elif (sigmoid := _both_sides(step)) is not None:
        ends.append((step.name, "the score before the sigmoid is explained"))
        step = sigmoid
    elif (sigmoid := _one_of_two(step)) is not None:
        ends.append((step.name, "the difference of the scores before the softmax is explained"))
        step = sigmoid
    elif isinstance(layer, Activation) and layer.name in ("sigmoid", "logsigmoid"):
        ends.append((step.name, "scores before the sigmoid are explained"))
        multilabel = prod(step.shape) > 1
    if ends:
        source = step.inputs[0]
        if len(source.shape) != 1:
            source = Step(behind.name, Flatten(), [source], (prod(source.shape),))
        graph.last = source
        graph.refresh()
        if source.layer is None:
            raise ValueError("nothing but a softmax or sigmoid is computed from the input")
    return ends, multilabel


def _both_sides(step: Step) -> Step | None:
    """The sigmoid p of one score, where a step joins 1 - p and p, as scikit-learn's networks do; else None."""
    if not isinstance(step.layer, Concat) or len(step.inputs) != 2 or step.shape != (2,):
        return None
    other, own = step.inputs
    if not (isinstance(own.layer, Activation) and own.layer.name == "sigmoid"):
        return None
    between: list[NetworkLayer] = []
    while other is not own:
        if len(other.inputs) != 1 or other.layer is None:
            return None
        between.append(other.layer)
        other = other.inputs[0]
    p = np.array([[0.0], [0.25], [1.0]], np.float32)
    rest: Array = p
    for layer in reversed(between):
        rest = layer.apply(rest)
    return own if np.array_equal(rest, 1 - p) else None


def _one_of_two(step: Step) -> Step | None:
    """The sigmoid of a difference of scores, which the probability of one of two classes is; None for others."""
    taken: list[NetworkLayer] = []
    while isinstance(step.layer, Reshape | Flatten | Slice | Gather):
        taken.append(step.layer)
        step = step.inputs[0]
    if not isinstance(step.layer, Softmax) or step.shape[step.layer.axis - 1] != 2 or prod(step.shape) != 2:
        return None
    part: Array = np.array([0.25, 0.75], np.float32).reshape(1, *step.shape)
    for layer in reversed(taken):
        part = layer.apply(part)
    if part.size != 1:
        return None
    scores = step.inputs[0]
    if len(scores.shape) > 1:
        scores = Step(step.name, Flatten(), [scores], (2,))
    weight = np.array([[-1, 1]] if part.item() == 0.75 else [[1, -1]], np.float32)
    difference = Step(step.name, Dense(weight, np.zeros(1, np.float32)), [scores], (1,))
    return Step(step.name, Activation("sigmoid"), [difference], (1,))


def _nodes(graph: Graph) -> list[Node]:
    """The steps as nodes with unique names."""
    names = {"input"}
    place: dict[int, int] = {}
    nodes: list[Node] = []
    for step in graph.steps:
        if step.layer is None:
            place[id(step)] = INPUT
            continue
        name = _named(step)
        unique, copies = name, 1
        while unique in names:
            copies += 1
            unique = f"{name}_{copies}"
        names.add(unique)
        place[id(step)] = len(nodes)
        nodes.append(Node.of(unique, step.layer, tuple(place[id(source)] for source in step.inputs)))
    return nodes


def _named(step: Step) -> str:
    """The name of a step: its module and operator if the exporter recorded the module, else the node's name."""
    if not step.scope or step.name.startswith(step.scope):
        return step.name
    return f"{step.scope}/{type(step.layer).__name__.lower()}"


def _alike(steps: Sequence[Step], others: Sequence[Step]) -> bool:
    """Whether two readings differ only in lengths of reshapes; those become free (-1)."""
    if len(steps) != len(others):
        return False
    place = [{id(step): i for i, step in enumerate(some)} for some in (steps, others)]
    changes: list[tuple[Step, NetworkLayer]] = []
    for step, other in zip(steps, others, strict=True):
        if type(step.layer) is not type(other.layer):
            return False
        if [place[0][id(s)] for s in step.inputs] != [place[1][id(s)] for s in other.inputs]:
            return False
        if step.layer is None or other.layer is None:
            continue
        if isinstance(step.layer, Reshape) and isinstance(other.layer, Reshape):
            free = _free(step.layer.shape, other.layer.shape)
            if free is None:
                return False
            changes.append((step, Reshape(free)))
        elif not _equal(vars(step.layer), vars(other.layer)):
            return False
    for step, layer in changes:
        step.layer = layer
    return True


def _free(a: Shape, b: Shape) -> Shape | None:
    """The target shape of a reshape, from its shapes at two input sizes; a length that differs becomes -1."""
    if len(a) != len(b):
        return None
    differ = [i for i, (n, m) in enumerate(zip(a, b, strict=True)) if n != m]
    if len(differ) > 1:
        return None
    return tuple(-1 if i in differ else n for i, n in enumerate(a))


def _equal(a: dict[str, object], b: dict[str, object]) -> bool:
    def same(x: object, y: object) -> bool:
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return x is y or (x.shape == y.shape and np.array_equal(x, y))
        return bool(x == y)

    keys = {key for key in (*a, *b) if not key.startswith("_")}
    return all(key in a and key in b and same(a[key], b[key]) for key in keys)


def _white(graph: Graph, integer: bool) -> float:
    """The value of white, for a network that takes integers or normalises its input itself; otherwise 0 (unknown)."""
    if integer:
        return 255.0
    for step in graph.steps:
        if step.inputs and step.inputs[0].layer is None:
            while isinstance(step.layer, Gather | Scale | Constant | Affine | Reshape | Flatten | Transpose | Quantise):
                if isinstance(step.layer, Scale | Constant | Affine):
                    return _range_of(step.layer)
                following = [other for other in graph.steps if step in other.inputs]
                if len(following) != 1:
                    break
                step = following[0]
    return 0.0


def _range_of(layer: Scale | Constant | Affine) -> float:
    """255 if the layer divides by about 255, or subtracts more than an image in [0, 1] could have; otherwise 1."""
    if isinstance(layer, Constant):
        return 255.0 if np.abs(layer.value).max() > 3 else 1.0
    factor = layer.factor if isinstance(layer, Scale) else layer.scale
    return 255.0 if np.abs(factor).max() < 0.1 else 1.0
