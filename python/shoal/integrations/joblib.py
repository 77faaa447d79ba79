"""The backend "shoal" of joblib.

    Parallel ──batches of calls──▶ submit ──▶ a pool's workers ──▶ its thread for callbacks ──▶ Parallel

joblib makes the batches, finds out how large they should be, and keeps the results in order. Workers stay when a
`Parallel` has ended, for the next one: see `_pool_for`.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
from joblib.parallel import parallel_config, register_parallel_backend

from shoal import _budget, _engine
from shoal._launch import directory
from shoal.pool import Pool

__all__ = ["ShoalBackend"]

# What joblib tells each backend, and is about files for arrays (there are none) or other backends.
_NOT_FOR_POOLS = ("temp_folder", "mmap_mode", "prefer", "require", "verbose", "context")

# Packages that are imported in the zygote, once for all workers, if the first task is about something of theirs. They
# take long, and start no threads.
_PRELOADED = ("joblib", "sklearn", "scipy", "pandas")

# Seconds without a task after which a worker ends. As loky's.
_IDLE = 300.0


class ShoalBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """joblib's batches on a pool of processes.

    Arrays of `max_nbytes` (of `Parallel`; 1 MiB by default) or more that several tasks have are copied once, as they
    are when the first one is sent; that is what other backends do with them too, in files. Unlike there, tasks may
    write into them.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pool: Pool | None = None
        self._wanted: _Wanted | None = None
        self._copies: _engine.Copies | None = None
        self._max_nbytes: int | None = None
        # What has not ended, and for which `Parallel`: those of a `parallel_config` have one backend together.
        self._tasks: dict[_engine.AsyncResult[Any], Any] = {}
        # Told by the outermost `submit`. Like all that submits, these two are changed under the lock of `Parallel`.
        self._ended: deque[Callable[[], object]] = deque()
        self._telling = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers there will be."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(_budget.cpu_count() + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, max_nbytes: int | None = 1 << 20, **options: Any) -> int:
        """Get ready for calls of `parallel`; how many workers there will be. They start with the first task."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        options = {**self.backend_kwargs, **options}
        for name in _NOT_FOR_POOLS:
            options.pop(name, None)
        idle = options.pop("idle_worker_timeout", None)
        if options.get("kind", "process") == "process":
            options.setdefault("idle_timeout", idle or _IDLE)
        self._wanted = _Wanted(count, self.inner_max_num_threads, options)
        self._max_nbytes = max_nbytes
        return count

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> _engine.AsyncResult[Any]:
        """Call `func`, a batch of joblib's, in a worker; `callback` is called with the task when it has ended."""
        pool = self._pool
        if pool is None or not pool._base.is_open:
            assert self._wanted is not None
            pool = self._pool = _pool_for(self._wanted, func)
            # Another call of the same `parallel_config` may have ended, and taken them along.
            # They lie in the memory of this machine's workers: threads need none, and nodes get them with each batch.
            of_workers = isinstance(pool._base, _engine.PoolBase)
            self._copies = _engine.Copies(self._max_nbytes) if self._max_nbytes is not None and of_workers else None
        call = _packed(func)
        if self._copies is None:
            task = pool._base.submit_call(*call)
        else:
            task = self._copies.submit_call(pool._base, *call)
        self._tasks[task] = getattr(callback, "parallel", None)
        told = functools.partial(self._tell, task, callback)
        if not pool._threads().watch(task, told):
            # Telling submits the next batch, which may have ended as well, and so on: not one within the other.
            self._ended.append(told)
            if not self._telling:
                self._telling = True
                try:
                    while self._ended:
                        self._ended.popleft()()
                finally:
                    self._telling = False
        return task

    def _tell(self, task: _engine.AsyncResult[Any], callback: Callable[[Any], object] | None) -> None:
        self._tasks.pop(task, None)
        if callback is not None:
            callback(task)

    def retrieve_result_callback(self, out: _engine.AsyncResult[Any]) -> Any:
        """What the batch returned; what it raised is raised."""
        return out.get()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the tasks of a `Parallel` that gives up: those that no worker has taken are taken back, workers that are
        at one are replaced."""
        for task, parallel in list(self._tasks.items()):
            if getattr(parallel, "_aborting", True):
                task.cancel(running=True)

    def terminate(self) -> None:
        """The call is over: its workers are for the next one."""
        self._pool = self._copies = None
        self.reset_batch_stats()


def _packed(batch: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What a worker calls for a batch. One that calls a single function takes a tenth of the time there if it is sent
    as arguments without a function and keywords to each."""
    function = batch.items[0][0]
    # A list, not a generator: half the time.
    are_plain = [each is function and not kwargs for each, _, kwargs in batch.items]
    if len(are_plain) > 1 and all(are_plain):
        return _call_each, (function, [args for _, args, _ in batch.items], batch._backend, batch._n_jobs)
    return _call, (batch,)


def _call_each(function: Callable[..., Any], calls: list[tuple[Any, ...]], backend: Any, n_jobs: int | None) -> Any:
    with parallel_config(backend=backend, n_jobs=n_jobs):
        return [function(*args) for args in calls]


def _call(batch: Callable[[], Any]) -> Any:
    return batch()


class _Wanted:
    """What workers must be like: as if they were forked now, with these options."""

    def __init__(self, count: int, threads: int | None, options: dict[str, Any]) -> None:
        self.count, self.threads, self.options = count, threads, options
        self._state = count, threads, directory(), list(sys.path), dict(os.environ)

    def is_same(self, other: _Wanted) -> bool:
        """Whether workers for the one are right for the other."""
        return (
            self._state == other._state
            and self.options.keys() == other.options.keys()
            # Arguments of an initializer may be of any kind: arrays have no simple equality.
            and all(_is_same(value, other.options[name]) for name, value in self.options.items())
        )


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one is other or (type(one) is type(other) and isinstance(one, (int, float, str, list)) and one == other)


# The pools that were used last, most recent first. Calls that want the same share one, and so its CPUs.
_pools: list[tuple[_Wanted, Pool]] = []
_MOST_POOLS = 2
_lock = threading.Lock()


def _pool_for(wanted: _Wanted, batch: Any) -> Pool:
    with _lock:
        for index, (made_for, pool) in enumerate(_pools):
            if made_for.is_same(wanted) and pool._base.is_open:
                _pools.insert(0, _pools.pop(index))
                return pool
        options = dict(wanted.options)
        preload = [*options.pop("preload", ()), *_heavy_modules(batch)]
        pool = Pool(wanted.count, threads_per_worker=wanted.threads, preload=preload, **options)
        for _, former in _pools[_MOST_POOLS - 1 :]:
            # Its workers end when they have done what they have to do.
            former.close()
        _pools[:] = [(wanted, pool), *_pools[: _MOST_POOLS - 1]]
        return pool


def _heavy_modules(batch: Any) -> list[str]:
    """Modules of `_PRELOADED` that the first task of a batch is about."""
    if _budget.threads() != {"1"}:
        # What is loaded in the zygote would have threads there.
        return []
    function, args, kwargs = batch.items[0]
    things = (function, getattr(function, "function", None), *args, *kwargs.values())
    names = {str(getattr(thing, "__module__", None)) for thing in things}
    return ["joblib", *sorted(name for name in names if name.partition(".")[0] in _PRELOADED and name in sys.modules)]


# Workers know it too, for loops in their tasks that name it.
register_parallel_backend("shoal", ShoalBackend)


def _after_fork() -> None:
    """In a child: the pools are the parent's, and another of its threads may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)
