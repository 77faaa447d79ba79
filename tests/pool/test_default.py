"""The pool of the process: there when it is needed, warm the next time, gone with the process."""

import psutil
import pytest

import shoal
from tests.conftest import Run
from tests.pool import tasks
from tests.pool.support import ended, eventually


def test_map_is_the_built_in_one_on_every_cpu() -> None:
    assert shoal.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]
    assert shoal.map(lambda x, y: x - y, [5, 6, 7], (1, 2)) == [4, 4]
    assert shoal.map(tasks.square, iter([3]), chunksize=2) == [9]
    assert shoal.map(tasks.square, []) == []


def test_exceptions_of_the_function_are_raised() -> None:
    with pytest.raises(ValueError, match="1 is odd"):
        shoal.map(tasks.fail_if_odd, range(4))


def test_what_makes_no_sense_is_an_error() -> None:
    with pytest.raises(TypeError, match="func must be callable"):
        shoal.map(3, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at least one iterable"):
        shoal.map(tasks.square)
    with pytest.raises(ValueError, match="chunksize"):
        shoal.map(tasks.square, [1], chunksize=0)


def test_the_pool_stays_warm_and_has_a_worker_for_each_cpu() -> None:
    pool = shoal.default_pool()
    before = {worker.pid for worker in pool.workers}
    shoal.map(tasks.square, range(100))
    assert shoal.default_pool() is pool
    assert {worker.pid for worker in pool.workers} == before
    assert len(before) == shoal.cpu_count()


def test_one_that_was_ended_is_made_again() -> None:
    with shoal.default_pool() as pool:
        pass
    assert shoal.map(tasks.square, [2]) == [4]
    assert shoal.default_pool() is not pool


def test_in_a_worker_it_has_one_worker() -> None:
    def nested(x: int) -> tuple[int, list[int]]:
        return len(shoal.default_pool().workers), shoal.map(tasks.square, [x, x + 1])

    assert shoal.map(nested, [1, 3]) == [(1, [1, 4]), (1, [9, 16])]


def test_it_ends_with_the_process_without_a_word(run: Run) -> None:
    program = run(
        """
        import shoal
        print(shoal.map(lambda x: x + 1, range(3)), *(worker.pid for worker in shoal.default_pool().workers))
        """
    )
    answer, _, pids = program.stdout.partition("] ")
    assert (answer, program.stderr, program.returncode) == ("[1, 2, 3", "", 0)
    assert eventually(lambda: not [pid for pid in pids.split() if _is_alive(int(pid))])


def test_a_fork_makes_its_own(run: Run) -> None:
    program = run(
        """
        import os, shoal
        parents = {worker.pid for worker in shoal.default_pool().workers}
        if (child := os.fork()) == 0:
            print(shoal.map(abs, [-1]), parents & {worker.pid for worker in shoal.default_pool().workers}, flush=True)
        else:
            print(os.waitpid(child, 0)[1], shoal.map(abs, [-2]), flush=True)
        """
    )
    assert (program.stdout, program.stderr) == ("[1] set()\n0 [2]\n", "")


def test_importing_shoal_starts_nothing(run: Run) -> None:
    program = run("import shoal, sys; print('shoal.default' in sys.modules, 'numpy' in sys.modules)")
    assert program.stdout == "False False\n"


def _is_alive(pid: int) -> bool:
    try:
        return not ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
