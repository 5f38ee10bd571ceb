"""Heatmaps smoothed for display: without the mesh that winner-take-all pooling leaves.

Hides the filter, whose width follows from the map's own resolution. For show.report and the wings above show, which
say on each picture that it is smoothed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..runtime.types import Doubles

_BAND = 1 << 18  # values that are averaged at a time: a large photograph's map is not copied as a whole


class Smoothing(NamedTuple):
    """The resolution of a map that is coarser than its pixels.

    Attributes
    ----------
    spacing : (float, float)
        Pixels between neighbouring positions of the representation, along y and x.
    box : (top, left, bottom, right)
        The part of the map that the model saw; nothing is moved across its border.
    """

    spacing: tuple[float, float]
    box: tuple[int, int, int, int]

    @property
    def words(self) -> str:
        """What a picture says of it: the filter's standard deviation, along y and x where they differ."""
        down, across = (f"{sigma(width):.2g}" for width in self.spacing)
        return f"smoothed for display, sigma {down if down == across else f'{down} × {across}'} px"

    def resized(self, shape: tuple[int, int], other: tuple[int, int]) -> Smoothing:
        """The same for the map reduced from `shape` (height, width) to `other`."""
        ratios = other[0] / shape[0], other[1] / shape[1]
        top, left, bottom, right = (round(edge * ratio) for edge, ratio in zip(self.box, 2 * ratios, strict=True))
        spacing = self.spacing[0] * ratios[0], self.spacing[1] * ratios[1]
        return Smoothing(spacing, (top, left, bottom, right))

    def __call__(self, heatmap: npt.ArrayLike) -> Doubles:
        """The heatmap (H, W) interpolated linearly between the positions, float64; its sum is kept.

        Relevance of a position has no finer place than its cell, `spacing` pixels wide. Two averages over a cell make
        a triangle of this half-width, which removes a mesh of that period. Maps are mirrored at the border of the box.
        """
        smooth = np.array(heatmap, np.float64)
        top, left, bottom, right = self.box
        for axis, width in enumerate(self.spacing):
            for _ in range(2):
                _average(smooth[top:bottom, left:right], width, axis)
        return smooth


def sigma(width: float) -> float:
    """Standard deviation, in pixels, of two averages over `width` pixels.

    Examples
    --------
    >>> round(sigma(8.0), 2)  # close to 8 / sqrt(6), the triangle's
    3.32
    """
    whole, rest = _taps(width)
    inner = whole * (whole + 1) * (2 * whole + 1) / 3  # of both sides
    return float(np.sqrt(2 * (inner + 2 * rest * (whole + 1) ** 2) / max(width, 1.0)))


def _taps(width: float) -> tuple[int, float]:
    """An average over `width` pixels: how many count in full on either side, and the weight of the next."""
    side = (max(width, 1.0) - 1) / 2
    return int(side), side - int(side)


def _average(values: Doubles, width: float, axis: int) -> None:
    """Means over `width` pixels along an axis, in place; lines are mirrored at their ends, so that sums are kept."""
    whole, rest = _taps(width)
    lines = values if axis else values.T
    length, reach = lines.shape[1], whole + 1
    if not whole + rest or not length:
        return
    count = max(1, _BAND // length)
    for at in range(0, len(lines), count):
        padded = np.pad(lines[at : at + count], ((0, 0), (reach, reach)), mode="symmetric")
        before = np.cumsum(padded, axis=1)  # of a pixel and all that come before it in its line
        sums = before[:, 2 * whole + 1 :][:, :length] - before[:, :length]
        sums += rest * (padded[:, :length] + padded[:, 2 * reach :])
        lines[at : at + count] = sums / width
