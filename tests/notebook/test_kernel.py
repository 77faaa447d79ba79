"""Pools in a real kernel: what workers say, errors, Interrupt, Restart, and a kernel that is killed."""

import re
from pathlib import Path

import pytest

from tests.faults.terminal import family, is_held, memory_of
from tests.notebook.kernel import Notebook
from tests.pool.support import ended, eventually

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

POOL = """
import time
from pathlib import Path
import shoal

pool = shoal.Pool(2)

def rest(name):
    Path(name).touch()
    while not Path(f"{name} goes on").exists():
        time.sleep(0.01)
    return name
"""

WAITS = {
    "map": "pool.map(rest, [NAME] * 4, chunksize=1)",
    "a map with a bar": "pool.map(rest, [NAME] * 4, chunksize=1, progress=True)",
    "a map over an iterator": "pool.map(rest, iter([NAME] * 4))",
    "get": "pool.apply_async(rest, (NAME,)).get()",
    "a future": "pool.submit(rest, NAME).result()",
    "imap": "list(pool.imap(rest, [NAME] * 4))",
    "a map of the default pool": "shoal.map(rest, [NAME] * 4)",
    "a queue": "Path(NAME).touch(); shoal.Queue().get()",
}


def test_what_workers_print_log_and_warn_of_comes_in_the_cell_before_the_result(notebook: Notebook) -> None:
    notebook.run("""
        import logging, subprocess, sys, warnings
        import shoal

        logging.basicConfig(level="INFO", stream=sys.stdout, format="logged %(message)s")
        pool = shoal.Pool(2)

        def work(i):
            print("printed", i)
            print("complained", i, file=sys.stderr)
            logging.info("%d", i)
            warnings.warn("careful")
    """)
    for _ in range(2):
        answer = notebook.answer("pool.map(work, range(3), chunksize=1); print('done')")
        expected = [f"{what} {i}" for what in ("complained", "logged", "printed") for i in range(3)]
        assert sorted(line for line in answer.printed.splitlines() if line in expected) == expected
        assert answer.stdout.endswith("\ndone\n")
    assert "careful" in notebook.run("pool.apply(lambda: warnings.warn('careful'))")


def test_what_a_task_of_an_earlier_cell_prints_comes_in_the_cell_that_runs(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run(POOL)
    assert notebook.run("result = pool.apply_async(lambda: print('said', rest('started')))") == ""
    assert eventually((tmp_path / "started").exists)
    assert notebook.run("Path('started goes on').touch(); result.get()") == "said started\n"


def test_the_traceback_of_a_worker_is_shown_once_as_the_cause(notebook: Notebook) -> None:
    notebook.run(POOL)
    answer = notebook.answer("""
def invert(x):
    return 1 / x

pool.map(invert, [1, 0])
""")
    (remote, local), ends = answer.traceback.split("direct cause of the following exception"), "division by zero"
    assert remote.count("RemoteTraceback: ") == 1
    assert re.search(r"line 2, in invert\n    return 1 / x\nZeroDivisionError: division by zero\n", remote), remote
    assert "pool.map(invert, [1, 0])" in local
    assert (remote.count(ends), local.count(ends)) == (1, 1), answer.traceback


def test_interrupt_ends_whatever_waits_with_one_traceback_and_the_pool_works_on(
    notebook: Notebook, tmp_path: Path
) -> None:
    notebook.run(POOL)
    workers = notebook.run("print(*(worker.pid for worker in pool.workers))")
    for number, (what, wait) in enumerate(WAITS.items()):
        started, go_on = tmp_path / str(number), tmp_path / f"{number} goes on"

        def interrupt(started: Path = started) -> None:
            assert eventually(started.exists)
            notebook.interrupt()

        answer = notebook.answer(wait.replace("NAME", repr(started.name)), meanwhile=interrupt)
        assert answer.error == "KeyboardInterrupt", what
        assert answer.traceback.count("Traceback") == 1, answer.traceback
        go_on.touch()
        assert notebook.run("print(pool.map(abs, [-3, -4]), shoal.map(abs, [-5]))") == "[3, 4] [5]\n"
    assert notebook.run("print(*(worker.pid for worker in pool.workers))") == workers


class Remains:
    """What the kernel has started and the memory it has, to see that nothing of it stays."""

    def __init__(self, notebook: Notebook) -> None:
        kernel = notebook.process
        self.processes = [kernel, *family(kernel.pid)]
        assert len(self.processes) >= 4
        self.memory = memory_of([process.pid for process in self.processes])
        assert self.memory

    def are_gone(self) -> bool:
        return eventually(lambda: all(ended(process) for process in self.processes)) and eventually(
            lambda: not is_held(self.memory)
        )


BUSY = """
shared = shoal.ones(1 << 20)
results = [pool.apply_async(rest, (name,)) for name in "ab"]
"""


@pytest.mark.slow
def test_restart_leaves_nothing_of_the_old_kernel(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run(POOL + BUSY)
    assert eventually(lambda: all((tmp_path / name).exists() for name in "ab"))
    remains = Remains(notebook)
    notebook.restart()
    assert remains.are_gone()
    notebook.run(POOL)
    assert notebook.run("print(pool.map(abs, [-3, -4]))") == "[3, 4]\n"


def test_a_kernel_that_is_killed_leaves_nothing(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run(POOL + BUSY)
    assert eventually(lambda: all((tmp_path / name).exists() for name in "ab"))
    remains = Remains(notebook)
    notebook.kill()
    assert remains.are_gone()
