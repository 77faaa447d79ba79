"""A process on the other side: it loads a call, makes it, and sends back what came of it.

Run as a program it is that process. It shares nothing with the one that started it but what pickles carry.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any

from shoal.serialize import dump_exception, dumps, load_exception, loads


class Peer:
    """A handle of the other process, ended by leaving the `with` block."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """What `function(*args)` returns or raises over there."""
        return self.run(dumps((function, args)))

    def run(self, call: bytes) -> Any:
        """The same for a call that is pickled already."""
        assert self._process.stdin and self._process.stdout
        _write(self._process.stdin, call)
        outcome = _read(self._process.stdout)
        if outcome[:1] == b"!":
            raise load_exception(outcome[1:])
        return loads(outcome[1:])

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(len(data).to_bytes(8, "little") + data)
    file.flush()


def _read(file: IO[bytes]) -> bytes:
    return file.read(int.from_bytes(file.read(8), "little"))


def _serve() -> None:
    while call := _read(sys.stdin.buffer):
        try:
            made: Any = loads(call)
            function, args = made
            outcome = b"=" + dumps(function(*args))
        except BaseException as exc:
            outcome = b"!" + dump_exception(exc)
        _write(sys.stdout.buffer, outcome)


if __name__ == "__main__":
    _serve()
