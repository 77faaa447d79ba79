"""A method of a large object as the function of a map: what it costs that the object has to get there."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import PEERS, SHOAL

TASKS, ELEMENTS = 10_000, 62_500_000  # of eight bytes: 500 MB
ROUNDS = 2_500  # of the loop in a task: some 100 µs


class Large:
    """Holds much, of which a task needs little."""

    def __init__(self, elements: int) -> None:
        self.data = np.ones(elements)

    def work(self, item: int) -> float:
        return work(item) + float(self.data[item])


def work(item: int) -> float:
    total = 0.0
    for i in range(ROUNDS):
        total += i
    return total + item


def _sample(contender: str, scale: Scale) -> tuple[float, float]:
    """The time of a map of the method over that of a plain function, when it is first sent and when again."""
    large, items = Large(scale.pick(ELEMENTS, ELEMENTS // 100)), range(scale.pick(TASKS, TASKS // 100))
    with PEERS[contender].session(WORKERS) as session:

        def seconds(function: Any, items: Sequence[int]) -> float:
            started = time.perf_counter()
            session.map(function, items, None)
            return time.perf_counter() - started

        seconds(work, items)
        plain = seconds(work, items)
        return seconds(large.work, items) / plain, seconds(large.work, items) / plain


MEASUREMENTS = (
    Measurement(
        (
            Figure("method-500mb", "map of a method of 500 MB, 10 000 tasks of 100 µs : of a function", "×", False, 2),
            Figure("method-500mb-again", "  the same when it is called again", "×", False, 2),
        ),
        _sample,
        rounds=3,
        contenders=(SHOAL, "multiprocessing", "threads"),
    ),
)
