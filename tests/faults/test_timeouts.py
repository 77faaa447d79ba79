"""A task that takes too long is stopped, and only that one."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shoal
from tests.conftest import Run
from tests.faults import tasks
from tests.pool.tasks import process_id, square, touch_and_wait, wait_for

FOREVER = 3600.0
SHORT = 0.05


def test_a_task_that_takes_too_long_is_stopped_and_says_so(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.TaskTimeout) as caught:
        pool.apply(tasks.sleep_and_tell, (FOREVER, "x"), timeout=SHORT)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.task, error.timeout, error.tries) == ("sleep_and_tell(3600.0, 'x')", SHORT, 1)
    said = f"sleep_and_tell(3600.0, 'x') took longer than 0.05 s and was stopped, with worker {error.pid}"
    assert str(error).startswith(said)
    assert error.pid not in {worker.pid for worker in pool.workers}
    assert pool.map(square, range(10)) == [x * x for x in range(10)]


def test_the_error_tells_where_the_task_was(pool: shoal.Pool) -> None:
    timeout, traceback = SHORT, ""
    # With too little time it may not even have been called.
    while not traceback.endswith("in sleep_and_tell"):
        with pytest.raises(shoal.TaskTimeout) as caught:
            pool.apply(tasks.sleep_and_tell, (FOREVER,), timeout=timeout)
        traceback = caught.value.traceback
        timeout *= 2
    stack, *frames = traceback.splitlines()
    assert stack == "Stack (most recent call first):"
    assert len(frames) == 1, "what called it is always the same"
    assert str(caught.value).endswith(f"; it was at:\n{traceback}")


def test_nobody_else_hears_where_it_was(run: Run) -> None:
    result = run(
        """
        import shoal, sys, time

        def mutter_and_sleep():
            print("good night", file=sys.stderr)
            time.sleep(3600)

        with shoal.Pool(2) as pool:
            error = None
            while error is None or "good night" not in error.stderr:
                try:
                    pool.apply(mutter_and_sleep, timeout=0.5)
                except shoal.TaskTimeout as timeout:
                    error = timeout
            print(error.stderr)
        """
    )
    assert result.stdout == "good night\n"
    assert set(result.stderr.splitlines()) == {"good night"}


@pytest.mark.parametrize("task", [tasks.stop_oneself, tasks.be_deaf])
def test_one_that_can_not_tell_is_stopped_too(pool: shoal.Pool, task: Callable[[], None]) -> None:
    with pytest.raises(shoal.TaskTimeout):
        pool.apply(task, timeout=2 * SHORT)
    assert pool.map(square, range(10)) == [x * x for x in range(10)]


def test_what_is_in_time_is_not_touched(pool: shoal.Pool) -> None:
    pids = {worker.pid for worker in pool.workers}
    assert pool.apply(tasks.sleep_and_tell, (0.0, 7), timeout=60) == 7
    assert [pool.apply_async(square, (x,), timeout=60).get() for x in range(100)] == [x * x for x in range(100)]
    assert {worker.pid for worker in pool.workers} == pids


def test_the_time_in_the_queue_does_not_count(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with shoal.Pool(1) as pool:
        before = pool.apply_async(wait_for, (gate,))
        behind = [pool.apply_async(square, (n,), timeout=1) for n in range(10)]
        time.sleep(1.2)
        gate.touch()
        assert before.get() is None
        for result in behind:
            result.wait()
        # One that a busy machine keeps waiting while it runs may be stopped, but not all.
        assert sum(result.successful() for result in behind) > 5


def test_the_other_worker_goes_on_meanwhile(pool: shoal.Pool, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    other = pool.apply_async(touch_and_wait, (started, gate))
    wait_for(started)
    with pytest.raises(shoal.TaskTimeout):
        pool.apply(tasks.sleep_and_tell, (FOREVER,), timeout=SHORT)
    gate.touch()
    assert other.get() is None


def test_a_native_loop_that_holds_the_interpreter_is_stopped_too(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.TaskTimeout):
        pool.apply(sum, (range(10**12),), timeout=SHORT)


def test_in_a_map_each_item_has_its_time(pool: shoal.Pool) -> None:
    naps = [0.0, 0.01, 0.0]
    assert pool.starmap(tasks.sleep_and_tell, [(nap, nap) for nap in naps], timeout=100) == naps
    calls = [(0.0, 3), (FOREVER, 4), (0.0, 5)]
    # With tries for those that a busy machine makes wait.
    with pytest.raises(shoal.TaskTimeout, match=r"sleep_and_tell\(3600.0, 4\)"):
        pool.starmap(tasks.sleep_and_tell, calls, timeout=0.5, retries=4, retry_on=shoal.TaskTimeout)


def test_a_stream_goes_on_behind_an_item_that_took_too_long(pool: shoal.Pool) -> None:
    results = pool.imap(time.sleep, iter([0.0, FOREVER, 0.0]), timeout=0.5, retries=4, retry_on=shoal.TaskTimeout)
    assert next(results) is None
    with pytest.raises(shoal.TaskTimeout):
        next(results)
    assert list(results) == [None]


def test_a_chunk_has_its_time_as_a_whole_if_its_size_is_given(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.TaskTimeout, match=r"map\(sleep\) of 4 items from 0\.5 to 0\.5"):
        pool.map(time.sleep, [0.5] * 4, chunksize=4, timeout=1)


def test_a_pool_may_have_a_limit_for_all_tasks_and_a_call_another() -> None:
    with shoal.Pool(1, timeout=SHORT) as pool:
        with pytest.raises(shoal.TaskTimeout):
            pool.apply(tasks.sleep_and_tell, (FOREVER,))
        assert pool.apply(tasks.sleep_and_tell, (3 * SHORT, 1), timeout=None) == 1
        with pytest.raises(shoal.TaskTimeout):
            pool.submit(tasks.sleep_and_tell, FOREVER).result()
        assert pool.options(timeout=60).submit(tasks.sleep_and_tell, 3 * SHORT, 2).result() == 2


def test_callbacks_are_told(pool: shoal.Pool) -> None:
    errors: list[BaseException] = []
    result = pool.apply_async(
        tasks.sleep_and_tell, (FOREVER,), callback=print, error_callback=errors.append, timeout=SHORT
    )
    result.wait()
    assert [type(error) for error in errors] == [shoal.TaskTimeout]


def test_tasks_that_end_at_about_their_limit_hit_no_other() -> None:
    """Whoever is stopped is dead, so a stop that came too late would end the task behind it."""
    with shoal.Pool(2) as pool:
        close_calls = [pool.apply_async(time.sleep, (0.004 + n % 10 * 1e-4,), timeout=0.005) for n in range(100)]
        others = [pool.apply_async(square, (n,)) for n in range(100)]
        for close in close_calls:
            try:
                assert close.get() is None
            except shoal.TaskTimeout:
                continue
        assert [other.get() for other in others] == [n * n for n in range(100)]
        assert isinstance(pool.apply(process_id), int)
