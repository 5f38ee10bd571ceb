"""Constant folding: values that depend only on weights and shapes, computed on demand and within limits.

For `read`. Hides which operators are computed here: a list of cheap ones, in NumPy. Other operators are computed by the
layers that the reader makes of them, or not at all. A node is computed only if a layer needs its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from .model import Call, Value, numpy_type, tensor

MOST = 1 << 24  # most elements of a constant, unless it is no larger than its inputs
SPARE = 1 << 28  # most bytes of all constants, in addition to GROWTH times the bytes of the file's weights
GROWTH = 12  # int4 weights become float32, possibly with a transposed copy

Folder = Callable[..., Any]


class Constants:
    """Tensors whose values do not depend on the photograph.

    Parameters
    ----------
    initialisers : mapping of str to protocol buffers
    size : int
        Bytes of the file's weights: what limits the bytes of all that is computed from them.
    other : function of a Call and its inputs (None: left out), returning its outputs
        Computes the operators that are not in FOLDERS.
    """

    def __init__(
        self, initialisers: Mapping[str, Any], size: int, other: Callable[[Call, list[Value | None]], list[Value]]
    ) -> None:
        self._stored: dict[str, Any] = dict(initialisers)
        self._makers: dict[str, Call] = {}
        self._values: dict[str, Value] = {}
        self._left = SPARE + GROWTH * size
        self._other = other
        self.folded: list[str] = []  # names of nodes whose values were computed

    def __contains__(self, name: str) -> bool:
        return name in self._values or name in self._stored or name in self._makers

    def put(self, name: str, value: Any) -> None:
        """A constant of that value."""
        self._values[name] = np.asarray(value)

    def store(self, initialisers: Mapping[str, Any]) -> None:
        """Weights, those of a branch."""
        self._stored |= initialisers

    def define(self, call: Call) -> None:
        """Constants that the node computes from others, once somebody needs them."""
        self._makers |= {name: call for name in call.outputs if name}

    def value(self, name: str) -> Value:
        """The value of a constant."""
        waiting = [name]
        while waiting:
            latest = waiting[-1]
            if latest in self._values:
                waiting.pop()
            elif latest in self._stored:
                self._values[latest] = tensor(self._stored[latest])
            elif latest not in self._makers:
                raise ValueError(f"tensor {latest!r} comes from no node")
            else:
                call = self._makers[latest]
                missing = [source for source in call.inputs if source and source not in self._values]
                waiting += missing
                if not missing:
                    self._run(call)
        return self._values[name]

    def _run(self, call: Call) -> None:
        inputs = [self._values[source] if source else None for source in call.inputs]
        try:
            results = self._results(call, inputs)
        except Exception as error:  # whatever NumPy says to arrays that do not fit
            raise ValueError(f"{call.title}: its value cannot be computed from constants: {error}") from error
        for name, value in zip(call.outputs, results, strict=False):
            self._left -= value.nbytes
            if name:
                self._values[name] = value
        if self._left < 0:
            raise ValueError(f"{call.title}: constants take too much memory when they are computed")
        if any(name and name not in self._values for name in call.outputs):
            raise ValueError(f"{call.title} has {len(call.outputs)} outputs, {len(results)} can be computed")
        if call.op != "Constant":
            self.folded.append(call.name)

    def _results(self, call: Call, inputs: list[Value | None]) -> list[Value]:
        if call.domain or call.op not in FOLDERS:
            return self._other(call, inputs)
        result = FOLDERS[call.op](call, *inputs)
        return [np.asarray(each) for each in (result if isinstance(result, list | tuple) else [result])]


def bounded(shape: Iterable[int], *inputs: Value | None) -> tuple[int, ...]:
    """`shape`, unless an array of it would be larger than MOST elements and all `inputs`."""
    lengths = tuple(int(length) for length in shape)
    most = max([MOST, *(value.size for value in inputs if value is not None)])
    if any(length < 0 for length in lengths) or prod(lengths) > most:
        raise ValueError(f"an array of {lengths} is not computed; constants may have {most} elements")
    return lengths


def pooled_shape(shape: Sequence[int], axes: Iterable[int] | None, keepdims: bool) -> tuple[tuple[int, ...], bool]:
    """Axes >= 0 that a reduction goes over (None: all), and `keepdims`."""
    rank = len(shape)
    return tuple(range(rank)) if axes is None else tuple(sorted({int(a) % rank for a in axes})), keepdims


def numbers(value: Value | Sequence[int]) -> list[int]:
    """Whole numbers as Python's, from a tensor of any shape."""
    return [int(each) for each in np.ravel(value)]


