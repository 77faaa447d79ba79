"""What shared things become on another machine, where there is no memory to share.

A `shoal.array` arrives as a copy that can't be written to: what is written there nobody would see here. An ordinary
array, private to its task in any case, arrives writable, as it does in a worker of this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy

from shoal import _engine
from shoal.arrays import SharedArray
from shoal.serialize.buffers import reduce_memoryview

__all__ = ["Replica", "reduce_elsewhere"]

Reducer = Callable[[Any], Any]

# What stays at home, and has something stand for it elsewhere.
_AT_HOME = (
    _engine.Counter,
    _engine.Event,
    _engine.Lock,
    _engine.RLock,
    _engine.RawBarrier,
    _engine.RawCondition,
    _engine.RawQueue,
    _engine.Semaphore,
)

_HERE = (_engine.Block, _engine.RawTally, _engine.SmallBlock)

# The answers so far; forgotten when there are so many.
_found: dict[type, Reducer | None] = {}
_MOST = 1000


def reduce_elsewhere(obj: Any) -> Any:
    """How `obj` travels to another machine; NotImplemented if as it does to another process."""
    kind = type(obj)
    try:
        reducer = _found[kind]
    except KeyError:
        if len(_found) >= _MOST:
            _found.clear()
        reducer = _found[kind] = _look(kind)
    return NotImplemented if reducer is None else reducer(obj)


def _look(kind: type) -> Reducer | None:
    if kind is MethodType:
        return _reduce_method
    if issubclass(kind, _HERE):
        return _refuse
    if issubclass(kind, _AT_HOME) or hasattr(kind, "stands_for") or hasattr(kind, "_shoal_type"):
        return _reduce_thing
    if "tqdm.std" in sys.modules and issubclass(kind, sys.modules["tqdm.std"].tqdm):
        return _reduce_bar
    if issubclass(kind, Replica):
        return _reduce_replica
    if kind is memoryview:
        return reduce_memoryview
    if kind is SharedArray:
        return _reduce_shared
    if issubclass(kind, numpy.memmap):
        return _reduce_memmap
    if kind is numpy.ndarray:
        return _reduce_array
    return None


def _refuse(obj: Any) -> Any:
    name = type(obj).__name__
    raise TypeError(f"cannot pickle {name!r} object for another machine: it lives in the shared memory of this one")


def _reduce_thing(thing: Any) -> Any:
    from shoal.cluster.shared.refs import reduce

    return reduce(thing)


def _reduce_method(method: Any) -> Any:
    # By name: at home it is another function that bears it.
    stands_in = hasattr(type(method.__self__), "stands_for")
    return (getattr, (method.__self__, method.__func__.__name__)) if stands_in else NotImplemented


def _reduce_bar(bar: Any) -> Any:
    from shoal.progress.travel import adopt

    return _reduce_thing(adopt(bar))


def _reduce_array(array: Any) -> Any:
    # Pickled as it is, a read-only array would arrive as one, and a scattered one without a buffer of its own.
    if array.dtype.hasobject or (array.flags.writeable and (array.flags.c_contiguous or array.flags.f_contiguous)):
        return NotImplemented
    return array.copy("A").__reduce_ex__(5)


def _reduce_memmap(array: Any) -> Any:
    return numpy.array(array).__reduce_ex__(5)


def _reduce_shared(array: SharedArray) -> Any:
    plain = array.view(numpy.ndarray)
    if array._block is None or array.itemsize == 0:
        return _reduce_array(plain) if plain.size else plain.copy().__reduce_ex__(5)
    if not (plain.flags.c_contiguous or plain.flags.f_contiguous):
        plain = plain.copy("A")
    return _replica, (plain.view(_Beside),)


def _reduce_replica(array: Any) -> Any:
    if array.flags.writeable:  # of its own: a copy, or the result of a computation
        return numpy.array(array).__reduce_ex__(5)
    plain = array.view(numpy.ndarray)
    return _replica, ((plain if plain.flags.forc else plain.copy("A")).view(_Beside),)


class _Beside(numpy.ndarray[Any, numpy.dtype[Any]]):
    """An array whose content goes beside the pickle as it is, read-only or not."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        order = "C" if self.flags.c_contiguous else "F"
        import pickle

        flat: Any = self.view(numpy.ndarray).reshape(-1, order="A").view(numpy.uint8)
        return _from_bytes, (pickle.PickleBuffer(flat), self.dtype, self.shape, order)


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> Any:
    return numpy.frombuffer(data, numpy.uint8).view(dtype).reshape(shape, order=order)


def _replica(array: Any) -> Any:
    replica = array.view(Replica)
    replica.flags.writeable = False
    return replica


class Replica(numpy.ndarray[Any, numpy.dtype[Any]]):
    """A `shoal.array` on another machine than its own: a copy of what it was when it was sent, and read-only.

    Its copies, and what is computed from it, are ordinary arrays that may be written to.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        if not self.flags.writeable:
            raise ValueError(
                "a shoal.array can't be written to on another machine than its own: "
                "return what is new, or write to a copy of it"
            )
        super().__setitem__(key, value)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False, /) -> Any:
        return array[()] if return_scalar else array.view(numpy.ndarray)

    def __copy__(self) -> Any:
        return numpy.array(self)

    def __deepcopy__(self, memo: Any, /) -> Any:
        return numpy.array(self)
