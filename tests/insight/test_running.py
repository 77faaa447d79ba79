"""What workers are at: the name of the function, and since when; as `workers`, `repr` and executors tell it."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal._text import running
from tests.pool.support import eventually
from tests.pool.tasks import wait_for

KINDS = pytest.mark.parametrize("kind", ["process", "thread"])


def named(pool: shoal.Pool | shoal.Executor) -> list[str | None]:
    return [worker.task for worker in pool.workers]


@contextmanager
def waiting(pool: shoal.Pool, func: Callable[..., Any], gate: Path, tasks: int = 2) -> Iterator[None]:
    """So many tasks, that end when the block does; two of them have begun."""
    results = [pool.apply_async(func, (gate,)) for _ in range(tasks)]
    assert eventually(lambda: None not in named(pool))
    yield
    gate.touch()
    for result in results:
        result.get()


@KINDS
def test_a_worker_tells_what_it_is_at_and_for_how_long(kind: str, tmp_path: Path) -> None:
    with shoal.Pool(2, kind=kind) as pool:
        with waiting(pool, wait_for, tmp_path / "gate"):
            before, after = pool.workers, pool.workers
            assert [worker.task for worker in before] == ["wait_for", "wait_for"]
            assert all(0 < one.task_seconds < other.task_seconds for one, other in zip(before, after, strict=True))
            assert [worker.task for worker in pool.stats().workers] == ["wait_for", "wait_for"]
        assert eventually(lambda: named(pool) == [None, None])
        assert [worker.task_seconds for worker in pool.workers] == [0, 0]
    pool.join()


def test_the_text_of_a_worker_says_it(pool: shoal.Pool, tmp_path: Path) -> None:
    with waiting(pool, wait_for, tmp_path / "gate"):
        text = repr(pool.workers[0])
        assert text.startswith(f"<shoal.Worker 0: pid {pool.workers[0].pid}, busy with wait_for for ")
        assert text.endswith("s, 0 tasks>")
    assert eventually(lambda: "busy" not in repr(pool.workers))


@KINDS
def test_the_text_of_a_pool_says_what_runs_and_what_waits(kind: str, tmp_path: Path) -> None:
    with shoal.Pool(2, kind=kind) as pool:
        with waiting(pool, wait_for, tmp_path / "gate", tasks=5):
            assert eventually(lambda: repr(pool) == "<shoal.Pool state=RUN pool_size=2: 2 × wait_for, 3 queued>")
        assert eventually(lambda: repr(pool) == "<shoal.Pool state=RUN pool_size=2>")
    pool.join()


def test_the_text_of_an_executor_says_it_too(tmp_path: Path) -> None:
    with shoal.Executor(1) as executor:
        results = executor.map(wait_for, [tmp_path / "gate"] * 4, chunksize=2)
        assert eventually(lambda: named(executor) == ["wait_for"])
        assert eventually(lambda: repr(executor) == "<shoal.Executor state=RUN max_workers=1: wait_for, 1 queued>")
        (tmp_path / "gate").touch()
        assert list(results) == [None] * 4


@KINDS
def test_what_is_wrapped_is_called_as_what_is_within(kind: str, tmp_path: Path) -> None:
    def for_both(_: int, gate: Path) -> None:
        wait_for(gate)

    with shoal.Pool(2, kind=kind, seed=1) as pool:
        gate = tmp_path / "gate"
        job = pool.map_async(functools.partial(for_both, gate=gate), range(2), chunksize=1)
        assert eventually(lambda: None not in named(pool))
        assert all(str(name).endswith(".for_both") for name in named(pool))
        gate.touch()
        job.get()
    pool.join()


def test_a_function_that_was_sent_long_ago_is_still_known(pool: shoal.Pool, tmp_path: Path) -> None:
    with waiting(pool, wait_for, tmp_path / "gate"):
        # More than the table for onlookers has places; each of them is another function.
        others = [pool.apply_async(lambda number=number: number) for number in range(200)]
        assert named(pool) == ["wait_for", "wait_for"]
    assert [other.get() for other in others] == list(range(200))


@pytest.mark.parametrize(
    ("tasks", "queued", "text"),
    [
        ([], 0, ""),
        (["f"], 0, ": f"),
        (["f", "g", "f"], 1200, ": 2 × f, g, 1,200 queued"),
        (["", "f"], 0, ": a task, f"),
        (["a", "b", "c", "d", "e", "d"], 0, ": a, b, c, 3 more"),
        ([], 2, ": 2 queued"),
    ],
)
def test_many_functions_are_few_words(tasks: list[str], queued: int, text: str) -> None:
    assert running(tasks, queued) == text
