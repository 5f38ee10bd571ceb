"""Operators that multiply two arrays: matrix products, Einsum, attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..layers import (
    Activation,
    Dense,
    MatMul,
    Shape,
    Softmax,
)
from .arithmetic import added, scaled, shifted
from .model import Call, Value
from .moves import taken
from .read import Operator, Reader
from .reductions import reduced
from .shapes import bounded
from .steps import View


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
    """The matrix product of two tensors, as np.matmul defines it; one of them may be a constant."""
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
    turned = _times_constant(reader, swapped(reader, b), np.swapaxes(a, -1, -2))
    return swapped(reader, turned)


def swapped(reader: Reader, view: View) -> View:
    """A tensor with its last two axes swapped."""
    rank = len(view.shape)
    return reader.transposed(view, (*range(rank - 2), rank - 1, rank - 2))


def _times_constant(reader: Reader, view: View, weight: Value) -> View:
    """A tensor times constant weights (..., n_in, n_out)."""
    if weight.ndim == 1:
        out = _times_constant(reader, view, weight[:, None])
        return reader.reshaped(out, out.shape[:-1])
    if len(view.shape) == 1 and weight.ndim > 2:
        out = _times_constant(reader, reader.reshaped(view, (1, *view.shape)), weight)
        return reader.reshaped(out, (*out.shape[:-2], out.shape[-1]))
    rank = max(len(view.shape), weight.ndim)
    if prod(weight.shape[:-2]) == 1 and (weight.ndim == 2 or len(view.shape) >= weight.ndim):
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


def _cumulative(reader: Reader, call: Call) -> None:
    """Sums up to each place of an axis, as a product with a triangle of ones."""
    view = reader.view(call)
    rank, axis = len(view.shape), int(reader.needed(call, 1).reshape(()))
    order = [*(a for a in range(rank) if a != axis % rank), axis % rank]
    length = view.shape[axis]
    bounded((length, length))
    before = np.tri(length, length, -1 if call.get("exclusive", 0) else 0, np.float32)
    weight = before if call.get("reverse", 0) else before.T
    made = product(reader, reader.transposed(view, order), weight)
    reader.set(call, reader.transposed(made, np.argsort(order).tolist()))


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
    """The terms of an Einsum with letters instead of an ellipsis, and its output term, which may be implicit."""
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
    """A tensor summed over the axes whose letters are not kept."""
    over = [axis for axis, letter in enumerate(letters) if letter not in kept]
    return reduced(reader, view, "sum", over, False) if over else view


def _contracted(reader: Reader, call: Call, letters: list[str], out: str) -> View:
    """An Einsum of two arrays as one matrix product.

    Letters of both arrays and the output are stacked, letters of one array are its rows or columns, and letters of both
    arrays that the output lacks are summed over.
    """
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
    """A transposed and then reshaped array."""
    axes = [letters.index(c) for c in order]
    if isinstance(part, View):
        return reader.reshaped(reader.transposed(part, axes), shape)
    return np.transpose(part, axes).reshape(shape)


def _attention(reader: Reader, call: Call) -> None:
    """ONNX's own Attention: softmax(scale Q K^T + mask) V for each head, heads concatenated."""
    if any(reader.has(call, i) for i in (4, 5)) or any(call.outputs[1:3]):
        raise ValueError("past keys and values are not supported")
    query, key, value = (_heads(reader, call, i) for i in range(3))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (taken(reader, v, 1, np.repeat(np.arange(v.shape[1]), groups)) for v in (key, value))
    scale = call.get("scale")
    scale = 1 / np.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = scaled(reader, product(reader, query, swapped(reader, key)), np.array(scale))
    cap = float(call.get("softcap", 0.0))
    if cap:
        scores = scaled(reader, scores, np.array(1 / cap))
        scores = View(reader.step(Activation("tanh"), scores.step), scores.batch)
        scores = scaled(reader, scores, np.array(cap))
    scores = _masked(reader, call, scores)
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


OPERATORS: dict[str, Operator] = {
    "Attention": _attention,
    "CumSum": _cumulative,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
