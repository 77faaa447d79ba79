"""`Pool.explain()`: the reason is the one that the figures show."""

import time
from collections.abc import Callable
from typing import Any

import pytest

import shoal
from shoal.insight.report import MapReport, Threads, reasons
from tests.pool.support import eventually
from tests.stuck import stuck

ONE_EACH = Threads(1, 4)


def a_map(**figures: Any) -> MapReport:
    """A map of a second on four workers, of 100 items, all well: four seconds in the function."""
    usual = {
        "function": "f", "items": 100, "tasks": 100, "wall": 1.0, "workers": 4, "bytes": 1000, "longest": 0.04,
        "longest_items": 1, "user": 4.0, "unpickling": 0.0, "pickling": 0.0, "transport": 0.0, "waiting": 0.0,
        "idle": 0.0, "starting": 0.0, "reading": 0.0, "sending": 0.0, "receiving": 0.0,
    }  # fmt: skip
    return MapReport(**(usual | figures))


@pytest.mark.parametrize(
    ("figures", "threads", "says"),
    [
        ({}, ONE_EACH, "Nothing in the pool stood in its way; if a plain loop is hardly slower, the function itself"),
        ({"workers": 1, "user": 1.0}, ONE_EACH, "Nothing in the pool stood in its way."),
        ({"wall": 0.001, "user": 0.001}, ONE_EACH, "over in 1 ms"),
        ({"user": 2.0, "starting": 2.0}, ONE_EACH, "not there yet for 500 ms"),
        ({"user": 1.0, "waiting": 3.0, "reading": 0.9}, ONE_EACH, "The input gave its items slowly"),
        ({"user": 1.0, "waiting": 3.0, "sending": 0.9, "bytes": 10**9}, ONE_EACH, "copying 1 GB of arguments"),
        ({"user": 1.0, "waiting": 3.0, "sending": 0.9}, ONE_EACH, "Pickling the items took this process 900 ms of 1 s"),
        ({"user": 1.0, "idle": 3.0, "receiving": 0.9}, ONE_EACH, "Unpickling the results took this process 900 ms"),
        ({"user": 1.3, "idle": 2.7, "longest": 0.9}, ONE_EACH, "while one item took 900 ms: begin with the long ones"),
        ({"user": 1.3, "idle": 2.7, "longest": 0.9, "longest_items": 50}, ONE_EACH, "leave chunksize out"),
        ({"user": 2.0, "idle": 2.0, "items": 2, "tasks": 2}, ONE_EACH, "There were 2 items for 4 workers"),
        ({"user": 1.0, "waiting": 3.0, "items": 1, "tasks": 1}, ONE_EACH, "There was 1 item for 4 workers"),
        ({"user": 3.0, "idle": 1.0, "items": 6, "longest": 0.5}, ONE_EACH, "6 items of about 500 ms do not go evenly"),
        ({"user": 3.0, "idle": 1.0, "items": 8, "longest": 0.5}, ONE_EACH, "nothing left to do for 1 s while the last"),
        ({"user": 1.0, "waiting": 3.0, "reading": 0.3}, ONE_EACH, "The input gave its items slowly"),
        ({"user": 2.0, "waiting": 2.0, "sending": 0.1}, ONE_EACH, "though the map kept it busy for 100 ms only"),
        ({"user": 2.6, "pickling": 1.2, "receiving": 0.9}, ONE_EACH, "Unpickling the results took this process 900 ms"),
        ({"user": 1.0, "unpickling": 3.0}, ONE_EACH, "modules that take long to import can be preloaded"),
        ({"user": 1.0, "unpickling": 3.0, "bytes": 10**9}, ONE_EACH, "arrays are passed without a copy"),
        (
            {"user": 1.0, "unpickling": 3.0, "items": 10**4, "tasks": 10**4},
            ONE_EACH,
            "do more, and leave chunksize out",
        ),
        ({"user": 1.0, "unpickling": 2.0, "pickling": 1.0}, ONE_EACH, "its arguments took the workers 2 s"),
        ({"user": 1.0, "unpickling": 1.0, "pickling": 2.0}, ONE_EACH, "Pickling the results took the workers 2 s"),
        ({"user": 1.0, "transport": 3.0}, ONE_EACH, "this process was slow to read"),
        ({"user": 0.5, "transport": 3.0, "items": 10**6, "tasks": 10**6}, ONE_EACH, "and leave chunksize out"),
        ({"user": 0.5, "pickling": 3.0, "items": 10**6, "tasks": 900}, ONE_EACH, "500 ns in the function itself"),
        (
            {"user": 2.5, "waiting": 1.5, "items": 10**6, "tasks": 10**6},
            ONE_EACH,
            "2.5 µs in the function itself, and 1.5",
        ),
        ({}, Threads(8, 4), "4 workers with 8 threads each share 4 CPUs"),
        ({"workers": 8, "user": 8.0}, ONE_EACH, "8 workers share 4 CPUs"),
    ],
)
def test_what_cost_most_is_told_first(figures: dict[str, Any], threads: Threads, says: str) -> None:
    assert says in reasons(a_map(**figures), threads)[0]


