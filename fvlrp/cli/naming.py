"""Names of result files: what a photograph, a class or a depth is called on disk.

For the commands of this folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path


def plain(name: object) -> str:
    """A name without characters that a file system or shell minds."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in str(name))


def stems(photos: Sequence[str]) -> list[str]:
    """A name for the results of each photograph; those of one name in several folders are numbered."""
    return numbered(plain(Path(photo).stem) for photo in photos)


def numbered(names: Iterable[str]) -> list[str]:
    """Names with a number behind those that came before."""
    unique: dict[str, None] = {}
    for name in names:
        others = (f"{name}-{number}" for number in count(2))
        unique[name if name not in unique else next(other for other in others if other not in unique)] = None
    return list(unique)
