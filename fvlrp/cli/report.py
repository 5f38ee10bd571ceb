"""`fvlrp report`: photographs, heatmaps and ledgers in one HTML file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from ..core import report
from ..core.explanation import Explanation
from . import options
from .batch import Batch
from .output import result


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    what = f'classes, comma-separated; "top" (default) of each photograph; {options.CONTRAST}'
    parser.add_argument("--target", default="top", help=what)
    options.add_depths(parser)
    parser.add_argument("--out", default="fvlrp-report.html", help="file to write (default: %(default)s)")
    options.add_cmap(parser)
    options.add_smooth(parser)


def run(args: Namespace) -> int:
    out = options.output_file(args.out)
    clf = options.load_model(args, args.model)
    targets = options.targets(clf.menu, args.target)
    depths = options.depths(clf.menu, args.depth, clf.menu.report_depths)
    photographs = options.photographs(args)
    batch, explained = Batch(args), 0

    def groups() -> Iterator[tuple[str, list[Explanation], str]]:
        nonlocal explained
        for photo, _ in photographs:
            with batch.one(photo), batch.room(clf, photo):
                trace = clf.trace(options.image(args, photo))
                found = trace.explain(options.with_top(trace, targets), depths)
                explained += 1
                yield Path(photo).name, found, Path(args.model).stem

    report.write(out, groups(), failed=batch.failed, cmap=args.cmap, smooth=args.smooth)
    code = batch.close()
    result(args, {"report": args.out, "explained": explained, "failed": batch.failed}, args.out)
    return code
