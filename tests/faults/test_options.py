"""The options of tasks: where they may be given, and what is refused at once."""

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.faults import tasks
from tests.pool.tasks import square

WRONG = [
    ({"timeout": 0}, ValueError, "timeout must be None or more than 0 seconds, not 0"),
    ({"timeout": -1.5}, ValueError, "timeout must be None or more than 0 seconds, not -1.5"),
    ({"timeout": "1"}, TypeError, "timeout must be None or a number of seconds, not str"),
    ({"timeout": float("nan")}, ValueError, "timeout must be None or more than 0 seconds, not nan"),
    ({"retries": -1}, ValueError, "retries must be 0 or more, and less than 2\\*\\*31, not -1"),
    ({"retries": 1.5}, TypeError, "retries must be an integer, not float"),
    ({"retry_on": 3}, TypeError, "retry_on must be an exception class or a tuple of them, not 3"),
    (
        {"retry_on": (OSError, int)},
        TypeError,
        "retry_on must be an exception class or a tuple of them, not <class 'int'>",
    ),
    ({"retry_delay": -1}, ValueError, "retry_delay must be 0 seconds or more, not -1"),
    ({"priority": "high"}, TypeError, "priority must be an integer, not str"),
    ({"priority": 2**40}, ValueError, "priority must be a 32-bit number"),
    ({"tiemout": 3}, TypeError, "unexpected keyword argument 'tiemout'; the options of a task are timeout, retries"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=[str(wrong[0]) for wrong in WRONG])
def test_what_is_wrong_is_refused_by_the_pool_by_options_and_by_each_call(
    pool: shoal.Pool, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        shoal.Pool(1, **options)
    with pytest.raises(error, match=message):
        pool.options(**options)
    for call in (pool.apply, pool.apply_async):
        with pytest.raises(error, match=message):
            call(square, (1,), **options)
    for call in (pool.map, pool.map_async, pool.imap, pool.imap_unordered):
        with pytest.raises(error, match=message):
            call(square, [1], **options)
    for call in (pool.starmap, pool.starmap_async):
        with pytest.raises(error, match=message):
            call(square, [(1,)], **options)
    assert pool.apply(square, (3,)) == 9


def test_endless_is_as_good_as_no_limit(pool: shoal.Pool) -> None:
    assert pool.apply(square, (3,), timeout=float("inf"), retries=1, retry_delay=float("inf")) == 9


def test_options_of_options_add_up() -> None:
    with shoal.Pool(1, retries=1) as pool:
        view = pool.options(timeout=60).options(priority=3)
        assert view._terms.options == {"retries": 1, "timeout": 60, "priority": 3}
        assert pool._terms.options == {"retries": 1}


def test_a_pool_seen_with_options_is_the_same_pool(pool: shoal.Pool) -> None:
    view = pool.options(timeout=60)
    assert view.workers[0].pid == pool.workers[0].pid
    called: list[int] = []
    result = view.apply_async(square, (3,), callback=called.append)
    result.wait()
    assert called == [9]
    del view
    assert pool.apply(square, (3,)) == 9
    pool.options(priority=1).terminate()
    with pytest.raises(shoal.PoolClosed):
        pool.apply(square, (3,))


def test_the_keyword_arguments_of_submit_are_the_functions(pool: shoal.Pool) -> None:
    assert pool.submit(dict, timeout=3, retries=4).result() == {"timeout": 3, "retries": 4}
    assert pool.options(timeout=60).submit(dict, timeout=3).result() == {"timeout": 3}


def test_executors_have_them_too(tmp_path: Path) -> None:
    with shoal.Executor(1, retries=2) as executor:
        assert executor.submit(tasks.die_at_first, tmp_path / "one", 2).result() == 3
        assert list(executor.map(tasks.die_at_first, [tmp_path / "two"], [1])) == [2]
        once = executor.options(retries=0)
        with pytest.raises(shoal.WorkerDied):
            once.submit(tasks.die_at_first, tmp_path / "three", 1).result()
        with pytest.raises(shoal.WorkerDied):
            next(once.map(tasks.die_at_first, [tmp_path / "four"], [1], buffersize=1))
        del once
        assert executor.submit(square, 3).result() == 9
    with pytest.raises(ValueError, match="timeout must be"):
        shoal.Executor(1, timeout=-1)


def test_an_executor_lives_as_long_as_it_is_seen_with_options() -> None:
    view = shoal.Executor(1).options(retries=1)
    gc.collect()
    assert view.submit(square, 3).result() == 9
    view.shutdown()
    with pytest.raises(shoal.PoolClosed):
        view.submit(square, 3)


def test_limits_of_workers_may_be_given_to_an_executor() -> None:
    cpus = sorted(os.sched_getaffinity(0))[:1]
    with shoal.Executor(
        1, affinity=[cpus], threads_per_worker=3, idle_timeout=60, worker_memory_limit=1 << 40
    ) as executor:
        assert executor.submit(os.sched_getaffinity, 0).result() == set(cpus)
        assert executor.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"


def test_the_map_of_the_module_has_them_too(tmp_path: Path) -> None:
    assert shoal.map(tasks.die_at_first, [tmp_path / "one"], [1], retries=1) == [2]
    with pytest.raises(shoal.TaskTimeout):
        shoal.map(time.sleep, [0, 3600], timeout=0.2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'tiemout'"):
        shoal.map(square, [3], tiemout=3)  # type: ignore[call-arg]


def test_asyncio_has_them_too(pool: shoal.Pool, tmp_path: Path) -> None:
    async def main() -> list[object]:
        died, aio = tasks.die_at_first, pool.aio
        return [
            await aio.apply(died, (tmp_path / "one", 1), retries=1),
            await aio.starmap(died, [(tmp_path / "two", 1)], retries=1),
            await aio.map(tasks.die_at_first_of, [tmp_path / "three"], retries=1),
            [x async for x in aio.imap(tasks.die_at_first_of, [tmp_path / "four"], retries=1)],
            [x async for x in aio.imap_unordered(tasks.die_at_first_of, [tmp_path / "five"], retries=1)],
        ]

    assert asyncio.run(main()) == [2, [2], [2], [2], [2]]


def test_threads_have_none_of_them_as_they_cannot_be_stopped() -> None:
    for option in ({"timeout": 3}, {"worker_memory_limit": 1 << 30}, {"idle_timeout": 30}, {"affinity": "spread"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is for processes"):
            shoal.Pool(1, kind="thread", **option)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{next(iter(option))} is for processes"):
            shoal.Executor(1, kind="thread", **option)  # type: ignore[arg-type]
    with shoal.Pool(1, kind="thread") as pool:
        with pytest.raises(ValueError, match="timeout is for processes"):
            pool.apply(square, (3,), timeout=3)
        with pytest.raises(ValueError, match="retries is for processes"):
            pool.map(square, [3], retries=3)
        assert pool.apply(square, (3,)) == 9


def test_what_says_nothing_is_no_error_for_threads_but_a_slip_is() -> None:
    with shoal.Pool(1, kind="thread", memory_limit=None, unresponsive_after=30, logs=True, cluster=None) as pool:
        assert pool.apply(square, (3,)) == 9
    with pytest.raises(TypeError, match="unexpected keyword argument 'tiemout'"):
        shoal.Pool(1, kind="thread", tiemout=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="node_timeout is for a pool on a cluster"):
        shoal.Pool(1, kind="thread", node_timeout=3)
