"""Faults that were found once and shall not come back. Each test failed before its fault was mended."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import shoal
from tests.conftest import Run
from tests.pool import tasks
from tests.pool.support import ended, eventually
from tests.stuck import stuck


def first_of(items: list[int]) -> int:
    return next(iter(items))


@pytest.mark.parametrize("chunksize", [None, 1, 2])
def test_a_function_that_raises_stop_iteration_fails_the_map(pool: shoal.Pool, chunksize: int | None) -> None:
    with pytest.raises((RuntimeError, StopIteration)):
        pool.map(first_of, [[1], [2], [], [4], [5], [6]], chunksize)


def test_asking_a_map_whether_it_is_ready_is_enough_to_see_its_end(pool: shoal.Pool) -> None:
    result = pool.map_async(tasks.square, range(10), chunksize=2)
    assert eventually(result.ready)
    assert result.get() == [x * x for x in range(10)]


def test_tasks_behind_a_full_ring_run_though_all_before_them_died(run: Run) -> None:
    """More deaths than the task ring holds: none of them writes a completion.

    In a small program: a worker is forked the sooner the less there is of it.
    """
    program = run(
        """
        import os, shoal
        with shoal.Pool(2) as pool:
            results = [pool.apply_async(os._exit, (3,)) for _ in range(1100)]
            last = pool.apply_async(abs, (-3,))
            died = 0
            for result in results:
                try:
                    result.get()
                except shoal.WorkerDied:
                    died += 1
            print(died, last.get())
        """
    )
    assert (program.stdout, program.stderr) == ("1100 3\n", "")


def in_a_fork(run: Run, source: str) -> str:
    program = run(
        # From Python 3.12 on, a fork of a process with threads is warned of, whatever they are.
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        "import os, pickle, numpy as np, shoal\n"
        "def forked(action):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n"
        "            action()\n"
        "        finally:\n"
        "            os._exit(0)\n"
        "    os.waitpid(pid, 0)\n" + source
    )
    assert program.stderr == ""
    return program.stdout


def test_a_forked_child_that_drops_an_array_does_not_free_it(run: Run) -> None:
    source = """
a = shoal.full(1000, 7.0)
def drop():
    global a
    del a
forked(drop)
b = shoal.full(1000, 9.0)
print(float(a.sum()))
"""
    assert in_a_fork(run, source) == "7000.0\n"


def test_an_array_pickled_in_a_forked_child_is_the_same_array(run: Run) -> None:
    source = """
a = shoal.full(4, 7.0)
pickle.dumps(a)
def send():
    mine = shoal.full(4, 1.0)
    print(pickle.loads(pickle.dumps(a)).tolist(), flush=True)
forked(send)
"""
    assert in_a_fork(run, source) == "[7.0, 7.0, 7.0, 7.0]\n"


def test_a_forked_child_leaves_the_results_to_its_parent(run: Run) -> None:
    source = """
