"""The command line: `main` runs one command and turns its outcome into an exit code and at most one line on stderr.

Results go to stdout (JSON with --json), progress and errors to stderr. A command is a module of this package with
`add_options(parser)` and `run(args)`, and one line in `COMMANDS`: `fvlrp flip` is `flip.run`. Only the chosen command
is imported, so commands may import what they need at the top and `fvlrp --help` stays fast. No other wing imports this.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from .output import FAILED, INTERRUPTED, TERMINATED, USAGE, OutputError, UsageError, one_line, put

if TYPE_CHECKING:
    from io import TextIOWrapper

    from _typeshed import SupportsWrite

COMMANDS = {
    "demo": "explain real photographs at every depth with the built-in model",
    "train": "train a classifier on a VOC devkit or a folder per class",
    "retrain": "retrain a network's last layer for other classes",
    "explain": "explain photographs: heatmaps as PNG and numbers as .npz",
    "compare": "one sheet of several models' heatmaps, as the paper's Figure 1",
    "evaluate": "average precision per class, 11-point and area",
    "flip": "destroy photographs in a heatmap's order: how fast does the score fall",
    "study": "models x rules x depths over photographs: which heatmaps tell the truth",
    "words": "which visual words a class is recognised by: the patches that matter most to each",
    "report": "one HTML file of photographs, heatmaps and ledgers, for offline use",
    "info": "what a model holds, and how this fvlrp was built",
    "bench": "time every stage here, on each instruction set, and against NumPy",
}


class Command(Protocol):
    """The functions of a command's module."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own options; the common ones are already declared."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; returns the exit code."""


class Terminated(BaseException):
    """Raised in the main thread when the process receives a signal to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted, 143 terminated.

    Without `argv` the process is the command's own: signals end it at once, whatever its threads are doing.
    """
    if argv is not None:
        return _run(argv)
    # Closed streams are None: progress would go to stdout instead of stderr, and stdout could not be flushed.
    sys.stdout, sys.stderr = (stream or _nowhere() for stream in (sys.stdout, sys.stderr))
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")  # file names need not fit its encoding
    signal.signal(signal.SIGTERM, _terminate)
    code = _run(sys.argv[1:])
    if code in (INTERRUPTED, TERMINATED):
        # The interpreter would wait for threads that are still explaining photographs.
        sys.stderr.flush()
        if files := sys.modules.get("fvlrp.data.files"):
            files.beginning.acquire(timeout=1)  # no thread begins another file
            files.discard_unfinished()
        os._exit(code)
    return code


def _terminate(*_: object) -> None:
    raise Terminated


def _run(argv: Sequence[str]) -> int:
    trace = "--traceback" in argv
    try:
        parser = build_parser(argv)
        args = parser.parse_args(argv)
        if not hasattr(args, "run"):
            parser.print_help()
            return USAGE
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"fvlrp: {message}", file=sys.stderr)
            code: int = args.run(args)
            return code
    except KeyboardInterrupt:
        print("\nfvlrp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        print("\nfvlrp: terminated", file=sys.stderr)
        return TERMINATED
    except (BrokenPipeError, OutputError) as error:
        # What is left goes nowhere, or Python would complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, OutputError):
            print(f"fvlrp: {error}", file=sys.stderr)
        return FAILED
    except Exception as error:
        if trace:
            traceback.print_exc()
        print(f"fvlrp: {one_line(error)}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILED


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands. Only the command that `argv` names has its options: the others stay unloaded."""
    parser = _Parser(prog="fvlrp", description="Explain image classifiers by heatmaps at the resolution you choose.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            from . import options

            module = cast("Command", import_module(f".{name}", __name__))
            options.add_common(command)
            module.add_options(command)
            command.set_defaults(run=module.run)
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints help as commands print results: argparse itself ignores errors of writing."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        put(self.format_help(), end="")


class _Version(argparse.Action):
    """Looks up the version on demand: reading a distribution's metadata takes as long as everything else."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .. import __version__

        put(f"fvlrp {__version__}")
        parser.exit()


def _nowhere() -> TextIO:
    """A stream that discards its text."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
