"""`Pool(kind="thread")`: the same pool on threads of this process, for objects that can't or need not leave it.

The front is `Pool`'s own. What the engine does for processes is done here in Python: `Threads` is the twin of
`PoolBase`, `Task` of `AsyncResult`, `Inbox` of `Inbox`; those of maps are in `thread_maps`.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from shoal import _checks, _engine
from shoal._terms import NAMES, Terms, check_names
from shoal._text import name_of
from shoal.insight.stats import PoolStats, WorkerStats
from shoal.maps import AT_HAND
from shoal.pool import Pool, _seeds, register
from shoal.results import closed
from shoal.serialize.exceptions import add_note
from shoal.thread_maps import Job, Stream

__all__ = ["ThreadPool", "ThreadWorker"]


@dataclass(frozen=True)
class ThreadWorker:
    """A worker of a pool of threads, as it was when asked. As `Worker`.

    Attributes:
        number: its place in the pool, from 0.
        pid: this process.
        state: "idle", "busy" or "gone".
        task: what the function is called that it is at; "" if it was cut off, None if it is at none.
        task_seconds: for how long.
        tasks: tasks ended at this place.
        busy: seconds spent on them.
    """

    number: int
    pid: int
    state: str
    task: str | None
    task_seconds: float
    tasks: int
    busy: float


# What pools of processes take besides: what says nothing, and why all else means nothing to threads.
_FOR_PROCESSES: dict[str, tuple[tuple[object, ...], str]] = {
    "memory_limit": ((None,), "threads have the memory of this one"),
    "threads_per_worker": ((None,), "threads have the libraries of this one"),
    **dict.fromkeys(
        ("worker_memory_limit", "maxmemoryperchild", "idle_timeout", "affinity"),
        ((None,), "threads come and go with this one"),
    ),
    "unresponsive_after": ((None, 30.0), "threads come and go with this one"),
    **dict.fromkeys(("logs", "warnings", "output"), ((True,), "what threads say is said by this one")),
    **dict.fromkeys(NAMES, ((), "what a thread is at can't be stopped")),
}


class ThreadPool(Pool):
    """Threads of this process that run functions. Made by `Pool(kind="thread")`, which describes it."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        preload: Iterable[str] = (),
        seed: Any = None,
        kind: str = "thread",
        cluster: object = None,
        node_timeout: float | None = None,
        **others: Any,
    ) -> None:
        if node_timeout is not None:
            raise ValueError("node_timeout is for a pool on a cluster")
        count = _checks.processes(processes)
        start = _checks.initializer(initializer, initargs)
        most = _checks.maxtasksperchild(maxtasksperchild)
        _refuse(others)
        for module in _checks.modules(preload):
            __import__(module)
        self._owner = os.getpid()
        self._root = None
        self._terms = Terms({})
        self._last_terms = ({}, self._terms)
        self._seeds = _seeds(seed)
        self._terminated = False
        self._callbacks = self._future = None
        self._streams = weakref.WeakSet()
        self._lock = threading.Lock()
        self._base = Threads(count, start, most)  # type: ignore[assignment]
        self._began = time.monotonic()
        register(self)

    def _recorder(self, most: int) -> None:
        return None

    def _leave_notice(self, told: bytes) -> None:
        pass  # the levels of this process are theirs

    def stats(self) -> PoolStats:
        passed = time.monotonic() - self._began
        workers = [WorkerStats(**vars(thread), idle=passed - thread.busy) for thread in self.workers]
        queued = len(self._base._queue)  # type: ignore[attr-defined]
        return PoolStats(tuple(workers), queued, queued + sum(worker.state == "busy" for worker in workers))

    def trace(self, path: str | os.PathLike[str] | None = None, *, most: int = 0) -> Any:
        raise NotImplementedError("a pool of threads keeps no record of its tasks: one of processes does")

    def explain(self) -> Any:
        raise NotImplementedError("a pool of threads keeps no account of its maps: one of processes does")

    def _terms_with(self, options: Mapping[str, Any]) -> Terms:
        _refuse(options)
        return self._terms

    def options(self, *, seed: Any = None, **options: Any) -> Any:
        self._terms_with(options)
        return super().options(seed=seed)

    def _running(self) -> tuple[list[str], int]:
        return [thread.task for thread in self.workers if thread.task is not None], len(self._base._queue)  # type: ignore[attr-defined]

    def _inbox(self) -> Any:
        return Inbox()

    def _prepare(self, func: Callable[..., Any]) -> Any:
        return func

    def _stream(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        options: Mapping[str, Any],
    ) -> Any:
        self._terms_with(options)
        if not self._base.is_open:
            raise closed()
        if self._seeds is not None:
            func, iterable = self._seeds.each(func, iterable, False)
        size = 1 if chunksize is None else _checks.chunksize(chunksize)
        stream = Stream(self, func, iterable, size, _checks.buffersize(buffersize), ordered, star=False)
        self._streams.add(stream)  # type: ignore[arg-type]
        return stream

    def _map_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        options: Mapping[str, Any],
    ) -> Any:
        self._terms_with(options)
        at_hand = buffersize is None and isinstance(iterable, AT_HAND)
        if chunksize is not None:
            size = _checks.chunksize(chunksize)
        else:
            # As multiprocessing's: a piece costs little, but not nothing.
            size = -(-len(iterable) // (4 * self._base.size)) or 1 if at_hand else 1  # type: ignore[arg-type]
        return Job(self, func, iterable, size, _checks.buffersize(buffersize), at_hand, star)


def _refuse(others: Mapping[str, Any]) -> None:
    """What is for processes is an error, unless it is what is usual."""
    check_names(name for name in others if name not in _FOR_PROCESSES)
    for name, value in others.items():
        usual, why = _FOR_PROCESSES[name]
        if not any(value is fine or (isinstance(value, (int, float)) and value == fine) for fine in usual):
            raise ValueError(f"{name} is for processes: {why}")


class Task:
    """The result of a call, when it is there."""

    def __init__(
        self, threads: Threads, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> None:
        self._threads = threads
        self._call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = (func, args, kwargs or {})
        # "queued", "running", "ended", "cancelled" or "cut off": changed under the lock of `Threads`.
        self._state = "queued"
        self._began = 0.0
        self._value: Any = None
        self._error: BaseException | None = None
        self._watching: tuple[Inbox, int] | None = None
        # Held until it has ended.
        self._latch = threading.Lock()
        self._latch.acquire()

    @property
    def name(self) -> str:
        """What its function is called; "" once it has ended or was cut off."""
        return name_of(self._call[0]) if self._call is not None else ""

    def get(self, timeout: float | None = None) -> Any:
        """The result, when it arrives; the task's exception if it raised one."""
        self.wait(timeout)
        if not self.ready():
            from multiprocessing import TimeoutError

            raise TimeoutError
        if self._state == "cut off":
            from shoal.errors import PoolClosed

            raise PoolClosed("the pool was terminated before the task was done")
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            # An exception knows this frame.
            del self

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, at most `timeout` seconds."""
        if not self.ready() and self._latch.acquire(timeout=_checks.patience(timeout)):
            self._latch.release()
        # As from the engine.
        _engine.stay_if_ending()

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self._state in ("ended", "cancelled", "cut off")

    def successful(self) -> bool:
        """Whether the task ended without an exception. ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._state == "ended" and self._error is None

    def cancel(self, *, running: bool = False) -> bool:
        """Take the task back, unless a thread has taken it or it has ended: then False, also if `running`."""
        with self._threads.changed:
            if self._state != "queued":
                return False
            # Its place in the queue is passed over.
            self._end("cancelled", error=CancelledError("cancelled before it began"))
            return True

    def cancelled(self) -> bool:
        """Whether the task was taken back."""
        return self._state == "cancelled"

    def queued(self) -> bool:
        """Whether no thread has taken the task yet."""
        return self._state == "queued"

    def watch(self, inbox: Inbox, tag: int) -> bool:
        """Have `inbox` told of the end, with `tag`. False if it has ended already."""
        with self._threads.changed:
            if self.ready():
                return False
            self._watching = inbox, tag
            return True

    def _run(self) -> tuple[Any, BaseException | None]:
        """What the function returns, and what it raises."""
        assert self._call is not None
        func, args, kwargs = self._call
        try:
            return func(*args, **kwargs), None
        except BaseException as error:
            return None, error
        finally:
            # An exception knows this frame.
            del self, func, args, kwargs

    def _end(self, state: str, value: Any = None, error: BaseException | None = None) -> None:
        """Under the lock: tell everybody. A task that is cut off ends before its function does."""
        self._state, self._value, self._error, self._call = state, value, error, None
        self._latch.release()
        if self._watching is not None:
            inbox, tag = self._watching
            self._watching = None
            inbox.put(tag)


class Inbox:
    """Where it is told which watched tasks have ended."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.put = self._ended.put

    def take(self, timeout: float | None = None) -> list[int]:
        """Wait until something has ended, at most `timeout` seconds; the tags of all that has."""
        tags: list[int] = []
        try:
            tags.append(self._ended.get(timeout=None if timeout is None else _checks.patience(timeout)))
            while True:
                tags.append(self._ended.get_nowait())
        except queue.Empty:
            return tags


class Threads:
    """The threads, and what they are to do."""

    def __init__(self, count: int, start: tuple[Any, tuple[Any, ...]] | None, most: int | None) -> None:
        self.changed = threading.Condition()
        self.size = count
        self._start, self._most = start, most
        self._state = "open"
        self._queue: deque[Task] = deque()
        self._at: list[Task | None] = [None] * count
        self._counts = [(0, 0.0)] * count
        self._threads: list[threading.Thread | None] = [None] * count
        # Maps that may submit more, also when the pool has closed.
        self._feeding: weakref.WeakSet[Stream] = weakref.WeakSet()
        with self.changed:
            for number in range(count):
                self._begin(number)

    def _begin(self, number: int) -> None:
        # Daemons: the interpreter's end waits for no task that was cut off.
        thread = threading.Thread(target=self._work, args=(number,), name=f"shoal-{number}", daemon=True)
        self._threads[number] = thread
        thread.start()

    def _work(self, number: int) -> None:
        broken = None
        if self._start is not None:
            function, arguments = self._start
            try:
                function(*arguments)
            except BaseException as error:
                add_note(error, "raised by the pool's initializer")
                broken = error
        left = 1 if broken is not None else self._most
        while left != 0 and (task := self._next(number)) is not None:
            value, raised = (None, broken) if broken is not None else task._run()
            with self.changed:
                # Counted when anybody hears of its end.
                self._at[number] = None
                tasks, busy = self._counts[number]
                self._counts[number] = tasks + 1, busy + time.perf_counter() - task._began
                if task._state == "running":
                    task._end("ended", value, raised)
            del task, value, raised
            if left is not None:
                left -= 1
        with self.changed:
            if left == 0 and (self._queue or self._may_get_more()):
                self._begin(number)
            else:
                self._threads[number] = None
                self.changed.notify_all()

    def _next(self, number: int) -> Task | None:
        with self.changed:
            while True:
                while self._queue:
                    task = self._queue.popleft()
                    if task._state == "queued":
                        task._state, task._began = "running", time.perf_counter()
                        self._at[number] = task
                        return task
                if not self._may_get_more():
                    return None
                # A map that is forgotten tells nobody.
                self.changed.wait(None if self._state == "open" else 0.05)

    def _may_get_more(self) -> bool:
        """Under the lock: whether tasks may be submitted, be it by maps that were begun before the pool closed."""
        return self._state == "open" or (self._state == "closed" and len(self._feeding) > 0)

    def feed(self, stream: Stream) -> None:
        """A map begins, all of which counts as submitted now: threads of a closed pool stay until it is `fed`."""
        with self.changed:
            if self._state == "open":
                self._feeding.add(stream)
                return
        raise closed()

    def fed(self, stream: Stream) -> None:
        """A map submits no more."""
        with self.changed:
            self._feeding.discard(stream)
            if self._state != "open":
                self.changed.notify_all()

    def submit_piece(self, stream: Stream, func: Callable[..., Any], piece: list[Any]) -> Task:
        """Submit a piece of a map that feeds."""
        task = Task(self, func, (piece,), None)
        with self.changed:
            if self._state == "open" or (self._state == "closed" and stream in self._feeding):
                self._queue.append(task)
                self.changed.notify()
                return task
        raise closed()

    def submit_call(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, terms: None = None
    ) -> Task:
        """Submit a call."""
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        task = Task(self, func, args, kwargs)
        with self.changed:
            if self._state == "open":
                self._queue.append(task)
                self.changed.notify()
                return task
        raise closed()

    def cancel_queued(self) -> None:
        """Take back all tasks that no thread has taken yet."""
        for task in list(self._queue):
            task.cancel()

    def close_now(self) -> None:
        """No more tasks."""
        with self.changed:
            if self._state == "open":
                self._state = "closed"
            self.changed.notify_all()

    def terminate_now(self, kill: bool = False) -> None:
        """No more tasks, and those that have not ended end now. What a thread is at can't be stopped."""
        with self.changed:
            self._state = "terminated"
            for task in (*self._at, *self._queue):
                if task is not None and not task.ready():
                    # Its error is made by who asks for it: at the end of the interpreter it can't be imported any more.
                    task._end("cut off")
            self._queue.clear()
            self.changed.notify_all()

    def wait_over(self, timeout: float | None = None) -> bool:
        """Wait until all threads of a closed pool have ended."""
        with self.changed:
            over = self.changed.wait_for(lambda: not any(self._threads), timeout)
        _engine.stay_if_ending()
        return over

    @property
    def is_open(self) -> bool:
        """Whether tasks may be submitted."""
        return self._state == "open"

    @property
    def workers(self) -> Sequence[ThreadWorker]:
        """The threads, as they are at this moment."""
        now, me = time.perf_counter(), os.getpid()
        with self.changed:
            places = list(zip(self._threads, self._at, self._counts, strict=True))
            return tuple(
                ThreadWorker(number, me, "gone" if thread is None else "idle", None, 0.0, *counts)
                if task is None
                else ThreadWorker(number, me, "busy", task.name, max(now - task._began, 0.0), *counts)
                for number, (thread, task, counts) in enumerate(places)
            )
