"""Run GIL-free kernels over bands of rows, with workers pinned to the processors that the caller may use.

The kernels are single-threaded; a call is cut into tasks the same way for every number of workers, so results are the
same bits. Workers are pinned because two unpinned ones often land on one processor; the caller's own affinity is
never touched. Pools are kept per process: a forked child starts its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

import joblib

_lock = threading.Lock()
_pools: dict[tuple, ThreadPoolExecutor] = {}
_inside = threading.local()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _pools.clear()


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
