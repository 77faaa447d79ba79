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

__all__ = ["Blob", "Common"]

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


class Common:
    """The large arrays of one map.

    Args:
        dropped: called with the number of one that no task has any more, in whatever thread; must not wait.
    """

    def __init__(self, dropped: Callable[[int], object]) -> None:
        self._dropped = dropped
        # By address and length; with what keeps it at that address.
        self._met: dict[tuple[int, int], tuple[pickle.PickleBuffer, Blob]] = {}

    def frame(self, buffer: pickle.PickleBuffer) -> Any:
        """A frame for a buffer, or a `Blob` in its place."""
        import numpy

        with buffer.raw() as view:
            if view.nbytes < LEAST:
                return pickle.PickleBuffer(bytearray(view))
            key = int(numpy.frombuffer(view, numpy.uint8).ctypes.data), view.nbytes
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
