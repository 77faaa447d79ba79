"""A thousand sudden deaths: whenever a worker is killed, each task ends, and nothing is left behind."""

import collections
import os
import random
import signal
import threading

import numpy as np
import pytest

import shoal
from tests.pool import tasks
from tests.pool.support import descriptors, eventually

KILLS = 1000
WORKERS = 4
IN_FLIGHT = 64
# A pool is given up when 99 of its workers in a row were killed before they could work.
IN_A_ROW = 50

pytestmark = pytest.mark.slow


class Killer(threading.Thread):
    """Kills workers of a pool, drawn at random at random moments, until it has killed its number or is told to stop."""

    def __init__(self, pool: shoal.Pool, kills: int) -> None:
        super().__init__()
        self.pool, self.left = pool, kills
        self.stopped = threading.Event()
        self.killed: set[int] = set()
        # Since the last one that was at a task: perhaps none of these could work yet.
        self.in_a_row = 0

    def run(self) -> None:
        draw = random.Random(7)
        while self.left and not self.stopped.wait(draw.expovariate(200)):
            worker = draw.choice(self.pool.workers)
            pid, works = worker.pid, worker.state == "busy"
            if not pid or pid in self.killed or (self.in_a_row >= IN_A_ROW and not works):
                continue
            self.in_a_row = 0 if works else self.in_a_row + 1
            self.killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.left -= 1


@pytest.mark.timeout(600)
def test_a_thousand_kills_under_load_lose_no_task_and_leave_nothing() -> None:
    # Other tests of this process may have left arrays that are on their way to somewhere.
    leases = shoal.memory().leases
    with shoal.Pool(WORKERS) as pool:
        pool.map(tasks.same, [bytes(100_000)] * WORKERS)
    pool.join()
    assert eventually(lambda: shoal.memory().leases <= leases)
    before = descriptors() - shoal.memory().segments

    answers = deaths = 0
    with shoal.Pool(WORKERS) as pool:
        killer = Killer(pool, KILLS)
        killer.start()
        try:
            flight: collections.deque[tuple[int, object]] = collections.deque()
            number = 0
            while killer.is_alive() or flight:
                while killer.is_alive() and len(flight) < IN_FLIGHT:
                    flight.append((number, submit(pool, number)))
                    number += 1
                expected, result = flight.popleft()
                try:
                    check(expected, result.get(timeout=120))  # type: ignore[attr-defined]
                    answers += 1
                except shoal.WorkerDied as error:
                    assert error.exitcode == -signal.SIGKILL
                    assert error.pid in killer.killed
                    deaths += 1
        finally:
            killer.stopped.set()
            killer.join()
        # The last one may be an array, which is a lease.
        del result
        assert killer.left == 0
        assert answers and deaths
        assert deaths <= KILLS, "one death fails at most the one task that the worker was running"
        assert pool.map(tasks.square, range(1000)) == [x * x for x in range(1000)]
        assert eventually(lambda: len({worker.pid for worker in pool.workers} - killer.killed) == WORKERS)
    pool.join()

    assert eventually(lambda: shoal.memory().leases <= leases), f"leases are left: {shoal.memory()}"
    # The client's own arena stays mapped, ready for the next pool: one descriptor for each of its segments.
    assert eventually(lambda: descriptors() - shoal.memory().segments <= before)


def submit(pool: shoal.Pool, number: int) -> object:
    """Small tasks, large arguments, large results, and arrays, in turn."""
    kind = number % 4
    if kind == 0:
        return pool.apply_async(tasks.square, (number,))
    if kind == 1:
        return pool.apply_async(len, (bytes(number % 1_000_000),))
    if kind == 2:
        return pool.apply_async(bytes, (number % 1_000_000,))
    return pool.apply_async(tasks.same, (np.full(number % 100_000 + 1, number),))


def check(number: int, answer: object) -> None:
    kind = number % 4
    if kind == 0:
        assert answer == number * number
    elif kind == 1:
        assert answer == number % 1_000_000
    elif kind == 2:
        assert answer == bytes(number % 1_000_000)
    else:
        assert isinstance(answer, np.ndarray)
        assert answer.shape == (number % 100_000 + 1,)
        assert (answer == number).all()


@pytest.mark.timeout(300)
def test_kills_during_maps_and_streams_end_each_of_them() -> None:
    leases = shoal.memory().leases
    with shoal.Pool(2) as pool:
        killer = Killer(pool, KILLS // 5)
        killer.start()
        try:
            while killer.is_alive():
                try:
                    assert pool.map(tasks.square, range(2000), chunksize=10) == [x * x for x in range(2000)]
                except shoal.WorkerDied:
                    pass
                stream, ends = pool.imap(tasks.square, range(500)), 0
                while True:
                    try:
                        next(stream)
                    except shoal.WorkerDied:
                        pass
                    except StopIteration:
                        break
                    ends += 1
                assert ends == 500
        finally:
            killer.stopped.set()
            killer.join()
    pool.join()
    assert eventually(lambda: shoal.memory().leases <= leases)
