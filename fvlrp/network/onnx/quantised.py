"""Quantised networks: rounding becomes layers, integer arithmetic becomes arithmetic on dequantised values.

Steps always hold real values: (integer - zero point) x scale for a tensor that the file holds as integers. Operators on
integers become operators on real values with dequantised weights, followed by a `Quantise`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ..layers import (
    Concat,
    DynamicQuantise,
    Expand,
    Flatten,
    Gather,
    MaxPool,
    Pad,
    Quantise,
    Reshape,
    Resize,
    Shape,
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
_MIXING = ("Concat", "ScatterElements", "ScatterND")  # operators that combine several tensors
_NCHW, _NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_ONE, _ZERO = np.ones(()), np.zeros(())


class Unit(NamedTuple):
    """The real values of a tensor of integers: (integer - zero) * scale.

    Attributes
    ----------
    scale, zero : float64
        They broadcast to the shape of the step that holds the tensor.
    """

    scale: Value = _ONE
    zero: Value = _ZERO


def unit(step: Step) -> Unit:
    """Scale and zero point of the integers that a step stands for; 1 and 0 for a photograph or an integer product."""
    if isinstance(step.layer, Quantise):
        return Unit(step.layer.scale.astype(np.float64), step.layer.zero.astype(np.float64))
    if isinstance(step.layer, Concat):
        parts = [[np.broadcast_to(v, source.shape) for v in unit(source)] for source in step.inputs]
        return Unit(*(_short(np.concatenate(values, step.layer.axis - 1)) for values in zip(*parts, strict=True)))
    if isinstance(step.layer, _MOVES):
        source = step.inputs[0]
        return Unit(*(_short(_moved(step, value, source.shape)) for value in unit(source)))
    return Unit()


def _moved(step: Step, value: Value, shape: Shape) -> Value:
    """Scales or zero points that broadcast to `shape`, moved as the step moves its values."""
    if value.size == 1:
        return value.reshape(())
    full = np.broadcast_to(value, shape)
    if isinstance(step.layer, MaxPool | Resize | Pad):
        plane = full[..., :1, :1]
        if (full != plane).any():
            raise ValueError("it reads integers whose scale differs from pixel to pixel")
        return np.broadcast_to(plane, step.shape)
    assert step.layer is not None
    moved: Value = step.layer.apply(np.ascontiguousarray(full)[None])[0]
    return moved


def _short(value: Value) -> Value:
    """An array with length 1 along axes on which it is constant."""
    for axis in range(value.ndim):
        first = value.take([0], axis)
        value = first if (value == first).all() else value
    return value.reshape(()) if value.size == 1 else value


def _in_file(view: View, value: Value) -> Value:
    """An array that broadcasts to the view's step, reshaped to broadcast to the file's shape."""
    if value.ndim == 0 or view.batch is None:
        return value
    value = value.reshape((1,) * (len(view.step.shape) - value.ndim) + value.shape)
    return np.expand_dims(value, view.batch)


def _is_dynamic(step: Step) -> bool:
    """Whether a step holds the values, possibly moved, of a rounding layer whose scale depends on the photograph."""
    while isinstance(step.layer, (*_MOVES, Concat)):
        step = step.inputs[0]
    return isinstance(step.layer, DynamicQuantise)


def whole(reader: Reader, view: View) -> View:
    """The file's integers, from the real values that the step holds."""
    scale, zero = (_in_file(view, value) for value in unit(view.step))
    return shifted(reader, scaled(reader, view, 1 / scale), zero)


def moving(operator: Operator) -> Operator:
    """An operator that only moves values: its outputs are integers, of the same scale, if its inputs are."""

    def read(reader: Reader, call: Call) -> None:
        computed = [name for name in call.inputs if name in reader.views]
        if not any(name in reader.wholes for name in computed):
            operator(reader, call)
            return
        if call.op in _MIXING and len(computed) < len(list(filter(None, call.inputs))):
            of_numbers(operator)(reader, call)  # constants are integers without a scale
        else:
            operator(reader, call)
        reader.wholes.update(call.outputs)

    return read


def of_numbers(operator: Operator) -> Operator:
    """An operator that computes: it reads the file's integers, not the real values that they stand for."""

    def read(reader: Reader, call: Call) -> None:
        names = reader.wholes.intersection(call.inputs) & set(reader.views)
        if not names:
            operator(reader, call)
            return
        if call.op == "Div":
            raise ValueError("division of integers is not supported; nearest is Cast to float, then Div")
        held = {name: reader.views[name] for name in names}
        reader.views |= {name: whole(reader, view) for name, view in held.items()}
        operator(reader, call)
        reader.views |= held
        reader.wholes.update(call.outputs)

    return read


