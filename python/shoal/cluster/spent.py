"""Where the time of nodes' workers went. To a node's engine, packing and unpacking are part of the function."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from shoal import _engine
from shoal.cluster.target import Times
from shoal.insight.stats import PoolStats, WorkerSpent, worker_stats

if TYPE_CHECKING:
    from shoal.cluster.nodes import Nodes

__all__ = ["Spent", "of_nodes"]


class Spent:
    """What a node's workers have spent so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By worker: nanoseconds of unpacking and of packing.
        self._around: dict[int, tuple[int, int]] = {}

    def count(self, times: tuple[int, int, int, int, int]) -> None:
        """A task has ended."""
        worker, _, _, unpacking, packing = Times(*times)
        with self._lock:
            before = self._around.get(worker, (0, 0))
            self._around[worker] = before[0] + unpacking, before[1] + packing

    def rows(self, base: _engine.PoolBase) -> list[WorkerSpent]:
        """Of each worker of the pool what `worker_stats` makes its statistics of."""
        rows = []
        for number, pid, state, task, (tasks, busy, decoding, encoding, *between) in _engine.pool_spent(base):
            unpacking, packing = self._around.get(number, (0, 0))
            rows.append((number, pid, state, task, (tasks, busy, decoding + unpacking, encoding + packing, *between)))
        return rows


def of_nodes(nodes: Nodes) -> PoolStats:
    """The statistics of a pool at this moment. In the client."""
    spent, running = nodes.spent()
    _, unfinished = nodes.depth
    workers = tuple(worker_stats(worker, node) for node, rows in spent for worker in rows)
    return PoolStats(workers, max(unfinished - running, 0), unfinished)
