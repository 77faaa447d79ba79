"""imap and imap_unordered: results one by one, while the work goes on, from inputs that may have no end."""

import itertools
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal
from tests.pool import tasks
from tests.pool.support import eventually


class Meter:
    """An endless input that knows how much of it was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.taken += 1
            yield number

    def at_rest(self) -> bool:
        """Tells whether a while passes without anything being taken."""
        before = self.taken
        time.sleep(0.3)
        return self.taken == before


@pytest.mark.parametrize("chunksize", [1, 3, 100, 5000])
def test_imap_keeps_the_order_of_the_items(pool: shoal.Pool, chunksize: int) -> None:
    assert list(pool.imap(tasks.square, range(1000), chunksize)) == [x * x for x in range(1000)]


@pytest.mark.parametrize("chunksize", [1, 3, 100, 5000])
def test_imap_unordered_gives_every_result_once(pool: shoal.Pool, chunksize: int) -> None:
    assert sorted(pool.imap_unordered(tasks.square, range(1000), chunksize)) == [x * x for x in range(1000)]


def test_imap_of_nothing_ends_at_once(pool: shoal.Pool) -> None:
    assert list(pool.imap(tasks.square, [])) == []
    assert list(pool.imap_unordered(tasks.square, iter(()))) == []


def test_imap_gives_a_result_while_later_items_are_not_done(pool: shoal.Pool, tmp_path: Path) -> None:
    gate, opened = tmp_path / "gate", tmp_path / "opened"
    opened.touch()
    results = pool.imap(tasks.wait_for, [opened, gate])
    assert next(results) is None
    gate.touch()
    assert list(results) == [None]


def test_imap_unordered_gives_first_what_is_done_first(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    results = pool.imap_unordered(Waiter(gate), ["late", "early"])
    assert next(results) == "early"
    gate.touch()
    assert next(results) == "late"


class Waiter:
    """A function that makes the item "late" wait for a file."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def __call__(self, item: str) -> object:
        return tasks.wait_for(self.gate, item) if item == "late" else item


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_next_waits_no_longer_than_its_timeout(pool: shoal.Pool, tmp_path: Path, method: str) -> None:
    gate = tmp_path / "gate"
    results = getattr(pool, method)(tasks.wait_for, [gate])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    gate.touch()
    assert results.next(timeout=150) is None
    with pytest.raises(StopIteration):
        results.next(timeout=150)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_an_endless_input_is_read_only_a_bounded_way_ahead(pool: shoal.Pool, method: str) -> None:
    meter = Meter()
    results = getattr(pool, method)(tasks.square, meter)
    assert len([next(results) for _ in range(10)]) == 10
    assert eventually(meter.at_rest)
    assert meter.taken < 10_000


def test_reading_goes_on_when_results_are_taken(pool: shoal.Pool) -> None:
    meter = Meter()
    results = pool.imap(tasks.square, meter)
    assert [next(results) for _ in range(20_000)] == [x * x for x in range(20_000)]


def test_an_imap_that_nobody_reads_holds_up_no_one_else(pool: shoal.Pool) -> None:
    forgotten = pool.imap(tasks.square, Meter())
    assert pool.map(tasks.square, range(100)) == [x * x for x in range(100)]
    assert next(forgotten) == 0


def test_a_pool_ends_in_the_middle_of_an_endless_imap() -> None:
    with shoal.Pool(2) as pool:
        results = pool.imap(tasks.square, Meter())
        assert next(results) == 0
    pool.join()


def test_a_failed_item_raises_in_its_place_and_the_rest_follows(pool: shoal.Pool) -> None:
    results = pool.imap(tasks.fail_if_odd, [0, 2, 3, 4, 6])
    assert [next(results), next(results)] == [0, 2]
    with pytest.raises(ValueError, match="3 is odd"):
        next(results)
    assert list(results) == [4, 6]


@pytest.mark.parametrize("chunksize", [2, 100])
def test_a_failed_item_raises_with_larger_chunks_too(pool: shoal.Pool, chunksize: int) -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        list(pool.imap(tasks.fail_if_odd, [0, 2, 3, 4, 6], chunksize))
    with pytest.raises(ValueError, match="3 is odd"):
        list(pool.imap_unordered(tasks.fail_if_odd, [0, 2, 3, 4, 6], chunksize))


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_an_exception_of_the_iterable_comes_after_the_results_before_it(pool: shoal.Pool, method: str) -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2)
        raise LookupError("no more")

    results = getattr(pool, method)(tasks.square, numbers())
    seen = []
    with pytest.raises(LookupError, match="no more"):
        for result in results:
            seen.append(result)
    if method == "imap":
        assert seen == [1, 4]
    else:
        assert set(seen) <= {1, 4}
    assert pool.apply(tasks.square, (3,)) == 9


@pytest.mark.parametrize("chunksize", [0, -1])
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_a_chunk_holds_at_least_one_item(pool: shoal.Pool, method: str, chunksize: int) -> None:
    with pytest.raises(ValueError, match=r"(?i)chunksize"):
        getattr(pool, method)(tasks.square, [1], chunksize)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_imap_needs_an_iterable_and_says_so_at_once(pool: shoal.Pool, method: str) -> None:
    with pytest.raises(TypeError, match="iterable"):
        getattr(pool, method)(tasks.square, 5)
