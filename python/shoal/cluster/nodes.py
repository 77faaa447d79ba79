"""`Nodes`: the workers of a pool on a cluster, in the client. The twin of the engine's `PoolBase`.

Tasks wait here until a node wants them. A node is given as many as it has workers, some to go on with, and what it will
come to while a message is on its way, judged by how many it has ended lately: a slow one gets fewer. When none wait any
more, a node with nothing to do gets what another has not taken. The protocol is told in docs/design/cluster.md.
"""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from shoal.cluster.balance import deal, level
from shoal.cluster.deaths import told
from shoal.cluster.engine import Engine, Item, Link
from shoal.cluster.functions import Function, Functions, name_of, packed_call
from shoal.cluster.linked import Linked, NodeWorker
from shoal.cluster.questions import Question, Questions
from shoal.cluster.shared.homes import Use, home
from shoal.cluster.target import CALL, ERROR, FAILED, WITH, Times
from shoal.cluster.task import Task
from shoal.cluster.terms import Terms
from shoal.cluster.waiting import Waiting
from shoal.cluster.wire import size
from shoal.cluster.words import Words
from shoal.errors import PoolClosed, TaskTimeout, WorkerDied
from shoal.results import closed, is_owned
from shoal.serialize import load_exception

if TYPE_CHECKING:
    from shoal.cluster.account import Account
    from shoal.cluster.pieces import Pieces
    from shoal.cluster.traces import ClusterRecorder
    from shoal.insight.stats import WorkerSpent

__all__ = ["Nodes"]


