"""Arrays in files: `open_array` maps a `.npy` file or a raw one, and what travels is where to find it.

A `FileArray` is to a file what a `SharedArray` is to shared memory, and is one: an ndarray that pickles to a small
handle, views included. Whoever receives it maps the same file, once a process, and sees the same bytes: nothing is read
before it is used, and what one process has read or written, the others find in the page cache.

    >>> numpy.save("frames.npy", numpy.arange(12).reshape(4, 3))
    >>> frames = shoal.open_array("frames.npy")
    >>> with shoal.Pool() as pool:
    ...     pool.map(lambda frame: int(frame.sum()), list(frames))
    [3, 12, 21, 30]

A mapped file must not be made shorter: whoever touches pages that are gone is killed by SIGBUS, in any program and any
language. Replacing it (`os.replace`, as careful programs do) is harmless: who has it mapped keeps the old content.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import threading
import weakref
from typing import Any, Literal

import numpy
from numpy.typing import DTypeLike

from shoal.arrays import Shape, SharedArray, _dimensions, _place

__all__ = ["FileArray", "open_array"]

Mode = Literal["r", "r+", "w+", "c"]

_MAGIC = b"\x93NUMPY"

# A file is mapped once in a process, whoever opens or receives it: by device, inode, size, and whether for writing.
_mappings: weakref.WeakValueDictionary[tuple[int, int, int, bool], _Mapping] = weakref.WeakValueDictionary()
_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class FileArray(SharedArray):
    """A `numpy.ndarray` in a file that every process may map. Made by `open_array`, never directly.

    As any `SharedArray`, it travels by reference, and what numpy computes from it is an ordinary array. Writes, with
    mode "r+" or "w+", are seen by all processes at once; the system brings them to disk in its own time, or at `flush`.

    Example:
        >>> frames = shoal.open_array("frames.npy")
        >>> pickle.loads(pickle.dumps(frames[1:3]))
        FileArray([[3, 4, 5],
                   [6, 7, 8]])
        >>> frames + 1.0  # doctest: +SKIP
        array(...)
    """

    __slots__ = ()

    _block: Any  # a _Mapping
    _makers = "shoal.open_array"

    @property
    def filename(self) -> str | None:
        """The absolute path of the file; None where numpy gave this type to memory that is none of the file's."""
        return None if self._block is None else self._block.path

    @property
    def mode(self) -> str | None:
        """How the file was opened: "r", or "r+" for files that may be written to, also if they were made by "w+"."""
        return None if self._block is None else "r+" if self._block.writable else "r"

    def flush(self) -> None:
        """Write what was changed to disk, and wait until it is there. Other processes see changes without this.

        Raises:
            OSError: the disk does not take it.
        """
        if self._block is not None and self._block.writable:
            self._block.flush()


class _Mapping(mmap.mmap):
    """A whole file, mapped. Pickles to the path and what tells this file from another of that name."""

    path: str
    key: tuple[int, int, int, bool]
    writable: bool
    address: int
    nbytes: int

    def __reduce__(self) -> Any:
        return _map_again, (self.path, self.key)


