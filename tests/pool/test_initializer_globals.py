"""What an initializer leaves in the globals of the program is there for the tasks, as with multiprocessing."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]

PROGRAM = """
import shoal
{before}
def prepare(value):
    {prepare}
def work(i):
    return {work}
with shoal.Pool(2, prepare, (5,)) as pool:
    print(set(pool.map(work, range(10), chunksize=1)), {after})
"""


@pytest.mark.parametrize(
    ("before", "prepare", "work", "printed"),
    [
        ("", "global x; x = value", "x", "{5}"),
        ("x = None", "global x; x = value", "x", "{5}"),
        ("x = {}", "x['is'] = value", "x['is']", "{5}"),
        ("x = [1]", "x.append(value)", "sum(x)", "{6}"),
        ("class State: pass\nx = State()", "x.value = value", "x.value", "{5}"),
        ("def assign(value):\n    global x; x = value", "assign(value)", "x", "{5}"),
        ("def read():\n    return x", "global x; x = value", "read()", "{5}"),
        ("class Reader:\n    def __call__(self): return x\nread = Reader()", "global x; x = value", "read()", "{5}"),
        ("x = None", "global x; x = lambda: value", "x()", "{5}"),
    ],
)
@pytest.mark.parametrize("via", ["script", "-c", "stdin"])
def test_what_it_assigns_or_changes_is_seen_by_every_task(
    run: Run, before: str, prepare: str, work: str, printed: str, via: str
) -> None:
    done = run(PROGRAM.format(before=before, prepare=prepare, work=work, after='"ok"'), via=via)
    assert (done.stdout, done.stderr) == (f"{printed} ok\n", "")


def test_the_client_keeps_its_own(run: Run) -> None:
    done = run(PROGRAM.format(before="x = 1", prepare="global x; x = value", work="x", after="x"))
    assert (done.stdout, done.stderr) == ("{5} 1\n", "")


def test_what_it_only_reads_is_still_the_clients(run: Run) -> None:
    done = run(
        """
        import shoal
        x, y, seen = 1, [1], None
        def prepare():
            global seen
            seen = x, y
        def work(i):
            return x, y, seen
        with shoal.Pool(1, prepare) as pool:
            print(pool.apply(work, (0,)))
            x = 2
            y.append(2)
            print(pool.apply(work, (0,)))
        """
    )
    assert done.stdout == "(1, [1], (1, [1]))\n(2, [1, 2], (1, [1]))\n"


def test_an_executor_and_a_successor_do_the_same(run: Run) -> None:
    done = run(
        """
        import shoal
        def prepare(value):
            global x
            x = value
        def work(i):
            return x
        with shoal.Executor(1, initializer=prepare, initargs=(5,), max_tasks_per_child=1) as executor:
            print([executor.submit(work, i).result() for i in range(3)])
        """
    )
    assert (done.stdout, done.stderr) == ("[5, 5, 5]\n", "")
