"""The round trip of one task."""

import statistics
import time

from .harness import WORKERS, Figure, Measurement, Scale
from .peers import PEERS
from .sessions import Session
from .tasks import noop

# A tool whose round trip is slow gives fewer samples, not a longer run.
MOST_SECONDS = 1.0


def _round_trips(session: Session, count: int, idle: float) -> float:
    """The median, in µs, of at most `count` round trips with `idle` seconds of sleep before each."""
    trips: list[float] = []
    end = time.perf_counter() + MOST_SECONDS
    while len(trips) < count and time.perf_counter() < end:
        if idle:
            time.sleep(idle)
        started = time.perf_counter()
        session.call(noop, 1)
        trips.append(time.perf_counter() - started)
    return statistics.median(trips) * 1e6


def _sample(contender: str, scale: Scale) -> tuple[float, float]:
    with PEERS[contender].session(WORKERS) as session:
        _round_trips(session, scale.pick(200, 20), 0)
        busy = _round_trips(session, scale.pick(5_000, 200), 0)
        idle = _round_trips(session, scale.pick(1_000, 100), 0.001)
        return busy, idle


MEASUREMENTS = (
    Measurement(
        (
            Figure("round-trip", "round trip of a no-op, p50", "µs", False, 10),
            Figure("round-trip-idle", "  the same after 1 ms of idleness", "µs", False, 60),
        ),
        _sample,
    ),
)
