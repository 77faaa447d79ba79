"""What data costs in memory: one array for many workers, temporaries, and a long run of all sizes."""

import collections
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import PEERS, SHOAL
from shoal.bench.sessions import Session, Unsupported

from .memory_tasks import chain, checked_reply, sum_and_hold

GIGABYTE = 1_000_000_000
READERS = 8
# What a tool may need at a time that copies for each worker, on its way and there.
MOST_COPIES = 2 * READERS + 3
ARRIVAL_S = 200

LARGEST, USUAL_LARGEST = 200_000_000, 1_000_000
FIRST = 100
SEED = 5


def resident() -> int:
    """Bytes of this process and all below it; a page that several share counts once (PSS)."""
    here = psutil.Process()
    return sum(process.memory_full_info().pss for process in (here, *here.children(recursive=True)))


def _read_by_all(session: Session, array: Any) -> int:
    """The memory in use while eight workers hold an array that each of them has read."""
    answers: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def ask() -> None:
            answers.extend(session.common(partial(sum_and_hold, folder), array, range(READERS), 1))

        def arrived() -> int:
            return len(list(Path(folder).glob("read-*")))

        asking = threading.Thread(target=ask)
        asking.start()
        end = time.monotonic() + ARRIVAL_S
        while arrived() < READERS and time.monotonic() < end and asking.is_alive():
            time.sleep(0.02)
        readers, found = arrived(), resident()
        (Path(folder) / "gate").touch()
        asking.join()
    if readers < READERS or answers != [array.size + 1.0] * READERS:
        raise RuntimeError(f"{readers} of {READERS} tasks held the array at a time; their answers were {answers}")
    return found


def _more(contender: str, make: Callable[[int], Any], size: int) -> float:
    """How much more memory is in use, in sizes of the array, than with warm workers and the array made."""
    if psutil.virtual_memory().available < MOST_COPIES * size:
        raise Unsupported(f"copies for {READERS} workers might not fit into the memory that is free")
    with PEERS[contender].session(READERS) as session:
        _read_by_all(session, make(1_000))  # every worker has imported what it needs
        array = make(size // 8)
        before = resident()
        return (_read_by_all(session, array) - before) / size


def _plain(contender: str, scale: Scale) -> tuple[float]:
    # Tools that copy get a quarter of it, times four.
    full = GIGABYTE if contender == SHOAL else GIGABYTE // 4
    return (_more(contender, np.ones, scale.pick(full, GIGABYTE // 20)),)


def _shared(contender: str, scale: Scale) -> tuple[float]:
    import shoal

    return (_more(contender, shoal.ones, scale.pick(GIGABYTE, GIGABYTE // 20)),)


def _temporaries(contender: str, scale: Scale) -> tuple[float]:
    """Milliseconds of `array * 0.5 + 1` over 8 MB: two temporaries, one task at a time."""
    turns = scale.pick(100, 20)
    with PEERS[contender].session(WORKERS) as session:
        session.call(chain, turns)
        return (statistics.median(session.call(chain, turns) for _ in range(scale.pick(15, 3))) / turns * 1e3,)


def sizes(calls: int, largest: int) -> list[tuple[int, int]]:
    """Sizes of arguments and results, log-uniform: one call in ten up to the largest, the others up to 1 MB.

    The largest ones come at once, so that the first hundred calls have needed as much memory as any later ones can.
    """
    rng = random.Random(SEED)

    def drawn() -> int:
        most = largest if rng.random() < 0.1 else min(USUAL_LARGEST, largest)
        return int(most ** rng.random())

    return [(largest, largest)] * (2 * WORKERS) + [(drawn(), drawn()) for _ in range(calls - 2 * WORKERS)]


def _long_run(contender: str, scale: Scale) -> tuple[float | None, float, float, float]:
    """Memory at the end of many calls over that after the first hundred: counted by shoal, and resident (PSS)."""
    import shoal

    largest = scale.pick(LARGEST, LARGEST // 10)
    # Peers are slower, and their memory is nobody's promise: a fiftieth of the calls.
    calls = scale.pick(100_000 if contender == SHOAL else 2_000, 2_000 if contender == SHOAL else 400)
    content = np.empty(largest, np.uint8)
    content[:] = 1
    found: list[tuple[int, int]] = []

    def look() -> None:
        found.append((shoal.memory().bytes if contender == SHOAL else 0, resident()))

    with PEERS[contender].session(WORKERS) as session:
        flight: collections.deque[tuple[int, int, Any]] = collections.deque()

        def take() -> None:
            mark, size, handle = flight.popleft()
            answer = handle.get()
            if answer.size != size or answer[0] != mark or answer[-1] != mark:
                raise RuntimeError(f"a result of {size} bytes of {mark} came back as {answer}")

        started = time.perf_counter()
        for number, (given, wanted) in enumerate(sizes(calls, largest)):
            if number == FIRST:
                while flight:
                    take()
                look()
            mark = number % 251
            array = content[:given].copy()
            array[0] = array[-1] = mark
            flight.append((mark, wanted, session.submit(checked_reply, [(array, mark, wanted)])[0]))
            del array
            if len(flight) == WORKERS:
                take()
        while flight:
            take()
        elapsed = time.perf_counter() - started
        look()
    (counted, pages), (counted_end, pages_end) = found
    return counted_end / counted if counted else None, pages_end / pages, pages_end / 1e9, calls / elapsed / 1e3


MEASUREMENTS = (
    Measurement(
        (
            Figure(
                "memory-one-array",
                f"a plain 1 GB array, read by {READERS} workers: memory more (PSS)",
                "GB",
                False,
                1.05,
            ),
        ),
        _plain,
        rounds=1,
        contenders=(SHOAL, "multiprocessing", "joblib"),
    ),
    Measurement(
        (Figure("memory-shared-array", "  a shoal.array of 1 GB", "GB", False, 0.05),),
        _shared,
        rounds=1,
        contenders=(SHOAL,),
    ),
    Measurement(
        (Figure("temporaries", "a * 0.5 + 1 over 8 MB in a task", "ms", False),),
        _temporaries,
        rounds=3,
        contenders=(SHOAL, "multiprocessing", "joblib", "threads"),
    ),
    Measurement(
        (
            Figure("long-run", "100 000 calls of all sizes: shoal.memory() at the end : after 100", "×", False, 1.0),
            Figure("long-run-resident", "  resident memory (PSS) at the end : after 100", "×", False, 1.05),
            Figure("long-run-gigabytes", "  resident memory at the end", "GB", False),
            Figure("long-run-rate", "  calls", "k/s", True),
        ),
        _long_run,
        rounds=1,
        contenders=(SHOAL, "multiprocessing"),
    ),
)
