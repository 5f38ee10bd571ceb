"""Pixels of large images in temporary files, converted band by band.

Hides the files, and how the memory of mapped pages is returned. For the modules of data that read pixels.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..runtime import limits
from ..runtime.types import Element, Values

LARGE = 1 << 26  # values from which on an image is kept in a file: 67 megapixels of grey, 22 of colour
BAND = 1 << 22  # values that are converted at a time


def empty(shape: tuple[int, ...], dtype: type[Element] | np.dtype[Element]) -> npt.NDArray[Element]:
    """An array in a temporary file that is gone with the array; in memory if the temporary folder has too little space.

    The space is reserved at once: writing to a mapped file on a full disk would kill the process.

    Raises
    ------
    MemoryError
        Neither the folder nor the memory has room.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size < shutil.disk_usage(tempfile.gettempdir()).free:
        with tempfile.TemporaryFile(prefix="fvlrp-") as file:
            try:
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, dtype, "r+", shape=shape)
            except OSError:  # another program took the space, or a quota is exceeded
                pass
    limits.require(size, f"the image (the temporary folder {tempfile.gettempdir()} has no room for it)")
    return np.empty(shape, dtype)


def bands(values: Values) -> Iterator[slice[int]]:
    """Rows of an image, BAND values at a time; the pages of a mapped image are released after each band."""
    rows = max(1, BAND * len(values) // max(1, values.size))
    for start in range(0, len(values), rows):
        yield slice(start, min(start + rows, len(values)))
        release(values)


def converted(values: Values, convert: Callable[[Values], npt.NDArray[Element]]) -> npt.NDArray[Element]:
    """``convert(values)``, which treats every pixel alike: of a large image band by band, into a file."""
    if values.size <= LARGE:
        return convert(values)
    first = convert(values[:1])
    out = empty((len(values), *first.shape[1:]), first.dtype)
    for rows in bands(values):
        out[rows] = convert(values[rows])
        release(out)
    return out


def ends(values: Values) -> tuple[float, float]:
    """The lowest and the highest value, NaN if there is one."""
    if values.size <= LARGE:
        return values.min(), values.max()
    found = [(values[rows].min(), values[rows].max()) for rows in bands(values)]
    low, high = np.array(found).T
    return low.min(), high.max()


def release(values: Values) -> None:
    """Return the memory of a mapped array's pages, which are read again from the file when they are used."""
    owner: object = values
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    # A copy-on-write map ("c") would lose what was written to it.
    if isinstance(owner, np.memmap) and owner.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped: mmap.mmap = vars(owner)["_mmap"]
        mapped.madvise(mmap.MADV_DONTNEED)
