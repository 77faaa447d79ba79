"""A worker's way to the process of its node: a queue there, and a queue back for each of its threads.

A thread asks, and waits for the answer. What needs no answer it says without waiting; the task's result comes after it.
"""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import weakref
from typing import Any

from shoal.cluster.shared import refs
from shoal.cluster.shared.parcels import flat
from shoal.cluster.shared.proxies import class_of, kind_of
from shoal.cluster.shared.refs import Ref
from shoal.cluster.wire import pack, unpack
from shoal.errors import ShoalError
from shoal.queues import ShutDown, SimpleQueue

__all__ = ["ACT", "ERROR", "LOCAL", "VALUE", "Way", "raised", "settle"]

# What an answer is: what came of it, what was raised, that the caller is to act (the action of a barrier); or what came
# of it on this machine, as it is.
VALUE, ERROR, ACT, LOCAL = range(4)

# How many times a thread says something without waiting, until it waits for all of that.
_MOST = 1000

# Seconds to wait for what becomes of a question that is taken back.
_PATIENCE = 5.0

# What is undone if it was done just when the question was taken back.
_UNDONE = frozenset({"acquire", "repair"})


class _Line:
    """A thread's queue for answers."""

    def __init__(self, way: Way) -> None:
        self.number = next(way.numbers)
        self.questions, self.last = itertools.count(1), 0
        # How often something was said without waiting, and to which homes.
        self.unanswered, self.told = 0, set[bytes]()
        # The first error of that, packed, if it was answered nevertheless.
        self.failed: tuple[bytes, list[Any]] | None = None
        self.replies = way.open_line(self)
        # When the thread has ended.
        weakref.finalize(self, _end, way.say, way.name, self.number, os.getpid()).atexit = False

    def question(self) -> int:
        """The number of the next one."""
        self.last = next(self.questions)
        return self.last


def _end(say: Any, name: bytes, number: int, pid: int) -> None:
    try:
        if pid == os.getpid():  # in a fork, it is the parent's
            say(("over", name, number))
    except ShoalError:
        pass  # with the way all of it has ended


