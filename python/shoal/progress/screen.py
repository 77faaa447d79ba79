"""The screen of a process: the thread that draws its bars, and those that other processes have made for it.

It is there while there are bars to draw, or somebody has just asked for something; it looks at the counts ten times a
second, and answers the questions of other processes (see `line`) at once.
"""

from __future__ import annotations

import _socket
import atexit
import hmac
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm.std import TqdmDefaultWriteLock  # type: ignore[attr-defined]  # it is there

from shoal._engine import speak_through
from shoal.progress import door
from shoal.progress.line import CREDENTIALS, pack, unpack
from shoal.progress.shared import Shared
from shoal.reports.streams import stderr_speaker

if TYPE_CHECKING:
    from shoal.progress.bar import Bar

__all__ = ["Screen", "screen"]

# How often the screen looks at the counts, in seconds: what the eye takes for continuous, and no load at all.
TICK = 0.1

# How long it stays when there is nothing to draw, for others that may go on asking, in seconds.
LINGER = 1.0

TOKEN = 16

# Under which bars are drawn: tqdm's own between threads.
LOCK = TqdmDefaultWriteLock.th_lock


class Visitor:
    """Another process with a line to this screen."""

    def __init__(self, socket: _socket.socket, pid: int) -> None:
        self.socket, self.pid = socket, pid
        self.bars: dict[bytes, Bar[Any]] = {}
        self.is_welcome = True
        self._known = False
        self._heard = bytearray()

    def questions(self) -> list[tuple[Any, ...]] | None:
        """What it asks. None: it has ended, or is not one that may ask."""
        try:
            heard = self.socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not heard:
            return None
        self._heard += heard
        if not self._known:
            if len(self._heard) < TOKEN:
                return []
            shown = bytes(self._heard[:TOKEN])
            del self._heard[:TOKEN]
            if not hmac.compare_digest(shown, door.door().address.token):
                return None
            self._known = True
        try:
            questions = unpack(self._heard)
        except Exception:  # whatever it is made of: nobody who means it well writes that
            return None
        sound = all(isinstance(asked, tuple) and len(asked) > 1 and isinstance(asked[0], int) for asked in questions)
        return questions if sound else None

    def answer(self, number: int, problem: str | None) -> None:
        """Tell it what has become of a question. Who does not listen, is not waited for."""
        try:
            self.socket.send(pack((number, problem)))
        except OSError:
            pass  # it has ended, which is seen when it is listened to


