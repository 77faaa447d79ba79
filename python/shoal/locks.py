"""Locks and semaphores that go anywhere.

They live in shared memory and pickle to a handle, with any pickler, at any time: as an argument, inside an object, in a
closure, on a queue, to workers that are already running. Wherever one arrives, it is the same one. There is no server
behind them, and nothing to close.

    >>> import shoal
    >>> lock, total = shoal.Lock(), shoal.zeros(1)
    >>> def work(item):
    ...     with lock:
    ...         total[0] += item
    >>> with shoal.Pool() as pool:
    ...     _ = pool.map(work, range(100))
    >>> int(total[0])
    4950

A copy, too, is the same one: `copy.copy` and `copy.deepcopy` copy the handle, for a lock that was copied along with the
object that it guards would guard nothing.

Nothing stays locked when its holder is killed: it passes on within a moment, and says so. Where half-changed data must
never be used by mistake, `raise_abandoned=True` makes the lock refuse itself until somebody has put things right.
"""

from __future__ import annotations

from typing import SupportsIndex

from shoal._engine import RawLock, RawRLock, RawSemaphore
from shoal._identity import identity

__all__ = ["BoundedSemaphore", "Lock", "RLock", "Semaphore"]


class Lock(RawLock):
    """A lock between processes and threads, as `multiprocessing.Lock`.

    Not reentrant, and owned by nobody in particular: any thread of any process may release it. A lock whose holder died
    does not stay locked: it passes to the next in line, who can tell from `abandoned`.

    Args:
        raise_abandoned: what happens when a holder dies. False: the next one gets the lock, and `abandoned` is true for
            it. True: `acquire` raises `shoal.LockAbandoned` instead, for everybody, until one takes it with `repair`.
            Default: False.

    Example:
        >>> lock = shoal.Lock()
        >>> with lock:
        ...     total[0] += 1
        >>> if lock.acquire(timeout=0.5):
        ...     try:
        ...         total[0] += 1
        ...     finally:
        ...         lock.release()
    """

    __slots__ = ("__weakref__",)

    def __repr__(self) -> str:
        owner = identity()[1] if self._is_mine() else "SomeOtherProcess" if self.locked() else None
        return f"<Lock(owner={owner})>"


class RLock(RawRLock):
    """A lock that the thread which holds it may take again, as `multiprocessing.RLock`.

    It belongs to one thread of one process, which releases it as often as it took it. Otherwise as `Lock`: when its
    holder dies, it passes on.

    Args:
        raise_abandoned: as for `Lock`. Default: False.

    Example:
        >>> lock = shoal.RLock()
        >>> with lock:
        ...     with lock:
        ...         total[0] += 1
    """

    __slots__ = ("__weakref__",)

    def __repr__(self) -> str:
        times: int | str = self._times()
        if times:
            owner: str | None = identity()[1]
        elif self.locked():
            owner, times = "SomeOtherThread" if self._is_ours() else "SomeOtherProcess", "nonzero"
        else:
            owner = None
        return f"<RLock({owner}, {times})>"


class Semaphore(RawSemaphore):
    """A number of permits, as `multiprocessing.Semaphore`.

    `acquire` takes one, and waits while there is none; `release` gives one back. A process that is killed gives back
    what it had acquired and not released, and `recovered` counts that. Not so if the semaphore is used to signal, one
    process releasing for others to acquire: a permit that was acquired is then a message that was read. Which of both
    it is shows in the first release by a process that has no permit: from then on nothing is given back.

    Args:
        value: how many permits there are at first. Default: 1.

    Raises:
        TypeError: `value` is no integer.
        ValueError: `value` is negative, or more than 2**31 - 1.

    Example:
        >>> connections = shoal.Semaphore(4)
        >>> def work(url):
        ...     with connections:
        ...         return fetch(url)
    """

    __slots__ = ("__weakref__",)

    def __new__(cls, value: SupportsIndex = 1, *, _handle: bytes | None = None) -> Semaphore:
        return super().__new__(cls, value, _handle=_handle)

    def __repr__(self) -> str:
        return f"<Semaphore(value={self.get_value()})>"


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than at first, as `multiprocessing.BoundedSemaphore`.

    To release once too often is a ValueError.

    Args:
        value: how many permits there are, at first and at most. Default: 1.

    Raises:
        TypeError: `value` is no integer.
        ValueError: `value` is negative, or more than 2**31 - 1.

    Example:
        >>> connections = shoal.BoundedSemaphore(4)
        >>> with connections:
        ...     pass
    """

    __slots__ = ()

    def __new__(cls, value: SupportsIndex = 1, *, _handle: bytes | None = None) -> BoundedSemaphore:
        return RawSemaphore.__new__(cls, value, bounded=True, _handle=_handle)

    def __repr__(self) -> str:
        return f"<BoundedSemaphore(value={self.get_value()}, maxvalue={self._most})>"
