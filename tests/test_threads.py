"""Bands of rows on pinned workers: order, errors, n_jobs, affinity, forks."""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fvlrp import _kernels
from fvlrp.runtime import threads

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity masks")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
needs_two = pytest.mark.skipif(len(threads.processors()) < 2, reason="needs two processors")


def meeting(workers):
    """Tasks that finish only when all of them run at once: each then surely has a worker of its own."""
    barrier = threading.Barrier(workers, timeout=20)

    def task(what):
        barrier.wait()
        return what()

    return [partial(task, threading.get_ident)] * workers, task


@pytest.mark.parametrize("n_jobs", (None, 1, 2, 3, -1))
def test_results_come_in_the_order_of_the_tasks(n_jobs):
    def task(i):
        time.sleep(0.002 * (5 - i))  # the first takes longest
        return i

    assert threads.run((partial(task, i) for i in range(5)), n_jobs) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n_jobs", (1, 2, -1))
def test_no_tasks_have_no_results(n_jobs):
    assert threads.run([], n_jobs) == []


@pytest.mark.parametrize("n_jobs", (1, 2, 3))
def test_the_first_error_is_raised_and_the_pool_lives_on(n_jobs):
    def task(i):
        if i == 1:
            time.sleep(0.02)  # fails after task 2 has failed
        if i in (1, 2):
            raise ArithmeticError(f"task {i}")
        return i

    with pytest.raises(ArithmeticError, match="task 1"):
        threads.run([partial(task, i) for i in range(4)], n_jobs)
    assert threads.run([partial(task, i) for i in (0, 3)], n_jobs) == [0, 3]


# ---- n_jobs ----------------------------------------------------------------------------------------------------------


def test_n_jobs_counts_as_in_scikit_learn():
    assert threads.count(None) == 1
    assert threads.count(3) == 3
    assert threads.count(-1) == joblib.effective_n_jobs(-1)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        threads.count(0)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        threads.run([int, int], 0)


def in_a_daemon(connection):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        connection.send((threads.count(-1), [str(warning.message) for warning in caught]))


def test_children_of_multiprocessing_have_all_threads():
    """joblib would warn about loky there and count one: the threads are our own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=in_a_daemon, args=(there,), daemon=True)
    child.start()
    assert here.poll(60) and here.recv() == (threads.count(-1), [])
    child.join()


@pytest.mark.parametrize("n_jobs", [-2, -3, -100])
def test_negative_numbers_count_back_from_all_processors(n_jobs, monkeypatch):
    monkeypatch.setattr(threads, "processor_count", lambda: 8)
    assert threads.count(n_jobs) == max(1, 9 + n_jobs)


@pytest.mark.parametrize("n_jobs", [2.0, "2", [2]])
def test_n_jobs_is_a_whole_number(n_jobs):
    with pytest.raises(TypeError, match="n_jobs must be a whole number or None"):
        threads.count(n_jobs)


def test_none_takes_its_number_from_joblibs_context():
    with joblib.parallel_config("threading", n_jobs=2):
        assert threads.count(None) == 2
        assert threads.count(1) == 1
        tasks, _ = meeting(2)
        assert len(set(threads.run(tasks))) == 2
    assert threads.count(None) == 1


def test_one_job_runs_in_the_callers_thread():
    assert threads.run([threading.get_ident] * 3, 1) == [threading.get_ident()] * 3


def test_two_jobs_run_at_once_outside_the_callers_thread():
    tasks, _ = meeting(2)
    idents = threads.run(tasks, 2)
    assert len(set(idents)) == 2 and threading.get_ident() not in idents


def test_at_most_n_jobs_workers_run_at_once():
    running, most, lock = 0, 0, threading.Lock()

    def task():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    threads.run([task] * 8, 2)
    assert most == 2


def test_nested_calls_in_a_worker_run_sequentially():
    def outer():
        me = threading.get_ident()
        return threads.count(-1), threads.run([threading.get_ident] * 3, 4) == [me] * 3

    assert threads.run([outer] * 4, 2) == [(1, True)] * 4
    assert threads.count(2) == 2


def test_run_can_be_called_from_several_threads():
    def caller(results, i):
        results[i] = threads.run([partial(int, i * 10 + j) for j in range(10)], 2)

    results = [None] * 6
    callers = [threading.Thread(target=caller, args=(results, i)) for i in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert results == [list(range(i * 10, i * 10 + 10)) for i in range(6)]


# ---- affinity --------------------------------------------------------------------------------------------------------


@needs_affinity
@needs_two
def test_workers_are_pinned_to_processors_of_their_own_and_the_caller_is_not():
    before = os.sched_getaffinity(0)
    _, task = meeting(2)
    masks = threads.run([partial(task, lambda: frozenset(os.sched_getaffinity(0)))] * 2, 2)
    assert [len(mask) for mask in masks] == [1, 1]
    assert len(set(masks)) == 2
    assert set().union(*masks) <= before
    assert os.sched_getaffinity(0) == before


@needs_affinity
def test_workers_stay_within_a_narrower_mask_of_the_caller():
    before = os.sched_getaffinity(0)
    one = {max(before)}
    try:
        os.sched_setaffinity(0, one)
        _, task = meeting(2)
        masks = threads.run([partial(task, lambda: os.sched_getaffinity(0))] * 2, 2)
    finally:
        os.sched_setaffinity(0, before)
    assert masks == [one, one]


@needs_affinity
def test_more_workers_than_processors_are_not_pinned():
    before = os.sched_getaffinity(0)
    count = len(before) + 1
    _, task = meeting(count)
    masks = threads.run([partial(task, lambda: os.sched_getaffinity(0))] * count, count)
    assert masks == [before] * count


# ---- forks -----------------------------------------------------------------------------------------------------------


def squares(n):
    return threads.run([partial(pow, i, 2) for i in range(n)], 2)


def forked(check=lambda: squares(5) == [0, 1, 4, 9, 16]):
    """Process id of a child that exits with 0 if its check holds: by default, that it runs tasks."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = 0 if check() else 2
    finally:
        os._exit(code)


