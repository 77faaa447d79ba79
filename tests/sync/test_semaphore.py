"""`shoal.Semaphore` and `BoundedSemaphore` are `multiprocessing`'s, and permits of the dead come back."""

from typing import Any

import pytest

import shoal
from tests.pool.support import eventually
from tests.sync.support import interrupted, killed_in, stranger, threads


def test_permits_are_taken_and_given_back() -> None:
    semaphore = shoal.Semaphore(2)
    assert [semaphore.acquire(), semaphore.acquire(), semaphore.acquire(False)] == [True, True, False]
    assert semaphore.get_value() == 0
    assert semaphore.release() is None
    with semaphore as taken:
        assert taken is True and semaphore.get_value() == 0
    assert semaphore.get_value() == 1


def test_there_is_one_permit_by_default_and_there_may_be_more_later() -> None:
    semaphore = shoal.Semaphore()
    for _ in range(3):
        semaphore.release()
    assert semaphore.get_value() == 4


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_bounded_one_has_never_more_than_at_first(most: int) -> None:
    semaphore = shoal.BoundedSemaphore(most)
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    for _ in range(most):
        assert semaphore.acquire(block=False)
    assert not semaphore.acquire(block=False)
    for _ in range(most):
        semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    assert semaphore.get_value() == most
    assert isinstance(semaphore, shoal.Semaphore)


@pytest.mark.parametrize("kind", [shoal.Semaphore, shoal.BoundedSemaphore])
@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (2**31, ValueError), ("2", TypeError), (1.0, TypeError)], ids=str
)
def test_a_value_that_is_no_number_of_permits_is_refused(kind: Any, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^value must be "):
        kind(wrong)


def test_there_are_never_more_than_an_int_can_tell() -> None:
    semaphore = shoal.Semaphore(2**31 - 1)
    with pytest.raises(ValueError, match="too many times"):
        semaphore.release()
    assert semaphore.acquire() and semaphore.get_value() == 2**31 - 2


@pytest.mark.parametrize("args", [(False,), (False, "ignored"), (True, 0), (True, -5.0), (True, 0.01)], ids=str)
def test_nobody_waits_longer_than_it_wants(args: Any) -> None:
    assert shoal.Semaphore(0).acquire(*args) is False


def test_each_release_lets_one_waiter_go_on() -> None:
    semaphore = shoal.Semaphore(0)
    with threads(3, semaphore.acquire) as acquired:
        for count in range(1, 4):
            semaphore.release()
            assert eventually(lambda count=count: len(acquired) == count)  # type: ignore[misc]
    assert acquired == [True] * 3 and semaphore.get_value() == 0


def test_never_more_than_so_many_are_inside(pool: shoal.Pool) -> None:
    semaphore, inside, most = shoal.Semaphore(1), shoal.Counter(), shoal.Counter()

    def enter(_: int) -> None:
        for _ in range(100):
            with semaphore:
                if inside.add() > 1:
                    most.add()
                inside.add(-1)

    pool.map(enter, range(4))
    assert (most.value, semaphore.get_value()) == (0, 1)


@pytest.mark.parametrize("kind", [shoal.Semaphore, shoal.BoundedSemaphore])
def test_permits_of_a_killed_process_come_back_and_are_counted(kind: Any) -> None:
    semaphore = kind(3)
    assert semaphore.acquire()
    killed_in("things.acquire()\nthings.acquire()\nreached.add()", semaphore)
    for _ in range(2):
        assert semaphore.acquire(timeout=150)
    assert semaphore.recovered == 2
    assert not semaphore.acquire(block=False), "what others have is theirs"


def test_a_waiter_gets_the_permit_of_a_killed_process() -> None:
    semaphore = shoal.Semaphore(1)
    with stranger("things.acquire()\nreached.add()\ntime.sleep(500)", semaphore) as process:
        process.reaches()
        with threads(1, semaphore.acquire) as acquired:
            process.kill()
        assert acquired == [True]


def test_what_a_killed_process_gave_back_does_not_come_twice() -> None:
    semaphore = shoal.Semaphore(2)
    killed_in("things.acquire()\nthings.acquire()\nthings.release()\nreached.add()", semaphore)
    assert eventually(lambda: (semaphore.recovered, semaphore.get_value()) == (1, 2))


def test_messages_that_a_killed_process_had_read_do_not_come_again() -> None:
    semaphore, dead = shoal.Semaphore(0), shoal.Lock()
    for _ in range(3):
        semaphore.release()
    killed_in("[thing.acquire() for thing in things]\nreached.add()", (semaphore, semaphore, dead))
    assert dead.acquire(timeout=150) and dead.abandoned, "its death has been noticed"
    assert (semaphore.get_value(), semaphore.recovered) == (1, 0)


def test_they_say_how_many_permits_there_are() -> None:
    assert repr(shoal.Semaphore(3)) == "<Semaphore(value=3)>"
    semaphore = shoal.BoundedSemaphore(3)
    semaphore.acquire()
    assert repr(semaphore) == "<BoundedSemaphore(value=2, maxvalue=3)>"


def test_ctrl_c_interrupts_the_waiting() -> None:
    assert interrupted("shoal.Semaphore(0).acquire()") == "interrupted"
