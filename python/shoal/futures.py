"""`Future`: a `concurrent.futures.Future` that costs no more than an `AsyncResult` until somebody wants more of it.

    fresh ── result(), exception(), done(), running(), cancel(), cancelled(): asked of the task itself ──▶ fresh
      │
      └───── add_done_callback(), wait(), as_completed(), asyncio.wrap_future(): whatever needs the state that the
             standard library's futures have makes it, and the pool's thread for callbacks sets it at the end ──▶ full

Whoever waits for a fresh one is handed the result by the engine, with no thread in between. A full one is the standard
library's in every respect.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from shoal._engine import AsyncResult
from shoal.results import Callbacks

__all__ = ["Future"]

R = TypeVar("R")

# What the standard library's __init__ sets.
_STATE = frozenset(vars(concurrent.futures.Future()))

# One thread at a time makes a future full. Of the reentrant kind, as what the garbage collector runs may come back.
_filling = threading.RLock()


class Future(concurrent.futures.Future[R]):
    """The result of a task that was submitted, when it is there. As `concurrent.futures.Future`.

    `cancel` takes the task out of the queue, if no worker has taken it yet; `cancel(running=True)` also stops one that
    a worker runs.

    Example:
        >>> future = pool.submit(pow, 2, 10)
        >>> future.result()
        1024
    """

    _full = False

    def __init__(self, task: AsyncResult[R], callbacks: Callbacks) -> None:
        # The standard library's __init__ makes a lock and two lists. It is called when somebody wants these.
        self._task, self._callbacks = task, callbacks

    def __getattr__(self, name: str) -> Any:
        if name not in _STATE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._fill()
        return object.__getattribute__(self, name)

    def _fill(self) -> None:
        with _filling:
            if self._full:
                return
            super().__init__()
            self._full = True
            try:
                watched = self._callbacks.watch(self._task, self._settle)
            except BaseException:
                # Nobody will settle it: it is fresh again, for the next one who wants more of it.
                for name in ("_full", *_STATE):
                    del self.__dict__[name]
                raise
        if not watched:
            self._settle()

    def _settle(self) -> None:
        """Put what became of the task into the state, and tell everybody. Called once, when it has ended."""
        if self._task.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        value, error, interrupt = self._outcome()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)  # type: ignore[arg-type]
        if interrupt is not None:
            raise interrupt

    def _outcome(self) -> tuple[R | None, BaseException | None, KeyboardInterrupt | None]:
        """What the task returned, or what it raised; and Ctrl-C that came meanwhile, which is none of it."""
        interrupt = None
        try:
            return self._task.get(), None, None
        except KeyboardInterrupt as error:
            interrupt = error
        except BaseException as error:
            return None, error, None
        # Asked again, the task says the same if it was its own.
        try:
            return self._task.get(), None, interrupt
        except BaseException as error:
            return None, error, None if error is interrupt else interrupt

    def result(self, timeout: float | None = None) -> R:
        """What the task returned, when it has; what it raised is raised.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
            concurrent.futures.CancelledError: it was cancelled.
            WorkerDied: its worker died.
        """
        if self._full:
            return super().result(timeout)
        if timeout is not None:
            self._wait(timeout)
        try:
            return self._task.get()
        finally:
            # An exception knows this frame.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, when it has ended; None if it returned. It raises what `result` does of its own."""
        if self._full:
            return super().exception(timeout)
        self._wait(timeout)
        if self._task.cancelled():
            raise CancelledError
        _, error, interrupt = self._outcome()
        if interrupt is not None:
            raise interrupt
        try:
            return error
        finally:
            # It knows this frame.
            del error

    def _wait(self, timeout: float | None) -> None:
        self._task.wait(timeout)
        if timeout is not None and not self._task.ready():
            raise TimeoutError

    def done(self) -> bool:
        """Whether the task has ended or was cancelled."""
        return super().done() if self._full else self._task.ready()

    def running(self) -> bool:
        """Whether a worker is at the task."""
        return not self.done() and not self._task.queued()

    def cancel(self, *, running: bool = False) -> bool:
        """Take the task out of the queue. False if a worker has taken it already, or it has ended.

        Args:
            running: whether to stop it as well if a worker runs it: that is ended and replaced. A thread is not.
        """
        if not (self._task.cancel(running=running) or self._task.cancelled()):
            return False
        return super().cancel() if self._full else True

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return super().cancelled() if self._full else self._task.cancelled()

    def __repr__(self) -> str:
        if self._full or self.done():
            return super().__repr__()
        return f"<{type(self).__name__} at {id(self):#x} state={'running' if self.running() else 'pending'}>"


def _after_fork() -> None:
    """In a child: another thread may have held the lock."""
    global _filling
    _filling = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
