"""What becomes of the primitives of `threading` elsewhere: each is one primitive, common to all other processes.

    self.lock = threading.Lock()            in the client: stays what it is, for the threads of the client
    with self.lock: ...                     in the workers: one lock for all of them

A lock in an object guards what that object guards; where copies of the object are, the threads that contend are the
workers. So they get a lock that holds between them, of shoal's, with the methods of `threading`'s. For the client's
primitive it is made when it first travels, and kept for as long as the client's is alive (`home`): every later call,
object and copy that has the client's lock arrives with that one. What comes back to the client has the client's own.

A lock begins free: that the client holds its own while it sends is no reason for workers to wait for ever.
"""

from __future__ import annotations

import threading

import shoal
from shoal.serialize.home import at_home, marked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["reduce_local", "reduce_lock"]


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


def reduce_local(local: Any) -> Any:
    """`threading.local`: the threads elsewhere are others, so it arrives empty."""
    if type(local) is not threading.local:
        raise TypeError(f"cannot pickle {type(local).__name__!r} object: nobody knows what its threads began with")
    return threading.local, ()
