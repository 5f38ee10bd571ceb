"""Grey values, and images and heatmaps of other sizes: computation on pixels that are loaded.

Hides Pillow's resampling and its twin for parts of an image. Used through `data.images`.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..runtime.types import Pixels, Window
from . import spooled

LUMINANCE = (0.2989, 0.5870, 0.1140)  # weights of R, G, B in grey
_BAND = 1 << 17  # values that are resampled at a time


def weighted(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Grey of values in [0, 1]."""
    if values.ndim == 2:
        return np.ascontiguousarray(values)
    # Elementwise, not a matrix product: the same bits whatever BLAS is installed.
    red, green, blue = LUMINANCE
    weighted = values[:, :, 0] * red + values[:, :, 1] * green + values[:, :, 2] * blue
    return np.ascontiguousarray(weighted)  # a rotated array passes its order of axes on


class GreyRows:
    """`grey` of an image that is not resized, computed for the rows that are asked for: of mapped or large images.

    Parameters
    ----------
    pixels : array
        What `load` returns: uint8 or float32, (H, W) or (H, W, 3).
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels, self.shape = pixels, (int(pixels.shape[0]), int(pixels.shape[1]))

    def __getitem__(self, rows: slice[int | None]) -> npt.NDArray[np.float32]:
        part = weighted(_unit(self.pixels[rows]))
        spooled.release(self.pixels)
        return part

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[np.float32]:
        return np.asarray(self[:], dtype)


def grey_part(pixels: Pixels, window: Window, max_height: int | None = None) -> tuple[npt.NDArray[np.float32], Window]:
    """What of `grey` depends on a window of the image, computed alone.

    Parameters
    ----------
    pixels : array
        What `load` returns: uint8 or float32, (H, W) or (H, W, 3).
    window : (slice, slice)
        Rows and columns of `pixels`, from start to stop.
    max_height : int or None
        As `grey` takes it.

    Returns
    -------
    part : float32 (h, w)
    window : (slice, slice)
        ``grey(pixels, max_height)[window]`` is `part`: the same bits, or where the image is resized, the same within
        one rounding of float32. Resizing spreads every pixel, so that the window is larger than what was asked about.
    """
    shape = reduced(pixels.shape[0], pixels.shape[1], max_height)
    if shape == pixels.shape[:2]:
        return weighted(_unit(pixels[window])), window
    windows, crops, weights = [], [], []
    for length, short, part in zip(pixels.shape[:2], shape, window, strict=True):
        # A pixel of the result sees 2 of its own widths to either side of its centre; one more for rounding.
        scale = length / short
        own = slice(max(0, floor(part.start / scale - 2.5) - 1), min(short, ceil(part.stop / scale + 2.5) + 1))
        start, kernel = _bicubic_weights(length, short, own)
        windows.append(own)
        crops.append(slice(start, start + kernel.shape[1]))
        weights.append(kernel)
    crop = _unit(pixels[tuple(crops)]).astype(np.float64)
    # Columns first, then rows, each rounded to float32: as Pillow does it.
    across = np.einsum("yx...,ux->yu...", crop, weights[1]).astype(np.float32)
    resized = np.einsum("yu...,vy->vu...", across.astype(np.float64), weights[0]).astype(np.float32)
    return weighted(np.clip(resized, 0, 1)), (windows[0], windows[1])


def _bicubic_weights(length: int, short: int, own: slice[int]) -> tuple[int, npt.NDArray[np.float64]]:
    """What makes some pixels of an axis that is reduced from `length` to `short` pixels, as Pillow weighs them.

    Returns
    -------
    start : int
        The first pixel that has a weight.
    weights : float64 (pixels of `own`, pixels from `start` on)
    """
    scale = length / short
    centre = (np.arange(own.start, own.stop) + 0.5) * scale
    first = np.maximum((centre - 2 * scale + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + 2 * scale + 0.5).astype(np.int64), length)
    place = np.arange(first.min(), last.max())
    t = np.abs((place - centre[:, None] + 0.5) / scale)
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    weights[(place < first[:, None]) | (place >= last[:, None])] = 0
    return int(place[0]), weights / weights.sum(axis=1, keepdims=True)


def resize_to_height(values: Pixels, max_height: int | None) -> npt.NDArray[np.float32]:
    """Shrink an image that is taller than `max_height`, keeping its aspect.

    Parameters
    ----------
    values : ndarray
        What `load` returns: uint8 or float32, (H, W) or (H, W, 3).
    max_height : int or None
        Greatest height in pixels; None never resizes. The width is rounded to the nearest pixel.

    Returns
    -------
    ndarray
        float32 in [0, 1] with the axes of `values`; antialiased bicubic (a = -1/2) in floating point, its overshoot
        clipped. An image that is low enough keeps its pixels.

    Raises
    ------
    ValueError
        `max_height` is below 1.
    """
    height, width = values.shape[:2]
    shape = reduced(height, width, max_height)
    if shape == (height, width):
        return _unit(values)
    if values.ndim == 2:
        return _bicubic(values, shape)
    # One channel at a time: a float copy of a large photograph is four times the photograph.
    return np.stack([_bicubic(values[:, :, c], shape) for c in range(values.shape[2])], axis=2)


def reduced(height: int, width: int, max_height: int | None) -> tuple[int, int]:
    """Height and width of an image once `resize_to_height` has reduced it. Raises as that does."""
    if max_height is None:
        return height, width
    if max_height < 1:
        raise ValueError(f"max_height is {max_height}; expected at least 1 pixel, or None never to resize")
    if height <= max_height:
        return height, width
    return max_height, max(1, int(width * max_height / height + 0.5))


def resample_conserving(heatmap: npt.ArrayLike, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A heatmap at another size, with the same sum.

    Every pixel is a box of relevance over its area; a pixel of the result receives what its own area covers. A flat map
    stays flat, and mirroring commutes with resampling: there is no shift by half a pixel in either direction.

    Parameters
    ----------
    heatmap : ndarray (..., H, W)
        One map, or a stack of maps.
    shape : (int, int)
        Height and width of the result.

    Returns
    -------
    ndarray (..., *shape)
        float64; the sum of each map is kept to 1e-12 of the sum of its magnitudes.

    Raises
    ------
    ValueError
        `heatmap` has fewer than two axes or no pixels, or `shape` is not two lengths of at least 1.
    """
    heatmap = np.asarray(heatmap, dtype=np.float64)
    if heatmap.ndim < 2 or 0 in heatmap.shape[-2:]:
        raise ValueError(f"heatmap has shape {heatmap.shape}; expected (height, width), at least 1 x 1")
    if np.shape(shape) != (2,) or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}; expected (height, width), at least 1 x 1")
    for axis, length in ((-2, shape[0]), (-1, shape[1])):
        if heatmap.shape[axis] != length:
            heatmap = _redistribute(heatmap, axis, length)
    return heatmap


