"""Convolutions, and how their padding is treated.

Padding is zeros, so it contributes nothing and gets no relevance under rules that share by contributions: `Epsilon`,
`AlphaBeta`, `Gamma`, `ZPlus`. Rules that do not look at the inputs (`Flat`, `WSquare`) and `Box` share only
among pixels inside the image. The relevance of a window that sees only padding is in the ledger ("zero_sum").
For `fvlrp.network.layers`; the sums and shares are in `contributions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ... import _kernels
from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ...core.rules import Rule, ratio, total
from ...runtime.memory import Memory, empty, zeros
from ...runtime.types import Span
from ..rules import Choice
from ..windows import Window, Windows, bands, convolve, product, quick, window_count
from .contributions import BAND, PIXEL_CHANNELS, ConvPiece, GroupedPiece, through
from .layer import BATCH, NetworkLayer, Saved, Shape

BAND_BYTES = 1 << 21  # of outputs at a time: they stay in the L2 and L3 caches
MOST = 0.875  # share of channels with relevance above which all are computed
GROUP_CHANNELS = 8  # input channels of a group up to which a product per group is slower than sums over windows


@dataclass(frozen=True, eq=False)
class Conv(NetworkLayer):
    """Cross-correlation: weight (Co, Ci / groups, kh, kw), bias (Co,), pads (top, left, bottom, right)."""

    weight: Array
    bias: Array
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    role: ClassVar[str] = "linear"

    @cached_property
    def kernel(self) -> tuple[int, int]:
        height, width = self.weight.shape[2:]
        return height, width

    @cached_property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.pads, self.dilation)

    @cached_property
    def narrow(self) -> bool:
        """Whether every output reads only a few channels; in depthwise convolutions, one."""
        return self.groups > 1 and self.weight.shape[1] <= GROUP_CHANNELS

    def quick(self, pixels: int, dtype: npt.DTypeLike) -> bool:
        """Whether `convolve` uses Winograd's product for that many output pixels, and is best given all at once."""
        outputs, channels = len(self.weight) // self.groups, self.weight.shape[1]
        return quick(self.kernel, self.stride, self.dilation, dtype, channels, outputs, pixels)

    def out_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        if self.weight.ndim != 4 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"a convolution's weight {self.weight.shape} and bias {self.bias.shape} do not fit")
        if channels != self.weight.shape[1] * self.groups:
            raise ValueError(f"a convolution of {self.weight.shape[1] * self.groups} channels was given {channels}")
        (kh, kw), (sy, sx), (top, left, bottom, right), (dy, dx) = self.kernel, self.stride, self.pads, self.dilation
        return (
            len(self.weight),
            window_count(height, kh, sy, top, bottom, dy),
            window_count(width, kw, sx, left, right, dx),
        )

    @cached_property
    def filters(self) -> Array:
        """The weights (Co, channels of a group, taps)."""
        return self.weight.reshape(*self.weight.shape[:2], -1)

    @cached_property
    def _shapes(self) -> dict[Shape, Shape]:
        """Shapes of outputs by those of inputs: checking them takes as long as a small product."""
        return {}

    # ---- forward ----

    def apply(self, x: Array, then: NetworkLayer | None = None) -> Array:
        """The convolution of x; `then`, an elementwise layer, is applied to each part while it is in the cache."""
        size = x.shape[1:]
        shape = self._shapes.get(size) or self._shapes.setdefault(size, self.out_shape(size))
        out = empty((len(x), *shape), x.dtype)
        quick = not self.narrow and self.quick(shape[1] * shape[2], x.dtype)
        bounds = None if then is None or quick else then.bounds
        once = not quick and (then is None or bounds is not None)
        product = self._narrow if self.narrow else self._whole if once and self.groups == 1 else self._banded
        for image, result in zip(np.ascontiguousarray(x), out, strict=True):
            product(image, result, then, bounds)
        return out

    def _whole(self, x: Array, out: Array, then: NetworkLayer | None, bounds: tuple[float, float] | None) -> None:
        """One product, which clips its results itself."""
        rows, cols = out.shape[1:]
        weight, bias = self.cast("filters", x.dtype), self.cast("bias", x.dtype)
        _kernels.convolve(weight, x, *self.window, (0, rows), cols, out.reshape(len(out), -1), bias, bounds=bounds)

    def _banded(self, x: Array, out: Array, then: NetworkLayer | None, bounds: tuple[float, float] | None) -> None:
        """Bands of output rows, as many as stay in the cache until `then` has seen them."""
        weight, bias, out_width = self.cast("filters", x.dtype), self.cast("bias", x.dtype), out.shape[2]
        for inputs, results, mine in self._grouped(x, out):
            flat, window = results.reshape(len(results), -1), self.window
            own, shift = weight[mine], bias[mine]
            quick = self.quick(flat.shape[1], x.dtype)
            if bounds or (then is None and not quick):
                product(own, inputs, window, (0, out.shape[1]), out_width, flat, shift, bounds=bounds)
                continue
            budget = flat.nbytes if quick else BAND_BYTES
            for begin, end in bands(out.shape[1], len(flat) * out_width * x.itemsize, budget):
                part = flat[:, begin * out_width : end * out_width]
                convolve(own, inputs, window, (begin, end), out_width, part, shift)
                if then is not None:
                    then.apply(part, out=part)

    def _narrow(self, x: Array, out: Array, then: NetworkLayer | None, bounds: tuple[float, float] | None) -> None:
        """All groups in one call: a matrix product would be as narrow as one."""
        rows, cols = out.shape[1:]
        flat = out.reshape(len(out), -1)
        weight, bias = self.cast("filters", x.dtype), self.cast("bias", x.dtype)
        _kernels.grouped(weight, x, *self.window, (0, rows), cols, flat, bias, bounds=bounds)
        if then is not None and bounds is None:
            then.apply(out, out=out)

    def _grouped(self, x: Array, out: Array) -> Iterator[tuple[Array, Array, Span]]:
        """Each group's inputs and outputs, and which output channels they are."""
        n_in, n_out = self.weight.shape[1], len(self.weight) // self.groups
        for g in range(self.groups):
            mine = slice(g * n_out, (g + 1) * n_out)
            yield x[g * n_in : (g + 1) * n_in], out[mine], mine

    # ---- relevance ----

    def relevance(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By the rule."""
        return self.by(choice.rule, r, saved, choice)

    def flat(self, r: Array, saved: Saved, choice: Choice) -> Passed:
        """Evenly over each window inside the image, or by the squares of the weights: what `below` says."""
        return self.by(choice.below, r, saved, choice)

    def by(self, rule: Rule, r: Array, saved: Saved, choice: Choice) -> Passed:
        """By any rule, band by band of output rows; channels without relevance take no part."""
        (x,), y = saved
        if rule.sees == "nothing":
            return self._uniform(r, x, choice)
        entries, rule, dtype = Entries(), rule.fitted(y), r.dtype
        image = np.ascontiguousarray(x[0])
        spread = choice.bias == "distribute" and rule.plain and bool(self.bias.any())
        if self.narrow and rule.kernel is not None and not spread:
            return self._in_groups(rule.kernel, r, image, np.ascontiguousarray(y[0]), choice.bias)
        above, below = rule.inputs(image, choice.box)
        signed, size = above, None
        if below is not None:  # x and |x|
            signed, size = (image, np.abs(image)) if rule.plain else (above + below, above - below)
        up = zeros((len(r), *x.shape[1:]), dtype)
        down = None if size is None else zeros(up.shape, dtype)
        even = np.zeros_like(r) if spread else None
        relevance, z = (
            np.ascontiguousarray(r).reshape(*r.shape[:2], -1),
            np.ascontiguousarray(y[0]).reshape(y.shape[1], -1),
        )
        if self.narrow:
            groups = GroupedPiece(self.window, rule.weights(self.cast("filters", dtype)), above, below, y.shape[2:])
            shift = self.cast("bias", dtype)
            evenly = through(rule, choice.bias, groups, shift if shift.any() else None, z, relevance, entries, up, down)
            if even is not None and evenly is not None:
                even.reshape(relevance.shape)[:] = evenly
        width, memory, cut = y.shape[3], Memory(dtype), self._bands(r)
        for ins, outs in () if self.narrow else self._alive(relevance):
            weight = rule.weights(self.cast("weight", dtype)[outs]).reshape(-1, ins.stop - ins.start, prod(self.kernel))
            bias, own, share = self.cast("bias", dtype)[outs], z[outs], relevance[:, outs]
            both = None if size is None else size[ins]
            inner = up[:, ins], None if down is None else down[:, ins]
            for begin, end in cut:
                some = slice(begin * width, end * width)
                if len(cut) > 1 and not share[:, :, some].any():
                    continue
                piece = ConvPiece(
                    self.window, weight, signed[ins], both, (begin, end), width, memory, choice.bias != "distribute"
                )
                part = bias if bias.any() else None
                evenly = through(rule, choice.bias, piece, part, own[:, some], share[:, :, some], entries, *inner)
                if even is not None and evenly is not None:
                    even.reshape(relevance.shape)[:, outs, some] = evenly
        # What multiplies the sides of few channels, which go apart, or else x and |x|.
        apart = self.narrow or self.weight.shape[1] <= PIXEL_CHANNELS
        first, second = (above, below) if apart else (signed, size)
        up *= first
        if down is not None and second is not None:
            up += np.multiply(down, second, out=down)
        if even is not None:
            up += self._evenly(even, x, entries)
        return Passed([up], entries)

    def _in_groups(self, numbers: tuple[float, float, float], r: Array, x: Array, z: Array, policy: str) -> Passed:
        """By the kernel for narrow groups. It sums z+ and z- from their own terms: few inputs often have one sign."""
        entries, bias = Entries(), self.cast("bias", r.dtype) if self.bias.any() else None
        if bias is not None and policy == "ignore":
            z, bias = z - bias[:, None, None], None
        filters = self.cast("filters", r.dtype)
        r, up = np.ascontiguousarray(r), empty((len(r), *x.shape), r.dtype)
        kept, lost = _kernels.grouped_alpha_beta(filters, x, bias, r, z, up, *self.window, *numbers)
        entries.add("zero_sum", lost)
        if bias is not None:
            entries.add("bias", kept)
        return Passed([up], entries)

    def _alive(self, relevance: Array) -> Iterator[tuple[Span, Span | npt.NDArray[np.intp]]]:
        """The input channels of each group and those of its output channels that have relevance (T, Co, N).

        All outputs if few of them have none: copies of the others' weights take longer than their products.
        """
        n_in, n_out = self.weight.shape[1], len(self.weight) // self.groups
        for g in range(self.groups):
            mine = slice(g * n_out, (g + 1) * n_out)
            own = relevance[:, mine]
            alive = _kernels.alive(own)
            if alive.any():
                outs = mine if alive.mean() > MOST else np.flatnonzero(alive) + mine.start
                yield slice(g * n_in, (g + 1) * n_in), outs

    def _evenly(self, r: Array, x: Array, entries: Entries) -> Array:
        """Relevance r (T, Co, oh, ow) spread evenly over each output's inputs inside the image: (T, C, H, W)."""
        reads, channels = Windows.of(self, x, r), self.weight.shape[1]
        per_group = r.reshape(len(r), self.groups, -1, *r.shape[2:]).sum(axis=2)
        share, lost = ratio(per_group, reads.counts * r.dtype.type(channels))
        entries.add("zero_sum", lost)
        return np.repeat(reads.spread(share), channels, axis=1)

    def _uniform(self, r: Array, x: Array, choice: Choice) -> Passed:
        """Flat weights: conserving, level, or those of the Caffe toolbox."""
        entries = Entries()
        if choice.flat == "conserving":
            return Passed([self._evenly(r, x, entries)], entries)
        reads, channels = Windows.of(self, x, r), self.weight.shape[1]
        per_group = r.reshape(len(r), self.groups, -1, *r.shape[2:]).sum(axis=2)
        if choice.flat == "level":
            entries.add("zero_sum", total(r * (reads.counts == 0)))
            share = reads.level().spread(per_group / r.dtype.type(channels))
            return Passed([np.repeat(share, channels, axis=1)], entries)
        size = r.dtype.type(self.kernel[0] * self.kernel[1])
        entries.add("flat", total(r * (1 - reads.counts * channels / size)))
        return Passed([np.repeat(reads.spread(per_group / size), channels, axis=1)], entries)

    def _bands(self, r: Array) -> list[tuple[int, int]]:
        """Bands of output rows whose shares, or columns if there are any, stay in the cache.

        Bands are the whole image, unless there are many targets, if `convolve` uses Winograd's product: it transforms
        the filters anew for each band.
        """
        rows, width = r.shape[2:]
        if self.quick(rows * width, r.dtype):
            step = BATCH * r.itemsize // (4 * r[0, :, 0].nbytes * len(r)) // 4 * 4
            return bands(rows, 1, max(4, step))
        n_out = len(self.weight) // self.groups
        per_row = width * r.itemsize * (2 * n_out if self.stride == (1, 1) else self.weight[0].size)
        return bands(rows, per_row, BAND)
