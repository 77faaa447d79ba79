"""Warnings of workers are shown by the client, as its filters say."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import pytest

import shoal
from tests.conftest import Run


class OwnWarning(UserWarning):
    """Of these tests."""


def warn(i: int = 0) -> None:
    warnings.warn(f"careful with {i}", OwnWarning, stacklevel=1)


def deprecated(_: int) -> None:
    warnings.warn("old", DeprecationWarning, stacklevel=1)


@pytest.fixture
def shown() -> Iterator[list[warnings.WarningMessage]]:
    """What is shown, if all is."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        yield shown


def test_a_warning_of_a_worker_is_shown_here_with_its_file_and_line(shown: list[warnings.WarningMessage]) -> None:
    with shoal.Pool(1) as pool:
        pool.apply(warn, (7,))
        (only,) = shown
    assert str(only.message) == "careful with 7" and only.category is OwnWarning
    assert (only.filename, only.lineno) == (__file__, warn.__code__.co_firstlineno + 1)


def test_always_means_each_time(shown: list[warnings.WarningMessage]) -> None:
    with shoal.Pool(2) as pool:
        pool.map(deprecated, range(10))
        assert len(shown) == 10


def test_a_warning_of_a_thousand_tasks_is_shown_once(run: Run) -> None:
    done = run("""
        import warnings
        import shoal

        def work(i):
            warnings.warn("careful")

        with shoal.Pool(4) as pool:
            pool.map(work, range(1000), chunksize=1)
            pool.map(work, range(1000))
    """)
    assert re.fullmatch(r'.*program\.py:5: UserWarning: careful\n  warnings\.warn\("careful"\)\n', done.stderr)


def test_deprecations_are_shown_for_the_main_program_and_not_for_others(run: Run) -> None:
    done = run("""
        import warnings
        import shoal

        def work(i):
            warnings.warn("of the program", DeprecationWarning)
            exec("import warnings; warnings.warn('of a library', DeprecationWarning)", {"__name__": "library"})

        with shoal.Pool(2) as pool:
            pool.map(work, range(4))
    """)
    assert "of the program" in done.stderr and "of a library" not in done.stderr


def test_what_the_filters_make_an_error_is_one_in_the_task() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "careful with", OwnWarning)
        with shoal.Pool(1) as pool, pytest.raises(OwnWarning, match="careful with 0"):
            pool.apply(warn)


def test_an_interpreter_that_makes_all_of_them_errors_does_so_in_workers(run: Run) -> None:
    done = run("""
        import subprocess, sys
        program = '''
        import warnings
        import shoal
        with shoal.Pool(1) as pool:
            try:
                pool.apply(warnings.warn, ("careful",))
            except UserWarning as error:
                print("raised", error)
        '''
        import textwrap
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
        print(subprocess.run(command, capture_output=True, text=True))
    """)
    assert "stdout='raised careful\\n', stderr=''" in done.stdout


def test_what_the_filters_ignore_is_not_shown(shown: list[warnings.WarningMessage]) -> None:
    warnings.filterwarnings("ignore", "careful")
    with shoal.Pool(1) as pool:
        pool.apply(warn)
        pool.apply(deprecated, (0,))
    assert [str(warning.message) for warning in shown] == ["old"]


def test_filters_that_change_later_hold_for_what_is_shown(shown: list[warnings.WarningMessage]) -> None:
    with shoal.Pool(1) as pool:
        pool.apply(warn, (1,))
        warnings.simplefilter("ignore")
        pool.apply(warn, (2,))
        warnings.simplefilter("error")
        pool.apply(warn, (3,))
    # It is too late for an error in the task.
    assert [str(warning.message) for warning in shown] == ["careful with 1", "careful with 3"]


def test_a_worker_that_catches_its_warnings_keeps_them(shown: list[warnings.WarningMessage]) -> None:
    def work() -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn()
            warn()
        return len(caught)

    with shoal.Pool(1) as pool:
        assert pool.apply(work) == 2
    assert shown == []


def test_a_class_that_is_not_to_be_had_here_is_named(shown: list[warnings.WarningMessage]) -> None:
    def work() -> None:
        class Strange(RuntimeWarning):
            pass

        Strange.__module__ = "no.such.module"
        warnings.warn("odd", Strange, stacklevel=1)

    with shoal.Pool(1) as pool:
        pool.apply(work)
    (only,) = shown
    assert issubclass(only.category, RuntimeWarning)
    assert only.category.__module__ == "no.such.module" and only.category.__name__ == "Strange"


def test_warnings_that_are_logged_here_are_logged(run: Run) -> None:
    done = run("""
        import logging, warnings
        import shoal

        logging.basicConfig(format="%(name)s %(levelname)s")
        logging.captureWarnings(True)
        with shoal.Pool(1) as pool:
            pool.apply(warnings.warn, ("careful",))
    """)
    assert done.stderr == "py.warnings WARNING\n"


def test_the_filters_of_an_ordinary_interpreter_cost_a_new_pool_no_slow_import(run: Run) -> None:
    """Python has a filter for `__main__`, whose name in a pickle is a reason to make it again by value."""
    done = run("""
        import sys, warnings
        assert any("__main__" in str(one) for one in warnings.filters), warnings.filters
        import shoal
        with shoal.Pool(1) as pool:
            assert pool.apply(abs, (-1,)) == 1
        print("cloudpickle" in sys.modules)
    """)
    assert (done.stdout, done.stderr) == ("False\n", "")
