"""The flat end of the Fisher side: relevance of a representation, spread over the pixels that it was computed from."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .. import _kernels
from .geometry import BINS, Geometry, axis_cell, box
from .rules import FisherRules


def edge_weights(length: int, taps: np.ndarray, lead: int, centres: np.ndarray, clip: str) -> np.ndarray:
    """What multiplies a value at each centre: 1 / the weight of its kernel inside the image, or of all of it."""
    if clip == "drop":
        return np.full(len(centres), 1 / taps.sum())
    before = np.concatenate([[0.0], np.cumsum(taps)])
    low = np.clip(-(centres + lead), 0, len(taps))
    high = np.clip(length - (centres + lead), 0, len(taps))
    return 1 / (before[high] - before[low])


def kernel(splat: str, bin_size: int) -> tuple[np.ndarray, int]:
    """Taps of a bin's pixels along one axis, float64, and the offset of the first from the bin's centre."""
    if splat == "tri":
        t = np.arange(-(bin_size - 1), bin_size)
        return 1 - np.abs(t) / bin_size, int(t[0])
    if splat == "box_sym" and bin_size % 2 == 0:
        return np.concatenate([[0.5], np.ones(bin_size - 1), [0.5]]), -(bin_size // 2)
    if splat == "box_sym":
        return np.ones(bin_size), -((bin_size - 1) // 2)
    low, high = box(bin_size)
    return np.ones(high - low), low


class Supports:
    """Flat below the depth: relevance of a representation, spread over the pixels that it was computed from."""

    def __init__(self, geometry: Geometry, pyramid):
        self.geometry, self.pyramid = geometry, pyramid

    def vector(self, cells: np.ndarray) -> tuple[np.ndarray, float]:
        """Relevance of pyramid cells (cells,), flat over each cell's pixels. A cell without pixels keeps its own."""
        height, width = self.geometry.height, self.geometry.width
        pixels, lost, at = np.zeros((height, width)), 0.0, 0
        for rows, cols in self.pyramid:
            y, x = axis_cell(np.arange(height), rows, height), axis_cell(np.arange(width), cols, width)
            level = cells[at : at + rows * cols].reshape(cols, rows).T
            area = np.outer(np.bincount(y, minlength=rows), np.bincount(x, minlength=cols))
            lost += level[area == 0].sum()
            pixels += (level / np.maximum(area, 1))[np.ix_(y, x)]
            at += rows * cols
        return pixels, lost

    def spread(self, scale, values: np.ndarray, bins: int, rules: FisherRules, pixels: np.ndarray, band=None) -> None:
        """ADD one scale's values (n, bins, bins) to pixels (h, w) or a band of their rows; bins = 1: whole areas."""
        if scale.count:
            taps, lead, spacing, weights, _ = clipped_supports(*pixels.shape, scale, bins, rules.splat, rules.clip)
            values = values.reshape(scale.rows, scale.cols, bins, bins)
            _kernels.splat(values, spacing, scale.first, scale.step, *weights, taps, lead, pixels, band)

    def clipped(self, scale, values: np.ndarray, bins: int, rules: FisherRules) -> float:
        """What of one scale's values (n, bins, bins) falls outside the image and is dropped."""
        if rules.clip != "drop" or not scale.count:
            return 0.0
        shape = self.geometry.height, self.geometry.width
        *_, inside = clipped_supports(*shape, scale, bins, rules.splat, rules.clip)
        values = values.reshape(scale.rows, scale.cols, bins, bins)
        outside = 1 - inside[0][:, None, :, None] * inside[1][None, :, None, :]
        return float((values * outside).sum(dtype=np.float64))


@lru_cache(maxsize=64)
def clipped_supports(height: int, width: int, scale, bins: int, splat: str, clip: str) -> tuple:
    """Taps, offset and spacing of a scale's kernel; per axis, what multiplies each value, and its share inside."""
    size = scale.bin_size
    if bins == 1:
        taps, lead, spacing = np.ones(BINS * size), box(size)[0], 0
    else:
        (taps, lead), spacing = kernel(splat, size), size
    weights, inside = [], []
    for axis, length in ((0, height), (1, width)):
        centres = (scale.corners(axis)[:, None] + spacing * np.arange(bins)).ravel()
        weight = edge_weights(length, taps, lead, centres, clip)
        kept = edge_weights(length, taps, lead, centres, "renormalise")
        weights.append(weight.reshape(-1, bins))
        inside.append((weight / kept).reshape(-1, bins))
    return taps, lead, spacing, weights, inside
