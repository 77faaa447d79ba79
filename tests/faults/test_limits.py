"""Limits of workers: their memory, their idleness, the CPUs they run on, and whether they still answer."""

import os
import re
import signal
import time
from collections import Counter
from typing import Any

import numpy
import pytest

import shoal
from shoal.affinity import cpus_of_workers
from tests.conftest import Run
from tests.pool.support import eventually
from tests.pool.tasks import process_id, square

MIB = 1 << 20
HOARD: list[bytearray] = []


def hoard(mebibytes: int) -> int:
    """Takes memory and keeps it."""
    HOARD.append(bytearray(b"x") * (mebibytes * MIB))
    return os.getpid()


def hoard_and_wait(mebibytes: int) -> None:
    hoard(mebibytes)
    time.sleep(3600)


def states(pool: shoal.Pool) -> set[str]:
    return {worker.state for worker in pool.workers}


def test_a_worker_with_too_much_memory_is_ended_and_its_task_says_so() -> None:
    with shoal.Pool(2, worker_memory_limit=300 * MIB) as pool:
        traceback = ""
        # On a busy machine it may be killed before it has told where it was.
        while not traceback:
            with pytest.raises(
                shoal.WorkerDied, match="memory to itself, and worker_memory_limit is 300 MiB"
            ) as caught:
                pool.apply(hoard_and_wait, (600,))
            assert caught.value.exitcode == -signal.SIGKILL
            assert "memory to itself" in caught.value.cause
            traceback = caught.value.traceback
        assert "in hoard" in traceback
        assert pool.map(square, range(10)) == [x * x for x in range(10)]


def test_shared_memory_does_not_count() -> None:
    with shoal.Pool(1, worker_memory_limit=300 * MIB) as pool:
        shared = shoal.zeros(600 * MIB, dtype="uint8")

        def use() -> int:
            total = int(shared.sum())
            time.sleep(0.3)
            return total

        assert pool.apply(use) == 0


def test_a_worker_that_has_grown_is_replaced_after_its_task() -> None:
    with shoal.Pool(1, maxmemoryperchild=300 * MIB) as pool:
        small = pool.apply(hoard, (10,))
        assert pool.apply(process_id) == small
        assert pool.apply(hoard, (600,)) == small, "the task ends well"
        assert pool.apply(process_id) != small


def test_idle_workers_end_and_come_back_when_there_is_work() -> None:
    with shoal.Pool(2, idle_timeout=0.1) as pool:
        first = pool.apply(process_id)
        assert eventually(lambda: states(pool) == {"resting"})
        assert all(worker.pid is None for worker in pool.workers)
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
        assert pool.apply(process_id) != first
        assert eventually(lambda: states(pool) == {"resting"})
        pool.close()
        pool.join()


def test_a_worker_at_a_long_task_is_not_idle() -> None:
    with shoal.Pool(1, idle_timeout=0.05) as pool:
        assert pool.apply(square, (3, 0.5)) == 9


def test_each_worker_runs_where_it_was_told_to() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    with shoal.Pool(2, affinity=[numpy.int64(allowed[0]), numpy.array(allowed)]) as pool:
        wanted = [{allowed[0]}, set(allowed)]
        assert eventually(lambda: [os.sched_getaffinity(worker.pid or 0) for worker in pool.workers] == wanted)


@pytest.mark.parametrize("affinity", ["compact", "spread"])
def test_workers_have_a_cpu_each(affinity: str) -> None:
    allowed = os.sched_getaffinity(0)
    with shoal.Pool(len(allowed), affinity=affinity) as pool:
        assert pool.apply(square, (3,)) == 9
        assert eventually(lambda: settled(pool))
        seen = [os.sched_getaffinity(worker.pid) for worker in pool.workers if worker.pid]
    assert set.union(*seen) == allowed and all(len(cpus) == 1 for cpus in seen)


def settled(pool: shoal.Pool) -> bool:
    return all(worker.pid and len(os.sched_getaffinity(worker.pid)) == 1 for worker in pool.workers)


def test_more_workers_than_places_begin_again() -> None:
    first, *_ = sorted(os.sched_getaffinity(0))
    assert cpus_of_workers([first, [first]]) == [[first], [first]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"worker_memory_limit": 0}, ValueError, "worker_memory_limit must be 1 byte or more"),
        ({"worker_memory_limit": "1G"}, TypeError, "worker_memory_limit must be a number of bytes or None, not str"),
        ({"maxmemoryperchild": -1}, ValueError, "maxmemoryperchild must be 1 byte or more"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be None or more than 0 seconds, not 0"),
        ({"unresponsive_after": "x"}, TypeError, "unresponsive_after must be None or a number of seconds, not str"),
        ({"affinity": "near"}, ValueError, "affinity must be None, 'compact', 'spread' or a list of CPUs, not 'near'"),
        ({"affinity": []}, ValueError, "affinity must name a CPU for at least one worker"),
        ({"affinity": [[]]}, ValueError, "affinity must name at least one CPU for each worker"),
        ({"affinity": [99999]}, ValueError, "affinity: CPU 99999 is not among those that this process may use"),
        ({"affinity": ["0"]}, TypeError, "affinity must be made of CPU numbers, not '0'"),
    ],
)
def test_what_is_wrong_is_refused_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shoal.Pool(1, **options)


def test_a_stopped_worker_is_told_apart_from_a_busy_one(pool: shoal.Pool) -> None:
    pid = pool.workers[0].pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: pool.workers[0].state == "stopped")
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: pool.workers[0].state == "idle")


def test_native_code_that_holds_the_interpreter_is_told_apart_from_a_busy_one(run: Run) -> None:
    result = run("""
        import time, shoal

        def loop():
            while True:
                pass

        with shoal.Pool(3, unresponsive_after=0.2) as pool:
            native = pool.apply_async(sum, (range(10**12),))
            python = pool.apply_async(loop)
            asleep = pool.apply_async(time.sleep, (3600,))

            def until(states):
                deadline = time.monotonic() + 60
                while sorted(worker.state for worker in pool.workers) != states:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)

            until(["busy", "busy", "unresponsive"])
            # The others are asked as often.
            time.sleep(2)
            until(["busy", "busy", "unresponsive"])
            print(*(worker.pid for worker in pool.workers if worker.state == "unresponsive"))
    """)
    (native,) = map(int, result.stdout.split())
    why = "it runs native code that does not come back"
    complaints = Counter(map(int, re.findall(rf"worker (\d+) has been .* does not answer: {why}", result.stderr)))
    answers = Counter(map(int, re.findall(r"worker (\d+) answers again", result.stderr)))
    assert (complaints.pop(native), answers.pop(native, 0)) == (1, 0)
    # One that a busy machine keeps from answering in time answers later, if it lives so long.
    assert all(complaints[pid] - answers[pid] in (0, 1) for pid in complaints | answers)
