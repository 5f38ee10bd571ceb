"""`fvlrp explain`: heatmaps of photographs as pictures and numbers, a batch that can be resumed."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import figures
from ..core.explanation import Explanation
from ..data.files import atomic_write
from . import naming, options
from .output import Batch, UsageError, result, say, write_picture

FORMATS = ("png", "npz")
ASKED = ("model", "target", "depth", "format", "sheet", "exact", "rule", "cmap", "bar")  # what results depend on


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    parser.add_argument("--target", default="top", help='classes, comma-separated; "top" (default) or "all"')
    parser.add_argument("--depth", help='depths, comma-separated, or "all" (default: "bin", a network\'s "input")')
    parser.add_argument("--out", default="fvlrp-out", help="folder for the results (default: %(default)s)")
    parser.add_argument("--format", default="png", help="png, npz or png,npz (default: %(default)s)")
    parser.add_argument("--sheet", action="store_true", help="also a contact sheet of each photograph")
    options.add_cmap(parser)
    parser.add_argument("--bar", action="store_true", help="add a colour bar to the heatmaps")
    parser.add_argument("--exact", action="store_true", help="compute in float64")
    parser.add_argument("--rule", action="append", default=[], metavar="NAME=VALUE", help=options.RULES)
    parser.add_argument("--resume", action="store_true", help="skip photographs whose results are all there")


def run(args: Namespace) -> int:
    formats = list(dict.fromkeys(args.format.split(",")))
    if not set(formats) <= set(FORMATS):
        raise UsageError(f"--format must be png, npz or png,npz, got {args.format!r}")
    clf = options.load_model(args, args.model)
    targets = options.targets(clf.menu, args.target)
    depths = options.depths(clf.menu, args.depth, [clf.menu.default_depth])
    rules = options.rules(clf.menu, args.rule)
    out = options.output_folder(args.out)
    results, batch = [], Batch(args)
    for photo, stem in zip(args.photo, naming.stems(args.photo), strict=True):
        with batch.one(photo):
            record = out / f"{stem}.json"
            if args.resume and (done := _finished(record, photo, args)) is not None:
                results.append(done)
                continue
            trace = clf.trace(photo, "float64" if args.exact else "float32")
            explanations = trace.explain(options.with_top(trace, targets), depths, rules)
            made = _explained(explanations, photo, out / stem, formats, args)
            _write_json(record, made)  # last: its presence says that all the rest is there
            results.append(made)
            say(args, f"{photo}: " + ", ".join(f"{s['target']} {s['score']:+.3f}" for s in made["scores"]))
    code = batch.close()
    text = "\n".join(path for made in results for path in made["files"])
    result(args, {"results": results, "failed": batch.failed}, text)
    return code


def _explained(
    explanations: Sequence[Explanation], photo: str, base: Path, formats: Sequence[str], args: Namespace
) -> dict[str, Any]:
    """Write the pictures and numbers of one photograph; its record."""
    written = []
    names = naming.numbered(f"{base}_{naming.plain(ex.target)}_{naming.plain(ex.depth)}" for ex in explanations)
    for ex, name in zip(explanations, names, strict=True):
        for suffix in formats:
            path = Path(f"{name}.{suffix}")
            ex.save(path, **({"cmap": args.cmap, "bar": args.bar} if suffix == "png" else {}))
            written.append(str(path))
    if args.sheet:
        written.append(write_picture(Path(f"{base}_sheet.png"), figures.depth_sheet(explanations, cmap=args.cmap)))
    best = {ex.target: ex.score for ex in explanations}
    return {
        "photo": str(photo),
        "asked": _asked(args),
        "scores": [{"target": target, "score": score} for target, score in best.items()],
        "explanations": [ex.summary() for ex in explanations],
        "files": written,
    }


def _asked(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ASKED}


def _finished(record: Path, photo: str, args: Namespace) -> dict[str, Any] | None:
    """The record of an earlier run that asked the very same of this photograph and whose files are all there."""
    try:
        done: dict[str, Any] = json.loads(record.read_text())
        made = record.stat().st_mtime_ns
        changed = any(os.path.exists(name) and os.stat(name).st_mtime_ns > made for name in (photo, args.model))
        same = not changed and (done["photo"], done["asked"]) == (str(photo), _asked(args))
        return done if same and all(Path(path).exists() for path in done["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode())
