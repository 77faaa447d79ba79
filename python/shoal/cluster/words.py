"""What tasks print: line by line from a node's workers to the client, whose own stdout and stderr it appears on.

    worker: sys.stdout ──▶ a shoal.SimpleQueue of the node ──▶ message to the client ──▶ its sys.stdout

What is written past Python, to the descriptors, stays where the Dask worker's own output goes. So does stderr as well:
the error of a worker's death quotes it from there.
"""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from shoal.progress.door import above_bars, door

__all__ = ["Printer", "listen", "speak"]

# Characters that a line may have before it is passed on in parts.
_LONGEST = 64 << 10


class _Lines(io.TextIOBase):
    """A text stream whose lines go to a queue."""

    encoding = "utf-8"

    def __init__(self, number: int, original: Any, words: Any) -> None:
        self._number, self._original, self._words = number, original, words
        self._open = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """As of any text stream."""
        if self._number == 2 and self._original is not None:
            self._original.write(text)
        with self._lock:
            lines, newline, self._open = (self._open + text).rpartition("\n")
            if len(self._open) > _LONGEST:
                lines, newline, self._open = lines + newline + self._open, "", ""
        if lines or newline:
            self._words.put((self._number, lines + newline))
        return len(text)

    def flush(self) -> None:
        """As of any text stream: also what is no whole line yet."""
        with self._lock:
            text, self._open = self._open, ""
        if text:
            self._words.put((self._number, text))
        if self._original is not None:
            self._original.flush()

    def writable(self) -> bool:
        """As of any text stream."""
        return True

    def fileno(self) -> int:
        """The descriptor, for what writes past Python."""
        return int(self._original.fileno())


def speak(words: Any) -> None:
    """In a worker: have what is printed go to this queue."""
    sys.stdout = _Lines(1, sys.stdout, words)
    sys.stderr = _Lines(2, sys.stderr, words)


def listen(words: Any, told: Callable[[list[tuple[int, str]]], object]) -> None:
    """On a node: tell what comes to the queue, until it is shut down."""
    from shoal.queues import ShutDown

    while True:
        try:
            told(words.get_many())
        except ShutDown:
            return


class Printer:
    """In the client: prints, in a thread of its own, as the program's stdout may take its time."""

    def __init__(self) -> None:
        self._words: queue.SimpleQueue[list[tuple[int, str]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def say(self, words: list[tuple[int, str]]) -> None:
        """Print this; does not wait."""
        self._words.put(words)
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._print, name="shoal-words", daemon=True).start()

    def _print(self) -> None:
        while True:
            for number, text in self._words.get():
                stream = sys.stdout if number == 1 else sys.stderr
                if stream is not None:
                    if "shoal.progress.screen" in sys.modules:
                        door()  # it knows whether there are bars
                    with above_bars():
                        stream.write(text)
                        stream.flush()
