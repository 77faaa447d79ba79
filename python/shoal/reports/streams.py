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
from shoal.progress.door import existing_door

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._engine import Reporter

__all__ = ["listen", "settle", "stderr_speaker", "way_of"]


# ---- in the client ---------------------------------------------------------------------------------------------------


def way_of(output: bool) -> str:
    """What becomes of what workers print, in the engine's words."""
    if not output:
        return "unheard"
    at_terminal = sys.stdout is None or (_is_own(sys.stdout, 1) and sys.stdout.isatty())
    return "shared" if at_terminal else "forwarded"


def listen() -> None:
    """Print what workers print."""
    speak_through("stdout", _print)
    door = existing_door()
    if door is None or not door.is_lit:
        speak_through("stderr", stderr_speaker())


def stderr_speaker() -> Callable[[bytes], bool] | None:
    """Who writes what workers write to their standard error; None if the engine does, to this process's own."""
    return None if sys.stderr is None or _is_own(sys.stderr, 2) else _print_error


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
    return _write(sys.stdout, 1, data)


def _print_error(data: bytes) -> bool:
    return _write(sys.stderr, 2, data)


def _write(stream: Any, fd: int, data: bytes) -> bool:
    """Write whole lines. False: it can't be done here."""
    if stream is None:
        return False
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

    def __init__(self, fd: int, name: str, spoke: Callable[[], None]) -> None:
        super().__init__(fd, "w", closefd=False)
        self.name = name
        self._spoke = spoke

    def write(self, data: Any) -> Any:
        """As `FileIO.write`."""
        count = super().write(data)
        self._spoke()
        return count


def settle(reporter: Reporter, way: str) -> None:
    """What this worker prints goes out line by line: who is killed has said what it said."""
    if way == "unheard":
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    names = ["stderr"] if way == "shared" and os.isatty(1) else ["stdout", "stderr"]
    for name in names:
        old = getattr(sys, name)
        if old is not None:
            raw = _Noted(1 if name == "stdout" else 2, f"<{name}>", reporter.spoke)
            new = io.TextIOWrapper(
                io.BufferedWriter(raw), encoding=old.encoding, errors=old.errors, line_buffering=True
            )
            new.mode = "w"  # type: ignore[misc]  # as the interpreter does with its own
            setattr(sys, name, new)
            setattr(sys, f"__{name}__", new)
