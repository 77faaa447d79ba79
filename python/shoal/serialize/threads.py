"""What becomes of the primitives of `threading` elsewhere: each is one primitive, common to all other processes.

    self.lock = threading.Lock()            in the client: stays what it is, for the threads of the client
    with self.lock: ...                     in the workers: one lock for all of them

A lock in an object guards what that object guards; where copies of the object are, the threads that contend are the
workers. So they get a lock that holds between them, of shoal's, with the methods of `threading`'s. For the client's
primitive it is made when it first travels, and kept for as long as the client's is alive (`home`): every later call,
object and copy that has the client's lock arrives with that one. What comes back to the client has the client's own.

State goes along where it makes sense: an event is set or cleared as the client's was when it last changed it, a
semaphore begins with what was left of the client's. A lock begins free: that the client holds its own while it sends
is no reason for workers to wait for ever.
"""

from __future__ import annotations

import threading

import shoal
from shoal.serialize.home import at_home, marked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "reduce_barrier",
    "reduce_bounded_semaphore",
    "reduce_condition",
    "reduce_event",
    "reduce_local",
    "reduce_lock",
    "reduce_rlock",
    "reduce_semaphore",
]


class _Primitive:
    """What stands for a primitive of `threading` in another process: one of shoal's, with the original's methods."""

    _original = ""

    def __init__(self, mark: bytes, shared: Any) -> None:
        self._mark = mark
        self._shared = shared

    def __reduce__(self) -> Any:
        return _arrive, (self._mark, type(self), self._shared)

    def __repr__(self) -> str:
        return f"<threading.{self._original} between processes: {self._shared!r}>"

    def __enter__(self) -> bool:
        return self.acquire()  # type: ignore[attr-defined, no-any-return]

    def __exit__(self, *exc: object) -> None:
        self.release()  # type: ignore[attr-defined]


class Lock(_Primitive):
    """A `threading.Lock` between processes."""

    _original = "Lock"
    _unlocked = "release unlocked lock"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `threading.Lock.acquire`."""
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        return self._shared.acquire(blocking, None if timeout == -1 else timeout)  # type: ignore[no-any-return]

    def release(self) -> None:
        """As `threading.Lock.release`."""
        try:
            self._shared.release()
        except (AssertionError, ValueError):
            raise RuntimeError(self._unlocked) from None

    def locked(self) -> bool:
        """As `threading.Lock.locked`."""
        return self._shared.locked()  # type: ignore[no-any-return]


class RLock(Lock):
    """A `threading.RLock` between processes."""

    _original = "RLock"
    _unlocked = "cannot release un-acquired lock"


class Semaphore(_Primitive):
    """A `threading.Semaphore` between processes, bounded or not."""

    _original = "Semaphore"

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """As `threading.Semaphore.acquire`."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return self._shared.acquire(blocking, timeout)  # type: ignore[no-any-return]

    def release(self, n: int = 1) -> None:
        """As `threading.Semaphore.release`."""
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(n):
            self._shared.release()


