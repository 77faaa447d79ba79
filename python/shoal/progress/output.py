"""What a worker prints, while its client shows bars on the terminal that both write to.

A line in the midst of the bars tears them. So as long as there are bars, whole lines go to the screen that draws them,
and it prints them above. Without bars, text goes its usual way.
"""

from __future__ import annotations

import atexit
import sys
import threading

from shoal.progress.door import Address
from shoal.progress.line import line_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

__all__ = ["Lines", "install"]


def install(address: Address) -> None:
    """Have what this worker prints to a terminal from now on not tear the bars of the screen at `address`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty():
            lines = Lines(stream, name, address)
            setattr(sys, name, lines)
            atexit.register(lines.end)


class Lines:
    """A standard stream that prints above the bars. In all else it is the stream that it stands for."""

    def __init__(self, stream: TextIO, name: str, address: Address) -> None:
        self._stream, self._name, self._address = stream, name, address
        self._lock = threading.RLock()
        self._rest = ""  # of a line that has no end yet

    def write(self, text: str) -> int:
        """As `TextIO.write`."""
        with self._lock:
            if not self._address.is_lit:
                self._write_rest()
                return self._stream.write(text)
            lines, end, rest = (self._rest + text).rpartition("\n")
            # What comes before a carriage return would have been overwritten.
            self._rest = rest.rpartition("\r")[2]
            if end:
                self._print(lines)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """As `TextIO.writelines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As `TextIO.flush`; a line that has no end yet waits for it while there are bars."""
        with self._lock:
            if not self._address.is_lit:
                self._write_rest()
        self._stream.flush()

    def end(self) -> None:
        """The process ends: what is left is a line."""
        with self._lock:
            if self._rest and self._address.is_lit:
                self._print(self._rest)
                self._rest = ""
            self._write_rest()

    def _print(self, lines: str) -> None:
        if not line_to(self._address).ask("write", lines, self._name, "\n"):
            self._stream.write(lines + "\n")
            self._stream.flush()

    def _write_rest(self) -> None:
        rest, self._rest = self._rest, ""
        if rest:
            self._stream.write(rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __reduce__(self) -> Any:
        return _standard_stream, (self._name,)

    def __iter__(self) -> Any:
        return iter(self._stream)


def _standard_stream(name: str) -> Any:
    """That of the process where it arrives."""
    return getattr(sys, name)
