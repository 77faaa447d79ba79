"""Workers are killed while they read arguments and write results: what arrives is right, and nothing is left behind."""

import collections
import gc
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

import shoal
from tests.pool import data
from tests.pool.support import eventually

SMALLEST, LARGEST = 1 << 17, 1 << 20  # elements of eight bytes: 1 to 8 MB
HELD = 20
PHASES = (data.READING, data.WRITING, data.BETWEEN)


class Killer(threading.Thread):
    """Kills workers at what they are doing by the board: reading, writing and handing over, in turn."""

    def __init__(self, pool: shoal.Pool, board: NDArray[np.int64], kills: int) -> None:
        super().__init__()
        self.pool, self.board, self.left = pool, board, kills
        self.stopped = threading.Event()
        self.killed: set[int] = set()
        self.phases: collections.Counter[int] = collections.Counter()

    def run(self) -> None:
        draw = random.Random(11)
        while self.left and not self.stopped.wait(draw.expovariate(100)):
            phase = PHASES[self.left % len(PHASES)]
            pid = self._victim(phase, draw)
            if not pid:
                continue
            # Noted first: the main thread may meet the death before this one goes on.
            self.killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.phases[phase] += 1
            self.left -= 1

    def _victim(self, phase: int, draw: random.Random) -> int | None:
        """A worker that is in a phase at this moment, if there is one soon."""
        ours = {worker.pid for worker in self.pool.workers} - self.killed
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and not self.stopped.is_set():
            rows = self.board.tolist()
            if found := [pid for pid, doing in rows if doing == phase and pid in ours]:
                return int(draw.choice(found))
        return None


def stress(workers: int, kills: int, patience: float) -> None:
    board = shoal.zeros((4 * workers, 2), dtype=np.int64)
    draw = random.Random(3)
    # Other tests of this process may have left arrays that are on their way to somewhere.
    gc.collect()
    before = shoal.memory()
    held: collections.deque[tuple[int, NDArray[np.int64]]] = collections.deque()
    answers = deaths = number = 0
    with shoal.Pool(workers) as pool:
        killer = Killer(pool, board, kills)
        killer.start()
        try:
            flight: collections.deque[tuple[int, int, shoal.AsyncResult[NDArray[np.int64]]]] = collections.deque()
            while killer.is_alive() or flight:
                while killer.is_alive() and len(flight) < 2 * workers:
                    number += 1
                    given = np.full(draw.randint(SMALLEST, LARGEST), number)
                    count = draw.randint(SMALLEST, LARGEST)
                    flight.append((number, count, pool.apply_async(data.answer, (number, given, count, board))))
                    given[:] = 0  # what was sent is what it held then
                expected, count, result = flight.popleft()
                try:
                    array = result.get(timeout=patience)
                except shoal.WorkerDied as error:
                    assert error.exitcode == -signal.SIGKILL
                    assert error.pid in killer.killed
                    deaths += 1
                    continue
                answers += 1
                assert array.shape == (count,)
                assert (array == -expected).all(), f"the result of task {expected} holds {set(array.tolist())}"
                held.append((expected, array))
                if len(held) > HELD:
                    check(*held.popleft())
        finally:
            killer.stopped.set()
            killer.join()
        assert killer.left == 0
        assert all(killer.phases[phase] for phase in PHASES)
        assert answers and deaths <= kills, "one death fails at most the task that the worker was at"
    pool.join()
    # The workers are gone; what they have made stays as it was.
    while held:
        check(*held.popleft())
    del array, result
    gc.collect()
    assert eventually(lambda: shoal.memory().leases <= before.leases), f"leases are left: {shoal.memory()}, {before}"
    assert eventually(lambda: shoal.memory().blocks <= before.blocks), f"blocks are left: {shoal.memory()}, {before}"


def check(expected: int, array: NDArray[np.int64]) -> None:
    assert (array == -expected).all(), f"the result of task {expected}, held for a while, holds {set(array.tolist())}"


def test_a_worker_killed_at_its_data_fails_its_task_and_spoils_no_other() -> None:
    stress(workers=2, kills=15, patience=120)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hundreds_of_workers_killed_at_their_data() -> None:
    stress(workers=3, kills=300, patience=120)
