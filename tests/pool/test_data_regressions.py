"""Faults of the data path that were found, each with the test that shows it."""

import array
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy
import pytest

import shoal
from shoal.serialize import dumps, loads
from tests.pool.support import eventually

ITEMS = 100_000


def same(value: Any) -> Any:
    return value


def write_first_read_second(pair: tuple[Any, Any]) -> float:
    pair[0][:] = 7
    return float(pair[1].flat[0])


@pytest.mark.parametrize("chunksize", [None, 1, 2])
@pytest.mark.parametrize("view", [lambda a: a[:], lambda a: a.T, lambda a: a.view("i8")], ids=["all", "T", "as i8"])
def test_a_view_beside_its_array_is_an_array_of_its_own_in_every_task(
    pool: shoal.Pool, chunksize: int | None, view: Callable[[Any], Any]
) -> None:
    whole = numpy.zeros((100, 1000))
    assert pool.map(write_first_read_second, [(whole, view(whole))] * 6, chunksize) == [0] * 6


scratch = numpy.zeros(ITEMS)


class Reused:
    """Shows the pickler one array, with another content for each object."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        scratch[:] = self.value
        return same, (scratch,)


@pytest.mark.parametrize("chunksize", [None, 1])
def test_an_array_that_is_filled_anew_for_each_item(pool: shoal.Pool, chunksize: int | None) -> None:
    items = [Reused(value) for value in range(6)]
    assert [float(found[0]) for found in pool.map(same, items, chunksize)] == [0, 1, 2, 3, 4, 5]


class Witness:
    pass


def fail(_: Any) -> None:
    raise ValueError("as asked")


@pytest.mark.parametrize("call", ["map", "apply_async", "map_async"])
def test_a_call_that_failed_keeps_nothing_of_its_caller(pool: shoal.Pool, call: str) -> None:
    witnesses: list[weakref.ref[Witness]] = []

    def failing() -> None:
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        result = pool.map_async(fail, [1]) if call == "map_async" else pool.apply_async(fail, (1,))
        with pytest.raises(ValueError, match="as asked"):
            pool.map(fail, [1]) if call == "map" else result.get()

    failing()
    # A thread of the pool may just be letting go of it.
    assert eventually(lambda: gc.collect() >= 0 and witnesses[0]() is None)


def test_threads_that_submit_what_needs_a_reducer_do_not_wait_for_each_other(pool: shoal.Pool) -> None:
    assert array.array  # its module is imported, so its reducer is looked for
    barrier, done = threading.Barrier(4), []

    def submit(number: int) -> None:
        barrier.wait()
        for turn in range(20):
            assert pool.apply_async(same, (Fraction(turn, number + 1),)).get() == Fraction(turn, number + 1)
        done.append(number)

    threads = [threading.Thread(target=submit, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert sorted(done) == [0, 1, 2, 3]


class Nested:
    """Pickles a part of itself by itself."""

    def __reduce__(self) -> Any:
        # A lambda, so that it goes the longer way.
        return loads, (dumps([numpy.ones(ITEMS), lambda: None]),)


def test_a_pickle_inside_a_pickle_is_whole(pool: shoal.Pool) -> None:
    assert pool.apply(lambda pair: float(pair[0].sum()), (Nested(),)) == ITEMS


def test_a_finished_map_lets_its_items_go(pool: shoal.Pool) -> None:
    values = array.array("d", [1.0]) * ITEMS
    result = pool.map_async(len, [values, values])
    assert result.get() == [ITEMS, ITEMS]
    values.append(1.0)  # a BufferError if somebody still had a view of it


@pytest.mark.parametrize(
    "given",
    [
        memoryview(numpy.zeros((0, 3))),
        memoryview(numpy.ones((100, 100), "c16")),
        memoryview(numpy.arange(30_000, dtype=">i4")),
        memoryview(bytes(range(200)) * 500),
        memoryview(bytes(range(200)) * 500)[::2],
        memoryview(numpy.asfortranarray(numpy.arange(30_000.0).reshape(100, 300))),
    ],
    ids=["empty", "complex", "swapped", "read-only", "strided read-only", "Fortran"],
)
def test_memory_views_of_every_make(pool: shoal.Pool, given: memoryview) -> None:
    there = pool.apply(same, (given,))
    assert (there.format, there.shape, there.readonly) == (given.format, given.shape, given.readonly)
    assert numpy.array_equal(numpy.asarray(there), numpy.asarray(given))


def test_a_buffer_arrives_as_one_that_has_a_length(pool: shoal.Pool) -> None:
    there = pool.apply(same, (pickle.PickleBuffer(bytearray(b"x" * 20_000)),))
    assert len(there) == 20_000
    assert there[0] == ord("x")


def first_three(pair: tuple[Any, int]) -> Any:
    return pair[0][:3]


def test_many_tasks_that_keep_the_same_array(pool: shoal.Pool) -> None:
    big = numpy.arange(float(ITEMS))
    results = pool.map(first_three, [(big, n) for n in range(6000)], 6000)
    assert all(result.tolist() == [0, 1, 2] for result in results)


def test_what_failed_maps_held_is_given_back() -> None:
    gc.collect()
    before = shoal.memory().here
    with shoal.Pool(2) as pool:
        for _ in range(10):
            with pytest.raises(ValueError, match="as asked"):
                pool.map(fail, [numpy.ones(ITEMS)] * 4)
        gc.collect()
        assert eventually(lambda: shoal.memory().here <= before)
