"""`fvlrp explain`: heatmaps of photographs as pictures and numbers, a batch that can be resumed."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias

from ..core import figures
from ..core.explanation import Explanation
from ..core.region import Region
from ..core.target import Contrast, Label
from ..data.images import ImageLike
from ..data.photographs import File
from ..runtime import cluster
from ..show.render import LEVEL
from . import naming, options
from .batch import Batch, Task
from .outbox import Claim, Outbox
from .output import Listing, Record, UsageError, one_line, say, write_picture

FORMATS = ("png", "npz")
# Options that the results depend on.
DETERMINING = (
    *("model", "preprocess", "classes", "output", "target", "depth", "format", "sheet", "exact", "rule", "cmap", "bar"),
    *("range", "page", "region", "smooth"),
)


def add_options(parser: ArgumentParser) -> None:
    options.add_photographs(parser)
    options.add_model(parser)
    parser.add_argument(
        "--target", default="top", help=f'classes, comma-separated; "top" (default) or "all"; {options.CONTRAST}'
    )
    parser.add_argument(
        "--depth",
        help='depths, comma-separated, or "all", every layer of a network (default: "bin", a network\'s "input")',
    )
    parser.add_argument(
        "--region",
        type=_region,
        metavar="Y0,X0,Y1,X1",
        help='pixels to explain at --depth, over an overview at depth "descriptor" (Fisher vectors)',
    )
    parser.add_argument("--out", default="fvlrp-out", help="folder for the results (default: %(default)s)")
    parser.add_argument("--format", default="png", help="png, npz or png,npz (default: %(default)s)")
    parser.add_argument("--sheet", action="store_true", help="also a contact sheet of each photograph")
    options.add_cmap(parser)
    options.add_smooth(parser)
    parser.add_argument("--bar", action="store_true", help="add a colour bar to the heatmaps")
    parser.add_argument(
        "--compress",
        type=int,
        choices=range(10),
        metavar="0..9",
        default=LEVEL,
        help="PNG compression level (default: %(default)s)",
    )
    parser.add_argument("--exact", action="store_true", help="compute in float64")
    parser.add_argument("--rule", action="append", default=[], metavar="NAME=VALUE", help=options.RULES)
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="explain on the workers of a dask cluster, such as tcp://10.0.0.1:8786"
    )
    parser.add_argument("--resume", action="store_true", help="skip photographs whose results exist")


def _region(text: str) -> list[int]:
    """Four whole numbers; the model checks that they are a region."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"expected four whole numbers, such as 0,0,512,512, got {text!r}") from None


def run(args: Namespace) -> int:
    args.formats = list(dict.fromkeys(args.format.split(",")))
    if not set(args.formats) <= set(FORMATS):
        raise UsageError(f"--format must be png, npz or png,npz, got {args.format!r}")
    clf = options.load_model(args, args.model)
    request = Request(
        options.targets(clf.menu, args.target),
        options.depths(clf.menu, args.depth, [clf.menu.default_depth]),
        options.rules(clf.menu, args.rule),
        options.usage(clf.menu.region, args.region),
    )
    photographs = options.photographs(args)
    out = options.output_folder(args.out)
    outbox = Outbox(out, {name: getattr(args, name) for name in DETERMINING}, options.model_files(args.model))
    photographs = _without_results(photographs, outbox, args.photo)
    batch, listing = Batch(args), Listing(args)
    with _explainer(args, clf, request) as explainer:
        tasks = (_task(file, clf, explainer, outbox, batch) for file in photographs)
        paths = [file.path for file in photographs]
        for record in batch.run(tasks, clf, paths, describe=partial(_scores, outbox.done)):
            listing.put(record)
    listing.close(batch.failed)
    if count := len(outbox.done):
        say(args, f"{count} of {len(photographs)} photograph{'s' * (len(photographs) > 1)} already done")
    if count := len(outbox.replaced):
        warnings.warn(
            f"replaced {count} result{'s' * (count > 1)} of other options, such as {outbox.replaced[0]}", stacklevel=2
        )
    if outbox.removed:
        say(args, f"removed {outbox.removed} temporary file{'s' * (outbox.removed > 1)} of killed runs")
    return batch.close()


