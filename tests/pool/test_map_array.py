"""`Pool.map_array`: an array goes in, is cut, worked on by all, and comes out as one array."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import shoal
from tests.pool import tasks

Array = Any


@pytest.fixture(scope="module")
def workers() -> Iterator[shoal.Pool]:
    with shoal.Pool(2) as pool:
        yield pool
    pool.join()


def twice(block: Array) -> Array:
    return block * 2


def every_other(block: Array) -> Array:
    return block[::2]


def sums(block: Array) -> Array:
    return block.sum(axis=0, keepdims=True)


def as_text(block: Array) -> Array:
    """Wider for longer numbers: the first block can't tell the dtype of the others."""
    return numpy.array([str(item) for item in block.ravel()]).reshape(block.shape)


def integers_if_large(block: Array) -> Array:
    return block.astype("float64") if block.size < 3 else block.astype("int64")


def fill_with_seven(block: Array) -> None:
    block[...] = 7


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    pass


def raise_frozen(_: Array) -> Array:
    raise Frozen


def cut(length: int, chunks: Any) -> list[slice]:
    sizes = list(chunks) if isinstance(chunks, tuple) else [min(chunks, length - i) for i in range(0, length, chunks)]
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)] or [slice(0, 0)]


# ---- what comes out --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_it_is_the_function_applied_to_each_block_concatenated(workers: shoal.Pool, data: st.DataObject) -> None:
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7))
    array = numpy.asarray(numpy.arange(numpy.prod(shape)).reshape(shape), order=data.draw(st.sampled_from("CF")))
    if data.draw(st.booleans()):
        array = shoal.array(array)
    array = array[tuple(data.draw(st.slices(length)) for length in shape)]
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    length = array.shape[axis]
    chunks: Any = data.draw(st.one_of(st.integers(1, 9), st.just("parts")))
    if chunks == "parts":
        edges = sorted(data.draw(st.lists(st.integers(0, length), max_size=4)))
        chunks = tuple(stop - start for start, stop in zip([0, *edges], [*edges, length], strict=True))
    func = data.draw(st.sampled_from([twice, every_other, sums, as_text, integers_if_large, tasks.same]))

    before = array.copy()
    result = workers.map_array(func, array, axis=axis, chunks=chunks)

    index = (slice(None),) * (axis % array.ndim)
    expected = numpy.concatenate([func(before[(*index, block)]) for block in cut(length, chunks)], axis)
    assert type(result) is shoal.SharedArray
    assert result.dtype == expected.dtype
    numpy.testing.assert_array_equal(result, expected)
    numpy.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 100_000])