import time
pool = shoal.Pool(2)
results = [pool.apply_async(abs, (-i,)) for i in range(50)]
time.sleep(0.3)
forked(lambda: [result.ready() for result in results])
print(sum(result.get(100) for result in results))
pool.terminate()
"""
    assert in_a_fork(run, source) == "1225\n"


def nested_sum(n: int) -> float:
    with shoal.Pool(1) as pool:
        return float(pool.apply(np.sum, (shoal.full(n, 2.0),)))


def test_an_array_made_in_a_task_goes_to_a_nested_pool(pool: shoal.Pool) -> None:
    assert pool.apply(nested_sum, (1000,)) == 2000.0


def many(n: int) -> list[shoal.Counter]:
    return [shoal.Counter(i) for i in range(n)]


def test_a_result_may_hold_thousands_of_shared_objects(pool: shoal.Pool) -> None:
    assert [counter.value for counter in pool.apply(many, (3000,))] == list(range(3000))


def test_an_item_that_cannot_be_sent_fails_in_its_place(pool: shoal.Pool) -> None:
    def items() -> Iterator[object]:
        yield -1
        yield stuck()
        yield -3

    for stream in (pool.imap(tasks.same, items()), pool.imap_unordered(tasks.same, items())):
        good, bad = [], 0
        while True:
            try:
                good.append(next(stream))
            except StopIteration:
                break
            except shoal.SerializationError:
                bad += 1
        assert (sorted(good), bad) == ([-3, -1], 1)  # type: ignore[type-var]


def test_closing_alone_ends_the_workers(pool: shoal.Pool) -> None:
    workers = [psutil.Process(worker.pid) for worker in pool.workers]
    result = pool.apply_async(tasks.square, (3,))
    assert eventually(lambda: all(worker.state == "idle" for worker in pool.workers))
    pool.close()
    assert eventually(lambda: all(ended(worker) for worker in workers))
    assert result.get() == 9


def test_a_stopped_worker_does_not_keep_the_others_from_working() -> None:
    with shoal.Pool(3) as pool:
        pool.map(tasks.square, range(100))
        stopped = psutil.Process(pool.workers[0].pid)
        stopped.suspend()
        try:
            results = [pool.apply_async(tasks.square, (x,)) for x in range(20)]
            assert eventually(lambda: sum(result.ready() for result in results) >= 19)
        finally:
            stopped.resume()
        assert [result.get() for result in results] == [x * x for x in range(20)]


def test_a_get_beside_a_map_is_answered_while_the_map_goes_on(pool: shoal.Pool) -> None:
    """The thread in `map` sleeps until the workers run out of tasks; the one in `get` wants its own result."""
    mapping = threading.Thread(target=pool.map, args=(time.sleep, [0.02] * 100), kwargs={"chunksize": 1})
    mapping.start()
    assert pool.apply(tasks.square, (3,)) == 9
    mapping.join()


def test_a_zygote_that_dies_is_replaced_whoever_waits_for_children(run: Run) -> None:
    program = run(
        """
        import os, signal, shoal, psutil
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with shoal.Pool(2) as pool:
            pool.map(abs, range(10))
            zygote = psutil.Process(pool.workers[0].pid).parent()
            zygote.kill()
            while True:
                try:
                    print(pool.map(abs, [-1, -2]))
                    break
                except shoal.WorkerDied:
                    pass
        """
    )
    assert (program.stdout, program.stderr) == ("[1, 2]\n", "")


def test_daemon_threads_in_the_engine_do_not_disturb_the_end(run: Run) -> None:
    program = run(
        """
        import shoal, threading, time
        pool = shoal.Pool(2)
        def work():
            while True:
                pool.map(abs, range(100))
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        """
    )
    assert program.returncode == 0, program.stderr


WAITS = {
    "map": "pool.map(work, range(100))",
    "starmap over an iterator": "pool.starmap(work, ((n,) for n in range(100)))",
    "imap": "list(pool.imap(work, range(100)))",
    "imap_unordered": "list(pool.imap_unordered(work, range(100)))",
    "apply": "pool.apply(work, (1,))",
    "a callback": "pool.apply_async(work, (1,), callback=str).get()",
    "a future": "pool.submit(work, 1).result()",
    "map_array": "pool.map_array(abs, [1, 2, 3])",
    "asyncio": "asyncio.run(pool.aio.map(work, range(10)))",
    "join": "pool.apply_async(time.sleep, (3600,)); pool.close(); pool.join(); 1 / 0",
}


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_daemon_threads_hear_nothing_of_what_the_end_cuts_off(run: Run, kind: str) -> None:
    """Threads that wait in each way, and begin again when they need no longer: the end comes anywhere."""
    program = run(
        f"""
        import asyncio, atexit, threading, time
        # At the very end, as the last to come is the first: time to say something.
        atexit.register(time.sleep, 0.5)
        import shoal

        def work(n):
            time.sleep(0.001)
            return n

        def wait(pool, wait):
            while True:
                exec(wait)
                rounds.release()

        rounds = threading.Semaphore(0)
        waits = {list(WAITS.values())!r}
        pools = [shoal.Pool(2, kind={kind!r}) for _ in waits]
        for pool, each in zip(pools, waits):
            threading.Thread(target=wait, args=(pool, each), daemon=True).start()
        for _ in range(50):
            rounds.acquire()
        """
    )
    assert (program.returncode, program.stdout, program.stderr) == (0, "", "")


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_whoever_ends_the_interpreter_is_told_that_its_pools_are_closed(run: Run, kind: str) -> None:
    program = run(
        f"""
        import atexit

        @atexit.register
        def last():
            for call in (lambda: pool.apply(abs, (1,)), lambda: pool.map(abs, [1]), under_way.get):
                try:
                    call()
                except ValueError as error:
                    print(type(error).__name__)

        import shoal, time
        pool = shoal.Pool(1, kind={kind!r})
        under_way = pool.apply_async(time.sleep, (3600,))
        """
    )
    assert (program.stdout, program.stderr) == ("PoolClosed\n" * 3, "")


def is_gone(pid: int) -> bool:
    try:
        return ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def test_no_worker_outlives_a_client_whose_fork_lives_on(run: Run) -> None:
    program = run(
        """
        import os, shoal, signal, sys, time
        pool = shoal.Pool(2)
        print(*[worker.pid for worker in pool.workers], flush=True)
        child = os.fork()
        if child == 0:
            sys.stdout.close()
            os.close(1)
            os.close(2)
            time.sleep(3600)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    *workers, child = (int(pid) for pid in program.stdout.split())
    try:
        assert eventually(lambda: all(is_gone(pid) for pid in workers))
    finally:
        os.kill(child, signal.SIGKILL)


