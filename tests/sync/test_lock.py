"""`shoal.Lock` is `multiprocessing.Lock`, and goes anywhere at any time."""

import multiprocessing
import os
import signal
import threading
from typing import Any

import pytest

import shoal
from tests.pool.support import eventually
from tests.sync.support import interrupted, killed_in, stranger, threads


def test_it_is_taken_and_let_go() -> None:
    lock = shoal.Lock()
    assert not lock.locked()
    assert lock.acquire() is True
    assert lock.locked()
    lock.release()
    assert not lock.locked()


def test_with_takes_it_and_lets_it_go_also_after_an_error() -> None:
    lock = shoal.Lock()
    with pytest.raises(KeyError), lock as taken:
        assert taken is True and lock.locked()
        raise KeyError
    assert not lock.locked()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((False,), {}),
        ((), {"block": False}),
        ((), {"timeout": 0}),
        ((), {"timeout": -1}),
        ((True, -1e300), {}),
        ((), {"timeout": 0.01}),
        ((False, 1000), {}),
        ((False, "ignored"), {}),
        ((), {"timeout": float("-inf")}),
    ],
    ids=str,
)
def test_a_locked_one_is_not_taken_without_waiting_for_ever(args: Any, kwargs: Any) -> None:
    lock = shoal.Lock()
    lock.acquire()
    assert lock.acquire(*args, **kwargs) is False
    lock.release()
    assert lock.acquire(*args, **kwargs) is True


@pytest.mark.parametrize("timeout", [None, 50, 1e12, float("inf")])
def test_who_waits_long_enough_gets_it(timeout: float | None) -> None:
    lock = shoal.Lock()
    lock.acquire()
    taken: list[bool] = []
    waiter = threading.Thread(target=lambda: taken.append(lock.acquire(timeout=timeout)))
    waiter.start()
    lock.release()
    waiter.join()
    assert taken == [True]


def test_it_is_not_reentrant() -> None:
    lock = shoal.Lock()
    with lock:
        assert not lock.acquire(timeout=0.01)


def test_releasing_what_is_not_locked_is_a_value_error_as_in_multiprocessing() -> None:
    lock = shoal.Lock()
    with pytest.raises(ValueError, match="not locked"):
        lock.release()
    assert lock.acquire(block=False)


@pytest.mark.parametrize("timeout", ["1", b"1", [1], 1j], ids=repr)
def test_a_timeout_that_is_no_number_is_refused(timeout: Any) -> None:
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds"):
        shoal.Lock().acquire(timeout=timeout)


def test_a_timeout_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        shoal.Lock().acquire(timeout=float("nan"))


def test_it_says_whose_it_is() -> None:
    lock = shoal.Lock()
    assert repr(lock) == "<Lock(owner=None)>"
    with lock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
    with stranger("things.acquire()\nreached.add()\ntime.sleep(500)", lock) as process:
        process.reaches()
        assert repr(lock) == "<Lock(owner=SomeOtherProcess)>"


def test_workers_take_turns(pool: shoal.Pool) -> None:
    lock, total = shoal.Lock(), shoal.zeros(1, "int64")

    def add(times: int) -> None:
        for _ in range(times):
            with lock:
                total[0] += 1

    pool.map(add, [500] * 8)
    assert total[0] == 4000


def test_threads_take_turns() -> None:
    lock, inside, seen = shoal.Lock(), [0], []

    def enter() -> None:
        for _ in range(200):
            with lock:
                inside[0] += 1
                seen.append(inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 800


def test_one_process_may_release_what_another_took(pool: shoal.Pool) -> None:
    lock = shoal.Lock()
    lock.acquire()
    pool.apply(lock.release)
    assert lock.acquire(block=False)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_of_multiprocessing_uses_it(method: str) -> None:
    lock, reached, passed = shoal.Lock(), shoal.Counter(), shoal.Counter()
    program = "reached.add()\nwith lock: passed.add()"
    scope = {"lock": lock, "reached": reached, "passed": passed}
    with lock:
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=exec, args=(program, scope))
        process.start()
        assert eventually(lambda: reached.value)
        assert passed.value == 0
    process.join()
    assert process.exitcode == 0 and passed.value == 1


def test_the_lock_of_a_killed_holder_passes_on_and_says_so() -> None:
    lock = shoal.Lock()
    with lock:
        assert not lock.abandoned
    killed_in("things.acquire()\nreached.add()", lock)
    assert lock.acquire(timeout=150)
    assert lock.abandoned
    lock.release()
    with lock:
        assert not lock.abandoned


def test_who_waits_gets_the_lock_of_a_killed_holder() -> None:
    lock = shoal.Lock()
    with stranger("things.acquire()\nreached.add()\ntime.sleep(500)", lock) as process:
        process.reaches()
        with threads(3, lambda: lock.acquire() and (lock.abandoned, lock.release())) as acquired:
            process.kill()
    assert sorted(acquired) == [(False, None), (False, None), (True, None)]


def test_a_strict_one_refuses_itself_until_it_is_repaired() -> None:
    lock = shoal.Lock(raise_abandoned=True)
    with lock:
        pass
    killed_in("things.acquire()\nreached.add()", lock)
    for _ in range(2):
        with pytest.raises(shoal.LockAbandoned, match="half changed"), lock:
            pass
        with pytest.raises(shoal.LockAbandoned):
            lock.acquire(block=False)
    assert lock.abandoned and not lock.locked()
    assert lock.repair() is True
    assert not lock.abandoned and lock.locked()
    lock.release()
    with lock:
        assert not lock.repair(block=False), "it is taken"


def test_all_who_wait_for_a_strict_one_are_told() -> None:
    lock = shoal.Lock(raise_abandoned=True)
    with stranger("things.acquire()\nreached.add()\ntime.sleep(500)", lock) as process:
        process.reaches()
        with threads(3, lock.acquire) as acquired:
            process.kill()
    assert [type(error) for error in acquired] == [shoal.LockAbandoned] * 3


def test_the_lock_of_a_killed_worker_passes_on(pool: shoal.Pool) -> None:
    lock = shoal.Lock()
    with pytest.raises(shoal.WorkerDied):
        pool.apply(lambda: lock.acquire() and os.kill(os.getpid(), signal.SIGKILL))
    assert lock.acquire(timeout=150) and lock.abandoned


def test_ctrl_c_interrupts_the_waiting() -> None:
    assert interrupted("lock = shoal.Lock()\nlock.acquire()\nlock.acquire()") == "interrupted"
