"""Reading images of any kind, and mapping heatmaps back to the size of the input.

`load` defines the pixels of an input, `grey` its grey values, and `resample_conserving` how a heatmap on a resized
image is mapped to the input's own size without losing relevance. Hides Pillow's pitfalls and the ranges of pixel types.
For every wing above data.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..runtime import limits
from . import formats

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | Array | Photograph"

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
_DECODED = 12  # bytes for each pixel while a picture is decoded and becomes an array
PLUGINS = dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif") | {
    ".avif": "pillow-avif-plugin",
    ".avifs": "pillow-avif-plugin",
    ".jxl": "pillow-jxl-plugin",
}
_BAND = 1 << 17  # values that are resampled at a time
_ROUNDING = 1e-6  # how far a float may leave [0, 1] and still be read as rounding of an earlier computation
_NARROW = (8, 10, 12)  # bits that data in a 16-bit file may have; fewer than 1/16 of the range would be used otherwise
_SAMPLE_MAXIMUM = 281  # TIFF: the largest value that the samples can take

# A picture that was opened and not yet decoded is read from its file by whoever asks first, and by one at a time.
_decoding = threading.Lock()


class Photograph:
    """A file with what it does not say itself: the range of its values, and which of its pages is meant.

    It is read anew each time it is used, so that any number of them may be listed. Everything that takes an image takes
    one.

    Parameters
    ----------
    path : path
    range : (float, float), optional
        The values that become black and white, as in `load`.
    page : int
        Of a file with several, counted from 0.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, range: tuple[float, float] | None = None, page: int = 0
    ) -> None:
        self.path, self.range, self.page = path, _checked_range(range), page

    def __str__(self) -> str:
        return os.fsdecode(self.path)

    def __repr__(self) -> str:
        return f"<Photograph {self}, range {self.range}, page {self.page}>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(load(self.path, range=self.range, page=self.page), dtype)


def load(image: ImageLike, *, range: tuple[float, float] | None = None, page: int = 0) -> Array:
    """Pixels of an image at its own size, upright, without alpha.

    Parameters
    ----------
    image : path, PIL image or array
        An array is grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4); bool, uint8 (0..255), uint16 (0..65535),
        float (0..1), or any other integer type whose values lie in 0..255.
    range : (float, float), optional
        The values that become black and white, instead of those that the type stands for; values beyond them are
        clipped. (0, 4095) is 12-bit data in a 16-bit file, (-160, 240) a window of Hounsfield units.
    page : int
        Of a file with several pages or frames, counted from 0. Without it the first is read, and of a TIFF file with
        several a warning tells.

    Returns
    -------
    ndarray
        Grey (H, W) or RGB (H, W, 3), after EXIF transposition: uint8 as stored in 8 bits, otherwise float32 in [0, 1].
        It may share memory with `image` and be read-only.

    Raises
    ------
    OSError
        The file is missing, truncated or no image, or has no such page.
    ValueError
        Empty, of another number of axes or channels, not finite, out of range, or with masked values.
    TypeError
        Not an image, or an array that does not hold real numbers.

    Warns
    -----
    UserWarning
        A TIFF file holds several pages, of which one is read; or 16-bit values stay below 4096, as 10- and 12-bit data
        do. These are read as what they seem to be; `range` says what they are.

    Notes
    -----
    Alpha is composited on white, as viewers show it. Grey files of 16 bits keep their range (value / 65535), unless a
    TIFF file's MaxSampleValue says otherwise; Pillow reads RGB files of 16 bits as 8 bits, and tifffile, where it is
    installed, as 16 in TIFF files. Pictures in CMYK, YCbCr, HSV or with a palette become RGB. A DICOM file's grey is
    what its window shows, MONOCHROME1 inverted; `range` is a window instead of it, in the
    modality's units (HU), and a page is a frame.
    """
    range = _checked_range(range)
    if isinstance(image, Photograph):
        return load(image.path, range=range or image.range, page=page or image.page)
    if isinstance(image, str | os.PathLike | Image.Image):
        name = _name(image)
        if not isinstance(image, Image.Image) and formats.kind(image):
            with _named_errors(image, name):
                values = formats.read(image, page, range)
            if values is not None:
                return _from_array(values, name, None if formats.kind(image) == "dicom" else range)
        return _from_picture(_decoded(image, name, page), name, range)
    array: Any = image  # or a tensor, or whatever else NumPy reads as an array
    if hasattr(array, "__array__"):
        # numpy.ma.MaskedArray would load numpy.ma.
        masked = np.count_nonzero(getattr(array, "mask", False)) if isinstance(array, np.ndarray) else 0
        if masked:
            raise ValueError(
                f"image has {masked} masked values, for which there is no colour: pass image.filled(value)"
            )
        return _from_array(np.asarray(array), "image", range)
    raise TypeError(f"image must be a path, a PIL image or an array, not {type(image).__name__}")


