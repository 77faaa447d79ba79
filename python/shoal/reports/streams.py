"""Standard output and error of workers.

A worker's standard error is a pipe, whose lines the engine passes on to the client's. Its standard output mostly is one
as well; but if the client prints to a terminal, it is that terminal: what is written there appears at once, in order,
and is known to be for a terminal.
"""

from __future__ import annotations

import io
import os
import sys

from shoal._engine import speak_through
from shoal.progress.door import above_bars, existing_door

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._engine import Reporter

__all__ = ["listen", "prepare", "settle", "stderr_speaker", "way_of"]


# ---- in the client ---------------------------------------------------------------------------------------------------


def way_of(output: bool) -> str:
    """What becomes of what workers print, in the engine's words."""
    if not output:
        return "unheard"
    return "shared" if sys.stdout is not None and _is_own(sys.stdout, 1) and sys.stdout.isatty() else "forwarded"


def listen() -> None:
    """Print what workers print."""
    speak_through("stdout", _print)
    door = existing_door()
    if door is None or not door.is_lit:
        speak_through("stderr", stderr_speaker())


def stderr_speaker() -> Callable[[bytes], bool] | None:
    """Who writes what workers write to their standard error; None if the engine does, to this process's own."""
    return None if _is_own(sys.stderr, 2) else _print_error


def _is_own(stream: Any, fd: int) -> bool:
    """Whether it is this process's own, not one that a notebook or a test has put in its place."""
    own = sys.__stdout__ if fd == 1 else sys.__stderr__
    if own is None or stream is not own:
        return False
    try:
        return own.fileno() == fd
    except (OSError, ValueError):  # closed, or not of a file
        return False


def _print(data: bytes) -> bool:
    stdout = sys.stdout
    if stdout is not None and _is_own(stdout, 1) and stdout.isatty():
        # Of another machine, as workers of this one write to the terminal themselves. It may show bars.
        with above_bars():
            return _write(stdout, 1, data)
    return _write(stdout, 1, data)


def _print_error(data: bytes) -> bool:
    return _write(sys.stderr, 2, data)


def _write(stream: Any, fd: int, data: bytes) -> bool:
    """Write whole lines. False: it can't be done here."""
    if stream is None:  # nobody hears what this process prints, either
        return True
    try:
        if _is_own(stream, fd) and hasattr(stream, "buffer"):
            stream.flush()
            stream.buffer.write(data)
        else:
            stream.write(data.decode(errors="replace"))
        stream.flush()
    except (OSError, ValueError):  # nobody reads it any more, or it was closed
        return False
    return True


# ---- in a worker -----------------------------------------------------------------------------------------------------


class _Noted(io.FileIO):
    """A file whose every write the client is to have heard of before it has the task's result."""

    spoke: Callable[[], object] = staticmethod(lambda: None)

    def write(self, data: Any) -> Any:
        """As `FileIO.write`."""
        count = super().write(data)
        self.spoke()
        return count


_noted: dict[str, _Noted] = {}


def prepare() -> None:
    """In the zygote, once for all its workers: what they print goes out line by line, so who is killed has said it."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        # None: it was closed when this interpreter began. The engine has opened it since, on the null device.
        encoding, errors = ("utf-8", "backslashreplace") if old is None else (old.encoding, old.errors)
        raw = _noted[name] = _Noted(fd, "w", closefd=False)
        raw.name = f"<{name}>"
        new = io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True)
        new.mode = "w"  # type: ignore[misc]  # as the interpreter does with its own
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def settle(reporter: Reporter, way: str) -> None:
    """In a worker: results come after what it has printed, unless it prints to the client's terminal itself."""
    if way == "unheard":
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    for name, raw in _noted.items():
        if name == "stderr" or way == "forwarded":
            raw.spoke = reporter.spoke
