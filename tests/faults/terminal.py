"""A program at a terminal of its own, as a user sits before it."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

# As long as it may take on a busy machine; only a failing test meets it.
PATIENCE = 60.0


class Terminal:
    """What is typed, and what appears."""

    def __init__(self, program: subprocess.Popen[bytes], master: int) -> None:
        self.program, self._master, self.text = program, master, ""
        # Whether nobody has it open any more.
        self._is_left = False

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def reads(self, text: str) -> str:
        """Wait until `text` appears; what appeared up to then, which is taken away."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} does not appear: {self.text!r}"
            assert self._read(0.1) or self.program.poll() is None, f"it ended without {text!r}: {self.text!r}"
        seen, _, self.text = self.text.partition(text)
        return seen + text

    def rest(self) -> str:
        """Wait until the program and all that it has started have ended; all that appeared."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_left:
            assert time.monotonic() < deadline, f"it does not end: {self.text!r}"
            self._read(0.1)
        self.program.wait(PATIENCE)
        return self.text

    def hang_up(self) -> None:
        """As when the window is closed, or the connection lost."""
        os.close(self._master)
        self._master = -1

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            self._is_left = True
            return False
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def close(self) -> None:
        if self._master >= 0:
            self.hang_up()
        self.program.kill()
        self.program.wait()


@contextlib.contextmanager
def terminal(*arguments: str, directory: Path) -> Iterator[Terminal]:
    """Starts Python with these arguments, alone at a new terminal."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1"}
    program = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=directory,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        # Leads a session, and opens the terminal, which makes it the session's own.
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(slave)
    shown = Terminal(program, master)
    try:
        yield shown
    finally:
        shown.close()


def family(pid: int) -> list[psutil.Process]:
    """All that a program has started, and what that has."""
    return psutil.Process(pid).children(recursive=True)


def memory_of(pids: list[int]) -> set[int]:
    """The memory files that processes have open or mapped, by their inodes."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if "/memfd:" in line:
                    found.add(int(line.split()[4]))
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    path = f"/proc/{pid}/fd/{name}"
                    if os.readlink(path).startswith("/memfd:"):
                        found.add(os.stat(path).st_ino)
    return found


def is_held(memory: set[int]) -> bool:
    """Whether any process of the machine still has some of it."""
    return bool(memory & memory_of([int(name) for name in os.listdir("/proc") if name.isdecimal()]))
