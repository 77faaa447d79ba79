"""`Pool.stats()`: where the time of each worker went."""

from __future__ import annotations

from dataclasses import dataclass

from shoal import _engine
from shoal._text import seconds, table
from shoal.insight import html

__all__ = ["PoolStats", "WorkerSpent", "WorkerStats", "of_pool", "worker_stats"]

# A worker as it comes from the engine: number, pid, state; what it is at, and since how many nanoseconds; tasks, and
# nanoseconds: busy, decoding, encoding, sending, idle, waiting.
WorkerSpent = tuple[int, int | None, str, tuple[str | None, int] | None, tuple[int, ...]]

_HEAD = ("worker", "pid", "state", "tasks", "user", "unpickling", "pickling", "transport", "waiting", "idle", "used")


@dataclass(frozen=True)
class WorkerStats:
    """A worker's place in a pool, since the pool began; another worker that takes the place goes on counting.

    Times are seconds. What the worker is at just now counts up to now.

    Attributes:
        number: the place, from 0; on a cluster, in the pool of its node.
        pid: its process; None while it is starting, or when it is gone.
        state: as of `Worker`.
        tasks: how many it has ended. With chunks, a task has many items.
        busy: from taking a task to its end.
        unpickling: of that, reading functions and arguments.
        pickling: of that, writing results. Of tasks shorter than 20 µs one in 32 is looked at, and counts for all.
        transport: between two tasks that followed each other: sending the result, taking the next task.
        waiting: without a task while the client had more to send: it was reading its input, or pickling it.
        idle: without a task, and none was to come.
        task: what the function is called that it is at; "" if that is not known, None if it is at none.
        task_seconds: for how long.
        node: on a cluster, the address of its node; else None.
    """

    number: int
    pid: int | None
    state: str
    tasks: int
    busy: float
    unpickling: float = 0.0
    pickling: float = 0.0
    transport: float = 0.0
    waiting: float = 0.0
    idle: float = 0.0
    task: str | None = None
    task_seconds: float = 0.0
    node: str | None = None

    @property
    def user(self) -> float:
        """Seconds in the functions themselves: busy without unpickling and pickling."""
        return max(self.busy - self.unpickling - self.pickling, 0.0)

    @property
    def used(self) -> float:
        """The share of its time that went to the functions themselves, 0 to 1; 0 for one that has not begun."""
        total = self.busy + self.transport + self.waiting + self.idle
        return self.user / total if total else 0.0

    @property
    def _place(self) -> tuple[str, str, str]:
        """The first cells of its line in a table."""
        return str(self.number), "-" if self.pid is None else str(self.pid), self.state


@dataclass(frozen=True)
class PoolStats:
    """What a pool has done so far. Printed, it is a table with a line for each worker.

    Attributes:
        workers: a `WorkerStats` for each place.
        queued: tasks that no worker has taken.
        outstanding: tasks that have not ended, queued ones too.
    """

    workers: tuple[WorkerStats, ...]
    queued: int
    outstanding: int

    @property
    def tasks(self) -> int:
        """Tasks ended, by all workers."""
        return sum(worker.tasks for worker in self.workers)

    def _head(self) -> tuple[str, ...]:
        return ("node", *_HEAD) if self._has_nodes else _HEAD

    @property
    def _has_nodes(self) -> bool:
        return any(worker.node is not None for worker in self.workers)

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [
            (
                *((worker.node or "",) if self._has_nodes else ()),
                *worker._place,
                f"{worker.tasks:,}",
                *map(seconds, _times(worker)),
                f"{worker.used:.0%}",
            )
            for worker in self.workers
        ]
        if len(self.workers) > 1:
            sums = map(sum, zip(*map(_times, self.workers), strict=True))
            used = sum(worker.used for worker in self.workers) / len(self.workers)
            rows.append(
                (
                    "all",
                    *[""] * (len(self._head()) - len(_HEAD) + 2),
                    f"{self.tasks:,}",
                    *map(seconds, sums),
                    f"{used:.0%}",
                )
            )
        return rows

    def __str__(self) -> str:
        return f"{table(self._head(), self._rows())}\n{self._queue()}"

    def _repr_html_(self) -> str:
        return html.table(self._queue(), self._head(), self._rows())

    def _queue(self) -> str:
        return f"{self.queued:,} tasks queued, {self.outstanding - self.queued:,} under way"


def _times(worker: WorkerStats) -> tuple[float, ...]:
    return worker.user, worker.unpickling, worker.pickling, worker.transport, worker.waiting, worker.idle


def of_pool(base: _engine.PoolBase) -> PoolStats:
    """The statistics of a pool at this moment."""
    queued, outstanding = _engine.pool_depth(base)
    workers = tuple(map(worker_stats, _engine.pool_spent(base)))
    return PoolStats(workers, queued, max(outstanding, queued))


def worker_stats(spent: WorkerSpent, node: str | None = None) -> WorkerStats:
    """The statistics of a worker, of that node."""
    number, pid, state, task, (tasks, *nanos) = spent
    busy, decoding, encoding, sending, idle, waiting = (nano * 1e-9 for nano in nanos)
    name, taken = (None, 0) if task is None else (task[0] or "", task[1])
    parts = busy, decoding, encoding, sending, waiting, idle
    return WorkerStats(number, pid, state, tasks, *parts, name, taken * 1e-9, node)
