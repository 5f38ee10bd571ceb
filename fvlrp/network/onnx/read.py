"""Conversion of a file's nodes: each becomes steps of the network or a constant, or is rejected.

For the modules of this package. Hides how tensors are stored; single operators are converted by `arithmetic`, `moves`,
`planes`, `products` and `reductions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...core.layer import Array
from ..layers import Expand, Flatten, NetworkLayer, Reshape, Shape, Transpose
from .constants import Constants
from .model import Attribute, Body, Call, Model, Value, reads
from .shapes import numbers
from .steps import Step, View, made, needed

MOST_STEPS = 20_000
LATEST = 23  # the opset of operators that stand for others
ELEMENTS = 1 << 28  # most values of one array for one image: 1 GiB
# Operators that are rejected, and why.
_LOOP = "a loop cannot be explained; export the network with its loops unrolled"
_RECURRENT = (
    "recurrent layers are not supported; nearest are attention (MatMul and Softmax) and 1-D convolutions (Conv)"
)
_SELECTION = "selections that depend on the photograph are not supported"
_BEFORE = f"{_SELECTION}; give the scores before it as `output`"
_BOXES = f"{_SELECTION}: fvlrp explains scores of whole images, one per class; name such an output as `output`"
_SPECTRUM = "complex numbers are not supported; nearest are MatMul or Conv with constant weights"
_LISTS = "lists of tensors are not supported; nearest are Concat and Split"
_TREES = "decision trees have no layers to propagate relevance through; nearest is LinearClassifier"
_KERNELS = "kernel machines are not supported; nearest is LinearClassifier"
_RANDOM = "random numbers are not supported; export the network for inference"
REFUSED: dict[tuple[str, str], str] = {
    **{("", op): _LOOP for op in ("Loop", "Scan")},
    **{("", op): _RECURRENT for op in ("GRU", "LSTM", "RNN")},
    **{("com.microsoft", op): _RECURRENT for op in ("DynamicQuantizeLSTM", "AttnLSTM")},
    **{("", op): _BEFORE for op in ("TopK", "ArgMax", "ArgMin", "Hardmax")},
    **{("", op): f"{_SELECTION}; nearest are Gather and Slice at constant places" for op in ("NonZero", "Unique")},
    **{("", op): _BOXES for op in ("NonMaxSuppression", "RoiAlign", "MaxRoiPool")},
    **{("", op): _SPECTRUM for op in ("DFT", "STFT", "MelWeightMatrix")},
    **{("com.microsoft", op): _SPECTRUM for op in ("Rfft", "Irfft")},
    **{("", op): _LISTS for op in ("SequenceConstruct", "SequenceInsert", "SequenceMap", "ConcatFromSequence")},
    **{("", op): _RANDOM for op in ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")},
    **{("", op): _RANDOM for op in ("RandomNormalLike", "RandomUniformLike")},
    **{("ai.onnx.ml", op): _TREES for op in ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")},
    **{("ai.onnx.ml", op): _KERNELS for op in ("SVMClassifier", "SVMRegressor")},
    **{("ai.onnx.ml", op): _BEFORE for op in ("ArrayFeatureExtractor", "LabelEncoder")},
    ("", "Equal"): "comparisons for equality that depend on the photograph are not supported; nearest is Less",
    ("", "GridSample"): "places that depend on the photograph are not supported; nearest is Resize",
    ("", "MaxUnpool"): "places that depend on the photograph are not supported; nearest is Resize",
    ("", "DeformConv"): "places that depend on the photograph are not supported; nearest is Conv",
}
# What to use instead of operators that are not supported.
_CURVES = "Tanh, Sin and Softsign"
_BITS = "And, Or and Not"
NEAREST = {
    **dict.fromkeys(("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"), _CURVES),
    **dict.fromkeys(("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Xor"), _BITS),
    "AffineGrid": "Resize and Slice",
    "CenterCropPad": "Slice and Pad",
    "Compress": "Gather and Slice",
    "CumProd": "Log, MatMul and Exp",
    "Det": "MatMul and ReduceSum",
    "Mod": "Floor, Mul and Sub",
    "OneHot": "Less and Greater",
    "ReduceProd": "Log, ReduceSum and Exp",
    "Scatter": "ScatterElements",
    "SwiGLU": "Split, Swish and Mul",
    "TensorScatter": "ScatterND",
}
LISTED = "the how-to 'Bring your own network' of the documentation"
# Domains whose operators are all rejected.
DOMAINS = {
    "com.microsoft.nchwc": "the file is laid out for one processor by onnxruntime's optimiser; save it with "
    "graph_optimization_level ORT_ENABLE_EXTENDED or lower, or read the file from before the optimisation",
    "com.ms.internal.nhwc": "the file is laid out for one processor by onnxruntime's optimiser; read the file from "
    "before the optimisation",
}

Operator: TypeAlias = Callable[["Reader", Call], None]


class Reader:
    """The conversion of a graph to steps.

    Attributes
    ----------
    constants : Constants
    views : dict of str to View
        Tensors that are computed from the photograph.
    lists : dict of str to list of View or array
        Lists of such tensors, or of constants.
    wholes : set of str
        Those of `views` that are integers in the file; their steps hold the real values that the integers stand for.
    source : Step
        The photograph.

    Parameters
    ----------
    model : Model
    operators : mapping of str to function (reader, call)
        What becomes of a node, by "Operator" or "domain.Operator".
    name : str
        The input's.
    view : View
        The input as the file has it.
    batch : int
        A fixed number of images that the file was exported for; 1 where it is free.
    """

    def __init__(self, model: Model, operators: dict[str, Operator], name: str, view: View, batch: int = 1) -> None:
        self.model, self.operators, self.batch = model, operators, batch
        self.constants = Constants(model.initialisers, model.size, partial(_computed, model, operators))
        self.views: dict[str, View] = {name: view}
        self.lists: dict[str, list[View | Value]] = {}
        self.wholes: set[str] = set()
        self.passed: list[tuple[str, str, str]] = []  # (node, operator, why it needs no step)
        self.count = 0
        self.call: Call | None = None

    # ---- the walk ----

    def run(self, calls: Sequence[Call], wanted: set[str]) -> None:
        """Read the nodes that the `wanted` tensors are computed from."""
        wanted = set(wanted)
        kept: list[Call] = []
        for call in reversed(calls):
            if wanted.intersection(call.outputs):
                wanted |= reads(call)
                kept.append(call)
        for call in reversed(kept):
            self.call = call
            try:
                self._node(call)
            except Exception as error:
                if str(error).startswith("node "):
                    raise
                raise ValueError(f"{call.title}: {_reason(error)}{self._feeds(call, calls)}") from error

    def _feeds(self, call: Call, calls: Sequence[Call]) -> str:
        """The nodes that read the outputs of a node, for a message."""
        fed = [other.title for other in calls if set(call.outputs) & reads(other)]
        return f"; it feeds {', '.join(fed[:3])}" if fed else ""

    def _node(self, call: Call) -> None:
        if call.op == "If" and not call.domain:
            self._branch(call)
        elif call.op == "Shape" and call.inputs[0] in self.views:
            shape = self.views[call.inputs[0]].shape
            self.put(call, np.array(shape, np.int64)[call.get("start", 0) : call.get("end")])
        elif call.op == "Size" and call.inputs[0] in self.views:
            self.put(call, np.int64(prod(self.views[call.inputs[0]].shape)))
        elif self._from_constants(call):
            self.constants.define(call)
        elif (call.domain, call.op) in REFUSED or call.domain in DOMAINS:
            reason = DOMAINS.get(call.domain) or REFUSED[call.domain, call.op]
            scores = [repr(name) for name in call.inputs if name in self.views] if reason == _BEFORE else []
            raise ValueError(f"{reason}, {scores[0]}" if scores else reason)
        else:
            self._operator(call)

    def _from_constants(self, call: Call) -> bool:
        return call.op != "SplitToSequence" and all(name in self.constants for name in reads(call))

    def _operator(self, call: Call) -> None:
        key = f"{call.domain}.{call.op}" if call.domain else call.op
        if key not in self.operators:
            raise ValueError(
                f"this operator is not supported; nearest are {self._nearest(call.op)}, and all that are supported are "
                f"listed in {LISTED}"
            )
        for name in call.inputs:
            if name and not any(name in known for known in (self.views, self.lists, self.constants)):
                raise ValueError(f"its input {name!r} comes from no node and is no input of the network")
        self.operators[key](self, call)
        for name in call.outputs[1:]:
            if name and name not in self.views and name not in self.constants and name in self._used:
                raise ValueError(f"its output {name!r} is used, only the first is supported")

    def _nearest(self, op: str) -> str:
        """Supported operators to use instead: those known to do, or those with the most similar names."""
        similar = get_close_matches(op, [name.rpartition(".")[2] for name in self.operators], 3)
        return NEAREST.get(op) or ", ".join(dict.fromkeys(similar)) or "Conv, MatMul, Mul and Relu"

    @property
    def _used(self) -> set[str]:
        if not hasattr(self, "_names"):
            self._names = {name for call in self.model.calls for name in reads(call)} | set(self.model.outputs)
        return self._names

    def _branch(self, call: Call) -> None:
        """The branch of an If whose condition is constant."""
        if call.inputs[0] not in self.constants:
            raise ValueError("its condition depends on the photograph; export the network without it")
        taken = bool(self.constants.value(call.inputs[0]).reshape(-1)[0])
        body = call.get("then_branch" if taken else "else_branch")
        if not isinstance(body, Body):
            raise ValueError(f"it has no {'then' if taken else 'else'} branch")
        self.passed.append((call.name, call.op, f"the {'then' if taken else 'else'} branch, by a constant"))
        self.constants.store(body.initialisers)
        self.run(body.calls, set(body.outputs))
        for outer, inner in zip(call.outputs, body.outputs, strict=True):
            if inner in self.views:
                self.views[outer] = self.views[inner]
                self.wholes |= {outer} if inner in self.wholes else set()
            else:
                self.constants.define(replace(call, op="Identity", inputs=(inner,), outputs=(outer,), attributes={}))

    # ---- what operators use ----

    def constant(self, call: Call, i: int) -> Value | None:
        """Constant input `i`; None where it is absent."""
        if i >= len(call.inputs) or not call.inputs[i]:
            return None
        if call.inputs[i] not in self.constants:
            raise ValueError(f"input {i} ({call.inputs[i]!r}) must be a constant")
        return self.constants.value(call.inputs[i])

    def needed(self, call: Call, i: int) -> Value:
        """Constant input `i`, which is required."""
        value = self.constant(call, i)
        if value is None:
            raise ValueError(f"input {i} is missing")
        return value

    def weights(self, call: Call, i: int) -> Value | None:
        """Constant input `i` in float32."""
        value = self.constant(call, i)
        return None if value is None else np.asarray(value, np.float32)

    def whole(self, call: Call, name: str, i: int) -> list[int] | None:
        """Integers that are an attribute in early opsets and constant input `i` in later ones; None if not given."""
        given = call.get(name)
        value = self.constant(call, i) if given is None else given
        return None if value is None else numbers(value)

    def number(self, call: Call, name: str, i: int, default: float) -> float:
        """A number that is an attribute or constant input `i`."""
        value = self.constant(call, i) if name not in call.attributes else call.attributes[name]
        return default if value is None else float(np.reshape(np.asarray(value), -1)[0])

    def is_constant(self, call: Call, i: int) -> bool:
        return call.inputs[i] in self.constants

    def has(self, call: Call, i: int) -> bool:
        """Whether optional input `i` is given."""
        return i < len(call.inputs) and bool(call.inputs[i])

    def view(self, call: Call, i: int = 0) -> View:
        """Input `i`, which must depend on the photograph."""
        if i >= len(call.inputs) or call.inputs[i] not in self.views:
            raise ValueError(f"input {i} must come from the photograph, it is a constant")
        return self.views[call.inputs[i]]

    def put(self, call: Call, value: npt.ArrayLike, i: int = 0) -> None:
        """Record that output `i` is a constant."""
        self.constants.put(call.outputs[i], value)

    def set(self, call: Call, view: View, i: int = 0) -> None:
        """Record that output `i` is that tensor."""
        self.views[call.outputs[i]] = view

    def same(self, call: Call, why: str) -> None:
        """Record that the node's output is its first input."""
        self.set(call, self.view(call))
        self.passed.append((call.name, call.op, why))

    def step(self, layer: NetworkLayer, *inputs: Step) -> Step:
        """A new step for the node being read."""
        call = self.call
        assert call is not None
        self.count += 1
        if self.count > MOST_STEPS:
            raise ValueError(f"the network has more than {MOST_STEPS} layers")
        step = made(_label(call.name), layer, inputs)
        step.nodes, step.scope = [call.name], call.scope
        if prod(step.shape) > ELEMENTS:
            raise ValueError(f"its output of {step.shape} for each image is too large; at most {ELEMENTS} values")
        return step

    def applied(self, call: Call, op: str, *parts: View | Value | None, **attributes: Attribute) -> View:
        """The output of ONNX operator `op` on tensors and constants (None: left out), for nodes that expand to several.

        Attributes follow the latest opset, or the one given as attribute `opset`, as QLinearSoftmax does.
        """
        output = f"{call.outputs[0]}/{op}"
        while output in self.views:
            output += "+"
        names = []
        for i, part in enumerate(parts):
            names.append("" if part is None else f"{output}/{i}")
            if isinstance(part, View):
                self.views[names[-1]] = part
            elif part is not None:
                self.constants.put(names[-1], part)
        opset = int(attributes.pop("opset", LATEST))
        self.operators[op](self, Call(op, "", call.name, tuple(names), (output,), attributes, opset, call.scope))
        return self.views[output]

    def emit(self, call: Call, layer: NetworkLayer, *views: View, i: int = 0) -> View:
        """Record that output `i` is `layer` of the views (by default the first input), with the batch axis in place."""
        views = views or (self.view(call),)
        view = View(self.step(layer, *(v.step for v in views)), views[0].batch)
        self.set(call, view, i)
        return view

    # ---- shapes ----

    def reshaped(self, view: View, shape: Shape) -> View:
        """A view reshaped to the file's shape `shape`; its batch axis stays where it was, or comes first."""
        batch = _batch_axis(view, shape)
        own = shape if batch is None else (*shape[:batch], *shape[batch + 1 :])
        return View(self.moulded(view.step, own), batch)

    def moulded(self, step: Step, shape: Shape) -> Step:
        """A step reshaped to another shape for one image; the step itself if the shape is the same."""
        if step.shape == shape:
            return step
        if len(shape) == 1 and len(step.shape) > 1:
            return self.step(Flatten(), step)
        return self.step(Reshape(shape), step)

    def full(self, view: View) -> View:
        """A view without a batch axis: the layer's shape is the file's."""
        return view if view.batch is None else View(self.moulded(view.step, view.shape), None)

    def transposed(self, view: View, order: Sequence[int]) -> View:
        """A view with the file's axes in another order."""
        order = [axis % len(view.shape) for axis in order]
        if sorted(order) != list(range(len(view.shape))):
            raise ValueError(f"{order} is not a permutation of the axes of an array of {view.shape}")
        batch = None if view.batch is None else order.index(view.batch)
        own = tuple(view.axis(axis) for axis in order if axis != view.batch)
        if list(own) == sorted(own):
            return View(view.step, batch)
        moved = Transpose(own)
        long = [axis for axis in own if view.step.shape[axis - 1] != 1]
        if long == sorted(long):  # only axes of length 1 move
            return View(self.moulded(view.step, moved.out_shape(view.step.shape)), batch)
        return View(self.step(moved, view.step), batch)

    def aligned(self, *views: View, apart: int = -1) -> tuple[list[Step], int | None]:
        """Steps of one rank, which broadcast as the file's tensors do, and their common batch axis: never `apart`."""
        rank = max(len(view.shape) for view in views)
        places = {None if view.batch is None else rank - len(view.shape) + view.batch for view in views}
        if len(places) == 1 and None not in places and apart not in places:
            batch = places.pop()
            assert batch is not None
            return [self._lifted(view.step, rank - 1) for view in views], batch
        steps = [self._lifted(self.full(view).step, rank) for view in views]
        front = apart != 0 and all(step.shape[0] == 1 for step in steps)
        if front and rank > 1:
            return [self.moulded(step, step.shape[1:]) for step in steps], 0
        return steps, None

    def _lifted(self, step: Step, rank: int) -> Step:
        return self.moulded(step, (*(1,) * (rank - len(step.shape)), *step.shape))

    def meeting(self, view: View, value: Value) -> tuple[View, Value]:
        """A view, and a constant reshaped to broadcast against the step's last axes.

        The view is reshaped or expanded if the constant has more axes, or longer ones.
        """
        value = self.once(view, value)
        shape = view.shape
        out = np.broadcast_shapes(shape, value.shape)
        lengths = (*(1,) * (len(out) - value.ndim), *value.shape)
        if len(out) > len(shape):
            view = self.reshaped(view, (*(1,) * (len(out) - len(shape)), *shape))
        if view.batch is not None and lengths[view.batch] != 1:
            view = self.full(view)
        if view.shape != out:
            view = self.expanded(view, out)
        if view.batch is not None:
            lengths = (*lengths[: view.batch], *lengths[view.batch + 1 :])
        while lengths and lengths[0] == 1:
            lengths = lengths[1:]
        return view, value.reshape(lengths)

    def once(self, view: View, value: Value) -> Value:
        """A constant that meets a view: of a file for several images, that of one, if it is the same for each."""
        if view.batch is None or self.batch == 1 or value.ndim != len(view.shape):
            return value
        first = value.take([0], view.batch)
        return first if value.shape[view.batch] == self.batch and (value == first).all() else value

    def expanded(self, view: View, shape: Shape) -> View:
        """A view broadcast to the file's shape `shape`."""
        if len(shape) > len(view.shape):
            view = self.reshaped(view, (*(1,) * (len(shape) - len(view.shape)), *view.shape))
        if view.shape == shape:
            return view
        if view.batch is not None and shape[view.batch] != 1:
            view = self.full(view)
        own = shape if view.batch is None else (*shape[: view.batch], *shape[view.batch + 1 :])
        return View(self.step(Expand(own), view.step), view.batch)


