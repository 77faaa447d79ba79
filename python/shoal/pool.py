"""`Pool`: worker processes that run functions, with the interface of `multiprocessing.Pool`.

    caller ── args pickled ──▶ task ring ──▶ worker: function(*args) ──▶ completion ring ──▶ whoever waits

What is quick is in the engine (`PoolBase`, `AsyncResult`, `Job`); what comes back later is in `results`.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping

from shoal import _checks, _engine, _launch
from shoal._engine import AsyncResult, Worker
from shoal.results import Callbacks, IMapIterator, MapResult, closed
from shoal.serialize.pickler import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, TypeVar

    R = TypeVar("R")

__all__ = ["AsyncResult", "IMapIterator", "MapResult", "Pool", "Worker"]

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """Worker processes that run functions. As `multiprocessing.Pool`, with the same methods.

    Whatever can be called here can be called there: functions of the script, lambdas, closures, bound methods. No
    `if __name__ == "__main__"` guard is needed. A worker that dies fails the task it was at with `WorkerDied` and is
    replaced.

    Args:
        processes: how many workers, 1 to 500. Default: as many as this process may use CPUs (`shoal.cpu_count()`).
        initializer: called in each worker before its first task. If it raises, the worker's next task gets the error.
        initargs: arguments of `initializer`.
        maxtasksperchild: a worker is replaced after so many tasks. Default: never.
        context: accepted for compatibility with `multiprocessing.Pool`, and not used: workers come from a zygote.
        preload: names of modules that workers will need, imported once before they are forked.
        memory_limit: the most shared memory, in bytes, that the pool's tasks may take at a time: what its workers have
            made shared arrays and results in, and the functions and arguments on their way. A task that needs more
            raises `OutOfSharedMemory`; the others go on. Default: as much as there is.

    Raises:
        TypeError, ValueError: an argument is not as described.
        ModuleNotFoundError: a module of `preload` can't be found.
        SerializationError: `initializer` or `initargs` can't be pickled.

    Example:
        >>> with shoal.Pool(2) as pool:
        ...     pool.map(lambda x: x * x, range(5))
        [0, 1, 4, 9, 16]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        preload: Iterable[str] = (),
        memory_limit: int | None = None,
    ) -> None:
        count = _checks.processes(processes)
        start = _checks.initializer(initializer, initargs)
        limit = _checks.memory_limit(memory_limit)
        setup = dumps(_launch.setup(start, _checks.maxtasksperchild(maxtasksperchild)))
        program, args, envs = _launch.command()
        self._owner = os.getpid()
        self._terminated = False
        self._callbacks: Callbacks | None = None
        self._streams: weakref.WeakSet[IMapIterator[Any]] = weakref.WeakSet()
        self._lock = threading.Lock()
        modules = _launch.preloaded(_checks.modules(preload))
        self._base = _engine.PoolBase(count, program, args, envs, modules, setup, limit)
        _pools.add(self)

    # ---- one call ----------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> R:
        """Call `func(*args, **kwds)` in a worker and wait for its result. As `multiprocessing.Pool.apply`.

        Args:
            func: what to call.
            args: its positional arguments.
            kwds: its keyword arguments.

        Returns:
            What it returns.

        Raises:
            BaseException: what it raises, with the worker's traceback as the cause.
            WorkerDied: the worker died at it.
            SerializationError: `func`, an argument or the result can't be pickled.
            PoolClosed: the pool is closed.
        """
        result: R = self.apply_async(func, args, kwds).get()
        return result

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[R]:
        """Call `func(*args, **kwds)` in a worker; returns at once. As `multiprocessing.Pool.apply_async`.

        Args:
            func: what to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: called with the result, in a thread of this process.
            error_callback: called with the exception, likewise.

        Returns:
            An `AsyncResult`.

        Raises:
            SerializationError: `func` or an argument can't be pickled.
            PoolClosed: the pool is closed.
        """
        if callback is None and error_callback is None:
            return self._base.submit_call(
                func, args if type(args) is tuple else tuple(args), dict(kwds) if kwds else None
            )
        _checks.callbacks(callback, error_callback)
        if not self._base.is_open:
            raise closed()
        return self._threads().call(func, tuple(args), dict(kwds), callback, error_callback)  # type: ignore[return-value]

    # ---- many calls --------------------------------------------------------------------------------------------------

    def map(self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int | None = None) -> list[R]:
        """Apply `func` to each item, in parallel; the results in order. As `multiprocessing.Pool.map`.

        Args:
            func: called with one item.
            iterable: the items. Read to its end first.
            chunksize: items a task. Default: as many as take about a millisecond, found out on the way; a worker that
                is free always gets the next ones, and what waits behind a long one is given to others.

        Returns:
            A list of what `func` returned.

        Raises:
            BaseException: the first exception that a task raised, after all have ended.
            ValueError: `chunksize` is less than 1, or the pool is closed.
        """
        return self._map_now(func, iterable, chunksize, star=False)

    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """As `map`, where each item is an iterable of positional arguments. As `multiprocessing.Pool.starmap`."""
        return self._map_now(func, iterable, chunksize, star=True)

    def map_async(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[R]:
        """As `map`, but returns a `MapResult` at once. As `multiprocessing.Pool.map_async`."""
        return self._map_later(func, iterable, chunksize, False, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[R]:
        """As `starmap`, but returns a `MapResult` at once. As `multiprocessing.Pool.starmap_async`."""
        return self._map_later(func, iterable, chunksize, True, callback, error_callback)

    def imap(self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator[R]:
        """Apply `func` to each item, in parallel; iterate over the results, in order. As `multiprocessing.Pool.imap`.

        Unlike there, the input is read only some items ahead of the results that were taken, so that it may be endless.

        Args:
            func: called with one item.
            iterable: the items.
            chunksize: items a task. Default: 1.

        Returns:
            An `IMapIterator`. Its `next(timeout)` raises `multiprocessing.TimeoutError`; a task's exception is raised
            where its result would have been.
        """
        return IMapIterator(self, func, iterable, _checks.chunksize(chunksize), ordered=True)

    def imap_unordered(self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator[R]:
        """As `imap`, with the results in the order in which they arrive. As `multiprocessing.Pool.imap_unordered`."""
        return IMapIterator(self, func, iterable, _checks.chunksize(chunksize), ordered=False)

    # ---- its life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more tasks; the workers end when all are done. As `multiprocessing.Pool.close`."""
        self._base.close_now()

    def terminate(self) -> None:
        """End the workers now. Tasks that have not ended raise `PoolClosed`. As `multiprocessing.Pool.terminate`."""
        self._terminated = True
        self._base.terminate_now()

    def join(self) -> None:
        """Wait until the workers have ended; `close` or `terminate` comes first. As `multiprocessing.Pool.join`.

        Raises:
            ValueError: the pool is still running.
        """
        if self._base.is_open:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        for stream in list(self._streams):
            # Whoever joins takes no results meanwhile: what imap has left to read is read now.
            stream._feed_all()
        if self._callbacks is not None:
            self._callbacks.join()
        self._base.wait_over()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers, as they are at this moment; those that are starting are waited for."""
        return self._base.workers

    def __enter__(self) -> Self:
        if not self._base.is_open:
            raise closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def __del__(self) -> None:
        # The engine ends the workers when its part goes; the warning is for whoever forgot.
        if hasattr(self, "_base") and self._owner == os.getpid() and self._base.is_open:
            import warnings

            warnings.warn(f"unclosed running pool {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.terminate()

    def __repr__(self) -> str:
        state = "RUN" if self._base.is_open else "CLOSE" if not self._terminated else "TERMINATE"
        return f"<shoal.Pool state={state} pool_size={self._base.size}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _threads(self) -> Callbacks:
        with self._lock:
            if self._callbacks is None:
                self._callbacks = Callbacks(self)
            return self._callbacks

    def _job(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, star: bool) -> _engine.Job:
        if not self._base.is_open:
            raise closed()
        if chunksize is not None:
            chunksize = _checks.chunksize(chunksize)
        items = iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)
        return _engine.Job(self._base, func, items, chunksize, star)

    def _map_now(self, func: Callable[..., R], iterable: Iterable[Any], chunksize: int | None, star: bool) -> list[R]:
        job = self._job(func, iterable, chunksize, star)
        job.run()
        return job.result()

    def _map_later(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> MapResult[R]:
        _checks.callbacks(callback, error_callback)
        # A copy: the caller may change the list before all of it is sent.
        items = list(iterable) if type(iterable) is list else iterable
        job = self._job(func, items, chunksize, star)
        more = job.start(chunksize is not None)
        result: MapResult[R] = MapResult(job, callback, error_callback)
        if more or callback is not None or error_callback is not None:
            self._threads().drive(result)
        return result


@atexit.register
def _end_pools() -> None:
    """At the end of the interpreter workers end, and what waits for them is told."""
    for pool in list(_pools):
        if pool._owner == os.getpid():
            pool.terminate()
            if pool._callbacks is not None:
                pool._callbacks.join()
