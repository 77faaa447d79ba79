"""`numpy.memmap`: what travels is where the file is, not what it holds.

It arrives as a memmap of the same file, mapped once a process, as `shoal.open_array` does it. One of mode "c" travels
as a copy, for its changes are in no file; so does one whose file was deleted or replaced.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

import numpy

from shoal.files import _map_again

__all__ = ["reduce_memmap"]

# For each mapping: the path, device, inode and size of its file. None: it can't be told.
_files: weakref.WeakKeyDictionary[mmap.mmap, tuple[str, int, int, int] | None] = weakref.WeakKeyDictionary()
# Mappings of what arrived: of a whole file, wherever their arrays begin.
_whole: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def reduce_memmap(array: Any) -> Any:
    """A memmap, or a part of one."""
    mapping = getattr(array, "_mmap", None)
    # What numpy has computed from a memmap is of that type too, and none.
    if mapping is None or array.mode == "c" or array.dtype.hasobject or not array.size:
        return _reduce_content(array)
    if mapping not in _files:
        _files[mapping] = _file_of(mapping, array.filename)
    file = _files[mapping]
    if file is None or not _still_there(*file):
        return _reduce_content(array)
    path, device, inode, size = file
    # `array.offset` is where the mapping's first array begins, also for a part of that.
    first = numpy.frombuffer(mapping, "u1", 1).__array_interface__["data"][0]
    begins = 0 if mapping in _whole else array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    place = begins + array.__array_interface__["data"][0] - first
    writable = array.mode != "r"
    key = device, inode, size, writable
    return _arrive, (path, key, array.dtype, array.shape, array.strides, place, bool(array.flags.writeable))


def _reduce_content(array: Any) -> Any:
    """What it holds, as an ordinary array of the same type."""
    return _as_memmap, (numpy.array(array, subok=False),)


def _as_memmap(array: Any) -> Any:
    return array.view(numpy.memmap)


def _file_of(mapping: mmap.mmap, filename: Any) -> tuple[str, int, int, int] | None:
    """The file behind a mapping, if it still has that name."""
    if filename is None:
        return None
    path = os.fspath(filename)
    try:
        status = os.stat(path)
    except OSError:
        return None
    address = numpy.frombuffer(mapping, "u1", 1).__array_interface__["data"][0]
    if _inode_at(address) != status.st_ino:
        return None
    return path, status.st_dev, status.st_ino, status.st_size


def _inode_at(address: int) -> int | None:
    """The inode of the file that is mapped at an address: the mapping itself does not tell."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, _, _, inode = line.split(maxsplit=5)[:5]
            begin, _, end = span.partition("-")
            if int(begin, 16) <= address < int(end, 16):
                return int(inode)
    return None


def _still_there(path: str, device: int, inode: int, size: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (device, inode) and status.st_size >= size


def _arrive(
    path: str,
    key: tuple[int, int, int, bool],
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    place: int,
    writeable: bool,
) -> Any:
    mapping = _map_again(path, key)
    _whole.add(mapping)
    array: Any = numpy.ndarray.__new__(numpy.memmap, shape, dtype, mapping, place, strides)
    array._mmap, array.offset, array.mode, array.filename = mapping, place, "r+" if key[3] else "r", path
    array.flags.writeable = writeable
    return array
