"""`Executor`: a pool with the interface of `concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVar

from shoal import _checks
from shoal._terms import check_names
from shoal._text import name_of, running
from shoal.pool import Pool, Worker

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

    from shoal._terms import TaskOptions
    from shoal.random import Seed

__all__ = ["Executor"]

R = TypeVar("R")

# Those that have not been shut down, and pools whose executors are gone or did not wait, with tasks still to do.
_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
_parting: list[Pool] = []


class Executor(futures.Executor):
    """Worker processes that run functions. As `concurrent.futures.ProcessPoolExecutor`, with the same methods.

    Whatever can be called here can be called there: lambdas, closures, bound methods, functions of the script. No
    `if __name__ == "__main__"` guard is needed. A worker that dies fails the task it was at, with `WorkerDied`, and is
    replaced: the executor does not break.

    Args:
        max_workers: how many workers, 1 to 500. Default: as many as this process may use CPUs.
        mp_context: accepted for compatibility, and not used: workers come from a zygote.
        initializer: called in each worker before its first task. If it raises, the worker's next task raises
            `BrokenProcessPool`, and the next worker tries again.
        initargs: arguments of `initializer`.
        max_tasks_per_child: a worker is replaced after so many tasks. Default: never.
        preload: names of modules that workers will need, imported once before they are forked.
        memory_limit: the most shared memory, in bytes, that tasks may take at a time. See `Pool`.
        threads_per_worker, worker_memory_limit, maxmemoryperchild, idle_timeout, affinity, unresponsive_after: what
            workers may take, and where they run. See `Pool`.
        seed: what the random numbers of tasks depend on. See `shoal.rng`.
        logs, warnings, output: whether what workers log, warn of and print is heard here. See `Pool`.
        kind: "process"; or "thread", for threads of this process. See `Pool`.
        cluster, node_timeout: for the machines of a Dask cluster, each with `max_workers` workers. See `Pool`.
        options: the terms of all its tasks, `timeout`, `retries` and so on. See `Pool.options`.

    Raises:
        TypeError, ValueError: an argument is not as described.
        ModuleNotFoundError: a module of `preload` can't be found.
        SerializationError: `initializer` or `initargs` can't be pickled.

    Example:
        >>> with shoal.Executor() as executor:
        ...     future = executor.submit(pow, 2, 10)
        ...     list(executor.map(lambda x: x * x, range(5))), future.result()
        ([0, 1, 4, 9, 16], 1024)
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        preload: Iterable[str] = (),
        memory_limit: int | None = None,
        threads_per_worker: int | None = None,
        worker_memory_limit: int | None = None,
        maxmemoryperchild: int | None = None,
        idle_timeout: float | None = None,
        affinity: str | Iterable[int | Iterable[int]] | None = None,
        unresponsive_after: float | None = 30.0,
        seed: Seed | None = None,
        logs: bool = True,
        warnings: bool = True,
        output: bool = True,
        kind: str = "process",
        cluster: object = None,
        node_timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        check_names(options)
        count = _checks.processes(max_workers, "max_workers")
        start = _checks.initializer(initializer, initargs)
        if start is not None:
            initializer, initargs = _initialize, start
        most = _checks.maxtasksperchild(max_tasks_per_child, "max_tasks_per_child")
        # Each node of a cluster knows for itself how many it can have.
        many: Any = {} if cluster is None else {"cluster": cluster}
        self._root: Executor | None = None
        self._pool = Pool(
            max_workers if many else count,
            initializer,
            initargs,
            most,
            preload=preload,
            memory_limit=memory_limit,
            threads_per_worker=threads_per_worker,
            worker_memory_limit=worker_memory_limit,
            maxmemoryperchild=maxmemoryperchild,
            idle_timeout=idle_timeout,
            affinity=affinity,
            unresponsive_after=unresponsive_after,
            seed=seed,
            logs=logs,
            warnings=warnings,
            output=output,
            kind=kind,
            node_timeout=node_timeout,
            **many,
            **options,
        )
        # Dask reads this one of the standard library's executors.
        self._max_workers = self._pool._base.size
        self._owner = os.getpid()
        for pool in [pool for pool in _parting if pool._base.wait_over(0)]:
            # Another thread may have found it, too.
            with contextlib.suppress(ValueError):
                _parting.remove(pool)
        _executors.add(self)

    def options(self, *, seed: Seed | None = None, **options: Unpack[TaskOptions]) -> Self:
        """This executor, with other terms for the tasks that are submitted through it. As `Pool.options`.

        Example:
            >>> with shoal.Executor() as executor:
            ...     executor.options(timeout=60, retries=2).submit(pow, 2, 10).result()
            1024
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._root = self._root or self
        view._pool = self._pool.options(seed=seed, **options)
        return view

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> futures.Future[R]:
        """Call `fn(*args, **kwargs)` in a worker; returns a future at once. As `ProcessPoolExecutor.submit`.

        Raises:
            SerializationError: `fn` or an argument can't be pickled.
            PoolClosed: the executor was shut down. It is a `RuntimeError`, as the standard library raises.
        """
        return self._pool.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Call `fn` with the items of `iterables`, in parallel; iterate over the results, in order.

        As `ProcessPoolExecutor.map`: everything is submitted at once, whether or not somebody takes the results.
        `Pool.imap` reads its input as the results are taken, and finds a chunk size by itself.

        Args:
            fn: called with one item of each iterable; sent once, as it is now.
            iterables: with several, the shortest decides.
            timeout: seconds from this call on, after which a result that is not there raises `TimeoutError`.
            chunksize: items a task. With more than one, an exception takes the place of all results of its chunk.
            buffersize: how many tasks may be submitted without their results having been taken. Then the input is read
                as far as that, and may be endless. Default: all.

        Returns:
            An iterator. What a task raised is raised in the place of its result; then, and when the iterator is closed,
            the tasks that no worker has taken are cancelled.

        Raises:
            TypeError: `fn` can't be called, or a size is no integer.
            ValueError: a size is less than 1.
            SerializationError: `fn` or an item can't be pickled.
            PoolClosed: the executor was shut down.
        """
        until = None if timeout is None else time.monotonic() + timeout
        chunksize = _checks.chunksize(chunksize)
        buffersize = _checks.buffersize(buffersize)
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {type(fn).__name__}")
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        seeds = self._pool._seeds
        if seeds is not None:
            # As in a pool: one call, whose items have a stream each, whatever chunks they travel in.
            fn, calls = seeds.item(fn, star=True), zip(zip(calls, seeds.places(), strict=False), strict=True)
        if chunksize == 1:
            return _results(self, fn, calls, buffersize, until)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        each = functools.partial(_call_each, fn)
        each.__qualname__ = name_of(fn)  # type: ignore[attr-defined]  # what the worker is said to be at
        lists = _results(self, each, zip(chunks, strict=True), buffersize, until)
        return _chained(lists)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; the workers end when all are done. As `ProcessPoolExecutor.shutdown`.

        Args:
            wait: whether to wait until the workers have ended. If not, the interpreter's end waits for them.
            cancel_futures: whether to cancel the tasks that no worker has taken.
        """
        _executors.discard(self._root or self)
        self._pool.close()
        if cancel_futures:
            self._pool._base.cancel_queued()
        if wait:
            try:
                self._pool.join()
            except RuntimeError:
                # In a callback, which would wait for itself: the interpreter's end waits.
                self._part()
                raise
        else:
            self._part()

    def _part(self) -> None:
        if self._pool not in _parting:
            _parting.append(self._pool)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt:
            # As where workers get the interrupt, too: whoever presses Ctrl-C does not want to wait for the rest.
            self._end(kill=False)
        self.shutdown(wait=True)

    def terminate_workers(self) -> None:
        """End the workers now, by SIGTERM. As `ProcessPoolExecutor.terminate_workers` of Python 3.14.

        Tasks that no worker has taken are cancelled; those that run raise `PoolClosed`, a `BrokenProcessPool`. Workers
        that are still there half a second later are killed.
        """
        self._end(kill=False)

    def kill_workers(self) -> None:
        """End the workers now, by SIGKILL. As `ProcessPoolExecutor.kill_workers` of Python 3.14.

        Tasks that no worker has taken are cancelled; those that run raise `PoolClosed`, a `BrokenProcessPool`.
        """
        self._end(kill=True)

    def _end(self, kill: bool) -> None:
        self.shutdown(wait=False, cancel_futures=True)
        self._pool._base.terminate_now(kill)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers, as they are at this moment; those that are starting are waited for."""
        return self._pool.workers

    def __repr__(self) -> str:
        pool = self._pool
        return f"<shoal.Executor state={pool._state} max_workers={self._max_workers}{running(*pool._running())}>"

    def _repr_html_(self) -> str:
        return self._pool._as_html("shoal.Executor")

    def __reduce__(self) -> Any:
        # A copy would end the pool when it goes. In what travels to a task an executor has a way of its own.
        raise NotImplementedError("executor objects cannot be copied, passed between processes or pickled")

    def __del__(self) -> None:
        # As of the standard library's: what was submitted is done.
        mine = hasattr(self, "_owner") and self._root is None and self._owner == os.getpid()
        if mine and self._pool._base.is_open:
            self.shutdown(wait=False)


