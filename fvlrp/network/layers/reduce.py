"""Means, sums and maxima over whole axes, and resizing with fixed weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ..rules import Choice
from .layer import NetworkLayer, Saved, Shape
from .mapping import averaged


@dataclass(frozen=True, eq=False)
class Reduce(NetworkLayer):
    """Mean, sum, maximum, or logarithm of the sum of exponentials, over whole axes.

    Attributes
    ----------
    how : {"mean", "sum", "max", "logsumexp"}
    axes : tuple of int
        Counted from 1.
    keep : bool
        Whether the axes are kept, with length 1.
    """

    how: str
    axes: tuple[int, ...]
    keep: bool = True
    role: ClassVar[str] = "sum"

    def out_shape(self, shape: Shape) -> Shape:
        if not self.axes or not all(1 <= axis <= len(shape) for axis in self.axes):
            raise ValueError(f"an array of {shape} has no axes {self.axes}")
        if self.how not in ("mean", "sum", "max", "logsumexp"):
            raise ValueError(f"how must be one of 'mean', 'sum', 'max', 'logsumexp', got {self.how!r}")
        kept = [1 if a + 1 in self.axes else n for a, n in enumerate(shape) if self.keep or a + 1 not in self.axes]
        return tuple(kept)

    def apply(self, x: Array) -> Array:
        if self.how == "max":
            return np.asarray(x.max(axis=self.axes, keepdims=self.keep))
        if self.how == "logsumexp":
            largest, powers = self._powers(x)
            y = np.log(powers.sum(axis=self.axes, keepdims=True)) + largest
            return np.asarray(y if self.keep else y.squeeze(self.axes))
        total = x.sum(axis=self.axes, keepdims=self.keep)
        return np.asarray(total if self.how == "sum" else total / x.dtype.type(self._count(x)))

    def _powers(self, x: Array) -> tuple[Array, Array]:
        """The maximum, and the exponentials of what lies below it: exp(x) itself overflows at 89 in float32."""
        largest = x.max(axis=self.axes, keepdims=True)
        largest = np.where(np.isfinite(largest), largest, 0).astype(x.dtype, copy=False)
        return largest, np.exp(x - largest)

    def _count(self, x: Array) -> int:
        return int(np.prod([x.shape[axis] for axis in self.axes]))

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """A maximum: to the first winner; others: by the rule, as a linear layer with equal weights.

        A logarithm of a sum of exponentials: as their sum, in units of the largest. The functions pass relevance on.
        """
        (x,), y = saved
        kept = tuple(1 if a in self.axes else n for a, n in enumerate(x.shape))[1:]
        r, z = r.reshape(len(r), *kept), y.reshape(1, *kept)
        if self.how == "max":
            return Passed([self._won(r, x)], Entries())
        if self.how == "logsumexp":
            x = self._powers(x)[1]
            saved = Saved((x,), x.sum(axis=self.axes, keepdims=True))
            z = saved.y
        weight = 1 / self._count(x) if self.how == "mean" else 1.0
        return averaged(
            r,
            saved._replace(y=z),
            choice,
            lambda v: v.sum(axis=self.axes, keepdims=True) * v.dtype.type(weight),
            lambda share: share * share.dtype.type(weight),
            lambda rest: self._spread(rest, x),
        )

    def _won(self, r: Array, x: Array) -> Array:
        others = [a for a in range(x.ndim) if a not in self.axes]
        moved = np.transpose(x, (*others, *self.axes)).reshape(*(x.shape[a] for a in others), -1)
        first = moved.argmax(axis=-1)[..., None] == np.arange(moved.shape[-1])
        order = np.argsort((*others, *self.axes))
        mask = first.reshape([*(x.shape[a] for a in others), *(x.shape[a] for a in self.axes)]).transpose(order)
        return np.where(mask, r, 0).astype(r.dtype, copy=False)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Evenly; for a maximum to the winner, unless `pool` is "flat"."""
        (x,) = saved.inputs
        if self.how == "max" and choice.pool != "flat":
            return self.relevance(r, saved, choice)
        kept = tuple(1 if a in self.axes else n for a, n in enumerate(x.shape))[1:]
        return Passed([self._spread(r.reshape(len(r), *kept), x)], Entries())

    def _spread(self, r: Array, x: Array) -> Array:
        """r (targets, ...), with lengths of 1 in the place of the axes, shared evenly."""
        return np.broadcast_to(r / r.dtype.type(self._count(x)), (len(r), *x.shape[1:]))


@dataclass(frozen=True, eq=False)
class GlobalMaxPool(NetworkLayer):
    """Largest value of each channel: (n, C, H, W) -> (n, C, 1, 1)."""

    role: ClassVar[str] = "pool"

    def out_shape(self, shape: Shape) -> Shape:
        return (shape[0], 1, 1)

    def apply(self, x: Array) -> Array:
        return np.asarray(x.max(axis=(2, 3), keepdims=True))

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """All to the first maximum, row by row; or evenly, by the rule `Flat`."""
        (x,) = saved.inputs
        if choice.rule.sees == "nothing":
            return self._evenly(r, x)
        rows = x.reshape(*x.shape[:2], -1)
        won = rows.argmax(axis=2)[..., None] == np.arange(rows.shape[2])
        return Passed([np.where(won.reshape(x.shape), r, 0).astype(r.dtype, copy=False)], Entries())

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """To the winner or evenly, as `pool` chooses."""
        return self._evenly(r, saved.inputs[0]) if choice.pool == "flat" else self.relevance(r, saved, choice)

    def _evenly(self, r: Array, x: Array) -> Passed:
        count = r.dtype.type(x.shape[2] * x.shape[3])
        return Passed([np.broadcast_to(r / count, (len(r), *x.shape[1:]))], Entries())


