"""Pictures and heatmaps as text for the browser: JPEG and deflated bytes in base64.

Only for `page`; page.js decodes what `heatmap` encodes.
"""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...data.images import resample_conserving
from ...runtime.types import Json
from ..colours import Scale, checked, magnitude
from ..smoothing import Smoothing

STEPS = 127  # levels on either side of 0, those of the colour maps: the browser shows exactly the colours of a PNG
TAIL = 255  # steps, in equal ratios, from the value that ends the colour map to the largest
QUALITIES = (85, 70, 50)
PHOTO_BYTES = 190_000  # above which a photograph takes the next lower quality


def heatmap(plane: npt.ArrayLike, scale: Scale, side: int, smoothing: Smoothing | None = None) -> dict[str, Json]:
    """A heatmap in a byte per pixel, as page.js reads it.

    Values are rounded to q = -127 .. 127 steps of the |r| that ends the colour map. Where q is ±127, one more byte t
    tells how large |r| is, scale (largest / scale)^(t / 255). Differences of q to its neighbours on the left and above,
    and then the t, are deflated.

    Parameters
    ----------
    plane : array (H, W)
        Reduced to at most `side` pixels on its longer side, with the same sum.
    scale
        As `colours.magnitude` takes it.
    side : int
    smoothing : Smoothing, optional
        Applied after the map is reduced.

    Returns
    -------
    dict, ready for JSON
        height, width, scale, largest, and data in base64.
    """
    values = _reduced(checked(plane), side)
    if smoothing is not None:
        values = smoothing.resized(np.shape(plane), values.shape)(values)
    end, largest = magnitude(values, scale), float(np.abs(values).max())
    steps = np.rint(np.clip(values / end, -1, 1) * STEPS).astype(np.int16) if end else np.zeros(values.shape, np.int16)
    beyond = np.abs(values[np.abs(steps) == STEPS])
    ratio = np.log(largest / end) if end and largest > end else 1.0
    tail = np.rint(np.clip(np.log(beyond / end) / ratio, 0, 1) * TAIL) if end else beyond
    packed = zlib.compress(_differences(steps).tobytes() + tail.astype(np.uint8).tobytes(), 9)
    height, width = values.shape
    return {
        "height": height,
        "width": width,
        "scale": end,
        "largest": max(largest, end),
        "data": base64.b64encode(packed).decode(),
    }


def photograph(image: npt.NDArray[np.uint8], side: int) -> str:
    """A photograph uint8 (H, W, 3) as a data URL, reduced to at most `side` pixels on its longer side."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)  # keeps a smaller one as it is
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= PHOTO_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _reduced(values: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    height, width = values.shape
    factor = side / max(height, width)
    if factor >= 1:
        return values
    return resample_conserving(values, (max(1, round(height * factor)), max(1, round(width * factor))))


def _differences(steps: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
    """q(y, x) - q(y, x - 1) - q(y - 1, x) + q(y - 1, x - 1), modulo 256: small where a map is smooth."""
    padded = np.pad(steps, ((1, 0), (1, 0)))
    return np.diff(np.diff(padded, axis=0), axis=1).astype(np.int8)
