"""What a data set is: paths, labels and perhaps boxes, however they lie on disk. For `datasets`, `layouts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ..runtime.types import Classes


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Paths and labels of one split.

    Attributes
    ----------
    paths : tuple of Path, length n
        The photographs.
    labels : ndarray, read-only
        VOC: int8 (n, n_classes) of 1 (present), 0 (only difficult objects: ignored) and -1 (absent).
        A folder per class: the class names, str (n,).
    class_names : tuple of str
        In alphabetical order; the columns of `matrix`.
    """

    paths: tuple[Path, ...]
    labels: Classes | npt.NDArray[np.int8]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} photographs, {len(self.class_names)} classes>"

    def without(self, left_out: Iterable[int]) -> Self:
        """The same data without the photographs at some positions."""
        gone = set(left_out)
        kept = [i for i in range(len(self)) if i not in gone]
        labels = self.labels[kept]
        labels.setflags(write=False)
        # A folder per class has the classes that have photographs; the columns of a matrix stay.
        names = self.class_names if labels.ndim == 2 else tuple(n for n in self.class_names if n in labels)
        return replace(self, paths=tuple(self.paths[i] for i in kept), labels=labels, class_names=names)

    @property
    def matrix(self) -> npt.NDArray[np.int8]:
        """Labels as int8 (n, n_classes) of 1, 0 (ignored) and -1, whatever the layout on disk."""
        if self.labels.ndim == 2:
            return self.labels.astype(np.int8, copy=False)
        return np.where(self.labels[:, None] == np.array(self.class_names), 1, -1).astype(np.int8)


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of an annotation; `box` is (ymin, xmin, ymax, xmax) in pixels, 0-based and half-open."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool


@dataclass(frozen=True, eq=False, repr=False)
class Boxed(Dataset, ABC):
    """Photographs whose objects have boxes."""

    @abstractmethod
    def objects(self, i: int) -> tuple[AnnotatedObject, ...]:
        """What the annotation of photograph `i` lists."""

    def boxes(self, i: int, name: str, difficult: bool = True) -> npt.NDArray[np.int64]:
        """Boxes of class `name` in photograph `i`: int64 (m, 4) of ymin, xmin, ymax, xmax, 0-based and half-open.

        `difficult=False` leaves out objects marked so. Raises ValueError for a class the data does not have, and as
        `objects` does.
        """
        if name not in self.class_names:
            raise ValueError(f"there is no class {name!r}; the data has {', '.join(self.class_names)}")
        found = [thing.box for thing in self.objects(i) if thing.name == name and (difficult or not thing.difficult)]
        return np.array(found, np.int64).reshape(-1, 4)
