"""`Pool.trace()` on a cluster: a record for each node, on the client's clock.

The client notes when a task was submitted and when its result was here; from when to when it was done, and by which
worker, comes with the result, on the clock of its node. How far that is from the client's is measured by questions: the
node reads its clock somewhere between question and answer, so the middle of the two is wrong by half of the time
between them at most. Of some questions at the beginning, and some at the end, the quickest count; in between clocks
drift evenly. Memory is looked at by each node, in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.cluster.common import Blob
from shoal.cluster.target import RESULTS, VALUE
from shoal.insight.trace import PoolTrace, Sample, TaskRecord

if TYPE_CHECKING:
    from shoal.cluster.linked import Linked
    from shoal.cluster.nodes import Nodes
    from shoal.cluster.questions import Question
    from shoal.cluster.task import Task

__all__ = ["Clock", "ClusterRecorder"]

# Questions of which the quickest counts.
_QUESTIONS = 8
# The worker of a task whose node can't tell any more who did it.
_NOBODY = -1


class Look(NamedTuple):
    """Two clocks at the same moment, in nanoseconds, and by how much that may be wrong."""

    here: int
    there: int
    error: int


class Clock:
    """The clock of a node, as the client has seen it."""

    def __init__(self) -> None:
        self._begin: Look | None = None
        self._end: Look | None = None
        # Results that have arrived: they were not there before they were done.
        self._least: int | None = None

    def look(self, questions: list[Question], at_end: bool) -> None:
        """What came of some questions for its time."""
        looks = [
            Look((asked.asked + asked.told) // 2, asked.answer, (asked.told - asked.asked + 1) // 2)
            for asked in questions
            if asked.told
        ]
        best = min(looks, key=lambda look: look.error, default=None)
        if at_end:
            self._end = best
        else:
            self._begin = best

    def arrived(self, there: int, here: int) -> None:
        """What was done at a moment of its clock was known here at a moment of this one."""
        self._least = here - there if self._least is None else min(self._least, here - there)

    @property
    def error(self) -> float | None:
        """By how many seconds its times may be wrong; None if nobody knows."""
        looks = [look.error for look in (self._begin, self._end) if look is not None]
        return max(looks) * 1e-9 if looks else None

    def here(self, there: int) -> int:
        """A moment of its clock on this one."""
        first, last = self._begin or self._end, self._end or self._begin
        if first is None or last is None:
            # It was there for a moment only.
            return there + (self._least or 0)
        offset, passed = first.here - first.there, last.there - first.there
        if passed > 0:
            # Before and after that nobody knows: what the looks are wrong by would grow with the distance.
            within = min(max(there - first.there, 0), passed)
            offset += (last.here - last.there - offset) * within // passed
        return there + offset


class _Record:
    """What is recorded of a node. Times of its clock, but for `submitted` and `received`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tasks: list[TaskRecord] = []
        self.workers: dict[int, int | None] = {}
        self.samples: list[Sample] = []

    def traced(self, title: str, left_out: int) -> PoolTrace:
        here = self.clock.here
        tasks = []
        for task in self.tasks:
            # Within what the clocks may be wrong by, nothing begins before it was submitted, or ends when it is here.
            ended = min(max(here(task.ended), task.submitted), task.received)
            started = ended if task.started == task.ended else min(max(here(task.started), task.submitted), ended)
            tasks.append(task._replace(started=started, ended=ended))
        samples = [sample._replace(time=here(sample.time)) for sample in self.samples]
        return PoolTrace(title, tasks, self.workers, samples, left_out, self.clock.error)


class ClusterRecorder:
    """The record of a pool in the making. Told what happens under the lock of its `Nodes`.

    Args:
        nodes: of the pool.
        title: what viewers call it.
        most: tasks that are recorded at most.

    Raises:
        ValueError: the pool is being traced already.
    """

    def __init__(self, nodes: Nodes, title: str, most: int) -> None:
        self._nodes, self._title, self._most = nodes, title, most
        self._records: dict[str, _Record] = {}
        self._recorded = self._left_out = 0
        with nodes.lock:
            if nodes.recorder is not None:
                raise ValueError(f"{title} is being traced already")
            nodes.recorder = self
        self._look(at_end=False)
        nodes.ask_all("watch_memory")

    def _of(self, node: str) -> _Record:
        return self._records.setdefault(node, _Record())

    def _look(self, at_end: bool) -> None:
        asked: dict[str, list[Question]] = {}
        for _ in range(_QUESTIONS):
            for question in self._nodes.ask_all("time"):
                asked.setdefault(question.node.link.node, []).append(question)
        with self._nodes.lock:
            for node, questions in asked.items():
                self._of(node).clock.look(questions, at_end)

    def joined(self, node: Linked) -> None:
        """A node is there."""
        node.link.send(("ask", -1, "watch_memory"))

    def ended(self, task: Task, node: Linked, status: int, bytes_out: int) -> None:
        """A node says that a task has ended."""
        now = time.monotonic_ns()
        record = self._of(node.link.node)
        if task.times is None:
            self._add(record, task, (now, now, _NOBODY), now, 0, "died")
        else:
            worker, began, ended, *_ = task.times
            record.clock.arrived(ended, now)
            end = "value" if status in (VALUE, RESULTS) else "exception"
            self._add(record, task, (began, ended, worker), now, bytes_out, end)

    def memory(self, node: Linked, workers: dict[int, int | None], samples: list[tuple[Any, ...]]) -> None:
        """What a node has seen of its memory; of one that ends its pool, before that."""
        record = self._of(node.link.node)
        record.workers, record.samples = workers, [Sample(*sample) for sample in samples]

    def lost(self, task: Task, node: Linked) -> None:
        """A node was lost, and a task with it."""
        now = time.monotonic_ns()
        self._add(self._of(node.link.node), task, (now, now, _NOBODY), now, 0, "died")

    def _add(self, record: _Record, task: Task, done: tuple[int, int, int], now: int, bytes_out: int, end: str) -> None:
        if not task.submitted:
            return
        if self._recorded >= self._most:
            self._left_out += 1
            return
        self._recorded += 1
        began, ended, worker = done
        bytes_in = task.nbytes + sum(memoryview(f.frame).nbytes for f in task.frames if isinstance(f, Blob))
        name = task.called
        record.tasks.append(
            TaskRecord(task.submitted, began, ended, now, bytes_in, bytes_out, name, task.items, worker, end)
        )

    def end(self) -> list[PoolTrace]:
        """End the record: one for each node, those without tasks too."""
        answers = self._nodes.ask_all("memory")
        self._look(at_end=True)
        with self._nodes.lock:
            self._nodes.recorder = None
            for asked in answers:
                if asked.answer is not None:
                    self.memory(asked.node, *asked.answer)
            left_out = self._left_out
            found = []
            for node, record in sorted(self._records.items()):
                found.append(record.traced(f"{self._title} node={node}", left_out))
                # All of them together have left out so many.
                left_out = 0
        return found
