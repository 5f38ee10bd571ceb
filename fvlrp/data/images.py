"""Images of any kind: what users pass, and its pixels.

`load` defines the pixels of an input, `grey` its grey values, and `resample_conserving` how a heatmap on a resized
image is mapped to the input's own size without losing relevance. For every wing above data. Files are decoded by
`data.decoding`, types and ranges of pixels are read by `data.pixels`, sizes are changed by `data.resampling`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..runtime.types import Pixels, Values
from . import formats, spooled
from .decoding import decoded, named_errors
from .pixels import checked_range, from_array, from_picture
from .resampling import GreyRows, grey_part, reduced, resample_conserving, resize_to_height, weighted

__all__ = [
    "GreyRows",
    "ImageLike",
    "Images",
    "Photograph",
    "batch",
    "grey",
    "grey_part",
    "load",
    "naming",
    "naming_one",
    "reduced",
    "resample_conserving",
    "resize_to_height",
    "rgb",
    "several_images",
    "size",
]

T = TypeVar("T")
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | ArrayOf | Photograph"
Images: TypeAlias = "Sequence[ImageLike] | Column | Values"  # several: one array holds images of one size


class ArrayOf(Protocol):
    """An array, a tensor, or whatever else NumPy reads as an array."""

    def __array__(self) -> Values: ...


class Column(Protocol):
    """A column of a table, as pandas and polars have it."""

    def __len__(self) -> int: ...
    def to_list(self) -> list[ImageLike]: ...


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
        self.path, self.range, self.page = path, checked_range(range), page

    def __str__(self) -> str:
        return os.fsdecode(self.path)

    def __repr__(self) -> str:
        return f"<Photograph {self}, range {self.range}, page {self.page}>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Values:
        return np.asarray(load(self.path, range=self.range, page=self.page), dtype)


def load(image: ImageLike, *, range: tuple[float, float] | None = None, page: int = 0) -> Pixels:
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
        Of a file with several pages or frames, counted from 0. Without it the first is read, with a warning if a TIFF
        file has several.

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
    modality's units (HU), and a page is a frame. A .npy file is the array that it holds.
    """
    range = checked_range(range)
    if isinstance(image, Photograph):
        return load(image.path, range=range or image.range, page=page or image.page)
    if isinstance(image, str | os.PathLike | Image.Image):
        name = _name(image)
        if not isinstance(image, Image.Image) and formats.kind(image):
            with named_errors(image, name):
                values = formats.read(image, page, range)
            if values is not None:
                return from_array(values, name, None if formats.kind(image) == "dicom" else range)
        return from_picture(decoded(image, name, page), name, range)
    if not hasattr(image, "__array__"):
        raise TypeError(f"image must be a path, a PIL image or an array, not {type(image).__name__}")
    # numpy.ma.MaskedArray would load numpy.ma.
    masked = np.count_nonzero(getattr(image, "mask", False)) if isinstance(image, np.ndarray) else 0
    if masked:
        raise ValueError(f"image has {masked} masked values, which have no colour: pass image.filled(value)")
    return from_array(np.asarray(image), "image", range)


def size(image: ImageLike) -> tuple[int, int]:
    """Height and width as stored, of a file from its header alone: nothing is decoded, nor transposed.

    Raises as `load` does for what cannot be opened.
    """
    if isinstance(image, Photograph):
        image = image.path
    if isinstance(image, Image.Image):
        return image.height, image.width
    if isinstance(image, str | os.PathLike):
        with named_errors(image, _name(image)):
            if (found := formats.size(image)) is not None:
                return found
            with Image.open(image) as picture:
                return picture.height, picture.width
    height, width = np.shape(image)[:2]
    return height, width


def _name(image: str | os.PathLike[str] | Image.Image) -> str:
    path = getattr(image, "filename", "") if isinstance(image, Image.Image) else image
    return f"image {os.fsdecode(path)}" if path else "image"


def grey(image: ImageLike, max_height: int | None = None) -> npt.NDArray[np.float32]:
    """Grey values in [0, 1]: (RGB / 255) · (.2989, .5870, .1140), float32 (H, W), C order.

    A 2-D image is its own grey. With `max_height`, a taller image is first resized (`resize_to_height`), in colour.
    Raises as `load` does.
    """
    return weighted(resize_to_height(load(image), max_height))


def rgb(image: ImageLike) -> npt.NDArray[np.uint8]:
    """The image as a picture to show: uint8 (H, W, 3), upright. Raises as `load` does."""
    values = load(image)
    if values.dtype == np.uint8 and values.ndim == 3:
        return values.astype(np.uint8, copy=False)
    return spooled.converted(values, _shown)


def _shown(values: Pixels) -> npt.NDArray[np.uint8]:
    """Rows of an image as uint8 RGB."""
    scaled = values if values.dtype == np.uint8 else np.rint(values * 255)
    picture = scaled.astype(np.uint8, copy=False)
    return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)


def batch(images: Images) -> Sequence[ImageLike]:
    """`images` as a sequence of at least one image.

    A column of a table (pandas, polars) is read as a list; one array may hold images of one size.
    """
    if hasattr(images, "to_list"):  # a Series would be indexed by its labels
        images = images.to_list()
    if isinstance(images, str | bytes) or not isinstance(images, Sequence | np.ndarray):
        hint = ": [image]?" if isinstance(images, str | os.PathLike | Image.Image) else ""
        raise ValueError(f"images must be a sequence of paths, PIL images or arrays, got {type(images).__name__}{hint}")
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OUT" and _is_one(images.shape):
        raise ValueError(f"images must be a sequence of images, got one array of shape {images.shape}: [image]?")
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    return cast("Sequence[ImageLike]", images)


def several_images(images: object) -> bool:
    """Whether this is a list of images, an array of paths or a column of a table, which no single image is."""
    paths = isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OUT"
    return paths or isinstance(images, list | tuple) or hasattr(images, "to_list")


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
        named = isinstance(image, str | os.PathLike | Photograph) and str(image) not in str(error)
        shown = f" ({image})" if named else ""
        kind = next(kind for kind in (TypeError, MemoryError, ValueError) if isinstance(error, kind))
        raise kind(f"images[{i}]{shown}: {error}") from error
