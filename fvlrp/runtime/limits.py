"""How much memory and how many processors this process may use. Hides how the system reports them.

For every ring above.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import resource

CERTAIN = 256 << 20  # bytes that `require` assumes to be free without checking
GROUP = "/sys/fs/cgroup"  # a container's limits

# ---- processors ------------------------------------------------------------------------------------------------------


def processors() -> tuple[int, ...]:
    """Processors that this thread may run on; empty if the system does not report them."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def processor_count() -> int:
    """How many threads can run at a time: processors, a container's share of them, and LOKY_MAX_CPU_COUNT, if set.

    joblib counts the same.
    """
    counts = [len(processors()) or os.cpu_count() or 1, *_share()]
    with suppress(KeyError, ValueError):
        counts.append(int(os.environ["LOKY_MAX_CPU_COUNT"]))
    return max(1, min(counts))


def _share() -> list[int]:
    """A control group's processor quota, if there is one."""
    with suppress(OSError, ValueError):
        quota, period = map(int, Path(GROUP, "cpu.max").read_text().split())  # a quota may be "max"
        return [math.ceil(quota / period)]
    with suppress(OSError, ValueError):
        quota, period = (int(Path(GROUP, "cpu", f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return [math.ceil(quota / period)] if quota > 0 else []
    return []


# ---- memory ----------------------------------------------------------------------------------------------------------


def available() -> int:
    """Bytes that this process may still take: of the machine, of its control group, of its own limit."""
    limits = [_machine(), *_control_group(), *_own_limit()]
    return max(0, min(limits))


def _machine() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):  # total memory, if free memory is not reported
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def _control_group() -> list[int]:
    """What a container's limit leaves, if there is one. Cached files can be evicted and do not count as used."""
    found = []
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError, KeyError):  # no such file, or a limit of "max"
            most, now = (int(Path(GROUP, name).read_text()) for name in (limit, used))
            accounts = Path(GROUP, limit).with_name("memory.stat").read_text().splitlines()
            found.append(most - now + int(dict(line.split() for line in accounts)[cached]))
    return found


def _own_limit() -> list[int]:
    if sys.platform == "win32":
        return []
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    with suppress(OSError, ValueError):
        return [limit - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")]
    return [limit]


def readable(size: float) -> str:
    """A number of bytes as text: "640 MB", "9.2 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def require(size: int, what: str) -> None:
    """Raise MemoryError if `what` would take more memory than is free.

    Without this check the system may kill the process instead of failing the allocation.
    """
    if size > CERTAIN and size > (free := available()):
        raise MemoryError(f"{what} would take {readable(size)} of memory, and {readable(free)} are free")


class Budget:
    """A number of bytes shared by tasks: each waits until its own are free.

    Parameters
    ----------
    total : int
    """

    def __init__(self, total: int) -> None:
        self.total, self._used, self._changed = total, 0, threading.Condition()

    @contextmanager
    def use(self, size: int) -> Iterator[None]:
        """Reserve `size` bytes inside the block. A task that runs alone may exceed the total."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self.total)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()
