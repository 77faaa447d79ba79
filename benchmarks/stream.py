"""Results one by one from an input without an end: how many a second, and what waits for a slow consumer."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import PEERS, SHOAL
from shoal.bench.tasks import noop

# multiprocessing once as it is by default, and once as its users make it fast.
CONTENDERS = (SHOAL, "multiprocessing", "multiprocessing chunks of 100")
ARRAY_MB = 1


def _numbers(count: int) -> Iterator[int]:
    yield from range(count)


def _rate(contender: str, scale: Scale, inputs: Callable[[int], Any]) -> float:
    """Millions of results a second that a loop takes."""
    options = {"chunksize": 100} if contender.endswith("chunks of 100") else {}
    count = scale.pick(2_000_000, 200_000)
    if contender == "multiprocessing":
        count //= 20
    with PEERS[contender.split()[0]].session(WORKERS) as session:
        pool = session.pool  # type: ignore[attr-defined]
        pool.map(noop, range(1000))
        started = time.perf_counter()
        taken = sum(1 for _ in pool.imap(noop, inputs(count), **options))
        return taken / (time.perf_counter() - started) / 1e6


def _throughput(contender: str, scale: Scale) -> tuple[float, float]:
    return _rate(contender, scale, range), _rate(contender, scale, _numbers)


def _arrays() -> Iterator[Any]:
    for number in itertools.count():
        yield np.full(ARRAY_MB << 17, float(number))


def _slow_consumer(_: str, scale: Scale) -> tuple[float]:
    """MB of shared memory that an endless stream has taken after a while."""
    import shoal

    with shoal.Pool(WORKERS) as pool:
        for _ in itertools.islice(pool.imap(noop, _arrays()), scale.pick(2000, 200)):
            time.sleep(0.002)
        return (shoal.memory().bytes / 2**20,)


MEASUREMENTS = (
    Measurement(
        (
            Figure("imap", "imap of no-ops, in order", "M/s", True, 1),
            Figure("imap-generator", "  from a generator", "M/s", True),
        ),
        _throughput,
        rounds=3,
        contenders=CONTENDERS,
    ),
    Measurement(
        (Figure("imap-slow", f"endless stream of {ARRAY_MB} MB arrays, slow consumer", "MB", False, 256),),
        _slow_consumer,
        rounds=1,
        contenders=(SHOAL,),
    ),
)
