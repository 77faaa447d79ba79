"""What workers print appears where the client prints: in whole lines, and before the task's result."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
from tests.conftest import Run
from tests.pool.support import eventually
from tests.progress.terminal import on_terminal


def test_it_goes_to_whatever_is_sys_stdout_and_stderr_here(capsys: pytest.CaptureFixture[str]) -> None:
    def work(i: int) -> None:
        print("out", i)
        print("err", i, file=sys.stderr)

    with shoal.Pool(1) as pool:
        for i in range(20):
            pool.apply(work, (i,))
            # When the result is there, it is.
            assert capsys.readouterr() == (f"out {i}\n", f"err {i}\n")
        with contextlib.redirect_stdout(io.StringIO()) as redirected:
            pool.apply(work, (0,))
        assert redirected.getvalue() == "out 0\n"


def test_it_comes_in_the_order_in_which_a_program_goes(run: Run) -> None:
    done = run("""
        import shoal

        print("begin")
        with shoal.Pool(2) as pool:
            for i in range(5):
                print("before", i)
                pool.apply(print, ("task", i))
                print("after", i)
        print("end")
    """)
    lines = [line for i in range(5) for line in (f"before {i}", f"task {i}", f"after {i}")]
    assert done.stdout.splitlines() == ["begin", *lines, "end"]
    assert done.stderr == ""


def test_lines_of_many_workers_are_whole_and_in_the_order_of_each(run: Run) -> None:
    done = run("""
        import sys
        import shoal

        def work(worker):
            for i in range(200):
                print(worker, i, "x" * (i * 97 % 5000), flush=i % 2 == 0)
                print(worker, i, "y" * 100, file=sys.stderr)

        with shoal.Pool(4) as pool:
            pool.map(work, range(4), chunksize=1)
    """)
    for text, letter in ((done.stdout, "x"), (done.stderr, "y")):
        lines = [re.fullmatch(rf"(\d) (\d+) {letter}*", line) for line in text.splitlines()]
        assert len(lines) == 800 and all(lines)
        for worker in "0123":
            assert [int(line[2]) for line in lines if line and line[1] == worker] == list(range(200))


def test_what_a_worker_printed_before_it_was_killed_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        print("one")
        print("two, and no end", end="", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with shoal.Pool(1) as pool:
        with pytest.raises(shoal.WorkerDied):
            pool.apply(work)
        assert capsys.readouterr().out == "one\ntwo, and no end\n"


def test_programs_that_a_task_starts_print_in_their_place(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        print("before")
        subprocess.run(["echo", "child"], check=True)
        print("after")

    with shoal.Pool(1) as pool:
        pool.apply(work)
        assert capfd.readouterr().out == "before\nchild\nafter\n"


def test_bytes_arrive_as_they_were_written(tmp_path: Path) -> None:
    work = "lambda: (sys.stdout.buffer.write(bytes(range(256))), print())"
    program = f"import shoal, sys\nwith shoal.Pool(1) as pool: pool.apply({work})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=tmp_path, timeout=150, check=True)
    assert done.stdout == bytes(range(256)) + b"\n"


def test_a_pool_in_a_worker_prints_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with shoal.Pool(1) as inner:
            inner.apply(print, ("below",))
        print("above")

    with shoal.Pool(1) as pool:
        pool.apply(work)
        assert capsys.readouterr().out == "below\nabove\n"


def test_on_a_terminal_workers_print_to_it_themselves(tmp_path: Path) -> None:
    program = """
        import os, sys
        import shoal

        def work(i):
            print("task", i, sys.stdout.isatty(), os.isatty(1))

        with shoal.Pool(1) as pool:
            for i in range(3):
                pool.apply(work, (i,))
                print("result", i)
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = terminal.end()
    assert lines == [line for i in range(3) for line in (f"task {i} True True", f"result {i}")]


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, shoal\n"
        "with shoal.Pool(1) as pool:\n"
        "    sys.stdin.readline()\n"
        "    pool.apply(print, ('nobody reads this',))\n"
        "    print('done', file=sys.stderr)\n"
        "os._exit(0)\n"  # its own flush would fail
    )
    process = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate("go\n", timeout=150)
    assert (process.returncode, said) == (0, "done\n")


def test_who_prints_more_than_is_read_waits_and_nothing_is_lost(run: Run) -> None:
    done = run("""
        import sys, threading
        import shoal

        class Slow:
            def __init__(self, file):
                self.file, self.gate = file, threading.Event()
            def write(self, text):
                self.gate.wait()
                return self.file.write(text)
            def flush(self):
                self.file.flush()

        def work(event):
            for i in range(50_000):
                print(i, "x" * 100)
                if i == 1000:
                    event.set()

        slow = sys.stdout = Slow(sys.stdout)
        with shoal.Pool(1) as pool:
            event = shoal.Event()
            task = pool.apply_async(work, (event,))
            event.wait()
            slow.gate.set()
            task.get()
    """)
    assert [int(line.split()[0]) for line in done.stdout.splitlines()] == list(range(50_000))


def test_the_descriptors_of_a_pool_are_closed_with_it() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    def use() -> None:
        with shoal.Pool(2) as pool:
            pool.map(print, range(2))
        pool.join()

    use()
    before = count()
    for _ in range(3):
        use()
    assert eventually(lambda: count() <= before)
