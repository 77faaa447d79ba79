"""A dask graph runs on a `shoal.Executor`, as on any executor of the standard library."""

import os

import pytest

import shoal

dask = pytest.importorskip("dask")


def test_an_executor_is_a_scheduler() -> None:
    graph = {"one": 1, "two": (lambda x: x + 1, "one"), "all": (sum, ["one", "two"])}
    with shoal.Executor(2) as executor, dask.config.set(scheduler=executor):
        assert dask.get(graph, "all") == 3
        total = dask.delayed(sum)([dask.delayed(pow)(x, 2) for x in range(10)])
        assert total.compute() == 285


def test_tasks_run_in_its_workers() -> None:
    with shoal.Executor(2) as executor, dask.config.set(scheduler=executor):
        pids = dask.compute(*(dask.delayed(os.getpid)() for _ in range(4)))
        assert set(pids) <= {worker.pid for worker in executor.workers}


def test_an_exception_arrives_as_itself() -> None:
    with shoal.Executor(2) as executor, dask.config.set(scheduler=executor), pytest.raises(ZeroDivisionError):
        dask.delayed(lambda: 1 / 0)().compute()
