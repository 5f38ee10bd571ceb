"""`fvlrp demo`: real photographs at every depth, with the built-in model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from time import monotonic

import numpy as np

from ..core import figures
from ..core.target import Contrast, Label
from ..runtime.types import Values
from . import naming, options
from .batch import Batch
from .output import result, say, write_picture


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser, "*", "your own photographs; none: two persons")
    parser.add_argument("--target", help="class to explain in your photographs; default: the best of each")
    parser.add_argument("--out", default="fvlrp-demo", help="folder for the pictures (default: %(default)s)")


def run(args: Namespace) -> int:
    clf = options.load_model(args, "voc20")
    wanted = None if args.target is None else options.usage(options.target, clf.menu, args.target)
    photos = [photo for photo, _ in options.photographs(args)] if args.photo else []
    own: list[tuple[str, str | Values, Label | Contrast | None]] = [
        (name, photo, wanted) for name, photo in zip(naming.stems(photos), photos, strict=True)
    ]
    out = options.output_folder(args.out)
    own = own or [*_examples()]
    names = [f"{name}_{depth}" for name, *_ in own for depth in clf.menu.depths]
    options.announce_replaced(out / f"{name}.png" for name in (*names, "sheet"))
    rows, records, batch = [], [], Batch(args)
    for name, photo, target in own:
        start = monotonic()
        with batch.one(photo if isinstance(photo, str) else name), batch.room(clf, photo):
            trace = clf.trace(options.image(args, photo) if isinstance(photo, str) else photo)
            explanations = trace.explain([target or trace.top], trace.menu.depths)
            for ex in explanations:
                ex.save(out / f"{name}_{ex.depth}.png")
            order = np.argsort(trace.scores)[::-1][:3]
            best = ", ".join(f"{trace.classes[i]} {trace.scores[i]:+.2f}" for i in order)
            finest = explanations[-1]
            say(args, f"\n{name}: explained as {finest.target} in {monotonic() - start:.2f} s; highest scores: {best}")
            if finest.score < 0 and finest.target == trace.top:
                say(args, f"  {finest.target} ranks first of {len(trace.classes)} classes, with a score below 0")
            say(args, "\n".join(f"  {line}" for line in str(finest.ledger).splitlines()))
            records.append({"photo": name, "explanations": [ex.summary() for ex in explanations]})
            rows += explanations
    code = batch.close()
    sheet = write_picture(out / "sheet.png", figures.depth_sheet(rows)) if rows else None
    result(args, {"sheet": sheet, "photographs": records, "failed": batch.failed}, sheet or "")
    return code


def _examples() -> list[tuple[str, Values, str]]:
    """Real photographs that come with scikit-image: name, pixels, and what is in them."""
    try:
        from skimage import data
    except ImportError:
        raise ImportError(
            "the demo's photographs come with scikit-image: pip install 'fvlrp[demo]', or name photographs of your own"
        ) from None
    # Of the photographs in scikit-image and scikit-learn, these are all whose class the model gets right: it has the
    # highest score of the twenty, and one above 0. They were chosen by their scores, before any map was looked at.
    return [("astronaut", data.astronaut(), "person"), ("cameraman", data.camera(), "person")]