class Event(_Primitive):
    """A `threading.Event` between processes."""

    _original = "Event"

    def is_set(self) -> bool:
        """As `threading.Event.is_set`."""
        return self._shared.is_set()  # type: ignore[no-any-return]

    def set(self) -> None:
        """As `threading.Event.set`."""
        self._shared.set()

    def clear(self) -> None:
        """As `threading.Event.clear`."""
        self._shared.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Event.wait`."""
        return bool(self._shared.wait(timeout))


class Condition(Lock):
    """A `threading.Condition` between processes. Its lock is the one that stands for the lock of the original."""

    _original = "Condition"
    _unlocked = "cannot release un-acquired lock"

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Condition.wait`."""
        return bool(self._shared.wait(timeout))

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """As `threading.Condition.wait_for`."""
        return self._shared.wait_for(predicate, timeout)

    def notify(self, n: int = 1) -> None:
        """As `threading.Condition.notify`."""
        self._shared.notify(n)

    def notify_all(self) -> None:
        """As `threading.Condition.notify_all`."""
        self._shared.notify_all()


class Barrier(_Primitive):
    """A `threading.Barrier` between processes."""

    _original = "Barrier"

    def wait(self, timeout: float | None = None) -> int:
        """As `threading.Barrier.wait`."""
        return self._shared.wait(timeout)  # type: ignore[no-any-return]

    def reset(self) -> None:
        """As `threading.Barrier.reset`."""
        self._shared.reset()

    def abort(self) -> None:
        """As `threading.Barrier.abort`."""
        self._shared.abort()

    @property
    def parties(self) -> int:
        """As `threading.Barrier.parties`."""
        return self._shared.parties  # type: ignore[no-any-return]

    @property
    def n_waiting(self) -> int:
        """As `threading.Barrier.n_waiting`."""
        return self._shared.n_waiting  # type: ignore[no-any-return]

    @property
    def broken(self) -> bool:
        """As `threading.Barrier.broken`."""
        return self._shared.broken  # type: ignore[no-any-return]


def _arrive(mark: bytes, kind: type[_Primitive], shared: Any) -> Any:
    """The client's own primitive where it is at home; elsewhere what stands for it."""
    original = at_home(mark)
    return kind(mark, shared) if original is None else original


def _reduced(original: Any, kind: type[_Primitive], make: Callable[[Any], Any]) -> tuple[Any, ...]:
    name = kind._original
    if type(original).__module__ not in ("threading", "_thread"):
        complaint = f"a threading.{name} with additions, which would be lost: hold a shoal.{name} instead"
        raise TypeError(f"cannot pickle {type(original).__name__!r} object: {complaint}")
    mark = marked(original, make)
    return _arrive, (mark.name, kind, mark.stands_for)


def reduce_lock(lock: Any) -> Any:
    """`threading.Lock`."""
    return _reduced(lock, Lock, lambda lock: shoal.Lock())


def reduce_rlock(lock: Any) -> Any:
    """`threading.RLock`."""
    return _reduced(lock, RLock, lambda lock: shoal.RLock())


def reduce_semaphore(semaphore: Any) -> Any:
    """`threading.Semaphore`, with the value that it has when it first travels."""
    return _reduced(semaphore, Semaphore, lambda semaphore: shoal.Semaphore(semaphore._value))


def reduce_bounded_semaphore(semaphore: Any) -> Any:
    """`threading.BoundedSemaphore`, with its bound."""
    return _reduced(semaphore, Semaphore, lambda semaphore: shoal.BoundedSemaphore(semaphore._initial_value))


def reduce_event(event: Any) -> Any:
    """`threading.Event`. What the client has changed since it last travelled is changed elsewhere, too."""
    reduced = _reduced(event, Event, lambda event: shoal.Event())
    mark, now = marked(event, lambda event: None), event.is_set()
    if mark.seen is not now:
        mark.seen = now
        if now:
            mark.stands_for.set()
        else:
            mark.stands_for.clear()
    return reduced


def reduce_condition(condition: Any) -> Any:
    """`threading.Condition`; conditions that have one lock here have one lock elsewhere."""

    reduce = _OF_LOCKS.get(type(condition._lock))
    if reduce is None:
        return NotImplemented  # a lock of the user's, with a way of its own

    def make(condition: Any) -> Any:
        _, (_, _, shared) = reduce(condition._lock)
        return shoal.Condition(shared)

    return _reduced(condition, Condition, make)


_OF_LOCKS: dict[type, Callable[[Any], Any]] = {
    type(threading.Lock()): reduce_lock,
    type(threading.RLock()): reduce_rlock,
}


def reduce_barrier(barrier: Any) -> Any:
    """`threading.Barrier`."""
    return _reduced(
        barrier, Barrier, lambda barrier: shoal.Barrier(barrier._parties, barrier._action, barrier._timeout)
    )


def reduce_local(local: Any) -> Any:
    """`threading.local`: the threads elsewhere are others, so it arrives empty."""
    if type(local) is not threading.local:
        raise TypeError(f"cannot pickle {type(local).__name__!r} object: nobody knows what its threads began with")
    return threading.local, ()
