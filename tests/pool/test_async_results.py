"""What apply_async and its kin return: a result to wait for, to ask, and to be called back with."""

import gc
import multiprocessing
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.conftest import Run
from tests.pool import tasks
from tests.pool.support import eventually


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


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_map_that_is_done_is_not_cancelled(kind: str) -> None:
    with shoal.Pool(1, kind=kind) as pool:
        result = pool.map_async(abs, [-1, 2])
        assert pool.apply(tasks.square, (3,)) == 9  # the only worker came to it behind the map
        assert not result.cancel()
        assert result.get() == [1, 2]


def test_callbacks_are_called_one_at_a_time(pool: shoal.Pool) -> None:
    at_once, most = 0, []

    def callback(_: object) -> None:
        nonlocal at_once
        at_once += 1
        time.sleep(0.01)
        most.append(at_once)
        at_once -= 1

    results = [pool.apply_async(tasks.square, (x,), callback=callback) for x in range(10)]
    maps = [pool.map_async(tasks.square, range(3), callback=callback) for _ in range(3)]
    for result in (*results, *maps):
        result.get()
    assert most == [1] * 13


@pytest.mark.parametrize("first", ["map", "call"])
@pytest.mark.parametrize("second", ["map", "call"])
def test_a_callback_may_take_the_result_of_another_that_has_one(pool: shoal.Pool, first: str, second: str) -> None:
    def submit(kind: str, callback: Callable[[Any], object]) -> Any:
        if kind == "map":
            return pool.map_async(tasks.square, [2], callback=callback)
        return pool.apply_async(tasks.square, (2,), callback=callback)

    seen: list[object] = []
    # Not all of it in one moment: also one whose thread waits for its turn by then.
    other = submit(second, lambda _: time.sleep(0.05))
    result = submit(first, lambda _: seen.extend((other.get(), submit(second, seen.append).get())))
    result.get()
    four = [4] if second == "map" else 4
    assert seen == [four, four, four]


def test_a_map_is_done_for_its_own_callback(pool: shoal.Pool) -> None:
    seen: list[object] = []
    result = pool.map_async(tasks.square, [2], callback=lambda _: seen.extend((result.cancel(), result.get(), ready())))
    ready = result.ready
    assert result.get() == [4]
    assert seen == [False, [4], True]


def test_who_takes_a_result_and_runs_the_callback_can_not_join_in_it_either() -> None:
    raised: list[str] = []

    def callback(_: object) -> None:
        try:
            pool.join()
        except RuntimeError as error:
            raised.append(str(error))

    with shoal.Pool(1) as pool:
        result = pool.map_async(tasks.square, [2], callback=callback)
        pool.close()
        result.get()
    assert "wait for itself" in raised[0]


def test_a_callback_can_not_join_its_pool_and_is_told_so() -> None:
    raised: list[BaseException] = []

    def callback(_: object) -> None:
        pool.close()
        try:
            pool.join()
        except RuntimeError as error:
            raised.append(error)

    with shoal.Pool(1) as pool:
        pool.apply_async(tasks.square, (2,), callback=callback).get()
    assert "wait for itself" in str(raised[0])


def test_a_thread_that_can_not_be_started_harms_no_later_call(
    pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="start new thread"):
                pool.apply_async(tasks.wait_for, (tmp_path / "go",), callback=print)
            with pytest.raises(RuntimeError, match="start new thread"):
                pool.map_async(tasks.square, [1], callback=print)
    (tmp_path / "go").touch()
    called: list[int] = []
    assert pool.apply_async(tasks.square, (2,), callback=called.append).get() == 4
    assert called == [4]
    pool.close()
    pool.join()


class Failure(Exception):
    """One that can be referred to weakly, as those of the standard library can't."""


def fail(why: str) -> None:
    raise Failure(why)


FAILING: dict[str, Callable[[shoal.Pool], object]] = {
    "apply": lambda pool: pool.apply(fail, ("no",)),
    "map": lambda pool: pool.map(fail, ["no"]),
    "map_async": lambda pool: pool.map_async(fail, ["no"]).get(),
    "submit": lambda pool: pool.submit(fail, "no").result(),
}


@pytest.mark.parametrize("kind", ["process", "thread"])
@pytest.mark.parametrize("call", FAILING)
def test_an_exception_that_is_dropped_goes_at_once_with_its_result(call: str, kind: str) -> None:
    with shoal.Pool(1, kind=kind) as pool:
        gc.collect()
        gc.disable()
        try:
            try:
                FAILING[call](pool)
            except Failure as error:
                gone = weakref.ref(error)
            assert eventually(lambda: gone() is None)
        finally:
            gc.enable()


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
def test_a_timeout_that_nobody_lives_to_see_the_end_of_is_none(pool: shoal.Pool, timeout: float) -> None:
    assert pool.apply_async(tasks.square, (2,)).get(timeout) == 4
    assert pool.map_async(tasks.square, [2]).get(timeout) == [4]
    with shoal.Pool(1, kind="thread") as threads:
        assert threads.apply_async(tasks.square, (2,)).get(timeout) == 4
        assert threads.map_async(tasks.square, [2]).get(timeout) == [4]
