"""What a node's workers say: lines, log records and warnings, on their way to the client.

    workers ══▶ voice of the node's pool ─▶ Speaker ══ said ══▶ Words ─▶ the client's voice: streams, handlers, filters
                                               ▲                             │
                                               └══ heard, so many bytes ◀════┘

The client passes it on as what its own workers say (`shoal.reports`). A node says no more than 1 MiB that the client
has not passed on; with more its workers wait, as for a slow terminal. A result is sent behind what its task has said,
and whoever takes it waits, as on one machine, until that is passed on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal import _engine
from shoal.reports import client

if TYPE_CHECKING:
    from shoal.cluster.linked import Linked

__all__ = ["Speaker", "Words"]

# Bytes that a node says without having heard that they were passed on; and after how many it is told.
MOST = 1 << 20
STEP = 64 << 10


class Speaker:
    """On a node: hears its pool's workers. Called by a thread of the engine that is there for this pool alone.

    Args:
        send: sends items to the client.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._under_way = 0
        self._over = False

    def __call__(self, stream: str, said: bytes) -> bool:
        """Send this; waits while the client has too much to pass on."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way <= MOST or self._over)
            self._under_way += len(said)
        self._send(("said", stream, said))
        return True

    def heard(self, count: int) -> None:
        """The client has passed on so many bytes."""
        with self._changed:
            self._under_way -= count
            self._changed.notify_all()

    def end(self) -> None:
        """Wait for the client no more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Words:
    """In the client: passes on what nodes send."""

    def __init__(self) -> None:
        # How often something came, and how often that was when all of it had been passed on.
        self._came = self._passed_on = 0

    def take(self, node: Linked, stream: str, said: bytes) -> None:
        """A node has sent this. Does not wait; under the lock of `Nodes`."""
        link = node.link
        client.pass_on(stream, said, node=link.node, taskId=f"{node.number}.")
        self._came += 1
        node.unheard += len(said)
        if node.unheard >= STEP:
            count, node.unheard = node.unheard, 0
            client.afterwards(lambda: link.send(("heard", count)))

    def hear_first(self) -> None:
        """Before a result is handed over: what came before it is passed on. Not for ever, should nobody read it."""
        came = self._came
        if came != self._passed_on:
            _engine.pass_words_on()
            self._passed_on = came
