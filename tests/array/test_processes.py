"""One memory, many processes: whoever gets a shared array sees and changes what all see."""

import multiprocessing
import pickle
import subprocess
import sys
from typing import Any

import numpy
import pytest

import shoal


def test_a_worker_writes_into_an_argument_and_the_caller_sees_it(pool: shoal.Pool) -> None:
    array = shoal.zeros((8, 1000))

    def fill(row: Any) -> None:
        row += 1

    pool.map(fill, list(array))
    assert (array == 1).all()


def test_a_worker_that_already_runs_sees_what_the_caller_writes(pool: shoal.Pool) -> None:
    array = shoal.zeros(2, "int64")

    def answer() -> None:
        array[1] = 1
        while array[0] == 0:
            pass

    result = pool.apply_async(answer)
    while array[1] == 0:
        pass
    array[0] = 1
    result.get(timeout=150)


def test_a_worker_returns_a_shared_array_of_its_own(pool: shoal.Pool) -> None:
    def make(n: int) -> shoal.SharedArray:
        return shoal.full(n, n)

    arrays = pool.map(make, [1, 10, 100_000])
    assert [type(array) for array in arrays] == [shoal.SharedArray] * 3
    assert [array.sum() for array in arrays] == [1, 100, 10_000_000_000]


def test_a_worker_returns_a_view_of_what_it_was_given(pool: shoal.Pool) -> None:
    array = shoal.array(numpy.arange(12).reshape(3, 4))

    def corner(a: Any) -> Any:
        return a.T[::-1, :2]

    back = pool.apply(corner, (array,))
    back[0, 0] = 99
    assert array[0, 3] == 99


def test_it_travels_inside_of_objects_and_closures(pool: shoal.Pool) -> None:
    class Model:
        def __init__(self) -> None:
            self.weights = {"first": [shoal.zeros(10)]}

        def train(self, value: float) -> None:
            self.weights["first"][0][:] = value

    model = Model()
    pool.apply(model.train, (2.5,))
    assert model.weights["first"][0].tolist() == [2.5] * 10


def test_in_a_worker_as_well_what_is_computed_is_ordinary(pool: shoal.Pool) -> None:
    array = shoal.ones(1000)
    result = pool.apply(lambda a: a * 2, (array,))
    assert type(result) is numpy.ndarray
    assert (result == 2).all() and (array == 1).all()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_of_multiprocessing_shares_it(method: str) -> None:
    array = shoal.zeros(1000, "int32")
    scope = {"view": array[::-2]}
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=exec, args=("view += 1", scope))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert array[1::2].all() and not array[::2].any()


def test_a_stranger_that_receives_the_handle_shares_it() -> None:
    array = shoal.zeros(1000, "int32")
    program = "import pickle, sys; pickle.load(sys.stdin.buffer)[:] = 7"
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(array[10:20]), check=True, timeout=150)
    assert array[10:20].tolist() == [7] * 10
    assert not array[:10].any() and not array[20:].any()


def test_an_array_outlives_the_worker_that_made_it() -> None:
    with shoal.Pool(1) as pool:
        array = pool.apply(lambda: shoal.full(100_000, 3.0))
    pool.join()
    assert (array == 3).all()
    array += 1
    assert (array == 4).all()