def _results(
    executor: Executor,
    fn: Callable[..., R],
    calls: Iterator[tuple[Any, ...]],
    buffersize: int | None,
    until: float | None,
) -> Generator[R, None, None]:
    """Submit what may be, at once; what is returned iterates over the results."""
    prepared = executor._pool._prepare(fn)
    sent: deque[futures.Future[R]] = deque()
    try:
        for args in calls if buffersize is None else itertools.islice(calls, buffersize):
            sent.append(executor._pool._send(prepared, args))
    except BaseException:
        for future in sent:
            future.cancel()
        raise
    # As in the standard library, an executor that is forgotten submits no more.
    more = weakref.ref(executor._root or executor) if buffersize is not None else lambda: None
    return _taken(sent, prepared, calls, more, until)


def _taken(
    sent: deque[futures.Future[R]],
    prepared: Callable[..., R],
    calls: Iterator[tuple[Any, ...]],
    more: Callable[[], Executor | None],
    until: float | None,
) -> Generator[R, None, None]:
    try:
        while sent:
            if (executor := more()) is not None and (args := next(calls, None)) is not None:
                sent.append(executor._pool._send(prepared, args))
            del executor
            yield _result(sent.popleft(), until)
    finally:
        for future in sent:
            future.cancel()


def _result(future: futures.Future[R], until: float | None) -> R:
    try:
        return future.result(None if until is None else until - time.monotonic())
    except BaseException:
        future.cancel()
        raise
    finally:
        # The exception knows this frame.
        del future


