"""What stays at home and comes back as itself: a pool in an object that travels."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import os
import pickle

import pytest

import shoal
from tests.pool import tasks


class Runner:
    """Holds the pool that it uses, as many programs do."""

    def __init__(self, pool: shoal.Pool) -> None:
        self.pool = pool

    def run(self) -> list[int]:
        return self.pool.map(self.work, [1, 2])

    def work(self, x: int) -> int:
        return x + 1

    def run_there(self) -> object:
        return self.pool.map(abs, [1])


def test_an_object_may_hold_the_pool_that_runs_its_methods(pool: shoal.Pool) -> None:
    assert Runner(pool).run() == [2, 3]


def test_it_comes_home_as_itself(pool: shoal.Pool) -> None:
    assert pool.apply(tasks.same, (Runner(pool),)).pool is pool


def test_elsewhere_it_says_whose_it_is(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.PoolClosed, match=rf"this Pool belongs to process {os.getpid()}"):
        pool.apply(Runner(pool).run_there)
    assert pool.apply(repr, (pool,)) == f"<Pool of process {os.getpid()}>"


def test_pickle_alone_refuses_it_as_it_refuses_a_pool_of_multiprocessing(pool: shoal.Pool) -> None:
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


class Job:
    """Holds the executor that runs it."""

    def __init__(self, executor: shoal.Executor) -> None:
        self.executor = executor

    def run(self) -> Job:
        return self


def test_an_executor_comes_home_as_itself_and_is_not_ended_by_what_stood_for_it() -> None:
    with shoal.Executor(1) as executor:
        job = executor.submit(Job(executor).run).result()
        assert job.executor is executor
        del job
        gc.collect()
        assert executor.submit(repr, executor).result() == f"<Executor of process {os.getpid()}>"


def test_an_executor_is_not_copied() -> None:
    with shoal.Executor(1) as executor:
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(NotImplementedError):
                duplicate(executor)
        assert executor.submit(abs, -1).result() == 1


@pytest.mark.parametrize("word", ["4", "four"])
def test_a_future_that_is_done_arrives_as_one_of_the_standard_library(pool: shoal.Pool, word: str) -> None:
    future = pool.submit(int, word)
    concurrent.futures.wait([future])
    arrived = pool.apply(tasks.same, (future,))
    assert type(arrived) is concurrent.futures.Future
    assert repr(arrived.exception()) == repr(future.exception())
    if word == "4":
        assert arrived.result() == 4
