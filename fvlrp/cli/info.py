"""`fvlrp info`: what a model holds, and how this fvlrp was built."""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from .. import __version__, _kernels, models
from .output import OK, result


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="model file, or the name of a model inside the package")


def run(args: Namespace) -> int:
    value: dict[str, Any] = {
        "fvlrp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instruction sets": {"in use": _kernels.isa(), "available": _kernels.isas()},
        "models": models.names(),
    }
    if args.model:
        value["model"] = {"name": args.model, **models.load(args.model).describe()}
    flat = {**value, **value["model"]} if args.model else value
    flat = {name: item for name, item in flat.items() if name != "model"}
    result(args, value, "\n".join(f"{name}: {_readable(item)}" for name, item in flat.items()))
    return OK


def _readable(item: Any, inner: bool = False) -> str:
    """What `info` knows of one thing, for the eye: long lists by their ends, tables a line each."""
    if isinstance(item, dict):
        return ", ".join(f"{name} {_readable(value, True)}" for name, value in item.items())
    if not isinstance(item, list | tuple):
        return "none" if item is None else str(item)
    if item and isinstance(item[0], dict):
        return "".join(f"\n  {'  '.join(_readable(value, True) for value in row.values())}" for row in item)
    if len(item) > 24:
        item = [f"{len(item)} of them: {item[0]}", *item[1:3], "...", item[-1]]
    listed = ", ".join(_readable(value, True) for value in item)
    return f"({listed})" if inner else listed
