"""What a pool gives back before the work is done: the results of maps, and of calls with callbacks.

`AsyncResult`, for a single call, and `IMapIterator` are the engine's. What must go on while nobody waits has a thread:
callbacks, and maps that have more to send.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

from shoal import _checks, _engine
from shoal._engine import AsyncResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar

    R = TypeVar("R")
else:
    # typing takes as long to import as starting a pool; at run time all that is needed of it is a subscript.
    R = None

    class Generic:
        """A class that can be subscripted."""

        def __class_getitem__(cls, _item):
            return cls


__all__ = ["CallbackResult", "Callbacks", "MapResult"]

# Seconds that the thread which tells of ends stays when there is nothing to tell.
LINGER = 5.0


class MapResult(Generic[R]):
    """The result of a map that was submitted, as `multiprocessing.pool.MapResult`."""

    def __init__(
        self,
        job: _engine.Job | _engine.StreamJob,
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        told: threading.RLock,
    ) -> None:
        self._job = job
        self._callback, self._error_callback, self._told = callback, error_callback, told
        self._turn = threading.Lock()
        # Whether all tasks have ended; whether a callback was called, or is; whether all is over.
        self._ended = self._called = self._done = False

    def get(self, timeout: float | None = None) -> list[R]:
        """The results, when all are there; the first exception if a task raised one.

        Raises:
            multiprocessing.TimeoutError: they are not there after `timeout` seconds.
        """
        if not self._advance(timeout):
            from multiprocessing import TimeoutError

            raise TimeoutError
        try:
            return self._job.result()
        finally:
            # An exception knows this frame.
            del self

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all tasks have ended, at most `timeout` seconds."""
        self._advance(timeout)

    def ready(self) -> bool:
        """Whether all tasks have ended."""
        return self._advance(0)

    def successful(self) -> bool:
        """Whether all tasks ended without an exception.

        Raises:
            ValueError: they have not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        try:
            self._job.result()
        except BaseException:
            return False
        return True

    def cancel(self, *, running: bool = False) -> bool:
        """Send no more, and take back what no worker has taken: then `get` raises `concurrent.futures.CancelledError`,
        when what workers are at has ended. False if all tasks have ended.

        Args:
            running: whether to stop also what workers are at: these are ended and replaced. Threads are not.
        """
        if self._advance(0) or self._ended:
            return False
        self._job.stop(running)
        # Whoever is waiting sees to it; and if nobody is, this thread does.
        self._advance(0)
        return True

    @property
    def _number_left(self) -> int:
        """Tasks that are still to be done. It has no public name in multiprocessing, but programs read it all the same,
        to show how far a map is; a bar does (`progress=True`)."""
        self._advance(0)
        left: int = self._job.left()  # type: ignore[union-attr]  # an AttributeError if that is not known
        return left

    def _advance(self, timeout: float | None) -> bool:
        """Feed and collect until all is done, one thread at a time, and tell; the others wait for it."""
        if self._done:
            return True
        until = None if timeout is None else time.monotonic() + timeout
        if not self._ended:
            if not self._turn.acquire(timeout=_checks.patience(timeout)):
                return self._done
            try:
                self._ended = self._ended or self._job.run(_left(until))
            finally:
                self._turn.release()
            if not self._ended:
                return False
        if self._callback is None and self._error_callback is None:
            self._done = True
            return True
        if not self._told.acquire(timeout=_checks.patience(_left(until))):
            return self._done
        try:
            # Called, and not done: by this thread itself, whose callback asks.
            if not self._called:
                self._called = True
                try:
                    self._call_back()
                finally:
                    self._done = True
        finally:
            self._told.release()
        return True

    def _call_back(self) -> None:
        try:
            results: list[R] = self._job.result()
        except BaseException as error:
            if self._error_callback is not None:
                guarded(self._error_callback, error)
        else:
            if self._callback is not None:
                guarded(self._callback, results)
        finally:
            # An exception knows this frame.
            del self


class CallbackResult(Generic[R]):
    """The result of a call with callbacks: it is ready when they have been called."""

    def __init__(
        self,
        task: AsyncResult[R],
        callback: Callable[[R], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        told: threading.RLock,
    ) -> None:
        self._task = task
        self._callback, self._error_callback, self._told = callback, error_callback, told
        self._event = threading.Event()

    def _arrived(self) -> None:
        """The task has ended: tell, once."""
        with self._told:
            if self._event.is_set():
                return
            callback: Callable[[Any], object] | None
            value: object
            try:
                value, callback = self._task.get(), self._callback
            except BaseException as error:
                value, callback = error, self._error_callback
            try:
                if callback is not None:
                    guarded(callback, value)
            finally:
                self._callback = self._error_callback = None
                self._event.set()
                # An exception knows this frame.
                del value

    def get(self, timeout: float | None = None) -> R:
        """The result, when it arrives; the task's exception if it raised one."""
        self.wait(timeout)
        if not self._event.is_set():
            from multiprocessing import TimeoutError

            raise TimeoutError
        return self._task.get()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, at most `timeout` seconds."""
        if is_owned(self._told):
            # This thread is in a callback: others wait until that is over.
            self._task.wait(timeout)
            if self._task.ready():
                self._arrived()
        self._event.wait(None if timeout is None else _checks.patience(timeout))

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._task.successful()

    def cancel(self, *, running: bool = False) -> bool:
        """Take the task back, unless a worker has taken it or it has ended: then False. Its `get` raises
        `concurrent.futures.CancelledError`, and `error_callback` is called with one. If `running`, also one that a
        worker runs: that is ended and replaced."""
        return self._task.cancel(running=running)

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._task.cancelled()

    def queued(self) -> bool:
        """Whether no worker has taken the task yet."""
        return self._task.queued()


class Callbacks:
    """A pool's threads for what must go on while nobody waits: who is to be told of a task's end, and maps with more to
    send."""

    def __init__(self, inbox: _engine.Inbox) -> None:
        self._inbox = inbox
        # Held while a callback runs: one at a time, as in multiprocessing, where all run in one thread; programs count
        # on it. Of the reentrant kind, as a callback may take the results of others.
        self.told = threading.RLock()
        # Who is told of which task's end, by tag.
        self._watching: dict[int, Callable[[], object]] = {}
        self._tags = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        # Whether the thread is telling somebody; and whether it may stay.
        self._telling, self._may_stay = False, True
        self._drivers: set[threading.Thread] = set()

    def watch(self, task: AsyncResult[Any], told: Callable[[], object]) -> bool:
        """Call `told`, once, in a thread of this process, when the task has ended. False: it has ended already."""
        tag = next(self._tags)
        with self._changed:
            if self._thread is None:
                # First: where no thread can be started, nobody waits for it either.
                thread = threading.Thread(target=self._run, name="shoal-callbacks", daemon=True)
                thread.start()
                self._thread = thread
            self._watching[tag] = told
            watched = False
            try:
                watched = task.watch(self._inbox, tag)
            finally:
                if not watched:
                    del self._watching[tag]
            if not watched:
                return False
            if len(self._watching) == 1:
                self._changed.notify_all()
        return True

    def call(
        self,
        task: AsyncResult[R],
        callback: Callable[[R], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> CallbackResult[R]:
        """The task's result, with callbacks."""
        result = CallbackResult(task, callback, error_callback, self.told)
        if not self.watch(task, result._arrived):
            # It may take its time, and the caller has more to submit.
            self.spawn(result._arrived)
        return result

    def spawn(self, function: Callable[[], object]) -> None:
        """Call a function in a thread of its own."""
        thread = threading.Thread(target=self._drive, args=(function,), name="shoal-map", daemon=True)
        with self._changed:
            self._drivers.add(thread)
            try:
                thread.start()
            except BaseException:
                self._drivers.discard(thread)
                raise

    def join(self) -> None:
        """Wait until everybody has been told. The pool takes no more tasks.

        Raises:
            RuntimeError: called by one of those who are told, which would wait for itself.
        """
        with self._changed:
            if is_owned(self.told) or threading.current_thread() in (self._thread, *self._drivers):
                raise RuntimeError("cannot join the pool in a callback: it would wait for itself")
            self._may_stay = False
            self._changed.notify_all()
            while self._drivers or self._watching or self._telling:
                self._changed.wait(0.1)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._telling = False
                self._changed.notify_all()
                # A thread costs as much to start as several tasks to run: it stays for a while.
                self._changed.wait_for(lambda: self._watching or not self._may_stay, LINGER)
                if not self._watching:
                    self._thread = None
                    return
                self._telling = True
            for tag in self._inbox.take():
                # None: whoever wanted to be told was interrupted as it said so.
                if (told := self._watching.pop(tag, None)) is not None:
                    guarded(told)

    def _drive(self, function: Callable[[], object]) -> None:
        try:
            function()
        finally:
            with self._changed:
                self._drivers.discard(threading.current_thread())
                self._changed.notify_all()


def is_owned(lock: threading.RLock) -> bool:
    """Whether the calling thread has it."""
    owned: bool = lock._is_owned()  # type: ignore[attr-defined]  # `Condition` of the standard library asks it, too
    return owned


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def guarded(callback: Callable[..., object], *arguments: object) -> None:
    """Call a user's callback; what it raises is reported as for any thread, and stops nothing. Raised is Ctrl-C, where
    who waits for the result calls it."""
    try:
        callback(*arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            # Ctrl-C, for who waits for the result and runs the callback meanwhile.
            raise
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def closed() -> Exception:
    """The error of a pool that takes no more tasks. None for a thread that is left when the interpreter ends."""
    _engine.stay_if_ending()
    from shoal.errors import PoolClosed

    return PoolClosed("Pool not running")
