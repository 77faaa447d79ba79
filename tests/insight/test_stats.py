"""`Pool.stats()`: where the time of each worker went. Times are compared with times of the same run.

A machine that is busy otherwise may keep a worker waiting anywhere, so a comparison has to hold for one run of some.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.insight.stats import PoolStats
from tests.pool.support import eventually
from tests.pool.tasks import wait_for


def nap(seconds: float) -> None:
    time.sleep(seconds)


class Slow:
    """Takes its time wherever it is pickled and unpickled."""

    def __init__(self, pickled: float = 0, unpickled: float = 0) -> None:
        self.pickled, self.unpickled = pickled, unpickled

    def __getstate__(self) -> dict[str, float]:
        time.sleep(self.pickled)
        return vars(self)

    def __setstate__(self, state: dict[str, float]) -> None:
        time.sleep(state["unpickled"])
        vars(self).update(state)


def total(stats: PoolStats, part: str) -> float:
    return sum(getattr(worker, part) for worker in stats.workers)


def spent(pool: shoal.Pool, act: Callable[[], object]) -> dict[str, float]:
    """The seconds that went to each part while something was done."""
    before = pool.stats()
    act()
    after = pool.stats()
    parts = ("busy", "user", "unpickling", "pickling", "waiting", "idle")
    return {part: total(after, part) - total(before, part) for part in parts}


def test_every_place_counts_its_tasks(pool: shoal.Pool) -> None:
    pids = {worker.pid for worker in pool.workers}
    pool.map(abs, range(100), chunksize=1)
    stats = pool.stats()
    assert [worker.number for worker in stats.workers] == [0, 1]
    assert stats.tasks == total(stats, "tasks") == 100
    assert {worker.pid for worker in stats.workers} == pids
    assert (stats.queued, stats.outstanding) == (0, 0)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_whoever_has_a_result_finds_its_task_counted(kind: str) -> None:
    with shoal.Pool(2, kind=kind) as pool:
        for number in range(1, 2001):
            pool.apply(abs, (number,))
            assert pool.stats().tasks == number
    pool.join()


def test_time_in_the_function_is_told_from_the_rest(pool: shoal.Pool) -> None:
    def is_told() -> bool:
        # Until both workers have imported this module, that counts as unpickling.
        took = spent(pool, lambda: pool.map(nap, [0.02] * 20, chunksize=1))
        assert took["user"] >= 20 * 0.02
        return took["user"] > 2 * (took["unpickling"] + took["pickling"])

    assert eventually(is_told)
    for worker in pool.stats().workers:
        assert worker.busy == pytest.approx(worker.user + worker.unpickling + worker.pickling)
        assert 0 <= worker.used <= 1


@pytest.mark.parametrize(
    ("func", "arguments", "part"),
    [(isinstance, (Slow(unpickled=0.02), int), "unpickling"), (Slow, (0.02,), "pickling")],
    ids=["reading arguments", "writing results"],
)
def test_what_is_around_the_function_counts_as(pool: shoal.Pool, func: Any, arguments: Any, part: str) -> None:
    def is_told() -> bool:
        took = spent(pool, lambda: [pool.apply(func, arguments) for _ in range(5)])
        assert took[part] >= 5 * 0.02
        return took[part] > took["user"]

    assert eventually(is_told)


def test_a_slow_input_shows_as_waiting(pool: shoal.Pool) -> None:
    def slowly() -> Any:
        for item in range(20):
            time.sleep(0.02)
            yield item

    def is_told() -> bool:
        took = spent(pool, lambda: list(pool.imap(abs, slowly())))
        # What a worker does when the input begins counts to its end: the first pause may still be an idle one.
        return took["waiting"] > took["busy"] and took["waiting"] >= 10 * 0.02

    assert eventually(is_told)


def test_a_pool_without_work_is_idle(pool: shoal.Pool) -> None:
    pool.map(abs, range(10), chunksize=1)

    def is_told() -> bool:
        took = spent(pool, lambda: time.sleep(0.2))
        return took["idle"] > 0.9 * (took["busy"] + took["idle"])

    assert eventually(is_told)


def test_what_a_worker_is_at_counts_up_to_now(pool: shoal.Pool, tmp_path: Path) -> None:
    result = pool.apply_async(wait_for, (tmp_path / "gate",))
    assert eventually(lambda: any(worker.state == "busy" for worker in pool.workers))
    first = total(pool.stats(), "busy")
    assert eventually(lambda: total(pool.stats(), "busy") > first)
    assert pool.stats().outstanding == 1
    (tmp_path / "gate").touch()
    result.get()


def test_tasks_in_the_queue_are_counted(pool: shoal.Pool, tmp_path: Path) -> None:
    results = [pool.apply_async(wait_for, (tmp_path / "gate",)) for _ in range(6)]
    stats = pool.stats()
    assert stats.outstanding == 6
    assert 4 <= stats.queued <= 6
    (tmp_path / "gate").touch()
    for result in results:
        result.get()


def test_a_worker_that_takes_the_place_of_a_dead_one_goes_on_counting(pool: shoal.Pool) -> None:
    pool.map(abs, range(50), chunksize=1)
    victim = pool.workers[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: victim not in {worker.pid for worker in pool.workers})
    pool.map(abs, range(50), chunksize=1)
    assert pool.stats().tasks == 100


def test_asking_waits_for_nobody() -> None:
    with shoal.Pool(2) as pool:
        states = {worker.state for worker in pool.stats().workers}
        assert states <= {"starting", "idle"}
    pool.join()
    assert {worker.state for worker in pool.stats().workers} == {"gone"}


def test_it_prints_a_line_for_each_worker_and_one_for_all(pool: shoal.Pool) -> None:
    pool.map(abs, range(2000), chunksize=1)
    lines = str(pool.stats()).splitlines()
    assert lines[0].split() == ("worker pid state tasks user unpickling pickling transport waiting idle used".split())
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "all"]
    assert "2,000" in lines[3]
    assert lines[4] == "0 tasks queued, 0 under way"
    html = pool.stats()._repr_html_()
    assert html.count("<tr>") == 4
    assert "<th>unpickling</th>" in html


def test_threads_are_counted_too_but_keep_no_records() -> None:
    with shoal.Pool(2, kind="thread") as pool:
        pool.map(nap, [0.05] * 4, chunksize=1)
        stats = pool.stats()
        assert stats.tasks == 4
        assert 4 * 0.05 <= total(stats, "user") == total(stats, "busy")
        for ask in (pool.trace, pool.explain):
            with pytest.raises(NotImplementedError, match="a pool of threads"):
                ask()