def _redistribute(values: npt.NDArray[np.float64], axis: int, length: int) -> npt.NDArray[np.float64]:
    """Cut `axis` into `length` equal pixels; each receives the share of the old pixels that it overlaps."""
    old = values.shape[axis]
    # In units of 1 / (old * length) of the axis, old edges lie at multiples of `length` and new ones at multiples of
    # `old`: between neighbouring edges of either kind there is one old and one new pixel, and all widths are exact.
    edges = np.union1d(np.arange(old + 1) * length, np.arange(length + 1) * old)
    source = edges[:-1] // length
    share = np.diff(edges) / length
    first = np.searchsorted(edges, np.arange(length) * old)
    lines = np.moveaxis(values, axis, -1)
    out = np.empty((*lines.shape[:-1], length))
    # Some lines at a time: the pieces of all of them would take three times the memory of the result.
    count = max(1, _BAND // len(source))
    for at in np.ndindex(lines.shape[:-2]):
        for line in range(0, lines.shape[-2], count):
            pieces = lines[at][line : line + count, source]
            np.add.reduceat(pieces * share, first, axis=-1, out=out[at][line : line + count])
    return np.moveaxis(out, -1, axis)


def _bicubic(channel: Pixels, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(np.ascontiguousarray(_unit(channel)))
    spooled.release(channel)
    resized: npt.NDArray[np.float32] = np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC))
    return np.clip(resized, 0, 1)


def _unit(values: Pixels) -> npt.NDArray[np.float32]:
    """float32 in [0, 1] of what `load` returns."""
    if values.dtype == np.uint8:
        return np.divide(values, 255, dtype=np.float32)
    return values.astype(np.float32, copy=False)
