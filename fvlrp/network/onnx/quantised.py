"""Quantised networks: rounding becomes layers, integer arithmetic becomes arithmetic on dequantised values.

Steps always hold real values: (integer - zero point) x scale for a tensor that the file holds as integers. Operators on
integers become operators on real values with dequantised weights, followed by a `Quantise`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from ..layers import (
    DynamicQuantise,
    Expand,
    Flatten,
    Gather,
    MaxPool,
    Pad,
    Quantise,
    Reshape,
    Resize,
    Slice,
    Transpose,
)
from .arithmetic import scaled, shifted
from .fold import FOLDERS
from .model import Call, Value, numpy_type
from .read import Operator, Reader
from .shapes import along
from .steps import Step, View

_MOVES = (Expand, Flatten, Gather, MaxPool, Pad, Reshape, Resize, Slice, Transpose)
_NCHW, _NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def quantisation(step: Step) -> Quantise | None:
    """The rounding layer whose values a step holds, possibly moved; None if there is none."""
    while isinstance(step.layer, _MOVES):
        step = step.inputs[0]
    return step.layer if isinstance(step.layer, Quantise) else None


def _is_dynamic(step: Step) -> bool:
    """Whether a step holds the values, possibly moved, of a rounding layer whose scale depends on the photograph."""
    while isinstance(step.layer, _MOVES):
        step = step.inputs[0]
    return isinstance(step.layer, DynamicQuantise)


def whole(reader: Reader, view: View) -> View:
    """The file's integers, from the real values that the step holds."""
    own = quantisation(view.step)
    if own is None:
        return view
    if own.scale.size > 1 or own.zero.size > 1:
        raise ValueError("integers that were quantised with one scale for each channel are not supported here")
    view = scaled(reader, view, np.array(1 / own.scale.astype(np.float64).item()))
    return shifted(reader, view, own.zero.astype(np.float64).reshape(()))


def _quantised(reader: Reader, call: Call, view: View, i: int) -> View:
    """A tensor quantised by the scale in input `i` and the zero point in input `i + 1`."""
    rank, axis = len(view.shape), call.get("axis", 1)
    zero = reader.constant(call, i + 1)
    if zero is None:  # its type is the output's: uint8 unless the file says otherwise
        zero = np.zeros(1, numpy_type(call.get("output_dtype", 0) or 2))
    if zero.dtype.kind not in "iu":
        raise ValueError("only integers are supported as quantised values")
    limits = np.iinfo(zero.dtype)
    scale = along(reader.needed(call, i).astype(np.float32), axis, rank)
    view, scale = reader.meeting(view, scale)
    _, shift = reader.meeting(view, along(zero.astype(np.float32), axis, rank))
    return View(reader.step(Quantise(scale, shift, int(limits.min), int(limits.max)), view.step), view.batch)


def _quantise(reader: Reader, call: Call) -> None:
    reader.set(call, _quantised(reader, call, reader.view(call), 1))


def _real(reader: Reader, call: Call, i: int, axis: int = 1) -> View | Value:
    """Dequantised input `i`; its scale and zero point are the next two inputs."""
    scale, zero = reader.needed(call, i + 1), reader.constant(call, i + 2)
    if reader.is_constant(call, i):
        return _real_constant(call, reader.needed(call, i), scale, zero, axis)
    return _real_view(reader, reader.view(call, i), scale, zero, axis)


def _real_constant(call: Call, value: Value, scale: Value, zero: Value | None, axis: int) -> Value:
    found: Value = FOLDERS["DequantizeLinear"](replace(call, attributes={"axis": axis}), value, scale, zero)
    return found


def _real_view(reader: Reader, view: View, scale: Value, zero: Value | None, axis: int) -> View:
    """Integers dequantised by this scale: the step's own values, if they were quantised by the same scale."""
    rank, own = len(view.shape), quantisation(view.step)
    scale = along(scale.astype(np.float32), axis, rank)
    shift = along(np.zeros(1, np.float32) if zero is None else zero.astype(np.float32), axis, rank)
    if own is None and _is_dynamic(view.step) and (scale == 1).all() and not shift.any():
        return view
    if own is None and view.step.layer is None:  # an input of integers
        return scaled(reader, shifted(reader, view, -shift.astype(np.float64)), scale)
    if own is None:
        raise ValueError("what it reads was not quantised before; export with QDQ pairs")
    if np.array_equal(scale.ravel(), own.scale.ravel()) and np.array_equal(shift.ravel(), own.zero.ravel()):
        return view
    if own.scale.size > 1 or scale.size > 1:
        raise ValueError("its scales for each channel differ from those that the values were quantised by")
    view = scaled(reader, view, scale.astype(np.float64) / own.scale)
    return shifted(reader, view, (own.zero - shift).astype(np.float64) * scale)


