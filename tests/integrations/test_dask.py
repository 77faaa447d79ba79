"""A dask graph runs on a `shoal.Executor`, as on any executor of the standard library.

In an interpreter of its own: with tblib beside it, dask changes how all exceptions of its process are pickled.
"""

from tests.conftest import Run


def test_an_executor_is_a_scheduler(run: Run) -> None:
    program = run(
        """
        import os
        import dask, shoal

        with shoal.Executor(2) as executor, dask.config.set(scheduler=executor):
            graph = {"one": 1, "two": (lambda x: x + 1, "one"), "all": (sum, ["one", "two"])}
            assert dask.get(graph, "all") == 3
            total = dask.delayed(sum)([dask.delayed(pow)(x, 2) for x in range(10)])
            assert total.compute() == 285
            pids = dask.compute(*(dask.delayed(os.getpid)() for _ in range(4)))
            assert set(pids) <= {worker.pid for worker in executor.workers}
            try:
                dask.delayed(lambda: 1 / 0)().compute()
            except ZeroDivisionError:
                print("arrives as itself")
        """
    )
    assert (program.stdout, program.stderr) == ("arrives as itself\n", "")