class Way:
    """See the module.

    Args:
        up: the queue to the node's process.
        home: what that is called as a home.
    """

    def __init__(self, up: Any, home: bytes) -> None:
        self._up, self._home, self.numbers = up, home, itertools.count(1)
        self._name: bytes | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        # Things of this process that others know, by id, which is theirs as long as they are there.
        self._refs: dict[int, tuple[weakref.ref[Any], Ref]] = {}
        self._bars: weakref.WeakValueDictionary[tuple[bytes, int], Any] = weakref.WeakValueDictionary()
        self._proxies: weakref.WeakValueDictionary[tuple[bytes, int], Any] = weakref.WeakValueDictionary()

    @property
    def name(self) -> bytes:
        """What this process is called. The node is to see its end, so it is told of its beginning."""
        with self._lock:
            if self._name is None:
                name = os.urandom(8)
                self.say(("here", name, os.getpid(), started(os.getpid())))
                self._name = name
            return self._name

    def after_fork(self) -> Way:
        """In the child: what stands for things there goes this way, too, but in another name."""
        self._name, self._lock, self._local = None, threading.Lock(), threading.local()
        return self

    def open_line(self, line: _Line) -> Any:
        """Where the answers to a thread come."""
        replies: SimpleQueue[tuple[int, int, Any, list[Any]]] = SimpleQueue()
        self.say(("line", self.name, line.number, replies))
        return replies

    def say(self, message: tuple[Any, ...]) -> None:
        """Send a message.

        Raises:
            ShoalError: there is nobody any more.
        """
        try:
            self._up.put(message)
        except ShutDown:
            raise ShoalError("the pool of this node has ended, and with it the way to what it shares") from None

    def passed_on(self, ref: Ref) -> Any:
        """What a proxy pickles to for another process of this machine."""
        return _arrive_by, (self._up, self._home, *ref)

    # ---- as `Here` ---------------------------------------------------------------------------------------------------

    def ref(self, thing: Any) -> Ref:
        """See `Here`."""
        ref: Ref | None = getattr(thing, "_ref", None)
        if ref is None:
            known = self._refs.get(id(thing))
            ref = known[1] if known is not None and known[0]() is thing else self._export(thing)
        return ref

    def _export(self, thing: Any) -> Ref:
        if kind_of(thing) == "bar":
            raise TypeError("cannot pickle a bar that a worker has made for another machine: the client shows it")
        ref: Ref = self._inquire("export", thing)
        place = id(thing)

        def forget(_: object) -> None:
            self._refs.pop(place, None)

        self._refs[place] = weakref.ref(thing, forget), ref
        return ref

    def at(self, kind: str, home: bytes, number: int, facts: tuple[Any, ...]) -> Any:
        """See `Here`."""
        if home == self._home:
            thing = self._inquire("fetch", number)
            return class_of(kind).part(thing, facts)
        if kind == "bar":
            return self._bar((kind, home, number, facts))
        if kind == "data":  # of which there are branches
            return class_of(kind)((kind, home, number, facts), self)
        proxy = self._proxies.get((home, number))
        if proxy is None:
            proxy = self._proxies.setdefault((home, number), class_of(kind)((kind, home, number, facts), self))
        return proxy

    def _bar(self, ref: Ref) -> Any:
        """A bar that is drawn by the client: its mirror on this node, which is a bar as any other."""
        from shoal.progress.travel import arrive

        _, home, number, facts = ref
        bar = self._bars.get((home, number))
        if bar is None or bar.__dict__["_ref"][3] != facts:
            (name, tally, lock, page), address = self._inquire("mirror", home, number, *facts)
            bar = self._bars[home, number] = arrive(name, tally, lock, page, address, facts[0])
            bar.__dict__["_ref"] = ref
        return bar

    def _inquire(self, what: str, *content: Any) -> Any:
        """Ask the node's process itself."""
        line = self._line()
        question = line.question()
        self.say((what, self.name, line.number, question, *content))
        ok, value = self._answered(line, question, None)
        if not ok:
            raise value
        return value

    # ---- for proxies -------------------------------------------------------------------------------------------------

    def ask(self, ref: Ref, operation: str, args: tuple[Any, ...], act: Any = None) -> Any:
        """Have something done to a thing at its home, in this thread's twin there, and wait until it is.

        Args:
            ref: the thing.
            operation: the name of its method or attribute.
            args: its arguments.
            act: called when the home asks for it, while it is done there.

        Raises:
            BaseException: what it raises there; KeyboardInterrupt, which takes the question back.
        """
        line = self._line()
        question = line.question()
        self._say("call", line, question, ref, operation, args)
        line.told.discard(ref[1])
        try:
            ok, value = self._answered(line, question, act)
        except BaseException:
            self._take_back(line, question, ref, operation)
            raise
        if not ok:
            raise value
        return value

    def tell(self, ref: Ref, operation: str, args: tuple[Any, ...]) -> None:
        """Have something done, before all that this thread asks for later. Does not wait: `settle` tells of errors."""
        line = self._line()
        self._say("post", line, 0, ref, operation, args)
        line.told.add(ref[1])
        line.unanswered += 1
        if line.unanswered >= _MOST:
            self.settle()

    def settle(self) -> None:
        """Wait until what this thread has told is done.

        Raises:
            BaseException: the first error of that.
        """
        line: _Line | None = getattr(self._local, "line", None)
        if line is None or not (line.told or line.failed):
            return
        line.unanswered = 0
        lost: Exception | None = None
        for home in list(line.told):
            try:
                self.ask(("", home, 0, ()), "settle", ())
            except Exception as error:  # the home is gone; what others were told is to be done all the same
                lost = lost or error
        failed, line.failed = line.failed, None
        if failed is not None:
            raise unpack(*failed)
        if lost is not None:
            raise lost

    def _line(self) -> _Line:
        line: _Line | None = getattr(self._local, "line", None)
        if line is None:
            line = self._local.line = _Line(self)
        return line

    def _say(self, what: str, line: _Line, question: int, ref: Ref, operation: str, args: tuple[Any, ...]) -> None:
        data, frames = pack(args, operation, lambda buffer: buffer)
        arrays = [flat(frame) for frame in frames]
        self.say((what, self.name, line.number, question, ref[1], ref[2], operation, data, arrays))

    def _answered(self, line: _Line, question: int, act: Any, timeout: float | None = None) -> tuple[bool, Any]:
        while True:
            number, status, data, frames = line.replies.get(timeout=timeout)
            if not number:
                line.failed = line.failed or (data, frames)
            if number != question:
                continue  # of one that was taken back, or of what was told
            if status == ACT:
                try:
                    act()
                    failed = b""
                except BaseException as error:
                    failed = pickle.dumps(raised(error)[1:], 5)  # what it carries beside it, too
                self.say(("acted", self.name, line.number, question, failed))
                continue
            if status == LOCAL:
                return True, data
            return status == VALUE, unpack(data, frames)

    def _take_back(self, line: _Line, question: int, ref: Ref, operation: str) -> None:
        self.say(("recall", self.name, line.number, question))
        try:
            done, value = self._answered(line, question, None, _PATIENCE)
        except Exception:
            return  # nobody can tell; if there is an answer after all, it is passed over
        if done and value is True and operation in _UNDONE:
            self.ask(ref, "release", ())


def _arrive_by(up: Any, home: bytes, *ref: Any) -> Any:
    if not refs.is_told():
        refs.take_role(Way(up, home))
    return refs.arrive(*ref)


def settle() -> None:
    """A task of this worker has ended: so has all that its thread has told, before anybody hears of that."""
    way = refs._role
    if type(way) is Way:
        way.settle()


def raised(error: BaseException) -> tuple[int, bytes, list[Any]]:
    """The answer that it was raised; in words, if it can't travel."""
    try:
        return ERROR, *pack(error)
    except Exception:
        return ERROR, *pack(ShoalError(f"{type(error).__name__}: {error}"))


def started(pid: int) -> str:
    """When a process was started, as its machine counts: a number may be another's later."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()
