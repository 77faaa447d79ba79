"""Locks, counters and events: what they cost alone, between two processes that want the same one, and to wake a waiter.

What is done alone is timed in short pieces of which the best counts: on a machine that does other things too, the
others tell about those. Processes are spawned, so that everything is handed over in the way its tool provides.
"""

import multiprocessing
import statistics
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from .harness import Figure, Measurement, Scale
from .peers import SHOAL

MANAGER = "multiprocessing Manager"
CONTENDERS = (SHOAL, "multiprocessing", MANAGER)
# How much of it a manager, behind a socket, does in the time of the others.
MANAGER_SHARE = 500
PIECE = 5_000


@contextmanager
def _tool(contender: str) -> Iterator[Any]:
    """Where a contender's Lock, Event and so on are."""
    if contender == SHOAL:
        import shoal

        yield shoal
    elif contender == MANAGER:
        with multiprocessing.Manager() as manager:
            yield manager
    else:
        yield multiprocessing.get_context("spawn")


def _share(contender: str, count: int) -> int:
    return count // MANAGER_SHARE if contender == MANAGER else count


def _best_ns(contender: str, scale: Scale, statement: str, **names: Any) -> float:
    timer = timeit.Timer(statement, globals=names)
    piece = _share(contender, PIECE)
    timer.timeit(piece)
    return min(timer.repeat(scale.pick(500, 50), piece)) / piece * 1e9


def _alone(contender: str, scale: Scale, what: str) -> tuple[float, float]:
    with _tool(contender) as tool:
        thing = getattr(tool, what)()
        plain = _best_ns(contender, scale, "thing.acquire(); thing.release()", thing=thing)
        return plain, _best_ns(contender, scale, "with thing: pass", thing=thing)


def _count(contender: str, scale: Scale) -> tuple[float]:
    with _tool(contender) as tool:
        if contender == SHOAL:
            return (_best_ns(contender, scale, "counter.add()", counter=tool.Counter()),)
        # Without one that is atomic: under the value's lock. That of a manager has none.
        value = tool.Value("q", 0)
        lock = value.get_lock() if contender != MANAGER else tool.Lock()
        return (_best_ns(contender, scale, "\nwith lock:\n    value.value += 1", value=value, lock=lock),)


def _take_turns(lock: Any, count: int, ready: Any, times: Any) -> None:
    acquire, release = lock.acquire, lock.release
    ready.wait()
    started = time.perf_counter()
    for _ in range(count):
        acquire()
        release()
    times.send((started, time.perf_counter()))


def _contended(contender: str, scale: Scale) -> tuple[float]:
    count = _share(contender, scale.pick(2_000_000, 200_000))
    context = multiprocessing.get_context("spawn")
    with _tool(contender) as tool:
        lock, ready = tool.Lock(), context.Barrier(2)
        processes, ends = [], []
        for _ in range(2):
            times, child = context.Pipe(duplex=False)
            process = context.Process(target=_take_turns, args=(lock, count, ready, child), daemon=True)
            process.start()
            child.close()
            processes.append(process)
            ends.append(times)
        spans = [times.recv() for times in ends]
        for process in processes:
            process.join()
    return (2 * count / (max(end for _, end in spans) - min(start for start, _ in spans)) / 1e6,)


def _answer(call: Any, back: Any, rounds: int, times: Any) -> None:
    """Waits for `call`, notes when it has come, answers."""
    noted = []
    for _ in range(rounds):
        call.wait()
        noted.append(time.perf_counter())
        call.clear()
        back.set()
    times.send(noted)


def _wake(contender: str, scale: Scale, pause: float) -> tuple[float]:
    """From `set` to the return of `wait` in another process, which has waited for `pause` seconds."""
    rounds = scale.pick(500, 100) if pause or contender == MANAGER else scale.pick(20_000, 1_000)
    context = multiprocessing.get_context("spawn")
    with _tool(contender) as tool:
        call, back = tool.Event(), tool.Event()
        times, child = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(call, back, rounds, child), daemon=True)
        process.start()
        sent = []
        for _ in range(rounds):
            if pause:
                time.sleep(pause)
            sent.append(time.perf_counter())
            call.set()
            back.wait()
            back.clear()
        come = times.recv()
        process.join()
    return (statistics.median(there - here for here, there in zip(sent, come, strict=True)) * 1e6,)


def _measured(*figures: Figure, sample: Callable[[str, Scale], Any]) -> Measurement:
    return Measurement(figures, sample, rounds=5, contenders=CONTENDERS)


MEASUREMENTS = (
    _measured(
        Figure("lock", "lock, acquire and release, alone", "ns", False, 60),
        Figure("lock-with", "  the same by `with`", "ns", False),
        sample=partial(_alone, what="Lock"),
    ),
    _measured(
        Figure("rlock", "reentrant lock, alone", "ns", False),
        Figure("rlock-with", "  the same by `with`", "ns", False),
        sample=partial(_alone, what="RLock"),
    ),
    _measured(
        Figure("semaphore", "semaphore, alone", "ns", False),
        Figure("semaphore-with", "  the same by `with`", "ns", False),
        sample=partial(_alone, what="Semaphore"),
    ),
    _measured(Figure("lock-contended", "lock, two processes take turns", "M/s", True, 5), sample=_contended),
    _measured(Figure("counter", "counter, increment", "ns", False, 60), sample=_count),
    _measured(
        Figure("event-asleep", "event, set to a waiter asleep", "µs", False, 60), sample=partial(_wake, pause=0.003)
    ),
    _measured(Figure("event-spinning", "event, set to one just come", "µs", False, 5), sample=partial(_wake, pause=0)),
)
