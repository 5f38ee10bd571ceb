"""Images of any number of channels, such as satellites' bands: arrays as they are, and a picture of them.

For `fvlrp.network`. Photographs are read by `fvlrp.data.images`, which knows colours; a band is a number, not a colour.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from ..runtime.types import Pixels
from .images import ImageLike

SHOWN = 2, 98  # percentiles of a band that become black and white in a picture


def load(image: ImageLike, count: int) -> Pixels:
    """The bands of an image (H, W, count): uint8 as they are, anything else as float32 of the same values.

    Parameters
    ----------
    image : array (H, W, count), or the path of a .npy file that holds one
    count : int

    Raises
    ------
    OSError
        The file does not exist.
    ValueError
        Another shape, or values that are masked or not finite.
    TypeError
        No array of real numbers.
    """
    if isinstance(image, str | os.PathLike) and os.fspath(image).endswith(".npy"):
        image = np.load(image, allow_pickle=False)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"a network of {count} channels reads arrays (height, width, {count}) or .npy files of them, got {image!r}"
        )
    if masked := np.count_nonzero(getattr(image, "mask", False)):
        raise ValueError(f"the image has {masked} masked values, which are not numbers: pass image.filled(value)")
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != count or not image.size:
        raise ValueError(f"the image has shape {image.shape}; expected (height, width, {count})")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "buif":
        raise TypeError(f"the image must hold real numbers, it holds {image.dtype}")
    with np.errstate(over="ignore"):  # infinite values are refused below
        values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("the image holds values that are not finite")
    return values


def shown(bands: Pixels) -> npt.NDArray[np.uint8]:
    """The first three bands (the first, of two) as a picture uint8 (H, W, 3), each in its own range."""
    some = bands[..., :3] if bands.shape[2] > 2 else bands[..., :1]
    low, high = np.percentile(some, SHOWN, axis=(0, 1))
    stretched = np.clip((some - low) / np.where(high > low, high - low, 1), 0, 1)
    picture = np.rint(stretched * 255).astype(np.uint8)
    return picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2)
