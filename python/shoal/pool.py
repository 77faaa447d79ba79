"""`Pool`: worker processes that run functions, with the interface of `multiprocessing.Pool`.

    caller ── args pickled ──▶ task ring ──▶ worker: function(*args) ──▶ completion ring ──▶ whoever waits

What is quick is in the engine (`PoolBase`, `AsyncResult`, `Job`, `IMapIterator`); many calls at once are in `maps`,
what comes back later is in `results`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping

from shoal import _budget, _checks, _engine, _launch
from shoal._engine import AsyncResult, IMapIterator, Worker
from shoal._terms import Terms
from shoal._text import running
from shoal.maps import Maps
from shoal.reports import levels
from shoal.reports.client import listen, notice
from shoal.results import Callbacks, MapResult, closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, TypeVar, Unpack

    from shoal._terms import TaskOptions
    from shoal.aio import AsyncMethods
    from shoal.cluster.traces import ClusterRecorder
    from shoal.futures import Future
    from shoal.insight.report import MapReport
    from shoal.insight.stats import PoolStats
    from shoal.insight.trace import Recorder, Trace
    from shoal.random import Seed, Seeds
    from shoal.reports.client import Settings

    R = TypeVar("R")

__all__ = ["AsyncResult", "IMapIterator", "MapResult", "Pool", "Worker"]

# Where pools run of which nothing is said: `shoal run --cluster` says so. None: on this machine.
default_cluster: object = None

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
# Called with every new pool.
_watchers: list[Callable[[Pool], object]] = []


class Pool(Maps):
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
        logs: whether records of workers' loggers go to this process's handlers; see `docs/logging.md`. If not, only
            handlers that a worker has itself get them.
        warnings: whether warnings of workers are shown here. If not, they are dropped; those that are errors still are.
        output: whether what workers print is printed here. If not, it is dropped; `WorkerDied` still quotes stderr.
        kind: "process"; or "thread", for the same calls on threads of this process: nothing is pickled or copied, so
            that objects which can't travel can be used. What a thread is at can't be stopped: `terminate` ends the
            task, not its function. There is no `memory_limit`, and a chunk of `imap` is 1 item unless said.
            A class below `Pool` has processes of this machine only.
        cluster: for the same calls on the machines of a Dask cluster: a `dask.distributed.Client`, a cluster of Dask,
            or the address of a scheduler. Each Dask worker is a node, with a pool of `processes` workers; by default
            one for each of its machine's CPUs, which Dask workers on one machine share, and no more than 500. Needs
            `shoal[dask]`. Default: None, this machine. Not for a class below `Pool`.
        node_timeout: on a cluster, a node that has given no sign of life for so many seconds, which end some time, is
            given up. Default: 30.

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
        logs: bool = True,
        warnings: bool = True,
        output: bool = True,
        kind: str = "process",
        cluster: object = None,
        node_timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        if node_timeout is not None:
            raise ValueError("node_timeout is for a pool on a cluster")
        if kind == "thread" or cluster is not None:
            name = "cluster" if cluster is not None else "kind"
            raise TypeError(
                f"{name}: {type(self).__name__}, a class below shoal.Pool, has processes of this machine only"
            )
        if default_cluster is not None and type(self) is not Pool and not self._is_part:
            from warnings import warn

            text = f"{type(self).__name__}, a class below shoal.Pool, runs on this machine instead of the cluster"
            warn(text, RuntimeWarning, stacklevel=2)
        if kind != "process":
            raise ValueError(f"kind must be 'process' or 'thread', not {kind!r}")
        terms = Terms(options)
        count = _checks.processes(processes)
        start = _checks.initializer(initializer, initargs)
        share = _budget.share(count, _checks.threads(threads_per_worker))
        told = self._listen(logs, warnings, output)
        setup = _launch.setup(
            share,
            _cpus(affinity),
            _checks.maxtasksperchild(maxtasksperchild),
            _checks.memory_limit(maxmemoryperchild, "maxmemoryperchild"),
            told,
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
        self._base = _engine.PoolBase(
            count, program, args, envs, modules, setup, start, limit, limits, told[-1], self._speaker
        )
        register(self)
        levels.watch(_levels_changed)
        _load_errors()

    def __new__(cls, *args: Any, kind: str = "process", **kwargs: Any) -> Self:
        if kwargs.get("cluster", None if kind == "thread" else default_cluster) is not None and cls is Pool:
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
        task = self.apply_async(func, args, kwds, **options)
        try:
            result: R = task.get()
        except BaseException:
            task.cancel()  # of no use if that is the task's own; after Ctrl-C nobody wants it any more
            raise
        finally:
            # An exception knows this frame.
            del task
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
            args = _checks.arguments(args)
            func, args = self._seeds.one(func), self._seeds.place(args)
        if callback is None and error_callback is None:
            return self._base.submit_call(
                func,
                args if type(args) is tuple else _checks.arguments(args),
                _checks.keywords(kwds) if kwds else None,
                terms.engine,
            )
        _checks.callbacks(callback, error_callback)
        task = self._base.submit_call(func, _checks.arguments(args), _checks.keywords(kwds), terms.engine)
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
        (self._root or self)._terminated = True
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

            text = f"unclosed running pool {self!r}"
            # As in multiprocessing: who has a result still gets it. The engine's part goes with the last of them,
            # or now. Bars of its workers go when these have: nobody is waited for in the middle of anything.
            self._base.close_now()
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<shoal.Pool state={self._state} pool_size={self._base.size}{running(*self._running())}>"

    def _repr_html_(self) -> str:
        return self._as_html("shoal.Pool")

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # ---- inside ------------------------------------------------------------------------------------------------------

    # Whether it is a part of another pool, which is on a cluster.
    _is_part = False
    # Who hears what workers say, if not this process.
    _speaker: Callable[[str, bytes], bool] | None = None

    def _listen(self, logs: bool, warnings: bool, output: bool) -> Settings:
        return listen(logs, warnings, output)

    def _recorder(self, most: int) -> Recorder | ClusterRecorder | None:
        """What records the tasks of this pool from now on; None if they can't be."""
        from shoal.insight.trace import Recorder

        return Recorder(self._base, f"shoal.Pool of {self._base.size}", most)

    def _leave_notice(self, told: bytes) -> None:
        self._base.leave_notice(told)

    @property
    def _processes(self) -> int:
        """How many workers: what programs of multiprocessing call it, for want of a public name there."""
        return self._base.size

    @property
    def _state(self) -> str:
        return "RUN" if self._base.is_open else "CLOSE" if not (self._root or self)._terminated else "TERMINATE"

    def _as_html(self, name: str) -> str:
        from shoal.insight import html

        return html.pool(name, self._state, self.stats())

    def _running(self) -> tuple[list[str], int]:
        """The functions that run, "" for one whose name is not known; and how many tasks are queued."""
        tasks = _engine.pool_running(self._base)
        return [task[0] or "" for task in tasks if task is not None], _engine.pool_depth(self._base)[0]

    def _threads(self) -> Callbacks:
        if self._root is not None:
            return self._root._threads()
        with self._lock:
            if self._callbacks is None:
                self._callbacks = Callbacks(self._inbox())
            return self._callbacks

    def _send(self, func: Callable[..., R], args: tuple[Any, ...]) -> Future[R]:
        """As `submit`, for what is told its stream of random numbers by itself."""
        task = self._base.submit_call(func, args, None, self._terms.engine)
        return (self._future or self._load_future())(task, self._callbacks or self._threads())

    def _prepare(self, func: Callable[..., R]) -> Callable[..., R]:
        """A function for many calls of `_send`, serialized once, as it is now."""
        return self._base.prepare(func, self._terms.engine)  # type: ignore[return-value]

    def _load_future(self) -> Callable[..., Future[Any]]:
        # An import statement in each submit would take longer than all the rest of it in Python.
        from shoal.futures import Future

        self._threads()
        self._future = Future
        return Future


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


def _load_errors() -> None:
    """What failures are told with is there before there is one: then there may be no descriptor left to read it with.
    It takes a millisecond, in which the interpreter of the zygote starts."""
    import shoal.deaths
    import shoal.described
    import shoal.serialize.exceptions  # noqa: F401


def register(pool: Pool) -> None:
    """The end of the interpreter ends this pool."""
    _pools.add(pool)
    for watch in _watchers:
        watch(pool)


def _levels_changed() -> None:
    """Loggers of this process have other levels: its workers are told."""
    told = notice()
    for pool in list(_pools):
        if pool._owner == os.getpid():
            pool._leave_notice(told)


@atexit.register
def _end_pools() -> None:
    """At the end of the interpreter workers end; what they have said till now is heard. Threads that wait for them,
    daemons all, are told nothing any more."""
    if _pools:
        _engine.pass_words_on()
    _engine.end_threads()
    for pool in list(_pools):
        if pool._owner == os.getpid():
            pool.terminate()
