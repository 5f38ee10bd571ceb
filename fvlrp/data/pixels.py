"""What the values of pixels stand for: any type and range as uint8, or as float32 between black and white.

Hides the ranges of pixel types and the colour modes of pictures. For `data.images` alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..runtime.types import Pixels, Values
from . import spooled
from .decoding import named_errors

_ROUNDING = 1e-6  # how far a float may leave [0, 1] and still be read as rounding of an earlier computation
_SAMPLE_MAXIMUM = 281  # TIFF: the largest value that the samples can take
_NARROW = (8, 10, 12)  # bits that data in a 16-bit file may have; fewer than 1/16 of the range would be used otherwise
_DOUBTFUL = 1 << 14  # 16-bit data that stay below may have 14 bits, as those of cameras, or be dark
_RARE = 1000  # one value in so many at most is a defect of the sensor rather than a lamp
_ROWS = 16  # of an image, that are looked at before all are


def checked_range(range: tuple[float, float] | None) -> tuple[float, float] | None:
    if range is None:
        return None
    try:
        low, high = map(float, range)
    except (TypeError, ValueError):
        raise ValueError(f"range must be two numbers, those of black and white, got {range!r}") from None
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"range must be two finite numbers, black below white, got {range!r}")
    return low, high


def from_picture(picture: Image.Image, name: str, range: tuple[float, float] | None) -> Pixels:
    mode = picture.mode
    if mode == "F":
        return from_array(np.asarray(picture), name, range)
    if mode.startswith("I"):
        return _from_16_bits(picture, name, range)
    with named_errors(picture, name):  # a palette may be missing
        transparent = picture.has_transparency_data
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    try:
        values = np.asarray(picture.convert(target + "A" * transparent))
    except ValueError as error:
        raise ValueError(f"{name} has the colour mode {mode}, which has no form in {target}: {error}") from error
    return from_array(_on_white(values) if transparent else values, name, range)


def _from_16_bits(picture: Image.Image, name: str, range: tuple[float, float] | None) -> Pixels:
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
        values = values.astype(np.uint16, copy=False)
    return from_array(values, name, range)


def from_array(values: Values, name: str, range: tuple[float, float] | None) -> Pixels:
    shape = values.shape
    if values.ndim not in (2, 3) or (values.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ": move the channels last" if values.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ValueError(f"{name} has shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    if values.size == 0:
        raise ValueError(f"{name} is empty: its shape is {shape}")
    convert = _conversion(values, name) if range is None else _stretching(values, name, range)
    if convert is _same and values.ndim == 2:
        return values
    if convert is _same and shape[2] != 4:
        return values[:, :, 0] if shape[2] == 1 else values

    def finished(band: Values) -> Pixels:
        band = convert(band)
        if band.ndim == 2:
            return band
        return band[:, :, 0] if shape[2] == 1 else _on_white(band) if shape[2] == 4 else band

    return spooled.converted(values, finished)


def _same(values: Values) -> Pixels:
    return values


def _stretching(values: Values, name: str, range: tuple[float, float]) -> Callable[[Values], Pixels]:
    """The conversion to float32 in [0, 1] by which `range` becomes black and white."""
    if values.ndim == 3 and values.shape[2] == 4:
        raise ValueError(
            f"{name} has an alpha channel, which range= is not about: composite it, or pass three channels"
        )
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {values.dtype}; with range= expected integers or floats")
    if values.dtype.kind == "f" and not np.isfinite(spooled.ends(values)).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    low, high = range
    _warn_of_range(values, name, (low, high))

    def stretched(band: Values) -> npt.NDArray[np.float32]:
        part = np.subtract(band, low, dtype=np.float64)
        part /= high - low
        return np.clip(part, 0, 1, out=part).astype(np.float32)

    return stretched


def _warn_of_range(values: Values, name: str, range: tuple[float, float]) -> None:
    """Warn of a range that the type cannot reach, and of one that makes all values one colour."""
    if values.dtype.kind == "u" and range[1] > (most := np.iinfo(values.dtype).max):
        warnings.warn(
            f"{name} has {values.dtype} values, at most {most}, of which range={range} makes none white", stacklevel=6
        )
    low, high = spooled.ends(values)
    if low < high and (high <= range[0] or low >= range[1]):
        colour = "black" if high <= range[0] else "white"
        warnings.warn(f"{name} has values from {low} to {high}, which range={range} makes all {colour}", stacklevel=6)


def _conversion(values: Values, name: str) -> Callable[[Values], Pixels]:
    """The conversion of the values to uint8 in 0..255 or float32 in 0..1, once the values were found to allow it."""
    if values.dtype == np.uint8:
        _warn_of_mask(values, name)
        return _same
    if values.dtype == np.bool_:
        return lambda band: band.astype(np.uint8) * np.uint8(255)
    if values.dtype.newbyteorder("=") == np.uint16:  # files of 16 bits are often stored big-endian
        white = _white(values, name)
        return lambda band: np.divide(band, white, dtype=np.float32)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {values.dtype}; expected bool, uint8, uint16 or float")
    low, high = spooled.ends(values)
    if values.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise ValueError(
                f"{name} has dtype {values.dtype} and values from {low} to {high}; integers are read as 0 to 255: "
                "convert it to uint8, uint16 or float in [0, 1], or say with fvlrp.images.load(image, range=...) "
                "which are black and white"
            )
        _warn_of_mask(values, name)
        return lambda band: band.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{name} has floats from {low:.6g} to {high:.6g}; expected [0, 1]: divide an image in 0..255 by 255, "
            "or say with fvlrp.images.load(image, range=...) which are black and white"
        )
    if values.dtype == np.float32 and low >= 0 and high <= 1:
        return _same
    return lambda band: np.clip(band, 0, 1).astype(np.float32, copy=False)


def _white(values: Values, name: str) -> int:
    """The value of white in 16-bit data: 65535, or less where only the lowest 12 bits are used.

    Cameras, microscopes and scanners write 10 or 12 bits into 16; divided by 65535 they would be nearly black. Data of
    14 bits, and of 12 with single defect pixels, are as dark as photographs can be: these are read as 16 bits, with a
    warning.
    """
    largest = int(spooled.ends(values)[1])
    bits = next((bits for bits in _NARROW if largest < 1 << bits), 16) if largest else 16
    if bits < 16:
        white = (1 << bits) - 1
        warnings.warn(
            f"{name} has 16-bit values of at most {largest}, and is read as {bits}-bit data: "
            f"range=(0, {white}) says so, range=(0, 65535) that it is as dark as that",
            stacklevel=5,
        )
        return white
    defects = sum(np.count_nonzero(values[rows] >= 1 << 12) for rows in spooled.bands(values))
    if 0 < defects * _RARE < values.size:
        bits, most = 12, f"of which all but {defects} are below 4096"
    elif 0 < largest < _DOUBTFUL:
        bits, most = 14, f"of at most {largest}"
    else:
        return 65535
    warnings.warn(
        f"{name} has 16-bit values {most}, and is read as a dark image: range=(0, {(1 << bits) - 1}) says that it "
        f"is {bits}-bit data, range=(0, 65535) that it is dark",
        stacklevel=5,
    )
    return 65535


def _warn_of_mask(values: Values, name: str) -> None:
    """Warn of integers that are all 0 or 1, which would be nearly black: probably a mask, or truncated floats."""
    some = values[:: len(values) // _ROWS + 1]  # of a photograph, the first will do
    if some.max() > 1 or spooled.ends(values)[1] != 1:
        return
    warnings.warn(
        f"{name} has integers of at most 1, which are read as 0 to 255, nearly black: pass a mask as bool, floats as "
        "floats, or say with fvlrp.images.load(image, range=(0, 1)) that 1 is white",
        stacklevel=6,
    )


def _on_white(values: Pixels) -> Pixels:
    """Composite the last channel, alpha, on white: (H, W, 2) → (H, W), (H, W, 4) → (H, W, 3), the dtype kept."""
    colour, alpha = values[:, :, :-1], values[:, :, -1:]
    out: Pixels
    if values.dtype == np.uint8:
        over, under = colour * alpha.astype(np.uint16), 255 * (255 - alpha.astype(np.uint16))
        out = ((over + under + 127) // 255).astype(np.uint8)
    else:
        out = colour * alpha + (1 - alpha)
    return out[:, :, 0] if out.shape[2] == 1 else out