def open_array(
    path: str | os.PathLike[str],
    mode: Mode = "r",
    dtype: DTypeLike | None = None,
    shape: Shape | None = None,
    order: Literal["C", "F"] = "C",
    offset: int = 0,
) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """The array in a file, mapped rather than read. Takes `.npy` files, and raw ones as `numpy.memmap` does.

    Args:
        path: the file.
        mode: "r" to read; "r+" to read and write; "w+" to make a file, or put another in its place, full of zeros;
            "c" to change a private copy: no change reaches the file.
        dtype: the type of the items. A `.npy` file says its own, and may be checked against this. Needed for "w+"
            and for raw files.
        shape: an integer or a sequence of them. Needed for "w+". Default for raw files: one dimension, to the end.
        order: "C" for rows first, "F" for columns first, in raw files and for "w+".
        offset: where the array begins in a raw file, in bytes.

    Returns:
        A `FileArray`. With mode "c", an ordinary ndarray over a private mapping, which travels as a copy of what it
        holds: only the process that changed it knows the changes.

    With "w+", a path that ends in ".npy" becomes a `.npy` file, any other a raw one. Its room on disk is reserved.
    Otherwise the content decides: a file that begins as `.npy` files do is one.

    Raises:
        FileNotFoundError, PermissionError, OSError: the file can't be opened, or its room not be reserved.
        ValueError: the file is empty, too short, no `.npy` file although `dtype` is missing, or not of the dtype,
            shape or offset asked for; `mode` or `order` is another.
        TypeError: `dtype` holds Python objects; or `shape` is no integers, `offset` no integer.

    Example:
        >>> raw = shoal.open_array("samples.raw", "w+", dtype="int16", shape=(2, 3))
        >>> raw[1] = 7
        >>> shoal.open_array("samples.raw", dtype="int16")
        FileArray([0, 0, 0, 7, 7, 7], dtype=int16)
    """
    if mode not in ("r", "r+", "w+", "c"):
        raise ValueError(f'mode must be "r", "r+", "w+" or "c", not {mode!r}')
    if order not in ("C", "F"):
        raise ValueError(f'order must be "C" or "F", not {order!r}')
    if isinstance(offset, bool) or not hasattr(offset, "__index__"):
        raise TypeError(f"offset must be an integer, not {type(offset).__name__}")
    offset = int(offset.__index__())
    if offset < 0:
        raise ValueError(f"offset must not be negative, but is {offset}")
    wanted = None if dtype is None else _plain(numpy.dtype(dtype))
    dimensions = None if shape is None else _dimensions(shape)
    path = os.path.abspath(os.fspath(path))
    if mode == "w+":
        if wanted is None or dimensions is None:
            raise ValueError(f'mode "w+" needs a dtype and a shape to make {path}')
        _make(path, wanted, dimensions, order, offset)
    with open(path, "rb") as file:
        begins_as_npy = file.read(len(_MAGIC)) == _MAGIC
    if begins_as_npy and not (mode == "w+" and not path.endswith(".npy")):
        if offset and mode != "w+":
            raise ValueError(f"offset is for raw files, and {path} is a .npy file")
        found, extent, order, offset = _npy_layout(path)
        if wanted is not None and wanted != found:
            raise ValueError(f"dtype is {wanted}, but {path} holds {found}")
        if dimensions is not None and dimensions != extent:
            raise ValueError(f"shape is {dimensions}, but the array in {path} has {extent}")
        wanted, dimensions = found, extent
    elif wanted is None:
        raise ValueError(f"{path} is no .npy file: give the dtype (and shape) of the raw data in it")
    private = mode == "c"
    mapping = _map(path, writable=mode in ("r+", "w+"), private=private)
    if dimensions is None:
        dimensions = _to_the_end(path, mapping.nbytes - offset, wanted)
    needed = offset + math.prod(dimensions) * wanted.itemsize
    if mapping.nbytes < needed:
        raise ValueError(
            f"{path} is too short: {dimensions} items of {wanted.itemsize} bytes from byte {offset} on "
            f"need {needed} bytes, and it has {mapping.nbytes}"
        )
    if private:
        return numpy.ndarray(dimensions, wanted, mapping, offset, None, order)
    return _place(FileArray, mapping, dimensions, wanted, offset, None, order)


def _plain(dtype: numpy.dtype[Any]) -> numpy.dtype[Any]:
    if dtype.hasobject:
        raise TypeError(f"dtype {dtype} holds references to Python objects, which a file can't")
    if dtype.itemsize == 0 or dtype.subdtype is not None:
        raise TypeError(f"dtype {dtype} must have items of a size and no dimensions: give those as shape")
    return dtype