# ---- operators -------------------------------------------------------------------------------------------------------


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


def _reduction(function: Callable[..., Value]) -> Folder:
    def fold(call: Call, x: Value, axes: Value | None = None) -> Value:
        given = call.get("axes", None if axes is None else numbers(axes))
        if not given and call.get("noop_with_empty_axes", 0):
            return x
        over, keep = pooled_shape(x.shape, given or None, bool(call.get("keepdims", 1)))
        return np.asarray(function(x, axis=over, keepdims=keep)).astype(x.dtype)

    return fold


def divided(a: Value, b: Value) -> Value:
    """a / b; whole numbers are cut off towards 0."""
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


def sliced(call: Call, rank: int, inputs: Sequence[Value | None]) -> list[tuple[int, slice]]:
    """Axes >= 0 and slices of a Slice of an array of that rank."""
    if "starts" in call.attributes:
        starts, ends, axes, steps = call.get("starts"), call.get("ends"), call.get("axes"), None
    else:
        starts, ends, axes, steps = (None if v is None else numbers(v) for v in (*inputs, None, None, None, None)[:4])
    if starts is None or ends is None:
        raise ValueError("a slice needs starts and ends")
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    cuts = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        backwards_to_the_end = step < 0 and end < -(1 << 31)
        cuts.append((axis % rank, slice(start, None if backwards_to_the_end else end, step)))
    return cuts


def _slice(call: Call, x: Value, *rest: Value | None) -> Value:
    where = [slice(None)] * x.ndim
    for axis, cut in sliced(call, x.ndim, rest):
        length = x.shape[axis]
        if cut.step < 0 and cut.stop is not None and cut.stop < -length:
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
    axis = call.get("axis", 0) % x.ndim
    return np.take_along_axis(x, _wrapped(indices, x.shape[axis]), axis=axis)


def _gather_nd(call: Call, x: Value, indices: Value) -> Value:
    if call.get("batch_dims", 0):
        raise ValueError("batch_dims is not supported")
    depth = indices.shape[-1]
    bounded((*indices.shape[:-1], *x.shape[depth:]), x, indices)
    return np.asarray(x[tuple(_wrapped(indices[..., k], x.shape[k]) for k in range(depth))])


def _scatter_nd(call: Call, x: Value, indices: Value, updates: Value) -> Value:
    _plain(call)
    out, depth = x.copy(), indices.shape[-1]
    out[tuple(_wrapped(indices[..., k], x.shape[k]) for k in range(depth))] = updates
    return out


def _scatter_elements(call: Call, x: Value, indices: Value, updates: Value) -> Value:
    _plain(call)
    out, axis = x.copy(), call.get("axis", 0) % x.ndim
    np.put_along_axis(out, _wrapped(indices, x.shape[axis]), updates, axis)
    return out


def _plain(call: Call) -> None:
    if call.get("reduction", "none") != "none":
        raise ValueError(f"reduction {call.get('reduction')!r} is not supported")


def _concat(call: Call, *values: Value) -> Value:
    axis = call.get("axis", 1 if call.opset < 4 else 0) % max(1, values[0].ndim)
    length = sum(value.shape[axis] for value in values)
    bounded((*values[0].shape[:axis], length, *values[0].shape[axis + 1 :]), *values)
    return np.concatenate(values, axis=axis)


