"""Operators with products: convolutions, matrix products, attention; pooling, reductions and normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..layers import (
    LRN,
    Activation,
    Affine,
    AveragePool,
    Conv,
    Dense,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    MatMul,
    MaxPool,
    NetworkLayer,
    Quotient,
    Reduce,
    RMSNorm,
    Shape,
    Softmax,
)
from .arithmetic import added, scaled, shifted
from .model import Call, Value
from .moves import taken
from .read import Operator, Reader
from .shapes import bounded
from .steps import View

# ---- convolutions and pools ------------------------------------------------------------------------------------------


class _Planes(NamedTuple):
    """A tensor as planes of one image.

    Attributes
    ----------
    view : View
        (1, parts * channels, height, width).
    single : bool
        Whether the file has lengths in the place of planes.
    parts : int
        How many images the file makes of one: windows, or heads. They are treated alike, as groups of channels.
    """

    view: View
    single: bool
    parts: int


def _planes(reader: Reader, view: View) -> _Planes:
    single = len(view.shape) == 3
    if len(view.shape) not in (3, 4) or view.batch not in (0, None):
        raise ValueError(f"it reads an array of {view.shape}; expected (batch, channels, height, width)")
    parts, channels, *lengths = view.shape
    if single or view.batch is None:
        view = reader.reshaped(view, (1, parts * channels, *([1] if single else []), *lengths))
    return _Planes(view, single, parts)


def _made(reader: Reader, call: Call, planes: _Planes, layer: NetworkLayer) -> None:
    """The output of a layer of planes, in the file's form."""
    view = View(reader.step(layer, planes.view.step), 0)
    _, channels, *lengths = view.shape
    shape = (planes.parts, channels // planes.parts, *(lengths[1:] if planes.single else lengths))
    reader.set(call, reader.reshaped(view, shape))


def _pair(call: Call, name: str, single: bool, default: int = 1) -> tuple[int, int]:
    given = [int(v) for v in call.get(name, [default] if single else [default, default])]
    if len(given) != (1 if single else 2) or min(given) < 1:
        raise ValueError(f"{name} must be {'a number' if single else 'two numbers'} of at least 1, got {given}")
    return (1, given[0]) if single else (given[0], given[1])


def _pads(
    call: Call, planes: _Planes, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    single = planes.single
    how = call.get("auto_pad", "NOTSET") or "NOTSET"
    if how == "VALID":
        return 0, 0, 0, 0
    if how == "NOTSET":
        given = [int(v) for v in call.get("pads", [0, 0] if single else [0, 0, 0, 0])]
        if len(given) != (2 if single else 4) or min(given) < 0:
            raise ValueError(f"pads {given} are not supported")
        return (0, given[0], 0, given[1]) if single else (given[0], given[1], given[2], given[3])
    totals = [
        max(0, (-(-length // s) - 1) * s + d * (k - 1) + 1 - length)
        for length, k, s, d in zip(planes.view.shape[2:], kernel, stride, dilation, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    first, last = (small, large) if how == "SAME_UPPER" else (large, small)
    return first[0], first[1], last[0], last[1]


def _conv(reader: Reader, call: Call) -> None:
    if not reader.is_constant(call, 1):
        raise ValueError("its weights depend on the photograph")
    weight = reader.weights(call, 1)
    assert weight is not None
    if weight.ndim not in (3, 4):
        raise ValueError(f"its weight has shape {weight.shape}; expected one or two spatial axes")
    bias = reader.weights(call, 2)
    bias = np.zeros(len(weight), np.float32) if bias is None else bias
    planes = _planes(reader, reader.view(call))
    weight = weight[:, :, None] if planes.single else weight
    stride, dilation = _pair(call, "strides", planes.single), _pair(call, "dilations", planes.single)
    pads = _pads(call, planes, weight.shape[2:], stride, dilation)
    groups = int(call.get("group", 1))
    if groups < 1 or len(weight) % groups or bias.shape != (len(weight),):
        raise ValueError(f"weights of {weight.shape}, biases of {bias.shape} and {groups} groups do not fit")
    if planes.parts > 1:  # the same weights for every part
        bounded((planes.parts * len(weight), *weight.shape[1:]))
        weight, bias = np.tile(weight, (planes.parts, 1, 1, 1)), np.tile(bias, planes.parts)
    layer = Conv(
        np.ascontiguousarray(weight), np.ascontiguousarray(bias), stride, pads, dilation, groups * planes.parts
    )
    _made(reader, call, planes, layer)


def _pool(reader: Reader, call: Call, average: bool) -> None:
    planes = _planes(reader, reader.view(call))
    if "kernel_shape" not in call.attributes:
        raise ValueError("its kernel_shape is missing")
    kernel, stride = _pair(call, "kernel_shape", planes.single), _pair(call, "strides", planes.single)
    dilation = _pair(call, "dilations", planes.single)
    pads = _pads(call, planes, kernel, stride, dilation)
    ceil_mode = bool(call.get("ceil_mode", 0))
    if average and dilation != (1, 1):
        raise ValueError(f"dilations {dilation} are not supported for averages")
    layer: NetworkLayer = MaxPool(kernel, stride, pads, ceil_mode, dilation)
    if average:
        layer = AveragePool(kernel, stride, pads, ceil_mode, bool(call.get("count_include_pad", 0)))
    _made(reader, call, planes, layer)


def _global(reader: Reader, call: Call, how: str) -> None:
    view = reader.view(call)
    if view.batch == 0 and len(view.shape) == 4:
        reader.emit(call, GlobalAveragePool() if how == "mean" else GlobalMaxPool())
    else:
        reader.set(call, _reduced(reader, view, how, list(range(2, len(view.shape))), True))


# ---- products --------------------------------------------------------------------------------------------------------


def _dense_layer(weight: Value, bias: Value | None = None) -> Dense:
    """A dense layer of weights (n_out, n_in)."""
    bias = np.zeros(len(weight), np.float32) if bias is None else bias
    return Dense(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))


def _gemm(reader: Reader, call: Call) -> None:
    alpha, beta = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    if reader.is_constant(call, 0) or not reader.is_constant(call, 1):
        _gemm_computed(reader, call, alpha, beta)
        return
    view, weight = reader.view(call), reader.needed(call, 1)
    if call.get("transA", 0):
        view = reader.transposed(view, (1, 0))
    weight = weight if call.get("transB", 0) else weight.T
    if alpha != 1:  # a copy of a large layer takes longer than its product
        weight = alpha * weight
    if len(view.shape) != 2 or view.batch == 1:
        raise ValueError(f"it reads an array of {view.shape}; expected rows of numbers")
    computed = reader.has(call, 2) and not reader.is_constant(call, 2)
    bias = None if computed else reader.weights(call, 2)
    plain = bias is None or bias.size == 1 or bias.size == bias.shape[-1] == len(weight)
    row = np.broadcast_to(beta * bias.reshape(-1), len(weight)) if bias is not None and plain else None
    made = View(reader.step(_dense_layer(weight, row), view.step), view.batch)
    if computed:
        made = added(reader, [made, scaled(reader, reader.view(call, 2), np.array(beta))])
    elif bias is not None and not plain:
        made = shifted(reader, made, beta * bias)
    reader.set(call, made)


def _gemm_computed(reader: Reader, call: Call, alpha: float, beta: float) -> None:
    sides: list[View | Value] = []
    for i, name in ((0, "transA"), (1, "transB")):
        turned = bool(call.get(name, 0))
        if reader.is_constant(call, i):
            value = reader.needed(call, i)
            sides.append(value.T if turned else value)
        else:
            view = reader.view(call, i)
            sides.append(reader.transposed(view, (1, 0)) if turned else view)
    made = scaled(reader, product(reader, *sides), np.array(alpha))
    if reader.has(call, 2):
        if reader.is_constant(call, 2):
            made = shifted(reader, made, beta * reader.needed(call, 2).astype(np.float64))
        else:
            made = added(reader, [made, scaled(reader, reader.view(call, 2), np.array(beta))])
    reader.set(call, made)


def _matmul(reader: Reader, call: Call) -> None:
    sides = [reader.needed(call, i) if reader.is_constant(call, i) else reader.view(call, i) for i in (0, 1)]
    reader.set(call, product(reader, sides[0], sides[1]))


def product(reader: Reader, a: View | Value, b: View | Value) -> View:
    """The matrix product of two tensors as NumPy has it, one of which may be a constant."""
    if isinstance(a, View) and isinstance(b, View):
        return _matmul_computed(reader, a, b)
    if isinstance(a, View):
        assert not isinstance(b, View)
        return _times_constant(reader, a, b)
    assert isinstance(b, View)
    if len(b.shape) == 1:
        b, a = reader.reshaped(b, (*b.shape, 1)), a
        out = product(reader, a, b)
        return reader.reshaped(out, out.shape[:-1])
    if a.ndim == 1:
        out = product(reader, a[None], b)
        return reader.reshaped(out, (*out.shape[:-2], out.shape[-1]))
    turned = _times_constant(reader, _swapped(reader, b), np.swapaxes(a, -1, -2))
    return _swapped(reader, turned)


def _swapped(reader: Reader, view: View) -> View:
    """The last two axes in the other order."""
    rank = len(view.shape)
    return reader.transposed(view, (*range(rank - 2), rank - 1, rank - 2))


def _times_constant(reader: Reader, view: View, weight: Value) -> View:
    """A tensor times constant weights (..., n_in, n_out)."""
    if weight.ndim == 1:
        out = _times_constant(reader, view, weight[:, None])
        return reader.reshaped(out, out.shape[:-1])
    rank = max(len(view.shape), weight.ndim)
    if prod(weight.shape[:-2]) == 1 and len(view.shape) >= weight.ndim:
        if view.batch == len(view.shape) - 1:
            view = reader.full(view)
        return View(reader.step(_dense_layer(weight.reshape(weight.shape[-2:]).T), view.step), view.batch)
    view = reader.reshaped(view, (*(1,) * (rank - len(view.shape)), *view.shape))
    lengths = (*(1,) * (rank - weight.ndim), *weight.shape)
    if view.batch is not None and (view.batch >= rank - 2 or lengths[view.batch] != 1):
        view = reader.full(view)
    if view.batch is not None:
        lengths = (*lengths[: view.batch], *lengths[view.batch + 1 :])
    return View(reader.step(MatMul(np.asarray(weight.reshape(lengths), np.float32)), view.step), view.batch)


def _matmul_computed(reader: Reader, a: View, b: View) -> View:
    if len(a.shape) == 1:
        out = _matmul_computed(reader, reader.reshaped(a, (1, *a.shape)), b)
        return reader.reshaped(out, (*out.shape[:-2], out.shape[-1]))
    if len(b.shape) == 1:
        out = _matmul_computed(reader, a, reader.reshaped(b, (*b.shape, 1)))
        return reader.reshaped(out, out.shape[:-1])
    rank = max(len(a.shape), len(b.shape))
    sides = [view if view.batch is None or view.batch < len(view.shape) - 2 else reader.full(view) for view in (a, b)]
    sides = [reader.reshaped(view, (*(1,) * (rank - len(view.shape)), *view.shape)) for view in sides]
    batch = sides[0].batch
    if batch is None or sides[1].batch != batch or batch >= rank - 2:
        sides, batch = [reader.full(view) for view in sides], None
    return View(reader.step(MatMul(), sides[0].step, sides[1].step), batch)


# ---- Einsum and Attention --------------------------------------------------------------------------------------------


def _einsum(reader: Reader, call: Call) -> None:
    equation = str(call.attributes["equation"]).replace(" ", "")
    terms, arrow, out = equation.partition("->")
    letters = terms.split(",")
    if len(letters) != len(call.inputs) or len(letters) > 2:
        raise ValueError(f"{equation!r} is not supported; expected one or two arrays")
    shapes = [
        reader.needed(call, i).shape if reader.is_constant(call, i) else reader.view(call, i).shape
        for i in range(len(letters))
    ]
    letters, out = _spelt_out(letters, out if arrow else None, shapes)
    if any(len(set(term)) != len(term) for term in (*letters, out)):
        raise ValueError(f"{equation!r} is not supported: a letter repeats in one array")
    if len(letters) == 1:
        view = _summed(reader, reader.view(call), letters[0], out)
        kept = [letter for letter in letters[0] if letter in out]
        reader.set(call, reader.transposed(view, [kept.index(letter) for letter in out]))
        return
    reader.set(call, _contracted(reader, call, letters, out))


def _spelt_out(letters: list[str], out: str | None, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """Terms with letters in the place of an ellipsis, and of an output that is left out."""
    spare = [chr(code) for code in range(0x3B1, 0x3C9)]
    longest = max((len(s) - len(t) + 3 for t, s in zip(letters, shapes, strict=True) if "..." in t), default=0)
    dots = "".join(spare[:longest])
    full = [t.replace("...", dots[longest - (len(s) - len(t) + 3) :]) if "..." in t else t
            for t, s in zip(letters, shapes, strict=True)]  # fmt: skip
    if any(len(term) != len(shape) for term, shape in zip(full, shapes, strict=True)):
        raise ValueError(f"terms {letters} do not fit arrays of {list(shapes)}")
    if out is None:
        joined = "".join(full)
        out = dots + "".join(sorted(c for c in set(joined) - set(dots) if joined.count(c) == 1))
    return full, out.replace("...", dots)


def _summed(reader: Reader, view: View, letters: str, kept: str) -> View:
    """A tensor without the axes of letters that are not kept, added up."""
    over = [axis for axis, letter in enumerate(letters) if letter not in kept]
    return _reduced(reader, view, "sum", over, False) if over else view


def _contracted(reader: Reader, call: Call, letters: list[str], out: str) -> View:
    """Two arrays as a matrix product: common letters that stay, those of either, and those that go."""
    a, b = letters
    parts: list[View | Value] = []
    for i, (own, other) in enumerate(((a, b), (b, a))):
        if reader.is_constant(call, i):
            gone = tuple(axis for axis, c in enumerate(own) if c not in other and c not in out)
            parts.append(reader.needed(call, i).sum(axis=gone))
        else:
            parts.append(_summed(reader, reader.view(call, i), own, other + out))
    a, b = ("".join(c for c in own if c in other or c in out) for own, other in ((a, b), (b, a)))
    lengths = {c: n for term, part in zip((a, b), parts, strict=True) for c, n in zip(term, part.shape, strict=True)}
    both = [c for c in a if c in b and c in out]
    gone_letters = [c for c in a if c in b and c not in out]
    left, right = [c for c in a if c not in b], [c for c in b if c not in a]

    def size(some: list[str]) -> int:
        return prod(lengths[c] for c in some)

    stack = tuple(lengths[c] for c in both)
    first = _laid(reader, parts[0], a, [*both, *left, *gone_letters], (*stack, size(left), size(gone_letters)))
    second = _laid(reader, parts[1], b, [*both, *gone_letters, *right], (*stack, size(gone_letters), size(right)))
    made = product(reader, first, second)
    order = [*both, *left, *right]
    made = reader.reshaped(made, tuple(lengths[c] for c in order))
    return reader.transposed(made, [order.index(c) for c in out])


def _laid(reader: Reader, part: View | Value, letters: str, order: list[str], shape: Shape) -> View | Value:
    """An array with its axes in another order, and then in another shape."""
    axes = [letters.index(c) for c in order]
    if isinstance(part, View):
        return reader.reshaped(reader.transposed(part, axes), shape)
    return np.transpose(part, axes).reshape(shape)


def _attention(reader: Reader, call: Call) -> None:
    """ONNX's own Attention: softmax(scale Q K^T + mask) V, heads side by side."""
    if any(reader.has(call, i) for i in (4, 5)) or any(call.outputs[1:3]):
        raise ValueError("past keys and values are not supported")
    query, key, value = (_heads(reader, call, i) for i in range(3))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (taken(reader, v, 1, np.repeat(np.arange(v.shape[1]), groups)) for v in (key, value))
    scale = call.get("scale")
    scale = 1 / np.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = scaled(reader, product(reader, query, _swapped(reader, key)), np.array(scale))
    scores = _masked(reader, call, scores)
    cap = float(call.get("softcap", 0.0))
    if cap:
        scores = scaled(reader, scores, np.array(1 / cap))
        scores = View(reader.step(Activation("tanh"), scores.step), scores.batch)
        scores = scaled(reader, scores, np.array(cap))
    weights = View(reader.step(Softmax(scores.axis(-1)), scores.step), scores.batch)
    made = product(reader, weights, value)
    if len(reader.view(call).shape) == 3:
        n, heads, length, depth = made.shape
        made = reader.reshaped(reader.transposed(made, (0, 2, 1, 3)), (n, length, heads * depth))
    reader.set(call, made)


def _heads(reader: Reader, call: Call, i: int) -> View:
    """Queries, keys or values as (batch, heads, tokens, depth)."""
    view = reader.view(call, i)
    if len(view.shape) == 4:
        return view
    heads = int(call.attributes["q_num_heads" if i == 0 else "kv_num_heads"])
    n, length, depth = view.shape
    return reader.transposed(reader.reshaped(view, (n, length, heads, depth // heads)), (0, 2, 1, 3))


def _masked(reader: Reader, call: Call, scores: View) -> View:
    if reader.has(call, 3):
        mask = reader.needed(call, 3)
        if mask.dtype == bool:
            mask = np.where(mask, 0.0, -np.inf)
        scores = shifted(reader, scores, mask)
    if call.get("is_causal", 0):
        rows, columns = scores.shape[-2:]
        scores = shifted(reader, scores, np.where(np.tri(rows, columns, dtype=bool), 0.0, -np.inf))
    return scores


# ---- reductions ------------------------------------------------------------------------------------------------------


def _reduced(reader: Reader, view: View, how: str, axes: Sequence[int], keep: bool) -> View:
    """Mean, sum or maximum over axes of the file."""
    rank = len(view.shape)
    over = sorted({axis % rank for axis in axes})
    long = [axis for axis in over if axis != view.batch]
    if view.batch in over and (not long or view.step.shape != view.shape[1:]):
        view = reader.full(view)
        long = over
    elif view.batch in over:
        raise ValueError("it goes over the batch: images of a batch must stay apart")
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
    if not axes:
        if call.get("noop_with_empty_axes", 0):
            reader.same(call, "it goes over no axes")
            return
        axes = list(range(len(view.shape)))
        if view.batch is not None:
            axes.remove(view.batch)
    for name in filter(None, before.split()):
        view = _applied(reader, view, name)
    view = _reduced(reader, view, how, axes, bool(call.get("keepdims", 1)))
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
        size = _applied(reader, _reduced(reader, _applied(reader, view, "square"), "sum", [axis], True), "sqrt")
    else:
        size = _reduced(reader, _applied(reader, view, "abs"), "sum", [axis], True)
    steps, batch = reader.aligned(view, size)
    reader.set(call, View(reader.step(Quotient(), *steps), batch))


# ---- normalisations --------------------------------------------------------------------------------------------------


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
    reader.emit(call, LRN(int(call.attributes["size"]), *(float(str(np.float32(v))) for v in values)))


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


def _skip_norm(reader: Reader, call: Call) -> None:
    """onnxruntime's sum of two arrays and a bias, and their layer normalisation."""
    total = added(reader, [reader.view(call, 0), reader.view(call, 1)])
    if reader.has(call, 4):
        total = shifted(reader, total, reader.needed(call, 4))
    scale, shift = _single(reader.needed(call, 2)), reader.weights(call, 3)
    shift = np.zeros_like(scale) if shift is None else shift
    axes = (total.axis(-1),)
    reader.emit(call, LayerNorm(scale, shift, axes, float(call.get("epsilon", 1e-12))), total)
    if len(call.outputs) > 3 and call.outputs[3]:
        reader.set(call, total, 3)


def _mean_variance(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    axes = tuple(view.axis(axis) for axis in call.get("axes", [0, 2, 3]))
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


def _bias_gelu(reader: Reader, call: Call) -> None:
    view = shifted(reader, reader.view(call), reader.needed(call, 1))
    reader.set(call, _applied(reader, view, "gelu"))


def _fused_matmul(reader: Reader, call: Call) -> None:
    if call.get("transBatchA", 0) or call.get("transBatchB", 0):
        raise ValueError("transposed batches are not supported")
    sides: list[Any] = []
    for i, name in ((0, "transA"), (1, "transB")):
        constant, turned = reader.is_constant(call, i), call.get(name, 0)
        side: Any = reader.needed(call, i) if constant else reader.view(call, i)
        if turned:
            side = np.swapaxes(side, -1, -2) if constant else _swapped(reader, side)
        sides.append(side)
    reader.set(call, scaled(reader, product(reader, *sides), np.array(float(call.get("alpha", 1.0)))))


OPERATORS: dict[str, Operator] = {
    "Attention": _attention,
    "AveragePool": partial(_pool, average=True),
    "BatchNormalization": _batchnorm,
    "Conv": _conv,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": partial(_global, how="mean"),
    "GlobalMaxPool": partial(_global, how="max"),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": partial(_normalised, rms=False),
    "LogSoftmax": partial(_softmax, log=True),
    "LpNormalization": _lp_norm,
    "MatMul": _matmul,
    "MaxPool": partial(_pool, average=False),
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": partial(_normalised, rms=True),
    "ReduceL1": partial(_reduce, how="sum", before="abs"),
    "ReduceL2": partial(_reduce, how="sum", before="square", after="sqrt"),
    "ReduceLogSum": partial(_reduce, how="sum", after="log"),
    "ReduceLogSumExp": partial(_reduce, how="sum", before="exp", after="log"),
    "ReduceMax": partial(_reduce, how="max"),
    "ReduceMean": partial(_reduce, how="mean"),
    "ReduceMin": partial(_reduce, how="max", before="negative", after="negative"),
    "ReduceSum": partial(_reduce, how="sum"),
    "ReduceSumSquare": partial(_reduce, how="sum", before="square"),
    "SimplifiedLayerNormalization": partial(_normalised, rms=True),
    "Softmax": _softmax,
    "com.microsoft.BiasGelu": _bias_gelu,
    "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.SkipLayerNormalization": _skip_norm,
}
