"""Operators on planes: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
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
from .arithmetic import scaled
from .model import Call, Value
from .moves import taken
from .read import Operator, Reader
from .reductions import reduced
from .shapes import bounded, numbers
from .steps import View


class _Planes(NamedTuple):
    """A tensor as planes of one image.

    Attributes
    ----------
    view : View
        (1, parts * channels, height, width).
    single : bool
        Whether the file's tensor has one spatial axis: (batch, channels, length).
    parts : int
        Number of images that the file makes of one, such as windows or heads. All pass the same layer, as groups of
        channels.
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
    """The output of a layer on planes, in the file's shape."""
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
    # As the specification says: an output of ceil(length / stride). onnxruntime ignores dilations here in MaxPool,
    # whose output then has another size, and refuses Conv.
    totals = [
        max(0, (-(-length // s) - 1) * s + d * (k - 1) + 1 - length)
        for length, k, s, d in zip(planes.view.shape[2:], kernel, stride, dilation, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    first, last = (small, large) if how == "SAME_UPPER" else (large, small)
    return first[0], first[1], last[0], last[1]


def _padded(planes: _Planes, pads: Sequence[int]) -> tuple[int, int]:
    """Height and width of the padded planes."""
    height, width = planes.view.shape[2:]
    return height + pads[0] + pads[2], width + pads[1] + pads[3]


def _conv(reader: Reader, call: Call) -> None:
    if not reader.is_constant(call, 1):
        raise ValueError("its weights depend on the photograph")
    weight = reader.weights(call, 1)
    assert weight is not None
    if weight.ndim not in (3, 4):
        raise ValueError(
            f"its weight has shape {weight.shape}: 3-D convolutions are not supported; nearest is Conv of "
            "one or two spatial axes"
        )
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


def _conv_transpose(reader: Reader, call: Call) -> None:
    """A convolution, with flipped kernels, of the planes with zeros inserted between their values."""
    weight = reader.weights(call, 1) if reader.is_constant(call, 1) else None
    if weight is None or weight.ndim not in (3, 4):
        raise ValueError("its weights must be constants of one or two spatial axes; nearest is Resize and Conv")
    if weight.ndim == 3:
        _conv_transpose_lengths(reader, call, weight)
        return
    planes = _planes(reader, reader.view(call))
    groups, bias = int(call.get("group", 1)), reader.weights(call, 2)
    stride, dilation = _pair(call, "strides", False), _pair(call, "dilations", False)
    pads = _cut(call, planes, weight.shape[2:], stride, dilation)
    n_in, n_out = weight.shape[:2]
    turned = weight.reshape(groups, n_in // groups, n_out, *weight.shape[2:]).swapaxes(1, 2)[..., ::-1, ::-1]
    view = _apart(reader, planes.view, stride)
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    borders = [reach[i % 2] - pad for i, pad in enumerate(pads)]
    view = reader.applied(call, "Pad", view, np.array([0, 0, *borders[:2], 0, 0, *borders[2:]]))
    kernels = np.ascontiguousarray(turned.reshape(groups * n_out, n_in // groups, *weight.shape[2:]))
    view = reader.reshaped(view, (planes.parts, view.shape[1] // planes.parts, *view.shape[2:]))
    reader.set(call, reader.applied(call, "Conv", view, kernels, bias, group=groups, dilations=list(dilation)))


def _conv_transpose_lengths(reader: Reader, call: Call, weight: Value) -> None:
    """A transposed convolution of lengths, as one of planes of height 1."""
    given, view = dict(call.attributes), reader.view(call)
    for name, first in (("strides", 1), ("dilations", 1), ("kernel_shape", 1), ("output_padding", 0)):
        if name in given:
            given[name] = [first, *given[name]]
    if "pads" in given:
        given["pads"] = [0, given["pads"][0], 0, given["pads"][1]]
    if "output_shape" in given:
        given["output_shape"] = [1, given["output_shape"][-1]]
    view = reader.reshaped(view, (*view.shape[:2], 1, *view.shape[2:]))
    view = reader.applied(call, "ConvTranspose", view, weight[:, :, None], reader.weights(call, 2), **given)
    reader.set(call, reader.reshaped(view, (*view.shape[:2], view.shape[3])))


def _col2im(reader: Reader, call: Call) -> None:
    """Patches assembled into an image and summed where they overlap: the adjoint of taking a convolution's patches."""
    view, (height, width) = reader.view(call), numbers(reader.needed(call, 1))
    kernel = numbers(reader.needed(call, 2))
    if len(view.shape) != 3 or len(kernel) != 2:
        raise ValueError(f"patches of {view.shape} are not supported; expected two spatial axes")
    stride, dilation = _pair(call, "strides", False), _pair(call, "dilations", False)
    pads = call.get("pads", [0, 0, 0, 0])
    places = [
        (n + pads[i] + pads[i + 2] - d * (k - 1) - 1) // s + 1
        for i, (n, k, s, d) in enumerate(zip((height, width), kernel, stride, dilation, strict=True))
    ]
    n, taps = view.shape[0], prod(kernel)
    channels = view.shape[1] // taps
    if tuple(kernel) == stride and not any(pads) and dilation == (1, 1):
        view = reader.reshaped(view, (n, channels, *kernel, *places))
        view = reader.transposed(view, (0, 1, 4, 2, 5, 3))
        reader.set(call, reader.reshaped(view, (n, channels, height, width)))
        return
    view = reader.reshaped(view, (n, channels * taps, *places))
    weight = np.tile(np.eye(taps, dtype=np.float32).reshape(taps, 1, *kernel), (channels, 1, 1, 1))
    more = [
        n - ((p - 1) * s + d * (k - 1) + 1 - pads[i] - pads[i + 2])
        for i, (n, p, k, s, d) in enumerate(zip((height, width), places, kernel, stride, dilation, strict=True))
    ]
    attributes = {"strides": list(stride), "dilations": list(dilation), "pads": list(pads), "output_padding": more}
    reader.set(call, reader.applied(call, "ConvTranspose", view, weight, group=channels, **attributes))


def _cut(
    call: Call, planes: _Planes, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """Rows and columns cropped from a transposed convolution's output: top, left, bottom, right; negative: added."""
    how = call.get("auto_pad", "NOTSET") or "NOTSET"
    more, shape = call.get("output_padding", [0, 0]), call.get("output_shape")
    lengths = planes.view.shape[2:]
    if how in ("NOTSET", "VALID") and shape is None:
        top, left, bottom, right = call.get("pads", [0, 0, 0, 0]) if how == "NOTSET" else [0, 0, 0, 0]
        return top, left, bottom - more[0], right - more[1]
    wanted = [n * s for n, s in zip(lengths, stride, strict=True)] if shape is None else shape[-2:]
    totals = [
        (n - 1) * s + d * (k - 1) + 1 + extra - out
        for n, s, d, k, extra, out in zip(lengths, stride, dilation, kernel, more, wanted, strict=True)
    ]
    if shape is None:  # as in onnxruntime, no zeros are added where kernels are smaller than strides
        totals = [max(0, total) for total in totals]
    # Where the output is longer than all windows together, zeros are added after it.
    small = [max(0, total) // 2 for total in totals]
    large = [max(0, total) - half for total, half in zip(totals, small, strict=True)]
    first = small if how == "SAME_UPPER" else large
    last = [total - begin - extra for total, begin, extra in zip(totals, first, more, strict=True)]
    return first[0], first[1], last[0], last[1]


def _apart(reader: Reader, view: View, stride: Sequence[int]) -> View:
    """Planes with stride - 1 zeros between neighbouring values."""
    call = reader.call
    assert call is not None
    for axis, step in zip((2, 3), stride, strict=True):
        if step > 1:
            before, length, after = view.shape[:axis], view.shape[axis], view.shape[axis + 1 :]
            view = reader.reshaped(view, (*before, length, 1, *after))
            widths = np.zeros(2 * len(view.shape), np.int64)
            widths[len(view.shape) + axis + 1] = step - 1
            view = reader.reshaped(reader.applied(call, "Pad", view, widths), (*before, length * step, *after))
            view = taken(reader, view, axis, np.arange((length - 1) * step + 1))
    return view


def _pool(reader: Reader, call: Call, average: bool) -> None:
    if len(reader.view(call).shape) == 5:
        _pool_volumes(reader, call)
        return
    planes = _planes(reader, reader.view(call))
    _made(reader, call, planes, _pool_layer(call, planes, average))


def _pool_volumes(reader: Reader, call: Call) -> None:
    """A pool along the first of three axes, such as neighbouring channels in torch's LocalResponseNorm."""
    view, given = reader.view(call), dict(call.attributes)
    lists = {name: list(given[name]) for name in ("kernel_shape", "strides", "dilations", "pads") if name in given}
    along = [list(values[1:3]) + (values[4:6] if name == "pads" else []) for name, values in lists.items()]
    if any(set(values) - ({0} if name == "pads" else {1}) for name, values in zip(lists, along, strict=True)):
        raise ValueError("pools of three spatial axes are not supported; nearest is a pool of two")
    n, channels, depth, height, width = view.shape
    for name, values in lists.items():
        given[name] = [values[0], 0, values[3], 0] if name == "pads" else [values[0], 1]
    made = reader.applied(call, call.op, reader.reshaped(view, (n, channels, depth, height * width)), **given)
    reader.set(call, reader.reshaped(made, (*made.shape[:3], height, width)))


def _pool_layer(call: Call, planes: _Planes, average: bool) -> MaxPool | AveragePool:
    if "kernel_shape" not in call.attributes:
        raise ValueError("its kernel_shape is missing")
    kernel, stride = _pair(call, "kernel_shape", planes.single), _pair(call, "strides", planes.single)
    dilation = _pair(call, "dilations", planes.single)
    pads = _pads(call, planes, kernel, stride, dilation)
    ceil_mode = bool(call.get("ceil_mode", 0))
    if average and dilation != (1, 1):
        raise ValueError(f"dilations {dilation} are not supported for averages; nearest is a depthwise Conv")
    if ceil_mode and dilation == (1, 1):  # a window larger than the padded image is cropped to it
        height, width = _padded(planes, pads)
        kernel = min(kernel[0], height), min(kernel[1], width)
    if average:
        return AveragePool(kernel, stride, pads, ceil_mode, bool(call.get("count_include_pad", 0)))
    return MaxPool(kernel, stride, pads, ceil_mode, dilation)


def _power_pool(reader: Reader, call: Call, everywhere: bool) -> None:
    """The p-norm of each window, or of each plane."""
    power = float(call.get("p", 2))
    view = reader.applied(call, "Abs", reader.view(call))
    view = reader.applied(call, "Pow", view, np.array(power))
    if everywhere:
        view = reader.applied(call, "ReduceSum", view, np.arange(2, len(view.shape)))
    else:
        view = _window_sums(reader, call, view)
    reader.set(call, reader.applied(call, "Pow", view, np.array(1 / power)))


def _window_sums(reader: Reader, call: Call, view: View) -> View:
    """Sums over windows: averages times pixel counts, which `ceil_mode` may make smaller at the border."""
    planes = _planes(reader, view)
    layer = _pool_layer(call, planes, True)
    assert isinstance(layer, AveragePool)
    _made(reader, call, planes, layer)
    counts = layer.counts(*planes.view.shape[2:]).astype(np.float64)
    counts = counts[0] if planes.single else counts
    return scaled(reader, reader.views[call.outputs[0]], counts.max() if (counts == counts.max()).all() else counts)


def _global(reader: Reader, call: Call, how: str) -> None:
    view = reader.view(call)
    if view.batch == 0 and len(view.shape) == 4:
        reader.emit(call, GlobalAveragePool() if how == "mean" else GlobalMaxPool())
    else:
        reader.set(call, reduced(reader, view, how, list(range(2, len(view.shape))), True))


OPERATORS: dict[str, Operator] = {
    "AveragePool": partial(_pool, average=True),
    "Col2Im": _col2im,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": partial(_global, how="mean"),
    "GlobalLpPool": partial(_power_pool, everywhere=True),
    "GlobalMaxPool": partial(_global, how="max"),
    "LpPool": partial(_power_pool, everywhere=False),
    "MaxPool": partial(_pool, average=False),
}
