"""Maps over inputs that are read on the way: whatever travels together, each item has its own place and fate."""

from __future__ import annotations

import collections
import functools
import gc
import itertools
import multiprocessing
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shoal
from tests.pool import tasks
from tests.pool.support import eventually
from tests.pool.test_imap import Meter
from tests.stuck import stuck

METHODS = ("imap", "imap_unordered")


@pytest.fixture(scope="module")
def warm() -> Iterator[shoal.Pool]:
    """A pool for many small examples."""
    with shoal.Pool(2) as pool:
        yield pool
    pool.join()


def ends(results: Iterable[Any]) -> list[Any]:
    """Results and exceptions in the order in which they come."""
    seen: list[Any] = []
    iterator = iter(results)
    while True:
        try:
            seen.append(next(iterator))
        except StopIteration:
            return seen
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")


def odd_job(item: Any) -> Any:
    """Fails, or returns what can't be sent, or takes a while, as the item says."""
    if item == "fail":
        raise ValueError("failed")
    if item == "stuck":
        return stuck()
    if item == "slow":
        return tasks.square(7, 0.003)
    return item


def expected(item: Any) -> Any:
    return {"fail": "ValueError: failed", "slow": 49}.get(item, item) if isinstance(item, str) else item


ITEMS = st.lists(st.integers() | st.text(max_size=8) | st.floats(allow_nan=False) | st.none(), max_size=60)
ODD = st.sampled_from(["fail", "slow", None, 0, 1])
SIZES = st.none() | st.integers(1, 70)

examples = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@examples
@given(items=ITEMS, repeat=st.sampled_from([1, 1, 300]), chunksize=SIZES, buffersize=SIZES)
def test_whatever_the_sizes_the_answers_are_those_of_map(
    warm: shoal.Pool, items: list[Any], repeat: int, chunksize: int | None, buffersize: int | None
) -> None:
    items = items * repeat
    answers = list(map(tasks.same, items))
    assert list(warm.imap(tasks.same, iter(items), chunksize, buffersize=buffersize)) == answers
    unordered = warm.imap_unordered(tasks.same, iter(items), chunksize, buffersize=buffersize)
    assert collections.Counter(map(repr, unordered)) == collections.Counter(map(repr, answers))
    assert warm.map(tasks.same, iter(items), chunksize, buffersize=buffersize) == answers
    pairs = ((item, item) for item in items)
    assert warm.starmap(both, pairs, chunksize, buffersize=buffersize) == [(item, item) for item in items]


