"""A task whose worker died, or that raised what is a reason to try again, is tried again."""

import signal
import time
from pathlib import Path

import pytest

import shoal
from tests.faults import tasks
from tests.pool.tasks import square


class TransientError(Exception):
    """An exception of the user's own."""


def test_without_retries_one_death_is_the_end(pool: shoal.Pool, tmp_path: Path) -> None:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(tasks.die_at_first, (tmp_path / "calls", 1))
    assert (caught.value.tries, caught.value.earlier) == (1, ())
    assert (tmp_path / "calls").stat().st_size == 1


def test_a_task_whose_worker_died_is_tried_again(pool: shoal.Pool, tmp_path: Path) -> None:
    assert pool.apply(tasks.die_at_first, (tmp_path / "calls", 3), retries=3) == 4


def test_one_that_ends_each_worker_is_given_up_with_the_story_of_each_death(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(tasks.die_by, (signal.SIGKILL,), retries=2)
    error = caught.value
    assert error.tries == 3 and len(error.earlier) == 2
    assert all("killed by signal 9 (SIGKILL)" in death for death in error.earlier)
    assert "given up after 3 tries" in str(error)
    assert all(death in str(error) for death in error.earlier)


def test_an_exception_is_a_reason_only_if_it_was_named(pool: shoal.Pool, tmp_path: Path) -> None:
    arguments = tmp_path / "one", 2
    assert pool.apply(tasks.fail_at_first, arguments, retries=2, retry_on=ConnectionError) == 3
    with pytest.raises(ConnectionError, match="call 1"):
        pool.apply(tasks.fail_at_first, (tmp_path / "two", 2), retries=2)
    with pytest.raises(ConnectionError, match="call 1"):
        pool.apply(tasks.fail_at_first, (tmp_path / "three", 2), retries=2, retry_on=(ValueError, KeyError))


def test_the_exception_of_the_last_try_is_the_end(pool: shoal.Pool, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="call 3"):
        pool.apply(tasks.fail_at_first, (tmp_path / "calls", 9), retries=2, retry_on=OSError)


def test_exceptions_of_the_users_own_may_be_reasons(pool: shoal.Pool, tmp_path: Path) -> None:
    class LocalError(Exception):
        pass

    def fail_once(path: Path) -> int:
        if (number := tasks.call_number(path)) == 1:
            raise LocalError
        return number

    assert pool.apply(fail_once, (tmp_path / "local",), retries=1, retry_on=LocalError) == 2
    arguments = tmp_path / "own", 1, TransientError
    assert pool.apply(tasks.fail_at_first, arguments, retries=1, retry_on=(KeyError, TransientError)) == 2


def test_an_overrun_is_a_reason_if_it_was_named(pool: shoal.Pool, tmp_path: Path) -> None:
    options = {"timeout": 0.3, "retries": 1}
    with pytest.raises(shoal.TaskTimeout):
        pool.apply(tasks.hang_at_first, (tmp_path / "one", 1), **options)  # type: ignore[arg-type]
    with pytest.raises(shoal.TaskTimeout, match="at each of 2 tries"):
        pool.apply(time.sleep, (3600,), retry_on=shoal.TaskTimeout, **options)  # type: ignore[arg-type]
    # A busy machine may make further tries take too long.
    assert pool.apply(tasks.hang_at_first, (tmp_path / "two", 1), timeout=1, retries=30, retry_on=TimeoutError) >= 2


def test_each_try_gets_the_arguments_as_they_were(pool: shoal.Pool, tmp_path: Path) -> None:
    arguments = tmp_path / "calls", [0, 1]
    assert pool.apply(tasks.spoil_and_fail_at_first, arguments, retries=1, retry_on=OSError) == [0, 1, 2]


def test_in_a_map_each_item_has_its_tries(pool: shoal.Pool, tmp_path: Path) -> None:
    items = [(tmp_path / f"{n}", n % 3) for n in range(9)]
    assert pool.starmap(tasks.fail_at_first, items, retries=2, retry_on=OSError) == [n % 3 + 1 for n in range(9)]
    items = [(tmp_path / f"deadly{n}", n % 2) for n in range(6)]
    assert pool.starmap(tasks.die_at_first, items, retries=1) == [n % 2 + 1 for n in range(6)]


def test_in_a_stream_too(pool: shoal.Pool, tmp_path: Path) -> None:
    def flaky(n: int) -> int:
        return tasks.fail_at_first(tmp_path / f"{n}", n % 2)

    assert list(pool.imap(flaky, range(6), retries=1, retry_on=OSError)) == [1, 2] * 3


def test_before_another_try_there_is_a_pause_that_doubles_and_others_run_meanwhile(tmp_path: Path) -> None:
    with shoal.Pool(1) as pool:
        started = time.monotonic()
        options = {"retries": 2, "retry_on": OSError, "retry_delay": 0.1}
        result = pool.apply_async(tasks.fail_at_first, (tmp_path / "calls", 2), **options)  # type: ignore[arg-type]
        assert pool.apply(square, (3,)) == 9
        assert result.get() == 3
        assert time.monotonic() - started >= 0.3


def test_a_closed_pool_still_tries(tmp_path: Path) -> None:
    pool = shoal.Pool(1)
    result = pool.apply_async(tasks.die_at_first, (tmp_path / "calls", 2), retries=2, retry_delay=0.05)
    pool.close()
    pool.join()
    assert result.get() == 3


def test_nobody_has_to_wait_for_a_result_for_it_to_be_tried_again(pool: shoal.Pool, tmp_path: Path) -> None:
    pool.apply_async(tasks.fail_at_first, (tmp_path / "calls", 1), retries=1, retry_on=OSError)
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls").exists() or (tmp_path / "calls").stat().st_size < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
