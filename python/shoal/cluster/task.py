"""`Task`: a task of a pool on a cluster, in the client. The twin of the engine's `AsyncResult`.

    queued ──▶ sent ──▶ taken ──▶ ended          a node that is lost: sent ones are queued again, taken ones fail
       │         │        │                      or are tried again; given back: sent ──▶ queued
       └─────────┴────────┴──▶ cancelled

What came of it is kept as it arrived, and unpacked by the thread that wants it.
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from shoal import _checks
from shoal.cluster.target import ERROR, FAILED, RESULTS
from shoal.cluster.wire import size, unpack
from shoal.serialize import load_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.cluster.engine import Link
    from shoal.cluster.functions import Function
    from shoal.cluster.nodes import Nodes
    from shoal.cluster.target import Times
    from shoal.cluster.terms import Terms
    from shoal.threads import Inbox

__all__ = ["Task", "is_interrupt"]


def is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C or the like, which came while code of the user's was running here, as items are read, packed
    and unpacked by it. It concerns whoever waits, at once, and not the item. (What a task raised has its remote
    traceback as the cause.)"""
    return not isinstance(error, Exception) and error.__cause__ is None


class Task:
    """The result of a call, when it is there; or of a piece of a map: then a list of what came of each item."""

    __slots__ = (
        "_latch",
        "_outcome",
        "_value",
        "_watching",
        "data",
        "deaths",
        "each",
        "frames",
        "function",
        "items",
        "kind",
        "link",
        "nbytes",
        "nodes",
        "number",
        "on_end",
        "result_bytes",
        "state",
        "submitted",
        "terms",
        "times",
        "tries",
        "where",
    )

    def __init__(
        self,
        nodes: Nodes,
        number: int,
        function: Function,
        kind: int,
        data: bytes,
        frames: list[Any],
        nbytes: int,
        terms: Terms | None,
        on_end: Callable[[int, bytes], object] | None = None,
        items: int = 1,
    ) -> None:
        self.nodes, self.number, self.function, self.kind = nodes, number, function, kind
        self.data, self.frames, self.nbytes, self.terms = data, frames, nbytes, terms
        # Told what came of it: status and data, as they arrived.
        self.on_end = on_end
        # How many items of a map it has; when it was submitted, if anybody wants to know, else 0.
        self.items, self.submitted = items, 0
        # All of these change under the lock of `Nodes`.
        self.state = "queued"
        self.link: Link | None = None
        self.tries = 1
        self.deaths: list[str] = []
        # When and by whom it was done, on the clock of its node; and that.
        self.times: Times | None = None
        self.where = ""
        self.result_bytes = 0
        # Of a piece of a map that has ended: whether its value is a list of (ok, result or exception).
        self.each = False
        self._outcome: tuple[int, Any, Any] | None = None
        self._value: tuple[BaseException | None, Any] | None = None
        self._watching: tuple[Inbox, int] | None = None
        # Held until it has ended.
        self._latch = threading.Lock()
        self._latch.acquire()

    def get(self, timeout: float | None = None) -> Any:
        """The result, when it arrives; the task's exception if it raised one."""
        self.wait(timeout)
        if not self.ready():
            from multiprocessing import TimeoutError

            raise TimeoutError
        self.nodes.words.hear_first()
        error, value = self._read()
        try:
            if error is not None:
                raise error
            return value
        finally:
            # The exception knows this frame.
            del error

    def _read(self) -> tuple[BaseException | None, Any]:
        value = self._value
        if value is None:
            assert self._outcome is not None
            status, data, frames = self._outcome
            try:
                if status in (ERROR, FAILED):
                    value = load_exception(data), None
                elif status == RESULTS:
                    value = None, _each(data, frames)
                else:
                    value = None, unpack(data, frames)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                value = error, None
            self._value, self._outcome = value, None
        return value

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, at most `timeout` seconds."""
        # The latch may be held for good, by one who was interrupted when it had it.
        if not self.ready() and self._latch.acquire(timeout=_checks.patience(timeout)):
            self._latch.release()

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in ("ended", "cancelled")

    def successful(self) -> bool:
        """Whether the task ended without an exception. ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._read()[0] is None

    def cancel(self, *, running: bool = False) -> bool:
        """Take the task back, unless a worker has taken it or it has ended: then False. If `running`, also one that a
        worker runs: that is ended and replaced."""
        return self.nodes.cancel(self, running)

    @property
    def called(self) -> str:
        """The name of its function."""
        return self.function.name

    def cancelled(self) -> bool:
        """Whether the task was taken back."""
        return self.state == "cancelled"

    def queued(self) -> bool:
        """Whether no worker has taken the task yet."""
        return self.state in ("queued", "sent")

    def watch(self, inbox: Inbox, tag: int) -> bool:
        """Have `inbox` told of the end, with `tag`. False if it has ended already."""
        with self.nodes.lock:
            if self.ready():
                return False
            self._watching = inbox, tag
            return True

    def end(self, status: int, data: Any, frames: Any = ()) -> None:
        """Under the lock: it has ended so; tell everybody."""
        self._outcome, self.each = (status, data, frames), status == RESULTS
        if self.on_end is not None:
            self.on_end(status, data)
        self.result_bytes = size(data, frames)
        self._over("ended")

    def fail(self, error: BaseException) -> None:
        """Under the lock: it has ended with this."""
        self._value = error, None
        self._over("ended")

    def end_cancelled(self) -> None:
        """Under the lock: it was taken back."""
        self._value = CancelledError("cancelled before it began"), None
        self._over("cancelled")

    def _over(self, state: str) -> None:
        self.state, self.link, self.data, self.frames = state, None, b"", []
        self._latch.release()
        if self._watching is not None:
            inbox, tag = self._watching
            self._watching = None
            inbox.put(tag)


def _each(data: Any, frames: Any) -> list[tuple[bool, Any]]:
    results: list[tuple[bool, Any]] = []
    at = 0
    for ok, packed, count in pickle.loads(data):
        beside = frames[at : at + count]
        at += count
        if ok:
            try:
                results.append((True, unpack(packed, beside)))
            except BaseException as error:
                if is_interrupt(error):
                    raise
                results.append((False, error))
        else:
            results.append((False, load_exception(packed)))
    return results