def both(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


@examples
@given(cheap=st.integers(0, 3000), odd=st.lists(ODD, max_size=30), chunksize=st.sampled_from([None, 1]), size=SIZES)
def test_each_failure_is_in_its_place_among_cheap_items(
    warm: shoal.Pool, cheap: int, odd: list[Any], chunksize: int | None, size: int | None
) -> None:
    items = [*range(cheap), *odd, *range(cheap)]
    answers = [expected(item) for item in items]
    assert ends(warm.imap(odd_job, items, chunksize, buffersize=size)) == answers
    unordered = ends(warm.imap_unordered(odd_job, items, chunksize, buffersize=size))
    assert collections.Counter(unordered) == collections.Counter(answers)


def test_a_result_that_cannot_be_sent_fails_in_its_place(pool: shoal.Pool) -> None:
    seen = ends(pool.imap(odd_job, [*range(3000), "stuck", *range(3000)]))
    assert seen[:3000] == seen[3001:] == list(range(3000))
    assert "SerializationError" in seen[3000]


def test_cheap_items_travel_together_and_dear_ones_alone(pool: shoal.Pool) -> None:
    def ended() -> int:
        return sum(worker.tasks for worker in pool.workers)

    def sent(func: Callable[[int], object], count: int, chunksize: int | None) -> int:
        before = ended()
        collections.deque(pool.imap(func, range(count), chunksize), maxlen=0)
        return ended() - before

    assert sent(functools.partial(tasks.square, wait=0.003), 100, None) == 100
    assert sent(tasks.same, 500, 1) == 500
    assert sent(tasks.same, 500, 50) == 10
    # Items that a busy machine made wait look dear.
    assert eventually(lambda: 0 < sent(tasks.same, 50_000, None) < 5000)


@pytest.mark.parametrize("chunksize", [None, 1])
def test_an_item_is_sent_as_it_was_when_it_was_read(pool: shoal.Pool, chunksize: int | None) -> None:
    def reused() -> Iterator[list[int]]:
        buffer = [0]
        for number in range(5000):
            buffer[0] = number
            yield buffer

    assert list(pool.imap(tasks.same, reused(), chunksize)) == [[number] for number in range(5000)]
    assert pool.map(tasks.same, reused(), chunksize) == [[number] for number in range(5000)]


# ---- how far ahead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("buffersize", [1, 2, 7, 500])
def test_the_buffer_size_is_kept(pool: shoal.Pool, method: str, buffersize: int) -> None:
    meter = Meter()
    results = getattr(pool, method)(tasks.same, meter, buffersize=buffersize)
    assert meter.taken <= buffersize
    for taken in range(1, 2000):
        next(results)
        assert meter.taken <= taken + buffersize


@pytest.mark.parametrize("buffersize", [1, 3, 100])
def test_a_map_reads_no_further_ahead_of_what_is_done_than_the_buffer_size(pool: shoal.Pool, buffersize: int) -> None:
    done = shoal.Counter()

    def items() -> Iterator[int]:
        for number in range(1000):
            assert number - done.value < buffersize
            yield number

    assert pool.map(functools.partial(count, done), items(), buffersize=buffersize) == list(range(1000))


def count(done: shoal.Counter, item: int) -> int:
    done.add(1)
    return item


@pytest.mark.parametrize("method", METHODS)
def test_large_results_that_nobody_takes_are_few(pool: shoal.Pool, method: str) -> None:
    """A quarter of a GiB may wait, and what the workers are at."""
    meter = Meter()
    results = getattr(pool, method)(large, meter)
    next(results)
    assert eventually(meter.at_rest)
    assert meter.taken <= 1 + 8 + 8


def large(_: int) -> bytes:
    return bytes(32 << 20)


def test_an_array_that_all_items_share_does_not_count_as_theirs(pool: shoal.Pool) -> None:
    array = shoal.empty(300 << 20, "u1")
    meter = Meter()
    results = pool.imap(length, ((number, array) for number in meter))
    next(results)
    assert eventually(lambda: meter.taken > 4)


def length(pair: tuple[int, Any]) -> int:
    return len(pair[1])


@pytest.mark.parametrize("method", [*METHODS, "map", "starmap", "map_async", "starmap_async"])
@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_the_buffer_size_is_a_positive_integer(
    pool: shoal.Pool, method: str, size: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="buffersize"):
        getattr(pool, method)(tasks.same, [(1,)], buffersize=size)


# ---- inputs that do something ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 1])
def test_an_input_may_wait_for_what_it_has_given(pool: shoal.Pool, tmp_path: Path, chunksize: int | None) -> None:
    """Though the cheap items before have made for large batches, and it never gives another one until then."""

    def items() -> Iterator[Path | None]:
        for turn in range(5):
            yield from [None] * 2000
            yield tmp_path / str(turn)
            assert eventually((tmp_path / str(turn)).exists)

    assert list(pool.imap(touch_if_given, items(), chunksize)) == [None] * 10_005
    for turn in range(5):
        (tmp_path / str(turn)).unlink()
    assert pool.map(touch_if_given, items(), chunksize) == [None] * 10_005


def touch_if_given(path: Path | None) -> None:
    if path is not None:
        path.touch()


def test_an_input_may_use_the_pool(pool: shoal.Pool) -> None:
    def items() -> Iterator[int]:
        for number in range(50):
            yield pool.apply(tasks.square, (number,))
            assert pool.map(tasks.same, iter(range(3))) == [0, 1, 2]

    assert list(pool.imap(tasks.square, items())) == [number**4 for number in range(50)]


def test_an_input_that_asks_for_its_own_results_is_told_that_they_cannot_come(pool: shoal.Pool) -> None:
    streams: list[Iterator[int]] = []

    def items() -> Iterator[int]:
        for number in itertools.count():
            if streams:
                next(streams[0])
            yield number

    streams.append(pool.imap(tasks.square, items(), buffersize=3))
    with pytest.raises(ValueError, match="its own input"):
        collections.deque(streams[0], maxlen=0)


def test_a_map_raises_what_its_input_raises_when_the_items_before_have_ended(pool: shoal.Pool) -> None:
    done = shoal.Counter()

    def items() -> Iterator[int]:
        yield from range(100)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(functools.partial(count, done), items())
    assert done.value == 100


def test_a_map_over_an_iterator_raises_the_exception_of_the_first_item_that_fails(pool: shoal.Pool) -> None:
    items = [(0, 0.0), (1, 0.2), (3, 0.0), (5, 0.0)]
    for chunksize in (None, 1):
        with pytest.raises(ValueError, match="1 is odd"):
            pool.starmap(tasks.fail_if_odd, iter(items), chunksize)


def test_an_asynchronous_map_lists_its_input_first_unless_it_is_told_how_far_to_read(pool: shoal.Pool) -> None:
    readers = set()

    def items(fail: bool) -> Iterator[int]:
        for number in range(2000):
            readers.add(threading.current_thread())
            yield number
        if fail:
            raise LookupError("no more")

    with pytest.raises(LookupError):
        pool.map_async(tasks.square, items(True))
    assert pool.map_async(tasks.square, items(False)).get() == [x * x for x in range(2000)]
    assert readers == {threading.current_thread()}
    with pytest.raises(LookupError):
        pool.map_async(tasks.square, items(True), buffersize=10).get()
    later = pool.map_async(tasks.square, items(False), buffersize=10)
    assert eventually(later.ready)
    assert later.get() == [x * x for x in range(2000)]


# ---- who takes the results, and who does not -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_several_threads_may_take_from_a_stream_in_turn(pool: shoal.Pool, method: str) -> None:
    results = getattr(pool, method)(tasks.square, range(5000))
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.extend(results)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [x * x for x in range(5000)]


def one_array(_: int) -> bytes:
    return bytes(1 << 20)


def mark_when_told(item: tuple[int, Path]) -> None:
    number, directory = item
    (directory / f"mark {number}").touch()
    assert eventually((directory / "go").exists)


@pytest.mark.parametrize("method", METHODS)
def test_what_no_worker_has_begun_is_taken_back_when_the_iterator_is_closed(tmp_path: Path, method: str) -> None:
    with shoal.Pool(1) as pool:
        results = getattr(pool, method)(mark_when_told, [(number, tmp_path) for number in range(8)], chunksize=1)
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.01)
        assert eventually((tmp_path / "mark 0").exists)
        results.close()
        (tmp_path / "go").touch()
        pool.apply(abs, (-1,))
        assert [path.name for path in tmp_path.glob("mark *")] == ["mark 0"]


