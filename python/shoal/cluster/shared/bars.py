"""Bars across machines: counted in the shared memory of each node, drawn by the client.

A bar of the client has a mirror on each node that it comes to: a count and a page (`progress.shared`) like its own,
which all workers of the node have in common. A bar that a worker makes is drawn by the client, too, and has its own in
the place of the mirror. In both cases the node's screen looks ten times a second, as at bars that it draws, and tells
the client what has changed; before a task's result also what that has counted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._engine import RawTally
from shoal.cluster.shared.proxies import Proxy
from shoal.cluster.shared.refs import Ref
from shoal.errors import ShoalError
from shoal.progress.screen import screen
from shoal.progress.shared import Shared
from shoal.progress.travel import bar_class, remember, share

if TYPE_CHECKING:
    from shoal.progress.bar import Bar

__all__ = ["Drawn", "Mirrors", "RemoteBar"]

Key = tuple[Any, ...]


class RemoteBar(Proxy):
    """Not what stands for a bar, which is one itself; but what is told of it."""

    __slots__ = ()
    operations = frozenset()

    @staticmethod
    def facts_of(thing: Any, ref: Callable[[Any], Ref]) -> tuple[Any, ...]:
        share(thing)
        return thing.fields(), thing.n


class Mirror:
    """A bar that the client draws, as the screen of a node has it.

    Args:
        tell: tells the client.
        key: what the client knows it by.
        shared: what is counted and shown here.
        made: whether a worker has made it.
    """

    pos = 0
    is_on_terminal = False

    def __init__(self, tell: Callable[[tuple[Any, ...]], object], key: Key, shared: Shared, made: bool) -> None:
        self._tell, self._key, self.shared, self.made = tell, key, shared, made
        self._lock = threading.Lock()
        self._count, self._refreshes = shared.tally.n, shared.refreshes
        self._fields = dict(shared.change({}))
        # What the client has sent.
        self._sent = dict(self._fields)
        self.is_drawn = True

    def show(self, fields: dict[str, Any]) -> None:
        """The client shows this by now."""
        with self._lock:
            changed = {name: value for name, value in fields.items() if self._sent.get(name, self) != value}
            if changed:
                self._sent.update(changed)
                self._fields.update(changed)
                self.shared.change(changed)

    def tick(self) -> bool:
        """Tell what has changed. Whether there is more to come."""
        with self._lock:
            if (news := self._news()) is not None:
                self._tell(news)
        return self.is_drawn

    def close(self) -> None:
        """Its worker has ended; or, for a bar of the client's, this process has."""
        self.tick()
        if self.made and self.is_drawn:
            with contextlib.suppress(RuntimeError):  # the loop that sends has ended first
                self._tell(("bar", self._key, 0, {"disable": True}, False))
        self.is_drawn = False

    def give_up(self) -> None:
        """As of a bar that can't be drawn."""
        self.is_drawn = False

    def inherited(self, address: object) -> None:
        """In the child of a fork."""
        self.is_drawn = False

    def _news(self) -> tuple[Any, ...] | None:
        count, refreshes, fields = self.shared.tally.n, self.shared.refreshes, self.shared.news(0.0) or {}
        changed = {name: value for name, value in fields.items() if self._fields.get(name, self) != value}
        if count == self._count and refreshes == self._refreshes and not changed:
            return None
        news = "bar", self._key, count - self._count, changed, refreshes != self._refreshes
        self._count, self._refreshes = count, refreshes
        self._fields.update(changed)
        if changed.get("disable"):
            self.is_drawn = False
        return news


