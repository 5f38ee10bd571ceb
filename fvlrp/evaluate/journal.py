"""The finished results of a long evaluation, in a file that survives a kill: one line of JSON per result.

For flipping and study. Results are only appended; a line that was cut off is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..runtime.types import Json, Parsed, Values

START = b'["'  # of a line


class Journal:
    """Results by key, read from `path` and appended to it; without a path, only in memory.

    Values must be serialisable as JSON; floats keep all their bits. Threads may share a journal.

    Parameters
    ----------
    path : path or None
        A new file, or the journal of an earlier run.

    Raises
    ------
    OSError
        The file cannot be read or written.
    ValueError
        The file is not a journal.

    Examples
    --------
    >>> journal = fvlrp.evaluate.Journal("results.jsonl")
    >>> journal.put("cat.jpg", 0.25)
    >>> fvlrp.evaluate.Journal("results.jsonl")["cat.jpg"]
    0.25
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._known: dict[str, Parsed] = {}
        self._prefix = ""
        if self._path is not None and self._path.exists():
            self._known.update(_read(self._path))

    def __contains__(self, key: str) -> bool:
        return self._prefix + key in self._known

    def __getitem__(self, key: str) -> Parsed:
        return self._known[self._prefix + key]

    def part(self, *words: str | int) -> Journal:
        """A section of the journal: its keys do not collide with those of sections with other words."""
        other = Journal()
        other._path, other._lock, other._known = self._path, self._lock, self._known
        other._prefix = key_of(self._prefix, *words)
        return other

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str, default: Json = None) -> Parsed:
        return self._known.get(self._prefix + key, default)

    def put(self, key: str, value: Json) -> None:
        """Store a result; it is in the file when this returns."""
        with self._lock:
            self._known[self._prefix + key] = value
            if self._path is not None:
                self._append(json.dumps([self._prefix + key, value]) + "\n")

    def _append(self, line: str) -> None:
        assert self._path is not None
        with open(self._path, "ab+") as file:
            # Start a new line: the last one may have been cut off.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())


def key_of(*parts: str | int | Values) -> str:
    """A unique key for a piece of work: the SHA-256 of its words, numbers and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(f"{part!r};".encode())
    return digest.hexdigest()


def identity(name: str) -> tuple[str | int, ...]:
    """A string that changes if a file is moved or modified: for `Journal.part`."""
    if not os.path.isfile(name):
        return (name,)
    state = os.stat(name)
    return os.path.abspath(name), state.st_size, state.st_mtime_ns


def _read(path: Path) -> Iterator[tuple[str, Parsed]]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry:
            yield entry
        elif number == 1 and not START.startswith(line[: len(START)]):
            raise ValueError(f"{path} is not a journal of an evaluation: its first line is not a key and its result")


def _entry(line: bytes) -> tuple[str, Parsed] | None:
    """The key and the result of a line; None for one that was cut off by a kill."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(values, list) and len(values) == 2 and isinstance(values[0], str)):
        return None
    return values[0], values[1]
