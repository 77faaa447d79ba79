"""Patience, and a look at processes from outside."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil


def eventually(condition: Callable[[], object], within: float = 60.0) -> bool:
    """Waits until the condition holds; tells whether it did. The limit is generous: only a failing test meets it."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ended(process: psutil.Process) -> bool:
    """Tells whether a process is gone, or only waits for someone to take note of its end."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def client(source: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts a program, leader of a process group of its own, and waits until it has created the file `ready`."""
    script = directory / "client.py"
    script.write_text(textwrap.dedent(source))
    program = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        ready = eventually(lambda: (directory / "ready").exists() or program.poll() is not None)
        assert ready and program.poll() is None, f"the client did not get ready: {program.communicate(timeout=1)}"
        yield program
    finally:
        program.kill()
        program.communicate()
