"""Arrays that several items of a map have in common: packed once, and sent to each node once.

An array is known again by its place in memory, which it keeps as long as it is remembered here. As on one machine, all
items get it as it was when the first one was packed.
"""

from __future__ import annotations

import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy

__all__ = ["Blob", "Common", "own_twice"]

# Bytes from which on it is worth to remember an array, and how many are remembered: those that were met last.
LEAST = 256 << 10
MOST = 16

_numbers = itertools.count(1)


class Blob:
    """The content of an array, for any number of tasks.

    Attributes:
        number: by which nodes know it; in the place of a frame.
        frame: the content.
    """

    __slots__ = ("__weakref__", "frame", "number")

    def __init__(self, frame: Any) -> None:
        self.number, self.frame = next(_numbers), frame


def own_twice(frames: list[Any]) -> None:
    """Of an item that has the same memory in two arrays, the second gets it for itself: they are copies there."""
    seen: set[Blob] = set()
    for index, frame in enumerate(frames):
        if frame in seen:
            frames[index] = pickle.PickleBuffer(bytearray(frame.frame))
        elif isinstance(frame, Blob):
            seen.add(frame)


class Common:
    """The large arrays of one map.

    Args:
        dropped: called with the number of one that no task has any more, in whatever thread; must not wait.
    """

    def __init__(self, dropped: Callable[[int], object]) -> None:
        self._dropped = dropped
        # By address and length; with what keeps it at that address.
        self._met: dict[tuple[int, int], tuple[pickle.PickleBuffer, Blob]] = {}
        # Where the arrays begin that the item at hand shows openly.
        self._open: set[int] = set()

    def of(self, item: Any) -> Callable[[pickle.PickleBuffer], Any]:
        """What makes frames of the buffers of `item`; a `Blob` of an array that it shows openly.

        What its `__reduce__` shows the pickler may be the same array for each item, with another content.
        """
        values = item if type(item) in (tuple, list) else item.values() if type(item) is dict else (item,)
        self._open = {address(value) for value in values if isinstance(value, numpy.ndarray)}
        return self._frame

    def forget(self) -> None:
        """No more items will come."""
        self._met.clear()

    def _frame(self, buffer: pickle.PickleBuffer) -> Any:
        with buffer.raw() as view:
            array = numpy.frombuffer(view, numpy.uint8)
            key = address(array), view.nbytes
            if view.nbytes < LEAST or key[0] not in self._open:
                return pickle.PickleBuffer(bytearray(view))
            met = self._met.pop(key, None)
            if met is None:
                blob = Blob(pickle.PickleBuffer(bytearray(view)))
                weakref.finalize(blob, self._dropped, blob.number).atexit = False
                met = buffer, blob
                if len(self._met) >= MOST:
                    del self._met[next(iter(self._met))]
            # The last that was met is the last to go.
            self._met[key] = met
            return met[1]


def address(array: Any) -> int:
    """Where an array begins in memory."""
    start: int = array.__array_interface__["data"][0]
    return start
