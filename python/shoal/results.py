"""What a pool gives back before the work is done: the results of maps, streams, and calls with callbacks.

`AsyncResult`, for a single call, is the engine's. What must go on while nobody waits has a thread: callbacks, and maps
that have more to send.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import weakref
from collections import deque

from shoal import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Generic, Self, TypeVar

    from shoal.pool import Pool

    R = TypeVar("R")
else:
    # typing takes as long to import as starting a pool; at run time all that is needed of it is a subscript.
    R = None

    class Generic:
        """A class that can be subscripted."""

        def __class_getitem__(cls, _item):
            return cls


__all__ = ["CallbackResult", "Callbacks", "IMapIterator", "MapResult"]

# How far imap reads ahead of its consumer, in items for each worker: enough to keep them busy, little to keep.
_AHEAD = 16


class MapResult(Generic[R]):
    """The result of a map that was submitted, as `multiprocessing.pool.MapResult`."""

    def __init__(
        self,
        job: _engine.Job,
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


class IMapIterator(Generic[R]):
    """The results of `imap` and `imap_unordered`, as they come."""

    def __init__(
        self, pool: Pool, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int, *, ordered: bool
    ) -> None:
        if not pool._base.is_open:
            raise closed()
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        self._pool, self._func, self._chunksize, self._ordered = pool, func, chunksize, ordered
        self._items = iter(iterable)
        self._inbox = _engine.Inbox(pool._base)
        self._sent, self._taken = 0, 0
        self._window = max(2, _AHEAD * pool._base.size // chunksize) + pool._base.size
        self._arrived: dict[int, tuple[bool, Any]] = {}
        self._refused: dict[int, BaseException] = {}
        self._unpacked: deque[R] = deque()
        self._exhausted = False
        self._input_error: BaseException | None = None
        pool._base.begin_feeding()
        pool._streams.add(self)
        self._feed(self._window)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return self.next()

    def next(self, timeout: float | None = None) -> R:
        """The next result.

        Args:
            timeout: how long to wait for it at most, in seconds. Default: for ever.

        Raises:
            StopIteration: there are no more.
            multiprocessing.TimeoutError: it is not there in time; it can be asked for again.
            BaseException: what the task raised in its place.
        """
        while not self._unpacked:
            if self._taken == self._sent and self._exhausted:
                if self._input_error is not None:
                    error, self._input_error = self._input_error, None
                    raise error
                raise StopIteration
            succeeded, value = self._next_task(timeout)
            self._feed(self._window)
            if not succeeded:
                raise value
            if self._chunksize == 1:
                result: R = value
                return result
            self._unpacked.extend(value)
        return self._unpacked.popleft()

    def _next_task(self, timeout: float | None) -> tuple[bool, Any]:
        """The end of the next task in order, or of any."""
        while not (self._ordered and self._taken in self._arrived):
            refused = self._taken if self._ordered else next(iter(self._refused), None)
            if refused in self._refused:
                self._taken += 1
                return False, self._refused.pop(refused)
            end = self._inbox.pop(timeout)
            if end is None:
                from multiprocessing import TimeoutError

                raise TimeoutError
            tag, succeeded, value = end
            if not self._ordered:
                self._taken += 1
                return succeeded, value
            self._arrived[tag] = succeeded, value
        end_in_order = self._arrived.pop(self._taken)
        self._taken += 1
        return end_in_order

    def _feed(self, ahead: float) -> None:
        """Send items, so far ahead of the results that were taken."""
        while not self._exhausted and self._sent - self._taken < ahead:
            try:
                items = list(itertools.islice(self._items, self._chunksize))
            except BaseException as error:
                # As in the standard library: it is raised behind the results of the items before it.
                self._end(error)
                return
            if not items:
                self._end()
                return
            try:
                if self._chunksize == 1:
                    self._pool._base.submit_to(self._inbox, self._sent, self._func, (items[0],))
                else:
                    self._pool._base.submit_to(self._inbox, self._sent, _apply_to_all, (self._func, items))
            except ValueError as error:
                if not self._pool._base.is_open:
                    self._end(error)
                    return
                self._refused[self._sent] = error
            except Exception as error:
                # What can't be sent fails in its place, and the others go on.
                self._refused[self._sent] = error
            self._sent += 1

    def _feed_all(self) -> None:
        self._feed(math.inf)

    def _end(self, error: BaseException | None = None) -> None:
        """There are no more items to send."""
        if not self._exhausted:
            self._exhausted, self._input_error = True, error
            self._pool._base.end_feeding()

    def __del__(self) -> None:
        if hasattr(self, "_input_error"):  # else its making failed
            self._end()


def _apply_to_all(func: Callable[[Any], R], items: list[Any]) -> list[R]:
    return [func(item) for item in items]


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
