"""The named segments that this process has mapped. Each is mapped once, however often it is attached to.

Mapping a segment anew in each task means faulting it in page by page in each task: 50 000 faults for 200 MB: 60 ms.
So a mapping stays for a while after its last user has gone, and who attaches to the same file gets it, warm.

    attach ──▶ mapping of that file (device, inode, length) ──▶ view, one for each `SharedMemory`
    last view gone ──▶ unmapped at once if the segment is unlinked; else by the keeper, when it is, or after ten seconds

A mapping lives as long as any view of it does, closed or not: an array made of a `SharedMemory` that is gone shows what
was there, where it would end the process with plain multiprocessing. What no one refers to is unmapped: whoever
unlinks a segment gets its memory back within a second, whatever workers did with it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
import time
import weakref
from _queue import Empty, SimpleQueue

__all__ = ["Mapping", "attach"]

# How much is mapped ahead each time somebody attaches: some 6 ms, where faulting in the same by writing takes 20.
_AHEAD = 64 << 20
# Of Linux 5.14. A read maps sixteen resident pages at once, and they are writable; a write maps one.
_MADV_POPULATE_READ = 22

_IDLE_SECONDS = 10.0
_LOOK_EVERY = 0.5


class Mapping:
    """A file of shared memory, mapped."""

    def __init__(self, fd: int, status: os.stat_result) -> None:
        # The descriptor tells whether the file has been unlinked; the map has no use for one of its own.
        self._fd = os.dup(fd)
        try:
            if sys.version_info >= (3, 13):
                self._map = mmap.mmap(self._fd, status.st_size, trackfd=False)
            else:
                self._map = mmap.mmap(self._fd, status.st_size)
        except BaseException:
            os.close(self._fd)
            raise
        self._size = status.st_size
        self._mapped = 0
        self._views: list[weakref.ref[memoryview]] = []
        self.idle_since = 0.0

    def view(self, status: os.stat_result) -> memoryview:
        """A new view. While it lives, so does the mapping."""
        view = memoryview(self._map)
        self._views.append(weakref.ref(view, self._gone))
        # A hole would be filled by being read.
        if self._mapped < self._size and status.st_blocks * 512 >= self._size:
            length = min(_AHEAD, self._size - self._mapped)
            with contextlib.suppress(OSError):  # advice: what is not mapped ahead is mapped when it is touched
                self._map.madvise(_MADV_POPULATE_READ, self._mapped, length)
            self._mapped += length
        return view

    def _gone(self, view: weakref.ref[memoryview]) -> None:
        # Anywhere in this process, in the middle of anything: no locks.
        self._views.remove(view)
        if not self._views:
            _unused.put(self)

    def tidy(self) -> None:
        """Unmap it now, if nobody uses it and the segment has been unlinked."""
        if not _lock.acquire(blocking=False):
            # Finalizers come here, in the middle of anything: it may be this thread that has the lock.
            _unused.put(self)
            return
        try:
            if not self._views and self.is_unlinked:
                _is_over(self)
        finally:
            _lock.release()

    @property
    def in_use(self) -> bool:
        return bool(self._views)

    @property
    def is_unlinked(self) -> bool:
        return self._map.closed or os.fstat(self._fd).st_nlink == 0

    def close(self) -> bool:
        """Unmap it, if no slice of a view is left."""
        if self._map.closed:
            return True
        try:
            self._map.close()
        except BufferError:
            return False
        os.close(self._fd)
        return True


_lock = threading.Lock()
_mappings: dict[tuple[int, int, int], Mapping] = {}
_unused: SimpleQueue[Mapping] = SimpleQueue()
_keeper: threading.Thread | None = None


def attach(fd: int) -> tuple[Mapping, memoryview]:
    """The mapping of the file `fd`, which the caller may close, and a view of it. It may have been there already.

    Raises:
        OSError, ValueError: it can't be mapped.
    """
    global _keeper
    status = os.fstat(fd)
    key = (status.st_dev, status.st_ino, status.st_size)
    with _lock:
        mapping = _mappings.get(key)
        if mapping is None:
            mapping = _mappings[key] = Mapping(fd, status)
        if _keeper is None:
            _keeper = threading.Thread(target=_keep, name="shoal-segments", daemon=True)
            _keeper.start()
        return mapping, mapping.view(status)


def _keep() -> None:
    """Unmap what is not needed any more. Sleeps while everything is in use."""
    idle: set[Mapping] = set()
    while True:
        try:
            mapping = _unused.get(timeout=_LOOK_EVERY if idle else None)
        except Empty:
            pass
        else:
            mapping.idle_since = time.monotonic()
            idle.add(mapping)
        with _lock:
            for mapping in [each for each in idle if _is_over(each)]:
                idle.discard(mapping)


def _is_over(mapping: Mapping) -> bool:
    """Whether there is no more to be done about an idle mapping: it is in use again, or closed."""
    if mapping.in_use:
        return True
    if not mapping.is_unlinked and time.monotonic() - mapping.idle_since < _IDLE_SECONDS:
        return False
    if not mapping.close():
        return False
    for key in [key for key, value in _mappings.items() if value is mapping]:
        del _mappings[key]
    return True


def _after_fork() -> None:
    """In a child: the mappings are its own, the thread is not there, and another one may have held the lock."""
    global _lock, _keeper, _unused
    _lock, _keeper, _unused = threading.Lock(), None, SimpleQueue()


os.register_at_fork(after_in_child=_after_fork)
