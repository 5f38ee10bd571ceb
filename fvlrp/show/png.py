"""Pictures as PNG files: palettes where they lose nothing, the mark that fvlrp wrote a file, atomic writes.

Hides how pictures are encoded. For `render`, which exports it, and the wings above show.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..data.images import ImageLike, rgb
from ..runtime.arguments import is_whole

SOFTWARE = "Software"  # PNG's own keyword for the program that wrote a file
LEVEL = 3  # of zlib: files are 3 % larger than at the best level, in a hundredth of the time
_BAND = 1 << 20  # pixels whose colours are looked up at a time


def _indexed(picture: Image.Image) -> Image.Image | None:
    """An RGB `picture` with a palette if it has at most 256 colours, as coloured heatmaps do; lossless."""
    counted = picture.getcolors(256)
    if counted is None:
        return None
    colours = np.array(sorted(colour for _, colour in counted), np.uint32)  # sorted: the same palette every time
    # A pixel's red, green and blue are the bytes of its index in a table of all colours, of which 256 entries are used.
    weights = np.array([65536, 256, 1], np.uint32)
    position = np.empty(1 << 24, np.uint8)
    position[colours @ weights] = np.arange(len(colours))
    width, height = picture.size
    index = np.empty((height, width), np.uint8)
    rows = max(1, _BAND // width)
    for y in range(0, height, rows):  # never an array of the whole picture
        band = np.asarray(picture.crop((0, y, width, min(y + rows, height))))
        index[y : y + rows] = position[band @ weights]
    indexed = Image.fromarray(index).convert("P")
    indexed.putpalette(colours.astype(np.uint8).tobytes())
    return indexed


def png_bytes(image: ImageLike, text: Mapping[str, object] | None = None, *, level: int = LEVEL) -> bytes:
    """An image as a PNG file's bytes; the same image gives the same bytes with the same Pillow.

    The chunk "Software" says that fvlrp wrote it.

    Parameters
    ----------
    image : path, Pillow image or array
        As `fvlrp.images.load` reads it: (H, W, 3) or (H, W), uint8 or floats in 0..1. Up to 256 colours, as a coloured
        heatmap has, are stored as a palette: nothing is lost.
    text : mapping, optional
        Keywords of 1 to 79 printable ASCII characters and values (made `str`), stored in the file in their order:
        target, depth, score.
    level : int
        Compression level, 0 (none) to 9. A heatmap of 500 x 375 pixels takes 2 ms at levels 1 to 3, 7 ms at 6, and
        40 ms or more at 9, for a file that is 3 % smaller.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        For a keyword that PNG does not accept, an invalid level, or an image that is not one.
    """
    if not is_whole(level) or not 0 <= level <= 9:
        raise ValueError(f"level is {level!r}; expected a whole number from 0 (not compressed) to 9 (smallest)")
    info = PngInfo()
    for key, value in {SOFTWARE: "fvlrp", **(text or {})}.items():
        if not 1 <= len(key) <= 79 or not key.isprintable() or not key.isascii():
            raise ValueError(f"text has the keyword {key!r}; PNG takes 1 to 79 printable characters, plain ASCII here")
        info.add_text(key, str(value))
    # What was drawn here is not copied: it may be large.
    drawn = type(image) is Image.Image and image.mode == "RGB" and not image.info
    picture = image if isinstance(image, Image.Image) and drawn else Image.fromarray(rgb(image))
    buffer = io.BytesIO()
    (_indexed(picture) or picture).save(buffer, format="PNG", compress_level=int(level), pnginfo=info)
    return buffer.getvalue()


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether fvlrp wrote a file, by the mark of `png_bytes`. Reads only its header."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get(SOFTWARE) == "fvlrp"
    except (OSError, ValueError):
        return False


def write_png(
    path: str | os.PathLike[str], image: ImageLike, text: Mapping[str, object] | None = None, *, level: int = LEVEL
) -> None:
    """Write an image as PNG, atomically.

    Parameters
    ----------
    path : str or path
        Written under exactly this name.
    image, text, level
        As in `png_bytes`.

    Raises
    ------
    OSError
        Where `path` cannot be written.
    ValueError
        As `png_bytes`.
    """
    from ..data import files  # only writing needs it

    data = png_bytes(image, text, level=level)
    with files.atomic_write(path) as target:
        target.write(data)
