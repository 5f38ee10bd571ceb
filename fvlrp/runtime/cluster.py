"""One way to call a function many times: on threads of this process, or on the workers of a dask cluster.

Inside ``joblib.parallel_config(backend="dask")``, methods that take many images run on that backend's client. Hides the
client, which arguments are sent once, and how far ahead of the reader calls run. If a worker dies, dask repeats its
calls on another one, with bit-identical results. For every ring above.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Protocol, TypeVar, TypeVarTuple

from . import threads
from .types import Untyped

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

AHEAD = 2  # calls for each thread of the cluster that are sent before their results are read
_names = count()


class Workers(Protocol):
    """Calls functions, here or elsewhere."""

    @property
    def remote(self) -> bool:
        """Whether calls run in other processes, which share files with this one at most."""

    def keep(self, value: T) -> T:
        """`value` as an argument of many calls: it is sent once."""

    def each(self, function: Callable[[*Arguments], T], calls: Iterable[tuple[*Arguments]]) -> Iterator[T]:
        """Results of `function` for tuples of arguments, in their order, a few ahead of the reader."""


class Threads:
    """Threads of this process, as many as `n_jobs` asks for."""

    remote = False

    def __init__(self, n_jobs: int | None) -> None:
        self._n_jobs = n_jobs

    def keep(self, value: T) -> T:
        return value

    def each(self, function: Callable[[*Arguments], T], calls: Iterable[tuple[*Arguments]]) -> Iterator[T]:
        return threads.stream((partial(function, *call) for call in calls), self._n_jobs)


class Cluster:
    """The workers of a dask client.

    Parameters
    ----------
    client : distributed.Client
    """

    remote = True

    def __init__(self, client: Untyped) -> None:
        self._client = client

    @property
    def threads(self) -> int:
        """How many calls run at a time."""
        running: dict[str, int] = self._client.nthreads()
        return max(1, sum(running.values()))

    def keep(self, value: T) -> T:
        """A future of `value`. It is the result of a call, which dask repeats if its worker dies."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            kept: T = self._client.submit(_same, value, key=f"fvlrp-kept-{id(self)}-{next(_names)}", pure=False)
        return kept

    def call(self, function: Callable[[*Arguments], T], *args: *Arguments) -> T:
        """The result of one call."""
        result: T = self._client.submit(_alone, function, *args, pure=False).result()
        return result

    def each(self, function: Callable[[*Arguments], T], calls: Iterable[tuple[*Arguments]]) -> Iterator[T]:
        waiting: deque[Untyped] = deque()
        try:
            for call in calls:
                waiting.append(self._client.submit(_alone, function, *call, pure=False))
                if len(waiting) >= AHEAD * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            if waiting:
                self._client.cancel(list(waiting))


def workers(n_jobs: int | None) -> Workers:
    """The client of joblib's context, if that is dask's; otherwise threads."""
    client = _client()
    return Threads(n_jobs) if client is None else Cluster(client)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster of the scheduler at `address`, such as "tcp://10.0.0.1:8786".

    Raises
    ------
    ImportError
        distributed is not installed.
    OSError
        No scheduler answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("a scheduler needs dask: pip install 'fvlrp[distributed]'") from None
    try:
        client = Client(address, set_as_default=False)
    except ValueError as error:
        raise OSError(f"{address!r} is not the address of a scheduler: {error}") from error
    with client:
        yield Cluster(client)


def _client() -> Untyped:
    joblib = sys.modules.get("joblib.parallel")  # there can be no context before joblib is imported
    backend = None if joblib is None else joblib.get_active_backend()[0]
    return getattr(backend, "client", None) if type(backend).__name__ == "DaskDistributedBackend" else None


def _same(value: T) -> T:
    return value


def _alone(function: Callable[[*Arguments], T], *args: *Arguments) -> T:
    """One call on a worker, in a single thread: dask runs one call per thread."""
    with threads.alone():
        return function(*args)
