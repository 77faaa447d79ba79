"""What an update of a progress bar costs the worker that makes it."""

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale

MANAGER, QUEUE = "multiprocessing Manager", "multiprocessing SimpleQueue"

Advance = Callable[[int], object]

# What a worker of multiprocessing advances its bar with: inherited, for plain queues can't be passed to a pool.
_inherited: Advance


def _inherit(advance: Advance) -> None:
    global _inherited
    _inherited = advance


def timed(advance: Advance, count: int) -> float:
    """Microseconds of one update, without those of the loop around it: the median of many short runs."""
    runs, taken = 100, []
    for _ in range(runs):
        started = time.perf_counter()
        for _ in range(count // runs):
            advance(1)
        updated = time.perf_counter()
        for _ in range(count // runs):
            pass
        taken.append(2 * updated - started - time.perf_counter())
    return statistics.median(taken) / (count // runs) * 1e6


def _timed_inherited(count: int) -> float:
    return timed(_inherited, count)


def _fed(take: Callable[[], int], bar: Any) -> None:
    """The thread that everybody writes: updates from a queue to a bar, until it is told the end."""
    while step := take():
        bar.update(step)


def _by_queue(advance: Advance, take: Callable[[], int], count: int) -> tuple[float, float]:
    with open(os.devnull, "w") as file, tqdm(file=file) as bar:
        feeder = threading.Thread(target=_fed, args=(take, bar))
        feeder.start()
        with multiprocessing.get_context("fork").Pool(WORKERS, _inherit, (advance,)) as pool:
            alone = pool.apply(_timed_inherited, (count,))
            together = max(pool.map(_timed_inherited, [count] * WORKERS, 1))
        advance(0)
        feeder.join()
        if bar.n != (1 + WORKERS) * count:
            raise RuntimeError(f"{bar.n} updates of {(1 + WORKERS) * count} arrived")
    return alone, together


def _sample(contender: str, scale: Scale) -> tuple[float, float]:
    if contender == MANAGER:
        with multiprocessing.Manager() as manager:
            shared = manager.Queue()
            return _by_queue(shared.put, shared.get, scale.pick(5_000, 500))
    if contender == QUEUE:
        plain: Any = multiprocessing.get_context("fork").SimpleQueue()
        return _by_queue(plain.put, plain.get, scale.pick(50_000, 5_000))
    import shoal

    count = scale.pick(1_000_000, 100_000)
    with open(os.devnull, "w") as file, shoal.tqdm(file=file) as bar, shoal.Pool(WORKERS) as pool:
        alone = pool.apply(timed, (bar.update, count))
        together = max(pool.map(lambda _: timed(bar.update, count), range(WORKERS), 1))
        if bar.n != (1 + WORKERS) * count:
            raise RuntimeError(f"{bar.n} updates of {(1 + WORKERS) * count} arrived")
    return alone, together


MEASUREMENTS = (
    Measurement(
        (
            Figure("bar-update", "update of a bar in a worker", "µs", False, 0.1),
            Figure("bar-update-together", f"  in {WORKERS} workers at once", "µs", False),
        ),
        _sample,
        contenders=("shoal", QUEUE, MANAGER),
    ),
)