def _dequantise(reader: Reader, call: Call) -> None:
    """No layer, if the values were quantised by the same scale."""
    view = reader.view(call)
    real = _real_view(reader, view, reader.needed(call, 1), reader.constant(call, 2), call.get("axis", 1))
    if real == view:
        reader.same(call, "relevance passes the rounding of quantised values")
    else:
        reader.set(call, real)


def _cast(reader: Reader, call: Call) -> None:
    if numpy_type(call.attributes["to"]).kind != "f":
        raise ValueError("values that depend on the photograph may only be cast to floating-point numbers")
    view = reader.view(call)
    cast = whole(reader, view)
    if cast == view:
        reader.same(call, "values stay in the type of the computation")
    else:
        reader.set(call, cast)


# ---- operators with quantised inputs and outputs ---------------------------------------------------------------------


def _linear_conv(reader: Reader, call: Call) -> None:
    weight = _real(reader, call, 3, 0)
    if isinstance(weight, View):
        raise ValueError("its weights depend on the photograph")
    bias = reader.constant(call, 8)
    if bias is not None:
        bias = bias * reader.needed(call, 1).astype(np.float64) * reader.needed(call, 4)
    _on_planes(reader, call, "Conv", 6, weight, bias)


def _on_planes(reader: Reader, call: Call, op: str, output: int, *constants: Value | None) -> None:
    """An operator on the planes of a quantised tensor, which may be channels-last."""
    view = _real(reader, call, 0)
    assert isinstance(view, View)
    attributes = dict(call.attributes)
    last = attributes.pop("channels_last", 0)
    view = reader.applied(call, op, reader.transposed(view, _NCHW) if last else view, *constants, **attributes)
    view = reader.transposed(view, _NHWC) if last else view
    reader.set(call, _quantised(reader, call, view, output))


def _pool(reader: Reader, call: Call, op: str) -> None:
    _on_planes(reader, call, op, 3)


def _linear_matmul(reader: Reader, call: Call) -> None:
    made = reader.applied(call, "MatMul", _real(reader, call, 0), _real(reader, call, 3, -1))
    reader.set(call, _quantised(reader, call, made, 6))


def _gemm(reader: Reader, call: Call) -> None:
    """onnxruntime's integer Gemm, whose output may be real."""
    turned = call.get("transB", 0)
    bias = reader.constant(call, 6)
    if bias is not None:
        bias = bias * reader.needed(call, 1).astype(np.float64) * reader.needed(call, 4)
        bias = bias * float(call.get("alpha", 1.0))
    sides = _real(reader, call, 0), _real(reader, call, 3, 0 if turned else 1)
    made = reader.applied(call, "Gemm", *sides, bias, **call.attributes)
    reader.set(call, _quantised(reader, call, made, 7) if reader.has(call, 7) else made)


def _two(reader: Reader, call: Call, op: str) -> None:
    """A sum or product of quantised tensors."""
    made = reader.applied(call, op, _real(reader, call, 0), _real(reader, call, 3))
    reader.set(call, _quantised(reader, call, made, 6))


def _one(reader: Reader, call: Call, op: str) -> None:
    """An operator on one quantised tensor, with the attributes of its real form.

    `opset` matters to Softmax: before opset 13 it normalised over all axes from `axis` on.
    """
    made = reader.applied(call, op, _real(reader, call, 0), **call.attributes)
    reader.set(call, _quantised(reader, call, made, 3))


def _softmax(reader: Reader, call: Call) -> None:
    _one(reader, replace(call, attributes={"axis": -1, **call.attributes}), "Softmax")


