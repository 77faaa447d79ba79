"""`multiprocessing.shared_memory`: named segments, found by their names from any process of the user.

As there, with three differences: attaching to the same segment again costs a few microseconds, for it stays mapped
(`segments`); who attaches never destroys it; and what was not unlinked goes when the program ends, without a word
(`ledger`). Where both sides are yours, `shoal.array` needs no name and nothing to clean up.
"""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found]
import os
import secrets

from shoal import _launch
from shoal.multiprocessing import ledger, segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal.multiprocessing.shareable_list import ShareableList

__all__ = ["ShareableList", "SharedMemory"]


class SharedMemory:
    """A named segment of shared memory, as `multiprocessing.shared_memory.SharedMemory`.

    Args:
        name: its name, without a slash. Default: None, a new one; for `create=True` only.
        create: whether to make the segment, or to attach to one that is there. Default: False.
        size: its size in bytes, if it is made; otherwise not looked at.
        track: whether the segment goes with the program that made it, if nobody has unlinked it. Default: True. Who
            attaches to a segment never takes it along, in any case.

    Raises:
        ValueError: `size` is not positive, or there is no name to attach to.
        FileExistsError: there is a segment of that name already.
        FileNotFoundError: there is none.
        OutOfSharedMemory: there is not so much room in /dev/shm. (`shoal.array` does not need any.)

    Example:
        >>> from shoal.multiprocessing.shared_memory import SharedMemory
        >>> shm = SharedMemory(create=True, size=1000)
        >>> array = numpy.frombuffer(shm.buf, dtype=numpy.uint8)
        >>> pool.apply(lambda name: SharedMemory(name).size, (shm.name,))
        1000
        >>> shm.unlink()
    """

    # As in the standard library: what subclasses change.
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True

    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True) -> None:
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        fd = self._open(name)
        try:
            if create:
                _launch.expect_workers()
                self._make(fd, size, track)
            self._mapping, view = segments.attach(fd)
        except BaseException:
            if create:
                _posixshmem.shm_unlink(self._name)
            raise
        finally:
            os.close(fd)
        self._buf: memoryview | None = view
        self._size = len(view)

    def _open(self, name: str | None) -> int:
        if name is not None:
            self._name = "/" + name if self._prepend_leading_slash else name
            return int(_posixshmem.shm_open(self._name, self._flags, mode=self._mode))
        while True:
            self._name = _make_filename()
            try:
                return int(_posixshmem.shm_open(self._name, self._flags, mode=self._mode))
            except FileExistsError:
                continue

    def _make(self, fd: int, size: int, track: bool) -> None:
        if track:
            ledger.enter(self._name, fd)
        try:
            # Backed by pages at once: a page that can't be had later is a bus error.
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            from shoal.errors import OutOfSharedMemory

            room = os.statvfs("/dev/shm")
            raise OutOfSharedMemory(
                f"/dev/shm has no room for {size} bytes ({room.f_bavail * room.f_frsize} of "
                f"{room.f_blocks * room.f_frsize} are free); shoal.array needs none of it"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, False, self.size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, size={self.size})"

    @property
    def buf(self) -> memoryview | None:
        """A memoryview of the segment's bytes; None after `close`."""
        return self._buf

    @property
    def name(self) -> str:
        """The name by which others attach to it."""
        return self._name.removeprefix("/") if self._prepend_leading_slash else self._name

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self._size

    def close(self) -> None:
        """Be done with it here. The segment stays for others, and mapped for the next time.

        An array that was made of `buf` may be used all the same, and keeps the mapping. So does `buf` if this object is
        just forgotten: nothing needs to be closed.

        Raises:
            BufferError: something has `buf` itself, not what it refers to.
        """
        if self._buf is not None:
            self._buf.release()
            self._buf = None
            self._mapping.tidy()

    def unlink(self) -> None:
        """Take the name away: nobody can attach any more, and when the last one has closed it, the memory is free.

        Raises:
            FileNotFoundError: it has been unlinked already.
        """
        _posixshmem.shm_unlink(self._name)
        self._mapping.tidy()


def _make_filename() -> str:
    """A name, with its slash, that nobody has. As long as those of the standard library."""
    return "/psm_" + secrets.token_hex(4)


def __getattr__(name: str) -> Any:
    if name == "ShareableList":
        from shoal.multiprocessing import shareable_list

        globals()[name] = shareable_list.ShareableList
        return shareable_list.ShareableList
    from shoal.multiprocessing.originals import original

    return getattr(original("multiprocessing.shared_memory"), name)
