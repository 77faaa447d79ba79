"""Data arrives as pickle would copy it: equal, of the same make, and private to the task that got it."""

import array
import functools
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

import shoal
from tests.pool import data

SHAPES = ((), (0,), (3, 0, 2), (1,), (7,), (5, 6), (2, 3, 4), (5_000,), (70, 80), (20, 30, 10))
# Elements of eight bytes below and above 16 KiB, and above 64 KiB and 1 MiB.
COUNTS = (100, 3_000, 20_000, 200_000)


@pytest.fixture(scope="module")
def pool() -> Iterator[shoal.Pool]:
    with shoal.Pool(2) as pool:
        yield pool
    pool.join()


@pytest.fixture
def one() -> Iterator[shoal.Pool]:
    """A pool of one worker: every task comes to where the others were."""
    with shoal.Pool(1) as pool:
        yield pool
    pool.join()


# ---- values ----------------------------------------------------------------------------------------------------------

arrays = {
    "seed": st.integers(0, 1 << 32),
    "dtype": st.sampled_from(data.DTYPES),
    "shape": st.sampled_from(SHAPES),
    "layout": st.sampled_from(data.LAYOUTS),
}


@hypothesis.settings(max_examples=150)
@hypothesis.given(**arrays)
def test_an_array_arrives_as_argument(
    pool: shoal.Pool, seed: int, dtype: Any, shape: tuple[int, ...], layout: str
) -> None:
    given = data.make(seed, dtype, shape, layout)
    assert pool.apply(data.seen, (given,)) == data.seen(data.copied(given))


@hypothesis.settings(max_examples=150)
@hypothesis.given(**arrays)
def test_an_array_arrives_as_result(
    pool: shoal.Pool, seed: int, dtype: Any, shape: tuple[int, ...], layout: str
) -> None:
    result = pool.apply(data.make, (seed, dtype, shape, layout))
    assert data.seen(result) == data.seen(data.copied(data.make(seed, dtype, shape, layout)))


@hypothesis.settings(max_examples=50)
@hypothesis.given(**arrays)
def test_an_array_comes_back_among_others(
    pool: shoal.Pool, seed: int, dtype: Any, shape: tuple[int, ...], layout: str
) -> None:
    given = data.make(seed, dtype, shape, layout)
    back = pool.apply(data.same, ({"a": given, "b": [given, data.Box(given)], "c": np.arange(10_000)},))
    expected = data.seen(data.copied(given))
    assert [data.seen(x) for x in (back["a"], back["b"][0], back["b"][1].content)] == [expected] * 3
    assert back["a"] is back["b"][0] is back["b"][1].content, "what was one object is one object"
    assert (back["c"] == np.arange(10_000)).all()


@pytest.mark.parametrize("count", COUNTS)
def test_a_masked_array_keeps_its_mask(pool: shoal.Pool, count: int) -> None:
    given = np.ma.masked_array(np.arange(count), mask=np.arange(count) % 3 == 0, fill_value=-7)
    back = pool.apply(data.same, (given,))
    assert type(back) is np.ma.MaskedArray
    assert (back.mask == given.mask).all() and (back.data == given.data).all() and back.fill_value == -7


@pytest.mark.parametrize("count", COUNTS)
def test_a_recarray_keeps_its_attributes(pool: shoal.Pool, count: int) -> None:
    given = np.rec.fromarrays([np.arange(count), np.arange(count) * 0.5], names="a,b")
    back = pool.apply(data.same, (given,))
    assert type(back) is np.recarray
    assert (back.a == given.a).all() and (back.b == given.b).all()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("count", COUNTS)
def test_a_matrix_stays_a_matrix(pool: shoal.Pool, count: int) -> None:
    given = np.matrix(np.arange(count).reshape(-1, 10))
    back = pool.apply(data.same, (given,))
    assert type(back) is np.matrix and back.shape == given.shape
    assert (back == given).all()


@pytest.mark.parametrize("count", COUNTS)
def test_an_array_class_of_the_user_keeps_its_attributes(pool: shoal.Pool, count: int) -> None:
    given = np.arange(count).view(data.Labelled)
    given.label = "depth"
    back = pool.apply(data.same, (given,))
    assert type(back) is data.Labelled and back.label == "depth"
    assert (back == given).all()


