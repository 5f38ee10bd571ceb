"""Thread pools for kernels that release the GIL, with workers pinned to processors; limits on BLAS threads.

Hides the pools. For every ring above.

Kernels are single-threaded. A call is divided into tasks independently of the number of workers, so results are
bit-identical. Workers are pinned because two unpinned ones often share a processor; the affinity of the caller is not
changed. Every process has its own pools: a forked child starts new ones.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from .limits import processor_count
from .limits import processors as processors
from .types import Untyped

T = TypeVar("T")

AHEAD = 2  # tasks per worker that `stream` starts before their results are read

_lock = threading.Lock()
_pools: dict[tuple[int, tuple[int, ...]], ThreadPoolExecutor] = {}
_inside = threading.local()


def _forget() -> None:
    """In a forked child, where only the thread that forked survives: start afresh."""
    global _lock, _blas_lock, _blas_depth
    _lock, _blas_lock = threading.Lock(), threading.Lock()
    _pools.clear()
    _blas_depth = getattr(_inside, "blas", 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def count(n_jobs: int | None) -> int:
    """How many workers `n_jobs` asks for, as scikit-learn counts: None is 1 outside a joblib context, -1 is all."""
    if getattr(_inside, "worker", False):
        return 1
    try:
        workers = _of_context() if n_jobs is None else operator.index(n_jobs)
    except TypeError:
        raise TypeError(f"n_jobs must be a whole number or None, got {n_jobs!r}") from None
    if workers == 0:
        raise ValueError("n_jobs must not be 0; use None or 1 for one thread, -1 for every processor")
    return workers if workers > 0 else max(1, processor_count() + 1 + workers)


@contextmanager
def alone() -> Iterator[None]:
    """Make this thread count as a worker: nested calls run in it."""
    before = getattr(_inside, "worker", False)
    _inside.worker = True
    try:
        yield
    finally:
        _inside.worker = before


def _of_context() -> int:
    """n_jobs of joblib's context (``parallel_config``); without importing joblib, which is slow."""
    joblib = sys.modules.get("joblib.parallel")
    n_jobs = None if joblib is None else joblib.get_active_backend()[1]
    return 1 if n_jobs is None else int(n_jobs)


def run(tasks: Iterable[Callable[[], T]], n_jobs: int | None = None) -> list[T]:
    """Call every task, at most `n_jobs` at a time, and return their results in order; the first error is raised.

    Inside a worker, tasks run one after another: nested calls do not oversubscribe.
    """
    tasks = list(tasks)
    workers = min(count(n_jobs), len(tasks))
    if workers <= 1:
        return [task() for task in tasks]
    return list(_pool(workers).map(_call, tasks))


def stream(tasks: Iterable[Callable[[], T]], n_jobs: int | None = None) -> Iterator[T]:
    """Results of tasks in their order, at most `n_jobs` at a time; the first error is raised.

    Unlike `run`, it starts tasks a few ahead of the reader: any number of them in bounded memory.
    """
    workers = count(n_jobs)
    if workers <= 1:
        yield from (task() for task in tasks)
        return
    waiting: deque[Future[T]] = deque()
    try:
        for task in tasks:
            waiting.append(_pool(workers).submit(task))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _call(task: Callable[[], T]) -> T:
    return task()


def _pool(workers: int) -> ThreadPoolExecutor:
    cpus = processors()
    key = (workers, cpus)
    with _lock:
        if key not in _pools:
            slots = iter(range(workers))

            def enter() -> None:
                _inside.worker = True
                slot = next(slots)
                if len(cpus) >= workers:
                    os.sched_setaffinity(0, {cpus[slot]})

            _pools[key] = ThreadPoolExecutor(workers, "fvlrp", initializer=enter)
        return _pools[key]


# ---- threads of the matrix products ----------------------------------------------------------------------------------

_blas_lock = threading.Lock()
_blas_depth = 0
_blas_limit: Untyped = None


@contextmanager
def blas_threads(n_jobs: int | None) -> Iterator[None]:
    """Keep matrix products to as many threads as `n_jobs` asks for; the outermost of nested calls decides.

    The limit belongs to the process: it is set by the first to enter and lifted by the last to leave, so that passes in
    several threads cannot restore each other's.
    """
    global _blas_depth, _blas_limit
    with _blas_lock:
        if not _blas_depth:
            _lift()  # a child may have been forked under its parent's limit
            _blas_limit = _controller().limit(limits=count(n_jobs), user_api="blas")
        _blas_depth += 1
        _inside.blas = getattr(_inside, "blas", 0) + 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_depth -= 1
            _inside.blas -= 1
            if not _blas_depth:
                _lift()


def _lift() -> None:
    global _blas_limit
    if _blas_limit is not None:
        _blas_limit.restore_original_limits()
        _blas_limit = None


@cache
def _controller() -> Untyped:
    """The BLAS libraries of this process, looked for once: it takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
