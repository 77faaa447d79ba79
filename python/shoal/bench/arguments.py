"""Arrays as arguments, plain and shared. Every answer is checked: a tool that sent the content of before has failed."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .array_tasks import Array, ends, ends_and
from .harness import WORKERS, Figure, Measurement, Scale
from .peers import CARRIERS, PEERS, SHOAL
from .sessions import Session
from .tasks import noop

LARGE, MEDIUM = 12_500_000, 3_125_000  # elements of eight bytes: 100 and 25 MB
DIFFERENT = 8
SHARING = 50
# A tool that is slow gives fewer samples, not a longer run.
MOST_SECONDS = 1.5
WARM_CALLS = 2 * WORKERS


def _check(answer: float, expected: float) -> None:
    if answer != expected:
        raise RuntimeError(f"the task saw {answer}, not {expected}")


def _call_ms(session: Session, arrays: Sequence[Array], most: int) -> float:
    """The median time of a call with one of the arrays in turn, each with another content than the last time."""
    times: list[float] = []
    end = None
    turn = 0
    while end is None or (len(times) < most and time.perf_counter() < end):
        turn += 1
        array = arrays[turn % len(arrays)]
        array[0] = array[-1] = array[turn * 1_000] = turn
        started = time.perf_counter()
        answer = session.call(ends, array)
        times.append(time.perf_counter() - started)
        _check(answer, 2 * turn)
        if end is None and turn == max(WARM_CALLS, len(arrays)):
            times.clear()
            end = time.perf_counter() + MOST_SECONDS
    return statistics.median(times) * 1e3


def _different(contender: str, scale: Scale) -> tuple[float, float]:
    large, *_ = arrays = [np.ones(LARGE)]
    with PEERS[contender].session(WORKERS) as session:
        # joblib takes an array object that it has seen for the same array, so it gets two by turns.
        if contender == "joblib":
            arrays.append(large.copy())
        first = _call_ms(session, arrays, scale.pick(100, 5))
        del large, arrays
        second = _call_ms(session, [np.ones(MEDIUM) for _ in range(DIFFERENT)], scale.pick(400, 10))
    return first, second


def _beyond_first(run: Callable[[Array, int], list[float]], turns: int) -> float:
    """Milliseconds a task after the first that has the same array, over those of tasks without any to speak of."""
    array, tiny = np.ones(LARGE), np.ones(2)
    each: list[float] = []

    def seconds(given: Array, count: int, content: int) -> float:
        # Another object each time: joblib takes one that it has seen for what it was then.
        given = given.copy()
        given[0] = given[-1] = content
        started = time.perf_counter()
        answers = run(given, count)
        elapsed = time.perf_counter() - started
        if answers != [2.0 * content + item for item in range(count)]:
            raise RuntimeError(f"the tasks saw another array than the one with {content} at its ends")
        return elapsed

    started = time.perf_counter()
    for turn in range(turns + 1):
        content = 3 * turn
        both = [seconds(given, SHARING, content) - seconds(given, 1, content + 1) for given in (array, tiny)]
        if turn or turns == 1:  # the first is a warm-up
            each.append((both[0] - both[1]) / (SHARING - 1))
        if turn and time.perf_counter() - started > 2 * MOST_SECONDS:
            break
    return statistics.median(each) * 1e3


def _as_argument(contender: str, scale: Scale) -> tuple[float]:
    with PEERS[contender].session(WORKERS) as session:
        return (_beyond_first(lambda a, count: session.common(ends_and, a, range(count), None), scale.pick(10, 1)),)


def _in_function(contender: str, scale: Scale) -> tuple[float]:
    with PEERS[contender].session(WORKERS) as session:
        return (
            _beyond_first(lambda a, count: session.map(partial(ends_and, a), range(count), None), scale.pick(10, 1)),
        )


def _shared(contender: str, scale: Scale) -> tuple[float, float]:
    """Microseconds of a call with a shared array over one of a no-op, the two in turn."""
    import shoal

    calls = scale.pick(3_000, 200)
    found = []
    with PEERS[contender].session(WORKERS) as session:
        for size in (1_000_000, scale.pick(1_000_000_000, 100_000_000)):
            array: Any = shoal.ones(size // 8)
            given: list[float] = []
            plain: list[float] = []
            for function, item, times in [(noop, 1, plain), (ends, array, given)] * calls:
                started = time.perf_counter()
                session.call(function, item)
                times.append(time.perf_counter() - started)
            found.append((statistics.median(given[calls // 10 :]) - statistics.median(plain[calls // 10 :])) * 1e6)
    return found[0], found[1]


MEASUREMENTS = (
    Measurement(
        (
            Figure("argument-100mb", "100 MB array argument, another content each time", "ms", False, 12),
            Figure("argument-25mb", "different 25 MB arrays as arguments", "ms", False, 3),
        ),
        _different,
        rounds=3,
        contenders=CARRIERS,
    ),
    Measurement(
        (Figure("argument-same", "the same 100 MB array, 50 tasks of a call: each after the first", "ms", False, 0.1),),
        _as_argument,
        rounds=3,
        contenders=CARRIERS,
    ),
    Measurement(
        (Figure("argument-same-partial", "  the same in functools.partial", "ms", False, 0.1),),
        _in_function,
        rounds=3,
        contenders=CARRIERS,
    ),
    Measurement(
        (
            Figure("argument-shared", "shoal.array of 1 MB as argument, over a no-op", "µs", False, 20),
            Figure("argument-shared-1gb", "  of 1 GB", "µs", False, 20),
        ),
        _shared,
        rounds=3,
        contenders=(SHOAL,),
    ),
)
