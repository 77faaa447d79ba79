"""`shoal.Event` is `multiprocessing.Event`, and goes anywhere at any time."""

import time
from typing import Any

import pytest

import shoal
from tests.pool.support import eventually
from tests.sync.support import interrupted, stranger, threads


def test_it_is_set_and_cleared() -> None:
    event = shoal.Event()
    assert event.is_set() is False
    assert event.set() is None and event.is_set() is True
    assert event.set() is None and event.is_set() is True
    assert event.clear() is None and event.is_set() is False


@pytest.mark.parametrize("timeout", [0, -1, 0.01], ids=str)
def test_a_wait_tells_whether_it_was_set(timeout: float) -> None:
    event = shoal.Event()
    assert event.wait(timeout) is False
    event.set()
    assert event.wait(timeout) is True
    assert event.wait() is True


@pytest.mark.parametrize(("wrong", "error"), [("1", TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_no_number_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^timeout must be a number of seconds"):
        shoal.Event().wait(wrong)


def test_all_who_wait_go_on() -> None:
    event = shoal.Event()
    with threads(4, event.wait) as waited:
        event.set()
    assert waited == [True] * 4


def test_who_waits_does_not_miss_an_event_that_is_cleared_at_once() -> None:
    event, answer = shoal.Event(), shoal.Event()
    with stranger("reached.add()\nthings[0].wait()\nthings[1].set()", (event, answer)) as process:
        process.reaches()

        # It may not have come to the wait yet: a pulse now and then gets it in any case.
        def pulse() -> bool:
            event.set()
            event.clear()
            return answer.wait(0.5)

        # Caught asleep, and not by chance in between: that would take many thousand pulses.
        assert eventually(pulse)
        assert process.ends() == 0


def test_workers_wait_for_the_client_and_the_client_for_workers(pool: shoal.Pool) -> None:
    start, done = shoal.Event(), shoal.Event()
    results = [pool.apply_async(lambda: start.wait() and done.set()) for _ in range(2)]
    start.set()
    assert done.wait(100)
    assert [result.get() for result in results] == [None, None]


def test_a_killed_waiter_takes_nothing_with_it() -> None:
    event = shoal.Event()
    with stranger("reached.add()\nthings.wait()", event) as process, threads(1, event.wait) as waited:
        process.reaches()
        process.kill()
        event.set()
    assert waited == [True]


def test_a_timeout_is_kept_to_a_few_milliseconds() -> None:
    event = shoal.Event()

    def late() -> float:
        start = time.monotonic()
        assert not event.wait(0.02)
        return time.monotonic() - start - 0.02

    assert late() >= 0
    # One of many: a busy machine may be late with the others.
    assert eventually(lambda: late() < 0.01)


def test_it_says_whether_it_is_set() -> None:
    event = shoal.Event()
    assert repr(event) == f"<Event at {id(event):#x} unset>"
    event.set()
    assert repr(event) == f"<Event at {id(event):#x} set>"


def test_ctrl_c_interrupts_the_waiting() -> None:
    assert interrupted("shoal.Event().wait()") == "interrupted"
