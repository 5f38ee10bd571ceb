"""Flat relevance: which pixels a bin, a descriptor and a pyramid cell cover, and how relevance is spread over them.

`bin_taps` decides the pixels of a bin, `edge_weights` what happens to those outside the image. Hides the separable
filters that make spreading cost one addition per bin. For the layers of this wing.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..runtime import threads
from ..runtime.types import Doubles, Floats
from .geometry import BINS, Geometry, Part, Pyramid, Scale, axis_cell, box
from .rules import FisherRules
from .sift import led


def bin_taps(splat: str, bin_size: int) -> tuple[Doubles, int]:
    """Weights of a bin's pixels along one axis, and the offset of the first from the bin's centre.

    `splat` is `FisherRules.splat`: "box", "box_sym" or "tri".
    """
    if splat == "tri":
        t = np.arange(-(bin_size - 1), bin_size)
        return 1 - np.abs(t) / bin_size, int(t[0])
    if splat == "box_sym" and bin_size % 2 == 0:
        return np.concatenate([[0.5], np.ones(bin_size - 1), [0.5]]), -(bin_size // 2)
    if splat == "box_sym":
        return np.ones(bin_size), -((bin_size - 1) // 2)
    low, high = box(bin_size)
    return np.ones(high - low), low


def edge_weights(length: int, taps: Doubles, lead: int, centres: npt.NDArray[np.int64], clip: str) -> Doubles:
    """The factor of a value at each centre: 1 / the sum of its taps inside the image, or of all taps ("drop")."""
    if clip == "drop":
        return np.full(len(centres), 1 / taps.sum())
    before = np.concatenate([[0.0], np.cumsum(taps)])
    low = np.clip(-(centres + lead), 0, len(taps))
    high = np.clip(length - (centres + lead), 0, len(taps))
    weights: Doubles = 1 / (before[high] - before[low])
    return weights


class Support(NamedTuple):
    """How values of one scale are spread over pixels.

    Attributes
    ----------
    taps : float64 (length,)
        Weights along either axis.
    lead : int
        Offset of the first tap from a value's point.
    spacing : int
        Distance of neighbouring points of a descriptor, in pixels.
    weights : float64 (rows, bins), (cols, bins)
        The factor of each value, per axis.
    inside : float64 (rows, bins), (cols, bins)
        The share of each value that falls inside the image, per axis.
    """

    taps: Doubles
    lead: int
    spacing: int
    weights: tuple[Doubles, Doubles]
    inside: tuple[Doubles, Doubles]


@lru_cache(maxsize=64)
def support_of(height: int, width: int, scale: Scale, bins: int, splat: str, clip: str) -> Support:
    """The support of the spatial bins of one scale (bins = 4), or of whole descriptors (bins = 1)."""
    size = scale.bin_size
    if bins == 1:
        taps, lead, spacing = np.ones(BINS * size), box(size)[0], 0
    else:
        (taps, lead), spacing = bin_taps(splat, size), size
    weights, inside = [], []
    for axis, length in ((0, height), (1, width)):
        centres = (scale.corners(axis)[:, None] + spacing * np.arange(bins)).ravel()
        weight = edge_weights(length, taps, lead, centres, clip)
        kept = edge_weights(length, taps, lead, centres, "renormalise")
        weights.append(weight.reshape(-1, bins))
        inside.append((weight / kept).reshape(-1, bins))
    return Support(taps, lead, spacing, (weights[0], weights[1]), (inside[0], inside[1]))


def spread(
    values: Floats, bins: int, part: Part, rules: FisherRules, pixels: Doubles, n_jobs: int | None = None
) -> Doubles:
    """ADD values of descriptors to pixels, each spread over its support. Returns what is dropped outside the image.

    Parameters
    ----------
    values : real (targets, n, bins * bins)
        Values of the 4 x 4 spatial bins, or of whole descriptors (bins = 1).
    part : Part
        The scales of the n descriptors.
    pixels : float64 (targets, H, W)
        For a strip, only its rows.

    Returns
    -------
    float64 (targets,)
    """

    def one(target: int) -> float:
        lost = 0.0
        for scale in part.scales:
            of_scale = values[target, part.rows(scale)].reshape(scale.rows, scale.cols, bins, bins)
            _splat(of_scale, scale, rules, part.geometry, pixels[target])
            lost += _outside(of_scale, scale, rules, part.geometry)
        return lost

    return np.array(threads.run([partial(one, target) for target in range(len(pixels))], n_jobs), np.float64)


def _splat(values: Floats, scale: Scale, rules: FisherRules, geometry: Geometry, pixels: Doubles) -> None:
    """ADD one scale's values (rows, cols, bins, bins) to pixels (H, W)."""
    support = support_of(geometry.height, geometry.width, scale, values.shape[2], rules.splat, rules.clip)
    grid, (rows, cols) = (scale.first, scale.step), support.weights
    _kernels.splat(
        *(led(values, scale), support.spacing, *grid, led(rows, scale), cols, support.taps, support.lead, pixels)
    )


def _outside(values: Floats, scale: Scale, rules: FisherRules, geometry: Geometry) -> float:
    """How much of one scale's values (rows, cols, bins, bins) falls outside the image and is dropped."""
    if rules.clip != "drop":
        return 0.0
    rows, cols = support_of(geometry.height, geometry.width, scale, values.shape[2], rules.splat, rules.clip).inside
    outside = 1 - rows[:, None, :, None] * cols[None, :, None, :]
    return float((values * outside).sum(dtype=np.float64))


def spread_cells(cells: Doubles, pyramid: Pyramid, geometry: Geometry) -> tuple[Doubles, Doubles]:
    """Relevance of pyramid cells, evenly over each cell's pixels.

    Parameters
    ----------
    cells : float64 (targets, cells)

    Returns
    -------
    pixels : float64 (targets, H, W)
    lost : float64 (targets,)
        Relevance of cells without pixels. Only images smaller than the grid of cells have such cells.
    """
    height, width = geometry.height, geometry.width
    pixels, lost, at = np.zeros((len(cells), height, width)), np.zeros(len(cells)), 0
    for rows, cols in pyramid:
        y, x = axis_cell(np.arange(height), rows, height), axis_cell(np.arange(width), cols, width)
        level = cells[:, at : at + rows * cols].reshape(-1, cols, rows).transpose(0, 2, 1)
        area = np.outer(np.bincount(y, minlength=rows), np.bincount(x, minlength=cols))
        lost += level[:, area == 0].sum(axis=1)
        pixels += (level / np.maximum(area, 1))[:, y[:, None], x]
        at += rows * cols
    return pixels, lost
