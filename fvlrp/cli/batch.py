"""Work on many photographs in parallel; failures do not stop the others and are listed at the end.

Hides threads, progress, and the memory budget of photographs in progress. For the commands of this package.
"""

from __future__ import annotations

import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import prod
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

from ..data import images
from ..runtime import limits, threads
from .options import Model
from .output import FAILED, OK, one_line, say, tell_failure

T = TypeVar("T")

# Bytes of memory that explaining a photograph and saving a picture takes, for each of its pixels; and, with a
# Fisher vector, for each pixel whose descriptors are held at once. Measured from 0.2 to 169 megapixels.
OF_PHOTOGRAPH, OF_REDUCED = 26, 85
MOST = 4 << 30  # bytes for all photographs in progress, unless --memory changes it
LONG = 20.0  # seconds; for longer runs, an estimate of time and memory is printed at the start
IMMEDIATE = 0.005  # seconds; a photograph that takes less had its results already
SAMPLED = 200  # photographs whose sizes that estimate reads


def footprint(model: Model, photo: images.ImageLike) -> int:
    """Roughly how many bytes explaining a photograph takes, from its size alone: nothing is decoded.

    Raises OSError if it cannot be opened.
    """
    height, width = images.size(photo)
    working = 0
    if hasattr(model, "pixels_at_once"):
        working = OF_REDUCED * model.pixels_at_once(height, width)
    elif hasattr(model, "shapes"):  # of every layer's output: it and its relevance
        working = 2 * 4 * sum(map(prod, model.shapes))
    return OF_PHOTOGRAPH * height * width + working


class Failure(NamedTuple):
    """The exception of a task."""

    error: Exception


class Task(NamedTuple, Generic[T]):
    """Work on one photograph: its name, and what to do."""

    photo: str
    work: Callable[[], T]


class Batch:
    """Runs the tasks of a command, one per photograph, and collects failures.

    Attributes
    ----------
    failed : list of {"photo": ..., "error": ...}
    """

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.failed: list[dict[str, str]] = []
        gigabytes = getattr(args, "memory", None)
        self._budget = limits.Budget(int(gigabytes * 1e9) if gigabytes else min(MOST, limits.available() // 2))

    def run(
        self, tasks: Iterable[Task[T]], model: Model, photos: Sequence[str], describe: Callable[[T], str]
    ) -> Iterator[T]:
        """Results of tasks, in order; several photographs are processed in parallel.

        Parameters
        ----------
        tasks : iterable of Task
            One for each of `photos`, read in this thread a few ahead of the results.
        model : classifier
        photos : sequence of str
        describe : callable
            Summarises a result in a few words, for a line of progress.
        """
        total = len(photos)
        jobs = threads.count(self.args.jobs) if total > 1 else 1
        count, seconds = 0, 0.0  # of photographs that had to be computed
        for done, ended in enumerate(threads.stream((partial(_timed, task) for task in tasks), jobs)):
            if ended.seconds > IMMEDIATE:
                count, seconds = count + 1, seconds + ended.seconds
            rest = total - done - 1
            left = seconds / max(1, count) * rest / jobs
            if count == 1 and ended.seconds > IMMEDIATE and left > LONG:
                self._estimate(model, photos[done + 1 :], left, jobs)
            place = f"[{done + 1}/{total}, {_duration(left)} left] " if total > 1 else ""
            if isinstance(ended.result, Failure):
                self.fail(photos[done], ended.result.error, place)
            else:
                say(self.args, f"{place}{photos[done]}: {describe(ended.result)}")
                yield ended.result

    def _estimate(self, model: Model, photos: Sequence[str], seconds: float, jobs: int) -> None:
        """Print an estimate of the time and memory of a long run."""
        sizes = []
        for photo in photos[:: max(1, len(photos) // SAMPLED)]:
            with suppress(OSError):
                sizes.append(footprint(model, photo))
        memory = ""
        if sizes:
            memory = f" and {limits.readable(min(jobs * max(sizes), self._budget.total))} in addition to the model"
        say(self.args, f"{len(photos)} photographs left: about {_duration(seconds)}{memory}, with {jobs} threads")

    @contextmanager
    def room(self, model: Model, photo: images.ImageLike) -> Iterator[None]:
        """Reserve memory for a photograph inside the block; waits until it is free.

        Raises
        ------
        MemoryError
            The photograph alone would exceed the budget.
        OSError
            It cannot be opened.
        """
        size = footprint(model, photo)
        if size > self._budget.total:
            raise MemoryError(
                f"it would take {limits.readable(size)}, and photographs may take "
                f"{limits.readable(self._budget.total)}: reduce it, or allow more with --memory"
            )
        with self._budget.use(size):
            yield

    @contextmanager
    def one(self, photo: object) -> Iterator[None]:
        """Process one photograph in this thread; an exception is recorded as its failure."""
        try:
            yield
        except Exception as error:
            self.fail(photo, error)

    def fail(self, photo: object, error: Exception, place: str = "") -> None:
        """Record why a photograph failed."""
        if self.args.traceback:
            traceback.print_exception(error)
        self.failed.append({"photo": str(photo), "error": one_line(error)})
        say(self.args, f"{place}{photo}: failed")

    def close(self) -> int:
        """List the failures on stderr; returns the exit code."""
        for failure in self.failed:
            tell_failure(failure["photo"], failure["error"])
        return FAILED if self.failed else OK


class _Ended(NamedTuple, Generic[T]):
    """How a task ended, and the seconds it took."""

    result: T | Failure
    seconds: float


def _timed(task: Task[T]) -> _Ended[T]:
    start = monotonic()
    try:
        result: T | Failure = task.work()
    except Exception as error:
        result = Failure(error)
    return _Ended(result, monotonic() - start)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