class Sum(NamedTuple):
    """A sum of quantised values and a constant: `pitch`, `offset` and `origin` of `Quantise`."""

    pitch: Value
    offset: Value
    origin: Value


def _quantised(reader: Reader, call: Call, view: View, i: int, shifted: bool = False, parts: Sum | None = None) -> View:
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
    known: list[Value] = []
    for value in parts or ():
        view, value = reader.meeting(view, value)
        known.append(np.asarray(value, np.float64))
    layer = Quantise(scale, shift, int(limits.min), int(limits.max), shifted, *known)
    return View(reader.step(layer, view.step), view.batch)


def _rounded(reader: Reader, call: Call, view: View, i: int, shifted: bool = False, parts: Sum | None = None) -> None:
    """The output is a tensor rounded by the scale of input `i`."""
    reader.set(call, _quantised(reader, call, view, i, shifted, parts))
    reader.wholes.add(call.outputs[0])


def _quantise(reader: Reader, call: Call) -> None:
    _rounded(reader, call, reader.view(call), 1)


def _real(reader: Reader, call: Call, i: int, axis: int = 1) -> View | Value:
    """Dequantised input `i`; its scale and zero point are the next two inputs."""
    scale, zero = reader.needed(call, i + 1), reader.constant(call, i + 2)
    if reader.is_constant(call, i):
        return _real_constant(call, reader.needed(call, i), scale, zero, axis)
    return _real_view(reader, call, i, scale, zero, axis)


def _real_constant(call: Call, value: Value, scale: Value, zero: Value | None, axis: int) -> Value:
    found: Value = FOLDERS["DequantizeLinear"](replace(call, attributes={"axis": axis}), value, scale, zero)
    return found


def _real_view(reader: Reader, call: Call, i: int, scale: Value, zero: Value | None, axis: int) -> View:
    """Integers dequantised by this scale: the step's own values, if they were quantised by the same scale."""
    view = reader.view(call, i)
    if call.inputs[i] not in reader.wholes:
        raise ValueError(f"its input {call.inputs[i]!r} is not quantised; expected integers from QuantizeLinear")
    rank = len(view.shape)
    scale = along(scale.astype(np.float32), axis, rank).astype(np.float64)
    shift = along(np.zeros(1) if zero is None else zero, axis, rank).astype(np.float64)
    if _is_dynamic(view.step):
        if (scale != 1).any() or shift.any():
            raise ValueError(
                "its scale differs from that of the DynamicQuantizeLinear before it, which depends on the photograph; "
                "nearest is DequantizeLinear by that node's own y_scale and y_zero_point"
            )
        return view
    own_scale, own_zero = (_in_file(view, value) for value in unit(view.step))
    if _same(scale, own_scale, view) and _same(shift, own_zero, view):
        return view
    view = scaled(reader, view, scale / own_scale)
    return shifted(reader, view, (own_zero - shift) * scale)


def _same(a: Value, b: Value, view: View) -> bool:
    return np.array_equal(np.broadcast_to(a, view.shape), np.broadcast_to(b, view.shape))


def _dequantise(reader: Reader, call: Call) -> None:
    """No layer, if the values were quantised by the same scale."""
    view = reader.view(call)
    real = _real_view(reader, call, 0, reader.needed(call, 1), reader.constant(call, 2), call.get("axis", 1))
    if real == view:
        reader.same(call, "relevance passes the rounding of quantised values")
    else:
        reader.set(call, real)


def _cast(reader: Reader, call: Call) -> None:
    view, kind, is_whole = reader.view(call), numpy_type(call.attributes["to"]), call.inputs[0] in reader.wholes
    if kind.kind in "iu" and is_whole and kind.itemsize > 1:
        reader.same(call, "integers stay integers")
        reader.wholes.add(call.outputs[0])
        return
    if kind.kind != "f":
        raise ValueError("values that depend on the photograph may only be cast to floating-point numbers")
    cast = whole(reader, view) if is_whole else view
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
    _rounded(reader, call, view, output, shifted=op == "AveragePool")


def _pool(reader: Reader, call: Call, op: str) -> None:
    _on_planes(reader, call, op, 3)


def _linear_matmul(reader: Reader, call: Call) -> None:
    made = reader.applied(call, "MatMul", _real(reader, call, 0), _real(reader, call, 3, -1))
    _rounded(reader, call, made, 6)