class Screen:
    """See the module. There is one in a process, `screen`."""

    def __init__(self) -> None:
        self._bars: weakref.WeakSet[Bar[Any]] = weakref.WeakSet()
        self._visitors: list[Visitor] = []
        # Of what follows; is never held while drawing. A signal's handler that ends a pool may come while it is held.
        self._guard = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ended = False
        self._bell = -1
        self._dismissed: set[int | None] = set()
        self._without_them = threading.Event()
        self._held = False

    # ---- for others --------------------------------------------------------------------------------------------------

    def add(self, bar: Bar[Any]) -> None:
        """Draw `bar` from now on, until it is closed."""
        with self._guard:
            self._bars.add(bar)
            self._start()
        self.light()

    def open(self) -> None:
        """Somebody knocks at the door."""
        with self._guard:
            self._start()

    @property
    def has_visitors(self) -> bool:
        """Whether other processes have asked for something lately, or have bars here."""
        return bool(self._visitors)

    def dismiss(self, pids: set[int | None]) -> None:
        """These processes are being ended: so are their bars, before the caller goes on and prints something."""
        with self._guard:
            if self._thread is None:
                return
            self._dismissed |= pids
            self._without_them.clear()
            self._ring()
            waits = self._thread is not threading.current_thread()
        if waits:
            self._without_them.wait(timeout=1.0)

    def end(self) -> None:
        """At the end of the interpreter: a thread that wrote during its last moments would crash it."""
        with self._guard:
            self._ended = True
            thread = self._thread
            self._ring()
        if thread is not None:
            thread.join(timeout=1.0)  # it is soon done, unless the terminal is stuck; then ending matters more
        for bar in sorted(self._all_bars(), key=lambda bar: abs(bar.pos)):
            bar.close()
        for visitor in self._visitors:
            visitor.socket.close()
        door.shut()

    def before_fork(self) -> None:
        """Before a fork: what the child inherits shall be of use to it, and not locked."""
        from shoal.progress.travel import share

        self._held = False
        bars = [bar for bar in self._bars if bar.is_drawn]
        if bars:
            door.door()
        for bar in bars:
            share(bar)
        # In the child there would be nobody to release it. Unless the terminal is stuck, it is free in a moment.
        self._held = LOCK.acquire(timeout=1.0)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held:
            LOCK.release()

    def after_fork_in_child(self) -> None:
        """The thread is not there, and the bars are the parent's."""
        if self._held:
            LOCK.release()
        else:
            LOCK._at_fork_reinit()  # it is a thread's that is not there, as with locks of the standard library
        bars, visitors, bell = [bar for bar in self._bars if bar.is_drawn], self._visitors, self._bell
        self.__init__()  # type: ignore[misc]  # as new
        if bell >= 0:
            os.close(bell)
        for visitor in visitors:
            visitor.socket.close()
            bars += visitor.bars.values()
        for bar in bars:
            bar.inherited(door.given())

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._ended:
            if self._bell < 0:
                self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="shoal-bars", daemon=True)
            self._thread.start()
        else:
            self._ring()

    def _ring(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        drawn = asked = time.monotonic()
        while True:
            # No bar is held while it waits: who drops one unclosed, ends it.
            if self._listen(drawn + TICK if self._all_bars() else asked + LINGER):
                asked = time.monotonic()
            self._dismiss()
            now = time.monotonic()
            if now >= drawn + TICK:
                drawn = now
                self._draw()
            if self._leave(now < asked + LINGER):
                return

    def _listen(self, until: float) -> bool:
        """Wait for questions and answer them. Whether there were any."""
        behind = door.existing_door()
        poll = select.poll()
        sockets = {visitor.socket.fileno(): visitor for visitor in self._visitors}
        listener = behind.listener.fileno() if behind is not None else -1
        for fd in (self._bell, listener, *sockets):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        heard = False
        for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000 + 1):
            if fd == self._bell:
                os.eventfd_read(fd)
            elif fd == listener and behind is not None:
                self._let_in(behind.listener)
                heard = True
            else:
                heard = True
                self._serve(sockets[fd])
        return heard

    def _let_in(self, listener: _socket.socket) -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # the one that `socket` is built on
        except BlockingIOError:
            return
        except OSError:  # no descriptor is free: whoever waits at the door, waits a little longer
            time.sleep(TICK)
            return
        socket = _socket.socket(fileno=fd)
        socket.setblocking(False)
        peer = socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, _ = CREDENTIALS.unpack(peer)
        if uid == os.geteuid():
            self._visitors.append(Visitor(socket, pid))
        else:
            socket.close()

    def _serve(self, visitor: Visitor) -> None:
        questions = visitor.questions()
        if questions is None:
            # First its bars: whoever sees that it is gone finds them at their end.
            for bar in visitor.bars.values():
                self._guarded(bar, bar.close)
            self._visitors.remove(visitor)
            visitor.socket.close()
            return
        for number, verb, *arguments in questions:
            try:
                VERBS[verb](self, visitor, *arguments)
                problem = None
            except Exception as error:  # the one who asks is told
                problem = f"{type(error).__name__}: {error}"
            visitor.answer(number, problem)

    def _dismiss(self) -> None:
        """Between questions: a bar that is being made is one that can be ended."""
        with self._guard:
            pids, self._dismissed = self._dismissed, set()
        for visitor in self._visitors:
            if visitor.pid in pids:
                visitor.is_welcome = False
                for bar in visitor.bars.values():
                    self._guarded(bar, bar.close)
        if pids:
            self._without_them.set()

    def _leave(self, wanted: bool) -> bool:
        """End the thread if there is nothing left to do."""
        with self._guard:
            if not self._ended:
                if self._all_bars() or (self._visitors and wanted):
                    return False
                for visitor in self._visitors:
                    visitor.socket.close()
                self._visitors.clear()
                behind = door.existing_door()
                if behind is not None:
                    behind.attend()
            self._thread = None
        self.light()
        return True

    # ---- drawing -----------------------------------------------------------------------------------------------------

    def _all_bars(self) -> list[Bar[Any]]:
        bars = [*self._bars, *(bar for visitor in list(self._visitors) for bar in visitor.bars.values())]
        return [bar for bar in bars if bar.is_drawn]

    def _draw(self) -> None:
        for bar in sorted(self._all_bars(), key=lambda bar: abs(bar.pos)):
            self._guarded(bar, bar.tick)
        for visitor in self._visitors:
            visitor.bars = {name: bar for name, bar in visitor.bars.items() if bar.is_drawn}
        self.light()

    def light(self) -> None:
        """Have others see whether there are bars that what they print would disturb."""
        behind = door.existing_door()
        if behind is not None:
            lit = any(bar.is_on_terminal for bar in self._all_bars())
            if behind.light(lit):
                speak_through("stderr", _say if lit else stderr_speaker())

    def _guarded(self, bar: Bar[Any], draw: Any) -> None:
        try:
            draw()
        except Exception:
            # Whatever is wrong with this bar (its file, its format), its owner meets it again in `close`, and can do
            # something about it. The other bars go on.
            bar.give_up()

    # ---- what others ask for -----------------------------------------------------------------------------------------

    def _show(self, visitor: Visitor, kind: str, parts: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A bar of theirs, to be drawn here."""
        from shoal.progress.travel import bar_class, remember

        if not visitor.is_welcome:
            return
        for relay in list(door.relays):
            mirror = relay.show(visitor, kind, parts, kwargs)
            if mirror is not None:
                visitor.bars[parts[0]] = mirror
                return
        shared = Shared(*parts)
        if kwargs.get("file") is not None:
            kwargs["file"] = getattr(sys, kwargs["file"])
        bar = visitor.bars[shared.name] = bar_class(kind).visiting(shared, kwargs)
        remember(bar)
        self.light()

    def _look(self, visitor: Visitor, name: bytes) -> None:
        """A bar has been closed there: of theirs, or of this process."""
        from shoal.progress.travel import known

        for relay in list(door.relays):
            relay.look()
        bar = known(name)
        if bar is not None and not bar.tick():
            visitor.bars.pop(name, None)
            self.light()

    def _write(self, visitor: Visitor, text: str, stream: str, end: str) -> None:
        """Text to be printed above the bars."""
        from shoal.progress.travel import bar_class

        if not any(relay.write(visitor, text, stream, end) for relay in list(door.relays)):
            bar_class("bar").write_here(text, stream, end)


def _say(data: bytes) -> bool:
    """Write what workers have written to their standard error. False: it can't be written here."""
    from shoal.progress.travel import bar_class

    if sys.stderr is None:
        return False
    # What comes before a carriage return would have been overwritten.
    lines = [line.rpartition("\r") for line in data.decode(errors="replace").removesuffix("\n").split("\n")]
    text = "\n".join(rest for _, drawn, rest in lines if rest or not drawn)
    if text or not any(drawn for _, drawn, _ in lines):
        bar_class("bar").write_here(text, "stderr", "\n")
    return True


VERBS: dict[str, Callable[..., None]] = {"show": Screen._show, "look": Screen._look, "write": Screen._write}

screen = Screen()
atexit.register(screen.end)
os.register_at_fork(
    before=screen.before_fork, after_in_parent=screen.after_fork_in_parent, after_in_child=screen.after_fork_in_child
)
