"""Values and arrays of C types in shared memory, as `multiprocessing.sharedctypes` has them, that go anywhere.

`RawValue` and `RawArray` are ctypes objects; `Value` and `Array` come with a lock. Small ones lie beside their lease
and cost 128 bytes, larger ones whole pages. For arrays of numbers `shoal.array` is the better thing: it is numpy's.

    >>> import shoal
    >>> total = shoal.Value("d", 0.0)
    >>> def work(x):
    ...     with total:
    ...         total.value += x
    >>> with shoal.Pool() as pool:
    ...     _ = pool.map(work, range(10))
    >>> total.value
    45.0
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Iterable, Iterator, Sized
from functools import lru_cache
from types import TracebackType
from typing import Any

from shoal._engine import Block, SmallBlock
from shoal.locks import RLock

__all__ = [
    "Array",
    "RawArray",
    "RawValue",
    "Synchronized",
    "SynchronizedArray",
    "SynchronizedBase",
    "SynchronizedString",
    "Value",
    "copy",
    "synchronized",
]

_TYPECODES: dict[str, type[Any]] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
# The classes that all instances of C types are of. They have no names in ctypes.
_SIMPLE: type[Any] = ctypes.c_int.__mro__[1]
_DATA: type[Any] = ctypes.c_int.__mro__[2]
_SMALL = 32


def RawValue(typecode_or_type: str | type[Any], *args: Any) -> Any:
    """A ctypes object in shared memory, without a lock, as `multiprocessing.RawValue`.

    Args:
        typecode_or_type: a C type of `ctypes`, a structure included, or one of the characters that `array.array` knows.
        args: what the type is called with. Default: nothing, all bytes are zero.

    Raises:
        TypeError: `typecode_or_type` is neither, or the type does not take `args`.

    Example:
        >>> n = shoal.RawValue("i", 5)
        >>> n.value
        5
    """
    value = _new(_c_type(typecode_or_type))
    value.__init__(*args)
    return value


def RawArray(typecode_or_type: str | type[Any], size_or_initializer: int | Iterable[Any]) -> Any:
    """A ctypes array in shared memory, without a lock, as `multiprocessing.RawArray`.

    Args:
        typecode_or_type: as for `RawValue`.
        size_or_initializer: how many elements, all zero, or what they are.

    Raises:
        TypeError: `typecode_or_type` is no C type, or an element does not fit it.
        ValueError: the size is negative.

    Example:
        >>> shoal.RawArray("d", [1, 2, 3])[1]
        2.0
    """
    type_ = _c_type(typecode_or_type)
    if isinstance(size_or_initializer, Iterable):
        elements = size_or_initializer if isinstance(size_or_initializer, Sized) else list(size_or_initializer)
        array = _new(type_ * len(elements))
        array.__init__(*elements)
        return array
    try:
        size = operator.index(size_or_initializer)
    except TypeError:
        raise TypeError(
            f"size_or_initializer must be an integer or iterable, not {type(size_or_initializer).__name__}"
        ) from None
    if size < 0:
        raise ValueError(f"size_or_initializer must be 0 or more, not {size}")
    return _new(type_ * size)


def Value(typecode_or_type: str | type[Any], *args: Any, lock: Any = True, ctx: object = None) -> Any:
    """A ctypes object in shared memory with a lock, as `multiprocessing.Value`.

    Args:
        typecode_or_type: as for `RawValue`.
        args: what the type is called with.
        lock: True or None: with a new `shoal.RLock`. False: without one, as `RawValue`. Otherwise the lock itself.
            Default: True.
        ctx: taken for the sake of `multiprocessing.sharedctypes`, and not used: locks of shoal are of no context.

    Raises:
        TypeError: `typecode_or_type` is no C type, or does not take `args`.
        AttributeError: `lock` is no lock.

    `.value` is read and written under the lock, but `v.value += 1` is both, one after the other: take the lock, or use
    a `shoal.Counter`.

    Example:
        >>> v = shoal.Value("i", 5)
        >>> with v:
        ...     v.value += 1
        >>> v.value
        6
    """
    return _locked(RawValue(typecode_or_type, *args), lock)


def Array(
    typecode_or_type: str | type[Any],
    size_or_initializer: int | Iterable[Any],
    *,
    lock: Any = True,
    ctx: object = None,
) -> Any:
    """A ctypes array in shared memory with a lock, as `multiprocessing.Array`.

    Args:
        typecode_or_type: as for `RawValue`.
        size_or_initializer: as for `RawArray`.
        lock: as for `Value`. Default: True.
        ctx: as for `Value`.

    Raises:
        TypeError: `typecode_or_type` is no C type, or an element does not fit it.
        ValueError: the size is negative.
        AttributeError: `lock` is no lock.

    Example:
        >>> a = shoal.Array("i", range(5))
        >>> a[1:4]
        [1, 2, 3]
    """
    return _locked(RawArray(typecode_or_type, size_or_initializer), lock)


def copy(obj: Any) -> Any:
    """A new ctypes object in shared memory with the value of another, as `multiprocessing.sharedctypes.copy`.

    Args:
        obj: any ctypes object.

    Raises:
        TypeError: `obj` is something else.

    Example:
        >>> from shoal.multiprocessing.sharedctypes import copy
        >>> copy(shoal.RawValue("i", 5)).value
        5
    """
    if not isinstance(obj, _DATA):
        raise TypeError(f"obj must be a ctypes object, not {type(obj).__name__}")
    new = _new(_plain(obj))
    ctypes.memmove(ctypes.addressof(new), ctypes.addressof(obj), ctypes.sizeof(new))
    return new


def synchronized(obj: Any, lock: Any = None, ctx: object = None) -> Any:
    """A ctypes object with a lock, as `multiprocessing.sharedctypes.synchronized`.

    Args:
        obj: any ctypes object. It goes to other processes if it is one of `RawValue` or `RawArray`.
        lock: the lock. Default: a new `shoal.RLock`.
        ctx: as for `Value`.

    Raises:
        TypeError: `obj` is something else.

    Example:
        >>> from shoal.multiprocessing.sharedctypes import synchronized
        >>> synchronized(shoal.RawArray("i", 3))[:]
        [0, 0, 0]
    """
    if isinstance(obj, _SIMPLE):
        return Synchronized(obj, lock)
    if isinstance(obj, ctypes.Array):
        return SynchronizedString(obj, lock) if obj._type_ is ctypes.c_char else SynchronizedArray(obj, lock)
    if isinstance(obj, _DATA):
        return _structure(_plain(obj))(obj, lock)
    raise TypeError(f"obj must be a ctypes object, not {type(obj).__name__}")


class SynchronizedBase:
    """What `Value` and `Array` give: an object, and the lock that guards it. Taken by `with`, it takes the lock."""

    def __init__(self, obj: Any, lock: Any = None, ctx: object = None) -> None:
        # The context is ignored; `multiprocessing` has it.
        self._obj = obj
        self._lock = RLock() if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def get_obj(self) -> Any:
        """The ctypes object, to be used without the lock."""
        return self._obj

    def get_lock(self) -> Any:
        """The lock."""
        return self._lock

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        return self._lock.__exit__(kind, error, traceback)

    def __reduce__(self) -> tuple[object, ...]:
        return synchronized, (self._obj, self._lock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(SynchronizedBase):
    """A `Value` of a simple type."""

    @property
    def value(self) -> Any:
        """The value, read and written under the lock."""
        with self._lock:
            return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._lock:
            self._obj.value = value


class SynchronizedArray(SynchronizedBase):
    """An `Array`. Its elements and slices are read and written under the lock."""

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, index: int | slice) -> Any:
        with self._lock:
            return self._obj[index]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        with self._lock:
            self._obj[index] = value

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


class SynchronizedString(SynchronizedArray):
    """An `Array` of characters."""

    @property
    def value(self) -> bytes:
        """The bytes up to the first zero, read and written under the lock."""
        with self._lock:
            return bytes(self._obj.value)

    @value.setter
    def value(self, value: bytes) -> None:
        with self._lock:
            self._obj.value = value

    @property
    def raw(self) -> bytes:
        """All bytes, read and written under the lock."""
        with self._lock:
            return bytes(self._obj.raw)

    @raw.setter
    def raw(self, value: bytes) -> None:
        with self._lock:
            self._obj.raw = value


# Programs may make types without end.
@lru_cache(maxsize=1000)
def _structure(type_: Any) -> type[SynchronizedBase]:
    """The wrapper of a structure: a property for each field."""

    def field(name: str) -> property:
        def read(self: SynchronizedBase) -> Any:
            with self._lock:
                return getattr(self._obj, name)

        def write(self: SynchronizedBase, value: Any) -> None:
            with self._lock:
                setattr(self._obj, name, value)

        return property(read, write, doc=f"The field, read and written under the lock: {name}.")

    names = [entry[0] for base in type_.__mro__ for entry in base.__dict__.get("_fields_", ())]
    return type(f"Synchronized{type_.__name__}", (SynchronizedBase,), {name: field(name) for name in names})


def _locked(obj: Any, lock: Any) -> Any:
    if lock is False:
        return obj
    if lock is True or lock is None:
        return synchronized(obj, RLock())
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"lock must be a lock, True, False or None, but {lock!r} has no method 'acquire'")
    return synchronized(obj, lock)


def _c_type(typecode_or_type: Any) -> Any:
    if isinstance(typecode_or_type, str):
        found = _TYPECODES.get(typecode_or_type)
        if found is None:
            raise TypeError(f"typecode_or_type must be one of {', '.join(_TYPECODES)}, not {typecode_or_type!r}")
        return found
    if isinstance(typecode_or_type, type) and issubclass(typecode_or_type, _DATA):
        return typecode_or_type
    raise TypeError(f"typecode_or_type must be a type code or a ctypes type, not {typecode_or_type!r}")


def _new(type_: Any) -> Any:
    size = ctypes.sizeof(type_)
    return _over(type_, SmallBlock() if size <= _SMALL else Block.allocate(size))


def _over(type_: Any, memory: SmallBlock | Block) -> Any:
    value = _shared(type_).from_buffer(memory)
    value._shoal_memory = memory
    return value


# Programs may make types without end.
@lru_cache(maxsize=1000)
def _shared(type_: Any) -> type[Any]:
    """The type, but that its instances pickle to handles."""

    def reduce(self: Any) -> tuple[object, ...]:
        return _restore, (_spelled(type_), self._shoal_memory)

    body = {"__reduce__": reduce, "__reduce_ex__": lambda self, _: reduce(self), "_shoal_type": type_}
    if issubclass(type_, _SIMPLE):
        # As the type's own, which shows the value in its exact instances only.
        body["__repr__"] = lambda self: f"{type_.__name__}({self.value!r})"
    return type(type_.__name__, (type_,), body | {"__module__": type_.__module__, "__qualname__": type_.__qualname__})


def _plain(obj: Any) -> Any:
    """An object's type as its author knows it."""
    return getattr(obj, "_shoal_type", type(obj))


def _spelled(type_: Any) -> Any:
    """A type in a form that pickles: those of arrays have no name that they could be found by."""
    return (_spelled(type_._type_), type_._length_) if issubclass(type_, ctypes.Array) else type_


def _restore(spelled: Any, memory: SmallBlock | Block) -> Any:
    return _over(_read(spelled), memory)


def _read(spelled: Any) -> Any:
    if isinstance(spelled, tuple):
        element, length = spelled
        spelled = _read(element) * length
    return spelled
