"""Maps on a cluster: their items cut into pieces, each a task. The twins of the engine's `Job` and `IMapIterator`.

A piece is to take about two milliseconds, many times what it costs to send, and longer when one client feeds many
workers; towards the end of a map pieces shrink.
Items of an input that may have to be waited for travel alone, as they might be waiting for each other's results; what
is under way at a time is put into one message in any case.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shoal.cluster.common import Blob, Common, own_twice
from shoal.cluster.target import EACH, SLICE, STAR, WHOLE, pack_each
from shoal.cluster.wire import pack
from shoal.errors import ShoalError, WorkerDied
from shoal.maps import AT_HAND
from shoal.threads import Inbox

if TYPE_CHECKING:
    from shoal.cluster.functions import Function
    from shoal.cluster.nodes import Nodes
    from shoal.cluster.progress import Shown
    from shoal.cluster.task import Task

__all__ = ["Job", "Pieces", "Stream"]

# Seconds that a piece is to take, at least, and for each worker: one client sends 10 000 pieces a second, at a cost of
# 20 to 60 µs each. And how many times as long as the last one it may be.
_SECONDS = 0.002
_EACH_WORKER = 0.0001
_GROWTH = 8

# For each worker, pieces whose results may wait to be taken; so many times as many if an item takes less time than is
# worth a piece, as such pieces spend theirs on the way. And bytes, arguments and results, of all together.
_PIECES = 16
_CHEAP = 8
_BYTES = 256 << 20

_ATOMS = {type(None), bool, int, float, complex, str, bytes}


class Pieces:
    """The items of a map on their way. One thread at a time deals with it.

    Args:
        nodes: where they go.
        function: what is called with each.
        items: the input.
        chunksize: items a piece; None to find out.
        star: whether each item is an iterable of arguments.
        together: whether the items of a piece may be packed together, and all fail if one can't be packed.
        shown: counts the items that are done.
    """

    def __init__(
        self,
        nodes: Nodes,
        function: Function,
        items: Iterable[Any],
        chunksize: int | None,
        star: bool,
        together: bool,
        shown: Shown | None = None,
    ) -> None:
        self._nodes, self._function = nodes, function
        self._shown = shown
        # A generator may fill the same array again and again: only items that are all at hand have some in common.
        self._common = Common(nodes.dropped.append) if together else None
        self._together, self._star = together, STAR if star else 0
        at_hand = isinstance(items, AT_HAND)
        self._left: int | None = len(items) if at_hand else None  # type: ignore[arg-type]
        self._items: Iterator[Any] | None = iter(items)
        nodes.feeding.add(self)
        self._fixed = chunksize if chunksize is not None or at_hand else 1
        self._size = self._fixed or 1
        self._each = 0.0
        self._inbox = Inbox()
        self._tags = itertools.count()
        # Pieces that have not ended, and their sizes. Of the others, until it is taken, what came: (ok, result or
        # exception) of each item, or the exception of all; and their sizes.
        self._sent: dict[int, tuple[Task, int]] = {}
        self.come: dict[int, tuple[Any, int]] = {}
        # What the input raised.
        self.broken: BaseException | None = None
        # Items that are out and not taken; bytes of arguments, and of results a piece.
        self.out = 0
        self._bytes, self._result_bytes = 0, 0.0

    @property
    def is_reading(self) -> bool:
        """Whether there may be more to submit."""
        return self._items is not None

    @property
    def is_out(self) -> bool:
        """Whether there are pieces that have not ended."""
        return bool(self._sent)

    def pump(self, window: float, pieces: float) -> None:
        """Read and submit, as long as so many items, and pieces, may be out."""
        while self._items is not None and self._may_submit(window, pieces):
            piece = self._read(int(min(self._next_size(), max(1, window - self.out))))
            if not piece:
                self._read_no_more()
                return
            try:
                packed = self._packed(piece)
            except BaseException as error:
                if self._together:
                    self._read_no_more(error)
                    return
                self.come[next(self._tags)] = error, len(piece)
                self.out += len(piece)
                continue
            try:
                for kind, data, frames, count in packed:
                    self._submit(kind, data, frames, count)
            except ShoalError as error:  # the pool was terminated, or the cluster is gone
                self._read_no_more(error)

    def _read_no_more(self, error: BaseException | None = None) -> None:
        self._items, self.broken = None, error or self.broken
        if self._common is not None:
            self._common.forget()
        self._nodes.fed(self)

    def _may_submit(self, window: float, pieces: float) -> bool:
        if not self.out:
            return True
        if self.out + (self._fixed or 1) > window or len(self._sent) >= self._nodes.appetite:
            return False
        under_way = len(self._sent) + len(self.come)
        if under_way >= pieces:
            return False
        return under_way < self._nodes.size or self._bytes + under_way * self._result_bytes < _BYTES

    def _next_size(self) -> int:
        if self._fixed is not None:
            return self._fixed
        size = self._size
        if self._left is not None:
            # Shares of what is left: pieces shrink towards the end.
            size = min(size, -(-self._left // (2 * self._nodes.size)))
        return max(1, size)

    def _read(self, most: int) -> list[Any]:
        assert self._items is not None
        try:
            piece = list(itertools.islice(self._items, most))
        except BaseException as error:
            # As in the standard library: a chunk in which the input fails is not sent.
            piece, self.broken = [], error
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def _packed(self, piece: list[Any]) -> list[tuple[int, bytes, list[Any], int]]:
        """What to submit for a piece, with the number of its items."""
        if self._together and _is_plain(piece, bool(self._star)):
            return [(SLICE | self._star, *pack(piece), len(piece))]
        # What two items have in common, each of them has for itself.
        what = f"an item of {self._function.name}"
        common = self._common
        packed = [pack(item, what) if common is None else pack(item, what, common.of(item)) for item in piece]
        kind = EACH | self._star
        if not any(isinstance(frame, Blob) for _, frames in packed for frame in frames):
            return [(kind, *pack_each(packed), len(packed))]
        for _, frames in packed:
            own_twice(frames)
        # An array in shared memory is a task's own, not an item's.
        return [(kind, *pack_each([item]), 1) for item in packed]

    def _submit(self, kind: int, data: bytes, frames: list[Any], count: int) -> None:
        terms = self._function.terms
        if (self._fixed is not None and self._fixed > 1) or (terms is not None and terms.retries):
            # What is tried again is all of it.
            kind |= WHOLE
        told = None if self._shown is None else self._shown.count(count)
        task = self._nodes.submit_more(self._function, kind, data, frames, terms, told)
        tag = next(self._tags)
        self.out += count
        self._sent[tag] = task, count
        self._bytes += task.nbytes
        if not task.watch(self._inbox, tag):
            self._inbox.put(tag)

    @property
    def ahead(self) -> int:
        """How many pieces may be out whose results nobody has taken."""
        return _PIECES * self._nodes.size * (_CHEAP if 0 < self._each < _SECONDS else 1)

    def fetch(self, timeout: float | None) -> bool:
        """Wait until a piece has ended, at most so long; whether one has. What came of it is in `come`."""
        tags = self._inbox.take(timeout)
        for tag in tags:
            task, count = self._sent.pop(tag)
            self._bytes -= task.nbytes
            nbytes = task.result_bytes
            self._result_bytes = (self._result_bytes + nbytes) / 2 if self._result_bytes else float(nbytes)
            self._learn(task, count)
            self.come[tag] = _results(task), count
        return bool(tags)

    def _learn(self, task: Task, count: int) -> None:
        """How long an item takes, and so how many make a piece."""
        if not task.seconds:
            return
        each = task.seconds / count
        self._each = (self._each + each) / 2 if self._each else each
        if self._fixed is None:
            seconds = max(_SECONDS, self._nodes.size * _EACH_WORKER)
            self._size = max(1, min(_GROWTH * self._size, int(seconds / self._each)))

    def alone(self) -> None:
        """From now on each item by itself."""
        if self._fixed is None:
            self._fixed = 1

    def stop(self, running: bool = False) -> None:
        """Read no more, and take back what no worker has taken; if `running`, stop what workers are at as well."""
        self._read_no_more()
        for task, _ in list(self._sent.values()):
            task.cancel(running=running)

    def forget(self) -> None:
        """Read no more, and let go of everything."""
        self.stop()
        self._sent.clear()
        self.come.clear()


def _is_plain(items: list[Any], star: bool) -> bool:
    """Whether items are such that nobody can change, and so may have parts in common."""
    if star and set(map(type, items)) == {tuple}:
        return set(map(type, itertools.chain.from_iterable(items))) <= _ATOMS
    return set(map(type, items)) <= _ATOMS


def _results(task: Task) -> Any:
    """What came of each item; the exception, if there is one for all."""
    each = task.each
    try:
        values = task.get()
    except BaseException as error:
        return error
    return values if each else [(True, value) for value in values]


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
                return True
            if not pieces.is_out:
                continue
            if not pieces.fetch(None if until is None else max(0.0, until - time.monotonic())):
                return False
            self._keep()

    def _keep(self) -> None:
        for tag, (results, count) in self._pieces.come.items():
            self._results[tag] = results
            self._pieces.out -= count
        self._pieces.come.clear()

    def stop(self, running: bool = False) -> None:
        """Submit no more, and take back what no worker has taken: then `result` raises CancelledError. If `running`,
        what workers are at is stopped."""
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
        if not self._turn.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
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
                results, count = pieces.come.pop(tag)
                self._next += 1
                self._values.extend(self._spread(results, count))
                if self._values:
                    return
                continue
            if not pieces.is_out:
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
