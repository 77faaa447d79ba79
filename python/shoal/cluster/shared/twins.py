"""Threads that stand for threads of other machines: what those ask for, they do to the things of this one.

Each thread elsewhere has one here, its twin, made when it first asks. So what belongs to a thread (a reentrant lock,
the order of what it does) is right by itself, and one that waits makes nobody else wait. What a twin takes, it takes
under a number that its process elsewhere has here (`_engine.StandIn`). When that process has ended its twins end, and
what they had passes on as abandoned, by the same function as after the death of a process of this machine.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _engine
from shoal.cluster.shared.parcels import Crate, Parcel, passing
from shoal.cluster.shared.ways import ACT, ERROR, VALUE, raised
from shoal.cluster.wire import pack, unpack

if TYPE_CHECKING:
    from shoal.cluster.shared.homes import Home

__all__ = ["Guest", "Send"]

# In the place of the number of a question: what a thread was asked to do meanwhile is done.
_ACTED = -1

# Sends a message the way that the guest's came.
Send = Callable[[tuple[Any, ...]], object]


class Guest:
    """A process elsewhere.

    Args:
        home: whose things it asks for.
        name: what it is called.
        send: the way to it.
    """

    def __init__(self, home: Home, name: bytes, send: Send) -> None:
        self.home, self.name, self.send = home, name, send
        self.stand_in = _engine.StandIn()
        self._twins: dict[int, Twin] = {}

    def call(self, thread: int, *question: Any) -> None:
        """One of its threads wants something. Does not wait."""
        twin = self._twins.get(thread)
        if twin is None:
            twin = self._twins[thread] = Twin(self, thread)
        if not (self.home.is_quick(*question[1:4]) and twin.at_once(*question)):
            twin.ask(*question)

    def recall(self, thread: int, number: int) -> None:
        """One of its threads does not want it any more."""
        if (twin := self._twins.get(thread)) is not None:
            twin.recall(number)

    def acted(self, thread: int, number: int, data: Any) -> None:
        """One of its threads has done what it was asked to do meanwhile; what that raised, pickled, if anything."""
        if (twin := self._twins.get(thread)) is not None:
            twin.ask(_ACTED, number, data)

    def over(self, thread: int) -> None:
        """One of its threads has ended."""
        if (twin := self._twins.pop(thread, None)) is not None:
            twin.end()

    def end(self) -> None:
        """It has ended."""
        for thread in list(self._twins):
            self.over(thread)


class Twin:
    """A thread here, for one of a guest's."""

    def __init__(self, guest: Guest, thread: int) -> None:
        self._home, self._name, self._thread, self._send = guest.home, guest.name, thread, guest.send
        self._engine = guest.stand_in.twin()
        self.questions: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        # Of what follows; never held while anything is done.
        self._lock = threading.Lock()
        self._at, self._recalled, self._ended = 0, 0, False
        # Questions that are not done, and the thread for them, which is there from the first one on.
        self._waiting, self._started = 0, False

    def ask(self, *question: Any) -> None:
        """Something is to be done, when all before it is."""
        if not self._started:  # first, as it may fail: then nothing was asked
            threading.Thread(target=self._run, name="shoal-twin", daemon=True).start()
            self._started = True
        with self._lock:
            self._waiting += 1
        self.questions.put(question)

    def at_once(self, number: int, home: bytes, thing: int, operation: str, data: Any, frames: Any) -> bool:
        """Do something quick, if nothing is to be done before it, in the thread that has heard of it: to wake up this
        one would take longer. Whether it is done."""
        with self._lock:
            if self._waiting or self._ended:
                return False
        try:
            args = unpack(data, frames)
            if operation == "acquire" and args:
                return False
            if operation == "put" and self._is_asked_for(args[0]):
                return False
            now = (args[0], False) if operation == "put" else (False,) if operation == "acquire" else args
            target, owned = self._home.target(home, thing, operation)
            act = partial(_done, target, operation, now)
            value = self._engine.lend(act) if owned else act()
            answer = VALUE, *pack(value)
            if operation == "acquire" and not value:
                return False  # it is to be waited for
        except queue.Full:
            return False  # likewise
        except BaseException as error:
            answer = raised(error)
        if number or answer[0] == ERROR:  # also of what was only told
            self._answer(number, *answer)
        return True

    def _is_asked_for(self, item: Any) -> bool:
        """Whether something in an item, a bar of the client's, is to be asked for before the item lies here."""
        refs = item.refs if type(item) is Parcel else ()
        return any(kind == "bar" and home != self._home.name for kind, home, *_ in refs)

    def recall(self, number: int) -> None:
        """The question of that number is to be waited for no longer."""
        with self._lock:
            self._recalled = number
            if self._at == number:
                self._engine.recall()

    def end(self) -> None:
        """Nothing more is to be done; what is, ends."""
        with self._lock:
            self._ended = True
            self._engine.end()
        self.questions.put(None)

    def _run(self) -> None:
        self._engine.begin()
        while (question := self.questions.get()) is not None and not self._ended:
            if question[0] != _ACTED:  # else it was taken back meanwhile
                self._serve(*question)
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _serve(self, number: int, *asked: Any) -> None:
        with self._lock:
            before, self._at = self._at, number
            self._engine.recall(number != 0 and number <= self._recalled)
        status, answer, beside = self._outcome(number, *asked)
        with self._lock:
            self._at = before
        if status == ERROR and self._ended:
            return  # that its wait was ended: whose link has ended is told so at his end of it
        if number or status == ERROR:
            self._answer(number, status, answer, beside)

    def _answer(self, number: int, status: int, data: bytes, frames: list[Any]) -> None:
        self._send(("answer", self._name, self._thread, number, status, data, frames))

    def _outcome(
        self, number: int, home: bytes, thing: int, operation: str, data: Any, frames: Any
    ) -> tuple[int, bytes, list[Any]]:
        try:
            value = self._do(number, home, thing, operation, unpack(data, frames))
            return VALUE, *pack(value, f"what {operation} returned", _as_it_is)
        except BaseException as error:
            return raised(error)

    def _do(self, number: int, home: bytes, thing: int, operation: str, args: tuple[Any, ...]) -> Any:
        if operation == "settle":
            self._home.check(home)
            return None
        target, owned = self._home.target(home, thing, operation)
        if owned:
            self._engine.own()
        if operation == "_wait":
            args = args[0], partial(self._have_done, number) if args[1] else None
        return _done(target, operation, args)

    def _have_done(self, number: int) -> None:
        """Have the thread elsewhere do what only it can, and wait until it has; it may ask for something meanwhile."""
        self._answer(number, ACT, b"", [])
        while (question := self.questions.get()) is not None:
            self._done()  # or about to be, and nothing else is before this is
            if question[0] != _ACTED:
                self._serve(*question)
            elif question[1] == number:
                if question[2]:
                    raise unpack(*pickle.loads(question[2]))
                return
        self.questions.put(None)
        raise InterruptedError("the process at the other end has ended")


def _done(target: Any, operation: str, args: tuple[Any, ...]) -> Any:
    with passing():
        value = getattr(target, operation)
        return value(*map(_local, args)) if callable(value) else value


def _local(argument: Any) -> Any:
    """An argument as it goes into a thing of this machine."""
    if type(argument) is Parcel:
        return Crate(argument)
    if type(argument) is list:
        return [_local(item) for item in argument]
    return argument


def _as_it_is(buffer: pickle.PickleBuffer) -> pickle.PickleBuffer:
    return buffer