def _without_results(photographs: list[File], outbox: Outbox, named: Sequence[str]) -> list[File]:
    """Photographs without the heatmaps of earlier runs, which may lie in folders of photographs.

    A heatmap that is named by itself is explained, unless it lies in --out.
    """
    asked = set(named)
    rest = [file for file in photographs if not outbox.wrote(file.path, anywhere=file.path not in asked)]
    if not rest:
        raise UsageError("no photographs were named, only pictures that fvlrp wrote")
    if count := len(photographs) - len(rest):
        warnings.warn(f"skipped {count} picture{'s' * (count > 1)} that fvlrp wrote", stacklevel=2)
    return rest


class Request(NamedTuple):
    """What to explain of every photograph; a target of None is the best one."""

    targets: list[Label | Contrast | None]
    depths: list[str]
    rules: object
    region: Region | None


Explainer: TypeAlias = Callable[[ImageLike], list[Explanation]]


@contextmanager
def _explainer(args: Namespace, clf: options.Model, request: Request) -> Iterator[Explainer]:
    """A function that explains a photograph, here or on a cluster; files are always written here."""
    dtype = "float64" if args.exact else "float32"
    if not args.scheduler:
        yield partial(_explained, clf, request, dtype)
        return
    with cluster.connected(args.scheduler) as workers:
        if args.jobs == -1:  # all threads of the cluster
            args.jobs = workers.threads
        kept = workers.keep(clf)
        yield lambda image: workers.call(_explained, kept, request, dtype, image)


def _explained(clf: options.Model, request: Request, dtype: str, image: ImageLike) -> list[Explanation]:
    trace = clf.trace(image, dtype)
    explanations: list[Explanation] = trace.explain_all(
        options.with_top(trace, request.targets), request.depths, request.rules, region=request.region
    )
    return explanations  # without the forward pass, which pictures do not need


def _task(file: File, clf: options.Model, explainer: Explainer, outbox: Outbox, batch: Batch) -> Task[Record]:
    """The task of one photograph. Results are named here, in the order of the photographs."""
    try:
        done = outbox.finished(file) if batch.args.resume else None
        claim = None if done else outbox.claim(file)
    except OSError as error:
        return Task(file.path, partial(_raise, error))
    if claim is None:
        return Task(file.path, lambda: done or {})
    return Task(file.path, partial(_explain, file.path, clf, explainer, claim, batch))


def _raise(error: Exception) -> Record:
    raise error


def _explain(photo: str, clf: options.Model, explainer: Explainer, claim: Claim, batch: Batch) -> Record:
    """Explain one photograph and write its results; returns the record."""
    args = batch.args
    try:
        with batch.room(clf, photo):
            explanations = explainer(options.image(args, photo))
            files = _written(explanations, claim, args)
        summaries = [ex.summary() for ex in explanations]
        best = {summary["target"]: summary["score"] for summary in summaries}
        scores = [{"target": target, "score": score} for target, score in best.items()]
        return claim.finish({"scores": scores, "explanations": summaries, "files": files})
    except Exception as error:
        claim.fail(one_line(error))
        raise
    except BaseException:  # a signal
        claim.release()
        raise


def _written(explanations: Sequence[Explanation], claim: Claim, args: Namespace) -> list[str]:
    """Write pictures and numbers; returns the paths."""
    written = []
    look = {"cmap": args.cmap, "bar": args.bar, "smooth": args.smooth, "level": args.compress}
    names = naming.numbered(naming.result(ex.target, ex.depth) for ex in explanations)
    for ex, name in zip(explanations, names, strict=True):
        for suffix in args.formats:
            path = claim.path(f"{name}.{suffix}")
            ex.save(path, **(look if suffix == "png" else {}))
            written.append(str(path))
    if args.sheet:
        sheet = figures.depth_sheet(explanations, cmap=args.cmap, smooth=args.smooth)
        written.append(write_picture(claim.path("sheet.png"), sheet, level=args.compress))
    return written


def _scores(done: Container[str], record: Record) -> str:
    """The scores of a photograph, and whether an earlier run had explained it."""
    scores = ", ".join(f"{entry['target']} {entry['score']:+.3f}" for entry in record["scores"])
    return f"{scores} (already done)" if record["photo"] in done else scores