def test_workers_that_cannot_be_forked_are_told_after_two_tries(run: Run, tmp_path: Path) -> None:
    (tmp_path / "unforkable.py").write_text(
        """
import os, sys

def fork():
    raise RuntimeError("no fork")

if "shoal._zygote" in sys.modules:
    os.fork = fork
"""
    )
    program = run(
        """
        import shoal
        with shoal.Pool(2, preload=["unforkable"]) as pool:
            try:
                pool.map(abs, range(100), chunksize=1)
            except shoal.ShoalError as error:
                print(error)
        """
    )
    assert program.stdout.startswith("workers cannot be started: the zygote ended before it was ready (exit status: 1)")
    assert program.stderr.count("RuntimeError: no fork") == 2


def held_at(held: int, item: int, started: Path, gate: Path) -> int:
    if item == held:
        tasks.touch_and_wait(started, gate)
    return item


@pytest.mark.parametrize("held", [30_000, 50_000, 70_000])
def test_a_map_goes_on_in_a_closed_pool_though_its_last_piece_was_sent(tmp_path: Path, held: int) -> None:
    """What lies behind a slow item of that piece is given back when the pool has closed."""
    pool, started, gate = shoal.Pool(2), tmp_path / "started", tmp_path / "gate"
    result = pool.map_async(functools.partial(held_at, held, started=started, gate=gate), range(100_000))
    assert eventually(started.exists)
    # Until all others are done, or wait behind it.
    left: list[int] = []
    while len(left) < 30 or len(set(left[-30:])) > 1:
        left.append(result._number_left)
        time.sleep(0.01)
    pool.close()
    gate.touch()
    pool.join()
    assert result.get() == list(range(100_000))


class ClosesWhenIterated:
    def __init__(self, pool: shoal.Pool) -> None:
        self.pool = pool

    def __iter__(self) -> Iterator[int]:
        self.pool.close()
        return iter(range(10))


def test_a_stream_does_not_begin_in_a_pool_that_closes_just_then() -> None:
    pool = shoal.Pool(2)
    with pytest.raises(shoal.PoolClosed):
        pool.imap(tasks.square, ClosesWhenIterated(pool))
    pool.join()


class ClosesWhenPickled:
    def __init__(self, pool: shoal.Pool) -> None:
        self.pool = pool

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        self.pool.close()
        return int, (7,)


@pytest.mark.parametrize("chunksize", [None, 1, 2])
def test_a_map_whose_first_pieces_are_being_sent_goes_on_though_its_pool_is_closed(chunksize: int | None) -> None:
    pool = shoal.Pool(2)
    assert pool.map(tasks.same, [1, ClosesWhenPickled(pool), 3, 4], chunksize) == [1, 7, 3, 4]
    pool.join()
