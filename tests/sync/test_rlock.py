"""`shoal.RLock` is `multiprocessing.RLock`, and goes anywhere at any time."""

import subprocess
import sys
import threading
from typing import Any

import pytest

import shoal
from tests.sync.support import interrupted, killed_in, stranger, threads


def test_its_holder_takes_it_again_and_gives_it_back_as_often() -> None:
    lock = shoal.RLock()
    for _ in range(3):
        assert lock.acquire() is True
    for _ in range(3):
        assert lock.locked()
        lock.release()
    assert not lock.locked()
    with pytest.raises(AssertionError, match="not owned by thread"):
        lock.release()


def test_it_belongs_to_one_thread() -> None:
    lock = shoal.RLock()
    with lock:
        with threads(1, lambda: lock.acquire(block=False)) as acquired:
            pass
        assert acquired == [False]
        with threads(1, lock.release) as released:
            pass
        assert isinstance(released[0], AssertionError)
    with threads(1, lambda: lock.acquire(block=False)) as acquired:
        pass
    assert acquired == [True]


def test_it_belongs_to_one_process(pool: shoal.Pool) -> None:
    lock = shoal.RLock()
    with lock:
        assert pool.apply(lock.acquire, (False,)) is False
        with pytest.raises(AssertionError):
            pool.apply(lock.release)
    assert pool.apply(lambda: lock.acquire(False) and lock.release()) is None


def test_a_waiter_gets_it_when_it_was_given_back_altogether() -> None:
    lock, waiting = shoal.RLock(), threading.Event()
    lock.acquire()
    lock.acquire()
    with threads(1, lambda: (waiting.set(), lock.acquire(), lock.release())) as passed:
        waiting.wait()
        lock.release()
        assert not passed
        lock.release()
    assert passed == [(None, True, None)]


@pytest.mark.parametrize("args", [(False,), (True, 0), (True, -1), (True, 0.01)], ids=str)
def test_another_does_not_wait_for_ever(args: Any) -> None:
    lock = shoal.RLock()
    with lock, threads(1, lambda: lock.acquire(*args)) as acquired:
        pass
    assert acquired == [False]


def test_the_lock_of_a_killed_holder_passes_on_whole_and_says_so() -> None:
    lock = shoal.RLock()
    killed_in("things.acquire()\nthings.acquire()\nreached.add()", lock)
    assert lock.acquire(timeout=150) and lock.abandoned
    assert repr(lock) == "<RLock(MainProcess, 1)>"
    lock.release()
    with lock:
        assert not lock.abandoned


def test_a_strict_one_refuses_itself_until_it_is_repaired() -> None:
    lock = shoal.RLock(raise_abandoned=True)
    killed_in("things.acquire()\nreached.add()", lock)
    with pytest.raises(shoal.LockAbandoned):
        lock.acquire(timeout=150)
    assert lock.repair() is True
    with lock:
        pass
    lock.release()
    assert lock.acquire() is True


def test_threads_take_turns() -> None:
    lock, inside, seen = shoal.RLock(), [0], []

    def enter() -> None:
        for _ in range(200):
            with lock, lock:
                inside[0] += 1
                seen.append(inside[0])
                inside[0] -= 1

    with threads(4, enter):
        pass
    assert seen == [1] * 800


def test_it_says_whose_it_is() -> None:
    lock = shoal.RLock()
    assert repr(lock) == "<RLock(None, 0)>"
    with lock, lock:
        assert repr(lock) == "<RLock(MainProcess, 2)>"
        with threads(1, lambda: repr(lock)) as other:
            pass
        assert other == ["<RLock(SomeOtherThread, nonzero)>"]
    with stranger("things.acquire()\nreached.add()\ntime.sleep(500)", lock) as process:
        process.reaches()
        assert repr(lock) == "<RLock(SomeOtherProcess, nonzero)>"


def test_ctrl_c_interrupts_the_waiting() -> None:
    wait = """
        lock = shoal.RLock()
        threading.Thread(target=lock.acquire).start()
        while not lock.locked(): pass
        lock.acquire()
    """
    assert interrupted(wait) == "interrupted"


def test_the_end_of_the_interpreter_does_not_wait_for_a_daemon_thread_that_waits() -> None:
    program = """
import shoal, threading
lock = shoal.RLock()
lock.acquire()
threading.Thread(target=lock.acquire, daemon=True).start()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150)
    assert (result.stderr, result.returncode) == ("", 0)
