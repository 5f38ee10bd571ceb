"""What commands say and where: exit codes, results, progress, and the photographs of a batch that failed.

For the commands of this folder.
"""

from __future__ import annotations

import json
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(ValueError):
    """Options that no photograph could be explained with."""


def one_line(error: Exception) -> str:
    """What went wrong, in one line. Kinds of error that fvlrp does not raise on purpose come with their name."""
    if isinstance(error, MemoryError):
        return f"out of memory{f': {error}' if str(error) else ''}"
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return str(error)
    return f"internal error: {type(error).__name__}: {error} (fvlrp --traceback shows where)"


def say(args: Namespace, text: str) -> None:
    """Progress: a line on stderr, unless --quiet."""
    if not args.quiet:
        print(text, file=sys.stderr)


def result(args: Namespace, value: dict[str, Any], text: str) -> None:
    """What the command found: `value` on stdout with --json, else `text`, where there is any."""
    if args.json or text:
        print(json.dumps(value, indent=1) if args.json else text)


def write_picture(path: Path, picture: Image) -> str:
    """Write a picture as PNG; the name of its file."""
    from ..show import render

    render.write_png(path, picture)
    return str(path)


class Batch:
    """What became of the photographs of a command: a broken one does not stop it, and is listed at the end.

    Attributes
    ----------
    failed : list of {"photo": ..., "error": ...}
    """

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.failed: list[dict[str, str]] = []

    @contextmanager
    def one(self, photo: object) -> Iterator[None]:
        """Work on one photograph; what it raises is kept."""
        try:
            yield
        except Exception as error:
            self.fail(photo, error)

    def fail(self, photo: object, error: Exception) -> None:
        """Keep why a photograph failed."""
        if self.args.traceback:
            traceback.print_exception(error)
        self.failed.append({"photo": str(photo), "error": one_line(error)})
        say(self.args, f"{photo}: failed")

    def close(self) -> int:
        """List the broken ones on stderr; the exit code."""
        for failure in self.failed:
            photo, error = failure["photo"], failure["error"]
            print(f"fvlrp: {photo}: {error.replace(f' {photo}', '', 1)}", file=sys.stderr)  # named once
        return FAILED if self.failed else OK
