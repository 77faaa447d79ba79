"""CPython's tests of `multiprocessing.Pool` pass with `shoal.Pool`, of processes and of threads."""

import gc
import os
import unittest
import weakref
from typing import Any

import shoal
import shoal.threads
from tests.cpython.harness import PATIENCE, install, suite
from tests.pool.support import eventually


class Worker:
    """A worker as the tests look at it: they take `multiprocessing.Process`."""

    def __init__(self, state: shoal.Worker) -> None:
        self.pid = state.pid

    def is_alive(self) -> bool:
        return self.pid is not None and os.path.exists(f"/proc/{self.pid}")


class Pool(shoal.Pool):
    """With the private parts that the tests look at."""

    @property
    def _pool(self) -> list[Worker]:
        return [Worker(state) for state in self.workers]

    def _repopulate_pool(self) -> None:
        """The supervisor does."""


LAMBDAS = "what they take for a result that can't be pickled, a lambda, arrives"

install(
    globals(),
    ["_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime", "TestInitializers"],
    replaced={"Pool": Pool},
    patched={
        "multiprocessing.Pool": Pool,
        "multiprocessing.pool.RemoteTraceback": shoal.RemoteTraceback,
        "DELTA": PATIENCE,
    },
    deviations={
        "_TestPool.test_map_unplicklable": "expects what the object raises: that is the cause of a SerializationError",
        "_TestPool.test_resource_warning": "makes a terminated pool look like a running one",
        "_TestPoolWorkerErrors.test_unpickleable_result": LAMBDAS,
        "_TestPoolWorkerLifetime.test_pool_maxtasksperchild_invalid": "what is no integer is a TypeError",
    },
    # Workers come from a zygote whatever the start method.
    methods=["forkserver"],
)


class Threads(shoal.threads.ThreadPool):
    """Likewise, of threads."""

    @property
    def _pool(self) -> tuple[Any, ...]:
        return tuple(self.workers)


class TestPoolThreads(suite._TestPool, suite.ThreadsMixin, unittest.TestCase):  # type: ignore[misc]
    """The same tests, of a pool of threads."""

    Pool = staticmethod(Threads)
    test_terminate = None  # sleeps for minutes in a task: `join` waits for threads, which can't be ended
    test_resource_warning = None  # makes a terminated pool look like a running one

    def test_release_task_refs(self) -> None:
        """The original looks once, a tenth of a second later."""
        objects = [suite.CountedObject() for _ in range(10)]
        refs = [weakref.ref(one) for one in objects]
        self.pool.map(suite.identity, objects)
        del objects
        gc.collect()
        assert eventually(lambda: {ref() for ref in refs} == {None})
        assert eventually(lambda: suite.CountedObject.n_instances == 0)
