"""Operators that move values: reshapes, transpositions, slices, gathers, padding, resizing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np

from ..layers import POSITIONS, Concat, Extend, Gather, Pad, Resize, Shape, Slice
from .fold import FOLDERS
from .model import Call, Value
from .quantised import unit
from .read import Operator, Reader
from .shapes import bounded, numbers, pad_widths, reshaped, sliced, split_sizes, squeezed, unsqueezed
from .steps import Step, View


def _reshape(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    target = reader.whole(call, "shape", 1)
    if target is None:
        raise ValueError("its shape is missing")
    target = _for_one(target, view, reader.batch) if reader.batch > 1 and target else target
    shape = reshaped(view.shape, target, bool(call.get("allowzero", 0)))
    reader.set(call, reader.reshaped(view, shape))


def _for_one(target: Sequence[int], view: View, batch: int) -> list[int]:
    """The shape for one image of the shape `target`, which is for `batch` images."""
    known = prod(target) == batch * prod(view.shape) and min(target) > 0
    if known and view.batch is not None:
        inner = prod(view.shape[view.batch + 1 :])  # as many numbers are between an image and the next
        places = [prod(target[k + 1 :]) for k in range(len(target))]
        found = [k for k, at in enumerate(places) if at <= inner and inner * batch <= at * target[k]]
        found = [k for k in found if target[k] % batch == 0]
    else:
        found = [0] if target[0] == batch else [k for k, n in enumerate(target) if known and n == batch]
    if known and len(found) != 1:
        raise ValueError(
            f"it mixes the {batch} images that the file is for; export the network for one image, or for any number"
        )
    return [n // batch if k in found else n for k, n in enumerate(target)]


def _flatten(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    axis = call.get("axis", 1)
    axis = axis + len(view.shape) if axis < 0 else axis
    reader.set(call, reader.reshaped(view, (prod(view.shape[:axis]), prod(view.shape[axis:]))))


def _squeeze(reader: Reader, call: Call) -> None:
    view, axes = reader.view(call), reader.whole(call, "axes", 1)
    shape = view.shape
    gone = [a for a, n in enumerate(shape) if n == 1] if axes is None else [axis % len(shape) for axis in axes]
    batch = view.batch
    if axes is None and batch is not None and len(gone) > 1:
        gone.remove(batch)  # for the batch may have any length
    out = squeezed(shape, gone)
    kept = None if batch is None or batch in gone else batch - sum(axis < batch for axis in gone)
    reader.set(call, _placed(reader, view, out, kept))


def _unsqueeze(reader: Reader, call: Call) -> None:
    view, axes = reader.view(call), reader.whole(call, "axes", 1)
    if axes is None:
        raise ValueError("its axes are missing")
    out = unsqueezed(view.shape, axes)
    added = {axis % len(out) for axis in axes}
    old = [a for a in range(len(out)) if a not in added]
    batch = None if view.batch is None else old[view.batch]
    reader.set(call, _placed(reader, view, out, 0 if batch is None and out[0] == 1 else batch))


def _placed(reader: Reader, view: View, shape: Shape, batch: int | None) -> View:
    """The same numbers in the file's shape `shape`, whose batch axis is known."""
    own = shape if batch is None else (*shape[:batch], *shape[batch + 1 :])
    return View(reader.moulded(view.step, own), batch)


