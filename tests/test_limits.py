"""Memory and processors that a process has: the machine's, the container's, its own limit."""

import subprocess
import sys
import threading

import joblib
import pytest

from fvlrp.runtime import limits


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A container's limits, as files: group(name, text)."""
    monkeypatch.setattr(limits, "GROUP", str(tmp_path))

    def write(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_processors_are_those_that_joblib_counts():
    assert limits.processor_count() == joblib.cpu_count()


@pytest.mark.parametrize(("quota", "count"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_a_container_has_its_share_of_processors(group, quota, count):
    group("cpu.max", quota)
    assert limits.processor_count() == (count or len(limits.processors()))


def test_the_older_layout_of_control_groups_is_read(group):
    group("cpu/cpu.cfs_quota_us", "100000")
    group("cpu/cpu.cfs_period_us", "100000")
    group("memory/memory.limit_in_bytes", "1000000")
    group("memory/memory.usage_in_bytes", "700000")
    group("memory/memory.stat", "cache 5\ntotal_inactive_file 1000\n")
    assert limits.processor_count() == 1 and limits.available() == 301_000


def test_an_environment_variable_lowers_the_number_of_processors(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert limits.processor_count() == 1


def test_a_container_has_its_share_of_memory(group):
    free = limits.available()
    assert free > 0
    group("memory.max", "max")
    group("memory.current", "700000")
    group("memory.stat", "anon 5\ninactive_file 1000")
    assert limits.available() > 1_000_000
    group("memory.max", "1000000")
    assert limits.available() == 301_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_resource_limit_of_the_process_is_respected():
    code = (
        "import resource\n"
        "from fvlrp.runtime import limits\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "print(limits.available())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 3 << 30


def test_errors_for_mismatched_sizes_name_both(monkeypatch):
    monkeypatch.setattr(limits, "available", lambda: 6_100_000_000)
    limits.require(6_000_000_000, "it")
    with pytest.raises(MemoryError, match=r"^image x would take 9\.2 GB of memory, and 6\.1 GB are free$"):
        limits.require(9_200_000_000, "image x")


@pytest.mark.parametrize(("size", "words"), [(640e6, "640 MB"), (9.2e9, "9.2 GB"), (1e3, "0 MB")])
def test_sizes_are_readable(size, words):
    assert limits.readable(size) == words


def test_a_budget_is_never_exceeded_except_by_a_task_that_runs_alone():
    budget, most, now, lock = limits.Budget(10), 0, 0, threading.Lock()

    def work(size):
        nonlocal most, now
        with budget.use(size):
            with lock:
                now += size
                most = max(most, now)
            threading.Event().wait(0.002)
            with lock:
                now -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in [3, 4, 5, 6] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 6 <= most <= 10
    with budget.use(100):
        pass
