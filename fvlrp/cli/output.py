"""Output of commands: exit codes, results, progress.

For the commands of this package.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..runtime.types import Json, Parsed

OK, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class UsageError(ValueError):
    """Invalid options."""


class OutputError(OSError):
    """Standard output cannot be written."""


# The results of one photograph or model, as JSON holds them.
Record: TypeAlias = "dict[str, Parsed]"


def one_line(error: Exception) -> str:
    """An error in one line. Errors that fvlrp does not raise on purpose are shown with their type."""
    if isinstance(error, MemoryError):
        return f"out of memory{f': {error}' if str(error) else ''}"
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return str(error)
    return f"internal error: {type(error).__name__}: {error} (fvlrp --traceback shows where)"


def say(args: Namespace, text: str) -> None:
    """Progress: a line on stderr, unless --quiet."""
    if not args.quiet:
        print(text, file=sys.stderr)


def put(*lines: str, end: str = "\n") -> None:
    """Print lines on stdout at once: an error of writing is raised here, not when Python ends.

    Raises
    ------
    OutputError
        For example, a full disk.
    BrokenPipeError
        The reader has closed the pipe.
    """
    try:
        print(*lines, sep="\n", end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def result(args: Namespace, value: Mapping[str, Json], text: str) -> None:
    """Print the result of a command on stdout: `value` with --json, otherwise `text`, if any."""
    if args.json or text:
        put(json.dumps(value, indent=1) if args.json else text)


def tell_failure(photo: object, error: str) -> None:
    """Print a photograph's failure on stderr, with its name once."""
    print(f"fvlrp: {photo}: {error.replace(f' {photo}', '', 1)}", file=sys.stderr)


class Listing:
    """Prints the results of a batch on stdout as they come: JSON with --json, otherwise the names of their files.

    Close it after the last.
    """

    def __init__(self, args: Namespace) -> None:
        self._json, self._written = args.json, 0

    def put(self, record: Record) -> None:
        if self._json:
            put("," if self._written else '{\n"results": [', json.dumps(record, indent=1), end="")
        else:
            put(*record["files"])
        self._written += 1

    def close(self, failed: list[dict[str, str]]) -> None:
        if self._json:
            put("\n]," if self._written else '{\n"results": [],', f'"failed": {json.dumps(failed, indent=1)}\n}}')


def write_picture(path: Path, picture: Image, level: int | None = None) -> str:
    """Write a picture as PNG with a compression level; returns the path."""
    from ..show import render

    render.write_png(path, picture, level=render.LEVEL if level is None else level)
    return str(path)