def test_of_small_items_nothing_is_told_but_that() -> None:
    told = reasons(a_map(user=0.5, transport=1.5, idle=1.0, waiting=1.0, items=10**6, tasks=10**6), ONE_EACH)
    assert told == [
        "An item takes 500 ns in the function itself, and 3.5 µs around it: let each call do more, and leave chunksize "
        "out."
    ]


def test_one_is_said_to_be_one() -> None:
    assert str(a_map(items=1, workers=1)).startswith("f on 1 item took 1 s, of which 1 worker spent 4 s")


def test_it_never_says_more_than_three_things() -> None:
    parts = dict.fromkeys(("starting", "waiting", "unpickling", "transport"), 0.9)
    assert len(reasons(a_map(user=0.4, **parts), Threads(2, 4))) == 3


def nap(seconds: float) -> None:
    time.sleep(seconds)


def meet(barrier: shoal.Barrier) -> None:
    barrier.wait()


def warm_up(pool: shoal.Pool) -> None:
    """Both workers have imported this module."""
    pool.map(meet, [shoal.Barrier(2)] * 2, chunksize=1)


def test_a_map_that_keeps_all_workers_at_it_has_nothing_in_its_way(pool: shoal.Pool) -> None:
    warm_up(pool)
    pool.map(nap, [0.05] * 20, chunksize=1)
    told = pool.explain()
    assert (told.function, told.items, told.tasks, told.workers) == ("nap", 20, 20, 2)
    assert told.user >= 1.0
    assert told.speedup == pytest.approx(told.user / told.wall)
    assert str(told).startswith("nap on 20 items took ")
    # A machine that is busy otherwise may stand in its way.
    assert told.reasons


def test_one_long_item_at_the_end_is_found(pool: shoal.Pool) -> None:
    warm_up(pool)

    def is_found() -> bool:
        pool.map(nap, [0.01, 0.01, 1.0], chunksize=1)
        told = pool.explain()
        assert told.longest >= 1.0
        assert told.longest_items == 1
        return told.idle > told.user / 2 and "while one item took" in told.reasons[0]

    # There may be other reasons on a busy machine.
    assert eventually(is_found)


def test_a_slow_input_is_found(pool: shoal.Pool) -> None:
    pool.apply(abs, (1,))

    def slowly() -> Any:
        for item in range(20):
            time.sleep(0.02)
            yield item

    def is_found(take: Callable[[], object]) -> bool:
        take()
        told = pool.explain()
        assert told.items == 20
        assert told.reading >= 0.4
        return "The input gave its items slowly" in told.reasons[0]

    # There may be other reasons on a busy machine.
    assert eventually(lambda: is_found(lambda: pool.map(abs, slowly())))
    assert eventually(lambda: is_found(lambda: list(pool.imap(abs, slowly()))))


def test_large_arguments_are_found(pool: shoal.Pool) -> None:
    numpy = pytest.importorskip("numpy")
    pool.apply(numpy.zeros, (1,))
    arrays = [numpy.full(4_000_000, float(number)) for number in range(4)]

    def are_found() -> bool:
        pool.map(len, arrays, chunksize=1)
        told = pool.explain()
        assert told.bytes >= 4 * 32_000_000
        return told.sending > told.user

    assert eventually(are_found)


def test_what_is_given_to_another_worker_counts_once(pool: shoal.Pool) -> None:
    # They are so quick that many go together, and those behind the long one come back.
    pool.map(nap, [0.0] * 500 + [0.3] + [0.0] * 500)
    assert pool.explain().items == 1001


def test_what_cannot_be_sent_does_not_count(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.SerializationError):
        pool.map(id, [1, stuck(), 2], chunksize=1)
    assert pool.explain().items == 2


def test_without_a_map_there_is_nothing_to_explain(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError, match="no map"):
        pool.explain()
    pool.apply(abs, (1,))
    with pytest.raises(ValueError, match="no map"):
        pool.explain()


def test_a_map_in_the_background_is_explained_when_it_is_done(pool: shoal.Pool) -> None:
    pool.map_async(nap, [0.01] * 4).get()
    assert pool.explain().items == 4
