"""A program with pools, to be looked at from outside: it does what it is told on its standard input."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence

SOURCE = textwrap.dedent(
    """
    import os, sys
    import numpy as np
    import shoal

    def wait_for(gate, *data):
        gate.wait()

    gate = shoal.Event()
    data = shoal.zeros(500_000)
    pool = shoal.Pool(2)
    pool.map(abs, range(2))
    tasks = []
    print("ready", flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "submit":
            tasks += [pool.submit(wait_for, gate, data) for _ in range(int(argument))]
        elif command == "finish":
            gate.set()
            [task.result() for task in tasks]
        elif command == "close":
            pool.close()
            pool.join()
        print(command, flush=True)
    """
)


class Program:
    """The program, once it has its pool.

    Attributes:
        pid: its process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._hears("ready")

    def do(self, command: str) -> None:
        """Gives a command and waits until it is done: "submit N" tasks that wait, "finish" them, "close" the pool."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self._hears(command.split()[0])

    def _hears(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"


@contextlib.contextmanager
def program(before: Sequence[str] = ()) -> Iterator[Program]:
    """Starts it; it is gone at the end. `before`: a command that starts it."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", SOURCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()