def size(image: ImageLike) -> tuple[int, int]:
    """Height and width as stored, of a file from its header alone: nothing is decoded, nor transposed.

    Raises as `load` does for what cannot be opened.
    """
    if isinstance(image, Photograph):
        image = image.path
    if isinstance(image, Image.Image):
        return image.height, image.width
    if isinstance(image, str | os.PathLike):
        with _named_errors(image, _name(image)):
            if (found := formats.size(image)) is not None:
                return found
            with Image.open(image) as picture:
                return picture.height, picture.width
    height, width = np.shape(image)[:2]
    return height, width


def _name(image: str | os.PathLike[str] | Image.Image) -> str:
    path = getattr(image, "filename", "") if isinstance(image, Image.Image) else image
    return f"image {os.fsdecode(path)}" if path else "image"


def _checked_range(range: tuple[float, float] | None) -> tuple[float, float] | None:
    if range is None:
        return None
    try:
        low, high = map(float, range)
    except (TypeError, ValueError):
        raise ValueError(f"range must be two numbers, those of black and white, got {range!r}") from None
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"range must be two finite numbers, black below white, got {range!r}")
    return low, high


def grey(image: ImageLike, max_height: int | None = None) -> npt.NDArray[np.float32]:
    """Grey values in [0, 1]: (RGB / 255) · (.2989, .5870, .1140), float32 (H, W), C order.

    A 2-D image is its own grey. With `max_height`, a taller image is first resized (`resize_to_height`), in colour.
    Raises as `load` does.
    """
    return _weighted(resize_to_height(load(image), max_height))


def _weighted(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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

    def __init__(self, pixels: Array) -> None:
        self.pixels, self.shape = pixels, (int(pixels.shape[0]), int(pixels.shape[1]))

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float32]:
        return _weighted(_unit(self.pixels[rows]))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)


def grey_part(
    pixels: Array, window: tuple[slice, slice], max_height: int | None = None
) -> tuple[npt.NDArray[np.float32], tuple[slice, slice]]:
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
        return _weighted(_unit(pixels[window])), window
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
    return _weighted(np.clip(resized, 0, 1)), (windows[0], windows[1])


def _bicubic_weights(length: int, short: int, own: slice) -> tuple[int, npt.NDArray[np.float64]]:
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


def rgb(image: ImageLike) -> npt.NDArray[np.uint8]:
    """The image as a picture to show: uint8 (H, W, 3), upright. Raises as `load` does."""
    values = load(image)
    if values.dtype != np.uint8:
        values = np.rint(values * 255).astype(np.uint8)
    return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)


def batch(images: Any) -> Sequence[Any]:
    """`images` as a sequence of at least one image.

    A column of a table (pandas, polars) is read as a list; one array may hold images of one size.
    """
    if hasattr(images, "to_list"):  # a Series would be indexed by its labels
        images = images.to_list()
    if isinstance(images, str | bytes) or not isinstance(images, Sequence | np.ndarray):
        hint = ": [image]?" if isinstance(images, str | os.PathLike | Image.Image) else ""
        raise ValueError(f"images must be a sequence of paths, PIL images or arrays, got {type(images).__name__}{hint}")
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU" and _is_one(images.shape):
        raise ValueError(f"images must be a sequence of images, got one array of shape {images.shape}: [image]?")
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    return cast("Sequence[Any]", images)


def several_images(images: Any) -> bool:
    """Whether this is a list of images or a column of a table, which no single image is."""
    return isinstance(images, list | tuple) or hasattr(images, "to_list")


def _is_one(shape: tuple[int, ...]) -> bool:
    """Whether an array is a single image: grey, or with channels last rather than many that are 4 pixels wide."""
    return len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3, 4))


def naming(images: Sequence[ImageLike], i: int, function: Callable[[ImageLike], T]) -> T:
    """``function(images[i])``, whose complaints say which of the images they are about."""
    return naming_one(i, images[i], function)


