"""`Pool.explain()` on a cluster: what a map took, as the thread that deals with it saw it, and as its tasks tell.

All workers of all nodes have wall time × workers to give. What their tasks took is known; what lies before a worker's
first task and between two went to the way there and back, or to waiting for this process; behind its last one it had
nothing left to do. The last two are told by this process's clock, when results arrive.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal._text import seconds, size
from shoal.cluster.common import Blob
from shoal.insight.report import Cause, MapReport, NodeShare, Threads, reasons

if TYPE_CHECKING:
    from shoal.cluster.task import Task

__all__ = ["Account", "slow_node", "way"]

# A node is slow if it takes so many times as long for an item as the others; and has done so many tasks.
_SLOW = 2.0
_TASKS = 5
# Bytes an item, there and back, beyond which the network is the matter rather than the number of items.
_LARGE = 10_000


class _Lap:
    """Counts the nanoseconds of its `with` blocks."""

    def __init__(self) -> None:
        self.spent = 0

    def __enter__(self) -> None:
        self._began = time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        self.spent += time.monotonic_ns() - self._began


class _Place:
    """What one worker did, in nanoseconds."""

    def __init__(self) -> None:
        self.tasks = self.items = 0
        self.busy = self.unpacking = self.packing = 0
        # When its last result was here.
        self.last = 0

    @property
    def user(self) -> int:
        return max(self.busy - self.unpacking - self.packing, 0)


class Account:
    """The account of a map. One thread at a time keeps it.

    Args:
        function: its name.

    Attributes:
        reading, sending, receiving: what this process does meanwhile.
    """

    def __init__(self, function: str) -> None:
        self.reading, self.sending, self.receiving = _Lap(), _Lap(), _Lap()
        self._function = function
        self._began = self._last = time.monotonic_ns()
        self._items = self._tasks = self._bytes = self._results = 0
        self._blobs: set[int] = set()
        # Nanoseconds and items of the longest task.
        self._longest = (0, 0)
        self._places: defaultdict[tuple[str, int], _Place] = defaultdict(_Place)
        # How many workers each node has.
        self._workers: dict[str, int] = {}

    def sent(self, task: Task, frames: list[Any]) -> None:
        """A piece was submitted, with these frames."""
        self._tasks += 1
        self._bytes += task.nbytes
        for frame in frames:
            if isinstance(frame, Blob) and frame.number not in self._blobs:
                self._blobs.add(frame.number)
                self._bytes += memoryview(frame.frame).nbytes

    def received(self, task: Task) -> None:
        """A piece has ended."""
        self._items += task.items
        self._results += task.result_bytes
        self._last = time.monotonic_ns()
        if task.times is not None:
            place = self._places[task.where, task.times.worker]
            place.tasks += 1
            place.items += task.items
            place.busy += task.times.busy
            place.unpacking += task.times.unpacking
            place.packing += task.times.packing
            place.last = self._last
            self._longest = max(self._longest, (task.times.busy, task.items))

    def ended(self, workers: dict[str, int]) -> None:
        """The map is done; each node has so many workers."""
        self._workers = workers

    def report(self, ready: dict[tuple[str, int], int]) -> MapReport:
        """What it comes to.

        Args:
            ready: when workers were there first, by node and number, in nanoseconds of this process's clock.
        """
        places = self._places.values()
        wall = self._last - self._began
        count = max(sum(self._workers.values()), len(self._places), 1)
        busy = sum(place.busy for place in places)
        idle = sum(self._last - place.last for place in places) + (count - len(self._places)) * wall
        # Who was not there yet had no task before its first one, or none at all.
        absent = {key: min(max(moment - self._began, 0), wall) for key, moment in ready.items()}
        starting = sum(absent.values())
        idle = max(idle - sum(spent for key, spent in absent.items() if key not in self._places), 0)
        between = max(wall * count - busy - idle - starting, 0)
        here = self.reading.spent + self.sending.spent + self.receiving.spent
        # If this process was at it all the time, that is what workers waited for.
        waiting, transport = (between, 0) if here > wall / 2 else (0, between)
        shares = self._shares()
        figures = MapReport(
            function=self._function,
            items=self._items,
            tasks=self._tasks,
            wall=wall * 1e-9,
            workers=count,
            bytes=self._bytes,
            longest=self._longest[0] * 1e-9,
            longest_items=self._longest[1],
            user=sum(place.user for place in places) * 1e-9,
            unpickling=sum(place.unpacking for place in places) * 1e-9,
            pickling=sum(place.packing for place in places) * 1e-9,
            transport=transport * 1e-9,
            waiting=waiting * 1e-9,
            idle=idle * 1e-9,
            starting=starting * 1e-9,
            reading=self.reading.spent * 1e-9,
            sending=self.sending.spent * 1e-9,
            receiving=self.receiving.spent * 1e-9,
            nodes=shares,
        )
        found = reasons(figures, Threads(1, count), way(figures, self._results), slow_node(shares))
        return replace(figures, reasons=tuple(found))

    def _shares(self) -> tuple[NodeShare, ...]:
        nodes = sorted({*self._workers, *(node for node, _ in self._places)})
        found = []
        for node in nodes:
            places = [place for (where, _), place in self._places.items() if where == node]
            items, user = sum(place.items for place in places), sum(place.user for place in places)
            workers = max(self._workers.get(node, 0), len(places))
            found.append(NodeShare(node, workers, sum(place.tasks for place in places), items, user * 1e-9))
        return tuple(found)


def way(map: MapReport, results: int) -> Cause:
    """What lies between tasks, when this process was not what they waited for; with so many bytes of results."""
    text = f"The way to the nodes and back took the workers {seconds(map.transport)}"
    if map.bytes + results < _LARGE * max(map.items, 1):
        return map.transport, f"{text}: let each call do more."
    if map.bytes > results:
        remedy = "what many calls need can be part of the function, which crosses once a node"
        return map.transport, f"{text}, with {size(map.bytes)} of arguments: {remedy}."
    return map.transport, f"{text}, with {size(results)} of results: return less."


def slow_node(shares: tuple[NodeShare, ...]) -> Cause:
    """A node that takes longer for an item than the others."""
    slow = max(shares, key=lambda share: share.each, default=None)
    others = [share for share in shares if share is not slow and share.tasks >= _TASKS]
    if slow is None or slow.tasks < _TASKS or not others:
        return 0.0, ""
    each = sum(share.user for share in others) / sum(share.items for share in others)
    if not each or slow.each < _SLOW * each:
        return 0.0, ""
    text = f"An item took node {slow.node} {slow.each / each:.2g} times as long as the others."
    return slow.user - each * slow.items, text
