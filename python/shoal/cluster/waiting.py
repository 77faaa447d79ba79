"""The tasks of a pool that wait in the client: by priority, then in the order they came."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.cluster.task import Task

__all__ = ["Waiting"]


class Waiting:
    """A queue of tasks. One that is taken back meanwhile keeps its place, which is passed over. Not locked."""

    def __init__(self) -> None:
        # (-priority, order, task)
        self._heap: list[tuple[int, int, Task]] = []
        self._order = itertools.count()
        # To the front of its priority go those that come back.
        self._front = itertools.count(-1, -1)

    def __len__(self) -> int:
        """How many places there are, when those in front that are passed over are gone."""
        while self._heap and self._heap[0][2].state != "queued":
            heapq.heappop(self._heap)
        return len(self._heap)

    def __iter__(self) -> Iterator[Task]:
        """Those that wait, in no order."""
        return (task for _, _, task in self._heap if task.state == "queued")

    def push(self, task: Task) -> None:
        """A task begins to wait."""
        self._push(task, next(self._order))

    def push_front(self, tasks: list[Task]) -> None:
        """These come back, in their order: before all that came later."""
        for task in reversed(tasks):
            self._push(task, next(self._front))

    def _push(self, task: Task, order: int) -> None:
        task.state, task.link = "queued", None
        heapq.heappush(self._heap, (-task.terms.priority if task.terms is not None else 0, order, task))

    def pop(self, most: int) -> list[Task]:
        """The next tasks; fewer if there are not so many."""
        tasks: list[Task] = []
        while len(tasks) < most and self._heap:
            task = heapq.heappop(self._heap)[2]
            if task.state == "queued":
                tasks.append(task)
        return tasks

    def clear(self) -> None:
        """Nobody waits any more."""
        self._heap.clear()
