"""Files that Pillow does not read, or not at their depth: DICOM, arrays of NumPy, and TIFF beyond 8 bits of colour or
beyond memory.

Hides pydicom and tifffile, which are optional. For data.images alone.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from ..runtime.types import Untyped, Values
from . import spooled

DICOM = (".dcm", ".dicom")
TIFF = (".tif", ".tiff")
ARRAY = (".npy",)
_MINISWHITE, _MINISBLACK, _RGB, _YCBCR = 0, 1, 2, 6  # TIFF's PhotometricInterpretation
_ORIENTATION = 274

# Both log what they find in damaged files; where nobody listens, logging prints that to stderr. Our errors say it.
for _name in ("tifffile", "pydicom"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


def kind(path: str | os.PathLike[str]) -> str:
    """ "dicom", "tiff", "array", or "" for all others, by the file's name."""
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    kinds = {"dicom": DICOM, "tiff": TIFF, "array": ARRAY}
    return next((name for name, suffixes in kinds.items() if suffix in suffixes), "")


def read(path: str | os.PathLike[str], page: int, range: tuple[float, float] | None = None) -> Values | None:
    """Values of a file, upright: (H, W), (H, W, 3) or (H, W, 4). None where Pillow is to read it.

    A DICOM file's grey is in 0..1 after its window (VOI), or that of `range` in the modality's units, such as HU. Other
    files have their own values, whatever the `range`.

    Raises
    ------
    ImportError
        A DICOM file, and pydicom is not installed.
    Exception
        Whatever the readers stumble over in a damaged file.
    """
    which = kind(path)
    if which == "dicom":
        return _dicom(path, page, range)
    if which == "array":
        return np.asarray(np.load(path, allow_pickle=False))
    return _tiff(path, page) if which == "tiff" and find_spec("tifffile") else None


def size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Height and width by the header; None where Pillow is to say."""
    which = kind(path)
    if which == "dicom":
        header = _pydicom().dcmread(path, stop_before_pixels=True)
        return int(header.Rows), int(header.Columns)
    if which == "array":
        shape: tuple[int, ...] = np.load(path, mmap_mode="r", allow_pickle=False).shape
        if len(shape) < 2:
            raise ValueError(f"it holds an array of shape {shape}; expected (height, width, ...)")
        return shape[0], shape[1]
    if which == "tiff" and find_spec("tifffile"):
        import tifffile

        with tifffile.TiffFile(path) as file:
            first: Untyped = file.pages[0]
            return int(first.imagelength), int(first.imagewidth)
    return None


# ---- DICOM -----------------------------------------------------------------------------------------------------------


def _pydicom() -> Untyped:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise ImportError("DICOM files need pydicom: pip install 'fvlrp[dicom]'") from None
    return pydicom


def _dicom(path: str | os.PathLike[str], page: int, range: tuple[float, float] | None) -> Values:
    pydicom = _pydicom()
    file = pydicom.dcmread(path, stop_before_pixels=True)
    frames = int(getattr(file, "NumberOfFrames", 1) or 1)
    if not 0 <= page < frames:
        raise ValueError(f"it has no page {page}, counted from 0")
    if frames > 1 and not page:
        warnings.warn(
            f"{os.fsdecode(path)} has {frames} frames and the first was read: page=1 reads the second", stacklevel=4
        )
    values: Values = pydicom.pixels.pixel_array(path, index=page)  # YBR becomes RGB
    if values.ndim == 3:
        white = (1 << int(file.BitsStored)) - 1
        return values if white == 255 else spooled.converted(values, lambda band: (band / white).astype(np.float32))

    def shown(band: Values) -> npt.NDArray[np.float64]:
        units = pydicom.pixels.apply_modality_lut(band, file)
        return np.asarray(units if range else pydicom.pixels.apply_voi_lut(units, file), np.float64)

    low, high = range or _ends(file, values, shown)
    inverted = file.PhotometricInterpretation == "MONOCHROME1"

    def grey(band: Values) -> npt.NDArray[np.float32]:
        part = np.clip((shown(band) - low) / (high - low if high > low else 1), 0, 1).astype(np.float32)
        return 1 - part if inverted else part

    return spooled.converted(values, grey)


def _ends(file: Untyped, values: Values, shown: Callable[[Values], npt.NDArray[np.float64]]) -> tuple[float, float]:
    """The values of black and white: those that the window leads to, or without one, the range of the values."""
    if not ("WindowCenter" in file or "VOILUTSequence" in file):
        of_bands = [spooled.ends(shown(values[rows])) for rows in spooled.bands(values)]
        return float(min(low for low, _ in of_bands)), float(max(high for _, high in of_bands))
    if "VOILUTSequence" in file:
        return 0.0, float((1 << int(file.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    # A window leads to all values that the stored bits have, in the modality's units (PS3.3 C.11.2.1.2).
    bits, signed = int(file.BitsStored), int(file.PixelRepresentation)
    stored = np.array([-(1 << (bits - 1)), (1 << (bits - 1)) - 1] if signed else [0, (1 << bits) - 1], np.float64)
    slope, shift = float(getattr(file, "RescaleSlope", 1)), float(getattr(file, "RescaleIntercept", 0))
    low, high = sorted(stored * slope + shift)
    return low, high


# ---- TIFF ------------------------------------------------------------------------------------------------------------


def _tiff(path: str | os.PathLike[str], page: int) -> Values | None:
    """A page that Pillow would not read, or would read with 8 bits a colour, or at once into memory."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if page >= len(file.pages):
            return None  # Pillow refuses it in its own words
        found: Untyped = file.pages[page]
        deep = found.samplesperpixel > 1 and found.bitspersample > 8
        if not (deep or file.is_bigtiff or found.size > spooled.LARGE):
            return None
        if int(found.photometric) not in (_MINISWHITE, _MINISBLACK, _RGB, _YCBCR):
            return None
        if len(file.pages) > 1 and not page and not found.is_reduced:
            warnings.warn(
                f"{os.fsdecode(path)} has several pages and the first was read: page=1 reads the second", stacklevel=4
            )
        values: Values = found.asarray(
            out=spooled.empty(found.shape, found.dtype) if found.size > spooled.LARGE else None
        )
        spooled.release(values)
        orientation = found.tags[_ORIENTATION].value if _ORIENTATION in found.tags else 1
        if values.ndim == 3 and int(found.planarconfig) == 2:  # one plane a colour
            values = np.moveaxis(values, 0, -1)
        if int(found.photometric) == _MINISWHITE:
            white = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
            values = spooled.converted(values, lambda band: white - band)
        return _upright(values, int(orientation))


def _upright(values: Values, orientation: int) -> Values:
    """EXIF's orientation 1..8 undone, as a view."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values