def _chained(lists: Generator[list[R], None, None]) -> Iterator[R]:
    try:
        for results in lists:
            results.reverse()
            while results:
                yield results.pop()
    finally:
        lists.close()


def _call_each(fn: Callable[..., R], calls: list[tuple[Any, ...]]) -> list[R]:
    return [fn(*args) for args in calls]


def _initialize(initializer: Callable[..., object], initargs: tuple[object, ...]) -> None:
    """In a worker: what the standard library does when an initializer fails."""
    try:
        initializer(*initargs)
    except BaseException as error:
        from concurrent.futures.process import BrokenProcessPool

        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        raise BrokenProcessPool(f"the initializer raised {type(error).__name__}: {error}") from error


def _end_executors() -> None:
    """At the end of the interpreter: what was submitted is done, as the standard library promises; not after Ctrl-C."""
    # What ended the program, unless it is a session that goes on after an error.
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")
    for executor in list(_executors):
        if executor._owner == os.getpid():
            if interrupted:
                executor._end(kill=False)
            else:
                executor.shutdown(wait=False)
    while _parting:
        if (pool := _parting.pop())._owner == os.getpid():
            pool.join()


# Before the threads of the program are joined, as those of the standard library's executors: they may wait for results.
threading._register_atexit(_end_executors)  # type: ignore[attr-defined]