class Mirrors:
    """Those of one client on a node.

    Args:
        tell: sends a message to the client.
    """

    def __init__(self, tell: Callable[[tuple[Any, ...]], object]) -> None:
        self._tell = tell
        self._name = os.urandom(8)
        self._numbers = itertools.count(1)
        self._mirrors: dict[Any, Mirror] = {}

    def of(self, home: bytes, number: int, fields: dict[str, Any], count: Any) -> Shared:
        """The mirror of a bar of the client's, which showed this when it was sent."""
        mirror = self._mirrors.get((home, number))
        if mirror is None:
            shared = Shared.make(tally := RawTally(), fields)
            tally.n = count
            mirror = self._mirrors[home, number] = Mirror(self._tell, (home, number), shared, False)
        else:
            mirror.show(fields)
        screen.add(mirror)  # type: ignore[arg-type]  # as good as a bar, for the screen
        return mirror.shared

    def show(self, kind: str, parts: tuple[Any, ...], looks: dict[str, Any]) -> Mirror:
        """A worker has made a bar."""
        shared, key = Shared(*parts), (self._name, next(self._numbers))
        self._tell(("show", key, kind, looks, shared.news() or {}, shared.tally.n))
        mirror = self._mirrors[shared.name] = Mirror(self._tell, key, shared, True)
        return mirror

    def look(self) -> None:
        """Tell the client what all have counted until now."""
        for name, mirror in list(self._mirrors.items()):
            if not mirror.tick() and mirror.made:
                self._mirrors.pop(name, None)

    def close(self) -> None:
        """The client's pool has ended."""
        for mirror in self._mirrors.values():
            mirror.give_up()


class Drawn:
    """In the client: what is told of bars on nodes. Counts count at once; what is to be drawn is, in its own thread.

    Args:
        bar_of: gives the client's own bar of that number.
    """

    def __init__(self, bar_of: Callable[[bytes, int], Bar[Any]]) -> None:
        self._bar_of = bar_of
        # Of bars that workers have made: what they count in, and the bars, which are kept until they are closed.
        self._made: dict[Key, tuple[object, Shared]] = {}
        self._bars: dict[Key, Bar[Any]] = {}
        self._orders: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()
        self._started = False

    def hear(self, link: object, what: str, *content: Any) -> None:
        """A node tells something. Does not wait."""
        if what == "bar":
            key, count, changed, refreshed = content
            made = self._made.get(tuple(key))
            own = self._own(*key) if made is None else None
            if made is not None:
                shared = made[1]
            elif own is not None:
                shared = share(own)
            else:
                return
            if count:
                shared.tally.update(count)
            if changed:
                fields = shared.change(changed)
                if own is not None:
                    vars(own).update(fields)  # who has changed it himself does not hear of it
            if refreshed:
                shared.refresh()
            if changed.get("disable"):
                self._order(self._end, tuple(key), own)
        elif what == "show":
            key, kind, looks, fields, count = content
            shared = Shared.make(RawTally(), fields)
            shared.tally.n = count
            self._made[tuple(key)] = link, shared
            self._order(self._show, tuple(key), kind, shared, looks)
        else:
            self._order(_write, *content)

    def lost(self, link: object) -> None:
        """A link has ended: the bars that were made there are as they were last."""
        for key, (way, _) in list(self._made.items()):
            if way is link:
                self._order(self._end, key, None)

    def _own(self, home: bytes, number: int) -> Bar[Any] | None:
        try:
            return self._bar_of(home, number)
        except ShoalError:
            return None  # the pool that it went through has ended

    def _order(self, function: Callable[..., object], *content: Any) -> None:
        self._orders.put((function, content))
        if not self._started:
            self._started = True
            threading.Thread(target=self._draw, name="shoal-node-bars", daemon=True).start()

    def _draw(self) -> None:
        while True:
            function, content = self._orders.get()
            try:
                function(*content)
            except Exception as error:  # the other bars go on
                print(f"shoal: a bar of a node can't be shown: {type(error).__name__}: {error}", file=sys.stderr)

    def _show(self, key: Key, kind: str, shared: Shared, looks: dict[str, Any]) -> None:
        if looks.get("file") is not None:
            looks["file"] = getattr(sys, looks["file"])
        # With a page that is this process's own: what comes is written to the other, and so is news to it.
        page = Shared(*shared.parts)
        bar = self._bars[key] = bar_class(kind).visiting(page, looks)
        remember(bar)

    def _end(self, key: Key, own: Bar[Any] | None) -> None:
        self._made.pop(key, None)
        bar = self._bars.pop(key, None) if own is None else own
        if bar is not None:
            vars(bar).update(share(bar).change({"disable": True}))
            bar.tick()


def _write(text: str, stream: str, end: str) -> None:
    bar_class("bar").write_here(text, stream, end)
