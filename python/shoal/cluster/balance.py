"""How much each node gets: what keeps its workers busy until the next message, and few enough to leave some.

A node may have as many as it has workers, a quarter more, and what it ends within the time that messages take, judged
by how many it has ended lately. So a slow one gets fewer. See `Linked.room`.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.cluster.linked import Linked
    from shoal.cluster.waiting import Waiting

__all__ = ["Rate", "deal", "level", "shares"]


def deal(waiting: Waiting, nodes: Collection[Linked]) -> None:
    """Send nodes as many of the tasks that wait as they have room for."""
    nodes = [node for node in nodes if node.room > 0]
    if not nodes:
        return
    # First a task for each worker, then some to go on with.
    first = shares(len(waiting), [node.link.workers - len(node.out) for node in nodes])
    chosen = [waiting.pop(share) for share in first]
    rooms = [node.room - len(tasks) for node, tasks in zip(nodes, chosen, strict=True)]
    for tasks, share in zip(chosen, shares(len(waiting), rooms), strict=True):
        tasks += waiting.pop(share)
    for node, tasks in zip(nodes, chosen, strict=True):
        node.deliver(tasks)


def level(nodes: Collection[Linked]) -> None:
    """When none wait: have who has most give back some that it has not taken, for one that has nothing to do."""
    idle = [node for node in nodes if len(node.out) < node.link.workers]
    if not idle:
        return
    rich = max(nodes, key=lambda node: len(node.out) - len(node.taken))
    spare = len(rich.out) - len(rich.taken)
    if rich.asked or rich in idle or (spare < 2 and len(rich.taken) < rich.link.workers) or not spare:
        return
    rich.asked = True
    rich.link.send(("give", -(-spare // 2)))


def shares(waiting: int, rooms: list[int]) -> list[int]:
    """How many of the tasks that wait each node gets, when they have so much room.

    Example:
        shares(3, [4, 2])  # [2, 1]
    """
    rooms = [max(0, room) for room in rooms]
    total = sum(rooms)
    if waiting >= total:
        return rooms
    found = []
    for room in rooms:
        share = -(-waiting * room // total) if total else 0
        waiting, total = waiting - share, total - room
        found.append(share)
    return found


class Rate:
    """How many tasks end in a second, lately."""

    # Seconds that are looked at together.
    SPAN = 0.02

    def __init__(self) -> None:
        self.value = 0.0
        self._since, self._count = time.monotonic(), 0

    def count(self, tasks: int) -> None:
        """So many have ended."""
        self._count += tasks
        now = time.monotonic()
        passed = now - self._since
        if passed >= self.SPAN:
            latest = self._count / passed
            self.value = latest if self.value == 0 else (self.value + latest) / 2
            self._since, self._count = now, 0

    def rest(self) -> None:
        """There was nothing to do: the time until now does not count."""
        self._since, self._count = time.monotonic(), 0
