"""`shoal.Condition` is `multiprocessing.Condition`, and nobody waits for ever because another died."""

import textwrap
import threading
from typing import Any

import pytest

import shoal
from tests.pool.support import eventually
from tests.sync.support import interrupted, killed_in, stranger, threads


def wait(condition: shoal.Condition, timeout: float | None = None) -> bool:
    with condition:
        return condition.wait(timeout)


def waiting(condition: shoal.Condition, count: int) -> bool:
    return eventually(lambda: condition._waiting == count)


def test_as_many_go_on_as_are_notified() -> None:
    condition = shoal.Condition()
    with threads(6, lambda: wait(condition)) as waited:
        left = 6
        for notify in (1, 2, 100):
            assert waiting(condition, left)
            with condition:
                condition.notify(notify)
            left -= min(notify, left)
            assert eventually(lambda left=left: len(waited) == 6 - left)  # type: ignore[misc]
    assert waited == [True] * 6


def test_all_go_on_processes_too(pool: shoal.Pool) -> None:
    condition = shoal.Condition(shoal.Lock())
    results = [pool.apply_async(wait, (condition,)) for _ in range(2)]
    with threads(2, lambda: wait(condition)) as waited:
        assert waiting(condition, 4)
        with condition:
            condition.notify_all()
    assert waited == [True, True] and [result.get(100) for result in results] == [True, True]


def go_round(condition: shoal.Condition, arrived: shoal.Counter, parties: int) -> bool:
    """Meets the others again and again, at a barrier made by hand."""
    for turn in range(1, 201):
        with condition:
            if arrived.add() == turn * parties:
                condition.notify_all()
            while arrived.value < turn * parties:
                # The last one to come may wait for the next turn before this one has read its notification.
                assert condition.wait(100), f"not notified in turn {turn}"
    return True


def go_round_in_threads(count: int, condition: shoal.Condition, arrived: shoal.Counter, parties: int) -> list[Any]:
    with threads(count, lambda: go_round(condition, arrived, parties)) as went:
        pass
    return went


@pytest.mark.parametrize("lock", [shoal.Lock, shoal.RLock])
def test_who_comes_later_takes_no_notification_of_an_earlier_one(lock: Any) -> None:
    assert go_round_in_threads(3, shoal.Condition(lock()), shoal.Counter(), 3) == [True] * 3


def test_nor_do_the_threads_of_two_processes(pool: shoal.Pool) -> None:
    condition, arrived = shoal.Condition(), shoal.Counter()
    elsewhere = pool.apply_async(go_round_in_threads, (2, condition, arrived, 4))
    assert go_round_in_threads(2, condition, arrived, 4) == [True] * 2
    assert elsewhere.get(150) == [True] * 2


def test_the_time_may_be_up() -> None:
    condition = shoal.Condition()
    assert [wait(condition, timeout) for timeout in (0, -1, 0.01)] == [False] * 3
    with condition:
        condition.notify_all()
    assert wait(condition, 0) is False, "a notification is for those who wait"


@pytest.mark.parametrize("lock", [shoal.Lock, shoal.RLock])
def test_who_waits_does_not_have_the_lock_and_has_it_again_afterwards(lock: Any) -> None:
    condition = shoal.Condition(lock())
    with condition:
        assert condition.wait(0.01) is False
        assert condition._lock.locked()
    assert not condition._lock.locked()
    with threads(1, lambda: wait(condition)) as waited:
        assert waiting(condition, 1)
        assert condition.acquire(timeout=150)
        condition.notify()
        assert not waited
        condition.release()
    assert waited == [True]


def test_a_lock_that_was_taken_twice_is_taken_back_twice() -> None:
    condition = shoal.Condition()
    with condition, condition:
        assert condition.wait(0.01) is False
        assert repr(condition) == "<Condition(<RLock(MainProcess, 2)>, 0)>"


def test_nobody_waits_or_notifies_without_the_lock() -> None:
    for lock in (shoal.Lock(), shoal.RLock()):
        condition = shoal.Condition(lock)
        for act in (condition.wait, condition.notify, condition.notify_all):
            with pytest.raises(AssertionError):
                act()


def test_that_another_thread_has_the_reentrant_lock_is_not_enough() -> None:
    condition = shoal.Condition()
    with condition, threads(1, condition.notify) as notified:
        pass
    assert isinstance(notified[0], AssertionError)


