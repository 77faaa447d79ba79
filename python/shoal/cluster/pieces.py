"""The items of a map on a cluster, cut into pieces, each a task.

A piece is to take about two milliseconds, many times what it costs to send, and longer when one client feeds many
workers; towards the end of a map pieces shrink.
Items of an input that may have to be waited for travel alone, as they might be waiting for each other's results; what
is under way at a time is put into one message in any case.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shoal.cluster.account import Account
from shoal.cluster.common import Blob, Common, own_twice
from shoal.cluster.target import EACH, SLICE, STAR, WHOLE, pack_each
from shoal.cluster.task import is_interrupt
from shoal.cluster.wire import pack
from shoal.errors import ShoalError
from shoal.maps import AT_HAND
from shoal.threads import Inbox

if TYPE_CHECKING:
    from shoal.cluster.functions import Function
    from shoal.cluster.nodes import Nodes
    from shoal.cluster.progress import Shown
    from shoal.cluster.task import Task

__all__ = ["Pieces"]

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
        self._account = Account(function.name)
        # A generator may fill the same array again and again: only items that are all at hand have some in common.
        self._common = Common(nodes.dropped.append) if together else None
        self._together, self._star = together, STAR if star else 0
        at_hand = isinstance(items, AT_HAND)
        self._left: int | None = len(items) if at_hand else None  # type: ignore[arg-type]
        self._items: Iterator[Any] | None = iter(items)
        # Read, and not submitted: Ctrl-C came.
        self._piece: list[Any] = []
        with nodes.lock:
            nodes.feeding.add(self)
        weakref.finalize(self, nodes.forgotten).atexit = False
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

    @property
    def left(self) -> int | None:
        """Pieces that have not ended if their size is fixed, else items; None if the input's length is not known."""
        if self._left is None:
            return None
        unsent = self._left + len(self._piece) if self.is_reading else 0
        return -(-(unsent + sum(count for _, count in list(self._sent.values()))) // (self._fixed or 1))

    def pump(self, window: float, pieces: float) -> None:
        """Read and submit, as long as so many items, and pieces, may be out.

        Ctrl-C is raised. A piece that it kept from being packed is packed next time; if it came while items were read
        or submitted, there will be no more.
        """
        while self._items is not None and self._may_submit(window, pieces):
            if not self._piece:
                with self._account.reading:
                    self._piece = self._read(int(min(self._next_size(), max(1, window - self.out))))
            piece = self._piece
            if not piece:
                self._read_no_more()
                return
            try:
                with self._account.sending:
                    packed = self._packed(piece)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                self._piece = []
                if self._together:
                    self._read_no_more(error)
                    return
                self.come[next(self._tags)] = error, len(piece)
                self.out += len(piece)
                continue
            self._piece = []
            try:
                with self._account.sending:
                    for kind, data, frames, count in packed:
                        self._submit(kind, data, frames, count)
            except BaseException as error:
                self._read_no_more(error)
                if isinstance(error, ShoalError):  # the pool was terminated, or the cluster is gone
                    return
                raise
            if self._left == 0:
                # Nodes are to know it before they have done that: then their workers are idle, and wait for nothing.
                self._read_no_more()

    def _read_no_more(self, error: BaseException | None = None) -> None:
        self._items, self._piece, self.broken = None, [], error or self.broken
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
            if self._left is not None:
                self._left -= len(piece)
        except BaseException as error:
            # As in the standard library: a chunk in which the input fails is not sent.
            piece, self.broken = [], error
            if is_interrupt(error):
                self._read_no_more()
                raise
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
        task = self._nodes.submit(self._function, kind, data, frames, terms, told, count)
        self._account.sent(task, frames)
        tag = next(self._tags)
        if not task.watch(self._inbox, tag):
            self._inbox.put(tag)
        # Only now: what is sent is waited for.
        self.out += count
        self._sent[tag] = task, count
        self._bytes += task.nbytes

    @property
    def ahead(self) -> int:
        """How many pieces may be out whose results nobody has taken."""
        return _PIECES * self._nodes.size * (_CHEAP if 0 < self._each < _SECONDS else 1)

    def fetch(self, timeout: float | None) -> bool:
        """Wait until a piece has ended, at most so long; whether one has. What came of it is in `come`."""
        try:
            tags = self._inbox.take(timeout)
            for tag in tags:
                if tag in self._sent:
                    self._receive(tag)
            return bool(tags)
        except BaseException:
            # Ctrl-C: of what has ended and has not come it is told once more. Twice does no harm.
            for tag, (task, _) in self._sent.items():
                if task.ready():
                    self._inbox.put(tag)
            raise

    def _receive(self, tag: int) -> None:
        task, count = self._sent[tag]
        with self._account.receiving:
            results = _results(task)
        # Either it has come or it is out: Ctrl-C does not get in between.
        self.come[tag] = results, count
        del self._sent[tag]
        self._bytes -= task.nbytes
        nbytes = task.result_bytes
        self._result_bytes = (self._result_bytes + nbytes) / 2 if self._result_bytes else float(nbytes)
        self._learn(task, count)
        self._account.received(task)

    def _learn(self, task: Task, count: int) -> None:
        """How long an item takes, and so how many make a piece."""
        if task.times is None:
            return
        each = task.times.busy * 1e-9 / count
        self._each = (self._each + each) / 2 if self._each else each
        if self._fixed is None:
            seconds = max(_SECONDS, self._nodes.size * _EACH_WORKER)
            self._size = max(1, min(_GROWTH * self._size, int(seconds / self._each)))

    def ended(self) -> None:
        """The map is done."""
        self._nodes.map_ended(self._account)

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
    try:
        values = task.get()
    except BaseException as error:
        if is_interrupt(error):
            raise
        return error
    return values if task.each else [(True, value) for value in values]
