"""A node's process between its workers and the client: passes on questions and answers, and tells of who has ended.

What workers say comes by one queue, what they are told goes by a queue for each of their threads; both of shoal's own,
in the shared memory of the node.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _engine
from shoal.cluster.shared.homes import Use, home
from shoal.cluster.shared.parcels import flat
from shoal.cluster.shared.ways import LOCAL, Way, raised, started
from shoal.progress import door
from shoal.queues import Queue, ShutDown, SimpleQueue

if TYPE_CHECKING:
    from shoal.cluster.shared.bars import Mirrors
    from shoal.progress.screen import Visitor

__all__ = ["Relay"]


class Relay:
    """See the module.

    Args:
        send: sends items to the client.
        is_mine: whether a process is a worker of the client's pool.
    """

    def __init__(self, send: Callable[..., None], is_mine: Callable[[int], bool]) -> None:
        self._send, self._is_mine = send, is_mine
        # The screen's thread and this one's may both be the first to need the mirrors.
        self._lock = threading.Lock()
        self._mirrors: Mirrors | None = None
        door.relays.append(self)
        self.up: Queue[tuple[Any, ...]] = Queue()
        # What workers of this node have made, and others know, is at home here.
        self.home = home()
        self._use: Use | None = self.home.use()
        self._way = Way(self.up, self.home.name)
        self.home.upward.append(self._way)
        self._announced = False
        self._lines: dict[tuple[bytes, int], SimpleQueue[Any]] = {}
        self._thread = threading.Thread(target=self._listen, name="shoal-node-relay", daemon=True)
        self._thread.start()

    def hear(self, message: tuple[Any, ...]) -> None:
        """What the client says. Does not wait."""
        if message[0] == "answer":
            self.answer(*message[1:])
        else:
            self.home.hear(self, self._tell, message)

    def answer(self, name: bytes, thread: int, number: int, status: int, data: Any, frames: list[Any]) -> None:
        """The client answers a worker's thread."""
        self._reply(name, thread, (number, status, bytes(data), [flat(frame) for frame in frames]))

    def _reply(self, name: bytes, thread: int, reply: tuple[Any, ...]) -> None:
        line = self._lines.get((name, thread))
        if line is None:
            return  # it has ended
        try:
            line.put(reply)
        except Exception as error:  # such as that there is no room: then it is to hear of that
            line.put((reply[0], *raised(error)))

    def close(self) -> None:
        """The node's pool has ended."""
        door.relays.remove(self)
        if self._mirrors is not None:
            self._mirrors.close()
        self.up.shutdown()
        self._thread.join()
        self.home.upward.remove(self._way)
        self.home.lost(self)
        self.home.lost(self.up)
        self._use = None

    # ---- bars, as the screen of this process wants it ----------------------------------------------------------------

    def show(self, visitor: Visitor, kind: str, parts: tuple[Any, ...], looks: dict[str, Any]) -> Any:
        """A process has made a bar: what it is here; None if it is none of this client's."""
        return self._bars().show(kind, parts, looks) if self._is_mine(visitor.pid) else None

    def write(self, visitor: Visitor, text: str, stream: str, end: str) -> bool:
        """A process has written something that is to stand above the bars. Whether it goes to this client."""
        mine = self._is_mine(visitor.pid)
        if mine:
            self._tell(("write", text, stream, end))
        return mine

    def look(self) -> None:
        """Tell the client what bars have counted until now."""
        if self._mirrors is not None:
            self._mirrors.look()

    def _bars(self) -> Mirrors:
        with self._lock:
            if self._mirrors is None:
                from shoal.cluster.shared.bars import Mirrors

                self._mirrors = Mirrors(self._tell)
            return self._mirrors

    def _tell(self, message: tuple[Any, ...]) -> None:
        self._send(("shared", *message))

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                messages = self.up.get_many()
            except ShutDown:
                return
            except Exception as error:  # of one who died with what it names: the others count
                messages = getattr(error, "got", [])
            if items := [item for message in messages if (item := self._passed(message)) is not None]:
                self._send(*items)

    def _passed(self, message: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """See `_heard`. What fails is the affair of who said it: all others of this node need this thread."""
        try:
            return self._heard(*message)
        except Exception as error:
            what = f"what a worker says ({message[0]}) is passed over"
            print(f"shoal: {what}: {type(error).__name__}: {error}", file=sys.stderr)
            return None

    def _heard(self, what: str, name: bytes, *content: Any) -> tuple[Any, ...] | None:
        """What of it goes to the client."""
        if what == "here":
            self._watch(name, *content)
            return None
        if what == "line":
            thread, line = content
            self._lines[name, thread] = line
            return None
        if what in ("mirror", "export", "fetch"):
            thread, question, *asked = content
            reply: tuple[Any, ...]
            try:
                reply = question, LOCAL, getattr(self, f"_{what}")(*asked), []
            except Exception as error:
                reply = question, *raised(error)
            self._reply(name, thread, reply)
            return None
        if what in ("call", "post") and content[2] == self.home.name:
            self.home.hear(self.up, self._back, (what, name, *content))
            return None
        if what not in ("call", "post"):
            self.home.hear(self.up, self._back, (what, name, *content))
        if what == "over":
            self._lines.pop((name, content[0]), None)
        elif what == "left":
            for key in [key for key in self._lines if key[0] == name]:
                del self._lines[key]
        elif what in ("call", "post"):
            content = *content[:-1], [pickle.PickleBuffer(frame) for frame in content[-1]]
        return "shared", what, name, *content

    def _back(self, message: tuple[Any, ...]) -> None:
        self.answer(*message[1:])

    def _mirror(self, home: bytes, number: int, fields: dict[str, Any], count: Any) -> Any:
        return self._bars().of(home, number, fields, count).parts, door.door().address

    def _export(self, thing: Any) -> Any:
        if not self._announced:
            self._announced = True
            self._tell(("home", self.home.name))
        return self.home.ref(thing)

    def _fetch(self, number: int) -> Any:
        return self.home.thing(number)

    def _watch(self, name: bytes, pid: int, since: str) -> None:
        """Have its end told, behind all that it has said."""
        left = partial(self._left, name)
        try:
            process = os.pidfd_open(pid)
            try:
                if started(pid) == since:
                    _engine.when_readable(process, left)
                else:
                    left()  # the number is another's by now
            finally:
                os.close(process)
        except (ProcessLookupError, FileNotFoundError):
            left()
        except OSError as error:  # no descriptor is left
            print(f"shoal: the end of process {pid} will not be seen: {error}", file=sys.stderr)

    def _left(self, name: bytes) -> None:
        try:
            self.up.put(("left", name))
        except ShutDown:
            pass  # the client hears of the end of all
