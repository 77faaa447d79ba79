"""The calls that figures are made of, and the tools whose pools have them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
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

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        """All items, `chunksize` a task; None leaves it to the tool."""

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        """`function(array, item)` for all items, in one call: the tool's own way for arguments that tasks share."""


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

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        results: list[Any] = self.pool.map(function, items, chunksize=chunksize)
        return results

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        results: list[Any] = self.pool.starmap(function, [(array, item) for item in items], chunksize)
        return results


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

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        # Its own default is 1.
        return list(self.executor.map(function, items, chunksize=chunksize or 1))

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        return self.map(partial(function, array), items, chunksize)


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

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        parallel = self.batching if chunksize is None else self.joblib.Parallel(self.workers, batch_size=chunksize)
        delayed = self.joblib.delayed(function)
        results: list[Any] = parallel(delayed(item) for item in items)
        return results

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        parallel = self.batching if chunksize is None else self.joblib.Parallel(self.workers, batch_size=chunksize)
        delayed = self.joblib.delayed(function)
        results: list[Any] = parallel(delayed(array, item) for item in items)
        return results


class MpireSession(PoolSession):
    """mpire.WorkerPool: the same calls, but for what a map is told."""

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        results: list[Any] = self.pool.map(function, items, chunk_size=chunksize)
        return results

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        results: list[Any] = self.pool.map(function, [(array, item) for item in items], chunk_size=chunksize)
        return results
