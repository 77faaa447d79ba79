"""`shoal.Counter`: an integer that everyone may add to at once."""

import multiprocessing
import threading
from typing import Any

import numpy
import pytest

import shoal
from tests.sync.support import stranger


def test_it_counts_from_zero_by_one() -> None:
    counter = shoal.Counter()
    assert counter.value == 0
    assert [counter.add(), counter.add(), counter.add(10), counter.add(-5)] == [1, 2, 12, 7]
    assert counter.value == 7


@pytest.mark.parametrize("initial", [0, -3, 2**63 - 1, -(2**63), True, numpy.int32(5)])
def test_it_begins_where_it_is_told(initial: Any) -> None:
    assert shoal.Counter(initial).value == int(initial)
    assert shoal.Counter(initial=initial).value == int(initial)


@pytest.mark.parametrize("wrong", [1.5, 1.0, "1", None, numpy.float64(1), [1]], ids=repr)
def test_anything_but_an_integer_is_refused_by_the_name_of_the_argument(wrong: Any) -> None:
    counter = shoal.Counter(3)
    with pytest.raises(TypeError, match=r"^n must be an integer"):
        counter.add(wrong)
    with pytest.raises(TypeError, match=r"^n must be an integer"):
        counter += wrong
    with pytest.raises(TypeError, match=r"^n must be an integer"):
        counter -= wrong
    with pytest.raises(TypeError, match=r"^initial must be an integer"):
        shoal.Counter(wrong)
    assert counter.value == 3


@pytest.mark.parametrize("large", [2**63, -(2**63) - 1, 10**30])
def test_more_than_64_bits_are_refused_by_the_name_of_the_argument(large: int) -> None:
    counter = shoal.Counter(3)
    with pytest.raises(OverflowError, match=r"^n must fit into 64 bits"):
        counter.add(large)
    with pytest.raises(OverflowError, match=r"^initial must fit into 64 bits"):
        shoal.Counter(large)
    assert counter.value == 3


def test_adding_takes_any_integer() -> None:
    counter = shoal.Counter()
    counter.add(numpy.int64(2))
    counter.add(True)
    assert counter.value == 3


def test_the_value_is_not_set_for_that_would_lose_what_others_add() -> None:
    counter = shoal.Counter()
    with pytest.raises(AttributeError):
        counter.value += 1  # type: ignore[misc]


def test_it_is_exchanged_for_another_value() -> None:
    counter = shoal.Counter(5)
    assert counter.exchange(-7) == 5
    assert counter.value == -7


def test_it_is_set_if_it_is_as_expected() -> None:
    counter = shoal.Counter(5)
    assert counter.compare_and_set(4, 9) is False and counter.value == 5
    assert counter.compare_and_set(5, 9) is True and counter.value == 9


def test_one_of_all_is_the_first(pool: shoal.Pool) -> None:
    counters = [shoal.Counter() for _ in range(20)]
    first = pool.map(lambda me: [counter.compare_and_set(0, me) for counter in counters], [1, 2, 3], chunksize=1)
    for counter, *was_first in zip(counters, *first, strict=True):
        assert was_first.count(True) == 1 and counter.value == 1 + was_first.index(True)


def test_adding_in_place_is_adding() -> None:
    counter = twin = shoal.Counter()
    counter += 5
    counter -= 2
    assert counter is twin and int(twin) == 3


@pytest.mark.parametrize("method", ["exchange", "compare_and_set"])
def test_other_values_are_refused_by_the_name_of_the_argument(method: str) -> None:
    counter = shoal.Counter(3)
    act = {"exchange": counter.exchange, "compare_and_set": lambda value: counter.compare_and_set(3, value)}[method]
    with pytest.raises(TypeError, match=r"^value must be an integer"):
        act(1.5)
    with pytest.raises(OverflowError, match=r"^value must fit into 64 bits"):
        act(2**63)
    with pytest.raises(TypeError, match=r"^expected must be an integer"):
        counter.compare_and_set("3", 4)  # type: ignore[arg-type]
    assert counter.value == 3


def test_a_sum_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    counter = shoal.Counter(2**63 - 1)
    with pytest.raises(OverflowError):
        counter.add()
    assert counter.value == 2**63 - 1


def test_a_sum_that_does_not_fit_is_never_seen() -> None:
    counter, enough = shoal.Counter(2**63 - 1), shoal.Event()
    program = """
        counter, enough = things
        reached.add()
        while not enough.is_set():
            try:
                counter.add()
            except OverflowError:
                pass
    """
    with stranger(program, (counter, enough)) as process:
        process.reaches()
        seen = {counter.value for _ in range(200_000)}
        enough.set()
        assert process.ends() == 0
    assert seen == {2**63 - 1}


def test_it_says_its_value() -> None:
    assert repr(shoal.Counter(5)) == "<shoal.Counter, 5>"


def test_workers_and_the_client_count_together_and_no_number_comes_twice(pool: shoal.Pool) -> None:
    counter = shoal.Counter()
    tickets = pool.map(lambda _: [counter.add() for _ in range(100)], range(20))
    assert sorted(ticket for some in tickets for ticket in some) == list(range(1, 2001))
    assert counter.value == 2000


def test_threads_count_together() -> None:
    counter = shoal.Counter()
    threads = [threading.Thread(target=lambda: [counter.add() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 2000


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_of_multiprocessing_counts(method: str) -> None:
    counter = shoal.Counter()
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=counter.add, args=(5,))
    process.start()
    process.join()
    assert process.exitcode == 0 and counter.value == 5
