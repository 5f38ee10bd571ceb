"""Memory that is used again: never while anything still reads it, and never more than is allowed to wait."""

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fvlrp
from fvlrp.runtime import memory


@pytest.fixture(autouse=True)
def nothing_waits():
    gc.collect()
    memory._waiting.clear()
    yield
    memory._waiting.clear()


def address(array):
    return array.__array_interface__["data"][0]


def waiting():
    return sum(entry.size for entry in memory._waiting)


@pytest.mark.parametrize("dtype", ("uint8", "float32", "float64"))
def test_memory_is_used_again_once_an_array_is_gone(dtype):
    shape = (3, memory.LARGE // 2)
    first = memory.empty(shape, dtype)
    assert (first.shape, first.dtype) == (shape, np.dtype(dtype))
    assert first.flags.writeable and first.flags.c_contiguous and address(first) % 64 == 0
    where = address(first)
    del first
    assert address(memory.empty(shape, dtype)) == where


def test_a_view_keeps_its_memory():
    first = memory.zeros((memory.LARGE,), np.float64)
    corner, where = first[5:7].reshape(2, 1), address(first)
    del first
    second = memory.empty((memory.LARGE,), np.float64)
    second.fill(7)
    assert address(second) != where
    assert not corner.any()
    del corner
    assert waiting() >= 8 * memory.LARGE


def test_zeros_are_zero_in_memory_that_was_used():
    memory.zeros((memory.LARGE,), np.float64).fill(3)
    assert waiting()
    assert not memory.zeros((memory.LARGE,), np.float64).any()


def test_much_larger_memory_than_is_asked_for_is_left_alone():
    memory.empty((4 * memory.LARGE,), np.uint8)
    small = memory.empty((memory.LARGE,), np.uint8)
    assert waiting() >= 4 * memory.LARGE
    assert small.size == memory.LARGE


def test_small_arrays_do_not_wait():
    memory.empty((memory.LARGE // 8 - 1,), np.float64)
    assert not waiting()


def test_what_waits_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 5 * memory.LARGE)
    arrays = [memory.empty((size * memory.LARGE,), np.uint8) for size in (2, 3, 1, 6)]
    where = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
        assert waiting() <= 5 * memory.LARGE
    assert [address(entry.memory) for entry in memory._waiting] == where[1:3]


def test_threads_never_share_memory():
    def work(value):
        for _ in range(50):
            array = memory.empty((memory.LARGE + value,), np.uint8)
            array.fill(value)
            if not (array == value).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(1, 9)))
    assert waiting() <= memory.KEPT


def test_heatmaps_outlive_what_made_them():
    clf, image = fvlrp.load("voc20"), np.random.default_rng(0).integers(0, 256, (420, 430, 3), np.uint8)
    kept = clf.explain(image, "cat", "bin").heatmap
    copy = kept.copy()
    for target in ("dog", "person"):
        clf.explain(image, target, ["bin", "descriptor"])
    np.testing.assert_array_equal(kept, copy)


def test_nothing_is_said_when_the_interpreter_ends():
    code = "from fvlrp.runtime.memory import zeros as f; a = f((1 << 20,), 'f8'); b = [a[1:]]; c = f((9 << 20,), 'u1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
