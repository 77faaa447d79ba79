"""`Pool.trace()`: a record of every task, as a file that Perfetto and Chrome show.

    submitted ──── queued ────▶ started ── on its worker ──▶ ended ── result ──▶ received

The engine records; here the record is begun, ended, and kept as `TaskRecord`s. `chrome` writes the file.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from shoal import _checks, _engine
from shoal.insight import chrome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from shoal.cluster.traces import ClusterRecorder
    from shoal.pool import Pool

__all__ = ["MemoryWatch", "PoolTrace", "Recorder", "Sample", "TaskRecord", "Trace", "trace_process", "workers_of"]

# As crates/shoal-python/src/insight.rs packs a record.
_RECORD = struct.Struct("<6Q2IHB5x")
_ENDS = ("value", "exception", "died")
# In the engine a record takes 32 bytes.
MOST = 1_000_000
# Seconds between two looks at memory.
_PERIOD = 0.1


class TaskRecord(NamedTuple):
    """A task of a trace. Times are nanoseconds, on the clock of `time.monotonic_ns`.

    Attributes:
        submitted: when it was submitted; those of a map that were sent together have the time of the first.
        started: when its worker took it.
        ended: when it ended.
        received: when the client saw that.
        bytes_in: of its arguments, and of the blocks of shared memory that they name.
        bytes_out: of its result, likewise.
        function: its name.
        items: how many items of a map it did; 1 for a call.
        worker: the number of its worker, on a cluster in the pool of its node; -1 if nobody can tell.
        end: "value", "exception", or "died" if its worker did.
    """

    submitted: int
    started: int
    ended: int
    received: int
    bytes_in: int
    bytes_out: int
    function: str
    items: int
    worker: int
    end: str


class Sample(NamedTuple):
    """Memory at a moment: shared by this process's pools, and private to each worker, in bytes by its number."""

    time: int
    shared: int
    private: dict[int, int]


@dataclass
class PoolTrace:
    """What was recorded of one pool; of one on a cluster there is one for each node.

    Attributes:
        title: the pool, and its node.
        tasks: in the order in which their ends were seen.
        workers: the process of each worker, by its number.
        samples: memory now and then.
        left_out: tasks that were not recorded, because there were more than wanted.
        error: by how many seconds `started`, `ended` and the times of samples may be wrong, as they are of another
            machine's clock; 0 on this one, None if nobody knows.
    """

    title: str
    tasks: list[TaskRecord]
    workers: dict[int, int | None]
    samples: list[Sample]
    left_out: int
    error: float | None = 0.0


class Trace:
    """Records every task of a pool that is submitted inside its `with` block; made by `Pool.trace`.

    At the end of the block the file is written.

    Attributes:
        path: where; None for no file.
        pools: what was recorded, once the block has ended.
    """

    def __init__(self, pool: Pool | None, path: str | os.PathLike[str] | None, most: int = MOST) -> None:
        # Wherever the program goes meanwhile.
        self.path = None if path is None else os.path.abspath(path)
        self.pools: list[PoolTrace] = []
        self._most = _checks.integer(most, "most", 1)
        self._pool = pool
        self._began = 0
        self._recorders: list[Recorder | ClusterRecorder] = []

    @property
    def tasks(self) -> list[TaskRecord]:
        """The tasks, in the order in which their ends were seen."""
        tasks = [task for pool in self.pools for task in pool.tasks]
        return tasks if len(self.pools) < 2 else sorted(tasks, key=lambda task: task.received)

    def __enter__(self) -> Self:
        self._began = time.monotonic_ns()
        if self.path is not None:
            # What can't be written is to be known before the work, not after it.
            with open(self.path, "w"):
                pass
        if self._pool is not None:
            self._record(self._pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pools = [pool for recorder in self._recorders for pool in recorder.end()]
        self._recorders = []
        if self.path is not None:
            with open(self.path, "w", encoding="utf-8") as file:
                chrome.write(file, self.pools, self._began)

    def _record(self, pool: Pool) -> None:
        recorder = pool._recorder(self._most)
        # Those of threads keep no record.
        if recorder is not None:
            self._recorders.append(recorder)

    def __repr__(self) -> str:
        return f"<shoal trace of {len(self.tasks)} tasks{f', in {self.path}' if self.path else ''}>"


@contextlib.contextmanager
def trace_process(path: str | os.PathLike[str], most: int = MOST) -> Iterator[Trace]:
    """Traces all pools that this process has or makes inside the block into one file. For `shoal run --trace`.

    Args:
        path: the file.
        most: tasks of a pool that are recorded at most.
    """
    from shoal import pool as pools

    with Trace(None, path, most) as trace:
        for pool in list(pools._pools):
            if pool._base.is_open and pool._owner == os.getpid():
                trace._record(pool)
        pools._watchers.append(trace._record)
        try:
            yield trace
        finally:
            pools._watchers.remove(trace._record)


class MemoryWatch:
    """A thread that looks at memory now and then: shared, and private to each worker of a pool."""

    def __init__(self, base: _engine.PoolBase) -> None:
        self._base = base
        self._samples: list[Sample] = []
        self._over = threading.Event()
        # The first time here: what is recorded next is not to wait for it.
        self._look()
        self._thread = threading.Thread(target=self._watch, name="shoal-trace", daemon=True)
        self._thread.start()

    def end(self) -> list[Sample]:
        """End the thread; what it has seen."""
        self._over.set()
        self._thread.join()
        return self._samples

    def _watch(self) -> None:
        while not self._over.wait(_PERIOD):
            self._look()
        # Also at the end: a short record may have begun before there was a worker.
        self._look()

    def _look(self) -> None:
        pids = {number: pid for number, pid, *_ in _engine.pool_spent(self._base) if pid is not None}
        private = {number: _private_memory(pid) for number, pid in pids.items()}
        self._samples.append(Sample(time.monotonic_ns(), _engine.memory_usage()[1], private))


class Recorder:
    """The record of one pool of this machine in the making."""

    def __init__(self, base: _engine.PoolBase, title: str, most: int) -> None:
        # The engine's part: a pool that is forgotten meanwhile ends, its record does not.
        self._base, self._title = base, title
        if not _engine.start_trace(base, most):
            raise ValueError(f"{title} is being traced already")
        self._memory = MemoryWatch(base)

    def end(self) -> list[PoolTrace]:
        """End the record."""
        samples = self._memory.end()
        recorded = _engine.stop_trace(self._base)
        # A fork of the client has no record.
        packed, names, left_out = recorded if recorded is not None else (b"", {}, 0)
        tasks = []
        for submitted, started, ended, received, taken, given, function, items, worker, end in _RECORD.iter_unpack(
            packed
        ):
            times = submitted, started, ended, received
            tasks.append(TaskRecord(*times, taken, given, names[function], items, worker, _ENDS[end]))
        return [PoolTrace(self._title, tasks, workers_of(self._base), samples, left_out)]


def workers_of(base: _engine.PoolBase) -> dict[int, int | None]:
    """The process of each worker, by its number."""
    return {number: pid for number, pid, *_ in _engine.pool_spent(base)}


def _private_memory(pid: int) -> int:
    """Bytes that a process has for itself; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
