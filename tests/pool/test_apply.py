"""apply and apply_async: one call in a worker."""

import os
import threading
from pathlib import Path

import pytest

import shoal
from tests.pool import tasks


def test_apply_returns_what_the_function_returns(pool: shoal.Pool) -> None:
    assert pool.apply(tasks.square, (7,)) == 49


def test_apply_calls_in_another_process(pool: shoal.Pool) -> None:
    assert pool.apply(tasks.process_id) != os.getpid()


def test_apply_passes_positional_and_named_arguments(pool: shoal.Pool) -> None:
    assert pool.apply(tasks.add, (1, 2), {"x": 30, "y": 400}) == 433
    assert pool.apply(tasks.add, args=[1, 2], kwds={"x": 30}) == 33
    assert pool.apply(tasks.add) == 0


def test_apply_async_returns_before_the_call_ends(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = pool.apply_async(tasks.wait_for, (gate, "done"))
    assert not result.ready()
    gate.touch()
    assert result.get() == "done"


def test_calls_run_side_by_side(pool: shoal.Pool, tmp_path: Path) -> None:
    """Each of the two waits for a file that the other one creates: one after the other they would never end."""
    left, right = tmp_path / "left", tmp_path / "right"
    first = pool.apply_async(tasks.touch_and_wait, (left, right))
    second = pool.apply_async(tasks.touch_and_wait, (right, left))
    assert (first.get(), second.get()) == (None, None)


def test_more_calls_than_workers_all_return(pool: shoal.Pool) -> None:
    results = [pool.apply_async(tasks.square, (x,)) for x in range(5000)]
    assert [result.get() for result in results] == [x * x for x in range(5000)]


def test_arguments_and_results_of_any_size_arrive_whole(pool: shoal.Pool) -> None:
    for size in (0, 1, 63, 64, 65, 4095, 4096, 4097, 1 << 16, (1 << 20) + 1, 40_000_000):
        content = os.urandom(min(size, 1 << 20)) * (size // (1 << 20) + 1)
        assert pool.apply(tasks.same, (content[:size],)) == content[:size]


def test_an_argument_is_the_tasks_own_copy(pool: shoal.Pool) -> None:
    numbers = [3, 1, 2]
    assert pool.apply(list.sort, (numbers,)) is None
    assert numbers == [3, 1, 2]


def test_an_argument_is_sent_as_it_is_when_it_is_submitted(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    blockers = [pool.apply_async(tasks.wait_for, (gate,)) for _ in range(2)]
    numbers = [1, 2, 3]
    result = pool.apply_async(tasks.same, (numbers,))
    numbers.append(4)
    gate.touch()
    assert result.get() == [1, 2, 3]
    assert [blocker.get() for blocker in blockers] == [None, None]


def test_many_threads_may_submit_at_once(pool: shoal.Pool) -> None:
    answers: dict[int, list[int]] = {}

    def submit(start: int) -> None:
        answers[start] = [pool.apply(tasks.square, (x,)) for x in range(start, start + 50)]

    threads = [threading.Thread(target=submit, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {start: [x * x for x in range(start, start + 50)] for start in range(0, 400, 50)}


def test_what_cannot_be_called_is_a_type_error(pool: shoal.Pool) -> None:
    with pytest.raises(TypeError, match="callable"):
        pool.apply(3)  # type: ignore[arg-type]
