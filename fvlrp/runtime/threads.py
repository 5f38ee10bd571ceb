"""Run GIL-free kernels over bands of rows, with workers pinned to the processors that the caller may use; limit BLAS.

The kernels are single-threaded; a call is cut into tasks the same way for every number of workers, so results are the
same bits. Workers are pinned because two unpinned ones often land on one processor; the caller's own affinity is
never touched. Pools are kept per process: a forked child starts its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from typing import Any

import joblib

AHEAD = 2  # tasks per worker that `stream` starts before their results are read

_lock = threading.Lock()
_pools: dict[tuple, ThreadPoolExecutor] = {}
_inside = threading.local()


def _forget() -> None:
    """In a forked child: of the parent's threads only the one that forked is there."""
    global _lock, _blas_lock, _blas_depth
    _lock, _blas_lock = threading.Lock(), threading.Lock()
    _pools.clear()
    _blas_depth = getattr(_inside, "blas", 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def processors() -> tuple[int, ...]:
    """Processors that this thread may run on; empty where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def count(n_jobs: int | None) -> int:
    """How many workers `n_jobs` asks for, as scikit-learn counts: None is 1 outside a joblib context, -1 is all."""
    if getattr(_inside, "worker", False):
        return 1
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; use None or 1 for one thread, -1 for every processor")
    if n_jobs is not None and not isinstance(n_jobs, Integral):
        raise TypeError(f"n_jobs must be a whole number or None, got {n_jobs!r}")
    return joblib.effective_n_jobs(n_jobs)


def run(tasks: Iterable[Callable[[], Any]], n_jobs: int | None = None) -> list:
    """Call every task, at most `n_jobs` at a time, and return their results in order; the first error is raised.

    Inside a worker, tasks run one after another: nested calls do not oversubscribe.
    """
    tasks = list(tasks)
    workers = min(count(n_jobs), len(tasks))
    if workers <= 1:
        return [task() for task in tasks]
    return list(_pool(workers).map(_call, tasks))


def stream(tasks: Iterable[Callable[[], Any]], n_jobs: int | None = None) -> Iterator[Any]:
    """Results of tasks in their order, at most `n_jobs` at a time; the first error is raised.

    Unlike `run`, it starts tasks a few ahead of the reader: any number of them in bounded memory.
    """
    workers = count(n_jobs)
    if workers <= 1:
        yield from (task() for task in tasks)
        return
    waiting: deque[Future[Any]] = deque()
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


def _call(task):
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
_blas_limit = None


@contextmanager
def blas_threads(n_jobs: int | None):
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
def _controller():
    """The BLAS libraries of this process, looked for once: it takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
