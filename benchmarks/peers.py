"""The tools that are compared, each behind the same few calls."""

import importlib
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any, Protocol

Function = Callable[[Any], Any]


class Unsupported(Exception):
    """The tool has no such call."""


class Session(Protocol):
    """A pool that is running."""

    def call(self, function: Function, item: Any) -> Any:
        """One task, there and back."""

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        """Tasks one by one, a handle for each."""

    def gather(self, handles: list[Any]) -> None:
        """Waits for the results of handles."""

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> None:
        """All items, `chunksize` a task; None leaves it to the tool."""


class PoolSession:
    """multiprocessing.Pool, and what has its calls: shoal.Pool and ThreadPool."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def call(self, function: Function, item: Any) -> Any:
        return self.pool.apply(function, (item,))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        submit = self.pool.apply_async
        return [submit(function, (item,)) for item in items]

    def gather(self, handles: list[Any]) -> None:
        for handle in handles:
            handle.get()

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> None:
        self.pool.map(function, items, chunksize=chunksize)


class ExecutorSession:
    """concurrent.futures.ProcessPoolExecutor."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self.executor = executor

    def call(self, function: Function, item: Any) -> Any:
        return self.executor.submit(function, item).result()

    def submit(self, function: Function, items: Sequence[Any]) -> list[Future[Any]]:
        submit = self.executor.submit
        return [submit(function, item) for item in items]

    def gather(self, handles: list[Future[Any]]) -> None:
        for handle in handles:
            handle.result()

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> None:
        # Its own default is 1.
        list(self.executor.map(function, items, chunksize=chunksize or 1))


class JoblibSession:
    """joblib with its loky workers, which stay from call to call."""

    def __init__(self, joblib: Any, workers: int) -> None:
        self.joblib = joblib
        self.workers = workers
        self.batching = joblib.Parallel(n_jobs=workers)

    def call(self, function: Function, item: Any) -> Any:
        return self.batching([self.joblib.delayed(function)(item)])[0]

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        raise Unsupported("joblib gives no handles")

    def gather(self, handles: list[Any]) -> None:
        raise Unsupported("joblib gives no handles")

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> None:
        parallel = self.batching if chunksize is None else self.joblib.Parallel(self.workers, batch_size=chunksize)
        delayed = self.joblib.delayed(function)
        parallel(delayed(item) for item in items)


class MpireSession:
    """mpire.WorkerPool."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def call(self, function: Function, item: Any) -> Any:
        return self.pool.apply(function, (item,))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        submit = self.pool.apply_async
        return [submit(function, (item,)) for item in items]

    def gather(self, handles: list[Any]) -> None:
        for handle in handles:
            handle.get()

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> None:
        self.pool.map(function, items, chunk_size=chunksize)


@contextmanager
def _shoal(workers: int) -> Iterator[Session]:
    import shoal

    with shoal.Pool(workers) as pool:
        yield PoolSession(pool)


@contextmanager
def _multiprocessing(workers: int) -> Iterator[Session]:
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield PoolSession(pool)


@contextmanager
def _executor(workers: int) -> Iterator[Session]:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as executor:
        yield ExecutorSession(executor)


@contextmanager
def _threads(workers: int) -> Iterator[Session]:
    with ThreadPool(workers) as pool:
        yield PoolSession(pool)


@contextmanager
def _joblib(workers: int) -> Iterator[Session]:
    import joblib
    from joblib.externals.loky import get_reusable_executor

    yield JoblibSession(joblib, workers)
    get_reusable_executor().shutdown(wait=True)


@contextmanager
def _mpire(workers: int) -> Iterator[Session]:
    mpire: Any = importlib.import_module("mpire")
    with mpire.WorkerPool(workers, start_method="fork") as pool:
        yield MpireSession(pool)


@dataclass(frozen=True)
class Peer:
    """A tool, by the module it comes in and the way to start a pool of some workers."""

    name: str
    module: str
    session: Callable[[int], Any]

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return importlib.util.find_spec(self.module) is not None


SHOAL = "shoal"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(SHOAL, "shoal", _shoal),
        Peer("multiprocessing", "multiprocessing", _multiprocessing),
        Peer("executor", "concurrent.futures", _executor),
        Peer("threads", "multiprocessing.pool", _threads),
        Peer("joblib", "joblib", _joblib),
        Peer("mpire", "mpire", _mpire),
    )
}
