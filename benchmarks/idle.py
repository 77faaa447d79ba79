"""What a pool costs that has nothing to do."""

import time

import psutil

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import PEERS
from shoal.bench.tasks import noop

SETTLE_S = 0.3


def _cpu_clocks() -> list[int]:
    """The CPU clocks of this process and all below it: user and system time in nanoseconds.

    Their numbers are what clock_getcpuclockid(3) gives: a process's id and CPUCLOCK_SCHED in one.
    """
    here = psutil.Process()
    return [(~process.pid << 3) | 2 for process in (here, *here.children(recursive=True))]


def _cpu_ns(clocks: list[int]) -> int:
    return sum(map(time.clock_gettime_ns, clocks))


def _sample(contender: str, scale: Scale) -> tuple[float]:
    seconds = scale.pick(2, 1)
    with PEERS[contender].session(WORKERS) as session:
        session.map(noop, range(1_000), 1)
        time.sleep(SETTLE_S)
        clocks = _cpu_clocks()
        before = _cpu_ns(clocks)
        started = time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - started
        return ((_cpu_ns(clocks) - before) / 1e6 / elapsed,)


MEASUREMENTS = (Measurement((Figure("idle", "CPU time of an idle pool", "ms/s", False),), _sample, rounds=3),)
