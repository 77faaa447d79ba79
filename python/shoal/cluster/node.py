"""`Node`: a client's pool on one node, fed from a backlog, its results sent home.

    received ──▶ backlog ── taken: said to the client, then ──▶ shoal.Pool ──▶ done: sent to the client
                    └── given back, when another node has nothing to do

What was taken may have run; what was not, has not. So that this holds whenever the node is killed, a task is handed to
the pool only after the message that says so has left this process. Taken are as many as there are workers, and what
will begin within 12 ms, so that no worker waits for this process.
"""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from shoal import _budget, _checks, _engine
from shoal._terms import Terms
from shoal.cluster.balance import Rate
from shoal.cluster.engine import Item
from shoal.cluster.shared.refs import take_role
from shoal.cluster.shared.relay import Relay
from shoal.cluster.shared.ways import Way
from shoal.cluster.spent import Spent
from shoal.cluster.target import FAILED, Target
from shoal.cluster.wire import size, unpack
from shoal.cluster.words import Speaker
from shoal.insight.trace import MemoryWatch, workers_of
from shoal.pool import Pool
from shoal.serialize import dump_exception
from shoal.serialize.inherited import run_initializer

if TYPE_CHECKING:
    from shoal.insight.stats import WorkerSpent
    from shoal.reports.client import Settings

__all__ = ["Node"]

# Seconds: what will begin within them is taken. With 4 ms, tasks of 20 ms kept a worker 92 % busy on a loaded machine.
SOON = 0.012

# Bytes of results that wait to leave; with more, no more tasks are taken.
MOST_UNSENT = 256 << 20

Send = Callable[..., None]


