"""The class Region: the part of an image that is explained at the requested depth, over an overview of the rest.

For traces and menus. Hides how four numbers are checked, and which pixels of a reduced image belong to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..runtime.arguments import is_whole

OVERVIEW = ("vector", "descriptor")  # depths that a region does not change: those of the overview, and coarser ones
SPELLING = "region must be (y0, x0, y1, x1) in pixels of the image, y0 < y1 and x0 < x1"


class Region(NamedTuple):
    """A rectangle of pixels, rows y0 .. y1 - 1 and columns x0 .. x1 - 1."""

    y0: int
    x0: int
    y1: int
    x1: int

    @classmethod
    def of(cls, value: object) -> Region | None:
        """A region from four whole numbers; None stays None.

        Raises
        ------
        ValueError
            No four whole numbers, a negative one, or no pixels between them.
        """
        if value is None:
            return None
        numbers = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else ()
        if len(numbers) != 4 or not all(map(is_whole, numbers)):
            raise ValueError(f"{SPELLING}: four whole numbers, got {value!r}")
        region = cls(*map(int, numbers))
        if min(region.y0, region.x0) < 0:
            raise ValueError(f"{SPELLING}, counted from 0, got {tuple(region)}")
        if region.y0 >= region.y1 or region.x0 >= region.x1:
            raise ValueError(f"{SPELLING}, got {tuple(region)}, which holds no pixel")
        return region

    def check_inside(self, height: int, width: int) -> None:
        """Raise ValueError unless all of it lies in an image of this size."""
        if self.y1 > height or self.x1 > width:
            raise ValueError(
                f"region {tuple(self)} reaches beyond the image of {height} x {width} pixels (rows x columns): "
                "y comes before x"
            )

    def resized(self, shape: tuple[int, int], other: tuple[int, int]) -> Region:
        """The pixels of the same image in another size that overlap with the region."""
        (height, width), (rows, cols) = shape, other
        return Region(
            self.y0 * rows // height,
            self.x0 * cols // width,
            -(-self.y1 * rows // height),
            -(-self.x1 * cols // width),
        )
