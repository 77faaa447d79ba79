"""Memory over long lives: what is free goes back to the system, limits hold, and `shoal.memory()` tells what is."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import shoal
from tests.conftest import Run
from tests.pool.support import eventually

MB = 1_000_000


@pytest.fixture
def limit() -> Iterator[Callable[[int | None], None]]:
    """Sets the limit of this process; there is none again when the test ends."""

    def set_limit(limit: int | None) -> None:
        assert shoal.memory_limit(limit) is None

    yield set_limit
    shoal.memory_limit(None)


def make(count: int) -> numpy.ndarray[Any, Any]:
    return numpy.ones(count, "uint8")


# ---- given back ------------------------------------------------------------------------------------------------------


def test_freed_memory_goes_back_to_the_system_and_is_fetched_again() -> None:
    array = shoal.ones(150 * MB, "uint8")
    held = shoal.memory().bytes
    del array
    assert eventually(lambda: shoal.memory().bytes <= held - 145 * MB), shoal.memory()
    assert shoal.memory().released >= 145 * MB
    again = shoal.zeros(150 * MB, "uint8")
    assert not again.any()
    again[:] = 3
    assert int(again[::4096].sum()) == 3 * len(again[::4096])


def test_results_that_were_dropped_go_back_though_their_workers_sleep(pool: shoal.Pool) -> None:
    results = pool.map(make, [40 * MB] * 4, chunksize=1)
    assert all(int(result[-1]) == 1 for result in results)
    held = shoal.memory().bytes
    del results
    assert eventually(lambda: shoal.memory().bytes <= held - 70 * MB), shoal.memory()


def test_what_a_dead_worker_left_goes_but_for_what_is_held(pool: shoal.Pool) -> None:
    def two() -> tuple[shoal.SharedArray, shoal.SharedArray, int]:
        return shoal.ones(30 * MB, "uint8"), shoal.ones(3 * MB, "uint8"), os.getpid()

    large, small, pid = pool.apply(two)
    os.kill(pid, 9)
    held = shoal.memory().bytes
    del large
    assert eventually(lambda: shoal.memory().bytes <= held - 20 * MB), shoal.memory()
    assert (small == 1).all()


def test_calls_of_all_sizes_end_with_the_memory_of_the_first_ones(pool: shoal.Pool) -> None:
    sizes = random.Random(1)

    def calls(count: int) -> list[int]:
        """What there was after each."""
        held = []
        for _ in range(count):
            size = int(10 ** sizes.uniform(3, 7.3))
            back = pool.apply(make, (size,))
            assert len(back) == size
            held.append(shoal.memory().bytes)
        return held

    # What there is at one moment depends on how much was given back just then.
    first = max(calls(300))
    assert calls(1200)[-1] <= first * 1.5 + 64 * MB, shoal.memory()


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_task_over_the_pools_limit_fails_alone() -> None:
    with shoal.Pool(1, memory_limit=100 * MB) as pool:
        assert len(pool.apply(make, (20 * MB,))) == 20 * MB
        with pytest.raises(shoal.OutOfSharedMemory, match=r"memory_limit of 100000000 bytes"):
            pool.apply(shoal.ones, (150 * MB, "uint8"))
        # Again and again in what was free: the limit is for a moment, not for a life.
        for size in (60, 80, 40, 80, 60):
            assert len(pool.apply(shoal.ones, (size * MB, "uint8"))) == size * MB
    pool.join()


def test_an_argument_over_the_pools_limit_fails_its_task_alone() -> None:
    with shoal.Pool(1, memory_limit=50 * MB) as pool:
        with pytest.raises(shoal.OutOfSharedMemory, match="the pool's memory_limit of 50000000 bytes"):
            pool.apply(len, (bytes(60 * MB),))
        for _ in range(3):
            assert pool.apply(len, (bytes(20 * MB),)) == 20 * MB
    pool.join()


def test_the_limit_of_the_process_counts_everything(run: Run) -> None:
    """In a process that has no memory yet: what is free would be taken first."""
    program = run(
        """
        import shoal, time
        MB = 1_000_000

        def refused(make):
            try:
                make()
            except shoal.OutOfSharedMemory as error:
                return "process's shoal.memory_limit of" in str(error)
            return False

        def here():
            return shoal.ones(60 * MB, "uint8")

        def there():
            return pool.apply(shoal.ones, (60 * MB, "uint8"))

        def until_made(make):
            # A worker is given a moment to return what it does not need; on a busy machine it may need another.
            deadline = time.monotonic() + 60
            while refused(make):
                assert time.monotonic() < deadline
                time.sleep(0.05)

        with shoal.Pool(2) as pool:
            pool.map(abs, range(10))
            shoal.memory_limit(shoal.memory().bytes + 100 * MB)
            array = here()
            print(refused(here), refused(there))
            del array
            # What is free here is given back for the sake of a worker, and the other way round.
            for _ in range(2):
                until_made(there)
                until_made(here)
        """
    )
    assert (program.stdout, program.stderr) == ("True True\n", "")


def test_a_limit_is_returned_when_another_is_set(limit: Callable[[int | None], None]) -> None:
    limit(10**12)
    assert shoal.memory().limit == 10**12
    assert shoal.memory_limit(2 * 10**12) == 10**12
    assert shoal.memory_limit(None) == 2 * 10**12
    assert shoal.memory().limit is None


@pytest.mark.parametrize("wrong", ["1 GB", 1.5, True])
def test_a_limit_is_a_number_of_bytes(wrong: Any) -> None:
    with pytest.raises(TypeError, match="memory_limit must be a number of bytes"):
        shoal.memory_limit(wrong)
    with pytest.raises(TypeError, match="memory_limit must be a number of bytes"):
        shoal.Pool(1, memory_limit=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2**63])
def test_a_limit_is_one_byte_at_least(wrong: int) -> None:
    with pytest.raises(ValueError, match="memory_limit must be 1 byte or more"):
        shoal.memory_limit(wrong)


# ---- what there is ---------------------------------------------------------------------------------------------------


def test_it_is_told_who_holds_what(pool: shoal.Pool) -> None:
    array = shoal.ones(5 * MB, "uint8")
    before = shoal.memory()
    assert before.here >= array.nbytes

    def hold(array: Any) -> int:
        globals()["held"] = array
        return os.getpid()

    pid = pool.apply(hold, (array,))
    assert shoal.memory().workers[pid] >= array.nbytes
    del array
    after = shoal.memory()
    assert after.here <= before.here - 5 * MB
    assert after.workers[pid] >= 5 * MB


def test_free_and_used_and_released_are_all_there_is() -> None:
    array = shoal.ones(5 * MB, "uint8")
    usage = shoal.memory()

    def adds_up() -> bool:
        nonlocal usage
        usage = shoal.memory()
        return usage.used + usage.free <= usage.bytes

    # They are counted one after the other, while others of this process may take and give back.
    assert eventually(adds_up), usage
    del array
    assert eventually(lambda: shoal.memory().free >= usage.free + 5 * MB or shoal.memory().released > usage.released)


def test_memory_prints_well(pool: shoal.Pool) -> None:
    array = shoal.ones(5 * MB, "uint8")
    pool.map(id, range(2))
    text = str(shoal.memory())
    assert "shared memory" in text and "here" in text and "MB" in text
    assert max(map(len, text.splitlines())) < 80
    assert array.nbytes == 5 * MB


def test_memory_can_be_asked_for_each_second(pool: shoal.Pool) -> None:
    arrays = [shoal.ones(5000, "uint8") for _ in range(2000)]
    pool.map(id, range(2))

    def takes_little() -> bool:
        started = time.monotonic()
        shoal.memory()
        return time.monotonic() - started < 0.1

    assert eventually(takes_little), "a small part of a second, but where the machine is busy"
    assert len(arrays) == 2000


def test_a_process_without_pools_maps_nothing_from_dev_shm() -> None:
    array = shoal.ones(MB, "uint8")
    assert "/dev/shm" not in Path("/proc/self/maps").read_text()
    assert array.all()


def test_who_is_short_of_memory_while_a_pool_ends_does_not_hang() -> None:
    """Whoever asks pools for memory holds its arena locked, and must not be the one to drop the last of a pool."""
    for _ in range(60):
        with shoal.Pool(1) as pool:
            pool.apply(abs, (-1,))
        del pool
        with pytest.raises(shoal.OutOfSharedMemory):
            shoal.empty(10**14)
