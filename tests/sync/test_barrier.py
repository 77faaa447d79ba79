"""`shoal.Barrier` is `multiprocessing.Barrier`, and breaks when a party dies in it."""

import threading
from typing import Any

import pytest

import shoal
from tests.pool.support import eventually
from tests.sync.support import interrupted, stranger, threads

Broken = threading.BrokenBarrierError


def waiting(barrier: shoal.Barrier, count: int) -> bool:
    return eventually(lambda: barrier.n_waiting == count)


def test_nobody_goes_on_before_all_are_there(pool: shoal.Pool) -> None:
    barrier, count = shoal.Barrier(2), shoal.Counter()

    def work(_: int) -> list[int]:
        seen = []
        for _ in range(100):
            count.add()
            barrier.wait()
            seen.append(count.value)
            barrier.wait()
        return seen

    for seen in pool.map(work, range(2), chunksize=1):
        assert seen == list(range(2, 201, 2))


def test_each_party_has_a_number_of_its_own() -> None:
    barrier = shoal.Barrier(5)
    with threads(5, barrier.wait) as numbers:
        pass
    assert sorted(numbers) == [0, 1, 2, 3, 4]


def test_the_last_one_to_come_does_what_is_to_be_done() -> None:
    done: list[int] = []
    barrier = shoal.Barrier(3, lambda: done.append(threading.get_ident()))
    with threads(3, lambda: (barrier.wait(), len(done), threading.get_ident())) as parties:
        pass
    assert [seen for _, seen, _ in parties] == [1, 1, 1]
    assert done == [thread for number, _, thread in parties if number == 2]


def test_an_action_that_fails_breaks_the_barrier() -> None:
    def fail() -> None:
        raise KeyError("action")

    barrier = shoal.Barrier(2, action=fail)
    with threads(2, barrier.wait) as ended:
        pass
    assert {type(error) for error in ended} == {KeyError, Broken}
    assert barrier.broken


def test_a_barrier_of_one_lets_it_through() -> None:
    barrier = shoal.Barrier(1)
    assert [barrier.wait(), barrier.wait(0)] == [0, 0]


@pytest.mark.parametrize(
    "make",
    [lambda: (shoal.Barrier(2), (0.01,)), lambda: (shoal.Barrier(2, timeout=0.01), ())],
    ids=["of its own", "the usual"],
)
def test_who_loses_patience_breaks_it_for_all_until_it_is_reset(make: Any) -> None:
    barrier, args = make()
    with pytest.raises(Broken):
        barrier.wait(*args)
    assert barrier.broken and barrier.n_waiting == 0
    with pytest.raises(Broken):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken
    with threads(2, lambda: barrier.wait(100)) as numbers:
        pass
    assert sorted(numbers) == [0, 1]


@pytest.mark.parametrize("breaks", ["abort", "reset"])
def test_who_waits_is_told_that_it_was_broken_or_reset(breaks: str) -> None:
    barrier = shoal.Barrier(4)
    with threads(3, barrier.wait) as ended:
        assert waiting(barrier, 3)
        getattr(barrier, breaks)()
    assert [type(error) for error in ended] == [Broken] * 3
    assert barrier.broken == (breaks == "abort")


def test_a_party_that_is_killed_while_it_waits_breaks_it_and_the_others_are_told() -> None:
    barrier = shoal.Barrier(3)
    with stranger("reached.add()\nthings.wait()", barrier) as process, threads(1, barrier.wait) as ended:
        process.reaches()
        assert waiting(barrier, 2)
        process.kill()
    assert isinstance(ended[0], Broken) and "a process died while it waited" in str(ended[0])
    with pytest.raises(Broken, match="a process died while it waited"):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken


def test_a_party_that_is_killed_in_the_action_breaks_it() -> None:
    program = "barrier = shoal.events._barrier(shoal.Barrier, lambda: (reached.add(), time.sleep(500)), None, things)\n"
    barrier = shoal.Barrier(2)
    with (
        stranger("import shoal.events\n" + program + "barrier.wait()", barrier._to_handle()) as process,
        threads(1, barrier.wait) as ended,
    ):
        process.reaches()
        process.kill()
    assert isinstance(ended[0], Broken)


def test_a_party_that_is_killed_after_it_went_on_breaks_nothing() -> None:
    barrier, dead = shoal.Barrier(2), shoal.Lock()
    with stranger("things[1].acquire()\nthings[0].wait()\nreached.add()\ntime.sleep(500)", (barrier, dead)) as process:
        barrier.wait()
        process.reaches()
        process.kill()
    assert dead.acquire(timeout=150) and dead.abandoned, "its death has been noticed"
    assert not barrier.broken


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((0,), ValueError, "^parties must be 1 to 65535"),
        ((-1,), ValueError, "^parties must be 1 to 65535"),
        ((65536,), ValueError, "^parties must be 1 to 65535"),
        (("2",), TypeError, "^parties must be an integer"),
        ((), TypeError, "^parties must be an integer"),
        ((2, 5), TypeError, "^action must be callable"),
    ],
    ids=str,
)
def test_what_is_no_barrier_is_refused(args: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shoal.Barrier(*args)


def test_it_says_who_waits() -> None:
    barrier = shoal.Barrier(3)
    assert repr(barrier) == f"<Barrier at {id(barrier):#x}: waiters=0/3>"
    barrier.abort()
    assert repr(barrier) == f"<Barrier at {id(barrier):#x}: broken>"


def test_ctrl_c_interrupts_the_waiting_and_does_not_break_it() -> None:
    program = """
        barrier = shoal.Barrier(2)
        try:
            barrier.wait()
        finally:
            assert not barrier.broken and barrier.n_waiting == 0
    """
    assert interrupted(program) == "interrupted"


@pytest.mark.parametrize(("timeout", "error"), [("soon", TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_none_is_an_error_at_once(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout must be a number of seconds or None"):
        shoal.Barrier(2, None, timeout)