def _make(path: str, dtype: numpy.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"], offset: int) -> None:
    """A file of zeros for such an array. What had the name stays as it is for those who have it mapped."""
    nbytes = math.prod(shape) * dtype.itemsize
    npy = path.endswith(".npy")
    if npy and offset:
        raise ValueError(f"offset is for raw files, and {path} is to be a .npy file")
    if not npy and offset + nbytes == 0:
        raise ValueError(f"shape {shape} has no items: a file without a byte can't be mapped")
    path = os.path.realpath(path)
    permissions = _permissions(path)
    draft = f"{path}.{os.getpid()}.{threading.get_ident()}.part"
    try:
        if npy:
            offset = numpy.lib.format.open_memmap(draft, "w+", dtype, shape, order == "F").offset
        with open(draft, "ab") as file:
            if permissions is not None:
                os.fchmod(file.fileno(), permissions)
            # Reserved, for a full disk is an error here, and would be a SIGBUS at some write later on.
            os.posix_fallocate(file.fileno(), 0, offset + nbytes)
        os.replace(draft, path)
    except BaseException:
        if os.path.exists(draft):
            os.unlink(draft)
        raise


def _permissions(path: str) -> int | None:
    """Those of the file that is to be replaced, if there is one; an error if this process may not write to it."""
    try:
        with open(path, "r+b") as file:
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        return None
    _check_regular(path, mode)
    return stat.S_IMODE(mode)


def _check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no regular file: it can't be mapped")


def _npy_layout(path: str) -> tuple[numpy.dtype[Any], tuple[int, ...], Literal["C", "F"], int]:
    """The dtype, shape, order and offset of the array in a `.npy` file."""
    try:
        probe = numpy.lib.format.open_memmap(path, "r")
    except ValueError as error:
        raise ValueError(f"{path} can't be mapped as a .npy file: it is too short, damaged, or: {error}") from error
    # An array of one dimension, or of none, is in both orders.
    return probe.dtype, probe.shape, "C" if probe.flags.c_contiguous else "F", probe.offset


def _to_the_end(path: str, nbytes: int, dtype: numpy.dtype[Any]) -> tuple[int, ...]:
    items, rest = divmod(nbytes, dtype.itemsize)
    if nbytes < 0 or rest:
        raise ValueError(
            f"{path} has {nbytes} bytes from the offset on: no whole number of {dtype.itemsize}-byte items"
        )
    return (items,)


def _map(
    path: str, writable: bool, private: bool = False, expected: tuple[int, int, int, bool] | None = None
) -> _Mapping:
    """The mapping of the file that has this name now; an error if that is not the one that is expected."""
    with open(path, "r+b" if writable else "rb") as file:
        status = os.fstat(file.fileno())
        if expected is not None:
            if (status.st_dev, status.st_ino) != expected[:2]:
                raise ValueError(f"{path} was replaced by another file after the array was opened: open it again")
            _check_size(path, status.st_size, expected[2])
        _check_regular(path, status.st_mode)
        if status.st_size == 0:
            raise ValueError(f"{path} is empty: there is nothing to map")
        key = status.st_dev, status.st_ino, status.st_size, writable
        with _lock:
            mapping = None if private else _mappings.get(key)
            if mapping is None:
                access = mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
                mapping = _Mapping(file.fileno(), status.st_size, access=access)
                mapping.path, mapping.key, mapping.writable, mapping.nbytes = path, key, writable, status.st_size
                bytes_of_it = numpy.frombuffer(mapping, "u1")
                mapping.address = bytes_of_it.__array_interface__["data"][0]
                if not private:
                    _mappings[key] = mapping
            return mapping


def _map_again(path: str, key: tuple[int, int, int, bool]) -> _Mapping:
    """The mapping that was pickled, in whatever process. No other file is taken for it."""
    with _lock:
        mapping = _mappings.get(key)
    if mapping is None:
        return _map(path, writable=key[3], expected=key)
    # A file that is mapped keeps its inode: it is the same one even if another has got its name.
    _check_size(path, mapping.size(), key[2])
    return mapping


def _check_size(path: str, now: int, then: int) -> None:
    if now < then:
        raise ValueError(f"{path} was cut from {then} to {now} bytes after the array was opened: open it again")