def unsqueezed(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """A shape with axes of length 1 put in."""
    rank = len(shape) + len(axes)
    added = {axis % rank for axis in axes}
    if len(added) != len(axes):
        raise ValueError(f"axes {list(axes)} repeat one another")
    rest = iter(shape)
    return tuple(1 if axis in added else next(rest) for axis in range(rank))


def squeezed(shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    """A shape without some of its axes of length 1 (None: without any)."""
    gone = {a for a, n in enumerate(shape) if n == 1} if axes is None else {axis % len(shape) for axis in axes}
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {sorted(gone)} of an array of {tuple(shape)} cannot be dropped")
    return tuple(n for a, n in enumerate(shape) if a not in gone)


def _unsqueeze(call: Call, x: Value, axes: Value | None = None) -> Value:
    given = call.get("axes", None if axes is None else numbers(axes))
    return x.reshape(unsqueezed(x.shape, given))


def _squeeze(call: Call, x: Value, axes: Value | None = None) -> Value:
    return x.reshape(squeezed(x.shape, call.get("axes", None if axes is None else numbers(axes))))


def reshaped(shape: Sequence[int], target: Sequence[int], allowzero: bool) -> tuple[int, ...]:
    """What Reshape makes of a shape."""
    out = [shape[i] if n == 0 and not allowzero else n for i, n in enumerate(target)]
    if out.count(-1) > 1 or any(n < -1 for n in out):
        raise ValueError(f"shape {list(target)} has more than one free length")
    if -1 in out:
        rest = -prod(out)
        if rest == 0 or prod(shape) % rest:
            raise ValueError(f"an array of {tuple(shape)} does not fit shape {list(target)}")
        out[out.index(-1)] = prod(shape) // rest
    if prod(out) != prod(shape):
        raise ValueError(f"an array of {tuple(shape)} does not fit shape {list(target)}")
    return tuple(out)


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


def split_sizes(length: int, sizes: Sequence[int] | None, parts: int) -> list[int]:
    """Lengths of the parts of a Split; without `sizes`, equal ones but for the last."""
    if sizes is None:
        step = -(-length // parts)
        sizes = [min(step, max(0, length - i * step)) for i in range(parts)]
    if sum(sizes) != length or min(sizes) < 0:
        raise ValueError(f"{length} values do not split into {list(sizes)}")
    return list(sizes)


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


def pad_widths(call: Call, rank: int, pads: Value | None, axes: Value | None) -> list[tuple[int, int]]:
    """What a Pad adds before and after each axis."""
    flat = call.get("pads", call.get("paddings", None if pads is None else numbers(pads)))
    if flat is None:
        raise ValueError("a pad needs its widths")
    which = range(rank) if axes is None else [axis % rank for axis in numbers(axes)]
    widths = [(0, 0)] * rank
    for k, axis in enumerate(which):
        widths[axis] = (flat[k], flat[k + len(flat) // 2])
    return widths


def _pad(call: Call, x: Value, pads: Value | None = None, value: Value | None = None, axes: Value | None = None) -> Any:
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


def _nonzero(call: Call, x: Value) -> Value:
    return np.array(np.nonzero(x), np.int64)


def _cumsum(call: Call, x: Value, axis: Value) -> Value:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise ValueError("exclusive or reverse sums are not supported")
    return np.asarray(np.cumsum(x, axis=int(axis.reshape(())))).astype(x.dtype)


def triangle(call: Call, shape: Sequence[int], k: Value | None) -> Value:
    """Which values a Trilu keeps, bool (rows, columns)."""
    offset = 0 if k is None else int(k.reshape(()))
    kept = np.tri(shape[-2], shape[-1], offset if not call.get("upper", 1) else offset - 1, dtype=bool)
    return ~kept if call.get("upper", 1) else kept


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


def along(value: Value, axis: int, rank: int) -> Value:
    """One value per length of an axis, in a shape that meets arrays of `rank` axes; a single number as it is."""
    if value.size == 1:
        return value.reshape(())
    if value.ndim != 1:
        raise ValueError(f"scales of shape {value.shape} are not supported; expected one, or one for each channel")
    return value.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


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
    if call.get("training_mode", 0):
        axes = tuple(a for a in range(x.ndim) if a != 1)
        mean, variance = x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)
    factor = scale / np.sqrt(variance.astype(np.float64) + call.get("epsilon", 1e-5))
    out = (x - mean.reshape(per)) * factor.reshape(per) + shift.reshape(per)
    return [np.asarray(out).astype(x.dtype), mean, variance][: len(call.outputs)]


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
