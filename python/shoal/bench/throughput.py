"""How many small tasks go through."""

import time
from collections.abc import Callable

from .harness import WORKERS, Figure, Measurement, Scale
from .peers import PEERS
from .sessions import Session, Unsupported
from .tasks import noop

# A tool that would need longer for all tasks is given as many as it does in this time: a rate is a rate.
MOST_SECONDS = 2.0


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


def map_rate(session: Session, count: int, chunksize: int | None) -> float:
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
        return (map_rate(session, scale.pick(200_000, 5_000), 1) / 1e3,)


def _default_chunks(contender: str, scale: Scale) -> tuple[float]:
    with PEERS[contender].session(WORKERS) as session:
        return (map_rate(session, scale.pick(1_000_000, 500_000), None) / 1e6,)


MEASUREMENTS = (
    Measurement((Figure("one-by-one", "tasks submitted one by one", "k/s", True, 350),), _one_by_one),
    Measurement((Figure("map-1", "map, chunksize 1", "k/s", True, 600),), _chunks_of_one),
    Measurement(
        (Figure("map-default", "map, default chunks, 1 M items (quick: 500 k)", "M/s", True, 9),), _default_chunks
    ),
)