def _transpose(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    order = call.get("perm", list(range(len(view.shape)))[::-1])
    reader.set(call, reader.transposed(view, order))


def _expand(reader: Reader, call: Call) -> None:
    view, target = reader.view(call), reader.whole(call, "shape", 1)
    if target is None:
        raise ValueError("its shape is missing")
    if reader.batch > 1 and target and target[0] == reader.batch and len(target) == len(view.shape):
        target = [1, *target[1:]]
    reader.set(call, reader.expanded(view, tuple(np.broadcast_shapes(view.shape, tuple(target)))))


def _tile(reader: Reader, call: Call) -> None:
    view, counts = reader.view(call), numbers(reader.needed(call, 1))
    for axis, count in enumerate(counts):
        if count != 1:
            length = view.shape[axis]
            bounded([length * count])
            view = taken(reader, view, axis, np.tile(np.arange(length), count))
    reader.set(call, view)


def taken(reader: Reader, view: View, axis: int, places: Value) -> View:
    """Values at some places (1-D) along an axis of the file; a slice if they are evenly spaced, otherwise a gather."""
    length = view.shape[axis]
    if len(places) == length and np.array_equal(places, np.arange(length)):
        return view
    if axis == view.batch:
        view = reader.full(view)
    own = view.axis(axis)
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step and (np.diff(places) == step).all():
        return View(reader.step(Slice(own, int(places[0]), len(places), step), view.step), view.batch)
    return View(reader.step(Gather(places.astype(np.int64), own), view.step), view.batch)


def _slice(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    rest = [reader.constant(call, i) for i in range(1, len(call.inputs))]
    for axis, cut in sliced(call, len(view.shape), rest):
        places = np.arange(view.shape[axis])[cut]
        if not places.size:
            raise ValueError(f"nothing is left of axis {axis}")
        view = taken(reader, view, axis, places)
    reader.set(call, view)


def _split(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    axis = call.get("axis", 0) % len(view.shape)
    sizes = split_sizes(view.shape[axis], reader.whole(call, "split", 1), len(call.outputs))
    begin = 0
    for i, size in enumerate(sizes):
        if call.outputs[i] and not size:  # the last of `num_outputs` parts may be empty
            reader.put(call, np.zeros((*view.shape[:axis], 0, *view.shape[axis + 1 :]), np.float32), i)
        elif call.outputs[i]:
            reader.set(call, taken(reader, view, axis, np.arange(begin, begin + size)), i)
        begin += size


def _reversed(reader: Reader, call: Call) -> None:
    """A reversed axis, as tf2onnx writes tf.reverse."""
    view, lengths = reader.view(call), numbers(reader.needed(call, 1))
    axis, batch = call.get("time_axis", 0), call.get("batch_axis", 1)
    if any(n != view.shape[axis] for n in lengths) or len(lengths) != view.shape[batch]:
        raise ValueError("sequences of several lengths are not supported")
    reader.set(call, taken(reader, view, axis, np.arange(view.shape[axis])[::-1]))


def _split_to_list(reader: Reader, call: Call) -> None:
    whole = reader.needed(call, 0) if reader.is_constant(call, 0) else reader.view(call)
    axis = call.get("axis", 0) % len(whole.shape)
    given = reader.constant(call, 1)
    if given is None or not call.get("keepdims", 1):
        raise ValueError("a list of slices is not supported; nearest is Split")
    length, sizes = whole.shape[axis], numbers(given)
    if not given.ndim:
        sizes = [min(sizes[0], length - begin) for begin in range(0, length, sizes[0])]
    ends = np.cumsum([0, *split_sizes(length, sizes, len(sizes))])
    reader.lists[call.outputs[0]] = [
        taken(reader, whole, axis, np.arange(a, b)) if isinstance(whole, View) else np.take(whole, range(a, b), axis)
        for a, b in pairwise(ends)
    ]


def _one_of_list(reader: Reader, call: Call) -> None:
    parts, at = reader.lists[call.inputs[0]], int(reader.needed(call, 1).reshape(()))
    if not -len(parts) <= at < len(parts):
        raise ValueError(f"a list of {len(parts)} tensors has no element {at}")
    part = parts[at]
    if isinstance(part, View):
        reader.set(call, part)
    else:
        reader.put(call, part)


def _gather(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    axis, indices = call.get("axis", 0) % len(view.shape), reader.needed(call, 1).astype(np.int64)
    length = view.shape[axis]
    indices = np.where(indices < 0, indices + length, indices)
    if not indices.size or indices.min() < 0 or indices.max() >= length:
        raise ValueError(f"its indices must be in -{length}..{length - 1}")
    shape = (*view.shape[:axis], *indices.shape, *view.shape[axis + 1 :])
    bounded(shape)
    if axis == view.batch and indices.ndim:
        view = reader.full(view)
    batch = view.batch
    if batch is not None:
        batch = None if batch == axis else batch + (indices.ndim - 1) * (batch > axis)
    if axis != view.batch:
        view = taken(reader, view, axis, indices.ravel())
    reader.set(call, _placed(reader, view, shape, batch))


def _picked(reader: Reader, call: Call, positions: Value) -> None:
    """The first input's values at flat positions."""
    view = reader.full(reader.view(call))
    flat = reader.moulded(view.step, (prod(view.shape),))
    out = View(reader.step(Gather(positions.ravel(), 1), flat), None)
    reader.set(call, reader.reshaped(out, positions.shape))


def _pick(reader: Reader, call: Call) -> None:
    """GatherND and GatherElements: applied to the array of flat positions, they say which value goes where."""
    shape = reader.view(call).shape
    places = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    _picked(reader, call, np.asarray(FOLDERS[call.op](call, places, reader.needed(call, 1))))


def _scatter(reader: Reader, call: Call) -> None:
    """ScatterND and ScatterElements, as a gather from data and updates, concatenated."""
    shapes = [reader.constants.value(name).shape if name in reader.constants else reader.views[name].shape
              for name in (call.inputs[0], call.inputs[2])]  # fmt: skip
    count = prod(shapes[0])
    data = np.arange(count, dtype=np.int64).reshape(shapes[0])
    updates = count + np.arange(prod(shapes[1]), dtype=np.int64).reshape(shapes[1])
    positions = np.asarray(FOLDERS[call.op](call, data, reader.needed(call, 1), updates))
    flat = _joined(reader, [_flat(reader, call, 0), _flat(reader, call, 2)], 0)
    out = View(reader.step(Gather(positions.ravel(), 1), flat.step), None)
    reader.set(call, reader.reshaped(out, positions.shape))


def _flat(reader: Reader, call: Call, i: int) -> View | Value:
    if reader.is_constant(call, i):
        return reader.needed(call, i).ravel()
    view = reader.full(reader.view(call, i))
    return View(reader.moulded(view.step, (prod(view.shape),)), None)


def _concat(reader: Reader, call: Call) -> None:
    parts: list[View | Value] = [
        reader.needed(call, i) if reader.is_constant(call, i) else reader.view(call, i) for i in range(len(call.inputs))
    ]
    reader.set(call, _joined(reader, parts, call.get("axis", 1)))


def _joined(reader: Reader, parts: list[View | Value], axis: int) -> View:
    """Tensors and constants of the same rank, concatenated along an axis of the file."""
    views = [part for part in parts if isinstance(part, View)]
    axis %= len(views[0].shape)
    if any(len(part.shape) != len(views[0].shape) for part in parts):
        raise ValueError("its inputs have different numbers of axes")
    steps, batch = reader.aligned(*views, apart=axis)
    own = View(steps[0], batch).axis(axis)
    rest = iter(steps)
    joined: list[Step] = []
    waiting: list[Value] = []
    for part in parts:
        if isinstance(part, View):
            joined.append(_extended(reader, next(rest), waiting, [], own))
            waiting = []
        else:
            part = reader.once(View(steps[0], batch), part)
            waiting.append(part if batch is None else part.reshape((*part.shape[:batch], *part.shape[batch + 1 :])))
    joined[-1] = _extended(reader, joined[-1], [], waiting, own)
    return View(joined[0] if len(joined) == 1 else reader.step(Concat(own), *joined), batch)


def _extended(reader: Reader, step: Step, before: Sequence[Value], after: Sequence[Value], axis: int) -> Step:
    """A step's array with constants before and after it along an axis."""
    if not before and not after:
        return step
    none = np.zeros((*step.shape[: axis - 1], 0, *step.shape[axis:]), np.float32)
    first, last = (
        np.concatenate([none, *(np.asarray(v, np.float32) for v in side)], axis - 1) for side in (before, after)
    )
    return reader.step(Extend(first, last, axis), step)


# ---- padding and resizing --------------------------------------------------------------------------------------------


def _pad(reader: Reader, call: Call) -> None:
    view, mode = reader.view(call), call.get("mode", "constant")
    widths = pad_widths(call, len(view.shape), reader.constant(call, 1), reader.constant(call, 3))
    for axis, (before, after) in enumerate(widths):  # negative widths cut off
        if before < 0 or after < 0:
            length = view.shape[axis]
            view = taken(reader, view, axis, np.arange(length)[max(0, -before) : length + min(0, after)])
    added = [(max(0, before), max(0, after)) for before, after in widths]
    bounded([n + a + b for n, (a, b) in zip(view.shape, added, strict=True)])
    if not any(map(any, added)):
        reader.set(call, view)
    elif mode == "constant":
        value = reader.number(call, "value", 2, 0.0)
        if call.inputs[0] in reader.wholes:  # the file's value is an integer, steps hold real values
            scale, zero = unit(view.step)
            if scale.size > 1 or zero.size > 1:
                raise ValueError("a border around values that were quantised channel by channel is not supported")
            value = (value - zero.item()) * scale.item()
        reader.set(call, _bordered(reader, view, added, value))
    else:
        for axis, width in enumerate(added):
            if any(width):
                view = taken(reader, view, axis, np.pad(np.arange(view.shape[axis]), width, mode=mode))
        reader.set(call, view)


def _bordered(reader: Reader, view: View, added: list[tuple[int, int]], value: float) -> View:
    """Constant padding of some axes, by `Pad` layers of two neighbouring axes each."""
    if view.batch is not None and any(added[view.batch]):
        raise ValueError("a border around the batch is not supported")
    own = [width for axis, width in enumerate(added) if axis != view.batch]
    step = view.step
    if len(own) == 1:
        step, own = reader.moulded(step, (1, *step.shape)), [(0, 0), *own]
    # The last two axes first: usually they are height and width, which one layer then pads.
    for axis in reversed(range(1, len(own))):
        pair = own[axis - 1 : axis + 1]
        if any(pair[1]) or (axis == 1 and any(pair[0])):
            (top, bottom), (left, right) = pair
            step = reader.step(Pad((top, left, bottom, right), value, axis), step)
            own[axis - 1 : axis + 1] = [(0, 0), (0, 0)]
    if len(view.step.shape) == 1:
        step = reader.moulded(step, step.shape[1:])
    return View(step, view.batch)


def _depth_to_space(reader: Reader, call: Call) -> None:
    view, block = reader.view(call), int(call.attributes["blocksize"])
    n, channels, height, width = view.shape
    depth = channels // (block * block)
    if call.get("mode", "DCR") == "DCR":
        view = reader.reshaped(view, (n, block, block, depth, height, width))
        view = reader.transposed(view, (0, 3, 4, 1, 5, 2))
    else:
        view = reader.reshaped(view, (n, depth, block, block, height, width))
        view = reader.transposed(view, (0, 1, 4, 2, 5, 3))
    reader.set(call, reader.reshaped(view, (n, depth, height * block, width * block)))


def _space_to_depth(reader: Reader, call: Call) -> None:
    view, block = reader.view(call), int(call.attributes["blocksize"])
    n, channels, height, width = view.shape
    view = reader.reshaped(view, (n, channels, height // block, block, width // block, block))
    view = reader.transposed(view, (0, 3, 5, 1, 2, 4))
    reader.set(call, reader.reshaped(view, (n, channels * block * block, height // block, width // block)))


def _resize(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    view = reader.reshaped(view, view.shape) if view.batch is None else view
    if len(view.shape) != 4 or view.batch != 0:
        raise ValueError(f"an array of {view.shape} is not resized; expected (batch, channels, height, width)")
    size, scales = _sizes(reader, call, view.shape)
    mode = call.get("mode", "nearest")
    if call.get("antialias", 0) and min(scales) < 1:
        raise ValueError("antialias is not supported")
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError("only keep_aspect_ratio_policy 'stretch' is supported")
    old = call.op == "Upsample" or call.opset < 11
    position = "asymmetric" if old else call.get("coordinate_transformation_mode", "half_pixel")
    if position not in POSITIONS or (position == "tf_half_pixel_for_nn" and mode != "nearest"):
        raise ValueError(f"mode {mode!r} at positions {position!r} is not supported; nearest is 'half_pixel'")
    rounding = "outwards" if old else call.get("nearest_mode", "round_prefer_floor")
    if size == view.shape[2:]:
        reader.same(call, "it keeps the size")
        return
    cubic, exclude = float(call.get("cubic_coeff_a", -0.75)), bool(call.get("exclude_outside", 0))
    reader.emit(call, Resize(size, scales, mode, position, rounding, cubic, exclude), view)


def _sizes(reader: Reader, call: Call, shape: Shape) -> tuple[tuple[int, int], tuple[float, float]]:
    """Output height and width of a Resize, and its scales along both."""
    given = call.get("scales")
    scale_input = 1 if call.op == "Upsample" or call.opset < 11 else 2
    scales = reader.constant(call, scale_input) if given is None else np.asarray(given)
    sizes = reader.constant(call, 3)
    axes = [axis % 4 for axis in call.get("axes", range(4))]
    if sizes is not None and sizes.size:
        full = list(shape)
        for axis, size in zip(axes, numbers(sizes), strict=True):
            full[axis] = size
        factors = [made / n for made, n in zip(full, shape, strict=True)]
    elif scales is not None and scales.size:
        factors = [1.0] * 4
        for axis, factor in zip(axes, np.ravel(scales), strict=True):
            factors[axis] = float(factor)
        full = [int(np.float32(n) * np.float32(factor)) for n, factor in zip(shape, factors, strict=True)]
    else:
        raise ValueError("its scales and sizes are missing")
    if full[:2] != list(shape[:2]):
        raise ValueError("only height and width may be resized")
    bounded(full)
    by_scales = not (sizes is not None and sizes.size) and full != list(shape)
    return ((0, 0) if by_scales else (full[2], full[3])), (factors[2], factors[3])


OPERATORS: dict[str, Operator] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _pick,
    "GatherND": _pick,
    "Pad": _pad,
    "Reshape": _reshape,
    "ReverseSequence": _reversed,
    "Resize": _resize,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "SequenceAt": _one_of_list,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "SplitToSequence": _split_to_list,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