def test_wait_for_waits_until_it_is_so(pool: shoal.Pool) -> None:
    condition, state = shoal.Condition(), shoal.Counter()

    def step() -> None:
        for _ in range(4):
            with condition:
                state.add()
                condition.notify()

    with condition:
        result = pool.apply_async(step)
        assert condition.wait_for(lambda: state.value == 4 and "all of them", timeout=150) == "all of them"
        assert condition.wait_for(lambda: state.value == 5, timeout=0.01) is False
    result.get()


@pytest.mark.parametrize("wrong", [1, "lock", threading.Lock()], ids=["number", "text", "of threading"])
def test_what_is_no_lock_of_shoal_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^lock must be a shoal.Lock or shoal.RLock"):
        shoal.Condition(wrong)


def test_a_negative_number_to_notify_is_refused() -> None:
    condition = shoal.Condition()
    with condition, pytest.raises(ValueError, match=r"^n must be 0 or more"):
        condition.notify(-1)


def test_two_conditions_share_a_lock() -> None:
    lock = shoal.RLock()
    first, second = shoal.Condition(lock), shoal.Condition(lock)
    with first:
        second.notify()
    with threads(1, lambda: wait(first)) as waited:
        assert waiting(first, 1)
        with second:
            second.notify_all()
        assert not waited
        with second:
            first.notify()
    assert waited == [True]


def test_a_killed_waiter_takes_no_notification_with_it() -> None:
    condition, dead = shoal.Condition(), shoal.Lock()
    program = "things[1].acquire()\nreached.add()\nwith things[0]: things[0].wait()"
    with stranger(program, (condition, dead)) as process:
        process.reaches()
        assert waiting(condition, 1)
        process.kill()
        assert dead.acquire(timeout=150) and dead.abandoned, "its death has been noticed"
        assert waiting(condition, 0)
    with threads(1, lambda: wait(condition)) as waited:
        assert waiting(condition, 1)
        with condition:
            condition.notify()
    assert waited == [True]


def test_who_waits_goes_on_when_a_holder_of_the_lock_is_killed() -> None:
    condition = shoal.Condition()
    with threads(2, lambda: wait(condition)) as waited:
        assert waiting(condition, 2)
        killed_in("things.acquire()\nreached.add()", condition)
    assert waited == [True, True]


def test_other_deaths_do_not_disturb_who_waits() -> None:
    condition, dead = shoal.Condition(), shoal.Lock()
    with threads(1, lambda: wait(condition)) as waited:
        assert waiting(condition, 1)
        killed_in("things[1].acquire()\nwith things[0]: pass\nreached.add()", (condition, dead))
        assert dead.acquire(timeout=150) and dead.abandoned, "its death has been noticed"
        assert not waited and condition._waiting == 1
        with condition:
            condition.notify()
    assert waited == [True]


def test_with_a_strict_lock_who_waits_is_told_of_a_death_in_it() -> None:
    lock = shoal.RLock(raise_abandoned=True)
    condition = shoal.Condition(lock)
    with threads(1, lambda: wait(condition)) as waited:
        assert waiting(condition, 1)
        killed_in("things.acquire()\nreached.add()", condition)
    assert isinstance(waited[0], shoal.LockAbandoned)
    with pytest.raises(shoal.LockAbandoned):
        lock.acquire()
    assert lock.repair()
    lock.release()
    with condition:
        condition.notify()


def test_ctrl_c_interrupts_the_waiting_and_the_lock_is_had_again() -> None:
    program = """
        condition = shoal.Condition()
        with condition:
            try:
                condition.wait()
            finally:
                condition.notify()
    """
    assert interrupted(program) == "interrupted"


def test_who_is_interrupted_on_the_way_back_to_the_lock_leaves_the_notification_to_another() -> None:
    program = """
        condition, waited = shoal.Condition(), []
        def wait():
            with condition:
                waited.append(condition.wait(100))
        def notify_one_and_interrupt():
            while condition._waiting < 1:
                time.sleep(0.01)
            other.start()
            while condition._waiting < 2:
                time.sleep(0.01)
            with condition:
                # The main thread has waited longer. It is on its way back when it is interrupted.
                condition.notify()
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
        other = threading.Thread(target=wait)
        threading.Thread(target=notify_one_and_interrupt).start()
        with condition:
            try:
                condition.wait()
                sys.exit("not interrupted")
            except KeyboardInterrupt:
                pass
        other.join()
        sys.exit(0 if waited == [True] else f"the other: {waited}")
    """
    with stranger("import os, signal\n" + textwrap.dedent(program), None) as process:
        assert process.ends() == 0
