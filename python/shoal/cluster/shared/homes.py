"""The shared things of this process that other machines know, and the processes there that ask for something.

A thing gets a number when its name first goes to another machine, and is kept by it as long as this process has a pool
on a cluster: until the last of these has ended, a name of it may be anywhere.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from shoal.cluster.shared.links import LinkWay
from shoal.cluster.shared.proxies import Proxy, class_of, kind_of
from shoal.cluster.shared.refs import Ref, here
from shoal.cluster.shared.twins import Guest, Send
from shoal.cluster.shared.ways import Way, raised
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from shoal.cluster.shared.bars import Drawn

__all__ = ["Home", "Use", "home"]


class Use:
    """See `Home.use`."""


class Home:
    """This process: a client, or a node's."""

    def __init__(self) -> None:
        self.name, self.pid = os.urandom(8), os.getpid()
        # Reentrant: what ends meanwhile, by `__del__`, may pack things.
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._things: dict[int, Any] = {}
        # By id, which is the thing's as long as it is kept.
        self._refs: dict[int, Ref] = {}
        self._guests: dict[bytes, tuple[object, Guest]] = {}
        self._uses: set[int] = set()
        self._drawn: Drawn | None = None
        # The ways to nodes, which are homes, too, by what these are called: one for each pool, the oldest first. And
        # the same ways by what they are called in answers.
        self._nodes: dict[bytes, list[LinkWay]] = {}
        self._answers: dict[bytes, LinkWay] = {}
        # Of guests who have asked for something of a node's: the way back, and the nodes.
        self._passed: dict[bytes, tuple[object, Send, set[LinkWay]]] = {}
        # In a node's process: the ways for what is at home elsewhere, one for each pool.
        self.upward: list[Way] = []

    # ---- as `Here` ---------------------------------------------------------------------------------------------------

    def ref(self, thing: Any) -> Ref:
        """See `Here`."""
        ref = self._refs.get(id(thing))
        if ref is not None and ref[0] == "bar":
            return *ref[:3], class_of("bar").facts_of(thing, self.ref)  # what it shows changes
        if ref is None and issubclass(type(thing), Proxy):
            return thing._ref  # type: ignore[no-any-return]
        if ref is None:
            kind = kind_of(thing)
            facts = class_of(kind).facts_of(thing, self.ref)
            with self._lock:
                ref = self._refs.get(id(thing))
                if ref is None:
                    number = next(self._numbers)
                    self._things[number] = thing
                    ref = self._refs[id(thing)] = kind, self.name, number, facts
        return ref

    def at(self, kind: str, home: bytes, number: int, facts: tuple[Any, ...]) -> Any:
        """See `Here`."""
        if home != self.name:
            # A copy, of one that another link's end may empty.
            first = next(iter((self._nodes.get(home) or self.upward)[:1]), None)
            if first is None:
                raise ShoalError(f"this {kind} is at home in a process that is not linked to this one any more")
            return first.at(kind, home, number, facts)
        return class_of(kind).part(self.thing(number), facts)

    def thing(self, number: int) -> Any:
        """The thing of that number.

        Raises:
            ShoalError: there is none.
        """
        try:
            return self._things[number]
        except KeyError:
            raise ShoalError("there is no such thing here any more: the pool that it went through has ended") from None

    def is_quick(self, home: bytes, number: int, operation: str) -> bool:
        """Whether that takes no time at all, whoever does it."""
        thing = self._things.get(number) if home == self.name else None
        return thing is not None and operation in class_of(kind_of(thing)).quick

    def target(self, home: bytes, number: int, operation: str) -> tuple[Any, bool]:
        """What a guest wants to do something to, and whether it may come to have it, by that.

        Raises:
            ShoalError: there is no such thing, or it does no such thing.
        """
        self.check(home)
        thing = self.thing(number)
        kind = class_of(kind_of(thing))
        if operation not in kind.operations:
            raise ShoalError(f"a {type(thing).__name__} has no {operation!r} for other machines")
        return thing if kind.adapter is None else kind.adapter(thing), kind.owned

    def check(self, home: bytes) -> None:
        """That it is this home that a guest means.

        Raises:
            ShoalError: it is not.
        """
        if home != self.name:
            raise ShoalError("what is at home elsewhere is not linked to this process any more")

    # ---- for pools ---------------------------------------------------------------------------------------------------

    def use(self) -> Use:
        """What a pool on a cluster keeps as long as anybody there may know something of this process."""
        use = Use()
        number = next(self._numbers)
        self._uses.add(number)
        weakref.finalize(use, self._unused, number).atexit = False
        return use

    def _unused(self, number: int) -> None:
        # In whatever thread, so without a lock.
        self._uses.discard(number)
        if not self._uses:
            self._things, self._refs = {}, {}

    def hear(self, link: object, send: Send, message: tuple[Any, ...], pool: object = None) -> None:
        """What a process at the other end of a link says. Does not wait; and what fails is nobody else's affair.

        Args:
            link: by which it comes.
            send: the way back.
            message: what it says.
            pool: whose link that is, if it leads to a node.
        """
        try:
            self._heard(link, send, message, pool)
        except Exception as error:
            if message[0] in ("call", "post"):
                send(("answer", *message[1:4], *raised(error)))
                return
            what = f"what another machine says ({message[0]}) is passed over"
            print(f"shoal: {what}: {type(error).__name__}: {error}", file=sys.stderr)

    def _heard(self, link: object, send: Send, message: tuple[Any, ...], pool: object) -> None:
        what, name, *content = message
        if what in ("bar", "show", "write"):
            self._bars().hear(link, *message)
            return
        if what == "home":
            if name != self.name:
                with self._lock:  # each pool has its own loop
                    ways = self._nodes.setdefault(name, [])
                    way = LinkWay(name, link, send, pool, ways)
                    ways.append(way)
                    self._answers[way.name] = way
            return
        if what == "answer":
            self._answered(message)
            return
        with self._lock:
            if self._pass_on(link, send, message, pool):
                return
            known = self._guests.get(name)
            if known is None:
                if what not in ("call", "post"):
                    return
                known = self._guests[name] = link, Guest(self, name, send)
            guest = known[1]
            if what == "left":
                del self._guests[name]
                guest.end()
            elif what in ("call", "post"):
                guest.call(*content)
            elif what == "recall":
                guest.recall(*content)
            elif what == "acted":
                guest.acted(*content)
            elif what == "over":
                guest.over(*content)

    def lost(self, link: object) -> None:
        """A link has ended: all who came by it have, for this process."""
        if self._drawn is not None:
            self._drawn.lost(link)
        with self._lock:
            for way in [way for way in self._answers.values() if way.link is link]:
                del self._answers[way.name]
                ways = self._nodes[way.home]
                ways.remove(way)
                if not ways:
                    del self._nodes[way.home]
                way.lost()
            for name in [name for name, passed in self._passed.items() if passed[0] is link]:
                self._pass_on(link, _to_nobody, ("left", name))
            for name, (by, guest) in list(self._guests.items()):
                if by is link:
                    del self._guests[name]
                    guest.end()

    # ---- between nodes -----------------------------------------------------------------------------------------------

    def _pass_on(self, link: object, send: Send, message: tuple[Any, ...], pool: object = None) -> bool:
        """What concerns a node's things goes on to the node. Whether that is all."""
        what, name, *content = message
        if what in ("call", "post"):
            ways = self._nodes.get(content[2])
            if ways:
                used = self._passed.setdefault(name, (link, send, set()))[2]
                # By the way that it has gone before: its twin is there. Else by its own pool's, to end with that.
                node = min(ways, key=lambda way: (way not in used, way.pool is not pool))
                used.add(node)
                node.pass_on(message, send)
            return bool(ways)
        if (passed := self._passed.get(name)) is not None:
            for node in passed[2]:
                node.pass_on(message, send)
            if what == "left":
                del self._passed[name]
        return False

    def _answered(self, message: tuple[Any, ...]) -> None:
        """A node has answered, to this process or to another one."""
        _, name, thread, number, *_ = message
        if (way := self._answers.get(name)) is not None:
            way.answer(*message[2:])
            return
        with self._lock:
            if (passed := self._passed.get(name)) is not None:
                for way in passed[2]:
                    way.settled(name, thread, number)
                passed[1](message)

    def _bars(self) -> Drawn:
        if self._drawn is None:
            from shoal.cluster.shared.bars import Drawn

            self._drawn = Drawn(lambda home, number: self.at("bar", home, number, ()))
        return self._drawn


def _to_nobody(message: tuple[Any, ...]) -> None:
    """The way to who is gone."""


def home() -> Home:
    """This process as a home. Also a worker of a node is one, for a pool on a cluster that it has itself."""
    global _own
    role = here()
    if isinstance(role, Home):
        return role
    if _own is None or _own.pid != os.getpid():
        _own = Home()
    return _own


_own: Home | None = None
