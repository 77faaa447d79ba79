"""Which segments of shared memory go when the program ends, though nobody has unlinked them.

A segment has a name in /dev/shm so that others may attach to it, and so it would outlive everybody. It belongs to the
program whose process made it: to the family of processes whose head is the one that was started first. When the head
ends, the segments of the family that were not unlinked are removed, at its exit or by the guard, a process that waits
for nothing else. Until then they stay, even if the worker that made one has ended: its result may be in there.

The ledger is a file without a name, which the members of the family find by the head's pid. Every record names a
segment by its inode too: one that was unlinked, and its name taken by somebody else, is not touched.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shoal.multiprocessing import guard

__all__ = ["enter", "head"]

_NAME = "shoal-ledger"
# Beyond this the records of segments that are gone are dropped.
_MOST_BYTES = 64 << 10

_lock = threading.Lock()
_ledger: _Ledger | None = None


class _Ledger:
    def __init__(self, fd: int, head: int) -> None:
        self.fd = fd
        self.head = head

    def add(self, name: str, device: int, inode: int) -> None:
        """Record a segment; the first one calls the guard."""
        with self._alone():
            size = os.fstat(self.fd).st_size
            if size == 0:
                _call_guard(self.head, self.fd)
            elif size > _MOST_BYTES:
                # A death in here costs records that the end of the program then does not find.
                left = [record for record in guard.records(self.fd) if guard.is_there(*record)]
                os.ftruncate(self.fd, 0)
                for record in left:
                    self._write(*record)
            self._write(name, device, inode)

    def _write(self, name: str, device: int, inode: int) -> None:
        os.write(self.fd, b"%d %d %b\0" % (device, inode, os.fsencode(name)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Between processes; the lock of the file goes with a process that dies."""
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)


def enter(name: str, fd: int) -> None:
    """Record the segment `name`, with its slash, that the file `fd` is, in the family's ledger."""
    global _ledger
    status = os.fstat(fd)
    with _lock:
        if _ledger is None:
            _ledger = _found() or _made()
        _ledger.add(name, status.st_dev, status.st_ino)


def head() -> int:
    """The pid of the process whose end ends the family. Pools tell it to their workers."""
    global _ledger
    with _lock:
        if _ledger is None:
            _ledger = _found() or _made()
        return _ledger.head


def _made() -> _Ledger:
    """The ledger of a family whose head is this process."""
    ledger = _Ledger(os.memfd_create(_NAME, os.MFD_CLOEXEC), os.getpid())
    fcntl.fcntl(ledger.fd, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)
    atexit.register(_settle, ledger)
    return ledger


def _found() -> _Ledger | None:
    """The ledger of the family that this process, a worker or a child of multiprocessing, belongs to."""
    worker = sys.modules.get("shoal._worker")
    process = sys.modules.get("multiprocessing.process")
    if worker is not None and worker.family is not None:
        pid = worker.family
    elif process is not None and (parent := process.parent_process()) is not None:
        pid = parent.pid
    else:
        return None
    directory = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(directory):
            path = f"{directory}/{number}"
            if os.readlink(path).startswith(f"/memfd:{_NAME} "):
                return _Ledger(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC), pid)
    except OSError:
        pass  # it has ended, or closes descriptors: then this process is on its own
    return None


def _call_guard(head: int, ledger: int) -> None:
    """Start the guard of the process `head`."""
    program = os.pidfd_open(head)
    # Out of the way of the numbers that they get there.
    watched, book = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (program, ledger))
    try:
        os.posix_spawn(
            sys.executable,
            # Isolated and without site: nothing of the user's is imported, and it is there in 10 ms.
            [sys.executable, "-I", "-S", guard.__file__, "3", "4"],
            os.environ,
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)),
                (os.POSIX_SPAWN_DUP2, watched, 3),
                (os.POSIX_SPAWN_DUP2, book, 4),
            ],
            setsid=True,  # Ctrl-C and the end of a terminal are not for it
        )
    finally:
        for fd in (program, watched, book):
            os.close(fd)


def _settle(ledger: _Ledger) -> None:
    """At the end of the head."""
    if os.getpid() == ledger.head:
        guard.settle(ledger.fd)


def _after_fork() -> None:
    """In a child: of the same family, but another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
