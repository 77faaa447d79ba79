"""A task that nobody wants any more is taken out of the queue, or stopped."""

import os
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.pool.support import eventually
from tests.pool.tasks import note, square, touch_and_wait, wait_for


def test_a_queued_task_never_runs(tmp_path: Path) -> None:
    gate, noted = tmp_path / "gate", tmp_path / "noted"
    with shoal.Pool(1) as pool:
        first = pool.apply_async(wait_for, (gate,))
        queued = pool.apply_async(note, (noted,))
        assert queued.cancel()
        gate.touch()
        first.get()
        assert pool.apply(square, (2,)) == 4
        with pytest.raises(CancelledError):
            queued.get()
    assert not noted.exists()


def test_a_running_task_is_stopped_only_if_that_is_asked_for(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with shoal.Pool(1) as pool:
        result = pool.apply_async(touch_and_wait, (started, gate))
        wait_for(started)
        (worker,) = pool.workers
        assert not result.cancel()
        assert result.cancel(running=True)
        assert result.ready() and result.cancelled()
        with pytest.raises(CancelledError):
            result.get()
        assert not result.cancel(running=True), "once"
        assert pool.apply(os.getpid) != worker.pid


def test_a_task_that_has_ended_is_not_cancelled(pool: shoal.Pool) -> None:
    result = pool.apply_async(square, (3,))
    result.wait()
    assert not result.cancel(running=True)
    assert result.get() == 9


def test_a_cancelled_task_is_not_tried_again(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with shoal.Pool(1) as pool:
        result = pool.apply_async(touch_and_wait, (started, gate), retries=5)
        wait_for(started)
        started.unlink()
        assert result.cancel(running=True)
        assert pool.apply(square, (3,)) == 9
        assert not started.exists()


def test_one_that_waits_to_be_tried_again_is_cancelled_too(tmp_path: Path) -> None:
    with shoal.Pool(1) as pool:
        noted = tmp_path / "noted"

        def fail() -> None:
            note(noted)
            raise OSError

        result = pool.apply_async(fail, retries=5, retry_on=OSError, retry_delay=3600)
        assert eventually(noted.exists)
        assert pool.apply(square, (3,)) == 9
        assert eventually(lambda: result.cancel())
        with pytest.raises(CancelledError):
            result.get()
        pool.close()
        pool.join()
        assert noted.read_text().count("\n") == 1


def test_cancelled_or_done_never_both_and_no_other_is_hit(pool: shoal.Pool) -> None:
    for n in range(200):
        result = pool.apply_async(time.sleep, (n % 5 * 1e-4,))
        other = pool.apply_async(square, (n,))
        time.sleep(n % 7 * 1e-4)
        cancelled = result.cancel(running=True)
        assert result.cancelled() == cancelled
        if cancelled:
            with pytest.raises(CancelledError):
                result.get()
        else:
            assert result.get() is None
        assert other.get() == n * n


def test_error_callbacks_hear_of_it(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    started, gate = tmp_path / "started", tmp_path / "gate"
    with shoal.Pool(1) as pool:
        result = pool.apply_async(touch_and_wait, (started, gate), error_callback=errors.append)
        wait_for(started)
        assert result.cancel(running=True)
        result.wait()
    assert [type(error) for error in errors] == [CancelledError]


@pytest.mark.parametrize("full", [False, True])
def test_a_future_of_a_task_that_runs_is_cancelled_if_that_is_asked_for(tmp_path: Path, full: bool) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with shoal.Executor(1) as executor:
        future, told = executor.submit(touch_and_wait, started, gate), []
        if full:
            future.add_done_callback(told.append)
        wait_for(started)
        (worker,) = executor.workers
        assert not future.cancel()
        assert future.cancel(running=True)  # type: ignore[call-arg]  # shoal's takes more than the standard library's
        assert future.cancelled() and future.done()
        with pytest.raises(CancelledError):
            future.result()
        assert eventually(lambda: told == [future] * full)
        assert executor.submit(os.getpid).result() != worker.pid


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"buffersize": 1}, {"buffersize": 3}])
def test_a_map_that_is_cancelled_waits_for_what_runs_or_stops_it(tmp_path: Path, options: dict[str, int]) -> None:
    gate = tmp_path / "gate"
    with shoal.Pool(1) as pool:
        for running in (False, True):
            started = tmp_path / f"started{running}"
            result = pool.starmap_async(touch_and_wait, [(started, gate)] * 20, **options)
            wait_for(started)
            (worker,) = pool.workers
            started.unlink()
            assert result.cancel(running=running)
            if not running:
                assert not result.ready()
                gate.touch()
            with pytest.raises(CancelledError):
                result.get(timeout=100)
            assert not result.cancel(running=True), "it has ended"
            assert (pool.apply(os.getpid) == worker.pid) == (not running)
            if running:
                assert not started.exists(), "of all that was sent nothing begins any more"
            gate.unlink(missing_ok=True)


def test_who_waits_for_a_map_hears_that_it_was_cancelled(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with shoal.Pool(1) as pool:
        for options in ({}, {"buffersize": 2}):
            result = pool.starmap_async(touch_and_wait, [(started, gate)] * 4, **options)  # type: ignore[arg-type]
            ends: list[BaseException] = []

            def wait(result: Any = result, ends: list[BaseException] = ends) -> None:
                try:
                    result.get()
                except BaseException as error:
                    ends.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
            wait_for(started)
            assert result.cancel(running=True)
            waiting.join()
            assert [type(end) for end in ends] == [CancelledError]
            started.unlink()