class Node:
    """The pool of one client on this node.

    Args:
        options: the pickle of `Pool`'s arguments, as `Nodes` makes it; see `_made`.
        neighbours: how many processes of the cluster share this machine, this one included.
        send: sends items to the client, in order, from any thread; with `then=` what is called when they have left.
        patience: seconds without a message after which the client may give this node up, and its tasks to others.

    Raises:
        Exception: what `Pool` raises.
    """

    def __init__(self, options: bytes, neighbours: int, send: Send, patience: float = float("inf")) -> None:
        self._send = send
        # Looked at by the clock: a process that was frozen has counted no beats.
        self._patience, self._heard = patience, time.monotonic()
        self._speaker = Speaker(send)
        self._relay = Relay(send, self._has)
        try:
            self._pool = _made(pickle.loads(options), neighbours, self._speaker, self._relay)
        except BaseException:
            self._relay.close()
            raise
        self._base = self._pool._base
        self._inbox = _engine.Inbox(self._base)
        self._lock = threading.Lock()
        self._targets: dict[int, _engine.Prepared | Exception] = {}
        # Tasks by number: as they came, those that were taken, and of these the ones that the pool has.
        self._backlog: dict[int, Item] = {}
        self._taken: set[int] = set()
        self._running: dict[int, _engine.AsyncResult[Any]] = {}
        # By function and terms.
        self._prepared: dict[tuple[int, float | None, int], _engine.Prepared] = {}
        # Arrays that tasks have in common.
        self._blobs: dict[int, _engine.Common | Exception] = {}
        self._around = Spent()
        self._memory: MemoryWatch | None = None
        # Whether the client has more to do than was sent.
        self._more = False
        self._rate = Rate()
        self._unsent = 0
        self._held = False
        self._received: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._open = True
        self._threads = [
            threading.Thread(target=self._feed, name="shoal-node-feed", daemon=True),
            threading.Thread(target=self._collect, name="shoal-node-collect", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def workers(self) -> int:
        """How many workers the pool has."""
        return self._base.size

    def receive(self, items: list[Item]) -> None:
        """Take what the client sent, which may be a mere sign of life. Does not wait."""
        late, self._heard = self._is_late(), time.monotonic()
        if late:
            self._received.put(("tasks", []))  # what was not taken meanwhile is now
        for item in items:
            if item[0] == "shared":  # somebody waits for it
                self._relay.hear(item[1:])
            else:
                self._received.put(item)

    def hold(self, held: bool) -> None:
        """Whether to take nothing for now: the client may have given this node up, and its tasks to others."""
        if held == self._held:
            return
        with self._lock:
            self._held = held
            taken = self._take()
        self._say(taken)

    def close(self) -> None:
        """End the pool and whatever it is at; returns when its workers have ended."""
        self._open = False
        self._received.put(None)
        if self._memory is not None:
            self._send(("memory", *self._tell_memory()))
        self._pool.terminate()
        self._speaker.end()
        self._pool.join()
        self._relay.close()
        for thread in self._threads:
            thread.join()
        self._send(("spent", self._around.rows(self._base)))

    def _has(self, pid: int) -> bool:
        return any(worker.pid == pid for worker in self._base.workers)

    # ---- what the client wants ---------------------------------------------------------------------------------------

    def _feed(self) -> None:
        while (item := self._received.get()) is not None:
            name, *content = item
            getattr(self, f"_on_{name}")(*content)
            # It may be large, and the next may be long in coming.
            del item, content

    def _on_function(self, number: int, name: str, data: bytes | None, frames: list[Any]) -> None:
        arrays = [numpy.frombuffer(frame, numpy.uint8) for frame in frames]
        try:
            self._targets[number] = self._base.prepare(Target(name, data, arrays))
        except Exception as error:  # there is no room for it: its tasks say so
            self._targets[number] = error

    def _on_blob(self, number: int, frame: Any) -> None:
        # In shared memory from here on: what was received is not kept.
        try:
            self._blobs[number] = _engine.Common(self._base, frame)
        except Exception as error:  # there is no room for it: its tasks say so
            self._blobs[number] = error

    def _on_drop(self, number: int) -> None:
        if number < 0:
            for key in [key for key in self._prepared if key[0] == -number]:
                del self._prepared[key]
            self._targets.pop(-number, None)
            return
        self._blobs.pop(number, None)

    def _on_tasks(self, tasks: list[Item]) -> None:
        with self._lock:
            if not self._taken and not self._backlog:
                self._rate.rest()
            for task in tasks:
                self._backlog[task[0]] = task
            taken = self._take()
        self._say(taken)

    def _on_give(self, most: int) -> None:
        """Another node has nothing to do: give back what was not taken, the last first."""
        given: list[int] = []
        with self._lock:
            while self._backlog and len(given) < most:
                given.append(self._backlog.popitem()[0])
        self._send(("gave", given))

    def _on_more(self, more: bool) -> None:
        if more != self._more:
            self._more = more
            self._base.expect_more(more)

    def _on_notice(self, notice: bytes) -> None:
        self._base.leave_notice(notice)

    def _on_heard(self, count: int) -> None:
        self._speaker.heard(count)

    def _on_ask(self, number: int, what: str, *arguments: Any) -> None:
        self._send(("told", number, getattr(self, f"_tell_{what}")(*arguments)))

    def _tell_cancel(self, task: int, running: bool) -> bool:
        """Whether a task will not run, or not on: it is forgotten."""
        with self._lock:
            if self._backlog.pop(task, None) is not None:
                return True
            result = self._running.get(task)
        return result is not None and result.cancel(running=running)

    def _tell_untaken(self) -> list[int]:
        """Those that no worker has taken: they are forgotten."""
        with self._lock:
            untaken = list(self._backlog)
            self._backlog.clear()
            running = list(self._running.items())
        return untaken + [number for number, result in running if result.cancel()]

    def _tell_workers(self) -> list[tuple[int, int | None, str, int, float]]:
        return [(w.number, w.pid, w.state, w.tasks, w.busy) for w in self._base.workers]

    def _tell_spent(self) -> tuple[list[WorkerSpent], int]:
        """See `Spent.rows`; and how many tasks workers are at."""
        queued, outstanding = _engine.pool_depth(self._base)
        return self._around.rows(self._base), max(outstanding - queued, 0)

    def _tell_time(self) -> int:
        return time.monotonic_ns()

    def _tell_watch_memory(self) -> None:
        if self._memory is None:
            self._memory = MemoryWatch(self._base)

    def _tell_memory(self) -> tuple[dict[int, int | None], list[tuple[Any, ...]]]:
        """The processes of workers, and what was seen of memory since `watch_memory`."""
        memory, self._memory = self._memory, None
        return workers_of(self._base), [tuple(sample) for sample in memory.end()] if memory is not None else []

    # ---- what the pool does ------------------------------------------------------------------------------------------

    def _take(self) -> list[Item]:
        """Under the lock: the tasks that the pool is to have next."""
        if self._held or self._is_late():
            return []
        room = self._base.size + round(self._rate.value * SOON) - len(self._taken)
        taken: list[Item] = []
        while len(taken) < room and self._backlog and self._unsent <= MOST_UNSENT:
            taken.append(self._backlog.pop(next(iter(self._backlog))))
        self._taken.update(task[0] for task in taken)
        return taken

    def _is_late(self) -> bool:
        return time.monotonic() - self._heard > self._patience

    def _say(self, taken: list[Item], outcomes: list[Item] | None = None) -> None:
        """Tell the client what ended and what is taken; then hand the latter to the pool."""
        if outcomes:
            self._relay.look()  # what bars have counted until now comes first
        items: list[Item] = [("done", outcomes)] if outcomes else []
        if taken:
            items.append(("took", [task[0] for task in taken]))
        nbytes = sum(size(data, frames) for _, _, data, frames, _ in outcomes or ())
        if not items:
            return
        with self._lock:
            self._unsent += nbytes

        def left() -> None:
            with self._lock:
                self._unsent -= nbytes
                more = self._take() if nbytes else []
            self._start(taken)
            self._say(more)

        self._send(*items, then=left)

    def _start(self, tasks: list[Item]) -> None:
        """The client knows that these are taken: hand them to the pool."""
        failed: list[Item] = []
        ended: list[int] = []
        for number, target, kind, data, frames, timeout, priority in tasks:
            try:
                result: Any = self._submitted(target, kind, data, frames, (timeout, priority))
            except Exception as error:
                failed.append((number, FAILED, dump_exception(error), [], None))
                continue
            with self._lock:
                self._running[number] = result
            if not result.watch(self._inbox, number):
                ended.append(number)
        if failed or ended:
            self._report(ended, failed)

    def _submitted(self, target: int, kind: int, data: bytes, frames: list[Any], terms: tuple[Any, Any]) -> Any:
        function = self._function(target, terms)
        return self._base.submit_call(function, (kind, data, [self._array(frame) for frame in frames]))

    def _array(self, frame: Any) -> Any:
        """What arrives in a worker as an array of bytes: a frame, or one that was sent before, by its number."""
        if not isinstance(frame, int):
            return numpy.frombuffer(frame, numpy.uint8)
        blob = self._blobs[frame]
        if isinstance(blob, Exception):
            raise blob
        return blob

    def _function(self, target: int, terms: tuple[Any, Any]) -> Any:
        """What to call, on these terms."""
        prepared = self._prepared.get((target, *terms))
        if prepared is None:
            function = self._targets[target]
            if isinstance(function, Exception):
                raise function
            timeout, priority = terms
            engine = Terms({"timeout": timeout, "priority": priority}).engine
            prepared = self._base.prepare(function, engine)
            self._prepared[target, timeout, priority] = prepared
        return prepared

    def _collect(self) -> None:
        while self._open:
            ended = self._inbox.take(0.2)
            if ended and self._open:
                self._report(ended, [])

    def _report(self, ended: list[int], outcomes: list[Item]) -> None:
        with self._lock:
            results = [(number, self._running.pop(number)) for number in ended]
        for number, result in results:
            try:
                status, data, frames, times = result.get()
                outcomes.append((number, status, data, [pickle.PickleBuffer(frame) for frame in frames], times))
                self._around.count(times)
            except BaseException as error:
                outcomes.append((number, FAILED, dump_exception(error), [], None))
        with self._lock:
            self._taken.difference_update(outcome[0] for outcome in outcomes)
            self._rate.count(len(outcomes))
            taken = self._take()
        self._say(taken, outcomes)


class NodePool(Pool):
    """The pool of a node: what its workers report, and to whom, is the client's affair."""

    _is_part = True

    def __init__(self, told: Settings, speaker: Speaker, **options: Any) -> None:
        self._told, self._speaker = told, speaker
        super().__init__(**options)

    def _listen(self, logs: bool, warnings: bool, output: bool) -> Settings:
        return self._told

    def _leave_notice(self, told: bytes) -> None:
        pass  # of levels of this process, which are not the client's


def _made(options: dict[str, Any], neighbours: int, speaker: Speaker, relay: Relay) -> Pool:
    """The pool, with this node's CPUs unless the client says how many workers; shared with its neighbours."""
    arguments = dict(options)
    if arguments.get("processes") is None:
        arguments["processes"] = min(max(1, _budget.cpu_count() // neighbours), _checks.MOST_WORKERS)
    arguments.update(initializer=_initialize, initargs=((relay.up, relay.home.name), arguments.pop("start")))
    return NodePool(speaker=speaker, **arguments)


def _initialize(way: tuple[Any, bytes], start: tuple[bytes, list[Any]] | None) -> None:
    """In a worker: where shared things are asked for; then the user's initializer."""
    take_role(Way(*way))
    if start is not None:
        run_initializer(lambda: unpack(*start))