def _label(name: str) -> str:
    return name.lstrip("/") or "layer"


def _reason(error: Exception) -> str:
    """An error in words: other errors than ValueError say little without a context."""
    if isinstance(error, ValueError) and str(error):
        return str(error)
    return f"its inputs or attributes do not fit ({type(error).__name__}: {error})"


def _batch_axis(view: View, shape: Shape) -> int | None:
    """The batch axis of a view after a reshape to `shape`.

    It keeps its place if as many values come before it as did before; otherwise it is the first axis, if of length 1.
    """
    if view.batch is not None:
        before = prod(view.shape[: view.batch])
        places = [a for a, n in enumerate(shape) if n == 1 and prod(shape[:a]) == before]
        if places:
            return min(places, key=lambda a: abs(a - (view.batch or 0)))
    return 0 if shape and shape[0] == 1 else None


def _computed(model: Model, operators: dict[str, Operator], call: Call, inputs: list[Value | None]) -> list[Value]:
    """Outputs of an operator that `fold` does not know, for constant inputs: computed by the layers it becomes.

    Not a method: a reader that its own constants refer to would keep the file in memory until garbage is collected.
    """
    key = f"{call.domain}.{call.op}" if call.domain else call.op
    if key not in operators:
        refused = REFUSED.get((call.domain, call.op))
        raise ValueError(refused or "this operator is not computed from constants")
    first, *_ = [value for value in inputs if value is not None]
    source = Step("constant", None, [], first.shape)
    inner = Reader(model, operators, call.inputs[0], View(source, None))
    inner.constants = Constants({}, model.size, partial(_computed, model, operators))
    for k, (name, value) in enumerate(zip(call.inputs, inputs, strict=True)):
        if value is not None and k > 0:
            inner.constants.put(name, value)
    inner.call = call
    inner.wholes |= {call.inputs[0]} if first.dtype.kind in "iu" else set()
    operators[key](inner, call)
    return [_evaluated(inner.views[name], source, first) for name in call.outputs if name in inner.views]


def _evaluated(view: View, source: Step, value: Value) -> Value:
    """The value of a view, computed by the steps between it and the source."""
    arrays: dict[int, Array] = {id(source): np.asarray(value)[None]}
    for step in needed(view.step):
        if step.layer is not None:
            arrays[id(step)] = step.layer.apply(*(arrays[id(each)] for each in step.inputs))
    return np.asarray(arrays[id(view.step)]).reshape(view.shape)