def _mean(reader: Reader, call: Call) -> None:
    axes = call.get("axes")
    given = None if axes is None else np.array(axes, np.int64)
    made = reader.applied(call, "ReduceMean", _real(reader, call, 0), given, keepdims=call.get("keepdims", 1))
    reader.set(call, _quantised(reader, call, made, 3))


def _concat(reader: Reader, call: Call) -> None:
    parts = [_real(reader, call, i) for i in range(2, len(call.inputs), 3)]
    made = reader.applied(call, "Concat", *parts, **call.attributes)
    reader.set(call, _quantised(reader, replace(call, attributes={}), made, 0))


# ---- integer operators, with scales from the file or computed from the photograph ------------------------------------


def _dynamic(reader: Reader, call: Call) -> None:
    """Rounding whose scale depends on the photograph: its output is dequantised at once, so its scale is 1."""
    reader.emit(call, DynamicQuantise())
    reader.put(call, np.float32(1), 1)
    reader.put(call, np.uint8(0), 2)


def _whole(reader: Reader, call: Call, i: int, zero: int, axis: int) -> View | Value:
    """The integers of input `i` minus their zero point, in floating point."""
    shift = reader.constant(call, zero)
    if not reader.is_constant(call, i):
        view = whole(reader, reader.view(call, i))
        return view if shift is None else shifted(reader, view, -along(shift.astype(np.float64), axis, len(view.shape)))
    value = reader.needed(call, i).astype(np.float64)
    return value if shift is None else value - along(shift.astype(np.float64), axis, value.ndim)


def _conv_integer(reader: Reader, call: Call) -> None:
    parts = _whole(reader, call, 0, 2, 1), _whole(reader, call, 1, 3, 0)
    reader.set(call, reader.applied(call, "Conv", *parts, **call.attributes))


def _matmul_integer(reader: Reader, call: Call) -> None:
    sides = _whole(reader, call, 0, 2, -2), _whole(reader, call, 1, 3, -1)
    reader.set(call, reader.applied(call, "MatMul", *sides))


def _matmul_to_float(reader: Reader, call: Call) -> None:
    """onnxruntime's integer matrix product times both scales, plus a bias."""
    made = reader.applied(call, "MatMul", _whole(reader, call, 0, 4, -2), _whole(reader, call, 1, 5, -1))
    made = scaled(reader, made, reader.needed(call, 2).astype(np.float64) * reader.needed(call, 3))
    reader.set(call, shifted(reader, made, reader.needed(call, 6)) if reader.has(call, 6) else made)


def _dynamic_matmul(reader: Reader, call: Call) -> None:
    """onnxruntime's product of a tensor, which it rounds first, and constant integers."""
    view = reader.view(call)
    view = View(reader.step(DynamicQuantise(), view.step), view.batch)
    weight = reader.needed(call, 1)
    weight = _real_constant(call, weight, reader.needed(call, 2), reader.constant(call, 3), -1)
    made = reader.applied(call, "MatMul", view, weight)
    reader.set(call, shifted(reader, made, reader.needed(call, 4)) if reader.has(call, 4) else made)


OPERATORS: dict[str, Operator] = {
    "Cast": _cast,
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantise,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _linear_conv,
    "QLinearMatMul": _linear_matmul,
    "QuantizeLinear": _quantise,
    "com.microsoft.DequantizeLinear": _dequantise,
    "com.microsoft.DynamicQuantizeMatMul": _dynamic_matmul,
    "com.microsoft.MatMulIntegerToFloat": _matmul_to_float,
    "com.microsoft.QGemm": _gemm,
    "com.microsoft.QLinearAdd": partial(_two, op="Add"),
    "com.microsoft.QLinearAveragePool": partial(_pool, op="AveragePool"),
    "com.microsoft.QLinearConcat": _concat,
    "com.microsoft.QLinearConv": _linear_conv,
    "com.microsoft.QLinearGlobalAveragePool": partial(_pool, op="GlobalAveragePool"),
    "com.microsoft.QLinearLeakyRelu": partial(_one, op="LeakyRelu"),
    "com.microsoft.QLinearMul": partial(_two, op="Mul"),
    "com.microsoft.QLinearReduceMean": _mean,
    "com.microsoft.QLinearSigmoid": partial(_one, op="Sigmoid"),
    "com.microsoft.QLinearSoftmax": _softmax,
    "com.microsoft.QuantizeLinear": _quantise,
}
