"""Tasks with a higher priority go first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shoal
from tests.faults import tasks
from tests.pool.tasks import touch_and_wait, wait_for


@contextmanager
def order_of_tasks(directory: Path) -> Iterator[tuple[shoal.Pool, Path]]:
    """A pool of one worker that is busy as long as the block runs, and the file where tasks note their order."""
    started, gate = directory / "started", directory / "gate"
    with shoal.Pool(1) as pool:
        blocker = pool.apply_async(touch_and_wait, (started, gate))
        wait_for(started)
        yield pool, directory / "order"
        gate.touch()
        blocker.get()
        pool.close()
        pool.join()


def test_the_urgent_goes_first_and_equals_in_their_order(tmp_path: Path) -> None:
    with order_of_tasks(tmp_path) as (pool, order):
        for n in range(3):
            pool.apply_async(tasks.note_order, (order, f"usual {n}"))
            pool.apply_async(tasks.note_order, (order, f"later {n}"), priority=-1)
            pool.apply_async(tasks.note_order, (order, f"urgent {n}"), priority=5)
    names = [f"{name} {n}" for name in ("urgent", "usual", "later") for n in range(3)]
    assert order.read_text().split("\n")[:-1] == names


def test_however_many_are_queued_before_it(tmp_path: Path) -> None:
    with order_of_tasks(tmp_path) as (pool, order):
        for n in range(3000):
            pool.apply_async(tasks.note_order, (order, n))
        for n in range(30):
            pool.options(priority=1).apply_async(tasks.note_order, (order, f"urgent {n}"))
    assert order.read_text().split("\n")[:-1] == [*(f"urgent {n}" for n in range(30)), *map(str, range(3000))]


def test_a_map_may_let_others_pass(tmp_path: Path) -> None:
    with order_of_tasks(tmp_path) as (pool, order):
        pieces = pool.map_async(lambda n: tasks.note_order(order, n), range(100), chunksize=1, priority=-1)
        pool.apply_async(tasks.note_order, (order, "first"))
    assert order.read_text().split("\n")[:-1] == ["first", *map(str, range(100))]
    assert pieces.successful()


def test_what_is_submitted_while_others_run_overtakes_them_too(pool: shoal.Pool) -> None:
    background = pool.map_async(abs, range(20_000), chunksize=1, priority=-1)
    assert [pool.apply(abs, (-n,)) for n in range(200)] == list(range(200))
    assert background.get() == list(range(20_000))


def test_priorities_may_be_any_and_all_tasks_are_done(pool: shoal.Pool) -> None:
    results = [pool.apply_async(abs, (n,), priority=n * 7919 % 1000 - 500) for n in range(5000)]
    assert [result.get() for result in results] == list(range(5000))
