"""Operators of planes: convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..layers import (
    AveragePool,
    Conv,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool,
    NetworkLayer,
)
from .model import Call
from .read import Operator, Reader
from .reductions import reduced
from .shapes import bounded
from .steps import View


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


def _padded(planes: _Planes, pads: Sequence[int]) -> tuple[int, int]:
    """Height and width of the planes with their borders."""
    height, width = planes.view.shape[2:]
    return height + pads[0] + pads[2], width + pads[1] + pads[3]


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
    if ceil_mode and dilation == (1, 1):  # a window beyond the image is cut off at its border
        kernel = tuple(min(k, n) for k, n in zip(kernel, _padded(planes, pads), strict=True))
    layer: NetworkLayer = MaxPool(kernel, stride, pads, ceil_mode, dilation)
    if average:
        layer = AveragePool(kernel, stride, pads, ceil_mode, bool(call.get("count_include_pad", 0)))
    _made(reader, call, planes, layer)


def _global(reader: Reader, call: Call, how: str) -> None:
    view = reader.view(call)
    if view.batch == 0 and len(view.shape) == 4:
        reader.emit(call, GlobalAveragePool() if how == "mean" else GlobalMaxPool())
    else:
        reader.set(call, reduced(reader, view, how, list(range(2, len(view.shape))), True))


OPERATORS: dict[str, Operator] = {
    "AveragePool": partial(_pool, average=True),
    "Conv": _conv,
    "GlobalAveragePool": partial(_global, how="mean"),
    "GlobalMaxPool": partial(_global, how="max"),
    "MaxPool": partial(_pool, average=False),
}
