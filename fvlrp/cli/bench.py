"""`fvlrp bench`: how long every stage takes here, on each instruction set.

bench/ of the repository times with the same functions.
"""

from __future__ import annotations

import copy
import gc
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..data import images
from ..data.images import ImageLike
from ..fisher.classifier import FisherVectorClassifier
from ..runtime import threads
from . import options
from .output import OK, Record, UsageError, result


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("photo", nargs="?", help="your own photograph; none: one of 500 x 375 pixels")
    options.add_model(parser)


def run(args: Namespace) -> int:
    photo = example() if args.photo is None else images.rgb(args.photo)
    clf = options.load_model(args, args.model)
    if not isinstance(clf, FisherVectorClassifier):
        raise UsageError(f"--model must be a Fisher-vector classifier, got {args.model}")
    times = short(clf, photo, args.jobs)
    result(args, times, as_text(times))
    return OK


# ---- timing ----------------------------------------------------------------------------------------------------------


def alternate(
    first: Callable[[], object], second: Callable[[], object], pairs: int, warm: int = 1, rest: float = 0.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Seconds of each call of two functions, run in turn, the order reversed every time: float64 (pairs,) each.

    What slows the machine for a while slows both. The garbage collector waits. `rest` seconds before each call let
    threads of the other side fall asleep: those of OpenBLAS spin for a while after their last product.
    """
    for _ in range(warm):
        first(), second()
    seconds = np.empty((2, pairs))
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for i in range(pairs):
            for which in (0, 1) if i % 2 == 0 else (1, 0):
                sleep(rest)
                start = perf_counter()
                (first, second)[which]()
                seconds[which, i] = perf_counter() - start
    finally:
        if collecting:
            gc.enable()
    return seconds[0], seconds[1]


def median(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    return float(np.median(alternate(function, lambda: None, repeats)[0]))


@contextmanager
def instruction_set(name: str | None) -> Iterator[str]:
    """The kernels of one instruction set (None: those in use), inside the block."""
    before = _kernels.isa()
    _kernels.select(name or before)
    try:
        yield _kernels.isa()
    finally:
        _kernels.select(before)


def relative(value: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Relative error in the L2 norm."""
    value, truth = np.asarray(value, np.float64), np.asarray(truth, np.float64)
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


def machine() -> Record:
    """What the figures depend on: processor, instruction set, BLAS kernels, versions."""
    from threadpoolctl import threadpool_info

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    blas = [
        f"{info['internal_api']} {info['version']} ({info.get('architecture', '?')})"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]
    return {
        "processor": cpu,
        "processors usable": len(threads.processors()) or None,
        "instruction set": _kernels.isa(),
        "BLAS": sorted(set(blas)),
        "NumPy": np.__version__,
    }


# ---- the report --------------------------------------------------------------------------------------------------


def stages(clf: FisherVectorClassifier, image: ImageLike, n_jobs: int, repeats: int = 7) -> dict[str, float]:
    """Milliseconds of each stage for one image."""
    clf = copy.copy(clf).set_params(n_jobs=n_jobs)  # the caller's keeps its own
    trace = clf.trace(image)
    stack, target = trace.stack, trace.top
    sums = stack.encode.pooled(trace.descriptors, "float32", n_jobs).sums
    calls = {
        "grey": lambda: images.grey(image, clf.max_height),
        "dense SIFT": lambda: stack.encode.bins.sift.extract_grey(trace.grey, n_jobs),
        "projection, posteriors, sums": lambda: stack.encode.pooled(trace.descriptors, "float32", n_jobs),
        "normalisation, scores": lambda: stack.linear.forward(stack.normalise.forward(sums)[0]),
        "explanation, depth descriptor": lambda: trace.explain(target, "descriptor"),
        "explanation, depth bin": lambda: trace.explain(target, "bin"),
        "explanation, depth gradient": lambda: trace.explain(target, "gradient"),
        "whole image, depth bin": lambda: clf.explain(image, target, "bin"),
    }
    return {name: 1e3 * median(call, repeats) for name, call in calls.items()}


def example() -> npt.NDArray[np.uint8]:
    """A photograph of a temple that scikit-learn carries, at 500 x 375 pixels: uint8 (375, 500, 3)."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photograph = Image.fromarray(load_sample_image("china.jpg")[:, 35:604])  # 4:3
    return np.asarray(photograph.resize((500, 375), Image.Resampling.BICUBIC))


def short(clf: FisherVectorClassifier, image: ImageLike, jobs: int | None = -1) -> Record:
    """Stage times on every instruction set, on one and on `jobs` threads."""
    counts = sorted({1, threads.count(jobs)})
    table = {}
    for isa in _kernels.isas():
        with instruction_set(isa):
            for n in counts:
                table[f"{isa}, {n} thread{'s' * (n > 1)}"] = stages(clf, image, n)
    height, width = images.size(image)
    return {
        "machine": machine(),
        "image": [height, width],
        "milliseconds": table,
    }


def as_text(result: Record) -> str:
    """The short form as Markdown."""
    table = result["milliseconds"]
    heads = list(table)
    lines = [f"{name}: {', '.join(v) if isinstance(v, list) else v}  " for name, v in result["machine"].items()]
    lines += ["", f"Milliseconds for a photograph of {result['image'][1]} x {result['image'][0]} pixels:", ""]
    lines += ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    lines += [
        f"| {stage} | " + " | ".join(f"{table[head][stage]:.2f}" for head in heads) + " |" for stage in table[heads[0]]
    ]
    return "\n".join(lines)
