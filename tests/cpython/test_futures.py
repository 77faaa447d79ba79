"""CPython's tests of `ProcessPoolExecutor` pass with `shoal.Executor`.

Interpreters ship them as the package `test.test_concurrent_futures` from 3.13 on; with others this module is skipped.
"""

import unittest
from typing import Any
from unittest import mock

import pytest

import shoal

pytest.importorskip("test.test_concurrent_futures.util", exc_type=ImportError)

from test.test_concurrent_futures import (
    test_as_completed,
    test_deadlock,
    test_init,
    test_process_pool,
    test_shutdown,
    test_wait,
    util,
)

pytestmark = [
    pytest.mark.timeout(200),
    # CPython warns of forks in processes with threads, which these tests have by design.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


class Executor(shoal.Executor):
    """With the private part that the tests look at."""

    @property
    def _processes(self) -> dict[int | None, shoal.Worker]:
        return {worker.pid: worker for worker in self.workers}


Executor.__name__ = "ProcessPoolExecutor"

BREAKS = "expects that one dead worker breaks the executor"
PRIVATE = "looks at the private parts of a ProcessPoolExecutor"
LATER = "expects the error of what can't be pickled from the future: it comes from `submit`, at once"

EXITS = "a task that calls sys.exit ends its worker, as in a pool"
STARTED = "expects workers to start one by one: shoal's start together"
UNREADABLE = "expects what can't be unpickled to break the executor: it is one task's error"

DEVIATIONS = {
    "ExecutorDeadlockTest.test_error_at_task_pickle": LATER,
    "ExecutorDeadlockTest.test_error_at_task_unpickle": UNREADABLE,
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": UNREADABLE,
    "ExecutorDeadlockTest.test_exit_during_func_exec_on_worker": EXITS,
    "ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker": EXITS,
    "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": UNREADABLE,
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": PRIVATE,
    "FailingInitializerMixin.test_initializer": BREAKS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": STARTED,
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": STARTED,
    "ProcessPoolExecutorTest.test_killed_child": BREAKS,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "there is no context",
    "ProcessPoolExecutorTest.test_max_workers_negative": "another message: max_workers must be 1 to 500",
    "ProcessPoolExecutorTest.test_python_finalization_error": "lets a thread of a ProcessPoolExecutor fail",
    "ProcessPoolExecutorTest.test_saturation": LATER,
    "ProcessPoolShutdownTest.test_cancel_futures": "expects a worker at once: until then, all are cancelled",
    "ProcessPoolShutdownTest.test_hang_gh83386": "is not meant for processes: its program has no `multiprocessing`",
    "ProcessPoolShutdownTest.test_processes_terminate": STARTED,
}
# One hangs where it fails, one passes if workers are quick.
SKIPPED = ("test_processes_terminate", "test_cancel_futures")


def _deviating(test: Any, reason: str) -> Any:
    def deviating(self: Any) -> None:
        test(self)

    deviating.__name__ = test.__name__
    return pytest.mark.xfail(reason=reason, strict=True, run=test.__name__ not in SKIPPED)(deviating)


for suite in (
    test_as_completed.AsCompletedTests,
    test_deadlock.ExecutorDeadlockTest,
    test_init.InitializerMixin,
    test_init.FailingInitializerMixin,
    test_process_pool.ProcessPoolExecutorTest,
    test_shutdown.ProcessPoolShutdownTest,
    test_wait.WaitTests,
):

    class Case(suite, util.ProcessPoolForkserverMixin, unittest.TestCase):  # type: ignore[misc,valid-type]
        executor_type = Executor

        def run(self, result: Any = None) -> Any:
            with mock.patch("concurrent.futures.process._RemoteTraceback", shoal.RemoteTraceback):
                return super().run(result)

    for name, reason in DEVIATIONS.items():
        owner, _, test = name.partition(".")
        if owner == suite.__name__:
            setattr(Case, test, _deviating(getattr(Case, test), reason))
    Case.__name__ = Case.__qualname__ = f"Test{suite.__name__}"
    globals()[Case.__name__] = Case
del Case, suite
