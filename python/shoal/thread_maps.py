"""Maps on threads: the twins of the engine's `IMapIterator` and `Job`."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shoal import _checks
from shoal._text import name_of

if TYPE_CHECKING:
    from shoal.threads import Inbox, Task, ThreadPool, Threads

__all__ = ["Job", "Stream"]

# Pieces for each thread that may be under way or wait, unless the user says: as of a pool of processes.
_PIECES = 16


class Stream:
    """The results of `imap` and `imap_unordered`, as they come. As `IMapIterator`."""

    def __init__(
        self,
        pool: ThreadPool,
        func: Callable[..., Any],
        items: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
        ordered: bool,
        star: bool,
    ) -> None:
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        self._pool = pool
        self._threads: Threads = pool._base  # type: ignore[assignment]
        # Not this object's own: tasks don't keep it.
        self._each = functools.partial(_each, func, star)
        self._each.__qualname__ = name_of(func)  # type: ignore[attr-defined]  # it has a __dict__
        self._items: Iterator[Any] | None = iter(items)
        self._chunksize = chunksize
        self._window: float = buffersize or _PIECES * pool._base.size * chunksize
        # Those under way, by tag, and those that have ended, in the order in which they are taken.
        self._sent: dict[int, tuple[Task, int]] = {}
        self._come: deque[int] = deque()
        self._inbox: Inbox | None = None if ordered else pool._inbox()
        self._tags = itertools.count()
        # Results of the piece that is being taken, and how many are out altogether.
        self._values: deque[tuple[str, Any]] = deque()
        self._out = 0
        self._last: BaseException | None = None
        # One thread at a time takes.
        self._turn = threading.RLock()
        self._threads.feed(self)
        self.pump()

    def pump(self) -> None:
        """Read and submit as much as may be."""
        while (items := self._items) is not None and (not self._out or self._out + self._chunksize <= self._window):
            try:
                piece = list(itertools.islice(items, self._chunksize))
            except BaseException as error:
                # As in the standard library: a chunk in which the input fails is not sent.
                piece, self._last = [], error
            if not piece:
                self._read_no_more()
                break
            try:
                task: Any = self._threads.submit_piece(self, self._each, piece)
            except BaseException as error:
                self._last = error
                self._read_no_more()
                break
            tag = next(self._tags)
            self._sent[tag] = task, len(piece)
            self._out += len(piece)
            if self._inbox is None or not task.watch(self._inbox, tag):
                self._come.append(tag)

    def _read_no_more(self) -> None:
        if self._items is not None:
            self._items = None
            self._threads.fed(self)

    @property
    def is_reading(self) -> bool:
        """Whether there may be more to submit."""
        return self._items is not None

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. StopIteration if there are no more, multiprocessing.TimeoutError if it is not there within
        `timeout` seconds, and in its place what the task raised."""
        what, value = self.take(timeout)
        if what == "result":
            return value
        if what == "late":
            from multiprocessing import TimeoutError

            raise TimeoutError
        try:
            raise StopIteration if value is None else value
        finally:
            # The exception knows this frame.
            del value

    def take(self, timeout: float | None = None) -> tuple[str, Any]:
        """What comes next: ("result", it), ("error", the task's), ("late", None), or ("end", what the input raised)."""
        until = None if timeout is None else time.monotonic() + timeout
        if not self._turn.acquire(timeout=_checks.patience(timeout)):
            return "late", None
        try:
            self.pump()
            while not self._values:
                if not self._sent:
                    last, self._last = self._last, None
                    return "end", last
                if not self._fetch(until):
                    return "late", None
            self._out -= 1
            return self._values.popleft()
        finally:
            self._turn.release()

    def _fetch(self, until: float | None) -> bool:
        """Take the next piece, when it has ended. False: it is late."""

        def left() -> float | None:
            return None if until is None else max(0.0, until - time.monotonic())

        if not self._come and self._inbox is not None:
            self._come.extend(self._inbox.take(left()))
        if not self._come:
            return False
        task, count = self._sent[self._come[0]]
        task.wait(left())
        if not task.ready():
            return False
        del self._sent[self._come.popleft()]
        try:
            values = task.get()
        except BaseException as error:
            # It was cut off, all of it.
            values = [("error", error)] * count
        failed = next((value for value in values if value[0] == "error"), None)
        if failed is not None and self._chunksize > 1:
            # As in the standard library: the exception takes the place of all results of its chunk.
            self._out -= count - 1
            values = [failed]
        self._values.extend(values)
        return True

    def stop(self, why: BaseException) -> None:
        """Read no more of the input, and take back what no thread has taken; `why` comes behind what is left."""
        if self._items is None and not self._sent:
            return
        self._last = why
        self._read_no_more()
        for task, _ in list(self._sent.values()):
            task.cancel()

    def close(self) -> None:
        """Read no more of the input and let go of all results. What threads are at, they end."""
        with self._turn:
            self._read_no_more()
            for task, _ in self._sent.values():
                task.cancel()
            self._sent.clear()
            self._come.clear()
            self._values.clear()

    def _read_all(self) -> None:
        """Read the input to its end, and wait until everything is done; the results stay."""
        with self._turn:
            self._window = float("inf")
            self.pump()
            for task, _ in self._sent.values():
                task.wait()


def _each(func: Callable[..., Any], star: bool, piece: list[Any]) -> list[tuple[str, Any]]:
    """In a thread: what came of each item, as `Stream.take` tells it."""
    results: list[tuple[str, Any]] = []
    try:
        for item in piece:
            try:
                results.append(("result", func(*item) if star else func(item)))
            except StopIteration as error:
                # An iterator takes it for its end.
                stopped = RuntimeError(f"{name_of(func)} raised StopIteration")
                stopped.__cause__ = error
                results.append(("error", stopped))
            except BaseException as error:
                results.append(("error", error))
        return results
    finally:
        # An exception knows this frame.
        del results


class Job:
    """A map: all results, or the first exception, when all pieces have ended. As the engine's `Job`."""

    def __init__(
        self,
        pool: ThreadPool,
        func: Callable[..., Any],
        items: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
        at_hand: bool,
        star: bool,
    ) -> None:
        self._results: list[Any] = []
        self._error: BaseException | None = None
        window = len(items) + chunksize if at_hand else buffersize  # type: ignore[arg-type]
        self._stream = Stream(pool, func, items, chunksize, window, ordered=True, star=star)

    def start(self, everything: bool = True) -> bool:
        """The first pieces are on their way. Whether somebody has to go on with it."""
        return self._stream.is_reading

    def run(self, timeout: float | None = None) -> bool:
        """Submit and collect until the map is done, at most `timeout` seconds; whether it is."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            what, value = self._stream.take(None if until is None else max(0.0, until - time.monotonic()))
            if what == "result":
                self._results.append(value)
            elif what == "late":
                return False
            else:
                # What the input raised is raised rather than what a task did.
                self._error = value if what == "end" and value is not None else self._error or value
                if what == "end":
                    return True
            del value

    def stop(self, running: bool = False) -> None:
        """Submit no more, and take back what no thread has taken: then `result` raises CancelledError. What threads are
        at can't be stopped."""
        from concurrent.futures import CancelledError

        self._stream.stop(CancelledError("the map was cancelled"))

    def result(self) -> list[Any]:
        """The results, or the first exception."""
        try:
            if self._error is not None:
                raise self._error
            return self._results
        finally:
            # An exception knows this frame.
            del self
