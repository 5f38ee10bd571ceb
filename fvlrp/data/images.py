"""Images in, whatever they are, and heatmaps back to the size of the input.

Three questions have one answer each here: what the pixels of an input are (`load`), what its grey values are (`grey`),
and how a heatmap computed on a resized image returns to the input's own size without losing relevance
(`resample_conserving`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

LUMINANCE = (0.2989, 0.5870, 0.1140)  # weights of R, G, B in grey

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REASONS = {
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "it is a folder",
    PermissionError: "permission denied",
}
_ROUNDING = 1e-6  # how far a float may leave [0, 1] and still be read as rounding of an earlier computation


def load(image: ImageLike) -> np.ndarray:
    """Pixels of an image at its own size, upright, without alpha.

    Parameters
    ----------
    image : path, PIL image or array
        An array is grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4); bool, uint8 (0..255), uint16 (0..65535),
        float (0..1), or any other integer type whose values lie in 0..255. Of a file with several frames, the first.

    Returns
    -------
    ndarray
        Grey (H, W) or RGB (H, W, 3), after EXIF transposition: uint8 as stored in 8 bits, otherwise float32 in [0, 1].
        It may share memory with `image` and be read-only.

    Raises
    ------
    OSError
        The file is missing, truncated or no image.
    ValueError
        Empty, of another number of axes or channels, not finite, or out of range.
    TypeError
        Not an image, or an array that does not hold real numbers.

    Notes
    -----
    Alpha is composited on white, as viewers show it. Grey files of 16 bits keep their range (value / 65535); Pillow
    reads RGB files of 16 bits as 8 bits. Pictures in CMYK, YCbCr, HSV or with a palette become RGB.
    """
    if isinstance(image, str | os.PathLike | Image.Image):
        path = getattr(image, "filename", "") if isinstance(image, Image.Image) else image
        name = f"image {os.fsdecode(path)}" if path else "image"
        return _from_picture(_decoded(image, name), name)
    if hasattr(image, "__array__"):
        return _from_array(np.asarray(image), "image")
    raise TypeError(f"image must be a path, a PIL image or an array, not {type(image).__name__}")


def grey(image: ImageLike, max_height: int | None = None) -> np.ndarray:
    """Grey values in [0, 1]: (RGB / 255) · (.2989, .5870, .1140), float32 (H, W), C order.

    A 2-D image is its own grey. With `max_height`, a taller image is first resized (`resize_to_height`), in colour.
    Raises as `load` does.
    """
    values = resize_to_height(load(image), max_height)
    if values.ndim == 2:
        return np.ascontiguousarray(values)
    # Elementwise, not a matrix product: the same bits whatever BLAS is installed.
    red, green, blue = LUMINANCE
    return np.ascontiguousarray(values[:, :, 0] * red + values[:, :, 1] * green + values[:, :, 2] * blue)


def rgb(image: ImageLike) -> np.ndarray:
    """The image as a picture to show: uint8 (H, W, 3), upright. Raises as `load` does."""
    values = load(image)
    if values.dtype != np.uint8:
        values = np.rint(values * 255).astype(np.uint8)
    return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)


def batch(images) -> Sequence:
    """`images` as they are, if they are a sequence of at least one image; one array may hold images of one size."""
    if isinstance(images, str | bytes) or not isinstance(images, Sequence | np.ndarray):
        hint = ": [image]?" if isinstance(images, str | os.PathLike | Image.Image) else ""
        raise ValueError(f"images must be a sequence of paths, PIL images or arrays, got {type(images).__name__}{hint}")
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU" and _is_one(images.shape):
        raise ValueError(f"images must be a sequence of images, got one array of shape {images.shape}: [image]?")
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    return images


def _is_one(shape: tuple[int, ...]) -> bool:
    """Whether an array is a single image: grey, or with channels last rather than many that are 4 pixels wide."""
    return len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3, 4))


def naming(images: Sequence, i: int, function: Callable[[ImageLike], Any]):
    """``function(images[i])``, whose complaints say which of the images they are about."""
    try:
        return function(images[i])
    except (ValueError, TypeError) as error:
        shown = f" ({images[i]})" if isinstance(images[i], str | os.PathLike) else ""
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"images[{i}]{shown}: {error}") from error


def resize_to_height(values: np.ndarray, max_height: int | None) -> np.ndarray:
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
    shape = _shrunk(height, width, max_height)
    if shape == (height, width):
        return _unit(values)
    if values.ndim == 2:
        return _bicubic(values, shape)
    # One channel at a time: a float copy of a large photograph is four times the photograph.
    return np.stack([_bicubic(values[:, :, c], shape) for c in range(values.shape[2])], axis=2)


def resample_conserving(heatmap: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
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
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}; expected (height, width), at least 1 x 1")
    for axis, length in ((-2, shape[0]), (-1, shape[1])):
        if heatmap.shape[axis] != length:
            heatmap = _redistribute(heatmap, axis, length)
    return heatmap


def _redistribute(values: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Cut `axis` into `length` equal pixels; each receives the share of the old pixels that it overlaps."""
    old = values.shape[axis]
    # In units of 1 / (old * length) of the axis, old edges lie at multiples of `length` and new ones at multiples of
    # `old`: between neighbouring edges of either kind there is one old and one new pixel, and all widths are exact.
    edges = np.union1d(np.arange(old + 1) * length, np.arange(length + 1) * old)
    source = edges[:-1] // length
    share = np.diff(edges) / length
    values = np.moveaxis(values, axis, -1)
    first = np.searchsorted(edges, np.arange(length) * old)
    return np.moveaxis(np.add.reduceat(values[..., source] * share, first, axis=-1), -1, axis)


