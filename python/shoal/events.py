"""Events, conditions and barriers that go anywhere: what processes wait for, beyond a lock.

As locks, they live in shared memory and pickle to a handle, with any pickler, at any time. Nobody who waits does so for
ever because another was killed: a condition's waiters look again when its lock was abandoned, a barrier breaks.

    >>> import shoal
    >>> ready = shoal.Event()
    >>> with shoal.Pool(1) as pool:
    ...     result = pool.apply_async(ready.wait)
    ...     ready.set()
    ...     result.get()
    True
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import SupportsIndex, TypeVar

from shoal import _checks
from shoal._engine import Event, RawBarrier, RawCondition
from shoal.locks import Lock, RLock

__all__ = ["Barrier", "Condition", "Event"]

_T = TypeVar("_T")


class Condition(RawCondition):
    """A lock, and a way to wait without it until somebody who has it says that something has changed, as
    `multiprocessing.Condition`.

    Args:
        lock: the lock, a `shoal.Lock` or `shoal.RLock`. Default: a new `shoal.RLock`.
        ctx: ignored; `multiprocessing` has it.

    Raises:
        TypeError: `lock` is something else.

    When a process dies in the lock, all who wait go on as if notified, for nobody knows what it was about to do. When
    one dies that was notified and has not gone on yet, another one is notified in its place.

    Example:
        >>> condition = shoal.Condition()
        >>> with condition:
        ...     condition.wait_for(lambda: counter.value > 0, timeout=0.1)
        False
    """

    __slots__ = ("__weakref__", "acquire", "release")

    def __new__(
        cls, lock: Lock | RLock | None = None, *, ctx: object = None, _handle: bytes | None = None
    ) -> Condition:
        return super().__new__(cls, RLock() if lock is None else lock, _handle=_handle)

    def __init__(self, lock: Lock | RLock | None = None, *, ctx: object = None, _handle: bytes | None = None) -> None:
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait until `predicate`, called with the lock, says so. What it said last: something false if the time was up.

        Args:
            predicate: a function without arguments.
            timeout: how long to wait at most, in seconds. Default: None, to wait for ever.

        Raises:
            BaseException: what `wait` and `predicate` raise.

        Example:
            >>> with condition:
            ...     condition.wait_for(lambda: counter.value == 0)
            True
        """
        result = predicate()
        if timeout is None:
            while not result:
                self.wait()
                result = predicate()
            return result
        end = time.monotonic() + timeout
        while not result and (left := end - time.monotonic()) > 0:
            self.wait(left)
            result = predicate()
        return result

    def __reduce__(self) -> tuple[object, ...]:
        return _condition, (type(self), self._lock, self._to_handle())

    def __repr__(self) -> str:
        return f"<Condition({self._lock!r}, {self._waiting})>"


class Barrier(RawBarrier):
    """A number of parties that wait for each other, again and again, as `multiprocessing.Barrier`.

    Args:
        parties: how many there are.
        action: called by the last one to come, before all go on. Default: None.
        timeout: how long each waits at most, in seconds, if `wait` is not told otherwise. Default: None, for ever.
        ctx: ignored; `multiprocessing` has it.

    Raises:
        TypeError: `parties` is no integer, `action` can't be called, or `timeout` is neither a number nor None.
        ValueError: `parties` is not 1 to 65535, or `timeout` is not a number in the sense of floats (NaN).

    If a process dies while it waits, or in the action, the barrier breaks: all who wait, and all who come, get a
    `threading.BrokenBarrierError` that says so, until somebody calls `reset`. Of one that dies before it comes nobody
    knows whether it would have come: give a timeout.

    Example:
        >>> barrier = shoal.Barrier(2)
        >>> with shoal.Pool(2) as pool:
        ...     sorted(pool.map(lambda _: barrier.wait(), range(2), chunksize=1))
        [0, 1]
    """

    __slots__ = ("__weakref__", "_action", "_timeout")

    def __new__(
        cls,
        parties: SupportsIndex | None = None,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: object = None,
        _handle: bytes | None = None,
    ) -> Barrier:
        return super().__new__(cls, parties, _handle=_handle)

    def __init__(
        self,
        parties: SupportsIndex | None = None,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: object = None,
        _handle: bytes | None = None,
    ) -> None:
        if action is not None and not callable(action):
            raise TypeError(f"action must be callable or None, not {type(action).__name__}")
        self._action = action
        self._timeout = _checks.seconds(timeout)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all are there. How many were there before this one: 0 to parties - 1.

        Args:
            timeout: how long to wait at most, in seconds; then the barrier breaks. Default: None, what the barrier was
                made with.

        Raises:
            threading.BrokenBarrierError: the barrier is broken, or was reset while this one waited.
            TypeError: `timeout` is neither a number nor None.
            BaseException: what the action raises, for the one that called it.

        Example:
            >>> if barrier.wait() == 0:
            ...     print("all are there")
            all are there
        """
        return self._wait(self._timeout if timeout is None else timeout, self._action)

    def __reduce__(self) -> tuple[object, ...]:
        return _barrier, (type(self), self._action, self._timeout, self._to_handle())

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<Barrier at {id(self):#x}: {state}>"


def _condition(cls: type[Condition], lock: Lock | RLock, handle: bytes) -> Condition:
    return cls(lock, _handle=handle)


def _barrier(cls: type[Barrier], action: Callable[[], object] | None, timeout: float | None, handle: bytes) -> Barrier:
    return cls(None, action, timeout, _handle=handle)
