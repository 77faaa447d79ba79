"""`Pool`: worker processes that run functions, with the interface of `multiprocessing.Pool`.

    caller ── args pickled ──▶ task ring ──▶ worker: function(*args) ──▶ completion ring ──▶ whoever waits

What is quick is in the engine (`PoolBase`, `AsyncResult`, `Job`, `IMapIterator`); what comes back later is in
`results`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence

from shoal import _budget, _checks, _engine, _launch
from shoal._engine import AsyncResult, IMapIterator, Worker
from shoal._terms import Terms
from shoal.results import Callbacks, MapResult, closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, TypeVar, Unpack

    from shoal._terms import TaskOptions
    from shoal.aio import AsyncMethods
    from shoal.futures import Future
    from shoal.insight.report import MapReport
    from shoal.insight.stats import PoolStats
    from shoal.insight.trace import Trace
    from shoal.progress import Progress
    from shoal.progress.maps import Watch
    from shoal.random import Seed, Seeds

    R = TypeVar("R")

__all__ = ["AsyncResult", "IMapIterator", "MapResult", "Pool", "Worker"]

# Inputs that a map has no reason to read piece by piece.
AT_HAND = (list, tuple, range, set, frozenset, dict, str, bytes)

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
# Called with every new pool.
_watchers: list[Callable[[Pool], object]] = []


class Pool:
    """Worker processes that run functions. As `multiprocessing.Pool`, with the same methods.

    Whatever can be called here can be called there: functions of the script, lambdas, closures, bound methods. No
    `if __name__ == "__main__"` guard is needed. A worker that dies fails the task it was at with `WorkerDied` and is
    replaced.

    Args:
        processes: how many workers, 1 to 500. Default: one for each CPU of this process (`shoal.cpu_count()`).
        initializer: called in each worker before its first task. If it raises, the worker's next task gets the error.
        initargs: arguments of `initializer`.
        maxtasksperchild: a worker is replaced after so many tasks. Default: never.
        context: accepted for compatibility with `multiprocessing.Pool`, and not used: workers come from a zygote.
        preload: names of modules that workers will need, imported once before they are forked.
        memory_limit: the most shared memory, in bytes, that the pool's tasks may take at a time: what its workers have
            made shared arrays and results in, and the functions and arguments on their way. A task that needs more
            raises `OutOfSharedMemory`; the others go on. Default: as much as there is.
        threads_per_worker: how many threads numpy, scikit-learn and others (BLAS, OpenMP) may have in each worker.
            Default: a worker's share of the CPUs, which is one if there is a worker for each CPU; or what
            `OMP_NUM_THREADS` and the like say.
        worker_memory_limit: the most memory, in bytes, that a worker may have to itself (resident and not shared). One
            that has more is ended, and its task raises `WorkerDied` which says so. Looked at every 50 ms. Default: as
            much as there is.
        maxmemoryperchild: a worker that has more memory than this to itself when it has ended a task, in bytes, is
            replaced. Default: never.
        idle_timeout: a worker without a task for so many seconds ends, and comes back when there is work. Default:
            None, workers stay.
        affinity: which CPUs workers run on. "compact": one each, near each other; "spread": one each, far from each
            other; or a list of CPUs, or of lists of CPUs, for one worker after the other, from the front again if there
            are more workers. Default: None, on all that this process may use.
        unresponsive_after: a worker that has been at a task for so many seconds is asked for a sign of life (by
            SIGURG). If it gives none, as it was stopped or native code does not come back to the interpreter, that is
            said on stderr, once, and by its state in `workers`. Default: 30. None: never.
        options: the terms of all its tasks, unless a call says otherwise; see `options`.
        seed: what the random numbers of its tasks depend on, an integer or a sequence of integers, 0 or more; see
            `shoal.rng`. Default: None, others each time.
        kind: "process"; or "thread", for the same calls on threads of this process: nothing is pickled or copied, so
            that objects which can't travel can be used. What a thread is at can't be stopped: `terminate` ends the
            task, not its function. There is no `memory_limit`, and a chunk of `imap` is 1 item unless said.
        cluster: for the same calls on the machines of a Dask cluster: a `dask.distributed.Client`, a cluster of Dask,
            or the address of a scheduler. Each Dask worker is a node, with a pool of `processes` workers; by default
            one for each of its machine's CPUs, which Dask workers on one machine share. Needs `shoal[dask]`. Default:
            None, this machine.
        node_timeout: on a cluster, a node that has given no sign of life for so many seconds is given up.
            Default: 30.

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
        threads_per_worker: int | None = None,
        worker_memory_limit: int | None = None,
        maxmemoryperchild: int | None = None,
        idle_timeout: float | None = None,
        affinity: str | Iterable[int | Iterable[int]] | None = None,
        unresponsive_after: float | None = 30.0,
        seed: Seed | None = None,
        kind: str = "process",
        cluster: object = None,
        node_timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        if node_timeout is not None:
            raise ValueError("node_timeout is for a pool on a cluster")
        if kind != "process":
            raise ValueError(f"kind must be 'process' or 'thread', not {kind!r}")
        terms = Terms(options)
        count = _checks.processes(processes)
        start = _checks.initializer(initializer, initargs)
        share = _budget.share(count, _checks.threads(threads_per_worker))
        setup = _launch.setup(
            share,
            _cpus(affinity),
            _checks.maxtasksperchild(maxtasksperchild),
            _checks.memory_limit(maxmemoryperchild, "maxmemoryperchild"),
        )
        limits = (
            _checks.memory_limit(worker_memory_limit, "worker_memory_limit"),
            _checks.period(idle_timeout, "idle_timeout"),
            _checks.period(unresponsive_after, "unresponsive_after"),
        )
        limit = _checks.memory_limit(memory_limit)
        program, args, envs = _launch.command()
        self._owner = os.getpid()
        self._root: Pool | None = None
        self._terms = terms
        self._last_terms: tuple[Mapping[str, Any], Terms] = ({}, terms)
        self._seeds = _seeds(seed)
        self._terminated = False
        self._callbacks: Callbacks | None = None
        self._future: Callable[..., Future[Any]] | None = None
        self._streams: weakref.WeakSet[IMapIterator[Any]] = weakref.WeakSet()
        self._lock = threading.Lock()
        modules = _launch.preloaded(_checks.modules(preload), share)
        self._base = _engine.PoolBase(count, program, args, envs, modules, setup, start, limit, limits)
        register(self)

    def __new__(cls, *args: Any, kind: str = "process", cluster: object = None, **kwargs: Any) -> Self:
        if cluster is not None and cls is Pool:
            from shoal.cluster.pool import ClusterPool

            return object.__new__(ClusterPool)  # type: ignore[return-value]
        if kind == "thread" and cls is Pool:
            from shoal.threads import ThreadPool

            return object.__new__(ThreadPool)  # type: ignore[return-value]
        return object.__new__(cls)

    def options(self, *, seed: Seed | None = None, **options: Unpack[TaskOptions]) -> Self:
        """This pool, with other terms for the tasks that are submitted through it.

        The same options can be given to each call but `submit`, whose keyword arguments are the function's.

        Args:
            timeout: how long a task may run, in seconds from the moment a worker takes it. One that takes longer is
                stopped by ending its worker, and raises `TaskTimeout`. Default: None, for as long as it takes.
            retries: how often a task is tried again after its worker has died, or it raised one of `retry_on`.
                Default: 0. A task that ends its worker at each try raises `WorkerDied` with the story of all of them.
            retry_on: an exception class, or a tuple of them, that are a reason to try again besides the death of a
                worker. With `TaskTimeout` among them, also a task that takes too long. Default: none.
            retry_delay: seconds before the first further try. It doubles with each, up to a minute; meanwhile other
                tasks run. Default: 0.
            priority: tasks with a higher one go first, whenever they came; equals go in the order they came. A task
                that runs is not interrupted. Default: 0.
            seed: what the random numbers of the tasks depend on, see `shoal.rng`; the calls through what is returned
                are counted apart. Unlike the others it can't be given to a call. Default: that of this pool.

        With a `timeout` or `retries` each item of a map is a task of its own, and these hold for each item; unless you
        give a `chunksize`, then they hold for each chunk.

        Returns:
            The same pool, seen with these options. What is not mentioned is as it is for this one.

        Raises:
            TypeError, ValueError: an option is not as described.

        Example:
            >>> patient = pool.options(timeout=60, retries=2, retry_on=ConnectionError, retry_delay=0.5)
            >>> future = patient.submit(pow, 2, 10)
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._root = self._root or self
        view._terms = self._terms.with_(options)
        view._last_terms = ({}, view._terms)
        view._seeds = self._seeds if seed is None else _seeds(seed)
        return view

    # ---- one call ----------------------------------------------------------------------------------------------------

    def apply(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        **options: Unpack[TaskOptions],
    ) -> R:
        """Call `func(*args, **kwds)` in a worker and wait for its result. As `multiprocessing.Pool.apply`.

        Args:
            func: what to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            options: `timeout`, `retries` and so on; see `options`.

        Returns:
            What it returns.

        Raises:
            BaseException: what it raises, with the worker's traceback as the cause.
            WorkerDied: the worker died at it.
            TaskTimeout: it took longer than its `timeout`.
            SerializationError: `func`, an argument or the result can't be pickled.
            PoolClosed: the pool is closed.
        """
        result: R = self.apply_async(func, args, kwds, **options).get()
        return result

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncResult[R]:
        """Call `func(*args, **kwds)` in a worker; returns at once. As `multiprocessing.Pool.apply_async`.

        Args:
            func: what to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: called with the result, in a thread of this process.
            error_callback: called with the exception, likewise.
            options: `timeout`, `retries` and so on; see `options`.

        Returns:
            An `AsyncResult`. Its `cancel()` takes the task out of the queue; `cancel(running=True)` also stops one that
            a worker runs, by ending that worker. Both return False if it is too late.

        Raises:
            SerializationError: `func` or an argument can't be pickled.
            PoolClosed: the pool is closed.
        """
        # A loop of calls says the same each time: looked up here, as a call would take longer than the comparison.
        last = self._last_terms
        terms = last[1] if last[0] == options else self._terms_with(options)
        if self._seeds is not None:
            func, args = self._seeds.one(func), self._seeds.place(args)
        if callback is None and error_callback is None:
            return self._base.submit_call(
                func, args if type(args) is tuple else tuple(args), dict(kwds) if kwds else None, terms.engine
            )
        _checks.callbacks(callback, error_callback)
        task = self._base.submit_call(func, tuple(args), dict(kwds) if kwds else None, terms.engine)
        return self._threads().call(task, callback, error_callback)  # type: ignore[return-value]

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Call `fn(*args, **kwargs)` in a worker; returns at once. As `concurrent.futures.Executor.submit`.

        Args:
            fn: what to call.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            A `concurrent.futures.Future`, for `concurrent.futures.wait`, `as_completed`, `asyncio.wrap_future` and the
            like. Its `cancel` takes the task out of the queue.

        Raises:
            SerializationError: `fn` or an argument can't be pickled.
            PoolClosed: the pool is closed.

        Example:
            >>> with shoal.Pool(2) as pool:
            ...     pool.submit(pow, 2, 10).result()
            1024
        """
        if self._seeds is not None:
            fn, args = self._seeds.one(fn), self._seeds.place(args)
        task = self._base.submit_call(fn, args, kwargs or None, self._terms.engine)
        return (self._future or self._load_future())(task, self._callbacks or self._threads())

    # ---- many calls --------------------------------------------------------------------------------------------------

    def map(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> list[R]:
        """Apply `func` to each item, in parallel; the results in order. As `multiprocessing.Pool.map`.

        Unlike there, an input that is no list, tuple, range, set, dict, str or bytes is not listed first: it is read a
        bounded way ahead of the tasks that have ended, each item sent as it was when it was read.

        Args:
            func: called with one item.
            iterable: the items.
            chunksize: items a task. Default: as many as take about a millisecond, found out on the way; a worker that
                is free always gets the next ones, and what waits behind a long one is given to others.
            buffersize: how many items may be read and not done, 1 or more. Default: enough to keep the workers busy,
                some 16 tasks each, with at most 256 MiB of arguments.
            progress: True for a bar (`shoal.tqdm`) that advances by one for each item that is done; a dict of tqdm's
                arguments for such a bar; or a bar, which is not closed at the end. Default: None, for no bar. Its
                `total` is the length of `iterable`, if it has one.
            options: `timeout`, `retries` and so on, for each item; see `options`.

        Returns:
            A list of what `func` returned.

        Raises:
            BaseException: the first exception that a task raised, after all have ended; or what `iterable` raised,
                after those that were sent have ended.
            TypeError: `func` can't be called, `iterable` is none, or a size is no integer.
            ValueError: `chunksize` or `buffersize` is less than 1, or the pool is closed.
            WorkerDied: a worker died at an item.
            TaskTimeout: an item took longer than its `timeout`.
            SerializationError: `func`, an item or a result can't be pickled.

        Example:
            >>> with shoal.Pool(2) as pool:
            ...     pool.map(str.upper, (word for word in ("a", "b")), buffersize=100)
            ['A', 'B']
        """
        return self._map_now(func, iterable, chunksize, buffersize, progress, False, options)

    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> list[R]:
        """As `map`, where each item is an iterable of positional arguments. As `multiprocessing.Pool.starmap`."""
        return self._map_now(func, iterable, chunksize, buffersize, progress, True, options)

    def map_async(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> MapResult[R]:
        """As `map`, but returns a `MapResult` at once. As `multiprocessing.Pool.map_async`.

        The input is listed first, in the calling thread, as there. With `buffersize` it is read on the way instead, by
        a thread of this process or the one that waits for the results, whichever comes to it.
        """
        return self._map_later(
            func, iterable, chunksize, buffersize, progress, False, callback, error_callback, options
        )

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> MapResult[R]:
        """As `starmap`, but returns a `MapResult` at once. As `multiprocessing.Pool.starmap_async`; see `map_async`."""
        return self._map_later(func, iterable, chunksize, buffersize, progress, True, callback, error_callback, options)

    def imap(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> IMapIterator[R]:
        """Apply `func` to each item, in parallel; iterate over the results, in order. As `multiprocessing.Pool.imap`.

        Unlike there, the input is read only a bounded way ahead of the results that were taken, by the thread that
        takes them: it may be endless, and workers stop when nobody takes what they do. Each item is sent as it was
        when it was read.

        Cheap items travel together, dear ones alone; each has its own result or exception in any case. But those that
        travel together share two things: their results come when all of them are done, and if the worker dies they
        all raise `WorkerDied`. That is about a millisecond's work, and after the first such death items travel alone.
        Give `chunksize=1` for items that wait for each other, or for what is done with earlier results.

        Args:
            func: called with one item.
            iterable: the items.
            chunksize: items a task. Default: as many as take about a millisecond, found out on the way. With more than
                one, as in the standard library, an exception takes the place of all results of its chunk.
            buffersize: how many items may be sent or wait without their results having been taken, 1 or more.
                Default: 16 tasks a worker, at first items, later of about a millisecond each; and no more than 256 MiB
                of arguments and results, but always a task for each worker.
            progress: as for `map`.
            options: `timeout`, `retries` and so on, for each item; see `options`.

        Returns:
            An `IMapIterator`. Its `next(timeout)` raises `multiprocessing.TimeoutError` after so many seconds; what a
            task raised is raised where its result would have been; what the input raised, behind all results. Its
            `close()` ends the reading and lets go of all results, as does forgetting it.

        Raises:
            TypeError: `func` can't be called, `iterable` is none, or a size is no integer.
            ValueError: `chunksize` or `buffersize` is less than 1, or the pool is closed.
            SerializationError: `func` can't be pickled.

        Example:
            >>> import itertools
            >>> with shoal.Pool(2) as pool:
            ...     list(itertools.islice(pool.imap(abs, itertools.count(-2)), 4))
            [2, 1, 0, 1]
        """
        return self._results(func, iterable, chunksize, buffersize, progress, True, options)

    def imap_unordered(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> IMapIterator[R]:
        """As `imap`, with the results in the order in which they arrive. As `multiprocessing.Pool.imap_unordered`."""
        return self._results(func, iterable, chunksize, buffersize, progress, False, options)

    # ---- arrays ------------------------------------------------------------------------------------------------------

    def map_array(
        self,
        func: Callable[..., Any],
        a: Any,
        *others: Any,
        axis: int = 0,
        chunks: int | Sequence[int] | None = None,
        out: Any = None,
    ) -> Any:
        """Apply `func` to blocks of an array, in parallel; the results joined to one array.

        What comes back is `numpy.concatenate([func(block) for block in blocks], axis)`. Results as long as their blocks
        are written straight into their places by the workers; others are collected, and joined in order.

        Args:
            func: called with a block of `a` and what belongs to it of `others`. Must not depend on how `a` is cut,
                unless `chunks` is given: the blocks that are cut by default depend on the number of workers.
            a: an array, or what `numpy.asarray` takes. A shared array or one in a file is passed by reference, and
                `func` may write to its block in place. Of any other, a block is a private copy that may be written to.
            others: ndarrays are cut like `a`, along the same axis, and must have the same length there; anything else
                (scalars, 0-d arrays, lists) is passed as it is. To pass an array whole, use `functools.partial`.
            axis: the axis to cut and to join along. A negative one counts from the end in each array and result.
            chunks: the length of blocks, or a sequence of their lengths. Default: about four blocks a worker, fewer if
                they were smaller than 64 KiB.
            out: an ndarray to write the results to, which is returned. A shared array spares a copy.

        Returns:
            A `SharedArray`, or `out`; None if `func` returns None for each block. An array without items along `axis`
            is passed to `func` once, as it is.

        Raises:
            BaseException: the first exception that `func` raised, with a note that names the block.
            ValueError: lengths that don't match; results that can't be joined, have no such axis or don't fit `out`.
            numpy.exceptions.AxisError: `a` has no such axis.
            TypeError: an array or a result holds Python objects, or has a dtype that `out` can't take.
            PoolClosed: the pool is closed.

        Example:
            >>> pool.map_array(numpy.sqrt, numpy.arange(5.0) ** 2)
            SharedArray([0., 1., 2., 3., 4.])
            >>> pool.map_array(lambda x, y, factor: factor * (x + y), numpy.ones((4, 2)), numpy.zeros(4)[:, None], 3)
            SharedArray([[3., 3.],
                         [3., 3.],
                         [3., 3.],
                         [3., 3.]])
        """
        from shoal.blocks import map_blocks

        return map_blocks(self, func, a, others, axis, chunks, out)

    @property
    def aio(self) -> AsyncMethods:
        """The methods for asyncio: `apply`, `map` and `starmap` to await, `imap` and `imap_unordered` for `async for`.

        Example:
            >>> async def main():
            ...     return await pool.aio.map(abs, [-1, 2]), [x async for x in pool.aio.imap(abs, [-1, 2])]
            >>> asyncio.run(main())
            ([1, 2], [1, 2])
        """
        from shoal.aio import AsyncMethods

        return AsyncMethods(self)

    # ---- what it did -------------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """Where the time of each worker went since the pool began. Printed, it is a table.

        Takes some microseconds, and costs the workers nothing.

        Example:
            >>> with shoal.Pool(2) as pool:
            ...     _ = pool.map(abs, range(1000))
            ...     pool.stats().tasks > 0
            True
        """
        from shoal.insight.stats import of_pool

        return of_pool(self._base)

    def trace(self, path: str | os.PathLike[str] | None = None, *, most: int = 1_000_000) -> Trace:
        """Record every task that is submitted inside a `with` block: when, for how long, on which worker, how large.

        At its end the record is written to a file for https://ui.perfetto.dev or chrome://tracing, where each worker
        is a track; `shoal.timeline` draws it as a picture.

        Args:
            path: the file, JSON. None: none is written, the record is in `tasks` of what this returns.
            most: tasks recorded at most; further ones are counted, not recorded.

        Returns:
            A context manager, a `Trace`.

        Raises:
            OSError: the file can't be written.
            ValueError: the pool is being traced already, or `most` is less than 1.

        Example:
            >>> with shoal.Pool(2) as pool, pool.trace() as trace:
            ...     _ = pool.apply(abs, (-1,))
            >>> len(trace.tasks)
            1
        """
        from shoal.insight.trace import Trace

        return Trace(self, path, most)

    def explain(self) -> MapReport:
        """Say why the last map was not as many times faster as there are workers, in a sentence or two.

        It looks at `map`, `starmap`, `imap` and their kin, the last one that is done; what else the pool did meanwhile
        is in its figures.

        Returns:
            A `MapReport`: printed, it is the sentences; its attributes are the figures.

        Raises:
            ValueError: no map is done yet.

        Example:
            >>> with shoal.Pool(2) as pool:
            ...     _ = pool.map(abs, range(1000))
            ...     pool.explain().items
            1000
        """
        from shoal.insight.report import report

        return report(self._base)

    # ---- its life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more tasks; the workers end when all are done. As `multiprocessing.Pool.close`."""
        self._base.close_now()

    def terminate(self) -> None:
        """End the workers now. Tasks that have not ended raise `PoolClosed`. As `multiprocessing.Pool.terminate`."""
        self._terminated = True
        screen = sys.modules.get("shoal.progress.screen")
        visited = screen is not None and screen.screen.has_visitors and self._base.is_open
        pids = {worker.pid for worker in self._base.workers} if visited else set()
        self._base.terminate_now()
        if screen and pids:
            screen.screen.dismiss(pids)

    def join(self) -> None:
        """Wait until the workers have ended; `close` or `terminate` comes first. As `multiprocessing.Pool.join`.

        Raises:
            ValueError: the pool is still running.
        """
        if self._base.is_open:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        for stream in list(self._streams):
            # Whoever joins takes no results meanwhile: what imap has left to read is read now.
            stream._read_all()
        callbacks = (self._root or self)._callbacks
        if callbacks is not None:
            callbacks.join()
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
        if hasattr(self, "_base") and self._root is None and self._owner == os.getpid() and self._base.is_open:
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
        if self._root is not None:
            return self._root._threads()
        with self._lock:
            if self._callbacks is None:
                self._callbacks = Callbacks(self._inbox())
            return self._callbacks

    def _inbox(self) -> _engine.Inbox:
        return _engine.Inbox(self._base)

    def _prepare(self, func: Callable[..., R]) -> Callable[..., R]:
        """A function for many submits, serialized once, as it is now."""
        return self._base.prepare(func, self._terms.engine)  # type: ignore[return-value]

    def _load_future(self) -> Callable[..., Future[Any]]:
        # An import statement in each submit would take longer than all the rest of it in Python.
        from shoal.futures import Future

        self._threads()
        self._future = Future
        return Future

    def _watch(self, progress: Progress, iterable: Iterable[Any], options: TaskOptions) -> Watch | None:
        """What shows a map on a bar, if that is wanted."""
        if progress is None or progress is False:
            return None
        from shoal.progress.maps import Watch

        tried_again = self._terms_with(options).options.get("retry_on")
        return Watch(progress, iterable, not tried_again)

    def _results(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        ordered: bool,
        options: TaskOptions,
    ) -> IMapIterator[R]:
        watch = self._watch(progress, iterable, options)
        if watch is None:
            return self._stream(func, iterable, chunksize, buffersize, ordered, options)
        try:
            results = self._stream(watch.counted(func), iterable, chunksize, buffersize, ordered, options)
        except BaseException:
            watch.end()
            raise
        return watch.iterator(results)  # type: ignore[return-value]  # has the same methods

    def _stream(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        options: TaskOptions,
    ) -> IMapIterator[R]:
        if not self._base.is_open:
            raise closed()
        if self._seeds is not None:
            func, iterable = self._seeds.each(func, iterable, False)
        func, chunksize = self._on_terms(func, chunksize, options)
        ahead = _checks.buffersize(buffersize)
        stream: IMapIterator[R] = IMapIterator(self._base, self, func, iterable, chunksize, ahead, ordered)
        self._streams.add(stream)
        return stream

    def _job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        options: TaskOptions,
    ) -> _engine.Job | _engine.StreamJob:
        if not self._base.is_open:
            raise closed()
        if self._seeds is not None:
            (func, iterable), star = self._seeds.each(func, iterable, star), False
        return self._map_job(func, iterable, chunksize, buffersize, star, options)

    def _map_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        options: TaskOptions,
    ) -> _engine.Job | _engine.StreamJob:
        func, chunksize = self._on_terms(func, chunksize, options)
        ahead = _checks.buffersize(buffersize)
        if ahead is None and isinstance(iterable, AT_HAND):
            items = iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)
            return _engine.Job(self._base, func, items, chunksize, star)
        return _engine.StreamJob(self._base, func, iterable, chunksize, ahead, star)

    def _terms_with(self, options: Mapping[str, Any]) -> Terms:
        last = self._last_terms
        if last[0] != options:
            self._last_terms = last = options, self._terms.with_(options) if options else self._terms
        return last[1]

    def _on_terms(
        self, func: Callable[..., Any], chunksize: int | None, options: TaskOptions
    ) -> tuple[Any, int | None]:
        """What a map calls, and how many items make a task: one, if each has a limit or tries of its own."""
        if chunksize is not None:
            chunksize = _checks.chunksize(chunksize)
        terms = self._terms_with(options)
        if terms.engine is None:
            return func, chunksize
        return self._base.prepare(func, terms.engine), 1 if terms.alone and chunksize is None else chunksize

    def _map_now(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        star: bool,
        options: TaskOptions,
    ) -> list[R]:
        watch = self._watch(progress, iterable, options)
        if watch is not None:
            with watch:
                return self._map_now(watch.counted(func), iterable, chunksize, buffersize, None, star, options)
        job = self._job(func, iterable, chunksize, buffersize, star, options)
        job.run()
        return job.result()

    def _map_later(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        star: bool,
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        options: TaskOptions,
    ) -> MapResult[R]:
        _checks.callbacks(callback, error_callback)
        watch = self._watch(progress, iterable, options)
        if watch is not None:
            ends = watch.then(callback), watch.then(error_callback)
            func = watch.counted(func)
            try:
                return self._map_later(func, iterable, chunksize, buffersize, None, star, *ends, options)
            except BaseException:
                watch.end()
                raise
        # A copy: the caller may change the list before all of it is sent.
        at_hand = buffersize is None and not isinstance(iterable, (tuple, range))
        job = self._job(func, list(iterable) if at_hand else iterable, chunksize, buffersize, star, options)
        more = job.start(chunksize is not None) if isinstance(job, _engine.Job) else job.start()
        result: MapResult[R] = MapResult(job, callback, error_callback)
        if more or callback is not None or error_callback is not None:
            self._threads().spawn(result.wait)
        return result


def _cpus(affinity: object) -> list[list[int]]:
    if affinity is None:
        return []
    from shoal.affinity import cpus_of_workers

    return cpus_of_workers(affinity)


def _seeds(seed: object) -> Seeds | None:
    if seed is None:
        return None
    from shoal.random import Seeds, checked

    return Seeds(checked(seed))


def register(pool: Pool) -> None:
    """The end of the interpreter ends this pool."""
    _pools.add(pool)
    for watch in _watchers:
        watch(pool)


@atexit.register
def _end_pools() -> None:
    """At the end of the interpreter workers end. Threads that wait for them, daemons all, are told nothing any more."""
    _engine.end_threads()
    for pool in list(_pools):
        if pool._owner == os.getpid():
            pool.terminate()
