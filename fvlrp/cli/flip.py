"""`fvlrp flip`: destroys photographs in a heatmap's order and reports how fast the score falls."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import evaluate
from ..runtime import threads
from ..runtime.progress import Progress
from . import options
from .output import Batch, result


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    parser.add_argument("--target", default="top", help='class to explain, or "top" (default) of each photograph')
    options.add_depths(parser)
    parser.add_argument(
        "--steps", type=options.count, default=100, help="regions of 9 x 9 replaced (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=options.count, default=1, help="repetitions with other colours (default: %(default)s)"
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="random seed (default: %(default)s)")


def run(args: Namespace) -> int:
    clf = options.load_model(args, args.model)
    target = options.usage(options.target, clf.menu, args.target)
    asked = options.depths(clf.menu, args.depth, clf.menu.report_depths)
    results, batch = [], Batch(args)
    progress = Progress("flipped photograph", len(args.photo), not args.quiet)
    for photo in args.photo:
        with batch.one(photo):
            results.append(_flip(clf, photo, target, asked, args))
        progress.step()
    depths = list(dict.fromkeys(depth for result in results for depth in result["aopc"]))
    means = {
        depth: vars(evaluate.bootstrap(np.array([result["aopc"][depth] for result in results]))) for depth in depths
    }
    lines = [f"{depth:<12} {m['mean']:+.4f}  [{m['low']:+.4f}, {m['high']:+.4f}]" for depth, m in means.items()]
    code = batch.close()
    text = "\n".join(["AOPC, MoRF", *lines]) if lines else ""
    result(args, {"mean": means, "results": results, "failed": batch.failed}, text)
    return code


def _flip(clf: Any, photo: str, target: Any, depths: Sequence[str], args: Namespace) -> dict[str, Any]:
    """AOPC of every depth and of a random order, for one photograph."""
    trace = clf.trace(photo)
    target = trace.top if target is None else target
    maps = [ex.heatmap for ex in trace.explain(target, depths)]
    column = trace.menu.position(target)

    def score(images: npt.NDArray[np.uint8]) -> list[float]:
        return [row[column] for row in threads.run([partial(clf.scores, image) for image in images], args.jobs)]

    settings = {"steps": args.steps, "draws": args.draws, "random_state": args.seed}
    flips = evaluate.pixel_flipping(score, photo, np.stack(maps), order=("morf", "random"), **settings)
    aopc = dict(zip(depths, [flip.aopc for flip in flips[::2]], strict=True))
    return {"photo": str(photo), "target": target, "aopc": {**aopc, "random": flips[1].aopc}}
