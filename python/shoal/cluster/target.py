"""What a node's workers do: unpack a function and what it is called with, call it, and pack what comes of it.

The node's own process passes bytes on and unpacks nothing: code of the user's runs in workers only, and what they
return is unpacked by the client that wants it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from time import monotonic_ns as now
from typing import Any, NamedTuple

from shoal.cluster.shared.ways import settle
from shoal.cluster.wire import Frame, pack, unpack
from shoal.serialize import dump_exception

__all__ = [
    "CALL",
    "EACH",
    "ERROR",
    "FAILED",
    "RESULTS",
    "SLICE",
    "STAR",
    "VALUE",
    "WHOLE",
    "WITH",
    "Target",
    "Times",
    "pack_each",
]

# What a task is. CALL: arguments, positional and by keyword. WITH: the function before them. SLICE: items of a map in
# one pickle. EACH: items that were packed one by one.
CALL, WITH, SLICE, EACH = range(4)
# With a map's: each item is an iterable of arguments.
STAR = 8
# Likewise: the first exception takes the place of all results.
WHOLE = 16

# What came of it. VALUE: what was returned; of a SLICE the list of it. ERROR: what was raised. RESULTS: for each item
# whether it was returned, and a pickle. FAILED: what the node's pool raised, such as a worker's death.
VALUE, ERROR, RESULTS, FAILED = range(4)

# The last one is a `Times`, as the plain tuple that messages are made of.
Outcome = tuple[int, bytes, list[Any], tuple[int, int, int, int, int]]


class Times(NamedTuple):
    """When a task was done, on its node's clock, in nanoseconds; how much of that went to what is around the function.

    Attributes:
        worker: who did it, by its place in the node's pool.
        began, ended: from when to when.
        unpacking: of that, reading functions and arguments.
        packing: of that, writing results.
    """

    worker: int
    began: int
    ended: int
    unpacking: int
    packing: int

    @property
    def busy(self) -> int:
        """How long it took."""
        return self.ended - self.began


class Target:
    """A function on a node: one message in its shared memory, which each worker unpacks when it is first called.

    Args:
        name: of the function, for `pool.workers` and the like.
        data: the function, packed; None for tasks that bring theirs.
        frames: the frames beside it.
    """

    # A worker may keep it from one call to the next: whoever sends another function makes another target.
    __shoal_stable__ = True

    def __init__(self, name: str, data: Frame | None, frames: list[Any]) -> None:
        self.__qualname__ = name
        self._data, self._frames = data, frames
        self._function: Callable[..., Any] | None = None

    def __call__(self, kind: int, data: Frame, frames: list[Any]) -> Outcome:
        """Do a task."""
        clock, name = _Clock(), self.__qualname__
        began = now()
        try:
            if self._function is None and self._data is not None:
                self._function = unpack(self._data, self._frames)
                clock.unpacking = now() - began
            what = kind & 7
            if what in (SLICE, EACH):
                status, packed, beside = self._map(kind, _items(what, data, frames, clock), clock)
            else:
                function, args, kwargs = self._call(what, data, frames)
                clock.unpacking = now() - began
                status, name = VALUE, getattr(function, "__qualname__", name)
                value = function(*args, **kwargs)
                returned = now()
                packed, beside = pack(value, f"the result of {name}", _as_it_is)
                clock.packing = now() - returned
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            status, packed, beside = ERROR, dump_exception(error), []
        try:
            settle()
        except BaseException as error:
            # What the task itself raised is told rather than what came of what it had said before.
            if status != ERROR:
                status, packed, beside = ERROR, dump_exception(error), []
        return status, packed, beside, (_worker(), began, now(), clock.unpacking, clock.packing)

    def _call(self, what: int, data: Frame, frames: list[Any]) -> tuple[Any, Any, Any]:
        if what == WITH:
            called: tuple[Any, Any, Any] = unpack(data, frames)
            return called
        return self._function, *unpack(data, frames)

    def _map(self, kind: int, items: Iterator[Callable[[], Any]], clock: _Clock) -> tuple[int, bytes, list[Any]]:
        function, star = self._function, kind & STAR
        assert function is not None
        results: list[tuple[bool, Any]] = []
        for get in items:
            try:
                item = get()
                results.append((True, function(*item) if star else function(item)))
            except StopIteration as error:
                # An iterator takes it for its end.
                stopped = RuntimeError(f"{self.__qualname__} raised StopIteration")
                stopped.__cause__ = error
                results.append((False, stopped))
            except SystemExit:
                raise
            except BaseException as error:
                results.append((False, error))
            if kind & WHOLE and not results[-1][0]:
                return ERROR, dump_exception(results[-1][1]), []
        began = now()
        packed = self._packed(kind, results)
        clock.packing = now() - began
        return packed

    def _packed(self, kind: int, results: list[tuple[bool, Any]]) -> tuple[int, bytes, list[Any]]:
        if kind & 7 == SLICE and all(ok for ok, _ in results):
            try:
                return VALUE, *pack([value for _, value in results], "the results", _as_it_is)
            except Exception:
                pass  # one by one, it turns out which of them
        return RESULTS, *_packed_each(results, self.__qualname__)


class _Clock:
    """Nanoseconds of a task that are not the function's."""

    __slots__ = ("packing", "unpacking")

    def __init__(self) -> None:
        self.unpacking = self.packing = 0

    def unpack(self, data: Frame, frames: list[Any]) -> Any:
        began = now()
        try:
            return unpack(data, frames)
        finally:
            self.unpacking += now() - began


_number: int | None = None


def _worker() -> int:
    """The number of this worker; 0 in a process that is none."""
    global _number
    if _number is None:
        _number = getattr(sys.modules.get("shoal._worker"), "number", None) or 0
    return _number


def _items(what: int, data: Frame, frames: list[Any], clock: _Clock) -> Iterator[Callable[[], Any]]:
    """What gives each item: one that can't be unpacked fails in its place."""
    if what == SLICE:
        for item in clock.unpack(data, frames):
            yield lambda item=item: item  # type: ignore[misc]
        return
    at = 0
    for packed, count in pickle.loads(data):
        beside = frames[at : at + count]
        at += count
        yield lambda packed=packed, beside=beside: clock.unpack(packed, beside)  # type: ignore[misc]


def _packed_each(results: list[tuple[bool, Any]], name: str) -> tuple[bytes, list[Any]]:
    entries: list[tuple[bool, bytes, int]] = []
    frames: list[Any] = []
    for ok, value in results:
        beside: list[Any] = []
        if ok:
            try:
                packed, beside = pack(value, f"the result of {name}", _as_it_is)
            except BaseException as error:
                ok, packed = False, dump_exception(error)
        else:
            packed = dump_exception(value)
        entries.append((ok, packed, len(beside)))
        frames += beside
    return pickle.dumps(entries, 5), frames


def pack_each(items: list[tuple[bytes, list[Any]]]) -> tuple[bytes, list[Any]]:
    """The data and frames of an EACH task, from what was packed one by one."""
    return pickle.dumps([(data, len(frames)) for data, frames in items], 5), [f for _, frames in items for f in frames]


def _as_it_is(buffer: pickle.PickleBuffer) -> pickle.PickleBuffer:
    return buffer
