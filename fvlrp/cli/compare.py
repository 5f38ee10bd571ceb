"""`fvlrp compare`: several models on one sheet, as the paper's Figure 1."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..core import figures
from . import options
from .batch import Batch
from .output import UsageError, result, write_picture


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser, several=True)
    parser.add_argument("--target", default="top", help='one class for all photographs, or "top" of the first model')
    parser.add_argument("--out", default="fvlrp-compare.png", help="picture to write (default: %(default)s)")
    options.add_cmap(parser, "paper")


def run(args: Namespace) -> int:
    out = options.output_file(args.out)
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out must end in .png, got {args.out!r}")
    names = args.model or ["voc20"]
    models = [options.load_model(args, name) for name in names]
    wanted = [options.usage(options.target, model.menu, args.target) for model in models]
    rows, targets, batch = [], [], Batch(args)
    for photo, _ in options.photographs(args):
        with batch.one(photo), batch.room(models[0], photo):
            traces = [model.trace(options.image(args, photo)) for model in models]
            target = traces[0].top if wanted[0] is None else wanted[0]
            rows.append(figures.sheet_row(traces, [target] * len(traces), cmap=args.cmap))
            targets.append(target)
    titles = [Path(name).stem for name in names]
    sheet = write_picture(out, figures.sheet_of(rows, titles, cmap=args.cmap)) if rows else None
    code = batch.close()
    result(args, {"sheet": sheet, "targets": targets, "failed": batch.failed}, sheet or "")
    return code
