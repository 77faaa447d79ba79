"""The error classes: what they are, what they say, and that they survive the journey."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

import pytest

from shoal import errors

EVERY_ERROR = [
    errors.ShoalError("no"),
    errors.WorkerDied(4711, -9, "tests.f(3, 'x')", "last words"),
    errors.WorkerDied(4711),
    errors.TaskTimeout("took 3.0 s, allowed were 2.0 s"),
    errors.SerializationError("self.lock: cannot pickle"),
    errors.OutOfSharedMemory("no room for 1 GiB"),
    errors.LockAbandoned("its owner died"),
    errors.PoolClosed("Pool not running"),
    errors.RemoteError("app.Failure", "broken", "Traceback …"),
    errors.RemoteTraceback("Traceback …"),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=repr)
def test_every_error_survives_pickle_with_its_text_and_attributes(error: Exception) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert back.args == error.args
        assert vars(back) == vars(error)


def test_running_out_of_memory_survives_pickle_beside_tblib(run_script: Callable[[str], str]) -> None:
    """tblib comes with distributed, and pickles all exceptions of the process in a way of its own."""
    printed = run_script("""
        import pickle
        import tblib.pickling_support
        from shoal import OutOfSharedMemory
        tblib.pickling_support.install()
        error = OutOfSharedMemory("no room")
        error.wanted = 3
        back = pickle.loads(pickle.dumps(error))
        print(repr(back), vars(back))
    """)
    assert printed == "OutOfSharedMemory('no room') {'wanted': 3}\n"


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (errors.WorkerDied, BrokenProcessPool),
        (errors.TaskTimeout, TimeoutError),
        (errors.SerializationError, pickle.PicklingError),
        (errors.OutOfSharedMemory, MemoryError),
        (errors.PoolClosed, ValueError),
    ],
)
def test_errors_are_also_what_the_standard_library_raises(error: type, standard: type) -> None:
    assert issubclass(error, errors.ShoalError)
    assert issubclass(error, standard)


@pytest.mark.parametrize(
    ("death", "text"),
    [
        (
            errors.WorkerDied(4711, -9, "tests.f(3, 'x')"),
            "worker 4711 was killed by signal 9 (SIGKILL) while running tests.f(3, 'x')",
        ),
        (errors.WorkerDied(12, 3, "f()"), "worker 12 ended with exit code 3 (os._exit or sys.exit) while running f()"),
        (errors.WorkerDied(12, 0), "worker 12 ended with exit code 0 (os._exit or sys.exit)"),
        (errors.WorkerDied(12, -40), "worker 12 was killed by signal 40"),
        (errors.WorkerDied(12, None, "f()"), "worker 12 ended, nobody knows how, while running f()"),
        (
            errors.WorkerDied(12, -6, "f()", "assertion failed\n"),
            "worker 12 was killed by signal 6 (SIGABRT) while running f(); its last words on stderr were:\n"
            "assertion failed",
        ),
    ],
)
def test_a_dead_worker_is_described_by_pid_end_and_task(death: errors.WorkerDied, text: str) -> None:
    assert str(death) == text


def test_a_remote_traceback_reads_like_that_of_multiprocessing() -> None:
    assert str(errors.RemoteTraceback("Traceback\n")) == '\n"""\nTraceback\n"""'


def test_a_stand_in_reads_like_the_exception_it_stands_for() -> None:
    assert str(errors.RemoteError("app.Failure", "broken")) == "app.Failure: broken"
    assert str(errors.RemoteError("KeyboardInterrupt", "")) == "KeyboardInterrupt"


def test_importing_serialize_leaves_slow_imports_for_later(run_script: Callable[[str], str]) -> None:
    printed = run_script("""
        import sys
        before = set(sys.modules)
        import shoal.serialize as serialize
        serialize.loads(serialize.dumps([1]))
        slow = {"cloudpickle", "concurrent.futures.process", "shoal.errors", "traceback", "dis"}
        print(sorted(slow & (set(sys.modules) - before)))
    """)
    assert printed == "[]\n"


def test_broken_executors_join_the_family_when_they_are_imported(run_script: Callable[[str], str]) -> None:
    """They bring all of multiprocessing along, for which nobody should wait who does not ask for them."""
    printed = run_script("""
        import importlib.util
        import sys
        from shoal import PoolClosed, WorkerDied

        errors = [WorkerDied(1), PoolClosed("closed")]
        print(all(isinstance(error, RuntimeError) for error in errors), "concurrent.futures" in sys.modules)
        import concurrent.futures
        print(all(isinstance(error, concurrent.futures.BrokenExecutor) for error in errors))
        # To ask where it is does not import it.
        importlib.util.find_spec("concurrent.futures.process")
        print("concurrent.futures.process" in sys.modules)
        for error in errors:
            try:
                raise error
            except ImportError:
                pass
            except __import__("concurrent.futures.process").futures.process.BrokenProcessPool as caught:
                print(caught is error, isinstance(caught, RuntimeError), isinstance(caught, ValueError))
    """)
    assert printed.splitlines() == ["True False", "True", "False", "True True False", "True True True"]


def test_who_has_concurrent_futures_may_name_them_without_an_import(run_script: Callable[[str], str]) -> None:
    printed = run_script("""
        import concurrent.futures
        from shoal import WorkerDied

        try:
            raise WorkerDied(1)
        except concurrent.futures.process.BrokenProcessPool as error:
            print(error.pid)
    """)
    assert printed == "1\n"


def test_a_signal_is_named_as_the_standard_library_does() -> None:
    for number in range(1, signal.NSIG):
        known = number in set(signal.Signals)
        name = f" ({signal.Signals(number).name})" if known else " "
        assert f"was killed by signal {number}{name}" in f"{errors.WorkerDied(1, -number)} "
