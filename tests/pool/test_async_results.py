"""What apply_async and its kin return: a result to wait for, to ask, and to be called back with."""

import multiprocessing
import time
from pathlib import Path

import pytest

import shoal
from tests.conftest import Run
from tests.pool import tasks


def test_get_gives_the_same_answer_each_time(pool: shoal.Pool) -> None:
    result = pool.apply_async(tasks.square, (5,))
    assert [result.get(), result.get(timeout=0)] == [25, 25]


def test_get_raises_the_tasks_exception_each_time(pool: shoal.Pool) -> None:
    result = pool.apply_async(tasks.fail, ("broken",))
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            result.get()


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_get_waits_no_longer_than_its_timeout(pool: shoal.Pool, tmp_path: Path, timeout: float) -> None:
    gate = tmp_path / "gate"
    result = pool.apply_async(tasks.wait_for, (gate, "done"))
    before = time.monotonic()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout)
    assert time.monotonic() - before >= timeout
    gate.touch()
    assert result.get(timeout=150) == "done"


def test_wait_returns_when_the_task_has_ended_or_the_time_is_over(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = pool.apply_async(tasks.wait_for, (gate,))
    result.wait(timeout=0.01)
    assert not result.ready()
    gate.touch()
    result.wait()
    assert result.ready()


def test_wait_does_not_raise_the_tasks_exception(pool: shoal.Pool) -> None:
    result = pool.apply_async(tasks.fail)
    result.wait()
    assert result.ready()


def test_successful_tells_how_the_task_ended(pool: shoal.Pool) -> None:
    good, bad = pool.apply_async(tasks.square, (2,)), pool.apply_async(tasks.fail)
    good.wait()
    bad.wait()
    assert good.successful()
    assert not bad.successful()


def test_successful_is_an_error_before_the_task_has_ended(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = pool.apply_async(tasks.wait_for, (gate,))
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    gate.touch()
    result.wait()
    assert result.successful()


def test_the_callback_gets_the_result_before_get_returns(pool: shoal.Pool) -> None:
    seen: list[object] = []
    errors: list[BaseException] = []
    pool.apply_async(tasks.square, (3,), callback=seen.append, error_callback=errors.append).get()
    pool.map_async(tasks.square, [1, 2], callback=seen.append, error_callback=errors.append).wait()
    pool.starmap_async(tasks.add, [(1, 2)], callback=seen.append, error_callback=errors.append).get()
    assert seen == [9, [1, 4], [3]]
    assert errors == []


def test_the_error_callback_gets_the_exception_before_get_raises(pool: shoal.Pool) -> None:
    seen: list[object] = []
    errors: list[BaseException] = []
    one = pool.apply_async(tasks.fail, ("one",), callback=seen.append, error_callback=errors.append)
    with pytest.raises(ValueError, match="one"):
        one.get()
    pool.map_async(tasks.fail, ["two"], callback=seen.append, error_callback=errors.append).wait()
    assert [str(error) for error in errors] == ["one", "two"]
    assert seen == []


def test_callbacks_come_without_anyone_waiting(pool: shoal.Pool, tmp_path: Path) -> None:
    called = tmp_path / "called"
    pool.apply_async(tasks.same, (called,), callback=tasks.touch)
    tasks.wait_for(called)


def test_a_callback_may_submit(pool: shoal.Pool, tmp_path: Path) -> None:
    called = tmp_path / "called"
    pool.apply_async(tasks.same, (called,), callback=lambda path: pool.apply_async(tasks.touch, (path,)))
    tasks.wait_for(called)


def test_a_callback_that_fails_is_reported_and_harms_no_one(run: Run) -> None:
    program = run(
        """
        import shoal

        def careless(result):
            raise RuntimeError("careless callback")

        with shoal.Pool(2) as pool:
            print(pool.apply_async(len, ("abc",), callback=careless).get())
            print(pool.map(len, ["a", "ab"]))
        """
    )
    assert (program.returncode, program.stdout) == (0, "3\n[1, 2]\n")
    assert "careless callback" in program.stderr


@pytest.mark.parametrize("name", ["callback", "error_callback"])
def test_a_callback_that_cannot_be_called_is_a_type_error(pool: shoal.Pool, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        pool.apply_async(tasks.square, (1,), **{name: 3})


def test_a_result_that_nobody_keeps_is_no_trouble(pool: shoal.Pool) -> None:
    for x in range(1000):
        pool.apply_async(tasks.square, (x,))
    assert pool.apply(tasks.square, (3,)) == 9