def exit_code(child, patience=20.0):
    """The child's exit code; "hung" for one that had to be killed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_runs_tasks_of_its_own():
    """The parent's workers do not exist in the child, which must not wait for them."""
    assert squares(4) == [0, 1, 4, 9]
    child = forked()
    assert exit_code(child) == 0
    assert squares(3) == [0, 1, 4]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_starts_workers_does_not_deadlock():
    with threads._lock:
        child = forked()
    assert exit_code(child) == 0


def blas_counts():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_holds_a_blas_limit_sets_its_own():
    """The thread that would lift the parent's limit does not exist in the child."""
    np.ones((2, 2)) @ np.ones((2, 2))
    entered, leave = threading.Event(), threading.Event()

    def limit():
        with threads.blas_threads(1):
            entered.set()
            leave.wait(60)

    def check():
        with threads.blas_threads(1):
            limited = set(blas_counts()) == {1}
        return limited and blas_counts() == before

    with threadpool_limits(2, "blas"):
        before = blas_counts()
        other = threading.Thread(target=limit)
        other.start()
        entered.wait(60)
        child = forked(check)
        code = exit_code(child)
        leave.set()
        other.join()
        assert code == 0 and blas_counts() == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def test_processes_of_multiprocessing_run_tasks(method):
    assert squares(2) == [0, 1]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(squares, (4,)).get(timeout=60) == [0, 1, 4, 9]


# ---- bits ------------------------------------------------------------------------------------------------------------


def test_kernels_give_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (400, 128), dtype=np.uint8)
    basis = np.linalg.qr(rng.standard_normal((128, 17)))[0].T
    y = x @ basis.T
    means = y[rng.choice(400, 9)]
    model = _kernels.Model(basis, None, np.full(9, 1 / 9), means, np.tile(y.var(axis=0), (9, 1)), 1e-6, "float32")
    bands = [np.arange(i, min(i + 37, 400)) for i in range(0, 400, 37)]

    def encode(rows):
        encoded, sums = model.encode(x, rows)
        return [encoded.y, encoded.indptr, encoded.index, encoded.gamma, *sums]

    one, *others = (threads.run([partial(encode, rows) for rows in bands], n) for n in (1, 2, 3, 7))
    for other in others:
        for expected, got in zip(one, other, strict=True):
            assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]