def naming_one(i: int, image: ImageLike, function: Callable[[ImageLike], T]) -> T:
    """The same of one image that has the number i."""
    try:
        return function(image)
    except (ValueError, TypeError, MemoryError) as error:
        shown = f" ({image})" if isinstance(image, str | os.PathLike | Photograph) else ""
        kind = next(kind for kind in (TypeError, MemoryError, ValueError) if isinstance(error, kind))
        raise kind(f"images[{i}]{shown}: {error}") from error


def resize_to_height(values: Array, max_height: int | None) -> npt.NDArray[np.float32]:
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


def _bicubic(channel: Array, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(np.ascontiguousarray(_unit(channel)))
    resized: npt.NDArray[np.float32] = np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC))
    return np.clip(resized, 0, 1)


def _unit(values: Array) -> npt.NDArray[np.float32]:
    """float32 in [0, 1] of what `load` returns."""
    return np.divide(values, 255, dtype=np.float32) if values.dtype == np.uint8 else values


@contextmanager
def _named_errors(image: str | os.PathLike[str] | Image.Image, name: str) -> Iterator[None]:
    """Errors of Pillow as an OSError that names the image."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise type(error)(f"cannot read {name}: {_REASONS.get(type(error), error)}") from error
    except ImportError as error:
        raise ImportError(f"cannot read {name}: {error}") from error
    except MemoryError as error:
        raise MemoryError(f"cannot read {name}: {str(error) or 'it does not fit into memory'}") from error
    except UnidentifiedImageError as error:
        raise OSError(f"cannot read {name}: {_unknown(image)}") from error
    except Exception as error:  # Decoders raise whatever their parser stumbles over, from SyntaxError to IndexError.
        raise OSError(f"cannot read {name}: {error}") from error


def _unknown(image: str | os.PathLike[str] | Image.Image) -> str:
    """Why Pillow does not know a file's format."""
    suffix = "" if isinstance(image, Image.Image) else os.path.splitext(os.fsdecode(image))[1].lower()
    if suffix in PLUGINS:
        return f"Pillow reads {suffix} with a plugin: pip install {PLUGINS[suffix]}"
    return "it is no image of a format that Pillow knows"


def _decoded(image: str | os.PathLike[str] | Image.Image, name: str, page: int) -> Image.Image:
    with _named_errors(image, name):
        if isinstance(image, Image.Image):
            with _decoding:
                _seek(image, page)
                return _upright(image)
        try:
            opened = Image.open(image)
        except UnidentifiedImageError:
            if not _plugged_in(image):
                raise
            opened = Image.open(image)
        with opened as picture:
            _seek(picture, page)
            if not page:
                _warn_of_pages(picture, name)
            return _upright(picture)


def _plugged_in(image: str | os.PathLike[str]) -> bool:
    """Whether a plugin that is installed, and of which Pillow did not know yet, reads files of this suffix."""
    plugin = PLUGINS.get(os.path.splitext(os.fsdecode(image))[1].lower())
    if plugin != "pillow-heif" or find_spec("pillow_heif") is None:
        return False
    import_module("pillow_heif").register_heif_opener()
    return True


def _seek(picture: Image.Image, page: int) -> None:
    """Go to a page; a picture that the caller has opened stays where it is unless one is named."""
    if page:
        try:
            picture.seek(page)
        except EOFError:
            raise ValueError(f"it has no page {page}, counted from 0") from None


def _warn_of_pages(picture: Image.Image, name: str) -> None:
    """Tell that a TIFF file has more pages than the one that is read: a stack is no photograph."""
    if picture.format != "TIFF":  # the first frame stands for an animation everywhere
        return
    try:
        picture.seek(1)
    except EOFError:
        return
    picture.seek(0)
    warnings.warn(f"{name} has several pages and the first was read: page=1 reads the second", stacklevel=5)


def _upright(picture: Image.Image) -> Image.Image:
    """The decoded frame, transposed as its EXIF orientation says.

    Pixels are decoded before the orientation is read: truncated files fail only here, and TIFF files transpose
    themselves while decoding.
    """
    limits.require(_DECODED * picture.width * picture.height, "decoding it")
    picture.load()
    method = _UPRIGHT.get(picture.getexif().get(_EXIF_ORIENTATION, 1))
    return picture if method is None else picture.transpose(method)