def _shrunk(height: int, width: int, max_height: int | None) -> tuple[int, int]:
    if max_height is None:
        return height, width
    if max_height < 1:
        raise ValueError(f"max_height is {max_height}; expected at least 1 pixel, or None never to resize")
    if height <= max_height:
        return height, width
    return max_height, max(1, int(width * max_height / height + 0.5))


def _bicubic(channel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(_unit(channel)))
    return np.clip(np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC)), 0, 1)


def _unit(values: np.ndarray) -> np.ndarray:
    """float32 in [0, 1] of what `load` returns."""
    return np.divide(values, 255, dtype=np.float32) if values.dtype == np.uint8 else values


def _decoded(image: str | os.PathLike | Image.Image, name: str) -> Image.Image:
    try:
        if isinstance(image, Image.Image):
            return _upright(image)
        with Image.open(image) as picture:
            return _upright(picture)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise type(error)(f"cannot read {name}: {_REASONS.get(type(error), error)}") from error
    except Exception as error:  # Decoders raise whatever their parser stumbles over, from SyntaxError to IndexError.
        raise OSError(f"cannot read {name}: {error}") from error


def _upright(picture: Image.Image) -> Image.Image:
    """The decoded first frame, transposed as its EXIF orientation says.

    Pixels are decoded before the orientation is read: truncated files fail only here, and TIFF files transpose
    themselves while decoding.
    """
    picture.load()
    method = _UPRIGHT.get(picture.getexif().get(_EXIF_ORIENTATION))
    return picture if method is None else picture.transpose(method)


def _from_picture(picture: Image.Image, name: str) -> np.ndarray:
    mode = picture.mode
    if mode == "F":
        return _from_array(np.asarray(picture), name)
    if mode.startswith("I"):
        return _from_16_bits(np.asarray(picture), name)
    transparent = picture.has_transparency_data
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    try:
        values = np.asarray(picture.convert(target + "A" * transparent))
    except ValueError as error:
        raise ValueError(f"{name} has the colour mode {mode}, which has no form in {target}: {error}") from error
    return _from_array(_on_white(values) if transparent else values, name)


def _from_16_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Older versions of Pillow open 16-bit files in mode "I", 32 bits wide: the range is 16 bits all the same."""
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(
            f"{name} has integers from {values.min()} to {values.max()}; "
            "expected 16 bits, 0 to 65535: convert it to float in [0, 1]"
        )
    return _from_array(values.astype(np.uint16), name)


def _from_array(values: np.ndarray, name: str) -> np.ndarray:
    shape = values.shape
    if values.ndim not in (2, 3) or (values.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ": move the channels last" if values.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ValueError(f"{name} has shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    if values.size == 0:
        raise ValueError(f"{name} is empty: its shape is {shape}")
    values = _in_range(values, name)
    if values.ndim == 2:
        return values
    return values[:, :, 0] if shape[2] == 1 else _on_white(values) if shape[2] == 4 else values


def _in_range(values: np.ndarray, name: str) -> np.ndarray:
    """The same values as uint8 in 0..255 or float32 in 0..1."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.newbyteorder("=") == np.uint16:  # files of 16 bits are often stored big-endian
        return np.divide(values, 65535, dtype=np.float32)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {values.dtype}; expected bool, uint8, uint16 or float")
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise ValueError(
                f"{name} has dtype {values.dtype} and values from {low} to {high}; integers are read as 0 to 255: "
                "convert it to uint8, uint16 or float in [0, 1]"
            )
        return values.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{name} has floats from {low:.6g} to {high:.6g}; expected [0, 1]: divide an image in 0..255 by 255"
        )
    return np.clip(values, 0, 1).astype(np.float32, copy=False)


def _on_white(values: np.ndarray) -> np.ndarray:
    """Composite the last channel, alpha, on white: (H, W, 2) → (H, W), (H, W, 4) → (H, W, 3), the dtype kept."""
    if values.dtype == np.uint8:
        wide = values.astype(np.uint16)
        colour, alpha = wide[:, :, :-1], wide[:, :, -1:]
        out = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        colour, alpha = values[:, :, :-1], values[:, :, -1:]
        out = colour * alpha + (1 - alpha)
    return out[:, :, 0] if out.shape[2] == 1 else out