def test_without_chunks_it_is_cut_so_that_all_have_work(workers: shoal.Pool, length: int) -> None:
    array = numpy.arange(length, dtype="float64")
    result = workers.map_array(lambda block: numpy.full(len(block), len(block)), array)
    assert len(result) == length
    if length > 1:
        assert result.max() <= -(-length // 2)
    if length == 100_000:
        assert result.max() <= length // 8 + 1


def test_results_may_have_another_number_of_dimensions(workers: shoal.Pool) -> None:
    frames = numpy.arange(24.0).reshape(4, 3, 2)
    numpy.testing.assert_array_equal(workers.map_array(lambda b: b.mean(axis=(1, 2)), frames), frames.mean(axis=(1, 2)))
    numpy.testing.assert_array_equal(workers.map_array(lambda b: b[:, None], numpy.arange(5)), numpy.arange(5)[:, None])


def test_columns_first_stays_columns_first(workers: shoal.Pool) -> None:
    array = numpy.asfortranarray(numpy.arange(20.0).reshape(4, 5))
    assert workers.map_array(twice, array, axis=1, chunks=2).flags.f_contiguous


def test_records_and_times_are_arrays_like_others(workers: shoal.Pool) -> None:
    people = numpy.array([("a", 1), ("bc", 2), ("d", 3)], dtype=[("name", "U4"), ("age", "i4")])
    assert workers.map_array(tasks.same, people, chunks=1).tolist() == people.tolist()
    days = numpy.arange("2020-01-01", "2020-01-06", dtype="M8[D]")
    day = numpy.timedelta64(1, "D")
    assert workers.map_array(lambda b: b + day, days, chunks=2).tolist() == (days + day).tolist()


def test_an_empty_array_is_passed_to_the_function_once(workers: shoal.Pool) -> None:
    calls = shoal.Counter()

    def counted(block: Array) -> Array:
        calls.add(1)
        return block.astype("int16").sum(axis=1)

    result = workers.map_array(counted, numpy.empty((0, 3)))
    assert (result.shape, result.dtype, calls.value) == ((0,), numpy.dtype("int16").type(0).sum().dtype, 1)


def test_lists_are_taken_as_arrays(workers: shoal.Pool) -> None:
    assert workers.map_array(twice, [1, 2, 3]).tolist() == [2, 4, 6]


# ---- what goes in ----------------------------------------------------------------------------------------------------


def test_arrays_beside_it_are_cut_alike_and_all_else_is_passed_whole(workers: shoal.Pool) -> None:
    a, b = numpy.arange(10.0).reshape(5, 2), numpy.arange(5.0)[:, None]
    result = workers.map_array(lambda x, y, factor, parts: x * factor + y + sum(parts), a, b, 3, [1, 2], chunks=2)
    numpy.testing.assert_array_equal(result, a * 3 + b + 3)


def test_a_negative_axis_counts_from_the_end_of_each_array(workers: shoal.Pool) -> None:
    a, weights = numpy.arange(12.0).reshape(2, 6), numpy.arange(6.0)
    numpy.testing.assert_array_equal(workers.map_array(lambda x, w: x * w, a, weights, axis=-1, chunks=4), a * weights)


def test_an_array_is_passed_whole_as_part_of_the_function(workers: shoal.Pool) -> None:
    table = numpy.arange(100) ** 2
    assert workers.map_array(functools.partial(numpy.take, table), numpy.array([3, 2, 1]), chunks=1).tolist() == [
        9,
        4,
        1,
    ]


def test_a_block_of_an_ordinary_array_is_private_to_the_task(workers: shoal.Pool) -> None:
    array = numpy.zeros(10)

    def change(block: Array) -> Array:
        block += 1
        return block

    assert workers.map_array(change, array, chunks=3).tolist() == [1] * 10
    assert array.tolist() == [0] * 10


def test_a_block_of_a_shared_array_is_a_view_of_it(workers: shoal.Pool) -> None:
    array = shoal.zeros((4, 6))
    assert workers.map_array(fill_with_seven, array[:, ::2], axis=1, chunks=1) is None
    assert array.tolist() == [[7, 0] * 3] * 4


def test_a_block_of_an_array_in_a_file_is_a_view_of_it(workers: shoal.Pool, tmp_path: Path) -> None:
    array = shoal.open_array(tmp_path / "a.npy", "w+", dtype="int32", shape=10)
    workers.map_array(fill_with_seven, array[2:6], chunks=2)
    assert array.tolist() == [0, 0, 7, 7, 7, 7, 0, 0, 0, 0]


# ---- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [numpy.zeros, shoal.zeros], ids=["ordinary", "shared"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
def test_out_is_written_to_and_returned(workers: shoal.Pool, make: Any, dtype: str) -> None:
    out = make((7, 2), dtype)
    array = numpy.arange(14.0).reshape(7, 2)
    assert workers.map_array(twice, array, out=out, chunks=2) is out
    numpy.testing.assert_array_equal(out, array * 2)


def test_out_may_be_a_view_or_a_file(workers: shoal.Pool, tmp_path: Path) -> None:
    out = numpy.zeros(10)
    workers.map_array(twice, numpy.arange(5), out=out[::2], chunks=2)
    assert out.tolist() == [0, 0, 2, 0, 4, 0, 6, 0, 8, 0]
    file = shoal.open_array(tmp_path / "a.raw", "w+", dtype="int64", shape=5)
    workers.map_array(twice, numpy.arange(5), out=file, chunks=2)
    assert numpy.fromfile(tmp_path / "a.raw", "int64").tolist() == [0, 2, 4, 6, 8]


def test_out_may_be_the_array_itself(workers: shoal.Pool) -> None:
    array = shoal.array(numpy.arange(10))
    workers.map_array(twice, array, out=array, chunks=3)
    assert array.tolist() == list(range(0, 20, 2))


def test_what_is_read_is_not_what_was_just_written(workers: shoal.Pool) -> None:
    array = shoal.array(numpy.arange(1000))
    workers.map_array(tasks.same, array[:-1], out=array[1:], chunks=1)
    assert array.tolist() == [0, *range(999)]


@pytest.mark.parametrize("shape", [(4, 2), (5,), (5, 3), (5, 2, 1), ()])
def test_out_of_another_shape_is_an_error(workers: shoal.Pool, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"out has"):
        workers.map_array(twice, numpy.zeros((5, 2)), out=numpy.zeros(shape))


def test_out_that_can_not_take_the_results_is_an_error(workers: shoal.Pool) -> None:
    with pytest.raises(TypeError, match=r"float64 for block 0:2 of axis 0, and out is int32"):
        workers.map_array(twice, numpy.zeros(5), out=numpy.zeros(5, "int32"), chunks=2)
    with pytest.raises(TypeError, match="out must be an ndarray, not list"):
        workers.map_array(twice, numpy.zeros(5), out=[0] * 5)
    read_only = numpy.zeros(5)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out must not be read-only"):
        workers.map_array(twice, numpy.zeros(5), out=read_only)
    with pytest.raises(TypeError, match="func returned None for block 0:5"):
        workers.map_array(fill_with_seven, numpy.zeros(5), out=numpy.zeros(5), chunks=5)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_exception_comes_as_itself_and_names_the_block(workers: shoal.Pool) -> None:
    def fail_from_four_on(block: Array) -> Array:
        if block.max() >= 4:
            raise KeyError(int(block.max()))
        return block

    for chunks, last, block in ((1, 4, "4:5"), (3, 5, "3:6")):
        for out in (None, numpy.zeros(20)):
            with pytest.raises(KeyError, match=str(last)) as caught:
                workers.map_array(fail_from_four_on, numpy.arange(20), chunks=chunks, out=out)
            assert caught.value.__notes__ == [f"raised for block {block} of axis 0"]


def test_an_exception_that_refuses_a_note_still_comes_as_itself(workers: shoal.Pool) -> None:
    with pytest.raises(Frozen):
        workers.map_array(raise_frozen, numpy.zeros(2), chunks=2)


def test_results_that_can_not_be_joined_name_the_block(workers: shoal.Pool) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for block 3:5 of axis 0"):
        workers.map_array(lambda b: numpy.zeros((len(b), len(b))), numpy.zeros(5), chunks=(3, 2))
    with pytest.raises(ValueError, match=r"a scalar \(float64\) for block 0:3"):
        workers.map_array(numpy.sum, numpy.zeros(5), chunks=3)
    with pytest.raises(ValueError, match=r"shape \(3,\) for block 0:3 of axis 1, which has no such axis"):
        workers.map_array(lambda b: b[0], numpy.zeros((2, 6)), axis=1, chunks=3)
    with pytest.raises(TypeError, match="None for block 3:5"):
        workers.map_array(lambda b: b if len(b) == 3 else None, numpy.zeros(5), chunks=3)


def test_objects_and_masks_are_refused(workers: shoal.Pool) -> None:
    with pytest.raises(TypeError, match="a holds Python objects"):
        workers.map_array(twice, numpy.array([None, 1]))
    with pytest.raises(TypeError, match=r"others\[0\] holds Python objects"):
        workers.map_array(twice, numpy.zeros(2), numpy.array([None, 1]))
    with pytest.raises(TypeError, match=r"result of func for block 0:2 of axis 0 holds Python objects"):
        workers.map_array(lambda b: b.astype(object), numpy.zeros(2), chunks=2)
    with pytest.raises(TypeError, match="a is a masked array"):
        workers.map_array(twice, numpy.ma.masked_equal([1, 2], 2))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "axis 2 is out of bounds", {"axis": 2}),
        (ValueError, "axis -3 is out of bounds", {"axis": -3}),
        (TypeError, "axis must be an integer", {"axis": 0.0}),
        (ValueError, "chunks must be 1 or more", {"chunks": 0}),
        (ValueError, "chunks must be sizes that add up to 4", {"chunks": (1, 2)}),
        (ValueError, "chunks must be sizes that add up to 4", {"chunks": (5, -1)}),
        (TypeError, "chunks must be an integer", {"chunks": "2"}),
        (TypeError, "chunks must be an integer", {"chunks": (1.5, 2.5)}),
    ],
)
def test_arguments_that_make_no_sense_are_errors(
    workers: shoal.Pool, error: Any, message: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(error, match=message):
        workers.map_array(twice, numpy.zeros((4, 2)), **arguments)


def test_lengths_that_differ_are_an_error(workers: shoal.Pool) -> None:
    with pytest.raises(ValueError, match=r"others\[1\] has shape \(3,\)"):
        workers.map_array(twice, numpy.zeros(4), 1, numpy.zeros(3))
    with pytest.raises(numpy.exceptions.AxisError):
        workers.map_array(twice, 3.0)
    with pytest.raises(TypeError, match="func must be callable"):
        workers.map_array(3, numpy.zeros(3))  # type: ignore[arg-type]


def test_a_closed_pool_takes_no_arrays() -> None:
    with shoal.Pool(1) as pool:
        pool.close()
        with pytest.raises(shoal.PoolClosed):
            pool.map_array(twice, numpy.zeros(3))


def test_a_worker_that_dies_fails_the_call_and_the_next_one_works() -> None:
    with shoal.Pool(2) as pool:
        with pytest.raises(shoal.WorkerDied):
            pool.map_array(lambda block: tasks.exit_hard(3) if block[0] == 6 else block, numpy.arange(8), chunks=2)
        assert pool.map_array(twice, numpy.arange(3)).tolist() == [0, 2, 4]


def test_the_result_outlives_the_pool(pool: shoal.Pool) -> None:
    one, many = (pool.map_array(twice, numpy.arange(100_000), chunks=chunks) for chunks in (100_000, 1000))
    pool.terminate()
    pool.join()
    assert int(one.sum()) == int(many.sum()) == 100_000 * 99_999
