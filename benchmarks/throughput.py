"""How many small tasks go through, and what a million of them in the queue costs."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .harness import WORKERS, Figure, Measurement, Scale
from .memory import resident
from .peers import PEERS, SHOAL
from .sessions import Session, Unsupported
from .tasks import hold, noop

# A tool that would need longer for all tasks is given as many as it does in this time: a rate is a rate.
MOST_SECONDS = 2.0
MANY_WORKERS = 64


def rate(run: Callable[[int], object], count: int) -> float:
    """Tasks a second, after a warm-up with a part of them that also tells how many fit the time."""
    tried = max(count // 50, 100)
    run(tried)
    started = time.perf_counter()
    run(tried)
    seconds = time.perf_counter() - started
    count = max(min(count, int(tried * MOST_SECONDS / seconds)), tried)
    started = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - started)


def _map_rate(session: Session, count: int, chunksize: int | None) -> float:
    return rate(lambda part: session.map(noop, range(part), chunksize), count)


def _one_by_one(contender: str, scale: Scale) -> tuple[float]:
    with PEERS[contender].session(WORKERS) as session:

        def run(count: int) -> None:
            try:
                session.gather(session.submit(noop, range(count)))
            except Unsupported:  # joblib: all in one call, in batches
                session.map(noop, range(count), None)

        return (rate(run, scale.pick(50_000, 2_000)) / 1e3,)


def _chunks_of_one(contender: str, scale: Scale) -> tuple[float]:
    with PEERS[contender].session(WORKERS) as session:
        return (_map_rate(session, scale.pick(200_000, 5_000), 1) / 1e3,)


def _default_chunks(contender: str, scale: Scale) -> tuple[float]:
    with PEERS[contender].session(WORKERS) as session:
        return (_map_rate(session, scale.pick(1_000_000, 50_000), None) / 1e6,)


def _many_workers(contender: str, scale: Scale) -> tuple[float]:
    rates = []
    for workers in (WORKERS, MANY_WORKERS):
        with PEERS[contender].session(workers) as session:
            rates.append(_map_rate(session, scale.pick(1_000_000, 3_000), 1))
    return (rates[1] / rates[0],)


def _queued(contender: str, scale: Scale) -> tuple[float, float]:
    """Seconds for a million tasks, and bytes of each while all wait. Peers are given a tenth of them, times ten."""
    count = scale.pick(1_000_000, 20_000) // (1 if contender == SHOAL else 10)
    with tempfile.TemporaryDirectory() as folder, PEERS[contender].session(WORKERS) as session:
        gate = Path(folder) / "gate"
        session.gather(session.submit(noop, range(1_000)))
        held = session.submit(hold, [str(gate)] * WORKERS)
        before = resident()
        started = time.perf_counter()
        handles = session.submit(noop, range(count))
        submitted = time.perf_counter() - started
        each = (resident() - before) / count
        started = time.perf_counter()
        gate.touch()
        session.gather(held)
        session.gather(handles)
        drained = time.perf_counter() - started
    return (submitted + drained) * 1_000_000 / count, each


MEASUREMENTS = (
    Measurement((Figure("one-by-one", "tasks submitted one by one", "k/s", True, 350),), _one_by_one),
    Measurement((Figure("map-1", "map, chunksize 1", "k/s", True, 600),), _chunks_of_one),
    Measurement((Figure("map-default", "map, default chunks, 1 M items", "M/s", True, 9),), _default_chunks),
    Measurement(
        (
            Figure("queued", "1 M queued no-op tasks", "s", False, 4),
            Figure("queued-bytes", "  each of them in memory", "B", False, 250),
        ),
        _queued,
        rounds=3,
    ),
    Measurement(
        (Figure("many-workers", f"{MANY_WORKERS} workers : {WORKERS} workers, map, chunksize 1", "×", True, 0.5),),
        _many_workers,
        rounds=3,
    ),
)
