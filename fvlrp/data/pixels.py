"""What the values of pixels stand for: any type and range as uint8, or as float32 between black and white.

Hides the ranges of pixel types and the colour modes of pictures. For `data.images` alone.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..runtime.types import Pixels, Values
from .decoding import named_errors

_ROUNDING = 1e-6  # how far a float may leave [0, 1] and still be read as rounding of an earlier computation
_SAMPLE_MAXIMUM = 281  # TIFF: the largest value that the samples can take
_NARROW = (8, 10, 12)  # bits that data in a 16-bit file may have; fewer than 1/16 of the range would be used otherwise


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
        values = values.astype(np.uint16)
    return from_array(values, name, range)


def from_array(values: Values, name: str, range: tuple[float, float] | None) -> Pixels:
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


def _stretched(values: Values, name: str, range: tuple[float, float]) -> npt.NDArray[np.float32]:
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


def _in_range(values: Values, name: str) -> Pixels:
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


def _white(values: Values, name: str) -> int:
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
