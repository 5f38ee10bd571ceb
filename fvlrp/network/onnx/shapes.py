"""Output shapes of operators, from their attributes and constant inputs, and how large an array may become.

For `fold`, which computes such arrays, and for the modules of operators, which convert the same nodes to layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

from .model import Call, Value

MOST = 1 << 24  # most elements of a constant, unless it is no larger than its inputs


def bounded(shape: Iterable[int], *inputs: Value | None) -> tuple[int, ...]:
    """`shape`, unless an array of that shape would have more than MOST elements and more than any of `inputs`."""
    lengths = tuple(int(length) for length in shape)
    most = max([MOST, *(value.size for value in inputs if value is not None)])
    if any(length < 0 for length in lengths) or prod(lengths) > most:
        raise ValueError(f"an array of {lengths} is not computed; constants may have {most} elements")
    return lengths


def numbers(value: Value | Sequence[int]) -> list[int]:
    """Python integers from a tensor of any shape."""
    return [int(each) for each in np.ravel(value)]


def sliced(call: Call, rank: int, inputs: Sequence[Value | None]) -> list[tuple[int, slice[int | None]]]:
    """(axis >= 0, slice) pairs of a Slice node, for an array of that rank."""
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


def unsqueezed(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """A shape with axes of length 1 inserted."""
    rank = len(shape) + len(axes)
    added = {axis % rank for axis in axes}
    if len(added) != len(axes):
        raise ValueError(f"axes {list(axes)} repeat one another")
    rest = iter(shape)
    return tuple(1 if axis in added else next(rest) for axis in range(rank))


def squeezed(shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    """A shape without some of its axes of length 1 (None: without all of them)."""
    gone = {a for a, n in enumerate(shape) if n == 1} if axes is None else {axis % len(shape) for axis in axes}
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {sorted(gone)} of an array of {tuple(shape)} cannot be dropped")
    return tuple(n for a, n in enumerate(shape) if a not in gone)


def reshaped(shape: Sequence[int], target: Sequence[int], allowzero: bool) -> tuple[int, ...]:
    """The output shape of a Reshape."""
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


def split_sizes(length: int, sizes: Sequence[int] | None, parts: int) -> list[int]:
    """Lengths of the parts of a Split; without `sizes` they are equal, but for a shorter last one."""
    if sizes is None:
        step = -(-length // parts)
        sizes = [min(step, max(0, length - i * step)) for i in range(parts)]
    if sum(sizes) != length or min(sizes) < 0:
        raise ValueError(f"{length} values do not split into {list(sizes)}")
    return list(sizes)


def pad_widths(call: Call, rank: int, pads: Value | None, axes: Value | None) -> list[tuple[int, int]]:
    """Widths that a Pad adds before and after each axis."""
    flat = call.get("pads", call.get("paddings", None if pads is None else numbers(pads)))
    if flat is None:
        raise ValueError("a pad needs its widths")
    which = range(rank) if axes is None else [axis % rank for axis in numbers(axes)]
    widths = [(0, 0)] * rank
    for k, axis in enumerate(which):
        widths[axis] = (flat[k], flat[k + len(flat) // 2])
    return widths


def triangle(call: Call, shape: Sequence[int], k: Value | None) -> Value:
    """Which values a Trilu keeps, bool (rows, columns)."""
    offset = 0 if k is None else int(k.reshape(()))
    kept = np.tri(shape[-2], shape[-1], offset if not call.get("upper", 1) else offset - 1, dtype=bool)
    return ~kept if call.get("upper", 1) else kept


def along(value: Value, axis: int, rank: int) -> Value:
    """One value for each index of an axis, reshaped to broadcast with `rank` axes; a single value becomes a scalar."""
    if value.size == 1:
        return value.reshape(())
    if value.ndim != 1:
        raise ValueError(f"scales of shape {value.shape} are not supported; expected one, or one for each channel")
    return value.reshape([-1 if a == axis % rank else 1 for a in range(rank)])
