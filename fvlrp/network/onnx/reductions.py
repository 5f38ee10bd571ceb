"""Operators along axes: reductions, normalisations, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

import numpy as np

from ..layers import (
    LRN,
    Activation,
    Affine,
    Clip,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    Quotient,
    Reduce,
    RMSNorm,
    Softmax,
)
from .arithmetic import scaled
from .model import Call, Value
from .read import Operator, Reader
from .steps import View

TINY = float(np.finfo(np.float32).tiny)


def reduced(reader: Reader, view: View, how: str, axes: Sequence[int], keep: bool) -> View:
    """Mean, sum, maximum or logarithm of the sum of exponentials over axes of the file."""
    rank = len(view.shape)
    over = sorted({axis % rank for axis in axes})
    long = [axis for axis in over if axis != view.batch]
    if view.batch in over and (not long or view.step.shape != view.shape[1:]):
        view = reader.full(view)
        long = over
    elif view.batch in over:
        raise ValueError("it reduces over the batch: images of a batch must stay apart")
    shape = tuple(1 if a in over else n for a, n in enumerate(view.shape) if keep or a not in over)
    own = tuple(view.axis(axis) for axis in long)
    batch = view.batch if keep or view.batch is None else view.batch - sum(axis < view.batch for axis in over)
    if prod(view.step.shape[a - 1] for a in own) == 1:
        return View(reader.moulded(view.step, shape if batch is None else (*shape[:batch], *shape[batch + 1 :])), batch)
    if how in ("mean", "max") and own == (2, 3) and len(view.step.shape) == 3:
        step = reader.step(GlobalAveragePool() if how == "mean" else GlobalMaxPool(), view.step)
        return View(step if keep else reader.moulded(step, step.shape[:1]), batch)
    return View(reader.step(Reduce(how, own, keep), view.step), batch)


def _reduce(reader: Reader, call: Call, how: str, before: str = "", after: str = "") -> None:
    """A reduction of `before` of the values, and `after` of the result."""
    view, axes = reader.view(call), reader.whole(call, "axes", 1)
    none = not axes and bool(call.get("noop_with_empty_axes", 0))
    if none and not before and not after:
        reader.same(call, "it reduces over no axes")
        return
    if not axes:
        axes = [axis for axis in range(len(view.shape)) if axis != view.batch]
    for name in filter(None, before.split()):
        view = _applied(reader, view, name)
    if not none:
        view = reduced(reader, view, how, axes, bool(call.get("keepdims", 1)))
    for name in filter(None, after.split()):
        view = _applied(reader, view, name)
    reader.set(call, view)


def _applied(reader: Reader, view: View, name: str) -> View:
    if name == "negative":
        return scaled(reader, view, np.array(-1.0))
    layer = Activation("pow", 2.0) if name == "square" else Activation(name)
    return View(reader.step(layer, view.step), view.batch)


def _lp_norm(reader: Reader, call: Call) -> None:
    view, axis = reader.view(call), call.get("axis", -1)
    if call.get("p", 2) == 2:
        size = _applied(reader, reduced(reader, _applied(reader, view, "square"), "sum", [axis], True), "sqrt")
    else:
        size = reduced(reader, _applied(reader, view, "abs"), "sum", [axis], True)
    size = View(reader.step(Clip(TINY, np.inf), size.step), size.batch)  # rows of zeros stay zeros
    steps, batch = reader.aligned(view, size)
    reader.set(call, View(reader.step(Quotient(), *steps), batch))


def _single(value: Value) -> Value:
    return np.asarray(value, np.float32)


def _batchnorm(reader: Reader, call: Call) -> None:
    if call.get("training_mode", 0) or not call.get("is_test", 1):
        raise ValueError("it is in training mode; export the network for inference")
    scale, shift, mean, variance = (reader.needed(call, i).astype(np.float64) for i in range(1, 5))
    if any(values.shape != scale.shape or values.ndim != 1 for values in (scale, shift, mean, variance)):
        raise ValueError("its four constants must have one number for each channel")
    # The attribute is float32: 1e-5 comes as 9.99999974e-6, which other programs use as it is.
    scale = scale / np.sqrt(variance + call.get("epsilon", 1e-5))
    view = reader.view(call)
    axis = view.axis(1) if len(view.shape) > 1 else 1
    reader.emit(call, Affine(_single(scale), _single(shift - mean * scale), axis), view)


def _lrn(reader: Reader, call: Call) -> None:
    if not 1 <= call.attributes["size"] <= 4096:
        raise ValueError(f"its size must be in 1..4096, got {call.attributes['size']}")
    values = (call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0))
    # Attributes are float32: their shortest decimal form is what was meant.
    layer = LRN(int(call.attributes["size"]), *(float(str(np.float32(v))) for v in values))
    view = reader.view(call)
    if len(view.shape) != 4:
        raise ValueError(f"it reads an array of {view.shape}; expected (batch, channels, height, width)")
    if view.batch == 0:
        reader.emit(call, layer)
        return
    view = reader.transposed(reader.full(view), (1, 0, 2, 3))  # several images that the file makes of one
    made = reader.reshaped(view, (1, view.shape[0], prod(view.shape[1:3]), view.shape[3]))
    made = View(reader.step(layer, made.step), made.batch)
    reader.set(call, reader.transposed(reader.reshaped(made, view.shape), (1, 0, 2, 3)))


def _instance_norm(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    if view.batch != 0 or len(view.shape) < 3:
        raise ValueError(f"it reads an array of {view.shape}; expected (batch, channels, ...)")
    scale, shift = (_single(reader.needed(call, i)) for i in (1, 2))
    reader.emit(call, GroupNorm(scale, shift, view.shape[1], float(call.get("epsilon", 1e-5))))


def _group_norm(reader: Reader, call: Call) -> None:
    view, groups = reader.view(call), int(call.attributes["num_groups"])
    if view.batch != 0 or len(view.shape) < 3:
        raise ValueError(f"it reads an array of {view.shape}; expected (batch, channels, ...)")
    scale, shift = (_single(reader.needed(call, i)) for i in (1, 2))
    if call.opset < 21:  # one for each group
        scale, shift = (np.repeat(v, view.shape[1] // groups) for v in (scale, shift))
    reader.emit(call, GroupNorm(scale, shift, groups, float(call.get("epsilon", 1e-5))))


def _normalised(reader: Reader, call: Call, rms: bool) -> None:
    view = reader.view(call)
    first = call.get("axis", -1) % len(view.shape)
    if view.batch is not None and view.batch >= first:
        view = reader.full(view)
    axes = tuple(view.axis(axis) for axis in range(first, len(view.shape)))
    epsilon = float(call.get("epsilon", 1e-5))
    scale = _single(reader.needed(call, 1))
    if rms:
        reader.emit(call, RMSNorm(scale, axes, epsilon), view)
        return
    shift = reader.weights(call, 2)
    reader.emit(call, LayerNorm(scale, np.zeros_like(scale) if shift is None else shift, axes, epsilon), view)


def _mean_variance(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    over = sorted({axis % len(view.shape) for axis in call.get("axes", [0, 2, 3])} - {view.batch})
    if not over:
        raise ValueError("it goes over the batch alone: images of a batch must stay apart")
    axes = tuple(view.axis(axis) for axis in over)  # statistics over a batch of one image are those of the image
    one = np.ones((), np.float32)
    reader.emit(call, LayerNorm(one, np.zeros((), np.float32), axes, 1e-9), view)


def _softmax(reader: Reader, call: Call, log: bool = False) -> None:
    view = reader.view(call)
    axis = call.get("axis", 1 if call.opset < 13 else -1) % len(view.shape)
    if call.opset < 13 and axis != len(view.shape) - 1 and prod(view.shape[axis:]) != view.shape[axis]:
        flat = reader.reshaped(view, (*view.shape[:axis], prod(view.shape[axis:])))
        step = reader.step(Softmax(flat.axis(-1)), flat.step)
        made = reader.reshaped(View(step, flat.batch), view.shape)
    else:
        made = View(reader.step(Softmax(view.axis(axis)), view.step), view.batch)
    reader.set(call, _applied(reader, made, "log") if log else made)


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": _batchnorm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": partial(_normalised, rms=False),
    "LogSoftmax": partial(_softmax, log=True),
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": partial(_normalised, rms=True),
    "ReduceL1": partial(_reduce, how="sum", before="abs"),
    "ReduceL2": partial(_reduce, how="sum", before="square", after="sqrt"),
    "ReduceLogSum": partial(_reduce, how="sum", after="log"),
    "ReduceLogSumExp": partial(_reduce, how="logsumexp"),
    "ReduceMax": partial(_reduce, how="max"),
    "ReduceMean": partial(_reduce, how="mean"),
    "ReduceMin": partial(_reduce, how="max", before="negative", after="negative"),
    "ReduceSum": partial(_reduce, how="sum"),
    "ReduceSumSquare": partial(_reduce, how="sum", before="square"),
    "SimplifiedLayerNormalization": partial(_normalised, rms=True),
    "Softmax": _softmax,
}