@pytest.mark.parametrize("let_go", ["close", "forget"])
def test_a_stream_that_is_let_go_reads_no_more_and_leaves_nothing(pool: shoal.Pool, let_go: str) -> None:
    pool.map(one_array, range(8), chunksize=1)
    before = shoal.memory()
    closed: list[bool] = []
    meter = Meter()

    def items() -> Iterator[int]:
        try:
            yield from meter
        finally:
            closed.append(True)

    results: Any = pool.imap(one_array, items())
    for _ in range(3):
        next(results)
    stream = weakref.ref(results)
    if let_go == "close":
        results.close()
        results.close()
        assert list(results) == []
    del results
    # A thread of the pool may just be letting go of it.
    assert eventually(lambda: gc.collect() >= 0 and stream() is None and closed == [True])
    assert meter.at_rest()
    assert eventually(lambda: (pool.apply(tasks.square, (1,)), shoal.memory().leases <= before.leases)[1])
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


def test_a_stream_in_a_cycle_with_its_input_is_collected(pool: shoal.Pool) -> None:
    class Source:
        stream: Any = None

        def __iter__(self) -> Iterator[int]:
            for number in itertools.count():
                yield number if self else 0

    source = Source()
    source.stream = pool.imap(tasks.same, source)
    gone = weakref.ref(source)
    del source
    assert eventually(lambda: gc.collect() >= 0 and gone() is None)


@pytest.mark.parametrize("method", METHODS)
def test_join_lets_streams_end_and_their_results_stay(method: str) -> None:
    pool = shoal.Pool(2)
    results = getattr(pool, method)(tasks.same, iter(range(20_000)))
    first = next(results)
    pool.close()
    pool.join()
    assert sorted([first, *results]) == list(range(20_000))


def test_a_stream_keeps_its_pool(pool: shoal.Pool) -> None:
    """As in the standard library: as long as there is something to come."""

    def stream() -> Iterator[int]:
        return shoal.Pool(1).imap(tasks.square, range(100))

    results = stream()
    assert [next(results) for _ in range(100)] == [x * x for x in range(100)]
    with pytest.warns(ResourceWarning, match=r"(?i)pool") as warned:
        assert list(results) == []
        assert eventually(lambda: gc.collect() >= 0 and len(warned))


# ---- sudden ends -----------------------------------------------------------------------------------------------------


def exit_at(last: int, item: int) -> int:
    if item == last:
        os._exit(3)
    return item


def test_a_worker_that_dies_takes_no_more_than_its_batch_along(pool: shoal.Pool) -> None:
    items = range(60_000)
    seen = ends(pool.imap(functools.partial(exit_at, 40_000), items))
    assert len(seen) == len(items)
    assert "WorkerDied" in seen[40_000]
    lost = [place for place, end in enumerate(seen) if end != place]
    assert all("WorkerDied" in seen[place] for place in lost)
    assert lost == list(range(lost[0], lost[-1] + 1)), "the items of one task"


def test_a_worker_that_dies_costs_one_item_if_items_travel_alone(pool: shoal.Pool) -> None:
    seen = ends(pool.imap(functools.partial(exit_at, 400), range(1000), chunksize=1))
    assert [place for place, end in enumerate(seen) if end != place] == [400]


@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_raises_stop_iteration_does_not_end_the_stream(pool: shoal.Pool, method: str) -> None:
    seen = ends(getattr(pool, method)(next_of, [[1], [], [3]]))
    assert sorted(map(str, seen)) == ["1", "3", "RuntimeError: next_of raised StopIteration"]


def next_of(items: list[int]) -> int:
    return next(iter(items))


@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_cannot_be_sent_is_refused_at_once(pool: shoal.Pool, method: str) -> None:
    call: Callable[..., Any] = getattr(pool, method)
    with pytest.raises(shoal.SerializationError):
        call(functools.partial(tasks.same, stuck()), [1])
    with pytest.raises(TypeError, match="callable"):
        call(3, [1])


def test_a_terminated_pool_ends_its_streams() -> None:
    pool = shoal.Pool(2)
    results = pool.imap(tasks.same, itertools.count())
    assert [next(results) for _ in range(5000)] == list(range(5000))
    pool.terminate()
    with pytest.raises(shoal.PoolClosed):
        collections.deque(results, maxlen=0)
    pool.join()
