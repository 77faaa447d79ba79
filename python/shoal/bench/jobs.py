"""What a job gains by each tool: Python code, numpy code and waiting, each against a plain loop in the same process."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from .array_tasks import least
from .harness import WORKERS, Figure, Measurement, Scale
from .peers import PEERS
from .sessions import Session
from .tasks import spin

# Each about ten milliseconds.
JOBS: tuple[tuple[Callable[[Any], Any], Any], ...] = ((spin, 400_000), (least, 500_000), (time.sleep, 0.01))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _gain(session: Session, function: Callable[[Any], Any], items: Sequence[Any], rounds: int) -> float:
    """The time of a loop over that of the pool, the best of some rounds in which they take turns."""
    loop = pool = float("inf")
    session.map(function, items[: 2 * WORKERS], 1)
    for _ in range(rounds):
        loop = min(loop, _seconds(lambda: [function(item) for item in items]))
        pool = min(pool, _seconds(lambda: session.map(function, items, 1)))
    return loop / pool


def _sample(contender: str, scale: Scale) -> list[float]:
    tasks, rounds = scale.pick(40, 16), scale.pick(5, 3)
    with PEERS[contender].session(WORKERS) as session:
        return [_gain(session, function, [item] * tasks, rounds) for function, item in JOBS]


MEASUREMENTS = (
    Measurement(
        (
            Figure("job-python", "Python code, tasks of 10 ms : a plain loop", "×", True),
            Figure("job-numpy", "numpy on 4 MB, tasks of 10 ms : a plain loop", "×", True),
            Figure("job-waiting", "waiting, tasks of 10 ms : a plain loop", "×", True),
        ),
        _sample,
        rounds=3,
    ),
)
