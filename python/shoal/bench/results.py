"""Arrays as results, and structures of many arrays there and back. Results are read and checked by the caller."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .array_tasks import Fields, arrays_of, echo, filled, firsts
from .harness import WORKERS, Figure, Measurement, Scale
from .peers import CARRIERS, PEERS
from .sessions import Session

RESULT = 8_000_000  # elements of eight bytes: 64 MB
MOST_SECONDS = 1.5
WARM_CALLS = 2 * WORKERS
LIST, LIST_ITEM = 10_000, 2_500
COLUMNS, ROWS = 50, 100_000


def _median(run: Callable[[], object], most: int) -> float:
    """The median seconds of at most `most` runs after a warm-up."""
    for _ in range(WARM_CALLS):
        run()
    times: list[float] = []
    end = time.perf_counter() + MOST_SECONDS
    while not times or (len(times) < most and time.perf_counter() < end):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _result(contender: str, scale: Scale) -> tuple[float, float]:
    """GB/s of the whole cycle, and the milliseconds of it that are neither making nor reading.

    Making and reading are measured here, in memory that is warm: a worker that has to get new memory from the system
    for each result spends that in transport. So `transport` can be a little below zero only by noise.
    """
    calls = scale.pick(100, 5)
    warm = np.ones(RESULT)
    making = _median(lambda: warm.fill(2.0), calls)
    reading = _median(lambda: warm.sum(), calls)

    with PEERS[contender].session(WORKERS) as session:

        def cycle() -> None:
            total = float(session.call(filled, RESULT).sum())
            if total != float(RESULT) * RESULT:
                raise RuntimeError(f"the result adds up to {total}, not {float(RESULT) * RESULT}")

        seconds = _median(cycle, calls)
    return RESULT * 8 / seconds / 1e9, (seconds - making - reading) * 1e3


def _copying(structure: Any, most: int) -> float:
    """Seconds to copy the arrays of a structure to memory that is there: the least that a copy can cost."""
    arrays = arrays_of(structure)
    copies = [array.copy() for array in arrays]

    def run() -> None:
        for copy, array in zip(copies, arrays, strict=True):
            np.copyto(copy, array)

    return _median(run, most)


def _there_and_back(session: Session, structure: Any, most: int) -> tuple[float, float]:
    """Times of a copy that a structure takes as argument; and as argument and result, of two copies."""
    copying = _copying(structure, most)
    expected = firsts(structure)

    def there() -> None:
        if (seen := session.call(firsts, structure)) != expected:
            raise RuntimeError(f"the first elements add up to {seen} in the task, not {expected}")

    def back() -> None:
        if (seen := firsts(session.call(echo, structure))) != expected:
            raise RuntimeError(f"the first elements add up to {seen} when they are back, not {expected}")

    return _median(there, most) / copying, _median(back, most) / (2 * copying)


def _structures(contender: str, scale: Scale) -> tuple[float, float, float, float]:
    most = scale.pick(20, 2)
    many = [np.full(LIST_ITEM, float(at)) for at in range(scale.pick(LIST, LIST // 10))]
    kinds = ("f8", "i8", "f4", "i4", "M8[ns]")
    columns: dict[str, Any] = {
        f"column {at}": np.arange(ROWS)
        .astype(kinds[at % len(kinds)])
        .view(kinds[at % len(kinds)][:2].replace("M", "i"))
        for at in range(COLUMNS)
    }
    size = scale.pick(1_500_000, 150_000)
    body = Fields(np.ones((size, 3)), np.ones((size, 3)), np.ones(size), "body")
    with PEERS[contender].session(WORKERS) as session:
        list_there, list_back = _there_and_back(session, many, most)
        _, dict_back = _there_and_back(session, columns, most)
        _, body_back = _there_and_back(session, body, most)
    return list_there, list_back, dict_back, body_back


MEASUREMENTS = (
    Measurement(
        (
            Figure("result-64mb", "64 MB array result: made, sent and read", "GB/s", True, 9),
            # The goal: 64 MB at 9 GB/s.
            Figure("result-64mb-transport", "  of it neither making nor reading", "ms", False, 7.1),
        ),
        _result,
        rounds=3,
        contenders=(*CARRIERS, "threads"),
    ),
    Measurement(
        (
            Figure("structures", "list of 10 000 arrays of 20 KB as argument : one memcpy", "×", False, 1.5),
            Figure("structures-list-back", "  there and back : two memcpys", "×", False, 1.5),
            Figure("structures-dict-back", "  dict of 50 columns of 100 000 rows, there and back", "×", False),
            Figure("structures-dataclass-back", "  dataclass of three arrays, there and back", "×", False),
        ),
        _structures,
        rounds=3,
        contenders=CARRIERS,
    ),
)
