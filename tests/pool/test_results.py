"""Arrays that go and come back: copied or not, they are the receiver's own."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy
import psutil
import pytest

import shoal
from tests.pool.support import eventually

ITEMS = 100_000  # of float64: large enough to travel beside the pickle, and for the worker's arena


def made(value: float) -> Any:
    return numpy.full(ITEMS, value)


kept: list[Any] = []


def made_and_kept(value: float) -> Any:
    array = numpy.full(ITEMS, value)
    kept.append(array)
    return array


def overwrite_kept(value: float) -> int:
    for array in kept:
        array[:] = value
    return len(kept)


def test_a_result_is_an_ordinary_writable_array(pool: shoal.Pool) -> None:
    result = pool.apply(made, (3,))
    assert type(result) is numpy.ndarray
    assert result.flags.writeable and result.flags.aligned and result.flags.c_contiguous
    result += 1
    assert (result == 4).all()


def test_a_result_that_the_worker_keeps_is_a_copy(pool: shoal.Pool) -> None:
    with shoal.Pool(1) as one:
        result = one.apply(made_and_kept, (1,))
        assert one.apply(overwrite_kept, (2,)) == 1
        assert (result == 1).all()


def cyclic() -> Any:
    array = numpy.full(ITEMS, 5.0)
    cycle: list[Any] = [array]
    cycle.append(cycle)
    return array


def keep(array: Any) -> None:
    kept.append(array)


def totals() -> list[float]:
    return [float(array.sum()) for array in kept]


def total_of_last(_: int) -> float:
    return float(kept[-1].sum())


def end() -> None:
    sys.exit()


def test_an_array_in_a_cycle_is_a_copy() -> None:
    with shoal.Pool(1) as one:
        results = [one.apply(cyclic) for _ in range(3)]
        one.apply(made, (7,))
        assert all((result == 5).all() for result in results)


def test_views_of_one_array_come_back_as_arrays_of_their_own() -> None:
    def overlapping() -> Any:
        array = numpy.arange(float(ITEMS))
        return array, array[10:], array[::-1], array[: ITEMS // 2]

    with shoal.Pool(1) as one:
        whole, tail, backwards, half = one.apply(overlapping)
    whole[:] = -1
    expected = numpy.arange(float(ITEMS))
    assert (tail == expected[10:]).all()
    assert (backwards == expected[::-1]).all()
    assert (half == expected[: ITEMS // 2]).all()


def test_one_array_twice_in_a_result_is_one_array(pool: shoal.Pool) -> None:
    def twice() -> Any:
        array = numpy.zeros(ITEMS)
        return [array, array]

    first, second = pool.apply(twice)
    assert first is second


def test_a_small_part_of_a_large_array_does_not_keep_all_of_it(pool: shoal.Pool) -> None:
    def part() -> Any:
        return numpy.ones(100 * ITEMS)[:ITEMS]

    before = shoal.memory().here
    result = pool.apply(part)
    assert (result == 1).all()
    assert shoal.memory().here - before < 2 * result.nbytes


def test_results_outlive_their_pool() -> None:
    with shoal.Pool(2) as pool:
        results = pool.map(made, range(20))
    pool.join()
    for value, result in enumerate(results):
        assert (result == value).all()
        result += 1
        assert (result == value + 1).all()


def test_what_is_dropped_is_given_back() -> None:
    gc.collect()
    before = shoal.memory()
    with shoal.Pool(2) as pool:
        results = pool.map(made, range(20))
        assert shoal.memory().leases > before.leases
        del results
        gc.collect()
        assert eventually(lambda: shoal.memory().leases <= before.leases)
        assert eventually(lambda: shoal.memory().blocks <= before.blocks)


@pytest.mark.parametrize("resize", [ITEMS // 100, ITEMS // 2, 3 * ITEMS])
def test_an_array_that_changes_its_size_keeps_its_items(pool: shoal.Pool, resize: int) -> None:
    def resized() -> Any:
        array = numpy.arange(float(ITEMS))
        array.resize(resize, refcheck=False)
        return array

    expected = numpy.arange(float(ITEMS))
    expected.resize(resize, refcheck=False)
    assert (pool.apply(resized) == expected).all()


def test_zeros_are_zero_in_memory_that_was_used_before(pool: shoal.Pool) -> None:
    def zeros_after(value: float) -> bool:
        numpy.full(ITEMS, value)
        return not numpy.zeros(ITEMS).any()

    assert all(pool.map(zeros_after, range(1, 20)))


def sparse(size: int) -> int:
    array = numpy.zeros(size, "u1")
    array[size // 2] = 7
    return int(array[size // 2])


def test_an_array_that_is_hardly_used_takes_no_shared_memory(pool: shoal.Pool) -> None:
    size = psutil.virtual_memory().total // 2
    assert pool.apply(sparse, (size,)) == 7
    assert shoal.memory().bytes < size


# ---- arguments -------------------------------------------------------------------------------------------------------


def incremented(array: Any, *_: Any) -> float:
    array += 1
    total: float = array.sum()
    return total


@pytest.mark.parametrize("chunksize", [None, 1, 7])
@pytest.mark.parametrize("items", [100, ITEMS])
def test_tasks_of_one_map_that_get_the_same_array_see_nothing_of_each_other(
    pool: shoal.Pool, chunksize: int | None, items: int
) -> None:
    array = numpy.zeros(items)
    assert pool.map(incremented, [array] * 30, chunksize) == [items] * 30
    assert pool.starmap(incremented, [(array, n) for n in range(30)], chunksize) == [items] * 30
    assert not array.any()


def test_the_arrays_of_a_map_are_copied_once_for_all_its_tasks() -> None:
    array = numpy.zeros(10 * ITEMS)
    with shoal.Pool(2) as pool:
        pool.map(len, [array] * 2)
        before = shoal.memory().bytes
        assert sum(pool.map(len, [array] * 100, 1)) == 1000 * ITEMS
        assert shoal.memory().bytes - before < 3 * array.nbytes


def test_an_argument_that_a_task_keeps_stays_what_it_was() -> None:
    with shoal.Pool(1) as one:
        array = numpy.zeros(ITEMS)
        for value in range(5):
            array[:] = value
            one.apply(keep, (array,))
            one.apply(incremented, (array,))
        assert one.apply(totals) == [value * ITEMS for value in range(5)]


def test_an_array_of_a_closure_is_private_to_the_worker_and_gone_after_the_call() -> None:
    before = shoal.memory().leases
    array = numpy.ones(ITEMS)

    def total(n: int) -> float:
        return float(array.sum()) + n

    with shoal.Pool(2) as pool:
        assert pool.map(total, range(10)) == [ITEMS + n for n in range(10)]
        array[:] = 2
        assert pool.map(total, range(10)) == [2 * ITEMS + n for n in range(10)]
        assert eventually(lambda: shoal.memory().leases <= before)


def test_arrays_of_the_initializer_reach_every_worker_also_a_late_one() -> None:
    with shoal.Pool(1, keep, (numpy.ones(ITEMS),)) as pool:
        assert pool.map(total_of_last, range(3)) == [ITEMS] * 3
        with pytest.raises(shoal.WorkerDied):
            pool.apply(end)
        assert pool.map(total_of_last, range(3)) == [ITEMS] * 3


def test_an_array_is_taken_as_it_is_at_the_time_of_the_call(pool: shoal.Pool) -> None:
    array = numpy.zeros(ITEMS)
    results = []
    for value in range(20):
        array[:] = value
        results.append(pool.apply_async(incremented, (array,)))
    assert [result.get() for result in results] == [(value + 1) * ITEMS for value in range(20)]


def test_a_generator_that_gives_one_array_again_and_again(pool: shoal.Pool) -> None:
    def same() -> Any:
        array = numpy.zeros(ITEMS)
        for value in range(20):
            array[:] = value
            yield array

    assert list(pool.imap(incremented, same())) == [(value + 1) * ITEMS for value in range(20)]


@pytest.mark.parametrize(
    "wrap", [lambda a: [a], lambda a: {"a": a}, lambda a: (1, a), lambda a: [[{"b": a}]]], ids=range(4)
)
def test_arrays_inside_other_things(pool: shoal.Pool, wrap: Callable[[Any], Any]) -> None:
    def change(structure: Any) -> Any:
        while not isinstance(structure, numpy.ndarray):
            structure = structure[-1] if isinstance(structure, list | tuple) else next(iter(structure.values()))
        structure += 1
        return structure

    array = numpy.zeros(ITEMS)
    for _ in range(3):
        assert (pool.apply(change, (wrap(array),)) == 1).all()
    assert not array.any()


def test_a_worker_that_dies_with_arrays_leaves_nothing() -> None:
    def die(array: Any) -> None:
        made_and_kept(float(array[0]))
        sys.exit(3)

    gc.collect()
    before = shoal.memory()
    with shoal.Pool(2) as pool:
        for _ in range(5):
            with pytest.raises(shoal.WorkerDied):
                pool.apply(die, (numpy.ones(ITEMS),))
        assert eventually(lambda: shoal.memory().leases <= before.leases)


# ---- no memory -------------------------------------------------------------------------------------------------------

# A few bytes here, more than any machine has once it is copied.
vast = numpy.broadcast_to(numpy.zeros(1), 10**14)


def test_an_argument_that_no_memory_can_hold_is_refused_at_once_and_alone(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.OutOfSharedMemory):
        pool.apply_async(len, (vast,))
    with pytest.raises(MemoryError):
        pool.map(len, [[1], vast, [2]])
    assert pool.apply(len, ([1, 2],)) == 2


def vast_result(_: int) -> Any:
    return vast


def test_a_result_that_no_memory_can_hold_fails_its_task_alone(pool: shoal.Pool) -> None:
    results = [pool.apply_async(function, (3,)) for function in (made, vast_result, made)]
    with pytest.raises(shoal.OutOfSharedMemory):
        results[1].get()
    assert (results[0].get() == results[2].get()).all()