@pytest.mark.parametrize("count", COUNTS)
def test_a_pandas_frame_comes_back_equal(pool: shoal.Pool, count: int) -> None:
    pandas = pytest.importorskip("pandas")
    given = pandas.DataFrame({
        "number": np.arange(count) * 0.5,
        "text": [f"row {at}" for at in range(count)],
        "time": pandas.date_range("2024-01-01", periods=count, freq="s"),
        "kind": pandas.Categorical(["a", "b"] * (count // 2)),
    })  # fmt: skip
    back = pool.apply(data.same, (given,))
    pandas.testing.assert_frame_equal(back, given)
    back.loc[0, "number"] = 9.0
    assert given.loc[0, "number"] == 0.0


@pytest.mark.parametrize("count", COUNTS)
def test_a_polars_frame_comes_back_equal(pool: shoal.Pool, count: int) -> None:
    polars = pytest.importorskip("polars")
    given = polars.DataFrame({"number": np.arange(count) * 0.5, "text": [f"row {at}" for at in range(count)]})
    assert pool.apply(data.same, (given,)).equals(given)


@pytest.mark.parametrize("count", COUNTS)
def test_a_pyarrow_table_comes_back_equal(pool: shoal.Pool, count: int) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    given = pyarrow.table({"number": np.arange(count) * 0.5, "text": [f"row {at}" for at in range(count)]})
    assert pool.apply(data.same, (given,)).equals(given)


@pytest.mark.parametrize("count", (0, *COUNTS))
@pytest.mark.parametrize("make", [bytes, bytearray, lambda count: array.array("d", range(count))])
def test_bytes_and_the_like_arrive_as_what_they_are(pool: shoal.Pool, count: int, make: Callable[[int], Any]) -> None:
    given = make(count)
    back = pool.apply(data.same, (given,))
    assert type(back) is type(given) and back == given
    assert pool.apply(data.number_of, (given,)) == data.number_of(given)
    if isinstance(given, bytearray):
        back.append(1)
        assert len(given) == count, "the one that came back can be changed, and is another"


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("shape", [(-1,), (10, -1)])
def test_a_memoryview_arrives_with_its_format_and_shape(pool: shoal.Pool, count: int, shape: tuple[int, ...]) -> None:
    given = memoryview(np.arange(count, dtype=np.float64).reshape(shape))
    assert pool.apply(data.view_of, (given,)) == data.view_of(given)


# ---- privacy ---------------------------------------------------------------------------------------------------------

WRAPS: dict[str, Callable[[Any], Any]] = {
    "array": lambda a: a,
    "list": lambda a: [a],
    "dict": lambda a: {"array": a},
    "dataclass": data.Box,
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_what_a_task_writes_is_seen_by_no_later_task_and_not_by_the_caller(
    one: shoal.Pool, count: int, wrap: str
) -> None:
    given = np.arange(1.0, count + 1)
    held = WRAPS[wrap](given)
    for _ in range(4):
        assert one.apply(data.spoil, (held,)) == (1, count)
    assert (given == np.arange(1.0, count + 1)).all()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("chunksize", [1, None])
def test_tasks_of_one_map_each_have_the_array_as_it_was(
    pool: shoal.Pool, count: int, wrap: str, chunksize: int | None
) -> None:
    given = np.arange(1.0, count + 1)
    assert pool.map(data.spoil, [WRAPS[wrap](given) for _ in range(12)], chunksize) == [(1, count)] * 12
    held = WRAPS[wrap](given)
    assert pool.starmap(data.spoil, [(held, at) for at in range(12)], chunksize) == [(1, count)] * 12
    assert (given == np.arange(1.0, count + 1)).all()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("spelling", ["partial", "closure"])
def test_an_array_in_the_function_is_as_it_was_in_the_next_call(
    one: shoal.Pool, count: int, wrap: str, spelling: str
) -> None:
    given = np.arange(1.0, count + 1)
    held = WRAPS[wrap](given)
    function = functools.partial(data.spoil, held) if spelling == "partial" else lambda: data.spoil(held)
    for _ in range(4):
        assert one.apply(function) == (1, count)
    assert (given == np.arange(1.0, count + 1)).all()


@pytest.mark.parametrize("count", COUNTS)
def test_what_the_caller_writes_after_the_call_is_not_seen_by_the_task(one: shoal.Pool, count: int) -> None:
    results = []
    given = np.empty(count)
    for number in range(8):
        given[:] = number
        results.append(one.apply_async(data.spoil, (given,)))
    given[:] = -5
    assert [result.get() for result in results] == [(number, number) for number in range(8)]


@pytest.mark.parametrize("count", COUNTS)
def test_an_array_that_a_worker_keeps_stays_as_it_was(one: shoal.Pool, count: int) -> None:
    results: list[NDArray[Any]] = []
    for number in range(6):
        one.apply(data.keep, (f"argument {number}", np.full(count, float(number))))
        results.append(one.apply(data.keep_filled, (f"result {number}", count, 100.0 + number)))
        results[-1][:] = -1  # the caller's result is its own
        one.apply(data.spoil, (np.full(count, 55.0),))
    expected = {f"argument {n}": {float(n)} for n in range(6)} | {f"result {n}": {100.0 + n} for n in range(6)}
    assert one.apply(data.kept_values) == expected
    del results
    one.apply(data.spoil, (np.full(count, 66.0),))
    assert one.apply(data.kept_values) == expected
