"""Finding photographs: by names, folders, patterns, lists or standard input.

Hides the search through folders. Decodes nothing. For data.datasets and the command line.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Formats that Pillow reads, some of them with a plugin (HEIF: pillow-heif), and DICOM. A file of one of these that
# cannot be decoded is a broken photograph, and told; a file of another is passed over, and counted.
# fmt: off
SUFFIXES = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dcm", ".dib", ".dicom", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k",
    ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".pbm", ".pfm", ".pgm", ".png", ".pnm",
    ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
})
# fmt: on


class File(NamedTuple):
    """A file that was asked for.

    Attributes
    ----------
    path : str
    below : str
        Folder in which it lies, relative to the folder that was named; "" for one named by itself.
    """

    path: str
    below: str = ""


@dataclass
class Found:
    """Photographs in their order, each file once, and what was passed over.

    Attributes
    ----------
    photographs : list of File
    passed_over : Counter
        Files that are no photographs, by suffix.
    repeated : int
        Names of files that were there already.
    """

    photographs: list[File] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def account(self) -> str:
        """What was left out, as a sentence without its end; empty where nothing was."""
        parts = []
        if self.passed_over:
            parts.append(f"passed over {told(self.passed_over)}")
        if self.repeated:
            parts.append(f"{self.repeated} photograph{'s' * (self.repeated > 1)} named more than once")
        return "; ".join(parts)


def told(passed_over: Counter[str]) -> str:
    """Counts by suffix in words: "3 files that are no photographs (.txt 2, .csv 1)"."""
    count = passed_over.total()
    ranked = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in ranked[:8])
    return f"{count} file{'s' * (count > 1)} that {'are no photographs' if count > 1 else 'is no photograph'} ({kinds})"


def is_photograph(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends as a photograph's does."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def below(folder: str | os.PathLike[str], passed_over: Counter[str]) -> list[Path]:
    """Photographs in a folder and all folders below it, in alphabetical order; other files are counted.

    Hidden files and folders are left out. Links to folders are followed, but into none that they lie in.
    """
    return sorted(_below(Path(folder), passed_over, frozenset()))


def _below(folder: Path, passed_over: Counter[str], above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _below(path, passed_over, above | {real})
        elif is_photograph(path):
            yield path
        else:
            passed_over[path.suffix.lower()] += 1


def find(names: Iterable[str]) -> Found:
    """Photographs that a user named.

    Parameters
    ----------
    names : iterable of str
        Files; folders, which stand for all photographs in and below them; patterns with ``*``, ``?``, ``[...]`` or
        ``**`` where no file has that very name; ``@list``, a text file with one name per line; ``-``, the same from
        standard input.

    Returns
    -------
    Found

    Raises
    ------
    OSError
        A list or folder cannot be read.
    ValueError
        A pattern matches nothing, a folder holds no photographs, or nothing at all was named.
    """
    found, seen = Found(), set()
    for name in _listed(names):
        for photograph in _expanded(name, found):
            key = os.path.abspath(photograph.path)
            if key in seen:
                found.repeated += 1
            else:
                seen.add(key)
                found.photographs.append(photograph)
    if not found.photographs:
        raise ValueError("no photographs were named")
    return found


def _listed(names: Iterable[str]) -> Iterator[str]:
    """Names with the lines of lists in the place of these."""
    for name in names:
        if name == "-":
            yield from _lines(sys.stdin.read())
        elif name.startswith("@") and not os.path.exists(name):
            yield from _lines(Path(name[1:]).read_text(encoding="utf-8-sig", errors="surrogateescape"))
        else:
            yield name


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.strip())


def _expanded(name: str, found: Found) -> Iterator[File]:
    if os.path.isdir(name):
        passed_over: Counter[str] = Counter()
        paths = below(name, passed_over)
        if not paths:
            hint = f": passed over {told(passed_over)}" if passed_over else ""
            raise ValueError(f"folder {name} holds no photographs{hint}")
        found.passed_over += passed_over
        yield from (File(str(path), _relative(path.parent, name)) for path in paths)
    elif glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
        photographs = [path for path in matches if is_photograph(path)]
        if not photographs:
            raise ValueError(f"no photograph matches {name}")
        found.passed_over.update(os.path.splitext(path)[1].lower() for path in matches if not is_photograph(path))
        yield from map(File, photographs)
    else:
        yield File(name)


def _relative(folder: Path, root: str) -> str:
    relative = os.path.relpath(folder, root)
    return "" if relative == os.curdir else relative
