"""The way from a client to the things of a node: a link, and a queue of this process for each thread.

What others ask for of a node's goes the same way, under their own names, so that each has its own twin there.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
import weakref
from typing import Any

from shoal.cluster.shared.refs import Ref, arrive
from shoal.cluster.shared.twins import Send
from shoal.cluster.shared.ways import ERROR, Way, _Line
from shoal.cluster.wire import pack
from shoal.errors import ShoalError

__all__ = ["LinkWay"]


class LinkWay(Way):
    """See the module.

    Args:
        home: what the node is called as a home.
        link: by which it is reached.
        send: sends it a message.
        pool: whose link it is.
        ways: all that lead to this node now, those of other pools, too.
    """

    def __init__(self, home: bytes, link: Any, send: Send, pool: object, ways: list[LinkWay]) -> None:
        super().__init__(None, b"")
        self.home, self.link, self.pool, self._send, self._pid = home, link, pool, send, os.getpid()
        self._ways = ways
        self._name = os.urandom(8)
        self._lines: weakref.WeakValueDictionary[int, _Line] = weakref.WeakValueDictionary()
        # Reentrant: what ends meanwhile, by `__del__`, may ask for something.
        self._guard = threading.RLock()
        self._gone = False
        # What others have asked for, and how they are told.
        self._asked: dict[tuple[bytes, int, int], Send] = {}

    # ---- as `Way` ----------------------------------------------------------------------------------------------------

    def open_line(self, line: _Line) -> Any:
        """See `Way`."""
        line.replies = queue.SimpleQueue()
        with self._guard:
            self._lines[line.number] = line
        return line.replies

    def say(self, message: tuple[Any, ...]) -> None:
        """See `Way`."""
        if self._gone or self._pid != os.getpid():
            raise self._error()
        if message[0] in ("call", "post"):
            message = *message[:-1], [pickle.PickleBuffer(frame) for frame in message[-1]]
        self._send(message)

    def ask(self, ref: Ref, operation: str, args: tuple[Any, ...], act: Any = None) -> Any:
        """See `Way`. When the link has ended, by another pool's."""
        if self._gone and (ways := self._ways[:1]):
            return ways[0].ask(ref, operation, args, act)
        return super().ask(ref, operation, args, act)

    def tell(self, ref: Ref, operation: str, args: tuple[Any, ...]) -> None:
        """See `Way`. Likewise."""
        if self._gone and (ways := self._ways[:1]):
            ways[0].tell(ref, operation, args)
        else:
            super().tell(ref, operation, args)

    def passed_on(self, ref: Ref) -> Any:
        """See `Way`. Other processes than this one have no way there; there it says so."""
        return arrive, ref

    # ---- for `Home` --------------------------------------------------------------------------------------------------

    def answer(self, thread: int, *answer: Any) -> None:
        """The node has answered a thread of this process."""
        if (line := self._lines.get(thread)) is not None:
            line.replies.put(answer)

    def pass_on(self, message: tuple[Any, ...], send: Send) -> None:
        """Another process says something to the node."""
        what, name, thread, number, *_ = *message, 0, 0
        with self._guard:
            if what == "call" and not self._gone:
                self._asked[name, thread, number] = send
        if not self._gone:
            self._send(message)
        elif what in ("call", "post"):
            send(("answer", name, thread, number, ERROR, pack(self._error())[0], []))

    def settled(self, name: bytes, thread: int, number: int) -> None:
        """Another process has its answer."""
        with self._guard:
            self._asked.pop((name, thread, number), None)

    def lost(self) -> None:
        """The link has ended: who waits is told."""
        with self._guard:
            self._gone = True
            lines = list(self._lines.values())
        error = pack(self._error())[0]
        for line in lines:
            line.replies.put((line.last, ERROR, error, []))
        with self._guard:
            asked, self._asked = self._asked, {}
        for (name, thread, number), send in asked.items():
            send(("answer", name, thread, number, ERROR, error, []))

    def _error(self) -> ShoalError:
        return ShoalError(f"what is at home on node {self.link.node} is gone: its link has ended")
