"""What deaths of workers cost, and guarding against them."""

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import shoal

from .harness import WORKERS, Figure, Measurement, Scale
from .peers import SHOAL
from .tasks import noop, spin

TURNS = 20_000  # of `spin`: about half a millisecond
RETRIES = 10
EXECUTOR = "executor"


def _executor(contender: str, workers: int) -> Executor:
    return (
        shoal.Executor(workers)
        if contender == SHOAL
        else ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
    )


def _wait_for_ever(ready: str) -> None:
    Path(ready).write_text(str(os.getpid()))
    time.sleep(3600)


def _victim(executor: Executor) -> tuple[int, object]:
    """A worker that is at a task, and the task's future."""
    # A folder of its own, where nobody else can say whom to kill.
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        future = executor.submit(_wait_for_ever, str(ready))
        while not (ready.exists() and (text := ready.read_text())):
            time.sleep(0.001)
    time.sleep(0.02)
    return int(text), future


def _detection(contender: str, scale: Scale) -> tuple[float, float]:
    """From SIGKILL to the error at who waits; and to the result of a task that needs the successor, in ms."""
    seen, replaced = [], []
    executor = _executor(contender, 1)
    try:
        for _ in range(scale.pick(20, 3)):
            executor.submit(noop, 1).result()
            pid, future = _victim(executor)
            started = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            try:
                future.result()  # type: ignore[attr-defined]
            except BrokenProcessPool:
                seen.append(time.perf_counter() - started)
            if contender != SHOAL:
                # One death has broken it.
                executor.shutdown()
                executor = _executor(contender, 1)
            executor.submit(noop, 1).result()
            replaced.append(time.perf_counter() - started)
    finally:
        executor.shutdown()
    return statistics.median(seen) * 1e3, statistics.median(replaced) * 1e3


def _rate(pool: shoal.Pool, seconds: float, kill: bool) -> float:
    """Tasks a second, while a worker is killed every second."""
    done, started = 0, time.perf_counter()
    next_kill = started + 0.5
    while (now := time.perf_counter()) < started + seconds:
        if kill and now >= next_kill:
            next_kill += 1
            alive = [worker.pid for worker in pool.workers if worker.pid is not None]
            os.kill(alive[int(now) % len(alive)], signal.SIGKILL)
        done += len(pool.map(spin, [TURNS] * 100, chunksize=1, retries=RETRIES))
    return done / (time.perf_counter() - started)


def _under_kills(_: str, scale: Scale) -> tuple[float]:
    seconds = scale.pick(6, 2)
    with shoal.Pool(WORKERS) as pool:
        _rate(pool, 0.5, kill=False)
        return (_rate(pool, seconds, kill=True) / _rate(pool, seconds, kill=False) * 100,)


def _timeouts(_: str, scale: Scale) -> Sequence[float]:
    """What 10 000 tasks with a limit take more than without, in per cent."""
    count, more = 10_000, []
    with shoal.Pool(WORKERS) as pool:
        for turn in range(scale.pick(100, 20)):
            taken = {}
            # Each of them comes first as often as the other.
            for limit in (None, 60.0) if turn % 2 else (60.0, None):
                started = time.perf_counter()
                for result in [pool.apply_async(noop, (1,), timeout=limit) for _ in range(count)]:
                    result.get()
                taken[limit] = time.perf_counter() - started
            more.append((taken[60.0] / taken[None] - 1) * 100)
    return (statistics.median(more),)


MEASUREMENTS = (
    Measurement(
        (
            Figure("death-seen", "from a worker's death to its task's error", "ms", False, 5),
            Figure("death-replaced", "  … to a result of its successor", "ms", False, 20),
        ),
        _detection,
        rounds=3,
        contenders=(SHOAL, EXECUTOR),
    ),
    Measurement(
        (Figure("death-throughput", "tasks a second under one kill a second, of those without", "%", True, 90),),
        _under_kills,
        rounds=3,
        contenders=(SHOAL,),
    ),
    Measurement(
        (Figure("timeouts", "10 000 tasks with a timeout, beyond without", "%", False, 5),),
        _timeouts,
        rounds=3,
        contenders=(SHOAL,),
    ),
)
