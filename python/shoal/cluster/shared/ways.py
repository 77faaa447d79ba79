"""A worker's way to the process of its node: a queue there, and a queue back for each of its threads.

A thread asks, and waits for the answer. What needs no answer it says without waiting; the task's result comes after it.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Any

from shoal.cluster.shared import refs
from shoal.cluster.shared.parcels import flat
from shoal.cluster.shared.refs import Ref
from shoal.cluster.wire import pack, unpack
from shoal.queues import ShutDown, SimpleQueue

__all__ = ["ACT", "ERROR", "LOCAL", "VALUE", "Way", "settle"]

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
        self.replies: SimpleQueue[tuple[int, int, Any, list[Any]]] = SimpleQueue()
        self.questions = itertools.count(1)
        self.unanswered = 0
        way.up.put(("line", way.name, self.number, self.replies))
        # When the thread has ended.
        weakref.finalize(self, _end, way.up, way.name, self.number).atexit = False


def _end(up: Any, name: bytes, number: int) -> None:
    try:
        up.put(("over", name, number))
    except ShutDown:
        pass  # with the node's pool all of it ends


class Way:
    """See the module.

    Args:
        up: the queue to the node's process.
    """

    def __init__(self, up: Any) -> None:
        self.up, self.numbers = up, itertools.count(1)
        self._name: bytes | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._bars: weakref.WeakValueDictionary[tuple[bytes, int], Any] = weakref.WeakValueDictionary()
        self._proxies: weakref.WeakValueDictionary[tuple[bytes, int], Any] = weakref.WeakValueDictionary()

    @property
    def name(self) -> bytes:
        """What this process is called. The node is to see its end, so it is told of its beginning."""
        with self._lock:
            if self._name is None:
                name = os.urandom(8)
                self.up.put(("here", name, os.getpid(), started(os.getpid())))
                self._name = name
            return self._name

    def after_fork(self) -> Way:
        """In the child."""
        return Way(self.up)

    # ---- as `Here` ---------------------------------------------------------------------------------------------------

    def ref(self, thing: Any) -> Ref:
        """See `Here`."""
        ref: Ref | None = getattr(thing, "_ref", None)
        if ref is None:
            raise TypeError(
                f"cannot pickle {type(thing).__name__!r} object for another machine: it lives in the shared memory of "
                f"this node; make it in the program that has the pool, and it is the same one everywhere"
            )
        return ref

    def at(self, kind: str, home: bytes, number: int, facts: tuple[Any, ...]) -> Any:
        """See `Here`."""
        from shoal.cluster.shared.proxies import class_of

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
        if bar is None:
            line = self._line()
            question = next(line.questions)
            self._up(("mirror", self.name, line.number, question, home, number, facts[0]))
            _, ((name, tally, lock, page), address) = self._answered(line, question, None)
            bar = arrive(name, tally, lock, page, address, facts[0])
            bar.__dict__["_ref"] = ref
            self._bars[home, number] = bar
        return bar

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
        question = next(line.questions)
        self._say("call", line, question, ref, operation, args)
        line.unanswered = 0
        try:
            ok, value = self._answered(line, question, act)
        except BaseException:
            self._take_back(line, question, ref, operation)
            raise
        if not ok:
            raise value
        return value

    def tell(self, ref: Ref, operation: str, args: tuple[Any, ...]) -> None:
        """Have something done that can't fail, before all that this thread asks for later. Does not wait."""
        line = self._line()
        self._say("post", line, 0, ref, operation, args)
        line.unanswered += 1
        if line.unanswered >= _MOST:
            self.settle()

    def settle(self) -> None:
        """Wait until what this thread has told is done."""
        line: _Line | None = getattr(self._local, "line", None)
        if line is not None and line.unanswered:
            self.ask(("", b"", 0, ()), "settle", ())

    def _line(self) -> _Line:
        line: _Line | None = getattr(self._local, "line", None)
        if line is None:
            line = self._local.line = _Line(self)
        return line

    def _say(self, what: str, line: _Line, question: int, ref: Ref, operation: str, args: tuple[Any, ...]) -> None:
        data, frames = pack(args, operation, lambda buffer: buffer)
        arrays = [flat(frame) for frame in frames]
        self._up((what, self.name, line.number, question, ref[1], ref[2], operation, data, arrays))

    def _up(self, message: tuple[Any, ...]) -> None:
        try:
            self.up.put(message)
        except ShutDown:
            from shoal.errors import ShoalError

            raise ShoalError("the pool of this node has ended, and with it the way to what it shares") from None

    def _answered(self, line: _Line, question: int, act: Any, timeout: float | None = None) -> tuple[bool, Any]:
        while True:
            number, status, data, frames = line.replies.get(timeout=timeout)
            if number != question:
                continue  # of one that was taken back
            if status == ACT:
                try:
                    act()
                    done = None
                except BaseException as error:
                    done = error
                self._up(("acted", self.name, line.number, question, pack(done)[0]))
                continue
            if status == LOCAL:
                return True, data
            return status == VALUE, unpack(data, frames)

    def _take_back(self, line: _Line, question: int, ref: Ref, operation: str) -> None:
        self._up(("recall", self.name, line.number, question))
        try:
            done, value = self._answered(line, question, None, _PATIENCE)
        except Exception:
            return  # nobody can tell; if there is an answer after all, it is passed over
        if done and value is True and operation in _UNDONE:
            self.ask(ref, "release", ())


def settle() -> None:
    """A task of this worker has ended: so has all that its thread has told, before anybody hears of that."""
    way = refs._role
    if type(way) is Way:
        way.settle()


def started(pid: int) -> str:
    """When a process was started, as its machine counts: a number may be another's later."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()
