"""Where a process's screen is to be found by others: the door, and its address.

A door is an abstract Unix socket. It is there as soon as somebody may be told of it (a pool is made, a bar is pickled),
and costs a descriptor: who stands behind it, the thread that draws, comes when somebody knocks. Beside it is a lamp, a
second socket that is there while bars are shown: who could reach it, sees it lit.

Every pool starts it, so importing this imports next to nothing.
"""

from __future__ import annotations

import _socket  # `socket` around it takes longer to import than all of a pool's start
import _thread
import atexit
import os
import sys

from shoal._engine import when_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

__all__ = ["Address", "Door", "above_bars", "door", "existing_door", "given", "home", "shut", "take_home"]


# Behind the name of the door.
LAMP = b"!"


class Address:
    """Where a screen is to be found. Travels to workers, and with every bar.

    Attributes:
        name: the name of the socket.
        token: who does not know it is not let in.
        stderr: which file the standard error of the screen's process is.
        seen: whether somebody looks at it: it is a terminal, or a notebook.
    """

    __slots__ = ("name", "seen", "stderr", "token")

    def __init__(self, name: bytes, token: bytes, stderr: tuple[int, ...], seen: bool) -> None:
        self.name, self.token, self.stderr, self.seen = name, token, stderr, seen

    @property
    def is_lit(self) -> bool:
        """Whether there are bars on the screen at this moment, which text would disturb. Takes some microseconds."""
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            socket.connect(self.name + LAMP)
        except OSError:
            return False
        finally:
            socket.close()
        return True

    def __reduce__(self) -> tuple[object, ...]:
        return Address, (self.name, self.token, self.stderr, self.seen)


class Door:
    """This process's own."""

    def __init__(self) -> None:
        name = b"\0shoal-bars-" + os.urandom(8).hex().encode()
        seen = "ipykernel" in sys.modules or os.isatty(2)
        self.address = Address(name, os.urandom(16), standard_error(), seen)
        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self.listener = _socket.socket(_socket.AF_UNIX, kind)
        self.listener.bind(name)
        self.listener.listen(128)
        self._attended = False
        self._lamp: _socket.socket | None = None
        self._hand = _thread.allocate_lock()
        self.attend()

    def attend(self) -> None:
        """Have the screen opened when somebody knocks."""
        if not self._attended:
            self._attended = True
            when_readable(self.listener.fileno(), self._open_screen)

    def light(self, lit: bool) -> bool:
        """Light the lamp, or put it out. Whether that was a change."""
        with self._hand:
            before = self._lamp is not None
            if lit and self._lamp is None:
                lamp = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
                try:
                    lamp.bind(self.address.name + LAMP)
                except OSError:  # somebody else has taken the name: then it is lit for good
                    lamp.close()
                else:
                    self._lamp = lamp
            elif not lit and self._lamp is not None:
                self._lamp.close()
                self._lamp = None
            return before != (self._lamp is not None)

    @property
    def is_lit(self) -> bool:
        """Whether there are bars on the terminal."""
        return self._lamp is not None

    def close(self) -> None:
        """At the end of the process, or in the child of a fork."""
        self._hand = _thread.allocate_lock()
        self.light(False)
        self.listener.close()

    def _open_screen(self) -> None:
        from shoal.progress.screen import screen

        self._attended = False
        screen.open()


_door: Door | None = None
# Two threads that ask at once get one door.
_making = _thread.RLock()

# Those who have what others make or write shown elsewhere: on a node of a cluster (`shoal.cluster.shared.relay`).
relays: list[Any] = []

# The screen of the process that this one is a child of, or got a bar from first.
_given: Address | None = None


def door() -> Door:
    """This process's door, made when first asked for."""
    global _door
    if (existing := _door) is not None:
        return existing
    with _making:
        if (made := _door) is None:
            made = _door = Door()
            screen = sys.modules.get("shoal.progress.screen")
            if screen is not None:
                screen.screen.light()
    return made


def existing_door() -> Door | None:
    """This process's door, if it has one."""
    return _door


class _Nothing:
    """A context in which nothing is done: contextlib takes longer to import than all of a door."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_NOTHING = _Nothing()


def above_bars() -> AbstractContextManager[object]:
    """For whoever is about to write to the terminal: meanwhile the bars of this process are out of the way."""
    if _door is None or not _door.is_lit:
        return _NOTHING
    from shoal.progress.travel import bar_class

    clear: AbstractContextManager[object] = bar_class("bar").external_write_mode()
    return clear


def home() -> Address | None:
    """Whose screen shows the bars that this process makes; None: its own.

    Those of a worker are shown by its pool's client. Any other process that came by the address of a screen uses it if
    both write to the same terminal: two that draw there would draw over each other.
    """
    worker = sys.modules.get("shoal._worker")  # only in workers, and in what they fork
    if worker is not None and worker.screen is not None:
        address: Address = worker.screen
        return address
    if _given is not None and _given.stderr == standard_error():
        return _given
    return None


def given() -> Address | None:
    """The screen of the process that this one is a child of, or got a bar from first."""
    return _given


def take_home(address: Address) -> None:
    """A bar has come from elsewhere: bars made here from now on may belong there too."""
    global _given
    # A process that was on its own stays so: others may count on it.
    if _given is None and _door is None:
        _given = address


def standard_error() -> tuple[int, ...]:
    """Which file the standard error of this process is."""
    try:
        found = os.fstat(2)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_rdev


def _after_fork() -> None:
    """In the child: the door is the parent's, and it knows where that is."""
    global _given, _making
    _making = _thread.RLock()
    if _door is not None:
        _given = _door.address
        shut()  # else the parent's door would seem open when the parent is gone


@atexit.register
def shut() -> None:
    """Have everybody know at once that there is nobody here any more."""
    global _door
    if _door is not None:
        _door.close()
        _door = None


os.register_at_fork(after_in_child=_after_fork)
