"""Names of result files, from those of photographs, classes and depths; safe for every file system.

For the commands of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from ..core.target import Contrast

# Bytes of the parts of a name, which together stay below the 255 that file systems allow.
STEM, TARGET, DEPTH = 120, 70, 40


def plain(name: object, most: int = STEM, extra: str = "-._") -> str:
    """A name that is safe for file systems and shells: letters, digits and `extra`; others become "_" or "-".

    It does not begin with a dot and has at most `most` bytes; a longer name is cut and ends in a digest.
    """
    instead = "_" if "_" in extra else "-"
    kept = "".join(c if c.isalnum() or c in extra else instead for c in str(name))
    kept = kept if kept[:1] not in ("", ".") else f"_{kept[1:]}"
    if len(kept.encode()) <= most:
        return kept
    return f"{kept.encode()[: most - 9].decode(errors='ignore')}-{digest(str(name))[:8]}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def stem(path: str) -> str:
    """The beginning of the names of a photograph's results."""
    return plain(Path(path).stem)


def candidates(path: str, source: str) -> Iterator[str]:
    """Stems for the results of one photograph; the first that no other photograph has is used.

    `source` distinguishes it from others of its name: the second candidate does not depend on other photographs.
    """
    name = stem(path)
    yield name
    for length in (8, 16, 64):
        yield f"{name}-{digest(source)[:length]}"


def result(target: object, depth: object) -> str:
    """The part of a result's name that gives class and depth, joined by "_", which occurs nowhere else in it.

    The contrast of 5 and 7 is "5-minus-7": a class may be called "5-7".
    """
    if isinstance(target, Contrast):
        target = f"{target.target}-minus-{target.against}"
    return f"{plain(target, TARGET, '-.')}_{plain(depth, DEPTH, '-.')}"


def stems(paths: Sequence[str]) -> list[str]:
    """A stem for each photograph; repeated ones are numbered."""
    return numbered(stem(path) for path in paths)


def numbered(names: Iterable[str]) -> list[str]:
    """Names made unique: repetitions get a number."""
    unique: dict[str, None] = {}
    for name in names:
        others = (f"{name}-{number}" for number in count(2))
        unique[name if name not in unique else next(other for other in others if other not in unique)] = None
    return list(unique)
