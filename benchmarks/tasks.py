"""What the workers run: an ordinary module, because most tools import a task's function by name."""

import os
import sys
import time


def noop(item: int) -> int:
    """Does nothing: all that is measured is the way there and back."""
    return item


def spin(count: int) -> int:
    """Works for `count` turns of a loop. Counted, not clocked: a core that is shared with others takes longer."""
    for _ in range(count):
        pass
    return count


def hold(gate: str) -> None:
    """Keeps a worker until the file `gate` exists. A file, because every tool's workers can see one."""
    while not os.path.exists(gate):
        time.sleep(0.002)


def bare() -> None:
    """The main program of a process without any pool: says ready, reads counts, prints the seconds they took."""
    print("ready", flush=True)
    counts = [int(count) for count in sys.stdin.readline().split()]
    started = time.perf_counter()
    for count in counts:
        spin(count)
    print(time.perf_counter() - started, flush=True)