def _gemm(reader: Reader, call: Call) -> None:
    """onnxruntime's integer Gemm, whose output may be real."""
    turned = call.get("transB", 0)
    bias = reader.constant(call, 6)
    if bias is not None:
        bias = bias * reader.needed(call, 1).astype(np.float64) * reader.needed(call, 4)
        bias = bias * float(call.get("alpha", 1.0))
    sides = _real(reader, call, 0), _real(reader, call, 3, 0 if turned else 1)
    made = reader.applied(call, "Gemm", *sides, bias, **call.attributes)
    if reader.has(call, 7):
        _rounded(reader, call, made, 7)
    else:
        reader.set(call, made)


def _two(reader: Reader, call: Call, op: str) -> None:
    """A sum or product of quantised tensors."""
    sides = _real(reader, call, 0), _real(reader, call, 3)
    made = reader.applied(call, op, *sides)
    _rounded(reader, call, made, 6, True, _parts(reader, call, *sides) if op == "Add" else None)


def _parts(reader: Reader, call: Call, a: View | Value, b: View | Value) -> Sum | None:
    """How onnxruntime adds quantised values and a constant: in float32, each product and sum rounded once."""
    if not isinstance(a, View) or isinstance(b, View) or a != reader.view(call, 0) or _is_dynamic(a.step):
        return None
    scales = [np.float32(reader.needed(call, i).reshape(())) for i in (1, 4, 6)]
    zeros = [reader.constant(call, i) for i in (2, 5, 7)]
    first, second, made = (0.0 if zero is None else float(zero.reshape(())) for zero in zeros)
    ratio, other = (np.float64(scale / scales[2]) for scale in scales[:2])
    shift = made - np.float64(np.float32(ratio * first + np.float32(other * second)))
    whole = reader.needed(call, 3).astype(np.float64)
    origin = (whole * other + np.float32(shift)).astype(np.float32)
    offset = (whole - second) * np.float64(scales[1]) - first * np.float64(scales[0])
    return Sum(np.asarray(scales[0]), offset, origin)


def _one(reader: Reader, call: Call, op: str) -> None:
    """An operator on one quantised tensor, with the attributes of its real form.

    `opset` matters to Softmax: before opset 13 it normalised over all axes from `axis` on.
    """
    made = reader.applied(call, op, _real(reader, call, 0), **call.attributes)
    _rounded(reader, call, made, 3)


def _softmax(reader: Reader, call: Call) -> None:
    made = reader.applied(call, "Softmax", _real(reader, call, 0), **{"axis": -1, **call.attributes})
    scale = reader.needed(call, 3).astype(np.float32)
    made = scaled(reader, made, np.floor(1 / scale) * scale)  # onnxruntime multiplies by the integer part of 1 / scale
    _rounded(reader, call, made, 3)


def _mean(reader: Reader, call: Call) -> None:
    axes = call.get("axes")
    given = None if axes is None else np.array(axes, np.int64)
    made = reader.applied(call, "ReduceMean", _real(reader, call, 0), given, keepdims=call.get("keepdims", 1))
    _rounded(reader, call, made, 3)


def _concat(reader: Reader, call: Call) -> None:
    parts = [_real(reader, call, i) for i in range(2, len(call.inputs), 3)]
    made = reader.applied(call, "Concat", *parts, **call.attributes)
    _rounded(reader, replace(call, attributes={}), made, 0)


# ---- integer operators, with scales from the file or computed from the photograph ------------------------------------


def _dynamic(reader: Reader, call: Call) -> None:
    """Rounding whose scale depends on the photograph: its output is dequantised at once, so its scale is 1."""
    reader.emit(call, DynamicQuantise())
    reader.wholes.add(call.outputs[0])
    reader.put(call, np.float32(1), 1)
    reader.put(call, np.uint8(0), 2)


def _whole(reader: Reader, call: Call, i: int, zero: int, axis: int) -> View | Value:
    """The integers of input `i` minus their zero point, in floating point."""
    shift = reader.constant(call, zero)
    if not reader.is_constant(call, i):
        view = reader.view(call, i)
        view = whole(reader, view) if call.inputs[i] in reader.wholes else view
        return view if shift is None else shifted(reader, view, -along(shift.astype(np.float64), axis, len(view.shape)))
    value = reader.needed(call, i).astype(np.float64)
    return value if shift is None else value - along(shift.astype(np.float64), axis, value.ndim)


def _conv_integer(reader: Reader, call: Call) -> None:
    parts = _whole(reader, call, 0, 2, 1), _whole(reader, call, 1, 3, 0)
    reader.set(call, reader.applied(call, "Conv", *parts, **call.attributes))
    reader.wholes.add(call.outputs[0])


def _matmul_integer(reader: Reader, call: Call) -> None:
    sides = _whole(reader, call, 0, 2, -2), _whole(reader, call, 1, 3, -1)
    reader.set(call, reader.applied(call, "MatMul", *sides))
    reader.wholes.add(call.outputs[0])


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
