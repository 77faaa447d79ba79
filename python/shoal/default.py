"""The pools that a process keeps warm: made when first used, ended with the process.

>>> shoal.map(lambda x: x * x, range(5))
[0, 1, 4, 9, 16]
"""

from __future__ import annotations

import os
import threading

from shoal import _checks
from shoal import pool as pools
from shoal.pool import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar, Unpack

    from shoal._terms import TaskOptions
    from shoal.progress import Progress
    from shoal.random import Seed

    R = TypeVar("R")

__all__ = ["default_pool", "map", "warm_pool"]

# By their number of workers, and whether they are on this machine though others are not. One that ended in whatever way
# is replaced when it is asked for again.
_pools: dict[tuple[int, bool], Pool] = {}
_lock = threading.Lock()


def default_pool() -> Pool:
    """The pool of this process that `shoal.map` and `shoal.parallel` use: one worker for each CPU.

    It is made by the first call and stays warm until the process ends; there is no need to close it. If it was closed
    or terminated, or belongs to the parent of this forked process, the next call makes another. In a worker of a pool
    it has that worker's share of the CPUs, mostly one.

    Workers keep the environment, directory and `sys.path` that the process had when the pool was made.

    Example:
        >>> shoal.default_pool().apply(pow, (2, 10))
        1024
    """
    return warm_pool(None)


def warm_pool(workers: int | None, here: bool = False) -> Pool:
    """The pool of this process with so many workers, which is kept for the next time; None for `default_pool`.

    Args:
        workers: how many.
        here: whether it is to be on this machine also in a program whose pools run on a cluster.
    """
    if workers is None:
        workers = _checks.processes(None)
    here = here and pools.default_cluster is not None
    with _lock:
        pool = _pools.get((workers, here))
        if pool is None or not pool._base.is_open:
            pool = _pools[workers, here] = Pool(workers, cluster=None) if here else Pool(workers)
        return pool


def map(
    func: Callable[..., R],
    *iterables: Iterable[Any],
    chunksize: int | None = None,
    seed: Seed | None = None,
    progress: Progress = None,
    **options: Unpack[TaskOptions],
) -> list[R]:
    """Apply `func` to the items of `iterables`, on every CPU. As the built-in `map`, but it returns a list.

    Args:
        func: called with one item of each iterable. Lambdas and closures are welcome.
        iterables: one or more; with several, the shortest decides. Read to the end first.
        chunksize: items a task. Default: as many as take about a millisecond, found out on the way.
        seed: what the random numbers of each item depend on, besides its place; see `shoal.rng`.
        progress: True, tqdm's arguments or a bar, as for `Pool.map`. Default: None, for no bar.
        options: `timeout`, `retries` and so on, for each item; see `Pool.options`.

    Returns:
        The results, in order.

    Raises:
        TypeError: `func` can't be called, or there is no iterable.
        ValueError: `chunksize` is less than 1, or an option is not as described.
        BaseException: the first exception, in the order of the items, that `func` raised.

    Example:
        >>> shoal.map(pow, [2, 3, 4], [5, 2, 1])
        [32, 9, 4]
    """
    if not callable(func):
        raise TypeError(f"func must be callable, not {type(func).__name__}")
    if not iterables:
        raise TypeError("map needs at least one iterable besides func")
    if chunksize is not None:
        chunksize = _checks.chunksize(chunksize)
    pool = default_pool() if seed is None else default_pool().options(seed=seed)
    if len(iterables) == 1:
        return pool.map(func, iterables[0], chunksize, progress=progress, **options)
    return pool.starmap(func, zip(*iterables, strict=False), chunksize, progress=progress, **options)


def _after_fork() -> None:
    """In a child: the pools are the parent's, and another of its threads may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)
