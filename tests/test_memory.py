"""Reused memory: never while an array still uses it, and in a bounded pool."""

import gc
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fvlrp
from fvlrp.runtime import memory


@pytest.fixture(autouse=True)
def empty_pool():
    gc.collect()
    memory._free.clear()
    yield
    memory._free.clear()


def address(array):
    return array.__array_interface__["data"][0]


def free_bytes():
    return sum(entry.size for entry in memory._free)


@pytest.mark.parametrize("dtype", ("uint8", "float32", "float64"))
def test_memory_is_reused_once_its_array_is_gone(dtype):
    shape = (3, memory.LARGE // 2)
    first = memory.empty(shape, dtype)
    assert (first.shape, first.dtype) == (shape, np.dtype(dtype))
    assert first.flags.writeable and first.flags.c_contiguous and address(first) % 64 == 0
    where = address(first)
    del first
    assert address(memory.empty(shape, dtype)) == where


def test_memory_is_not_reused_while_a_view_of_it_exists():
    first = memory.zeros((memory.LARGE,), np.float64)
    corner, where = first[5:7].reshape(2, 1), address(first)
    del first
    second = memory.empty((memory.LARGE,), np.float64)
    second.fill(7)
    assert address(second) != where
    assert not corner.any()
    del corner
    assert free_bytes() >= 8 * memory.LARGE


def test_zeros_are_zero_in_reused_memory():
    memory.zeros((memory.LARGE,), np.float64).fill(3)
    assert free_bytes()
    assert not memory.zeros((memory.LARGE,), np.float64).any()


def test_a_much_larger_block_is_not_reused():
    memory.empty((4 * memory.LARGE,), np.uint8)
    small = memory.empty((memory.LARGE,), np.uint8)
    assert free_bytes() >= 4 * memory.LARGE
    assert small.size == memory.LARGE


def test_small_arrays_are_not_pooled():
    memory.empty((memory.LARGE // 8 - 1,), np.float64)
    assert not free_bytes()


def test_the_pool_is_bounded_and_drops_its_oldest_blocks(monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 5 * memory.LARGE)
    arrays = [memory.empty((size * memory.LARGE,), np.uint8) for size in (2, 3, 1, 6)]
    where = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
        assert free_bytes() <= 5 * memory.LARGE
    assert [address(entry.memory) for entry in memory._free] == where[1:3]


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
    assert free_bytes() <= memory.KEPT


def test_later_explanations_do_not_overwrite_a_heatmap():
    clf, image = fvlrp.load("voc20"), np.random.default_rng(0).integers(0, 256, (420, 430, 3), np.uint8)
    kept = clf.explain(image, "cat", "bin").heatmap
    copy = kept.copy()
    for target in ("dog", "person"):
        clf.explain(image, target, ["bin", "descriptor"])
    np.testing.assert_array_equal(kept, copy)


def test_a_file_is_not_kept_in_memory_by_what_read_it(tmp_path):
    """References in a circle would keep all weights a second time, until garbage is collected."""
    pytest.importorskip("onnx")
    from test_importers import Graph

    from fvlrp.network.onnx.read import Reader

    path = Graph((1, 3, 16, 16)).conv("x", "c", 3, 4).pooled("c").save(tmp_path / "net.onnx")
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = fvlrp.Network.from_onnx(path)
        assert net.nodes and not any(isinstance(each, Reader) for each in gc.get_objects())
    finally:
        gc.enable()


def test_the_interpreter_exits_without_messages():
    code = "from fvlrp.runtime.memory import zeros as f; a = f((1 << 20,), 'f8'); b = [a[1:]]; c = f((9 << 20,), 'u1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
