"""`fvlrp flip`: destroys photographs in the order of a heatmap and reports how fast the score falls."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from .. import evaluate
from ..core.target import Contrast, Label, plain
from ..evaluate.flipping import BLIND, MAPPED
from ..evaluate.journal import identity
from ..evaluate.summaries import aopcs, gaps
from ..runtime.progress import Progress
from ..runtime.types import Json
from ..show.tables import Cell, Table
from . import options
from .batch import Batch
from .output import result


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    what = f'class to explain, or "top" (default) of each photograph; {options.CONTRAST}'
    parser.add_argument("--target", default="top", help=what)
    options.add_depths(parser)
    options.add_flipping(parser, replacement="noise")
    parser.add_argument(
        "--journal", metavar="FILE", help="file that keeps finished curves; a second run continues from it"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the mean curves (.png, .svg or .pdf)")
    options.add_table_format(parser)


def run(args: Namespace) -> int:
    plot = None if args.plot is None else options.figure_file(args.plot)
    clf = options.load_model(args, args.model)
    target = options.usage(options.target, clf.menu, args.target)
    depths = options.depths(clf.menu, args.depth, clf.menu.report_depths)
    journal, batch = evaluate.Journal(args.journal), Batch(args)
    flips: dict[str, list[list[evaluate.PixelFlipping]]] = {name: [] for name in (*depths, *BLIND)}
    results: list[Json] = []
    photographs = options.photographs(args)
    progress = Progress("flipped photograph", len(photographs), not args.quiet)
    for photo, _ in photographs:
        with batch.one(photo), batch.room(clf, photo):
            name, own = _flip(clf, photo, target, depths, journal, args)
            for label, flipped in own.items():
                flips[label].append(flipped)
            aopc = {label: flipped[0].aopc for label, flipped in own.items()}
            gap = {depth: evaluate.gap(*own[depth]) for depth in depths}
            results.append({"photo": str(photo), "target": plain(name), "aopc": aopc, "gap": gap})
        progress.step()
    if plot and results:
        evaluate.plot_flipping(flips, plot)
    value: dict[str, Json] = {
        "mean": {name: asdict(evaluate.bootstrap(_aopcs(own, name))) for name, own in flips.items() if own},
        "gap": {depth: asdict(evaluate.bootstrap(gaps(flips[depth]))) for depth in depths if flips[depth]},
        "results": results,
        "failed": batch.failed,
    }
    code = batch.close()
    result(args, value, options.table(args, _table(flips, depths)) if results else "")
    return code


def _flip(
    clf: options.Model,
    photo: str,
    target: Label | Contrast | None,
    depths: Sequence[str],
    journal: evaluate.Journal,
    args: Namespace,
) -> tuple[Label | Contrast, dict[str, list[evaluate.PixelFlipping]]]:
    """The target of one photograph, and its curves by depth and by blind order."""
    image = options.image(args, photo)
    trace = clf.trace(image)
    target = trace.top if target is None else target
    maps = [ex.heatmap for ex in trace.explain(target, depths)]
    flipped = evaluate.pixel_flipping(
        clf.flipper(image, target),
        image,
        maps,
        order=(*MAPPED, *BLIND),
        region=args.region_size,
        steps=args.steps,
        replacement=args.replacement,
        draws=args.draws,
        random_state=args.seed,
        n_jobs=args.jobs,
        journal=journal.part(*identity(args.model), str(target)),
    )
    orders = len(MAPPED) + len(BLIND)
    own = {depth: flipped[i * orders : i * orders + len(MAPPED)] for i, depth in enumerate(depths)}
    return target, own | {order: [flipped[len(MAPPED) + i]] for i, order in enumerate(BLIND)}


def _aopcs(flips: Sequence[Sequence[evaluate.PixelFlipping]], label: str) -> npt.NDArray[np.float64]:
    return aopcs(flips, label if label in BLIND else "morf")


def _table(flips: dict[str, list[list[evaluate.PixelFlipping]]], depths: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for label, own in flips.items():
        mapped: list[Cell] = [None, None]
        if label in depths:
            mapped = [evaluate.bootstrap(aopcs(own, "lerf")), evaluate.bootstrap(gaps(own))]
        rows.append([label, evaluate.bootstrap(_aopcs(own, label)), *mapped])
    return Table(["depth or order", "AOPC", "AOPC, LeRF", "gap"], rows)