def _from_picture(picture: Image.Image, name: str, range: tuple[float, float] | None) -> Array:
    mode = picture.mode
    if mode == "F":
        return _from_array(np.asarray(picture), name, range)
    if mode.startswith("I"):
        return _from_16_bits(picture, name, range)
    with _named_errors(picture, name):  # a palette may be missing
        transparent = picture.has_transparency_data
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    try:
        values = np.asarray(picture.convert(target + "A" * transparent))
    except ValueError as error:
        raise ValueError(f"{name} has the colour mode {mode}, which has no form in {target}: {error}") from error
    return _from_array(_on_white(values) if transparent else values, name, range)


def _from_16_bits(picture: Image.Image, name: str, range: tuple[float, float] | None) -> Array:
    """Older versions of Pillow open 16-bit files in mode "I", 32 bits wide: the range is 16 bits all the same."""
    values = np.asarray(picture)
    if range is None:
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError(
                f"{name} has integers from {values.min()} to {values.max()}; "
                "expected 16 bits, 0 to 65535: say with range= which are black and white"
            )
        largest = getattr(picture, "tag_v2", {}).get(_SAMPLE_MAXIMUM)
        if largest is not None and 0 < (white := float(np.max(largest))) < 65535:
            range = (0.0, white)
        values = values.astype(np.uint16)
    return _from_array(values, name, range)


def _from_array(values: Array, name: str, range: tuple[float, float] | None) -> Array:
    shape = values.shape
    if values.ndim not in (2, 3) or (values.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ": move the channels last" if values.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ValueError(f"{name} has shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    if values.size == 0:
        raise ValueError(f"{name} is empty: its shape is {shape}")
    values = _in_range(values, name) if range is None else _stretched(values, name, range)
    if values.ndim == 2:
        return values
    return values[:, :, 0] if shape[2] == 1 else _on_white(values) if shape[2] == 4 else values


def _stretched(values: Array, name: str, range: tuple[float, float]) -> npt.NDArray[np.float32]:
    """float32 in [0, 1]: `range` becomes black and white."""
    if values.ndim == 3 and values.shape[2] == 4:
        raise ValueError(
            f"{name} has an alpha channel, which range= is not about: composite it, or pass three channels"
        )
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {values.dtype}; with range= expected integers or floats")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    low, high = range
    stretched = np.subtract(values, low, dtype=np.float64)
    stretched /= high - low
    return np.clip(stretched, 0, 1, out=stretched).astype(np.float32)


def _in_range(values: Array, name: str) -> Array:
    """The same values as uint8 in 0..255 or float32 in 0..1."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.newbyteorder("=") == np.uint16:  # files of 16 bits are often stored big-endian
        return np.divide(values, _white(values, name), dtype=np.float32)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {values.dtype}; expected bool, uint8, uint16 or float")
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise ValueError(
                f"{name} has dtype {values.dtype} and values from {low} to {high}; integers are read as 0 to 255: "
                "convert it to uint8, uint16 or float in [0, 1], or say with fvlrp.images.load(image, range=...) "
                "which are black and white"
            )
        return values.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{name} has floats from {low:.6g} to {high:.6g}; expected [0, 1]: divide an image in 0..255 by 255, "
            "or say with fvlrp.images.load(image, range=...) which are black and white"
        )
    return np.clip(values, 0, 1).astype(np.float32, copy=False)


def _white(values: Array, name: str) -> int:
    """The value of white in 16-bit data: 65535, or less where only the lowest 12 bits are used.

    Cameras, microscopes and scanners write 10 or 12 bits into 16; divided by 65535 they would be nearly black.
    """
    largest = int(values.max())
    bits = next((bits for bits in _NARROW if largest < 1 << bits), 16) if largest else 16
    if bits < 16:
        white = (1 << bits) - 1
        warnings.warn(
            f"{name} has 16-bit values of at most {largest}, and is read as {bits}-bit data: "
            f"range=(0, {white}) says so, range=(0, 65535) that it is as dark as that",
            stacklevel=5,
        )
        return white
    return 65535


def _on_white(values: Array) -> Array:
    """Composite the last channel, alpha, on white: (H, W, 2) → (H, W), (H, W, 4) → (H, W, 3), the dtype kept."""
    if values.dtype == np.uint8:
        wide = values.astype(np.uint16)
        colour, alpha = wide[:, :, :-1], wide[:, :, -1:]
        out = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        colour, alpha = values[:, :, :-1], values[:, :, -1:]
        out = colour * alpha + (1 - alpha)
    return out[:, :, 0] if out.shape[2] == 1 else out
