"""map and starmap: a function over all items, results in the order of the items."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal
from tests.pool import tasks


def test_map_keeps_the_order_of_the_items(pool: shoal.Pool) -> None:
    assert pool.map(tasks.square, range(1000)) == [x * x for x in range(1000)]


def test_map_of_nothing_is_an_empty_list(pool: shoal.Pool) -> None:
    assert pool.map(tasks.square, []) == []
    assert pool.starmap(tasks.add, []) == []
    assert pool.map_async(tasks.square, iter(())).get() == []


@pytest.mark.parametrize("chunksize", [1, 2, 7, 99, 100, 101, 100_000])
def test_the_size_of_chunks_changes_nothing(pool: shoal.Pool, chunksize: int) -> None:
    assert pool.map(tasks.square, range(100), chunksize=chunksize) == [x * x for x in range(100)]
    assert pool.starmap(tasks.add, zip(range(100), range(100), strict=True), chunksize) == [2 * x for x in range(100)]


def test_map_takes_a_hundred_thousand_items(pool: shoal.Pool) -> None:
    assert pool.map(tasks.square, range(100_000)) == [x * x for x in range(100_000)]


def test_map_takes_any_iterable(pool: shoal.Pool) -> None:
    def numbers() -> Iterator[int]:
        yield from (3, 1, 2)

    assert pool.map(tasks.square, numbers()) == [9, 1, 4]
    assert pool.map(tasks.same, "abc") == ["a", "b", "c"]
    assert pool.map(tasks.same, {"x": 1, "y": 2}) == ["x", "y"]
    assert pool.map(tasks.same, zip([1], [2], strict=True)) == [(1, 2)]


def test_map_needs_an_iterable(pool: shoal.Pool) -> None:
    with pytest.raises(TypeError, match="iterable"):
        pool.map(tasks.square, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunk_holds_at_least_one_item(pool: shoal.Pool, chunksize: int) -> None:
    with pytest.raises(ValueError, match=r"(?i)chunksize"):
        pool.map(tasks.square, [1], chunksize=chunksize)


def test_starmap_spreads_each_item_over_the_parameters(pool: shoal.Pool) -> None:
    assert pool.starmap(tasks.add, [(1,), (1, 2), [1, 2, 3], ()]) == [1, 3, 6, 0]


def test_map_and_starmap_have_an_asynchronous_form(pool: shoal.Pool) -> None:
    squares = pool.map_async(tasks.square, [1, 2, 3])
    sums = pool.starmap_async(tasks.add, [(1, 2), (3, 4)])
    assert squares.get() == [1, 4, 9]
    assert sums.get() == [3, 7]


def test_map_uses_all_workers(pool: shoal.Pool, tmp_path: Path) -> None:
    """The first two items wait for each other."""
    files = [tmp_path / "a", tmp_path / "b"]
    assert pool.starmap(tasks.touch_and_wait, [files, files[::-1]], chunksize=1) == [None, None]


def test_map_raises_the_exception_of_an_item(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError, match="1 is odd"):
        pool.map(tasks.fail_if_odd, [0, 1, 2])
    assert pool.map(tasks.square, [1, 2]) == [1, 4]


def test_of_several_exceptions_map_raises_that_of_the_first_item(pool: shoal.Pool) -> None:
    """The answer does not depend on who was faster: here the second failure happens long before the first."""
    with pytest.raises(ValueError, match="1 is odd"):
        pool.starmap(tasks.fail_if_odd, [(1, 0.3), (3, 0.0), (5, 0.0)], chunksize=1)


def test_an_exception_of_the_iterable_is_raised_as_it_is(pool: shoal.Pool) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(tasks.square, numbers())


def test_several_maps_may_be_under_way(pool: shoal.Pool) -> None:
    results = [pool.map_async(tasks.square, range(start, start + 100), 3) for start in range(0, 2000, 100)]
    assert [x for result in results for x in result.get()] == [x * x for x in range(2000)]


def test_map_async_can_be_waited_for_with_a_limit(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = pool.map_async(tasks.wait_for, [gate])
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    gate.touch()
    assert result.get() == [None]
