"""A folder of results that several runs and processes can share: names of results, and which are finished.

Next to its results each photograph has a record, ``<stem>.json``, written last: the options and the files, or the
error. The records are the journal of a run. While a photograph is in progress, a locked temporary file reserves its
stem against other photographs and processes. Hides locks and records. For `explain`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..data import files
from ..data.photographs import File
from ..show import render
from . import naming
from .output import Record


class Claim:
    """One photograph's place in the folder, held by this process until `finish`, `fail` or `release`."""

    def __init__(self, photo: str, folder: Path, stem: str, held: files.Held, options: Record) -> None:
        self._photo, self._folder, self._stem, self._held, self._options = photo, folder, stem, held, options
        self._earlier: set[str] = set()
        self._replaced: list[str] = []
        self._of = _stamp(photo)  # before it is read: one that is replaced meanwhile has another stamp next time

    def path(self, name: str) -> Path:
        """Where the result called `name` goes."""
        return self._folder / f"{self._stem}_{name}"

    def begin(self, earlier: Record, replaced: list[str]) -> None:
        """Mark the results of an earlier run as incomplete; `replaced` will list them if they had other options."""
        if earlier.get("options") != self._options:
            self._earlier, self._replaced = set(earlier.get("files", ())), replaced
        with files.atomic_write(self._record) as file:
            file.write(_json({**self._whose, "error": "not finished"}))

    def finish(self, made: Record) -> Record:
        """Write the record of a finished photograph: `made`, with the result files under "files".

        Returns the record as `Outbox.finished` would.
        """
        kept = [os.path.relpath(name, self._folder) for name in made["files"]]
        record = {**self._whose, "of": self._of, "options": self._options, **made, "files": kept}
        self._held.become(self._record, _json(record))
        self._replaced.extend(sorted(self._earlier.intersection(kept)))
        return {"photo": self._photo, "options": self._options, **made}

    def fail(self, error: str) -> None:
        """Write why there are no results; the photograph keeps its stem."""
        self._held.become(self._record, _json({**self._whose, "error": error}))

    def release(self) -> None:
        """Give up the place without a record."""
        self._held.discard()

    @property
    def _record(self) -> Path:
        return self._folder / f"{self._stem}.json"

    @property
    def _whose(self) -> dict[str, str]:
        return {"photo": self._photo, "source": os.path.abspath(self._photo)}


class Outbox:
    """The folder that results go to.

    Parameters
    ----------
    folder : Path
    options : dict
        Options of the command that results depend on; a photograph is finished if its record has the same.
    models : sequence of str
        Model files, on which results depend as well.
    """

    def __init__(self, folder: Path, options: Record, models: Sequence[str] = ()) -> None:
        self._folder, self._made = folder, set[Path]()
        stamps = [_stamp(model) for model in models]
        self.options: Record = json.loads(json.dumps({**options, "model files": stamps}))
        self.removed = 0  # temporary files of killed runs
        self.done: set[str] = set()  # photographs whose results `finished` found
        self.replaced: list[str] = []  # results of other options whose names are those of this run's

    def wrote(self, path: str, anywhere: bool = True) -> bool:
        """Whether a photograph is a picture that fvlrp wrote, into this folder or one below it, or anywhere."""
        inside = anywhere or os.path.abspath(path).startswith(os.path.join(os.path.abspath(self._folder), ""))
        return inside and path.lower().endswith(".png") and render.is_own(path)

    def finished(self, file: File) -> Record | None:
        """The record of an earlier run with the same options, if all its files exist."""
        folder, source = self._place(file), os.path.abspath(file.path)
        for stem in naming.candidates(file.path, source):
            record = _read(folder / f"{stem}.json")
            if record.get("source") == source:
                return self._whole(record, file, folder)
        return None

    def claim(self, file: File) -> Claim:
        """A place for a photograph's results, reserved against other photographs and processes.

        Raises
        ------
        BlockingIOError
            Another process is explaining the same photograph into this folder.
        OSError
            The folder cannot be written to.
        """
        folder, source = self._place(file), os.path.abspath(file.path)
        for stem in naming.candidates(file.path, source):
            held = files.hold(folder / f".{naming.digest(stem)[:16]}.tmp", source.encode(errors="surrogateescape"))
            if isinstance(held, bytes):
                if held.decode(errors="surrogateescape") == source:
                    raise BlockingIOError(f"another fvlrp process is explaining it into {folder}: choose another --out")
                continue
            claim = Claim(file.path, folder, stem, held, self.options)
            record = _read(folder / f"{stem}.json")
            if not record:
                return claim
            if record.get("source", source) == source:
                claim.begin(record, self.replaced)
                return claim
            claim.release()
        raise FileExistsError(f"{folder} has results of other photographs under every name that {file.path} could take")

    def _place(self, file: File) -> Path:
        """The folder of a photograph's results, which mirrors subfolders of the source."""
        folder = self._folder / file.below
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self.removed += files.remove_abandoned(folder)
            self._made.add(folder)
        return folder

    def _whole(self, record: Record, file: File, folder: Path) -> Record | None:
        if record.get("options") != self.options or record.get("of") != _stamp(file.path):
            return None
        paths = [folder / name for name in record.get("files", ())]
        if not paths or not all(path.is_file() for path in paths):
            return None
        self.done.add(file.path)
        own = {name: value for name, value in record.items() if name not in ("of", "source")}
        return {**own, "photo": file.path, "files": [str(path) for path in paths]}


def _stamp(path: str) -> list[int]:
    """Size and modification time, by which a changed file is recognised."""
    with suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return []


def _json(value: Record) -> bytes:
    return json.dumps(value, indent=1).encode()


def _read(path: Path) -> Record:
    """A record; empty if it is missing or unreadable."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
