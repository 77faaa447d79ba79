"""What it costs to send an object: its bytes, by the path to them.

Each part is pickled on its own, into nothing, and counted; then the larger ones are taken apart in turn. Buffers are
counted, not copied, so an array costs no time.
"""

from __future__ import annotations

import heapq
import time
from typing import Any, NamedTuple

from shoal.serialize.parts import Part, parts, text

__all__ = ["Share", "shares", "size"]

# Taking apart ends after so many seconds of work, and stops at containers of more parts than anybody wants to read of.
_SECONDS = 2.0
_MOST_PARTS = 1000

# A part that is less than this share of the whole is not worth a line.
_LEAST = 0.01


class Share(NamedTuple):
    """What a part of an object adds to the bytes that travel."""

    path: str
    kind: str
    nbytes: int


class _Count:
    """A file that only counts what is written."""

    def __init__(self) -> None:
        self.nbytes = 0

    def write(self, data: Any) -> None:
        self.nbytes += memoryview(data).nbytes

    def take(self, buffer: Any) -> None:
        self.nbytes += buffer.raw().nbytes


def size(obj: object) -> int:
    """How many bytes travel with `obj`: its pickle, and the buffers beside it.

    Raises:
        Exception: it can't be pickled.
    """
    from shoal.serialize.by_value import Pickler

    count = _Count()
    Pickler(count, buffer_callback=count.take).dump(obj)
    return count.nbytes


def shares(obj: object, total: int) -> list[Share]:
    """The parts of `obj` that make up most of its `total` bytes, largest first, each as deep as it can be told apart.

    A part that is met on several paths counts on the first: it travels once.
    """
    deadline = time.thread_time() + _SECONDS
    found: list[Share] = []
    # The largest first: when time is up, what is left is small.
    waiting: list[tuple[int, int, tuple[str, ...], object]] = [(-total, 0, (), obj)]
    seen: dict[int, object] = {id(obj): obj}
    while waiting:
        negative, _, path, value = heapq.heappop(waiting)
        rest = -negative
        for part, nbytes in [] if time.thread_time() > deadline else _large(value, _LEAST * total):
            rest -= nbytes
            if id(part.value) not in seen:
                heapq.heappush(waiting, (-nbytes, len(seen), (*path, part.step), part.value))
                seen[id(part.value)] = part.value
        if rest >= _LEAST * total:
            found.append(Share(text(path), type(value).__name__, rest))
    return sorted(found, key=lambda share: -share.nbytes)


def _large(value: object, least: float) -> list[tuple[Part, int]]:
    """The parts of `value` that are worth a line of their own, with their bytes."""
    inner = parts(value)
    # What a type's own reducer makes of it (`__reduce_ex__`) says nothing to anybody: such an object is one part.
    if len(inner) > _MOST_PARTS or any(p.step.startswith(".__reduce_ex__") and not callable(p.value) for p in inner):
        return []
    sizes = ((part, _size_alone(part.value)) for part in inner)
    return [(part, nbytes) for part, nbytes in sizes if nbytes >= least]


def _size_alone(value: object) -> int:
    try:
        return size(value)
    except Exception:  # a part that can't be pickled without the whole, such as a slot's descriptor, counts with that
        return 0
