"""Fused operators, as onnxruntime's optimiser writes them: a convolution with its activation, attention.

They belong to the domain com.microsoft. Each is expanded to the standard ONNX operators that it replaces.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .arithmetic import function, scaled, shifted
from .model import Attribute, Call, Value
from .moves import taken
from .products import product, swapped
from .read import Operator, Reader
from .steps import View

# Activations inside a fused operator, and the names of their parameters, in order.
_INNER = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "Gelu": (),
}


def _part(reader: Reader, call: Call, i: int) -> View | Value | None:
    """Input `i`, a tensor or a constant; None if it is left out."""
    if not reader.has(call, i):
        return None
    return reader.needed(call, i) if reader.is_constant(call, i) else reader.view(call, i)


def _activated(reader: Reader, call: Call, view: View) -> View:
    """A tensor after the activation that a fused node names."""
    name = call.get("activation", "")
    if not name:
        return view
    if name not in _INNER:
        raise ValueError(f"its activation {name!r} is not supported; supported are {', '.join(_INNER)}")
    numbers = call.get("activation_params", [])
    if not numbers:  # FusedGemm has an attribute for each
        numbers = [call.attributes[key] for key in ("activation_alpha", "activation_beta") if key in call.attributes]
    return reader.applied(call, name, view, **dict(zip(_INNER[name], numbers, strict=False)))


def _conv(reader: Reader, call: Call) -> None:
    """A convolution, an optional tensor added to it, and an activation."""
    own = {key: value for key, value in call.attributes.items() if not key.startswith("activation")}
    view = reader.applied(call, "Conv", *(_part(reader, call, i) for i in range(3)), **own)
    if reader.has(call, 3):
        view = reader.applied(call, "Add", view, _part(reader, call, 3))
    reader.set(call, _activated(reader, call, view))


def _gemm(reader: Reader, call: Call) -> None:
    own = {key: value for key, value in call.attributes.items() if not key.startswith("activation")}
    view = reader.applied(call, "Gemm", *(_part(reader, call, i) for i in range(3)), **own)
    reader.set(call, _activated(reader, call, view))


def _matmul(reader: Reader, call: Call) -> None:
    """A matrix product times `alpha`; either operand may be transposed."""
    sides: list[View | Value] = []
    for i, name in ((0, "A"), (1, "B")):
        side = reader.needed(call, i) if reader.is_constant(call, i) else reader.view(call, i)
        turned, rank = call.get(f"trans{name}", 0), len(side.shape)
        if call.get(f"transBatch{name}", 0):  # the first axis holds the rows, or the columns
            order = (*range(1, rank), 0) if turned else (*range(1, rank - 1), 0, rank - 1)
            side = reader.transposed(side, order) if isinstance(side, View) else np.transpose(side, order)
        elif turned:
            side = swapped(reader, side) if isinstance(side, View) else np.swapaxes(side, -1, -2)
        sides.append(side)
    view = scaled(reader, product(reader, *sides), np.array(float(call.get("alpha", 1.0))))
    reader.set(call, _activated(reader, call, view))


def _biased(reader: Reader, call: Call, op: str, **attributes: Attribute) -> None:
    """An activation of a tensor plus an optional constant."""
    view = reader.view(call)
    if reader.has(call, 1):
        view = shifted(reader, view, reader.needed(call, 1))
    reader.set(call, reader.applied(call, op, view, **attributes))


def _skip_norm(reader: Reader, call: Call, rms: bool) -> None:
    """The sum of two tensors and an optional bias, and its normalisation; both are outputs."""
    total = reader.applied(call, "Add", _part(reader, call, 0), _part(reader, call, 1))
    bias = 3 if rms else 4
    if reader.has(call, bias):
        total = shifted(reader, total, reader.needed(call, bias))
    epsilon = float(call.get("epsilon", 1e-12))
    op, shift = ("RMSNormalization", None) if rms else ("LayerNormalization", reader.constant(call, 3))
    reader.set(call, reader.applied(call, op, total, reader.needed(call, 2), shift, axis=-1, epsilon=epsilon))
    if len(call.outputs) > 3 and call.outputs[3]:
        reader.set(call, total, 3)


# ---- attention -------------------------------------------------------------------------------------------------------


def _attention(reader: Reader, call: Call) -> None:
    """Attention that includes the projection to queries, keys and values."""
    _without(reader, call, {3: "mask_index", 4: "past", 6: "past_sequence_length"})
    weight = reader.needed(call, 1)
    view = product(reader, reader.view(call), weight)
    if reader.has(call, 2):
        view = shifted(reader, view, reader.needed(call, 2))
    sizes = call.get("qkv_hidden_sizes", [weight.shape[-1] // 3] * 3)
    ends = np.cumsum([0, *sizes])
    parts = [taken(reader, view, 2, np.arange(ends[k], ends[k + 1])) for k in range(3)]
    _attended(reader, call, parts, 5)


def _multi_head(reader: Reader, call: Call) -> None:
    """Attention of queries, keys and values, after an optional bias is added to them."""
    _without(reader, call, {4: "key_padding_mask", 6: "past_key", 7: "past_value"})
    parts = [reader.view(call, i) for i in range(3) if reader.has(call, i)]
    if len(parts) < 3:
        raise ValueError("queries, keys and values in one tensor are not supported; expected three")
    bias, begin = reader.constant(call, 3), 0
    for k, view in enumerate(parts):
        if bias is None:
            break
        heads = len(view.shape) == 4  # then keys and values are (batch, heads, tokens, depth)
        width = view.shape[1] * view.shape[3] if heads else view.shape[2]
        own = bias[begin : begin + width]
        parts[k] = shifted(reader, view, own.reshape(view.shape[1], 1, -1) if heads else own)
        begin += width
    _attended(reader, call, parts, 5)


def _without(reader: Reader, call: Call, inputs: dict[int, str]) -> None:
    for i, name in inputs.items():
        if reader.has(call, i):
            raise ValueError(f"its input {name} is not supported; export the network without it")
    if any(call.outputs[1:]):
        raise ValueError("past keys and values are not supported")


def _attended(reader: Reader, call: Call, parts: list[View], bias: int) -> None:
    heads = int(call.attributes["num_heads"])
    names = {"q_num_heads": heads, "kv_num_heads": heads, "is_causal": int(call.get("unidirectional", 0))}
    if call.get("scale"):
        names["scale"] = call.get("scale")
    n, length, width = parts[0].shape if len(parts[0].shape) == 3 else (1, 1, 1)
    if any(len(view.shape) != 3 for view in parts):  # queries by tokens; keys and values split into heads
        first = parts[0]
        if len(first.shape) == 3:
            split = reader.reshaped(first, (n, length, heads, width // heads))
            parts[0] = reader.transposed(split, (0, 2, 1, 3))
    made = reader.applied(call, "Attention", *parts, _part(reader, call, bias), **names)
    if len(made.shape) == 4:
        n, heads, length, depth = made.shape
        made = reader.reshaped(reader.transposed(made, (0, 2, 1, 3)), (n, length, heads * depth))
    reader.set(call, made)


OPERATORS: dict[str, Operator] = {
    "com.microsoft.Attention": _attention,
    "com.microsoft.BiasGelu": partial(_biased, op="Gelu"),
    "com.microsoft.FastGelu": partial(_biased, op="Gelu", approximate="tanh"),
    "com.microsoft.FusedConv": _conv,
    "com.microsoft.FusedGemm": _gemm,
    "com.microsoft.FusedMatMul": _matmul,
    "com.microsoft.FusedMatMulActivation": _matmul,
    "com.microsoft.Gelu": function("gelu"),
    "com.microsoft.MultiHeadAttention": _multi_head,
    "com.microsoft.QuickGelu": function("swish", ("alpha", 1.702)),
    "com.microsoft.SkipLayerNormalization": partial(_skip_norm, rms=False),
    "com.microsoft.SkipSimplifiedLayerNormalization": partial(_skip_norm, rms=True),
}
