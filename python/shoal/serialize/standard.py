"""The objects of `multiprocessing`: locks, queues, connections, values, and proxies of managers.

multiprocessing can hand these to a child that it is about to start, and refuses all else ("should only be shared
between processes through inheritance"). What the child gets is a name or a descriptor, and any process of the same user
can get at those: a named semaphore, a pipe, a file in memory. So they are reduced here as if a child were being
started, with a descriptor of ours that is opened where it arrives.

Where there is nothing to get at, because the object was made for children to inherit when they are forked, the error
names the object of shoal's that goes anywhere.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from multiprocessing.synchronize import SemLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["reduce_ctype", "reduce_proxy", "reduce_standard"]

# Whose objects are made of semaphores.
_OF_SEMAPHORES = frozenset(f"multiprocessing.{name}" for name in ("queues", "sharedctypes", "synchronize"))

# What shoal has in the place of those that are not called the same.
_OURS = {"SynchronizedArray": "Array", "SynchronizedString": "Array", "Synchronized": "Value"}


class _Descriptor:
    """A descriptor of one process that another one is to have, in the place of multiprocessing's DupFd."""

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISSOCK(status.st_mode):
            raise TypeError(
                "cannot pickle 'Connection' object: no other process can open this end of a socket pair; "
                "use multiprocessing.Pipe(duplex=False), or shoal.Queue"
            )
        self._path = f"/proc/{os.getpid()}/fd/{fd}"
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        self._file = status.st_dev, status.st_ino

    def detach(self) -> int:
        """The descriptor, in this process. multiprocessing calls it so."""
        try:
            # A pipe without another end would be waited for.
            fd = os.open(self._path, self._flags | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._gone() from error
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._file:
            os.close(fd)
            raise self._gone()
        os.set_blocking(fd, True)
        return fd

    def _gone(self) -> Exception:
        return FileNotFoundError(
            f"{self._path} was closed before it arrived here: "
            "an object of multiprocessing must be kept by the process that made it for as long as others use it"
        )


class _Child:
    """What multiprocessing asks for the way of descriptors into the child that is being started."""

    def duplicate_for_child(self, fd: int) -> int:
        return fd

    def DupFd(self, fd: int) -> _Descriptor:
        return _Descriptor(fd)


@contextmanager
def _starting_a_child() -> Iterator[None]:
    outer = context.get_spawning_popen()
    context.set_spawning_popen(_Child())  # type: ignore[arg-type]
    try:
        yield
    finally:
        context.set_spawning_popen(outer)


def reduce_standard(obj: Any) -> Any:
    """Anything of multiprocessing that a child may be given."""
    if any(semaphore.name is None for semaphore in _semaphores(obj)):
        kind = type(obj).__name__
        raise TypeError(
            f"cannot pickle {kind!r} object: of the fork context, its semaphore has no name by which another process "
            f"could find it; shoal.{_OURS.get(kind, kind)} goes anywhere"
        )
    reducer = ForkingPickler._extra_reducers.get(type(obj))  # type: ignore[attr-defined]
    with _starting_a_child():
        return reducer(obj) if reducer else obj.__reduce_ex__(5)


def reduce_proxy(proxy: Any) -> Any:
    """The proxy of a manager's object, with the key that the manager wants to see: a worker has another of its own."""
    rebuild, (*known, options) = reduce_standard(proxy)
    return rebuild, (*known, {**options, "authkey": bytes(options["authkey"])})


def reduce_ctype(obj: Any) -> Any:
    """`multiprocessing.RawValue` and `RawArray`, which pickle would copy; other values of ctypes go their own way."""
    return reduce_standard(obj) if hasattr(obj, "_wrapper") else NotImplemented


def _semaphores(obj: Any) -> Iterator[Any]:
    """The semaphores that an object of multiprocessing is made of."""
    if isinstance(obj, SemLock):
        yield vars(obj)["_semlock"]
        return
    for part in getattr(obj, "__dict__", {}).values():
        if type(part).__module__ in _OF_SEMAPHORES:
            yield from _semaphores(part)