class Nodes:
    """The nodes of a pool, and what they are to do.

    Args:
        engine: who carries messages.
        options: of the pool, for `Node`.
    """

    def __init__(self, engine: Engine, options: dict[str, Any]) -> None:
        # Taken as it is: `with self.changed` is code of Python, and Ctrl-C in there would leave it locked.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._engine = engine
        self._owner = os.getpid()
        # Whether no more tasks are taken, which the engine's thread makes the state.
        self._closing = False
        self._state = "open"
        self._broken: Exception | None = None
        # While the pool starts: the nodes that can't be used, and why.
        self._refusals: list[tuple[str, BaseException]] = []
        self._started = False
        self._nodes: dict[Link, Linked] = {}
        # Submitted. All further steps are taken by the engine's thread, which no signal interrupts; and whether that is
        # called to it.
        self._submitted: deque[Task] = deque()
        self._called = False
        self._queue = Waiting()
        self._tasks: dict[int, Task] = {}
        self._numbers = itertools.count(1)
        # Maps that have more to submit.
        self.feeding: weakref.WeakSet[Pieces] = weakref.WeakSet()
        # The numbers of blobs, and minus those of functions, that nobody needs; a finalizer, which may run anywhere,
        # only writes it down. Likewise in `known` of a node.
        self.dropped: deque[int] = deque()
        self.functions = Functions(lambda number: self.dropped.append(-number))
        self.words = Words()
        # The number of the next node; the latest notice of what workers are to report, see `shoal.reports.levels`.
        self._next = itertools.count()
        self._notice: bytes | None = None
        # Whether nodes believe that there is more to come.
        self._more = False
        self._questions = Questions()
        # What workers of nodes that have ended their pools had spent.
        self._past: list[tuple[Linked, list[WorkerSpent]]] = []
        # While a record of tasks is wanted.
        self.recorder: ClusterRecorder | None = None
        # The account of the last map that is done.
        self.last_map: Account | None = None
        self._home = home()
        self._use: Use | None = self._home.use()
        try:
            engine.start(self, pickle.dumps(options))
            with self.lock:
                self._started = True
                if self._refusals and not self._nodes:
                    raise self._refusals[0][1]
            for refused in self._refusals:
                _warn(*refused, stacklevel=4)
        except BaseException:
            # Nodes may have their pools: after Ctrl-C as well nobody but this is there to end them.
            self.terminate_now()
            raise

    # ---- the twin of PoolBase ----------------------------------------------------------------------------------------

    def submit_call(
        self,
        func: Callable[..., Any] | Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        terms: Any = None,
    ) -> Task:
        """Submit a call."""
        if isinstance(func, Function):
            function: Function | None = func
            terms = terms or func.terms
        elif callable(func):
            function = self.functions.stable(func)
        else:
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        if function is None:
            data, frames = packed_call(func, args, kwargs or {}, True)
            return self.submit(Function(0, name_of(func), None, []), WITH, data, frames, terms)
        data, frames = packed_call(func, args, kwargs or {}, False)
        return self.submit(function, CALL, data, frames, terms)

    def prepare(self, func: Callable[..., Any] | Function, terms: Any = None) -> Function:
        """A function for many calls, packed once, as it is now."""
        if isinstance(func, Function):
            return func
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        function = None if terms is not None else self.functions.stable(func)
        return function or self.functions.packed(func, terms)

    def submit(
        self,
        function: Function,
        kind: int,
        data: bytes,
        frames: list[Any],
        terms: Terms | None,
        on_end: Callable[[int, bytes], object] | None = None,
        items: int = 0,
    ) -> Task:
        """Submit a task.

        Args:
            function, kind, data, frames: see `Target`.
            terms: on which it is done.
            on_end: told how it ended, under the lock.
            items: how many it has of a map, which goes on submitting when the pool takes nothing new; 0 for a call.
        """
        nbytes = size(data, frames)
        with self.lock:
            self._check(goes_on=bool(items))
            task = Task(self, next(self._numbers), function, kind, data, frames, nbytes, terms, on_end, max(items, 1))
            if self.recorder is not None:
                task.submitted = time.monotonic_ns()
            self._submitted.append(task)
            self._call()
        return task

    def fed(self, pieces: Pieces) -> None:
        """It has no more to submit."""
        with self.lock:
            self.feeding.discard(pieces)
            self._call()

    def forgotten(self) -> None:
        """A map is, which may have had more to submit. In whatever thread, so without the lock."""
        if self._closing and self._state != "over":
            self._engine.soon(self._turn)

    def leave_notice(self, notice: bytes) -> None:
        """See `PoolBase`. Not under the lock, as logging's may be held: who is linked meanwhile finds the notice."""
        self._notice = notice
        for link in list(self._nodes):
            link.send(("notice", notice))

    def map_ended(self, account: Account) -> None:
        """A map is done, and this the account of it."""
        with self.lock:
            account.ended({link.node: link.workers for link in self._nodes})
        self.last_map = account

    def cancel_queued(self) -> None:
        """Take back all tasks that no worker has taken."""
        with self.lock:
            # Those that pause before another try are in no queue.
            for task in [*self._tasks.values(), *self._submitted]:
                if task.state == "queued":
                    self._take_back(task)
            self._call()

        def told(numbers: list[int]) -> None:
            for number in numbers:
                if (task := self._tasks.get(number)) is not None:
                    self._take_back(task)

        self.ask_all("untaken", then=told)

    def cancel(self, task: Task, running: bool) -> bool:
        """See `Task.cancel`. False also where nobody may wait for the answer of a node, as in a finalizer in the
        engine's thread; what is dropped there is taken back all the same."""
        if is_owned(self.lock):
            # In the middle of something, which it is not to change.
            self._engine.soon(lambda: self._cancelled(task, running))
            return False
        found = self._cancelled(task, running)
        if isinstance(found, bool) or self._engine.is_here:
            return found is True
        found.wait()
        return bool(found.answer) and task.cancelled()

    def _cancelled(self, task: Task, running: bool) -> bool | Question:
        """Whether it was taken back; the question to its node, if only that knows."""
        with self.lock:
            if task.state == "queued":
                # Its place in the queue is passed over.
                self._take_back(task)
                self._call()
                return True
            if task.state not in ("sent", "taken") or task.link is None:
                return False
            if task.state == "taken" and not running:
                return False

            def told(dropped: bool) -> None:
                if dropped:
                    self._take_back(task)

            (asked,) = self._questions.ask([self._nodes[task.link]], "cancel", task.number, running, then=told)
            return asked

    def close_now(self) -> None:
        """No more tasks. Waits for no lock, as the pool may be forgotten in the middle of anything."""
        self._closing = True
        self._engine.soon(self._turn)

    def terminate_now(self, kill: bool = False) -> None:
        """No more tasks, and those that have not ended end now."""
        if self._owner != os.getpid():
            return
        with self.lock:
            self._state = "terminated"
            self._end_all(lambda: PoolClosed("the pool was terminated before the task was done"))

    def wait_over(self, timeout: float | None = None) -> bool:
        """Wait until the pools of all nodes have ended."""
        until = None if timeout is None else time.monotonic() + timeout
        with self.changed:
            if not self.changed.wait_for(lambda: self._state == "over", timeout):
                return False
        return self._engine.join(None if until is None else max(0.0, until - time.monotonic()))

    @property
    def is_open(self) -> bool:
        """Whether tasks may be submitted."""
        return self._state == "open" and not self._closing and self._owner == os.getpid()

    @property
    def size(self) -> int:
        """How many workers there are on all nodes; 1 if there is no node yet."""
        return sum(link.workers for link in list(self._nodes)) or 1

    @property
    def workers(self) -> tuple[NodeWorker, ...]:
        """The workers of all nodes, as they are at this moment."""
        questions = self.ask_all("workers")
        return tuple(NodeWorker(asked.node.link.node, *worker) for asked in questions for worker in asked.answer or ())

    def ask_all(self, what: str, *arguments: Any, then: Callable[[Any], object] | None = None) -> list[Question]:
        """Ask all nodes at once, in the order of their addresses, and wait for their answers. `then` is called with
        each, under the lock."""
        with self.lock:
            nodes = sorted(self._nodes.values(), key=lambda node: node.link.node)
            questions = self._questions.ask(nodes, what, *arguments, then=then)
        for question in questions:
            question.wait()
        return questions

    def spent(self) -> tuple[list[tuple[str, list[WorkerSpent]]], int]:
        """What the workers of each node have spent, ended ones too; and how many tasks are with workers."""
        answers = [(asked.node, *asked.answer) for asked in self.ask_all("spent") if asked.answer is not None]
        rows = [*self._past, *((node, rows) for node, rows, _ in answers)]
        rows.sort(key=lambda each: each[0].link.node)
        return [(node.link.node, of_node) for node, of_node in rows], sum(running for *_, running in answers)

    @property
    def appetite(self) -> int:
        """How many tasks all nodes may have at a time, and as many that wait here."""
        with self.lock:
            return 2 * sum(max(0, node.room) + len(node.out) for node in self._nodes.values()) + 2

    @property
    def depth(self) -> tuple[int, int]:
        """How many tasks wait here, and how many have not ended."""
        with self.lock:
            new = sum(task.state == "queued" for task in self._submitted)
            return sum(1 for _ in self._queue) + new, len(self._tasks) + new

    # ---- what the engine tells ---------------------------------------------------------------------------------------

    def linked(self, link: Link) -> None:
        """See `Listener`."""
        with self.lock:
            if self._state in ("terminated", "over"):
                link.close()
                return
            self._nodes[link] = Linked(link, next(self._next))
            if self._notice is not None:
                link.send(("notice", self._notice))
            if self._more:
                link.send(("more", True))
            if self.recorder is not None:
                self.recorder.joined(self._nodes[link])
            self._pump()
            self.changed.notify_all()

    def refused(self, node: str, error: BaseException) -> None:
        """See `Listener`."""
        with self.lock:
            late = self._started
            if not late:
                self._refusals.append((node, error))
        if late:
            _warn(node, error, stacklevel=3)

    def received(self, link: Link, items: list[Item]) -> None:
        """See `Listener`."""
        with self.lock:
            node = self._nodes.get(link)
            if node is None:
                return
            for name, *content in items:
                getattr(self, f"_on_{name}")(node, *content)
            self._pump()
            self._settle()

    def lost(self, link: Link, reason: str) -> None:
        """See `Listener`."""
        with self.lock:
            node = self._nodes.pop(link, None)
            if node is None:
                return
            self._questions.lost(node)
            if self._state not in ("terminated", "over"):
                back = []
                for task in node.out.values():
                    if task.number in node.taken:
                        if self.recorder is not None:
                            self.recorder.lost(task, node)
                        self._die(task, WorkerDied(0, None, cause=reason, node=link.node))
                    else:
                        back.append(task)
                self._queue.push_front(back)
            try:
                self._home.lost(link)
            finally:
                self._pump()
                self._settle()

    def ended(self, error: Exception) -> None:
        """See `Listener`."""
        with self.lock:
            if self._state != "over":
                self._broken = error
                self._state = "terminated"
                self._end_all(lambda: type(error)(*error.args))

    # ---- what nodes tell ---------------------------------------------------------------------------------------------

    def _on_took(self, node: Linked, numbers: list[int]) -> None:
        for number in numbers:
            if number in node.out:
                node.taken.add(number)
                node.out[number].state = "taken"

    def _on_done(self, node: Linked, outcomes: list[Item]) -> None:
        for number, status, data, frames, times in outcomes:
            task = node.remove(number)
            if task is None:
                continue
            task.times, task.where = None if times is None else Times(*times), node.link.node
            if self.recorder is not None:
                self.recorder.ended(task, node, status, size(data, frames))
            error: BaseException | None = None
            if status == FAILED:
                error = load_exception(data)
                if isinstance(error, CancelledError):
                    # By `cancel`, whose answer comes behind this.
                    self._tasks.pop(task.number, None)
                    task.end_cancelled()
                    continue
                if isinstance(error, (WorkerDied, TaskTimeout)):
                    self._die(task, error, node.link.node)
                    continue
            if error is None and status == ERROR and task.terms is not None and task.tries <= task.terms.retries:
                reasons = tuple(r for r in task.terms.reasons if not issubclass(r, TaskTimeout))
                if reasons and isinstance(load_exception(data), reasons):
                    self._again(task)
                    continue
            # It is not there if Ctrl-C came into its being taken back.
            self._tasks.pop(task.number, None)
            task.end(status, data, frames)
        node.rate.count(len(outcomes))

    def _on_gave(self, node: Linked, numbers: list[int]) -> None:
        node.asked = False
        back = []
        for number in numbers:
            if (task := node.remove(number)) is not None:
                back.append(task)
        self._queue.push_front(back)

    def _on_said(self, node: Linked, stream: str, said: bytes) -> None:
        self.words.take(node, stream, said)

    def _on_memory(self, node: Linked, workers: dict[int, int | None], samples: list[Any]) -> None:
        if self.recorder is not None:
            self.recorder.memory(node, workers, samples)

    def _on_spent(self, node: Linked, rows: list[WorkerSpent]) -> None:
        self._past.append((node, rows))

    def _on_shared(self, node: Linked, *message: Any) -> None:
        self._home.hear(node.link, lambda answer: node.link.send(("shared", *answer)), message, self)

    def _on_told(self, node: Linked, number: int, answer: Any) -> None:
        self._questions.told(number, answer)

    # ---- inside, under the lock --------------------------------------------------------------------------------------

    def _call(self) -> None:
        """Have the engine's thread do what there is to do. Ctrl-C in between has it called once too often, not too
        seldom."""
        if not self._called:
            self._engine.soon(self._turn)
            self._called = True

    def _turn(self) -> None:
        with self.lock:
            self._called = False
            if self._closing and self._state == "open":
                self._state = "closed"
            self._pump()
            self._settle()

    def _check(self, goes_on: bool) -> None:
        if self._broken is not None:
            raise type(self._broken)(*self._broken.args)
        if not self.is_open and not (goes_on and self._state in ("open", "closed") and self._owner == os.getpid()):
            raise closed()

    def _take_back(self, task: Task) -> None:
        if not task.ready():
            self._forget(task)
            task.end_cancelled()

    def _forget(self, task: Task) -> None:
        self._tasks.pop(task.number, None)
        node = self._nodes.get(task.link) if task.link is not None else None
        if node is not None:
            node.remove(task.number)

    def _die(self, task: Task, error: WorkerDied | TaskTimeout, where: str = "") -> None:
        """A worker died at it, or its node: try again, or fail with an error that tells all of it."""
        death = told(task, error, where)
        terms = task.terms
        may = isinstance(error, WorkerDied) or (terms is not None and terms.overruns)
        if may and terms is not None and task.tries <= terms.retries:
            if isinstance(death, WorkerDied):
                short = WorkerDied(death.pid, death.exitcode, "", "", death.cause, death.uptime, node=death.node)
                task.deaths.append(str(short))
            self._again(task)
            return
        self._tasks.pop(task.number, None)
        task.fail(death)

    def _again(self, task: Task) -> None:
        assert task.terms is not None
        pause = task.terms.pause(task.tries)
        task.tries += 1
        task.state, task.link = "queued", None
        if not pause:
            self._queue.push(task)
            return

        def later() -> None:
            with self.lock:
                if task.state == "queued":
                    self._queue.push(task)
                    self._pump()

        self._engine.later(pause, later)

    def _pump(self) -> None:
        """Send what nodes want, and tell them whether there is more. In the engine's thread."""
        while self._submitted:
            task = self._submitted.popleft()
            if task.state == "queued":
                self._tasks[task.number] = task
                self._queue.push(task)
        self._deliver()
        self._tell_more()

    def _tell_more(self) -> None:
        more = bool(self._queue) or any(pieces.is_reading for pieces in list(self.feeding))
        if more != self._more:
            self._more = more
            for link in self._nodes:
                link.send(("more", more))

    def _deliver(self) -> None:
        dropped = []
        while self.dropped:
            dropped.append(self.dropped.popleft())
        if dropped:
            for node in self._nodes.values():
                node.drop(dropped)
        if self._queue:
            deal(self._queue, self._nodes.values())
        else:
            level(self._nodes.values())

    def _end_all(self, error: Callable[[], BaseException]) -> None:
        for task in [*self._tasks.values(), *self._submitted]:
            if not task.ready():
                task.fail(error())
        for node in self._nodes.values():
            # What they say of these from now on concerns nobody.
            node.out.clear()
            node.taken.clear()
        self._tasks.clear()
        self._submitted.clear()
        self._queue.clear()
        self._settle()

    def _settle(self) -> None:
        """When nothing is left to do for a pool that takes no more, its nodes' pools end."""
        if self._state in ("open", "over") or self._tasks or self._submitted:
            return
        if self._state == "closed" and any(pieces.is_reading for pieces in list(self.feeding)):
            return
        self._stop()
        if not self._nodes:
            self._state, self._use = "over", None
            self.changed.notify_all()

    def _stop(self) -> None:
        self._engine.stop()
        for link in self._nodes:
            link.close()


def _warn(node: str, error: BaseException, stacklevel: int) -> None:
    import warnings

    warnings.warn(f"the pool goes on without node {node}: {error}", RuntimeWarning, stacklevel=stacklevel)
