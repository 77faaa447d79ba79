"""A terminal for programs: runs them on a pseudo-terminal, and tells what is to be seen on it."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte

from tests.pool.support import eventually


class Terminal:
    """A terminal of 24 lines of 80 characters, with a program on it.

    Attributes:
        program: the process.
    """

    def __init__(self, program: subprocess.Popen[bytes], master: int) -> None:
        self.program = program
        self._master = master
        self._screen = pyte.HistoryScreen(80, 24, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self._guard = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        """What is on it, from the first line that was ever written: without the empty lines at the end."""
        with self._guard:
            return self._lines()

    def shows(self, what: Callable[[list[str]], object]) -> bool:
        """Waits until the lines are as wanted; tells whether they were."""
        return eventually(lambda: what(self.lines))

    def press(self, keys: str) -> None:
        """Types something."""
        os.write(self._master, keys.encode())

    def end(self) -> list[str]:
        """Waits until the program has ended, without an error; the lines that it leaves."""
        code = self.program.wait(timeout=150)
        self._reader.join(timeout=150)
        assert code == 0, "\n".join(self.lines)
        return self.lines

    def close(self) -> None:
        """Lets go of it when nobody has it open any more: the number of its descriptor may soon be another's."""
        self._reader.join(timeout=100)
        assert not self._reader.is_alive(), "a process that the program has started is still there"
        os.close(self._master)

    def _lines(self) -> list[str]:
        gone = ["".join(line[at].data for at in range(80)).rstrip() for line in self._screen.history.top]
        lines = [*gone, *(line.rstrip() for line in self._screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _read(self) -> None:
        # The end of a terminal that nobody has open any more is an error.
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                with self._guard:
                    self._stream.feed(data)


def seen(written: str) -> list[str]:
    """What is to be seen of it on a wide terminal: without the empty lines at the end."""
    screen = pyte.Screen(400, 100)
    pyte.Stream(screen).feed(written.replace("\n", "\r\n"))
    lines = [line.rstrip() for line in screen.display]
    while lines and not lines[-1]:
        lines.pop()
    return lines


@contextlib.contextmanager
def on_terminal(source: str, directory: Path) -> Iterator[Terminal]:
    """Starts a program on a terminal."""
    script = directory / "program.py"
    script.write_text(textwrap.dedent(source))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # The terminal itself would show what is typed, wherever the cursor is at that moment.
    attributes = termios.tcgetattr(slave)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    program = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=directory,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is its own
    )
    os.close(slave)
    terminal = Terminal(program, master)
    try:
        yield terminal
    finally:
        program.kill()
        program.wait()
        terminal.close()
