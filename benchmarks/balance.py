"""How well real work is spread: against what two bare processes can do in the same run.

Bare processes against themselves gave 0.91 to 1.05 a sample on a virtual machine of two cores: differences of a few per
cent are noise, and a pool that seems to beat the ideal has met a lucky core.
"""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import PEERS
from shoal.bench.tasks import noop, spin

from . import ROOT

CPU_TASK_S = 0.020
MEDIAN_TASK_S = 0.005
LONG_TASKS, LONGER = 4, 20
SEEDS = (1, 2, 3)


def bare() -> None:
    """The main program of a process without any pool: says ready, reads counts, prints the seconds they took."""
    print("ready", flush=True)
    counts = [int(count) for count in sys.stdin.readline().split()]
    started = time.perf_counter()
    for count in counts:
        spin(count)
    print(time.perf_counter() - started, flush=True)


def _turns_a_second() -> float:
    """The speed of this core, at its best of several tries."""
    turns = 200_000
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        spin(turns)
        best = min(best, time.perf_counter() - started)
    return turns / best


def _capacity(counts: Sequence[int]) -> float:
    """Turns a second of bare processes, one a worker, that run at the same time: the sum of their own rates.

    Not all turns over the time of the slowest: cores of a virtual machine differ by some per cent at a time.
    A process with a fixed half would wait for the slower one, and a pool that divides as it goes would beat the ideal.
    """
    shares: list[list[int]] = [[] for _ in range(WORKERS)]
    for count in sorted(counts, reverse=True):
        min(shares, key=sum).append(count)
    command = [sys.executable, "-c", "from benchmarks.balance import bare; bare()"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in shares
    ]
    lines = [process.stdout.readline() for process in processes]  # type: ignore[union-attr]
    if lines != ["ready\n"] * WORKERS:
        raise RuntimeError(f"bare processes must say that they are ready, not {lines}")
    for process, share in zip(processes, shares, strict=True):
        process.stdin.write(" ".join(map(str, share)) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    seconds = [float(process.communicate()[0]) for process in processes]
    return sum(sum(share) / taken for share, taken in zip(shares, seconds, strict=True))


def _pool(contender: str, counts: Sequence[int], chunksize: int | None) -> float:
    """Seconds that a warm pool takes."""
    with PEERS[contender].session(WORKERS) as session:
        session.map(noop, range(100), None)
        session.map(spin, [1_000] * 2 * WORKERS, chunksize)
        started = time.perf_counter()
        session.map(spin, counts, chunksize)
        return time.perf_counter() - started


def _against_ideal(contender: str, counts: Sequence[int], chunksize: int | None) -> float:
    """Time of the pool over the ideal: all turns at the capacity of bare processes.

    They run before and after the pool, so that other load hits both.
    """
    before = _capacity(counts)
    pool = _pool(contender, counts, chunksize)
    return pool * statistics.mean((before, _capacity(counts))) / sum(counts)


def _even(contender: str, scale: Scale) -> tuple[float]:
    counts = [int(CPU_TASK_S * _turns_a_second())] * scale.pick(100, 10)
    return (1 / _against_ideal(contender, counts, 1),)


def unbalanced(seed: int, tasks: int, median: float) -> list[int]:
    """Turns of log-normal tasks, four of which, anywhere, take twenty times as long."""
    rng = random.Random(seed)
    times = [rng.lognormvariate(0, 0.8) for _ in range(tasks)]
    for at in rng.sample(range(tasks), LONG_TASKS):
        times[at] *= LONGER
    return [int(time * median) for time in times]


def _uneven(contender: str, scale: Scale) -> tuple[float]:
    median = MEDIAN_TASK_S * _turns_a_second()
    seeds = SEEDS[:1] if scale.quick else SEEDS
    tasks = scale.pick(200, 60)
    return (statistics.median(_against_ideal(contender, unbalanced(seed, tasks, median), None) for seed in seeds),)


MEASUREMENTS = (
    Measurement(
        (Figure("cpu-bound", "CPU-bound tasks of 20 ms : two bare processes", "×", True, 0.98),),
        _even,
        rounds=9,
    ),
    Measurement(
        (Figure("unbalanced", "unbalanced tasks, default chunks : the ideal", "×", False, 1.05),),
        _uneven,
        rounds=3,
    ),
)
