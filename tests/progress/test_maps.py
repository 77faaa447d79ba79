"""`progress=` of a pool's maps: a bar that advances with each item that is done."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import tqdm.std

import shoal
from tests.pool.support import eventually

Map = Callable[..., Any]

MAPS: dict[str, Map] = {
    "map": lambda pool, f, items, **kw: pool.map(f, items, **kw),
    "map_async": lambda pool, f, items, **kw: pool.map_async(f, items, **kw).get(),
    "starmap": lambda pool, f, items, **kw: pool.starmap(f, zip_one(items), **kw),
    "starmap_async": lambda pool, f, items, **kw: pool.starmap_async(f, zip_one(items), **kw).get(),
    "imap": lambda pool, f, items, **kw: list(pool.imap(f, items, **kw)),
    "imap_unordered": lambda pool, f, items, **kw: sorted(pool.imap_unordered(f, items, **kw)),
}


def zip_one(items: Iterable[Any]) -> Any:
    """The items, each as a tuple of arguments; a list stays a list."""
    return [(item,) for item in items] if isinstance(items, (list, range)) else zip(items)


def square(x: int) -> int:
    return x * x


def odd(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


def endless() -> Iterator[int]:
    yield from itertools.count()


def last_line(file: io.StringIO) -> str:
    return file.getvalue().rstrip("\n").rpartition("\r")[2].rpartition("\n")[2]


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(params=MAPS)
def mapped(request: pytest.FixtureRequest) -> Map:
    """Each way to map in its turn."""
    return MAPS[request.param]


def test_the_results_are_the_same_and_the_bar_is_full(pool: shoal.Pool, file: io.StringIO, mapped: Map) -> None:
    assert mapped(pool, square, range(500), progress={"file": file}) == [x * x for x in range(500)]
    assert "100%" in last_line(file) and " 500/500 " in last_line(file)
    assert file.getvalue().endswith("\n")


@pytest.mark.parametrize("chunksize", [1, 7, 100])
def test_each_item_counts_whatever_travels_together(
    pool: shoal.Pool, file: io.StringIO, mapped: Map, chunksize: int
) -> None:
    with shoal.tqdm(total=50, file=file) as bar:
        mapped(pool, square, range(50), chunksize=chunksize, progress=bar)
        assert bar.n == 50


def test_true_is_a_bar_on_standard_error(pool: shoal.Pool, capsys: pytest.CaptureFixture[str], mapped: Map) -> None:
    mapped(pool, square, list(range(20)), progress=True)
    assert "20/20" in capsys.readouterr().err


def test_a_dict_is_arguments_of_tqdm(pool: shoal.Pool, file: io.StringIO, mapped: Map) -> None:
    progress = {"desc": "squares", "unit": "number", "leave": True, "total": 40, "file": file}
    mapped(pool, square, range(20), progress=progress)
    assert last_line(file).startswith("squares:  50%") and "number" in last_line(file)
    assert progress["total"] == 40


@pytest.mark.parametrize("make", [shoal.tqdm, tqdm.std.tqdm], ids=["shoal's", "tqdm's"])
def test_a_bar_is_used_as_it_is_and_stays_open(
    pool: shoal.Pool, file: io.StringIO, mapped: Map, make: Callable[..., Any]
) -> None:
    bar = make(total=60, file=file)
    for _ in range(3):
        mapped(pool, square, range(20), progress=bar)
    assert (bar.n, bar.total, bar.disable) == (60, 60, False)
    bar.close()
    assert "60/60" in last_line(file)


@pytest.mark.parametrize("progress", [None, False])
def test_none_is_no_bar(
    pool: shoal.Pool, capsys: pytest.CaptureFixture[str], mapped: Map, progress: bool | None
) -> None:
    assert len(mapped(pool, square, range(20), progress=progress)) == 20
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("progress", [1, "yes", [], object], ids=repr)
def test_anything_else_is_refused_by_the_name_of_the_argument(pool: shoal.Pool, mapped: Map, progress: Any) -> None:
    with pytest.raises(TypeError, match=r"^progress must be True, a dict of tqdm's arguments, or a bar, not "):
        mapped(pool, square, range(3), progress=progress)


def test_an_unknown_argument_is_tqdms_error(pool: shoal.Pool, mapped: Map) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        mapped(pool, square, range(3), progress={"nonsense": 1})


@pytest.mark.parametrize("arguments", [(None, range(3)), (square, 3)], ids=["no function", "no iterable"])
def test_a_map_that_fails_at_once_leaves_no_bar(
    pool: shoal.Pool, file: io.StringIO, mapped: Map, arguments: Any
) -> None:
    with pytest.raises(TypeError):
        mapped(pool, *arguments, progress={"file": file, "leave": False})
    assert last_line(file).strip() == ""


def test_an_input_of_unknown_length_has_no_total(pool: shoal.Pool, file: io.StringIO, mapped: Map) -> None:
    mapped(pool, square, (x for x in range(30)), progress={"file": file})
    assert last_line(file).startswith("30it ")


def test_items_that_fail_count_and_the_error_is_the_same(pool: shoal.Pool, file: io.StringIO, mapped: Map) -> None:
    with shoal.tqdm(total=1, file=file) as bar:
        with pytest.raises(ValueError, match="0 is even") as raised:
            mapped(pool, odd, range(1), progress=bar)
        assert bar.n == 1
    assert "Counted" not in str(raised.value.__cause__)


def test_functions_that_travel_by_value_are_counted_too(pool: shoal.Pool, file: io.StringIO, mapped: Map) -> None:
    factor = 3
    assert mapped(pool, lambda x: x * factor, range(3), progress={"file": file}) == [0, 3, 6]
    assert "3/3" in last_line(file)


def test_what_cannot_travel_is_named_as_without_a_bar(pool: shoal.Pool, file: io.StringIO) -> None:
    import socket

    with socket.socket() as unsendable:
        messages = []
        for progress in (None, {"file": file}):
            with pytest.raises(shoal.SerializationError) as raised:
                pool.map(lambda x: unsendable, range(3), progress=progress)
            messages.append(str(raised.value))
    assert "closure variable 'unsendable'" in messages[1], messages
    assert messages[1].partition(":")[0] == messages[0].partition(":")[0]


def test_the_bar_of_a_map_in_the_background_is_drawn_and_ended_while_nobody_waits(
    pool: shoal.Pool, file: io.StringIO
) -> None:
    ended: list[Any] = []
    pool.map_async(square, range(10), progress={"file": file}, callback=ended.append)
    assert eventually(lambda: ended == [[x * x for x in range(10)]])
    assert "10/10" in last_line(file) and file.getvalue().endswith("\n")
    pool.map_async(odd, range(1), progress={"file": file}, error_callback=ended.append)
    assert eventually(lambda: isinstance(ended[-1], ValueError))


def test_an_iterator_has_the_methods_of_imap(pool: shoal.Pool, file: io.StringIO) -> None:
    results: Any = pool.imap(square, endless(), progress={"file": file}, buffersize=4)
    assert next(results) == 0
    assert results.next(timeout=100) == 1
    results.close()
    assert file.getvalue().endswith("\n")
    with pytest.raises(StopIteration):
        next(results)


def test_an_iterator_that_is_dropped_ends_its_bar(pool: shoal.Pool, file: io.StringIO) -> None:
    results = pool.imap(square, range(100), progress={"file": file})
    assert next(iter(results)) == 0
    del results
    assert eventually(lambda: file.getvalue().endswith("\n"))


def test_an_item_that_is_tried_again_counts_once(pool: shoal.Pool, file: io.StringIO) -> None:
    tries = shoal.Counter()

    def work(x: int) -> int:
        if tries.add() % 2:
            raise OSError("not yet")
        return x

    with shoal.tqdm(total=10, file=file) as bar:
        assert pool.map(work, range(10), progress=bar, retries=20, retry_on=OSError) == list(range(10))
        assert bar.n == 10 and tries.value > 10


def test_a_worker_that_dies_ends_the_bar_with_what_is_done(pool: shoal.Pool, file: io.StringIO) -> None:
    def work(x: int) -> None:
        import os

        if x == 3:
            os._exit(3)

    with pytest.raises(shoal.WorkerDied):
        pool.map(work, range(10), chunksize=1, progress={"file": file})
    assert "9/10" in last_line(file)


def test_the_map_of_the_process_has_it_too(file: io.StringIO) -> None:
    assert shoal.map(square, range(10), progress={"file": file}) == [x * x for x in range(10)]
    assert "10/10" in last_line(file)
    assert shoal.map(pow, [1, 2, 3], [2, 2, 2], progress={"file": file, "total": 3}) == [1, 4, 9]


def test_a_pool_of_threads_has_it_too(file: io.StringIO, mapped: Map) -> None:
    with shoal.Pool(2, kind="thread") as pool:
        assert mapped(pool, square, range(50), progress={"file": file}) == [x * x for x in range(50)]
        with pytest.raises(TypeError, match=r"^progress must be"):
            mapped(pool, square, range(50), progress=5)
    assert "50/50" in last_line(file)


def test_a_map_inside_a_worker_shows_its_bar_below(pool: shoal.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: int) -> list[int]:
        with shoal.Pool(1) as inner:
            return inner.map(square, range(5), progress={"desc": "inner"})

    assert pool.map(work, [0]) == [[0, 1, 4, 9, 16]]
    assert "inner: 100%" in capsys.readouterr().err
