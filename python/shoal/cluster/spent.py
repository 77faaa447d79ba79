"""Where the time of a node's workers went. To the node's engine, packing and unpacking are part of the function."""

from __future__ import annotations

import threading

from shoal import _engine
from shoal.cluster.target import Times
from shoal.insight.stats import WorkerSpent

__all__ = ["Spent"]


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
        for number, pid, state, (tasks, busy, decoding, encoding, *between) in _engine.pool_spent(base):
            unpacking, packing = self._around.get(number, (0, 0))
            rows.append((number, pid, state, (tasks, busy, decoding + unpacking, encoding + packing, *between)))
        return rows
