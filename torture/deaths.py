"""A hundred thousand deaths of workers in one client's life, and what is left of them: nothing.

    python -m torture.deaths [N]

Each task kills its worker, with something in hand: a shared array of its own, the client's lock, an item of a queue
half taken, half a result. Prints what the client and its zygote take of the machine every N / 20 deaths, and exits with
1 if that has grown since the first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import shoal

from .ledger import HEADER, Balance, balance

WORKERS = 2
IN_FLIGHT = 8
ROWS = 20
# KiB that the allocators of C and Python may take for reasons of their own, however many die.
SLACK = 4096


@dataclass(frozen=True)
class Row:
    """How things stand after so many deaths and seconds."""

    deaths: int
    seconds: float
    balance: Balance


def die(lock: shoal.Lock, queue: shoal.Queue, given: np.ndarray, way: int) -> None:
    """End this worker, with something in hand."""
    made = shoal.array(given)
    if way == 1:
        lock.acquire()
    elif way == 2:
        queue.put((made, bytes(2000)))
        queue.get()
    elif way == 3:
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def suffer(count: int, rows: int = ROWS) -> Iterator[Row]:
    """Has workers die `count` times at tasks of one pool; a row each `count / rows` deaths.

    Raises:
        AssertionError: a task ended otherwise than by its worker's death, or the pool does not work any more.
    """
    lock, queue, given = shoal.Lock(), shoal.Queue(), np.arange(1000.0)
    shared = shoal.zeros(100_000)
    started = time.monotonic()
    # What a worker would import for its one task is there before it is forked.
    with shoal.Pool(WORKERS, preload=("numpy", "torture.ledger")) as pool:
        sent, flight = 0, deque()
        for deaths in range(1, count + 1):
            while sent < count and len(flight) < IN_FLIGHT:
                flight.append((sent % 4, pool.apply_async(die, (lock, queue, given if sent % 8 else shared, sent % 4))))
                sent += 1
            way, result = flight.popleft()
            try:
                ended = result.get()
            except shoal.WorkerDied as death:
                ended = death.exitcode
            assert ended == (3 if way == 3 else -signal.SIGKILL), f"death {deaths} ended in {ended!r}"
            if deaths % max(1, count // rows) == 0:
                assert pool.apply(np.sum, (given,)) == given.sum()
                yield Row(deaths, time.monotonic() - started, balance())


def growth(first: Balance, last: Balance) -> list[str]:
    """What has grown; nothing, if all is well."""
    # A worker more or less may be on its way at the moment of a look, with some descriptors.
    room = {"descriptors": 12, "private": SLACK, "zygote": SLACK, "segments": 8, "shared": 16 * 1024, "leases": 16}
    return [
        f"{name}: {getattr(first, name)} → {getattr(last, name)}"
        for name, most in room.items()
        if getattr(last, name) > getattr(first, name) + most
    ]


def main() -> int:
    """Prints the table; returns the exit status."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seen: list[Balance] = []
    print(f"  deaths  seconds{HEADER}", flush=True)
    for row in suffer(count):
        print(f"{row.deaths:>8}  {row.seconds:>7.1f}{row.balance}", flush=True)
        seen.append(row.balance)
    grown = growth(seen[0], seen[-1])
    print("\n".join(("grown:", *grown)) if grown else "nothing has grown")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
