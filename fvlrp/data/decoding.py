"""Opening and decoding image files with Pillow: plugins, pages, orientation, and errors that name the file.

Hides Pillow's pitfalls. For `data.images` and `data.pixels`.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, UnidentifiedImageError

from ..runtime import limits

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
    FileNotFoundError: "no such file",
    IsADirectoryError: "it is a folder",
    PermissionError: "permission denied",
}
_DECODED = 12  # bytes for each pixel while a picture is decoded and becomes an array
PLUGINS = dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif") | {
    ".avif": "pillow-avif-plugin",
    ".avifs": "pillow-avif-plugin",
    ".jxl": "pillow-jxl-plugin",
}

# A picture that was opened and not yet decoded is read from its file by whoever asks first, and by one at a time.
_decoding = threading.Lock()


def decoded(image: str | os.PathLike[str] | Image.Image, name: str, page: int) -> Image.Image:
    with named_errors(image, name):
        if isinstance(image, Image.Image):
            with _decoding:
                _seek(image, page)
                return _upright(image, name)
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
            return _upright(picture, name)


@contextmanager
def named_errors(image: str | os.PathLike[str] | Image.Image, name: str) -> Iterator[None]:
    """Errors of Pillow as an OSError that names the image."""
    # Opening a pipe waits for a writer, possibly for ever.
    if not isinstance(image, Image.Image) and _special(image):
        raise OSError(f"cannot read {name}: it is a pipe or a device; expected a file")
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        reason = _REASONS.get(type(error), error)
        remote = isinstance(error, FileNotFoundError) and "://" in name
        raise type(error)(f"cannot read {name}: {reason}{': URLs are not read' if remote else ''}") from error
    except ImportError as error:
        raise ImportError(f"cannot read {name}: {error}") from error
    except MemoryError as error:
        raise MemoryError(f"cannot read {name}: {str(error) or 'it does not fit into memory'}") from error
    except UnidentifiedImageError as error:
        raise OSError(f"cannot read {name}: {_unknown(image)}") from error
    except Exception as error:  # Decoders raise whatever their parser stumbles over, from SyntaxError to IndexError.
        raise OSError(f"cannot read {name}: {error}") from error


def _special(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a pipe, a socket or a device."""
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _unknown(image: str | os.PathLike[str] | Image.Image) -> str:
    """Why Pillow does not know a file's format."""
    suffix = "" if isinstance(image, Image.Image) else os.path.splitext(os.fsdecode(image))[1].lower()
    if suffix in PLUGINS:
        return f"Pillow reads {suffix} with a plugin: pip install {PLUGINS[suffix]}"
    if not isinstance(image, Image.Image) and os.path.getsize(image) == 0:
        return "the file is empty"
    return "it is not an image of a format that Pillow reads"


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


def _upright(picture: Image.Image, name: str) -> Image.Image:
    """The decoded frame, transposed as its EXIF orientation says.

    Pixels are decoded before the orientation is read: truncated files fail only here, and TIFF files transpose
    themselves while decoding.
    """
    limits.require(_DECODED * picture.width * picture.height, "decoding it")
    picture.load()
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # like decoders, the parser can raise anything
        warnings.warn(f"{name} has damaged EXIF data, and is taken to be upright: {error}", stacklevel=5)
        return picture
    method = _UPRIGHT.get(orientation)
    return picture if method is None else picture.transpose(method)
