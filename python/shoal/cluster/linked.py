"""A node as the client knows it: its link, and what lies there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.cluster.balance import Rate
from shoal.cluster.common import Blob
from shoal.cluster.engine import Item, Link

if TYPE_CHECKING:
    from shoal.cluster.task import Task

__all__ = ["Linked", "NodeWorker"]

# Seconds: what a node will end within them is on its way to it.
AHEAD = 0.02

# Bytes of tasks that are on their way to a node; but always a task for each of its workers.
MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class NodeWorker:
    """A worker of a pool on a cluster, as it was when asked. As `Worker`.

    Attributes:
        node: the address of the node.
        number: its place in the node's pool, from 0.
        pid: its process there.
        state: as of `Worker`.
        tasks: tasks ended at this place.
        busy: seconds spent on them.
    """

    node: str
    number: int
    pid: int | None
    state: str
    tasks: int
    busy: float


class Linked:
    """What is known of a linked node. All of it changes under the lock of `Nodes`."""

    def __init__(self, link: Link, number: int) -> None:
        self.link, self.number = link, number
        # The numbers of blobs, and minus those of functions, that it has.
        self.known: set[int] = set()
        # Tasks that are there, in the order in which they were sent, and those of them that were taken.
        self.out: dict[int, Task] = {}
        self.taken: set[int] = set()
        self.nbytes = 0
        self.rate = Rate()
        # Whether it was asked to give tasks back, and has not answered.
        self.asked = False
        # Bytes of what it said of which it was not told yet that they are passed on.
        self.unheard = 0
        self.is_lost = False

    @property
    def room(self) -> int:
        """How many more tasks it may have."""
        if self.nbytes > MOST_BYTES:
            return max(0, self.link.workers - len(self.out))
        more = max(1, self.link.workers // 4)
        return self.link.workers + more + int(self.rate.value * AHEAD) - len(self.out)

    def deliver(self, tasks: list[Task]) -> None:
        """Send it these, and what they need that it does not have."""
        if not tasks:
            return
        if not self.out:
            self.rate.rest()
        items: list[Item] = []
        sent: list[Item] = []
        for task in tasks:
            function = task.function
            if self._is_new(-function.number):
                items.append(("function", function.number, function.name, function.data, function.frames))
            frames = task.frames
            if any(isinstance(frame, Blob) for frame in frames):
                blobs = [frame for frame in frames if isinstance(frame, Blob)]
                items += [("blob", blob.number, blob.frame) for blob in blobs if self._is_new(blob.number)]
                frames = [frame.number if isinstance(frame, Blob) else frame for frame in frames]
            task.state, task.link = "sent", self.link
            self.out[task.number] = task
            self.nbytes += task.nbytes
            limit, priority = (task.terms.timeout, task.terms.priority) if task.terms is not None else (None, 0)
            sent.append((task.number, function.number, task.kind, task.data, frames, limit, priority))
        self.link.send(*items, ("tasks", sent))

    def _is_new(self, number: int) -> bool:
        """Whether it does not have this; from now on it has."""
        if number in self.known:
            return False
        self.known.add(number)
        return True

    def drop(self, numbers: list[int]) -> None:
        """What nobody needs any more, it need not have."""
        if gone := self.known.intersection(numbers):
            self.known -= gone
            self.link.send(*(("drop", number) for number in gone))

    def remove(self, number: int) -> Task | None:
        """A task that is no longer there; None if it was not."""
        task = self.out.pop(number, None)
        if task is not None:
            self.nbytes -= task.nbytes
            self.taken.discard(number)
        return task
