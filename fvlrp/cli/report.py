"""`fvlrp report`: photographs, heatmaps and ledgers in one HTML file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..core import report
from ..data.files import atomic_write
from . import options
from .output import Batch, result


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    parser.add_argument("--target", default="top", help='classes, comma-separated; "top" (default) of each photograph')
    options.add_depths(parser)
    parser.add_argument("--out", default="fvlrp-report.html", help="file to write (default: %(default)s)")
    options.add_cmap(parser)


def run(args: Namespace) -> int:
    out = options.output_file(args.out)
    report.environment()  # before any work: it may be missing
    clf = options.load_model(args, args.model)
    targets = options.targets(clf.menu, args.target)
    depths = options.depths(clf.menu, args.depth, clf.menu.report_depths)
    groups, batch = [], Batch(args)
    for photo in args.photo:
        with batch.one(photo):
            trace = clf.trace(photo)
            groups += [(Path(photo).name, trace.explain(target, depths)) for target in options.with_top(trace, targets)]
    with atomic_write(out) as file:
        file.write(report.html(groups, failed=batch.failed, cmap=args.cmap).encode(errors="replace"))
    code = batch.close()
    result(args, {"report": args.out, "explained": len(groups), "failed": batch.failed}, args.out)
    return code
