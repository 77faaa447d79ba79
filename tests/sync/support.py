"""Other processes that are given things: killed at a word, and strangers that only got bytes."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import shoal
from tests.pool.support import eventually

# A program that is given `things` and says how far it has come.
_FRAME = """
import pickle, sys, threading, time
import shoal
things, reached = pickle.load(sys.stdin.buffer)
"""


class Stranger:
    """A process that was started by itself and got the pickled things through its standard input."""

    def __init__(self, program: str, things: Any) -> None:
        self._reached = shoal.Counter()
        source = _FRAME + textwrap.dedent(program)
        self._process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(pickle.dumps((things, self._reached)))
        self._process.stdin.close()

    def reaches(self, point: int = 1) -> None:
        """Waits until it has called `reached.add()` so many times."""
        ready = eventually(lambda: self._reached.value >= point or self._process.poll() is not None)
        assert ready and self._process.poll() is None, f"it ended before: {self._process.returncode}"

    def kill(self) -> None:
        """Kills it, and waits until it is gone."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ends(self) -> int:
        """Waits until it ends by itself; its exit code."""
        return self._process.wait(150)

    def stop(self) -> None:
        """Ends it in any case."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def stranger(program: str, things: Any) -> Iterator[Stranger]:
    """Runs a program in which `things` are what is given here, and `reached.add()` tells how far it is."""
    process = Stranger(program, things)
    try:
        yield process
    finally:
        process.stop()


def killed_in(program: str, things: Any, point: int = 1) -> None:
    """Runs such a program until it has reached a point, and kills it there."""
    with stranger(program + "\ntime.sleep(500)", things) as process:
        process.reaches(point)
        process.kill()


def interrupted(wait: str) -> str:
    """Runs `wait`, some statements, in a process that gets a Ctrl-C while it waits; what it printed."""
    program = f"""
import os, shoal, signal, sys, threading
def interrupt():
    threading.Event().wait(0.2)
    os.kill(os.getpid(), signal.SIGINT)
try:
    threading.Thread(target=interrupt).start()
{textwrap.indent(textwrap.dedent(wait).strip(), "    ")}
except KeyboardInterrupt:
    print("interrupted")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150)
    assert (result.stderr, result.returncode) == ("", 0)
    return result.stdout.strip()


@contextlib.contextmanager
def threads(count: int, act: Callable[[], Any]) -> Iterator[list[Any]]:
    """Threads that run `act`; ended at the end of the block, when the list has what it returned or raised."""
    import threading

    results: list[Any] = []

    def run() -> None:
        try:
            results.append(act())
        except Exception as error:
            results.append(error)

    running = [threading.Thread(target=run) for _ in range(count)]
    for thread in running:
        thread.start()
    yield results
    for thread in running:
        thread.join(150)
    assert not any(thread.is_alive() for thread in running)
