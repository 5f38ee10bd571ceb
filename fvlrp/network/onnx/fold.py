"""Constant folding: cheap operators, computed in NumPy.

For `constants`, and for `moves`, which computes where values go. Other operators are computed by the layers that the
reader makes of them, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from .model import Call, Value, numpy_type, tensor
from .shapes import along, bounded, numbers, pad_widths, reshaped, sliced, split_sizes, squeezed, triangle, unsqueezed

# Computes an operator: takes its Call, then its inputs; returns one array, or several.
Folder: TypeAlias = Callable[..., Any]  # type: ignore[explicit-any]  # operators differ in their inputs


def _binary(function: Callable[[Value, Value], Value]) -> Folder:
    def fold(call: Call, a: Value, b: Value) -> Value:
        bounded(np.broadcast_shapes(a.shape, b.shape), a, b)
        with np.errstate(all="ignore"):
            return function(a, b)

    return fold


def _many(function: Callable[[Value, Value], Value]) -> Folder:
    def fold(call: Call, *values: Value) -> Value:
        result = values[0]
        for value in values[1:]:
            bounded(np.broadcast_shapes(result.shape, value.shape), result, value)
            result = function(result, value)
        return result

    return fold


def _unary(function: Callable[[Value], Value]) -> Folder:
    def fold(call: Call, x: Value) -> Value:
        with np.errstate(all="ignore"):
            out = np.asarray(function(x))
        return out.astype(x.dtype) if x.dtype.kind == "f" else out

    return fold


class Reduction(Protocol):
    """A reduction of NumPy."""

    def __call__(self, x: Value, /, *, axis: tuple[int, ...], keepdims: bool) -> Value: ...


def _reduction(function: Reduction) -> Folder:
    def fold(call: Call, x: Value, axes: Value | None = None) -> Value:
        given = call.get("axes", None if axes is None else numbers(axes))
        if not given and call.get("noop_with_empty_axes", 0):
            return x
        over = tuple(sorted({int(axis) % x.ndim for axis in given})) if given else tuple(range(x.ndim))
        return np.asarray(function(x, axis=over, keepdims=bool(call.get("keepdims", 1)))).astype(x.dtype)

    return fold


def divided(a: Value, b: Value) -> Value:
    """a / b; integer quotients are truncated towards 0."""
    if a.dtype.kind in "iu":
        quotient = np.abs(a) // np.abs(b)
        return np.asarray(np.where((a < 0) == (b < 0), quotient, -quotient)).astype(a.dtype)
    return np.asarray(a / b)


def _modulo(call: Call, a: Value, b: Value) -> Value:
    bounded(np.broadcast_shapes(a.shape, b.shape), a, b)
    return np.asarray(np.fmod(a, b) if call.get("fmod", 0) else np.mod(a, b))


def _constant(call: Call) -> Value:
    for name, dtype in (("value_int", np.int64), ("value_ints", np.int64)):
        if name in call.attributes:
            return np.asarray(call.attributes[name], dtype)
    for name in ("value_float", "value_floats"):
        if name in call.attributes:
            return np.asarray(call.attributes[name], np.float32)
    if "value" not in call.attributes:
        raise ValueError(f"constants of {', '.join(call.attributes)} are not supported")
    return tensor(call.attributes["value"])


def _constant_of_shape(call: Call, shape: Value) -> Value:
    value = tensor(call.attributes["value"]).ravel()[0] if "value" in call.attributes else np.float32(0)
    return np.full(bounded(numbers(shape)), value)


def _range(call: Call, start: Value, limit: Value, delta: Value) -> Value:
    first, last, step = (value.reshape(())[()] for value in (start, limit, delta))
    count = max(0, int(np.ceil((last - first) / step)))
    bounded([count])
    return np.asarray(first + np.arange(count) * step).astype(start.dtype)


def _slice(call: Call, x: Value, *rest: Value | None) -> Value:
    where: list[slice[int | None]] = [slice(None)] * x.ndim
    for axis, cut in sliced(call, x.ndim, rest):
        length = x.shape[axis]
        if cut.step is not None and cut.step < 0 and cut.stop is not None and cut.stop < -length:
            cut = slice(cut.start, None, cut.step)
        where[axis] = cut
    return x[tuple(where)]


def _gather(call: Call, x: Value, indices: Value) -> Value:
    axis = call.get("axis", 0) % max(1, x.ndim)
    bounded((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x)
    return np.take(x, _wrapped(indices, x.shape[axis]), axis=axis)


def _wrapped(indices: Value, length: int) -> Value:
    wrapped = np.where(indices < 0, indices + length, indices).astype(np.int64)
    if wrapped.size and not (wrapped.min() >= 0 and wrapped.max() < length):
        raise ValueError(f"indices must be in -{length}..{length - 1}")
    return wrapped


def _gather_elements(call: Call, x: Value, indices: Value) -> Value:
    return np.asarray(x[_elements(call, x, indices)])


def _elements(call: Call, x: Value, indices: Value) -> tuple[Value, ...]:
    """Index arrays of the elements that GatherElements reads; along other axes `indices` may be shorter than x."""
    axis = call.get("axis", 0) % x.ndim
    places: list[Value] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _wrapped(indices, x.shape[axis])
    return tuple(places)


def _gather_nd(call: Call, x: Value, indices: Value) -> Value:
    batches, depth = call.get("batch_dims", 0), indices.shape[-1]
    if x.shape[:batches] != indices.shape[:batches]:
        raise ValueError(f"indices of shape {indices.shape} do not fit {batches} batch_dims of {x.shape}")
    bounded((*indices.shape[:-1], *x.shape[batches + depth :]), x, indices)
    own = np.indices(indices.shape[:-1], sparse=True)[:batches]
    return np.asarray(x[(*own, *(_wrapped(indices[..., k], x.shape[batches + k]) for k in range(depth)))])


def _scatter_nd(call: Call, x: Value, indices: Value, updates: Value) -> Value:
    _plain(call)
    out, depth = x.copy(), indices.shape[-1]
    out[tuple(_wrapped(indices[..., k], x.shape[k]) for k in range(depth))] = updates
    return out


def _scatter_elements(call: Call, x: Value, indices: Value, updates: Value) -> Value:
    _plain(call)
    out = x.copy()
    out[_elements(call, x, indices)] = updates
    return out


def _plain(call: Call) -> None:
    if call.get("reduction", "none") != "none":
        raise ValueError(f"reduction {call.get('reduction')!r} is not supported")


def _concat(call: Call, *values: Value) -> Value:
    axis = call.get("axis", 1 if call.opset < 4 else 0) % max(1, values[0].ndim)
    length = sum(value.shape[axis] for value in values)
    bounded((*values[0].shape[:axis], length, *values[0].shape[axis + 1 :]), *values)
    return np.concatenate(values, axis=axis)


def _unsqueeze(call: Call, x: Value, axes: Value | None = None) -> Value:
    given = call.get("axes", None if axes is None else numbers(axes))
    return x.reshape(unsqueezed(x.shape, given))


def _squeeze(call: Call, x: Value, axes: Value | None = None) -> Value:
    return x.reshape(squeezed(x.shape, call.get("axes", None if axes is None else numbers(axes))))


def _reshape(call: Call, x: Value, shape: Value | None = None) -> Value:
    target = numbers(call.get("shape", shape))
    return x.reshape(reshaped(x.shape, target, bool(call.get("allowzero", 0))))


def _flatten(call: Call, x: Value) -> Value:
    axis = call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), -1)


def _expand(call: Call, x: Value, shape: Value) -> Value:
    return np.broadcast_to(x, bounded(np.broadcast_shapes(x.shape, tuple(numbers(shape))), x)).copy()


def _tile(call: Call, x: Value, repeats: Value) -> Value:
    counts = numbers(repeats)
    bounded([n * count for n, count in zip(x.shape, counts, strict=True)], x)
    return np.tile(x, counts)


def _split(call: Call, x: Value, sizes: Value | None = None) -> list[Value]:
    axis = call.get("axis", 0) % x.ndim
    given = call.get("split", None if sizes is None else numbers(sizes))
    ends = np.cumsum(split_sizes(x.shape[axis], given, len(call.outputs)))
    return list(np.split(x, ends[:-1], axis=axis))


def _cast(call: Call, x: Value) -> Value:
    with np.errstate(all="ignore"):
        return x.astype(numpy_type(call.attributes["to"]))


def _cast_like(call: Call, x: Value, other: Value) -> Value:
    with np.errstate(all="ignore"):
        return x.astype(other.dtype)


def _shape(call: Call, x: Value) -> Value:
    return np.array(x.shape, np.int64)[call.get("start", 0) : call.get("end")]


def _where(call: Call, condition: Value, a: Value, b: Value) -> Value:
    bounded(np.broadcast_shapes(condition.shape, a.shape, b.shape), condition, a, b)
    return np.where(condition, a, b)


def _clip(call: Call, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    lower = call.get("min", None if low is None else low.reshape(()))
    upper = call.get("max", None if high is None else high.reshape(()))
    return np.asarray(np.clip(x, lower, upper)).astype(x.dtype)


def _pad(
    call: Call, x: Value, pads: Value | None = None, value: Value | None = None, axes: Value | None = None
) -> Value:
    mode = call.get("mode", "constant")
    widths = pad_widths(call, x.ndim, pads, axes)
    bounded([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)], x)
    kept = tuple(slice(-min(0, a), n + min(0, b)) for n, (a, b) in zip(x.shape, widths, strict=True))
    added = [(max(0, a), max(0, b)) for a, b in widths]
    if mode == "constant":
        fill = call.get("value", 0) if value is None else value.reshape(())[()]
        return np.pad(x[kept], added, constant_values=fill)
    modes: dict[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    return np.pad(x[kept], added, mode=modes[mode])


def _matmul(call: Call, a: Value, b: Value) -> Value:
    _check_product(a, b)
    return np.asarray(np.matmul(a, b))


def _check_product(a: Value, b: Value) -> None:
    rows = a.shape[-2] if a.ndim > 1 else 1
    columns = b.shape[-1] if b.ndim > 1 else 1
    bounded((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns), a, b)


def _gemm(call: Call, a: Value, b: Value, c: Value | None = None) -> Value:
    a, b = (v.T if call.get(name, 0) else v for v, name in ((a, "transA"), (b, "transB")))
    _check_product(a, b)
    out = call.get("alpha", 1.0) * (a @ b)
    return np.asarray(out if c is None else out + call.get("beta", 1.0) * c).astype(a.dtype)


def _mean(call: Call, *values: Value) -> Value:
    return np.asarray(_many(np.add)(call, *values) / len(values)).astype(values[0].dtype)


def _nonzero(call: Call, x: Value) -> Value:
    return np.array(np.nonzero(x), np.int64)


def _cumsum(call: Call, x: Value, axis: Value) -> Value:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise ValueError("exclusive or reverse sums are not supported")
    return np.asarray(np.cumsum(x, axis=int(axis.reshape(())))).astype(x.dtype)


def _trilu(call: Call, x: Value, k: Value | None = None) -> Value:
    return np.where(triangle(call, x.shape, k), x, x.dtype.type(0))


def _eye(call: Call, x: Value) -> Value:
    code = call.get("dtype")
    rows, columns = bounded(x.shape)
    return np.asarray(np.eye(rows, columns, call.get("k", 0), x.dtype if code is None else numpy_type(code)))


def _onehot(call: Call, indices: Value, depth: Value, values: Value) -> Value:
    count = int(depth.reshape(-1)[0])
    bounded((*indices.shape, count))
    on = np.where(indices < 0, indices + count, indices)[..., None] == np.arange(count)
    return np.moveaxis(np.where(on, values[1], values[0]), -1, call.get("axis", -1))


def _dequantise(call: Call, x: Value, scale: Value, zero: Value | None = None) -> Value:
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    zero = np.zeros_like(scale) if zero is None else zero
    if block:
        scale, zero = _blocked(scale, axis, block, x.shape), _blocked(zero, axis, block, x.shape)
    elif x.ndim:
        scale, zero = along(scale, axis, x.ndim), along(zero, axis, x.ndim)
    values = (x.astype(np.float64) - zero.astype(np.float64)) * scale.astype(np.float64)
    return np.asarray(values.astype(np.float32))


def _blocked(value: Value, axis: int, block: int, shape: Sequence[int]) -> Value:
    axis %= len(shape)
    bounded([n * (block if a == axis else 1) for a, n in enumerate(value.shape)])
    return np.repeat(value, block, axis=axis)[tuple(slice(n) for n in shape)]


def _quantise(call: Call, x: Value, scale: Value, zero: Value | None = None) -> Value:
    axis = call.get("axis", 1)
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    steps = np.rint(x / along(scale, axis, x.ndim)) + (0 if zero is None else along(zero, axis, x.ndim))
    info = np.iinfo(dtype)
    return np.clip(steps, info.min, info.max).astype(dtype)


def _batchnorm(call: Call, x: Value, scale: Value, shift: Value, mean: Value, variance: Value) -> list[Value]:
    """In training mode, too: how weights are standardised."""
    per = [1, -1] + [1] * (x.ndim - 2)
    if call.get("training_mode", 0) or (call.opset < 14 and len(call.outputs) > 1):
        axes = tuple(a for a in range(x.ndim) if a != 1)
        mean, variance = x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)
    factor = scale / np.sqrt(variance.astype(np.float64) + call.get("epsilon", 1e-5))
    out = (x - mean.reshape(per)) * factor.reshape(per) + shift.reshape(per)
    return [np.asarray(out).astype(x.dtype), mean, variance, mean, variance][: len(call.outputs)]


def _einsum(call: Call, *values: Value) -> Value:
    equation = str(call.attributes["equation"]).replace(" ", "")
    terms, _, out = equation.partition("->")
    lengths: dict[str, int] = {}
    for term, value in zip(terms.split(","), values, strict=True):
        if "." in term:
            raise ValueError("an ellipsis is not supported")
        lengths |= dict(zip(term, value.shape, strict=True))
    bounded([lengths[letter] for letter in out], *values)
    if prod(lengths.values()) > 1 << 32:
        raise ValueError("the product takes too long")
    return np.asarray(np.einsum(equation, *values, optimize=False))


def _sigmoid(x: Value) -> Value:
    return np.asarray(1 / (1 + np.exp(-x)))


def _norm(x: Value, axis: tuple[int, ...], keepdims: bool) -> Value:
    return np.asarray(np.sqrt(np.square(x).sum(axis=axis, keepdims=keepdims)))


def _squares(x: Value, axis: tuple[int, ...], keepdims: bool) -> Value:
    return np.asarray(np.square(x).sum(axis=axis, keepdims=keepdims))


FOLDERS: dict[str, Folder] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "And": _binary(np.logical_and),
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _unary(np.cos),
    "CumSum": _cumsum,
    "DequantizeLinear": _dequantise,
    "Div": _binary(divided),
    "Einsum": _einsum,
    "Equal": _binary(np.equal),
    "Exp": _unary(np.exp),
    "Expand": _expand,
    "EyeLike": _eye,
    "Flatten": _flatten,
    "Floor": _unary(np.floor),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "Identity": lambda call, x: x,
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Log": _unary(np.log),
    "MatMul": _matmul,
    "Max": _many(np.maximum),
    "Mean": _mean,
    "Min": _many(np.minimum),
    "Mod": _modulo,
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "NonZero": _nonzero,
    "Not": _unary(np.logical_not),
    "OneHot": _onehot,
    "Or": _binary(np.logical_or),
    "Pad": _pad,
    "Pow": _binary(lambda a, b: np.asarray(np.power(a, b)).astype(a.dtype)),
    "QuantizeLinear": _quantise,
    "Range": _range,
    "Reciprocal": _unary(np.reciprocal),
    "ReduceL2": _reduction(_norm),
    "ReduceMax": _reduction(np.max),
    "ReduceMean": _reduction(np.mean),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "ReduceSumSquare": _reduction(_squares),
    "Relu": _unary(lambda x: np.maximum(x, x.dtype.type(0))),
    "Reshape": _reshape,
    "Round": _unary(np.rint),
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Sigmoid": _unary(_sigmoid),
    "Sign": _unary(np.sign),
    "Sin": _unary(np.sin),
    "Size": lambda call, x: np.int64(x.size),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Sum": _many(np.add),
    "Tanh": _unary(np.tanh),
    "Tile": _tile,
    "Transpose": lambda call, x: np.ascontiguousarray(np.transpose(x, call.get("perm"))),
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
    "Xor": _binary(np.logical_xor),
}