# ONNX's coordinate_transformation_mode, but for the one that needs a region.
POSITIONS = (
    "align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Resize(NetworkLayer):
    """Resizing of height and width with fixed weights, as in ONNX's Resize.

    Attributes
    ----------
    size : (int, int)
        Height and width of the output; (0, 0): computed from `scales`.
    scales : (float, float)
        Output pixels per input pixel, along y and x.
    mode : {"nearest", "linear", "cubic"}
    position : one of POSITIONS
        ONNX's coordinate_transformation_mode: where an output pixel lies in the input.
    rounding : str
        ONNX's nearest_mode; "outwards", for files that predate it: as onnxruntime, down, or up if the image shrinks.
    cubic : float
        ONNX's cubic_coeff_a.
    exclude : bool
        ONNX's exclude_outside.
    """

    size: tuple[int, int]
    scales: tuple[float, float]
    mode: str = "nearest"
    position: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude: bool = False
    role: ClassVar[str] = "sum"

    def out_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ValueError(f"an array of {shape} has no height and width")
        sizes = zip(self.size, shape[-2:], self.scales, strict=True)
        made = tuple(
            own or int(np.float32(n) * np.float32(s)) for own, n, s in sizes
        )  # as in onnxruntime: 10 * .7 is 7
        if min(made) < 1 or max(made) > 1 << 14:
            raise ValueError(f"an image of {shape[-2:]} is not resized to {made}")
        return (*shape[:-2], *made)

    def weights(self, shape: Shape) -> tuple[Array, Array]:
        """Weights of the input's rows in each output row (oh, H), and of columns (ow, W), float64."""
        out = self.out_shape(shape)[-2:]
        options = self.mode, self.position, self.rounding, self.cubic, self.exclude
        rows, columns = (
            _weights(n, made, s or made / n, *options) for n, made, s in zip(shape[-2:], out, self.scales, strict=True)
        )
        return rows, columns

    def apply(self, x: Array) -> Array:
        rows, columns = (weights.astype(x.dtype) for weights in self.weights(x.shape[1:]))
        return np.asarray(np.matmul(np.matmul(rows, x), columns.T))

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule, as a linear layer with fixed weights; relevance of copies of a pixel adds up."""
        (x,) = saved.inputs
        rows, columns = (weights.astype(x.dtype) for weights in self.weights(x.shape[1:]))
        if self.mode == "nearest":
            return Passed([np.matmul(np.matmul(rows.T, r), columns)], Entries())
        return averaged(
            r,
            saved,
            choice,
            lambda v: np.matmul(np.matmul(rows, v), columns.T),
            lambda share: np.matmul(np.matmul(rows.T, share), columns),
            lambda rest: self._spread(rest, x),
        )

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Evenly over the pixels that contribute to an output."""
        return Passed([self._spread(r, saved.inputs[0])], Entries())

    def _spread(self, r: Array, x: Array) -> Array:
        used = [(weights != 0).astype(r.dtype) for weights in self.weights(x.shape[1:])]
        rows, columns = (weights / weights.sum(axis=1, keepdims=True) for weights in used)
        return np.asarray(np.matmul(np.matmul(rows.T, r), columns))


@lru_cache(maxsize=64)
def _weights(
    length: int, made: int, scale: float, mode: str, position: str, rounding: str, cubic: float, exclude: bool
) -> Array:
    """Weights of `length` inputs in `made` outputs of Resize along one axis, float64 (made, length)."""
    # In float32, where the nearest pixel is to be that of other programs: 0.6 is no binary number.
    at = _positions(length, made, scale, position, np.float32 if mode == "nearest" else np.float64)
    if mode == "nearest":
        nearest = {
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
            "floor": np.floor(at),
            "ceil": np.ceil(at),
            "outwards": np.ceil(at) if scale < 1 else np.floor(at),
        }[rounding]
        return np.asarray(np.eye(length)[np.clip(nearest, 0, length - 1).astype(int)])
    first = np.floor(at).astype(int)
    offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    weights = np.zeros((made, length))
    for offset in offsets:
        distance = np.abs(at - first - offset)
        share = 1 - distance if mode == "linear" else _cubic(distance, cubic)
        place = first + offset
        if exclude:
            share = np.where((place >= 0) & (place < length), share, 0)
        np.add.at(weights, (np.arange(made), np.clip(place, 0, length - 1)), share)
    return weights / weights.sum(axis=1, keepdims=True) if exclude else weights


def _positions(length: int, made: int, scale: float, position: str, dtype: npt.DTypeLike) -> Array:
    """Where the pixels of the output lie among those of the input."""
    k: Array = np.arange(made).astype(dtype)
    if position == "align_corners":
        return k * (length - 1) / (made - 1) if made > 1 else np.zeros(made)
    if position == "asymmetric":
        return k / scale
    if position == "pytorch_half_pixel" and made == 1:
        return np.zeros(1)
    if position == "half_pixel_symmetric":
        adjusted = made / (scale * length)
        return length / 2 * (1 - adjusted) + (k + 0.5) / scale - 0.5
    return (k + 0.5) / scale - (0 if position == "tf_half_pixel_for_nn" else 0.5)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel, 1981."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
