"""Where everything lies: frames, bin centres, boxes and pyramid cells for one image size and sampling grid.

All coordinates are computed here and nowhere else, so that SIFT, pooling and supports cannot disagree by half a pixel.
The pixels that receive a bin's relevance are decided in `supports`.
Rows (y) come before columns (x) everywhere; coordinates are 0-based pixel centres. Imports nothing of the package. For
the modules of this wing; public as `fvlrp.geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.types import Span, Untyped, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 4  # spatial bins per axis of a SIFT descriptor
ORIENTATIONS = 8

Pyramid: TypeAlias = tuple[tuple[int, int], ...]  # (rows, columns) of the cells of each level


def cell_count(pyramid: Pyramid) -> int:
    """Number of cells of all levels."""
    return sum(rows * cols for rows, cols in pyramid)


@dataclass(frozen=True)
class Scale:
    """The regular grid of descriptors of one bin size.

    A descriptor's top-left bin centre is at ``first + step * k`` on either axis, its other bin centres `bin_size`
    apart, its frame centre at 1.5 bin sizes (VLFeat's geometry).
    """

    bin_size: int
    step: int
    first: int
    rows: int
    cols: int
    start: int  # index of this scale's first descriptor
    above: int = 0  # rows of frames before the first, which belong to strips above
    lead: int = 0  # how many of these begin in the strip's own pixels

    @property
    def count(self) -> int:
        """Number of descriptors."""
        return self.rows * self.cols

    @property
    def slice(self) -> Span:
        """This scale's rows of a per-descriptor array."""
        return slice(self.start, self.start + self.count)

    def corners(self, axis: int) -> npt.NDArray[np.int64]:
        """Top-left bin centre of every frame along `axis` (0 = y, 1 = x): int64 (rows,) or (cols,)."""
        frames = np.arange(self.rows) + self.above if axis == 0 else np.arange(self.cols)
        corners: npt.NDArray[np.int64] = self.first + self.step * frames
        return corners

    def centres(self, axis: int) -> npt.NDArray[np.float64]:
        """Frame centres along `axis`: float64 (rows,) or (cols,)."""
        return self.corners(axis) + np.float64(1.5 * self.bin_size)


class Strip(NamedTuple):
    """A horizontal strip of an image: some rows of frames, computed separately.

    Attributes
    ----------
    begin, end : int
        Rows of frames, begin .. end - 1 of every scale that has them.
    top, bottom : int
        The rows of pixels that these frames see, top .. bottom - 1; `top` is a multiple of the step.
    """

    begin: int
    end: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Geometry:
    """Frames, supports and pyramid cells of dense SIFT on a `height` x `width` image.

    Rows of every per-descriptor array follow `bin_sizes`, then y, then x. A scale that does not fit has no frames.

    Parameters
    ----------
    height, width : int
        Image size in pixels.
    bin_sizes : tuple of int
        Bin sizes in pixels, one scale each.
    step : int
        Distance of neighbouring descriptors in pixels.
    strip : Strip, optional
        Only the frames of these rows, at their places in the whole image. None: all frames.

    Examples
    --------
    >>> geometry = fvlrp.geometry.Geometry(375, 500)
    >>> geometry.n
    73866
    """

    height: int
    width: int
    bin_sizes: tuple[int, ...] = (4, 6, 8, 10)
    step: int = 3
    strip: Strip | None = None

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """One grid per bin size."""
        scales, start = [], 0
        for size in self.bin_sizes:
            # All scales share frame centres; floor(1.5 (s_max - s)) is VLFeat's offset with 0-based pixels.
            first = (3 * (max(self.bin_sizes) - size)) // 2
            rows, cols = (
                max((length - 1 - first - 3 * size) // self.step + 1, 0) for length in (self.height, self.width)
            )
            above, lead = 0, 0
            if self.strip:
                above = self.strip.begin
                rows, lead = max(min(rows, self.strip.end) - above, 0), above - self.strip.top // self.step
            if rows == 0 or cols == 0:
                rows = cols = 0
            scales.append(Scale(size, self.step, first, rows, cols, start, above, lead))
            start += rows * cols
        return tuple(scales)

    @property
    def n(self) -> int:
        """Number of descriptors."""
        return sum(scale.count for scale in self.scales)

    @property
    def whole(self) -> Part:
        """All scales that have descriptors."""
        return Part(self, tuple(scale for scale in self.scales if scale.count))

    @property
    def pixels(self) -> Span:
        """Rows of the image's pixels that the frames see."""
        return slice(self.strip.top, self.strip.bottom) if self.strip else slice(0, self.height)

    def strips(self, most: int, margin: int) -> tuple[Geometry, ...]:
        """The image in strips of at most `most` descriptors, and at least one row of frames.

        `margin` is how many pixels a frame sees around the centres of its bins.
        """
        rows = max(scale.rows for scale in self.scales)
        height = max(1, most // max(1, sum(scale.cols for scale in self.scales)))
        found = []
        for begin in range(0, rows, height):
            end = min(begin + height, rows)
            top = max(begin * self.step - margin, 0) // self.step * self.step
            lowest = max(scale.first + 3 * scale.bin_size for scale in self.scales) + (end - 1) * self.step
            strip = Strip(begin, end, top, min(lowest + margin + 1, self.height))
            found.append(replace(self, strip=strip))
        return tuple(found)

    @staticmethod
    def smallest_side(bin_sizes: tuple[int, ...]) -> int:
        """Length in pixels below which no scale fits."""
        return min((3 * (max(bin_sizes) - size)) // 2 + 3 * size + 1 for size in bin_sizes)

    @cached_property
    def frames(self) -> npt.NDArray[np.float32]:
        """float32 (n, 3): centre y, centre x, bin size."""
        parts = [
            np.stack(
                np.broadcast_arrays(scale.centres(0)[:, None], scale.centres(1)[None, :], float(scale.bin_size)), -1
            ).reshape(-1, 3)
            for scale in self.scales
        ]
        return np.concatenate(parts).astype(np.float32) if parts else np.empty((0, 3), np.float32)

    def touching(self, y0: int, x0: int, y1: int, x1: int) -> npt.NDArray[np.bool_]:
        """Descriptors that reach into rows y0 .. y1 - 1 and columns x0 .. x1 - 1, at any depth: bool (n,).

        The outermost bins are pooled over bin_size - 1 pixels around their centres: no flat support reaches further.
        """
        parts = []
        for scale in self.scales:
            reach, touched = scale.bin_size - 1, []
            for axis, low, high in ((0, y0, y1), (1, x0, x1)):
                first = scale.corners(axis)
                touched.append((first - reach < high) & (first + 3 * scale.bin_size + reach >= low))
            parts.append((touched[0][:, None] & touched[1]).ravel())
        return np.concatenate(parts) if parts else np.empty(0, np.bool_)

    def cell_of(self, rows: int, cols: int) -> npt.NDArray[np.int64]:
        """Cell of every descriptor in a rows x cols grid of cells, x-major (x0y0, x0y1, x1y0, ...): int64 (n,).

        Membership is by frame centre c: min(n - 1, ceil((c + 1) n / length) - 1), as the enceval toolkit counts
        from 1: never floor(c n / length).
        """
        parts = []
        for scale in self.scales:
            y = axis_cell(scale.centres(0), rows, self.height)
            x = axis_cell(scale.centres(1), cols, self.width)
            parts.append((x[None, :] * rows + y[:, None]).ravel())
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def cells(self, pyramid: Pyramid) -> npt.NDArray[np.int64]:
        """Index of the pyramid cell each descriptor belongs to, per pyramid level: int64 (n, levels).

        Indices run over all levels: level 0's cells first. `pyramid` lists (rows, columns) of each level.
        """
        columns, offset = [], 0
        for rows, cols in pyramid:
            columns.append(self.cell_of(rows, cols) + offset)
            offset += rows * cols
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Part:
    """Consecutive scales of an image; the rows of an array are their descriptors.

    Attributes
    ----------
    geometry : Geometry
    scales : tuple of Scale
        At least one; the array's row 0 is the first scale's first descriptor.
    """

    geometry: Geometry
    scales: tuple[Scale, ...]

    @property
    def begin(self) -> int:
        """Index of the first descriptor among all descriptors of the image."""
        return self.scales[0].start

    @property
    def end(self) -> int:
        """Index after the last descriptor."""
        return self.scales[-1].start + self.scales[-1].count

    def rows(self, scale: Scale) -> Span:
        """The array's rows of one of the scales."""
        return slice(scale.start - self.begin, scale.slice.stop - self.begin)


def axis_cell(centre: npt.ArrayLike, n: int, length: int) -> npt.NDArray[np.int64]:
    """Which of `n` cells along an axis of `length` pixels a frame centre lies in: int64, the shape of `centre`."""
    return np.minimum(n - 1, np.ceil((np.asarray(centre) + 1) * n / length).astype(np.int64) - 1)


def box(bin_size: int) -> tuple[int, int]:
    """Nominal s x s box of a bin at centre p: rows [p + lo, p + hi). The boxes of neighbouring bins tile."""
    return -(bin_size // 2), bin_size - bin_size // 2


def show(
    geometry: Geometry,
    descriptor: int,
    image: Values | None = None,
    *,
    bin: tuple[int, int] = (0, 0),
    ax: Axes | None = None,
) -> Axes:
    """Draw what one descriptor covers: its 16 boxes, their centres, its frame, and the support of one bin.

    At depth "bin" the relevance of a bin is spread evenly over its box, at depth "descriptor" that of the descriptor
    over all 16 boxes. The value of a bin was pooled over its support, 2s - 1 pixels on a side for bin size s, with
    linearly decreasing weights. Pixel centres are whole numbers. Boxes are drawn beyond the border of the image;
    heatmaps clip them.

    Parameters
    ----------
    geometry : Geometry
    descriptor : int
        A row of per-descriptor arrays, in 0..n - 1.
    image : ndarray (H, W) or (H, W, 3), optional
        Drawn behind, of the geometry's size.
    bin : (int, int)
        Row and column of the bin whose support is drawn.
    ax : matplotlib Axes, optional
        Where to draw; None: a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        matplotlib is not installed.
    IndexError
        The descriptor or bin does not exist.

    Examples
    --------
    >>> ax = fvlrp.geometry.show(fvlrp.geometry.Geometry(64, 96), 100)
    >>> len(ax.patches)  # the image, 16 boxes, the support
    18
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.patches import Rectangle
    except ImportError:
        raise ImportError("drawing a descriptor needs matplotlib: pip install 'fvlrp[plot]'") from None
    if not 0 <= descriptor < geometry.n:
        raise IndexError(f"descriptor must be in 0..{geometry.n - 1}, got {descriptor}")
    if not all(0 <= index < BINS for index in bin):
        raise IndexError(f"bin must be a row and a column in 0..{BINS - 1}, got {bin}")
    scale = next(scale for scale in geometry.scales if descriptor < scale.slice.stop)
    row, col = divmod(descriptor - scale.start, scale.cols)
    size, top, left = scale.bin_size, int(scale.corners(0)[row]), int(scale.corners(1)[col])
    ax = plt.subplots()[1] if ax is None else ax
    if image is not None:
        ax.imshow(image, cmap="gray", alpha=0.6)

    def outline(y: float, x: float, height: int, width: int, **style: Untyped) -> None:
        """A rectangle around pixels, from half a pixel before the first centre to half a pixel after the last."""
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, **style))

    outline(0, 0, geometry.height, geometry.width, color="0.5")
    for iy in range(BINS):
        for ix in range(BINS):
            y, x = top + size * iy, left + size * ix
            outline(y + box(size)[0], x + box(size)[0], size, size, color="tab:blue")
            ax.plot(x, y, ".", color="tab:blue")
    y, x = top + size * bin[0], left + size * bin[1]
    outline(y - size + 1, x - size + 1, 2 * size - 1, 2 * size - 1, color="tab:orange", linestyle="--")
    ax.plot(left + 1.5 * size, top + 1.5 * size, "+", color="tab:red", markersize=10)
    ax.set(
        xlim=(left - 2 * size, left + 5 * size),
        ylim=(top + 5 * size, top - 2 * size),
        aspect="equal",
        title=f"descriptor {descriptor}: bin size {size}, centre ({top + 1.5 * size:g}, {left + 1.5 * size:g})",
    )
    return ax
