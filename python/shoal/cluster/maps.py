"""Maps on a cluster: the twins of the engine's `Job` and `IMapIterator`. What they send and collect are `Pieces`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shoal import _checks
from shoal.cluster.pieces import Pieces
from shoal.errors import WorkerDied
from shoal.maps import AT_HAND

if TYPE_CHECKING:
    from shoal.cluster.functions import Function
    from shoal.cluster.nodes import Nodes
    from shoal.cluster.progress import Shown

__all__ = ["Job", "Stream"]


class Job:
    """A map: all results, or the first exception, when all pieces have ended. As the engine's `Job`."""

    def __init__(
        self,
        nodes: Nodes,
        function: Function,
        items: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        shown: Shown | None = None,
    ) -> None:
        together = buffersize is None and isinstance(items, AT_HAND)
        self._pieces = Pieces(nodes, function, items, chunksize, star, together, shown)
        # Results are kept: what counts is only what is under way.
        self._window = float("inf") if buffersize is None else float(buffersize)
        self._results: dict[int, Any] = {}
        self._stopped = False

    def start(self, everything: bool = True) -> bool:
        """Submit the first pieces. Whether somebody has to go on with it."""
        self._pieces.pump(self._window, float("inf"))
        return self._pieces.is_reading

    def run(self, timeout: float | None = None) -> bool:
        """Submit and collect until the map is done, at most `timeout` seconds; whether it is."""
        until = None if timeout is None else time.monotonic() + timeout
        pieces = self._pieces
        while True:
            pieces.pump(self._window, float("inf"))
            self._keep()
            if not pieces.is_out and not pieces.is_reading:
                pieces.ended()
                return True
            if not pieces.is_out:
                continue
            if not pieces.fetch(None if until is None else max(0.0, until - time.monotonic())):
                return False
            self._keep()

    def left(self) -> int:
        """Pieces that are not done if their size is fixed, else items; as it was when somebody last looked."""
        left = self._pieces.left
        if left is None:
            raise AttributeError("what is left of an input without a length is not known")
        return left

    def _keep(self) -> None:
        come = self._pieces.come
        for tag in list(come):
            # Ctrl-C does not get in between.
            self._results[tag], count = come[tag]
            self._pieces.out -= count
            del come[tag]

    def stop(self, running: bool = False) -> None:
        """Submit no more, and take back what no worker has taken: then `result` raises CancelledError. If `running`,
        what workers are at is stopped."""
        if not self._pieces.is_out and not self._pieces.is_reading:
            return
        self._stopped = True
        self._pieces.stop(running)

    def result(self) -> list[Any]:
        """The results, or the first exception."""
        # What the input raised is raised rather than what a task did.
        if self._pieces.broken is not None:
            raise self._pieces.broken
        if self._stopped:
            from concurrent.futures import CancelledError

            raise CancelledError("the map was cancelled")
        values: list[Any] = []
        for tag in sorted(self._results):
            results = self._results[tag]
            if isinstance(results, BaseException):
                raise results
            for ok, value in results:
                if not ok:
                    raise value
                values.append(value)
        return values


class Stream:
    """The results of `imap` and `imap_unordered`, as they come. As `IMapIterator`."""

    def __init__(
        self,
        nodes: Nodes,
        function: Function,
        items: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        shown: Shown | None = None,
    ) -> None:
        self._pieces = Pieces(nodes, function, items, chunksize, False, together=False, shown=shown)
        self._chunks = chunksize is not None and chunksize > 1
        self._nodes, self._window, self._ordered = nodes, buffersize, ordered
        # The next piece, of an ordered one; the results of the piece that is being taken.
        self._next = 0
        self._values: deque[tuple[bool, Any]] = deque()
        # One thread at a time takes.
        self._turn = threading.RLock()
        self._reading = False
        self._pump()

    def _pump(self) -> None:
        # An input that asks for its own stream's results would wait for itself.
        if self._reading:
            raise ValueError("the iterator is already in use by its own input")
        self._reading = True
        try:
            window = float("inf") if self._window is None else float(self._window)
            self._pieces.pump(window, self._pieces.ahead if self._window is None else float("inf"))
        finally:
            self._reading = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. StopIteration if there are no more, multiprocessing.TimeoutError if it is not there within
        `timeout` seconds, and in its place what the task raised."""
        until = None if timeout is None else time.monotonic() + timeout
        if not self._turn.acquire(timeout=_checks.patience(timeout)):
            raise _late()
        try:
            if not self._values:
                self._refill(until)
            ok, value = self._values.popleft()
            self._pieces.out -= 1
        finally:
            self._turn.release()
        if ok:
            return value
        try:
            raise value
        finally:
            # The exception knows this frame.
            del value

    def _refill(self, until: float | None) -> None:
        """Wait for the next piece."""
        pieces = self._pieces
        while True:
            self._pump()
            tag = self._next if self._ordered else next(iter(pieces.come), None)
            if tag is not None and tag in pieces.come:
                values = deque(self._spread(*pieces.come[tag]))
                # It has come, or is being taken: Ctrl-C does not get in between.
                del pieces.come[tag]
                self._next += 1
                self._values = values
                if self._values:
                    return
                continue
            if not pieces.is_out:
                pieces.ended()
                error, pieces.broken = pieces.broken, None
                raise StopIteration if error is None else error
            if not pieces.fetch(None if until is None else max(0.0, until - time.monotonic())):
                raise _late()

    def _spread(self, results: Any, count: int) -> list[tuple[bool, Any]]:
        if not isinstance(results, BaseException):
            return list(results)
        if isinstance(results, WorkerDied):
            self._pieces.alone()
        if self._chunks:
            # As in the standard library: the exception takes the place of all results of its chunk.
            self._pieces.out -= count - 1
            return [(False, results)]
        return [(False, results)] * count

    def close(self) -> None:
        """Read no more of the input and let go of all results. What workers are at, they end."""
        with self._turn:
            self._pieces.forget()
            self._values.clear()

    def _read_all(self) -> None:
        """Read the input to its end, and wait until everything is done; the results stay."""
        with self._turn:
            while True:
                self._pieces.pump(float("inf"), float("inf"))
                if not self._pieces.is_out:
                    if not self._pieces.is_reading:
                        return
                    continue
                self._pieces.fetch(None)


def _late() -> Exception:
    from multiprocessing import TimeoutError

    return TimeoutError()
