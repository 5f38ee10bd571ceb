"""`fvlrp words`: the visual words by which a class is recognised, as the patches with most relevance through each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from ..core.target import One
from ..fisher.classifier import FisherVectorClassifier
from ..fisher.trace import FisherTrace
from ..fisher.words import Patch, component_relevance, top_patches
from ..runtime.types import Json
from ..show import render
from . import options
from .batch import Batch
from .output import UsageError, result, write_picture


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    what = f'class to explain, or "top" (default) of each photograph; {options.CONTRAST}'
    parser.add_argument("--target", default="top", help=what)
    parser.add_argument("--words", type=options.count, default=8, help="components to show (default: %(default)s)")
    parser.add_argument("--component", type=options.seed, action="append", help="this component; again for another")
    parser.add_argument("--patches", type=options.count, default=8, help="patches of each (default: %(default)s)")
    parser.add_argument("--out", default="fvlrp-words.png", help="picture to write (default: %(default)s)")


def run(args: Namespace) -> int:
    out = options.output_file(args.out, ".png")
    clf = options.load_model(args, args.model)
    if not isinstance(clf, FisherVectorClassifier):
        raise UsageError(f"--model must be a Fisher-vector classifier, got {args.model}")
    target = options.usage(options.target, clf.menu, args.target)
    photographs, batch = options.photographs(args), Batch(args)
    names: list[str] = []  # of the photographs that can be read

    def traces() -> Iterator[tuple[FisherTrace, One]]:
        names.clear()
        broken = {failure["photo"] for failure in batch.failed}
        for photo, _ in photographs:
            if str(photo) in broken:
                continue
            with batch.one(photo), batch.room(clf, photo):
                trace = clf.trace(options.image(args, photo))
                names.append(str(photo))
                yield trace, trace.top if target is None else target

    sums = None if args.component else component_relevance(traces()).sum(axis=0)
    chosen = args.component if sums is None else np.argsort(-np.atleast_1d(sums))[: args.words].tolist()
    found = top_patches(traces(), chosen, args.patches) if sums is None or np.ndim(sums) else []
    whose = "each photograph's best class" if target is None else str(target)
    count = f"{len(names)} photograph{'s' * (len(names) != 1)}"
    note = f"relevance for {whose}: of each visual word in {count}, and below each patch its own"
    picture = write_picture(out, render.noted(_montage(found, chosen, sums), note)) if any(found) else None
    words = [
        {"component": k, "relevance": None if sums is None else float(sums[k]), "patches": _listed(patches, names)}
        for k, patches in zip(chosen, found, strict=False)
    ]
    code = batch.close()
    result(args, {"picture": picture, "words": words, "failed": batch.failed}, picture or "")
    return code


def _listed(patches: Sequence[Patch], names: Sequence[str]) -> list[dict[str, Json]]:
    return [
        {"photo": names[patch.photograph], "box": list(patch.box), "relevance": patch.relevance} for patch in patches
    ]


def _montage(found: Sequence[Sequence[Patch]], chosen: Sequence[int], sums: npt.NDArray[np.float64] | None) -> Image:
    """A row for each component, its patches from the most relevant on."""
    rows = [[render.Panel(patch.pixels, f"{patch.relevance:+.2g}") for patch in patches] for patches in found]
    titles = [f"word {k}" if sums is None else f"word {k}: {sums[k]:+.2g}" for k in chosen]
    return render.sheet(rows, row_titles=titles, height=96, aspect=1.0)
