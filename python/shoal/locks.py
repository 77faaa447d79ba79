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

from shoal._engine import Lock, RLock, Semaphore
from shoal._identity import identity

__all__ = ["BoundedSemaphore", "Lock", "RLock", "Semaphore"]


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than at first, as `multiprocessing.BoundedSemaphore`.

    To release once too often is a ValueError.

    Args:
        value: how many permits there are, at first and at most. Default: 1.
        ctx: ignored; `multiprocessing` has it.

    Raises:
        TypeError: `value` is no integer.
        ValueError: `value` is negative, or more than 2**31 - 1.

    Example:
        >>> connections = shoal.BoundedSemaphore(4)
        >>> with connections:
        ...     pass
    """

    __slots__ = ()

    def __new__(cls, value: SupportsIndex = 1, *, ctx: object = None, _handle: bytes | None = None) -> BoundedSemaphore:
        return super().__new__(cls, value, _bounded=True, _handle=_handle)

    def __repr__(self) -> str:
        return f"<BoundedSemaphore(value={self.get_value()}, maxvalue={self._most})>"


def describe_lock(lock: Lock) -> str:
    """What a lock says of itself, to each process from its own point of view."""
    owner = identity()[1] if lock._is_mine() else "SomeOtherProcess" if lock.locked() else None
    return f"<Lock(owner={owner})>"


def describe_rlock(lock: RLock) -> str:
    """The same of one that the calling thread may have several times."""
    times: int | str = lock._times()
    if times:
        owner: str | None = identity()[1]
    elif lock.locked():
        owner, times = "SomeOtherThread" if lock._is_ours() else "SomeOtherProcess", "nonzero"
    else:
        owner = None
    return f"<RLock({owner}, {times})>"
