"""What `shoal run --stats` prints at the end: which worker of which pool ran how many tasks, and for how long."""

import atexit
import sys

from shoal import _engine, pool


def collect() -> None:
    """Remember the pools that are made from now on, and print what they did when the program ends."""
    made: list[_engine.PoolBase] = []
    pool._made = made
    # Registered after the pools' own end, so called before it.
    atexit.register(_print, made)


def _print(made: list[_engine.PoolBase]) -> None:
    for number, base in enumerate(made, 1):
        print(f"shoal: pool {number} of {base.size} workers", file=sys.stderr)
        for worker in base.workers:
            print(
                f"  worker {worker.number} ran {worker.tasks} tasks in {worker.busy:.3f} s (process {worker.pid})",
                file=sys.stderr,
            )
