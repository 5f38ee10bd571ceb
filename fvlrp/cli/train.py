"""`fvlrp train`: a Fisher-vector classifier from labelled photographs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic

from ..data import datasets, images
from ..fisher.layers import NORMALISATIONS
from ..runtime import threads
from ..runtime.progress import Progress
from ..runtime.types import Json
from . import options
from .output import OK, one_line, result, tell_failure


def add_options(parser: ArgumentParser) -> None:
    options.add_dataset(parser, "to train on (train, trainval)")
    options.add_skip_broken(parser)
    parser.add_argument("--out", required=True, help="file to write, such as model.fvlrp")
    parser.add_argument("--weights", choices=("float32", "int8", "int4"), default="float32", help="how to store them")
    parser.add_argument(
        "--components", type=options.count, default=256, help="components of the mixture (default: %(default)s)"
    )
    parser.add_argument(
        "--step", type=options.count, default=3, help="pixels between descriptors (default: %(default)s)"
    )
    parser.add_argument("--C", type=_c, default=5.0, help='of the SVM, or "auto" (default: %(default)s)')
    parser.add_argument("--mirror", action="store_true", help="train on mirrored photographs, too")
    parser.add_argument(
        "--normalisation",
        choices=NORMALISATIONS,
        default="intra",
        help="of Fisher vectors: per component, or the paper's improved one (default: %(default)s)",
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="random seed (default: %(default)s)")


def run(args: Namespace) -> int:
    from ..fisher.classifier import FisherVectorClassifier

    out = options.output_file(args.out)
    start = monotonic()
    data, skipped = readable(args, datasets.open_dataset(args.data, args.split))
    clf = FisherVectorClassifier(
        n_components=args.components,
        step=args.step,
        C=args.C,
        mirror=args.mirror,
        normalisation=args.normalisation,
        random_state=args.seed,
        n_jobs=args.jobs,
        verbose=not args.quiet,
    ).fit(data.paths, data.labels, class_names(data))
    clf.save(out, weights=args.weights)
    return trained(args, out, data, skipped, clf.C_, start)


def _c(text: str) -> float | str:
    if text == "auto":
        return text
    value: float = options.number(float, 0, "a positive number or auto")(text)
    return value


def class_names(data: datasets.Dataset) -> Sequence[str] | None:
    """Names of the columns, where labels are a matrix."""
    return data.class_names if data.labels.ndim == 2 else None


def readable(args: Namespace, data: datasets.Dataset) -> tuple[datasets.Dataset, list[dict[str, str]]]:
    """The data without photographs that cannot be decoded, and their failures, which are printed before training.

    Raises
    ------
    OSError
        There are some, and --skip-broken is not set.
    """
    progress = Progress("read photograph", len(data), not args.quiet)

    def fault(path: Path) -> str | None:
        try:
            images.load(path)
        except (OSError, ValueError, MemoryError) as error:
            return one_line(error)
        finally:
            progress.step()
        return None

    faults = list(threads.stream((partial(fault, path) for path in data.paths), args.jobs))
    broken = {i: error for i, error in enumerate(faults) if error is not None}
    for i, error in broken.items():
        tell_failure(data.paths[i], error)
    if broken and not args.skip_broken:
        raise OSError(f"{len(broken)} of {len(data)} photographs cannot be read: --skip-broken leaves them out")
    return data.without(broken), [{"photo": str(data.paths[i]), "error": error} for i, error in broken.items()]


def trained(
    args: Namespace,
    out: Path,
    data: datasets.Dataset,
    skipped: list[dict[str, str]],
    c: float | None,
    start: float,
    head: str = "",
) -> int:
    """Report a model that was written, and what became of a network's last layer; returns the exit code."""
    seconds, classes = monotonic() - start, len(data.class_names)
    value: dict[str, Json] = {
        "model": str(out),
        "bytes": out.stat().st_size,
        "images": len(data),
        "classes": classes,
        "C": c,
        **({"head": head} if head else {}),
    }
    text = f"{out}: {len(data)} photographs, {classes} classes, {seconds:.0f} s{f'; {head}' if head else ''}"
    result(args, {**value, "seconds": round(seconds, 1), "skipped": skipped}, text)
    return OK
