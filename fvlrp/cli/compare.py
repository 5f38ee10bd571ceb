"""`fvlrp compare`: several models on one sheet, as the paper's Figure 1."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from ..core import figures
from ..core.target import Contrast, Label, plain
from . import options
from .batch import Batch
from .output import UsageError, result, write_picture


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser, several=True)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        help='a class for all photographs, or "top" of the first model (default); given again, one for each photograph'
        f"; {options.CONTRAST}",
    )
    parser.add_argument(
        "--depth",
        action="append",
        default=[],
        metavar="HIGH,LOW",
        help="depths of high and of low resolution; again for the next model (default: the pixels, or bins, and the "
        "first block of stride 8, or descriptors)",
    )
    parser.add_argument("--out", default="fvlrp-compare.png", help="picture to write (default: %(default)s)")
    options.add_cmap(parser, "paper")
    options.add_smooth(parser)


def run(args: Namespace) -> int:
    out = options.output_file(args.out, ".png")
    names = args.model or ["voc20"]
    models = [options.load_model(args, name) for name in names]
    photographs = options.photographs(args)
    wanted = _targets(args.target, models, len(photographs))
    depths = _depths(args.depth, models)
    titles = [Path(name).stem for name in names]
    rows, targets, batch = [], [], Batch(args)
    for (photo, _), asked in zip(photographs, wanted, strict=True):
        with batch.one(photo), batch.room(models[0], photo):
            traces = [model.trace(options.image(args, photo)) for model in models]
            target = _shared(traces[0].top, models, titles) if asked is None else asked
            wanted_each = [target] * len(traces)
            rows.append(figures.sheet_row(traces, wanted_each, depths, cmap=args.cmap, smooth=args.smooth))
            targets.append(plain(target))
    sheet = write_picture(out, figures.sheet_of(rows, titles, cmap=args.cmap)) if rows else None
    code = batch.close()
    result(args, {"sheet": sheet, "targets": targets, "failed": batch.failed}, sheet or "")
    return code


def _targets(asked: Sequence[str], models: Sequence[options.Model], count: int) -> list[Label | Contrast | None]:
    """The class of each photograph, which every model must have; None is the best one."""
    names = list(asked) or ["top"]
    if len(names) == 1:
        names *= count
    if len(names) != count:
        raise UsageError(f"--target is given {len(names)} times for {count} photographs: once, or once for each")
    found = [[options.usage(options.target, model.menu, name) for model in models] for name in names]
    return [own[0] for own in found]


def _shared(top: Label, models: Sequence[options.Model], titles: Sequence[str]) -> Label:
    """The best class of the first model, which the others must have as well."""
    for model, title in zip(models, titles, strict=True):
        try:
            model.menu.check(top)
        except ValueError:
            raise ValueError(
                f"{title} has no class {str(top)!r}, the best of {titles[0]}: "
                "choose a class that all models have with --target, or retrain one for the classes of the other"
            ) from None
    return top


def _depths(asked: Sequence[str], models: Sequence[options.Model]) -> list[tuple[str, str]]:
    """High and low of each model."""
    if len(asked) > len(models):
        raise UsageError(f"--depth is given {len(asked)} times for {len(models)} models: once for each, in order")
    given: list[Sequence[str] | None] = [[name.strip() for name in text.split(",")] for text in asked]
    given += [None] * (len(models) - len(asked))
    return [options.usage(figures.high_and_low, model.menu, own) for model, own in zip(models, given, strict=True)]
