"""What `Pool.trace` costs the cheapest tasks there are."""

import random
import statistics
import time

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import SHOAL
from shoal.bench.tasks import noop

ITEMS = 20_000
# Seconds of work before each map, drawn anew. After a record was read, which keeps this process at work for a while,
# the next map is up to 15 % faster, traced or not: the scheduler has moved the workers aside. So all maps come after
# work. And not always after as much: the looks at memory are to fall into a map as often as they would into a long one.
BEFORE = (0.02, 0.12)


def _sample(_contender: str, scale: Scale) -> tuple[float, float]:
    """Traced : untraced, of maps that take turns: CPU time of this process's thread, and time."""
    import shoal

    dice = random.Random(0)
    ratios: list[tuple[float, float]] = []
    with shoal.Pool(WORKERS) as pool:

        def took(traced: bool) -> tuple[int, int]:
            if traced:
                with pool.trace(most=ITEMS):
                    return took(False)
            until = time.perf_counter() + dice.uniform(*BEFORE)
            while time.perf_counter() < until:
                pass
            cpu, clock = time.thread_time_ns(), time.perf_counter_ns()
            pool.map(noop, range(ITEMS), chunksize=1)
            return time.thread_time_ns() - cpu, time.perf_counter_ns() - clock

        took(False)
        for turn in range(scale.pick(200, 10)):
            # Each of them comes first as often as the other.
            first = took(turn % 2 == 0)
            second = took(turn % 2 == 1)
            traced, plain = (first, second) if turn % 2 == 0 else (second, first)
            ratios.append((traced[0] / plain[0], traced[1] / plain[1]))
    cpu, clock = (statistics.median(of_one) for of_one in zip(*ratios, strict=True))
    return cpu, clock


MEASUREMENTS = (
    Measurement(
        (
            Figure("tracing", "no-op tasks traced : untraced, CPU time of the client", "×", False, 1.02),
            Figure("tracing-time", "  time", "×", False, 1.02),
        ),
        _sample,
        rounds=3,
        contenders=(SHOAL,),
    ),
)
