"""What a pool gives back before the work is done: the results of maps, and of calls with callbacks.

`AsyncResult`, for a single call, and `IMapIterator` are the engine's. What must go on while nobody waits has a thread:
callbacks, and maps that have more to send.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref

from shoal import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar

    from shoal.pool import Pool

    R = TypeVar("R")
else:
    # typing takes as long to import as starting a pool; at run time all that is needed of it is a subscript.
    R = None

    class Generic:
        """A class that can be subscripted."""

        def __class_getitem__(cls, _item):
            return cls


__all__ = ["CallbackResult", "Callbacks", "MapResult"]


class MapResult(Generic[R]):
    """The result of a map that was submitted, as `multiprocessing.pool.MapResult`."""

    def __init__(
        self,
        job: _engine.Job | _engine.StreamJob,
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._job = job
        self._callback, self._error_callback = callback, error_callback
        self._turn = threading.Lock()
        self._done = False

    def get(self, timeout: float | None = None) -> list[R]:
        """The results, when all are there; the first exception if a task raised one.

        Raises:
            multiprocessing.TimeoutError: they are not there after `timeout` seconds.
        """
        if not self._advance(timeout):
            from multiprocessing import TimeoutError

            raise TimeoutError
        return self._job.result()

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

    def _advance(self, timeout: float | None) -> bool:
        """Feed and collect until all is done; one thread at a time, the others wait for it."""
        if self._done:
            return True
        if not self._turn.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return self._done
        try:
            if not self._done and self._job.run(timeout):
                self._call_back()
                self._done = True
        finally:
            self._turn.release()
        return self._done

    def _call_back(self) -> None:
        try:
            results: list[R] = self._job.result()
        except BaseException as error:
            if self._error_callback is not None:
                _guarded(self._error_callback, error)
        else:
            if self._callback is not None:
                _guarded(self._callback, results)


class CallbackResult(Generic[R]):
    """The result of a call with callbacks: it is ready when they have been called."""

    def __init__(
        self, callback: Callable[[R], object] | None, error_callback: Callable[[BaseException], object] | None
    ) -> None:
        self._callback, self._error_callback = callback, error_callback
        self._event = threading.Event()
        self._end: tuple[bool, Any] = (False, None)

    def _arrived(self, succeeded: bool, value: Any) -> None:
        self._end = succeeded, value
        callback = self._callback if succeeded else self._error_callback
        if callback is not None:
            _guarded(callback, value)
        self._callback = self._error_callback = None
        self._event.set()

    def get(self, timeout: float | None = None) -> R:
        """The result, when it arrives; the task's exception if it raised one."""
        if not self._event.wait(timeout):
            from multiprocessing import TimeoutError

            raise TimeoutError
        succeeded, value = self._end
        if not succeeded:
            raise value
        result: R = value
        return result

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, at most `timeout` seconds."""
        self._event.wait(timeout)

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._end[0]


class Callbacks:
    """A pool's threads for what must go on while nobody waits: callbacks, and maps with more to send."""

    def __init__(self, pool: Pool) -> None:
        self._pool = weakref.ref(pool)
        self._inbox = _engine.Inbox(pool._base)
        self._calls: dict[int, CallbackResult[Any]] = {}
        self._tags = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._drivers: set[threading.Thread] = set()

    def call(
        self,
        func: Callable[..., R],
        args: tuple[Any, ...],
        kwds: dict[str, Any],
        callback: Callable[[R], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> CallbackResult[R]:
        pool = self._pool()
        if pool is None:
            raise closed()
        result: CallbackResult[R] = CallbackResult(callback, error_callback)
        tag = next(self._tags)
        with self._changed:
            self._calls[tag] = result
            try:
                pool._base.submit_to(self._inbox, tag, func, args, kwds)
            except BaseException:
                del self._calls[tag]
                raise
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shoal-callbacks", daemon=True)
                self._thread.start()
        return result

    def drive(self, result: MapResult[Any]) -> None:
        """Advance a map in a thread of its own."""
        thread = threading.Thread(target=self._drive, args=(result,), name="shoal-map", daemon=True)
        with self._changed:
            self._drivers.add(thread)
        thread.start()

    def join(self) -> None:
        """Wait until everything has been called back."""
        with self._changed:
            while self._drivers or self._calls:
                self._changed.wait(0.1)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._calls:
                    self._thread = None
                    self._changed.notify_all()
                    return
            end = self._inbox.pop(0.5)
            if end is not None:
                tag, succeeded, value = end
                self._calls[tag]._arrived(succeeded, value)
                with self._changed:
                    del self._calls[tag]
                    self._changed.notify_all()
            # Else nothing of this task would be let go of before the next one ends.
            end = value = None

    def _drive(self, result: MapResult[Any]) -> None:
        try:
            result.wait()
        finally:
            with self._changed:
                self._drivers.discard(threading.current_thread())
                self._changed.notify_all()


def _guarded(callback: Callable[[Any], object], value: object) -> None:
    """Call a user's callback; what it raises is reported as for any thread, and stops nothing."""
    try:
        callback(value)
    except BaseException:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def closed() -> Exception:
    """The error of a pool that takes no more tasks."""
    from shoal.errors import PoolClosed

    return PoolClosed("Pool not running")
