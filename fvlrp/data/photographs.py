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
# cannot be decoded is reported as broken; other files are skipped and counted.
# fmt: off
SUFFIXES = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dcm", ".dib", ".dicom", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k",
    ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jps", ".jpx", ".jxl", ".mpo", ".pbm", ".pfm", ".pgm",
    ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
})
# fmt: on


class File(NamedTuple):
    """A file to process.

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
    """Photographs in their order, each file once, and what was skipped.

    Attributes
    ----------
    photographs : list of File
    skipped : Counter
        Files that are not photographs, by suffix.
    repeated : int
        How many names repeat a file.
    """

    photographs: list[File] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def account(self) -> str:
        """What was left out, as a phrase; empty if nothing was."""
        parts = []
        if self.skipped:
            parts.append(f"skipped {counted(self.skipped)}")
        if self.repeated:
            parts.append(f"{self.repeated} photograph{'s' * (self.repeated > 1)} named more than once")
        return "; ".join(parts)


def counted(skipped: Counter[str]) -> str:
    """Counts by suffix in words: "3 files that are not photographs (.txt 2, .csv 1)"."""
    count = skipped.total()
    ranked = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in ranked[:8])
    what = "files that are not photographs" if count > 1 else "file that is not a photograph"
    return f"{count} {what} ({kinds})"


def is_photograph(path: str | os.PathLike[str]) -> bool:
    """Whether a file's suffix is a photograph's."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def below(folder: str | os.PathLike[str], skipped: Counter[str]) -> list[Path]:
    """Photographs in a folder and all folders below it, in alphabetical order; other files are counted.

    Hidden files and folders are left out. Links to folders are followed, except to a folder above.
    """
    return sorted(_below(Path(folder), skipped, frozenset()))


def _below(folder: Path, skipped: Counter[str], above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _below(path, skipped, above | {real})
        elif is_photograph(path):
            yield path
        else:
            skipped[path.suffix.lower()] += 1


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
        A pattern matches nothing, a folder contains no photographs, or nothing at all was named.
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
    """Names, with lists replaced by their lines."""
    for name in names:
        if name == "-":
            if sys.stdin is None:
                raise OSError("no photographs can be read from -: standard input is closed")
            yield from _lines(getattr(sys.stdin, "buffer", sys.stdin).read(), "standard input")
        elif name.startswith("@") and not os.path.exists(name):
            try:
                text = Path(name[1:]).read_bytes()
            except OSError as error:
                raise type(error)(f"cannot read the list {name[1:]}: {error.strerror}") from error
            yield from _lines(text, f"list {name[1:]}")
        elif not name:
            raise ValueError('a photograph is named "": expected a file, a folder, a pattern, @LIST or -')
        else:
            yield name


def _lines(data: bytes | str, where: str) -> Iterator[str]:
    """Names of files, one a line, in UTF-8 or whatever bytes the system has them in."""
    text = data if isinstance(data, str) else data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ValueError(f"{where} is not text: expected the name of a photograph on every line")
    # Not splitlines(), which also cuts at characters that names of files may hold, such as U+2028.
    return (line for line in text.replace("\r\n", "\n").split("\n") if line.strip())


def _expanded(name: str, found: Found) -> Iterator[File]:
    if os.path.isdir(name):
        skipped: Counter[str] = Counter()
        paths = below(name, skipped)
        if not paths:
            hint = f": skipped {counted(skipped)}" if skipped else ""
            raise ValueError(f"folder {name} contains no photographs{hint}")
        found.skipped += skipped
        yield from (File(str(path), _relative(path.parent, name)) for path in paths)
    elif glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
        photographs = [path for path in matches if is_photograph(path)]
        if not photographs:
            raise ValueError(f"no photograph matches {name}")
        found.skipped.update(os.path.splitext(path)[1].lower() for path in matches if not is_photograph(path))
        yield from map(File, photographs)
    else:
        yield File(name)


def _relative(folder: Path, root: str) -> str:
    relative = os.path.relpath(folder, root)
    return "" if relative == os.curdir else relative
