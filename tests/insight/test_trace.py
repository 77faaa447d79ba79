"""`Pool.trace()`: every task, in a file that viewers of traces show."""

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.insight import chrome
from shoal.insight.trace import TaskRecord, trace_process
from tests.pool.tasks import wait_for


def nap(seconds: float) -> None:
    time.sleep(seconds)


def fail(number: int) -> None:
    raise ValueError(number)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def events(path: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return loaded


def test_every_task_of_the_block_is_in_it_with_its_times(pool: shoal.Pool) -> None:
    pool.apply(abs, (1,))
    before = time.monotonic_ns()
    with pool.trace() as trace:
        pool.map(nap, [0.01] * 10, chunksize=1)
        pool.apply(len, ("x" * 1000,))
    after = time.monotonic_ns()
    assert [task.function for task in trace.tasks] == ["nap"] * 10 + ["len"]
    for task in trace.tasks:
        assert before <= task.submitted <= task.started <= task.ended <= task.received <= after
        assert task.worker in (0, 1)
        assert (task.items, task.end) == (1, "value")
    # On a cluster both are known as exactly as the clock of their node.
    error = 1e9 * max(record.error or 0 for record in trace.pools)
    assert all(task.ended - task.started >= 10_000_000 - 2 * error for task in trace.tasks[:10])
    assert trace.tasks[-1].bytes_in > 1000 > trace.tasks[-1].bytes_out


def test_a_task_of_a_map_tells_how_many_items_it_did(pool: shoal.Pool) -> None:
    with pool.trace() as trace:
        pool.map(abs, range(10_000))
        list(pool.imap(abs, range(10_000)))
    assert sum(task.items for task in trace.tasks) == 20_000


def test_exceptions_and_deaths_are_told(pool: shoal.Pool) -> None:
    with pool.trace() as trace:
        with pytest.raises(ValueError):
            pool.apply(fail, (1,))
        with pytest.raises(shoal.WorkerDied):
            pool.apply(die)
    assert [(task.function, task.end) for task in trace.tasks] == [("fail", "exception"), ("die", "died")]


def test_each_try_of_a_task_is_told(pool: shoal.Pool) -> None:
    with pool.trace() as trace, pytest.raises(ValueError):
        pool.options(retries=2, retry_on=ValueError).apply(fail, (1,))
    assert [(task.function, task.end) for task in trace.tasks] == [("fail", "exception")] * 3
    assert all(before.ended <= after.started for before, after in itertools.pairwise(trace.tasks))


def test_arrays_count_with_their_size(pool: shoal.Pool) -> None:
    numpy = pytest.importorskip("numpy")
    with pool.trace() as trace:
        pool.apply(numpy.negative, (numpy.ones(100_000),))
    assert trace.tasks[0].bytes_in >= 800_000
    assert trace.tasks[0].bytes_out >= 800_000


def test_the_file_has_a_track_for_each_worker_and_its_tasks_on_it(pool: shoal.Pool, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    expected = {worker.number + 1: f"worker {worker.number}, process {worker.pid}" for worker in pool.workers}
    with pool.trace(path) as trace:
        pool.map(nap, [0.01] * 6, chunksize=1)
    written = events(path)
    names = {event["tid"]: event["args"]["name"] for event in written if event["name"] == "thread_name"}
    assert names == expected
    tasks = [event for event in written if event["ph"] == "X"]
    assert [(event["name"], event["tid"]) for event in tasks] == [("nap", task.worker + 1) for task in trace.tasks]
    for event, task in zip(tasks, trace.tasks, strict=True):
        assert event["dur"] == pytest.approx((task.ended - task.started) / 1e3, abs=1e-3)
        assert event["args"]["queued_us"] == pytest.approx((task.started - task.submitted) / 1e3, abs=1e-3)
        assert event["args"]["result_us"] == pytest.approx((task.received - task.ended) / 1e3, abs=1e-3)
    for span in ("queued", "result"):
        of_span = [event for event in written if event.get("cat") == span]
        assert sorted(event["ph"] for event in of_span) == ["b"] * 6 + ["e"] * 6
        assert len({event["id"] for event in of_span}) == 6


def test_the_file_has_counters_of_the_queue_and_of_memory(pool: shoal.Pool, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert all(worker.pid for worker in pool.workers), "memory is that of workers that are there"
    with pool.trace(path):
        results = [pool.apply_async(wait_for, (tmp_path / "gate",)) for _ in range(8)]
        (tmp_path / "gate").touch()
        for result in results:
            result.get()
    depths = [event["args"]["tasks"] for event in events(path) if event["name"] == "queue depth"]
    assert 5 <= max(depths) <= 8
    assert depths[-1] == 0
    memory = [event["args"] for event in events(path) if event["name"] == "memory"]
    assert memory
    assert all(sample["shared"] > 0 for sample in memory)
    assert any(sample.get("worker 0", 0) > 1_000_000 for sample in memory)


def test_of_very_many_tasks_the_way_is_told_with_the_task_alone(
    pool: shoal.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chrome, "_MOST_SPANS", 3)
    path = tmp_path / "run.json"
    with pool.trace(path):
        pool.map(abs, range(4), chunksize=1)
    assert {event["ph"] for event in events(path)} == {"M", "X", "C"}


def test_the_file_is_written_also_when_the_block_raises(pool: shoal.Pool, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(ValueError, match="7"), pool.trace(path):
        pool.apply(fail, (7,))
    assert [event["args"]["end"] for event in events(path) if event["ph"] == "X"] == ["exception"]


def test_a_file_that_cannot_be_written_is_an_error_before_the_work(pool: shoal.Pool, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), pool.trace(tmp_path / "nowhere" / "run.json"):
        pytest.fail("the block was entered")
    with pool.trace():
        pass


def test_beyond_the_limit_tasks_are_counted_only(pool: shoal.Pool) -> None:
    with pool.trace(most=10) as trace:
        pool.map(abs, range(25), chunksize=1)
    assert len(trace.tasks) == 10
    assert trace.pools[0].left_out == 15


def test_a_pool_is_traced_once_at_a_time(pool: shoal.Pool) -> None:
    with pool.trace():
        with pytest.raises(ValueError, match="traced already"), pool.trace():
            pytest.fail("the block was entered")
    with pool.trace() as trace:
        pool.apply(abs, (1,))
    assert len(trace.tasks) == 1


@pytest.mark.parametrize(("most", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_limit_that_is_no_number_of_tasks_is_refused(pool: shoal.Pool, most: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="most must be"):
        pool.trace(most=most)


def test_a_trace_of_the_process_has_the_pools_made_in_it_even_if_they_are_gone(
    pool: shoal.Pool, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    with trace_process(path) as trace:
        pool.apply(abs, (1,))
        with shoal.Pool(1) as other:
            other.apply(len, ("x",))
        other.join()
        del other
    # Pools that stay warm, of earlier tests, are there as well: without tasks.
    functions = [[task.function for task in traced.tasks] for traced in trace.pools]
    assert [of_pool for of_pool in functions if of_pool] == [["abs"], ["len"]]
    processes = [event["args"]["name"] for event in events(path) if event["name"] == "process_name"]
    assert len(processes) == len(functions)
    with shoal.Pool(1):
        pass
    assert len(trace.pools) == len(functions)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=30))
def test_the_depth_of_the_queue_is_that_of_the_tasks_in_it(spans: list[tuple[int, int]]) -> None:
    tasks = [TaskRecord(begin, begin + wait, 0, 0, 0, 0, "f", 1, 0, "value") for begin, wait in spans]
    depths = chrome.queue_depth(tasks, points=10**9)
    assert all(depth >= 0 for _, depth in depths)
    if tasks:
        assert depths[-1][1] == 0
        moments = range(202)
        highest = max(sum(task.submitted <= moment < task.started for task in tasks) for moment in moments)
        assert max(depth for _, depth in depths) >= highest
