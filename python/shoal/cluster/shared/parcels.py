"""Items of queues on their way between machines: packed by who puts them, opened by who gets them, by nobody between.

The shared things in an item are named beside it. So where it comes to lie in a queue these are there themselves, or
what stands for them, and live as long as the item does; and whoever gets it there, in whatever process, has them.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from shoal.cluster.shared.refs import Ref, arrive, collecting, given, here
from shoal.cluster.wire import pack, unpack

__all__ = ["Crate", "Parcel", "flat", "opened", "passing", "wrapped"]

# What is the same wherever it is pickled.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})

# Bytes from which on also plain data goes as a parcel.
_LARGE = 4096


class Parcel:
    """An item on its way.

    Attributes:
        data, frames: it, packed.
        refs: the names of the shared things in it.
    """

    __slots__ = ("data", "frames", "refs")

    def __init__(self, data: Any, frames: list[Any], refs: list[Ref]) -> None:
        self.data, self.frames, self.refs = data, frames, refs

    def __reduce__(self) -> Any:
        return Parcel, (self.data, [pickle.PickleBuffer(frame) for frame in self.frames], self.refs)


class Crate:
    """A parcel that lies in a queue of this machine: whoever gets it there gets what is in it."""

    __slots__ = ("_parcel", "_things")

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._things = [arrive(*ref) for ref in parcel.refs]

    def __reduce__(self) -> Any:
        arrays = [flat(frame) for frame in self._parcel.frames]
        return _got, (self._parcel.data, arrays, self._things, self._parcel.refs)


class _Passing(threading.local):
    on = False


_passing = _Passing()


@contextmanager
def passing() -> Iterator[None]:
    """What this thread gets from a queue meanwhile it passes on, and leaves unopened."""
    before, _passing.on = _passing.on, True
    try:
        yield
    finally:
        _passing.on = before


def _got(data: bytes, frames: list[Any], things: list[Any], refs: list[Ref]) -> Any:
    if _passing.on:
        return Parcel(data, frames, [_named(*each) for each in zip(things, refs, strict=True)])
    with given(things.__getitem__):
        return unpack(data, frames)


def _named(thing: Any, ref: Ref) -> Ref:
    # A bar that another process draws is one like any other here, and does not know its name.
    drawn_elsewhere = ref[0] == "bar" and ref[1] != getattr(here(), "name", None)
    return ref if drawn_elsewhere else here().ref(thing)


def wrapped(item: Any) -> Any:
    """What goes on its way for an item: a parcel, or the item itself if it is plain."""
    kind = type(item)
    if kind in _PLAIN and (kind not in (str, bytes) or len(item) < _LARGE):
        return item
    if kind is tuple and len(item) < 16 and all(type(part) in (int, float, bool, type(None)) for part in item):
        return item
    with collecting() as refs:
        data, frames = pack(item, "item of a queue", _as_it_is)
    return Parcel(data, frames, refs)


def opened(item: Any) -> Any:
    """The item that has arrived."""
    if type(item) is not Parcel:
        return item
    with given(lambda index: arrive(*item.refs[index])):
        return unpack(item.data, item.frames)


def _as_it_is(buffer: pickle.PickleBuffer) -> Any:
    return buffer.raw()


def flat(frame: Any) -> Any:
    """A frame as an array of bytes, which goes through a queue of this machine without being copied twice."""
    return numpy.frombuffer(pickle.PickleBuffer(frame).raw(), numpy.uint8)
