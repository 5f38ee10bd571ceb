"""The part of a photograph that a model saw, and at what resolution: the true resolution of a heatmap.

For the traces of both stacks, which know it, and for what shows heatmaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..runtime.types import Parsed


class Seen(NamedTuple):
    """A part of a photograph, and the pixels to which it was resized before the model saw it.

    Attributes
    ----------
    top, left, bottom, right : int
        Rows top .. bottom - 1 and columns left .. right - 1 of the photograph.
    height, width : int
        Pixels of the part, as the model saw it.

    Examples
    --------
    >>> from skimage import data
    >>> fvlrp.load("voc20").explain(data.astronaut(), "person").seen
    Seen(top=0, left=0, bottom=512, right=512, height=480, width=480)
    """

    top: int
    left: int
    bottom: int
    right: int
    height: int
    width: int

    @classmethod
    def whole(cls, shape: Sequence[int], pixels: Sequence[int]) -> Seen:
        """All of a photograph of `shape` (H, W, ...), seen in `pixels` (height, width)."""
        return cls(0, 0, shape[0], shape[1], pixels[0], pixels[1])

    @property
    def box(self) -> tuple[int, int, int, int]:
        """top, left, bottom, right."""
        return self[:4]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part in pixels of the photograph."""
        return self.bottom - self.top, self.right - self.left

    def spacing(self, stride: tuple[int, int]) -> tuple[float, float]:
        """A distance in pixels as the model saw them, in those of the photograph: along y and x."""
        down, across = self.size
        return stride[0] * down / self.height, stride[1] * across / self.width

    def is_all(self, shape: Sequence[int]) -> bool:
        """Whether the part is all of a photograph of `shape` (H, W, ...)."""
        return self.size == (shape[0], shape[1])

    def to_dict(self) -> dict[str, list[int]]:
        """Plain values for JSON: {"box": [top, left, bottom, right], "pixels": [height, width]}."""
        return {"box": list(self.box), "pixels": [self.height, self.width]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Parsed]) -> Seen:
        """What `to_dict` returned. Raises KeyError, TypeError or ValueError for anything else."""
        top, left, bottom, right = map(int, values["box"])
        height, width = map(int, values["pixels"])
        return cls(top, left, bottom, right, height, width)
