"""Queues between processes: small items, and arrays.

All processes are spawned, so that every queue is handed over in the way its tool provides. A rate counts from the first
producer's start to the last consumer's end.
"""

import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .harness import Figure, Measurement, Scale
from .peers import SHOAL

SIMPLE, FULL, MANAGER, FASTER = (
    "multiprocessing SimpleQueue",
    "multiprocessing Queue",
    "multiprocessing Manager",
    "faster-fifo",
)
CONTENDERS = (SHOAL, SIMPLE, FULL, MANAGER, FASTER)
# How many items each can be given so that its sample takes about a second.
SMALL = {SHOAL: 2_000_000, SIMPLE: 200_000, FULL: 100_000, MANAGER: 5_000, FASTER: 300_000}
ARRAYS = {SHOAL: 10_000, SIMPLE: 1_000, FULL: 1_000, MANAGER: 200, FASTER: 1_000}
ARRAY_BYTES = 1 << 20
AHEAD = 64  # arrays that may lie in a queue that has a limit

Act = Callable[[Any, int], None]


def _produce_small(queue: Any, count: int) -> None:
    put = queue.put
    for i in range(count):
        put(i)


def _consume_small(queue: Any, count: int) -> None:
    get = queue.get
    for _ in range(count):
        get()


def _produce_arrays(queue: Any, count: int) -> None:
    # One for all: who pickles in a thread, as multiprocessing.Queue does, would send what is written later.
    array = np.arange(ARRAY_BYTES // 8)
    for _ in range(count):
        queue.put(array)


def _consume_arrays(queue: Any, count: int) -> None:
    for i in range(count):
        array = queue.get()
        if not (array.nbytes == ARRAY_BYTES and array[-1] == len(array) - 1):
            raise ValueError(f"array {i} is damaged")


def _run(act: Act, queue: Any, count: int, ready: Any, times: Any) -> None:
    """A process: its start and its end go to `times`."""
    ready.wait()
    started = time.perf_counter()
    act(queue, count)
    times.send((started, time.perf_counter()))
    # A queue of multiprocessing is emptied by a thread, which ends with the process.


def _rate(make: Callable[[Any], Any], produce: Act, consume: Act, pairs: int, count: int) -> float:
    context = multiprocessing.get_context("spawn")
    queue, ready = make(context), context.Barrier(2 * pairs)
    processes, ends = [], []
    for act in [produce, consume] * pairs:
        times, child = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(act, queue, count // pairs, ready, child), daemon=True)
        process.start()
        child.close()
        processes.append(process)
        ends.append(times)
    started, ended = zip(*(times.recv() for times in ends), strict=True)
    for process in processes:
        process.join()
    seconds: float = max(ended) - min(started)
    return count / seconds


def _queue(contender: str, size: int, context: Any) -> Any:
    if contender == SHOAL:
        import shoal

        return shoal.Queue(size)
    if contender == SIMPLE:
        return context.SimpleQueue()
    if contender == FULL:
        return context.Queue(size)
    if contender == MANAGER:
        manager = context.Manager()
        queue = manager.Queue(size)
        queue.manager = manager  # which ends with it
        return queue
    import faster_fifo
    import faster_fifo_reduction  # noqa: F401  (lets its queues be pickled)

    return faster_fifo.Queue(max_size_bytes=AHEAD * ARRAY_BYTES)


def _small(contender: str, scale: Scale, pairs: int = 1) -> tuple[float]:
    count = scale.pick(SMALL[contender], SMALL[contender] // 20)
    make = partial(_queue, contender, 0)
    return (_rate(make, _produce_small, _consume_small, pairs, count) / 1e6,)


def _arrays(contender: str, scale: Scale) -> tuple[float, float]:
    count = scale.pick(ARRAYS[contender], ARRAYS[contender] // 20)
    rate = _rate(partial(_queue, contender, AHEAD), _produce_arrays, _consume_arrays, 1, count)
    return rate, rate * ARRAY_BYTES / 1e9


MEASUREMENTS = (
    Measurement((Figure("queue-small", "queue, small items 1→1", "M/s", True, 1.5),), _small, contenders=CONTENDERS),
    Measurement(
        (Figure("queue-small-2", "queue, small items 2→2", "M/s", True, 1),),
        partial(_small, pairs=2),
        contenders=CONTENDERS,
    ),
    Measurement(
        (
            Figure("queue-array", "queue, 1 MB arrays 1→1", "/s", True, 8_000),
            Figure("queue-array-bytes", "  the same", "GB/s", True, 8),
        ),
        _arrays,
        contenders=CONTENDERS,
    ),
)
