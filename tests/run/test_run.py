"""`shoal run`: programs run as the interpreter runs them, with shoal in the place of multiprocessing."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

SHOAL = str(Path(sys.executable).with_name("shoal"))
Done = subprocess.CompletedProcess[str]
Shoal = Callable[..., Done]


def call(directory: Path, *command: str) -> Done:
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL)


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[Done, Done]]:
    """What the interpreter and what `shoal run` make of the same command line."""

    def both(*arguments: str) -> tuple[Done, Done]:
        return call(tmp_path, sys.executable, *arguments), call(tmp_path, SHOAL, "run", *arguments)

    return both


@pytest.fixture
def shoal_run(tmp_path: Path) -> Shoal:
    """Runs a program of that text by `shoal run`."""

    def run(source: str, *options: str) -> Done:
        (tmp_path / "program.py").write_text(textwrap.dedent(source))
        return call(tmp_path, SHOAL, "run", *options, "program.py")

    return run


SHOWS = """
import sys
print(sys.argv, sys.path[0], __name__, globals().get("__file__"), __package__, __doc__)
print(sys.modules["__main__"].__dict__ is globals())
"""


@pytest.fixture
def shows(tmp_path: Path) -> None:
    (tmp_path / "shows.py").write_text(SHOWS)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(SHOWS)
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "__main__.py").write_text(SHOWS)
    (tmp_path / "link.py").symlink_to(tmp_path / "package" / "__main__.py")


@pytest.mark.parametrize(
    "arguments",
    [
        ["shows.py"], ["shows.py", "a", "-b", "--", "--stats", "-c"], ["./shows.py"], ["package/__main__.py"],
        ["link.py"], ["directory", "x"], ["-m", "shows", "-x", "y"], ["-m", "package", "a"], ["-c", SHOWS, "-m", "b"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_program_sees_what_it_sees_under_the_interpreter(
    both: Callable[..., tuple[Done, Done]], shows: None, arguments: list[str]
) -> None:
    plain, run = both(*arguments)
    assert (run.stdout, run.stderr, run.returncode) == (plain.stdout, plain.stderr, 0)


@pytest.mark.parametrize(
    "ending",
    ["sys.exit(3)", "sys.exit('no')", "sys.exit()", "raise KeyError('x')", "os._exit(7)", "1/0", "f()",
     "raise KeyboardInterrupt", "os.kill(os.getpid(), 15)", "import nothing_like_this"],
)  # fmt: skip
def test_exit_codes_and_tracebacks_are_those_of_the_interpreter(
    both: Callable[..., tuple[Done, Done]], tmp_path: Path, ending: str
) -> None:
    (tmp_path / "ends.py").write_text(f"import os, sys\ndef f():\n    raise ValueError('deep')\n{ending}\n")
    plain, run = both("ends.py")
    assert (run.stderr, run.returncode) == (plain.stderr, plain.returncode)


def test_a_syntax_error_is_shown_as_the_interpreter_shows_it(
    both: Callable[..., tuple[Done, Done]], tmp_path: Path
) -> None:
    (tmp_path / "wrong.py").write_text("if:\n")
    plain, run = both("wrong.py")
    assert (run.stderr, run.returncode) == (plain.stderr, plain.returncode)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "missing.py': [Errno 2] No such file or directory"),
        ([], "what to run? Give a script, -m MODULE or -c CODE"),
        (["-m"], "what to run? Give a script, -m MODULE or -c CODE"),
        (["-m", "no_such_module"], "No module named no_such_module"),
    ],
)
def test_what_cannot_be_run_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = call(tmp_path, SHOAL, "run", *arguments)
    assert message in done.stderr
    assert done.returncode == (1 if "no_such_module" in arguments else 2)


def test_every_way_to_import_multiprocessing_gives_shoal(shoal_run: Shoal) -> None:
    done = shoal_run(
        """
        import importlib, multiprocessing, multiprocessing as mp, multiprocessing.pool, shoal
        from multiprocessing import *
        from multiprocessing import Queue as Q, pool, shared_memory, managers
        from multiprocessing.pool import Pool as P
        from multiprocessing.shared_memory import SharedMemory
        from multiprocessing.managers import SyncManager
        import shoal.multiprocessing.shared_memory, shoal.multiprocessing.managers

        assert type(Q()) is type(multiprocessing.Queue()) is type(mp.get_context("spawn").Queue()) is shoal.Queue
        assert P is pool.Pool is multiprocessing.pool.Pool is shoal.Pool
        assert importlib.import_module("multiprocessing.pool").Pool is shoal.Pool
        assert SharedMemory is shared_memory.SharedMemory is shoal.multiprocessing.shared_memory.SharedMemory
        assert SyncManager is managers.SyncManager is shoal.multiprocessing.managers.SyncManager
        assert type(Lock()) is shoal.Lock and cpu_count() == shoal.cpu_count()
        print("all of them")
        """
    )
    assert (done.stdout, done.stderr) == ("all of them\n", "")


def test_workers_import_shoal_too(shoal_run: Shoal, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(
        "import multiprocessing, multiprocessing.pool\n"
        "def work(x):\n"
        "    return type(multiprocessing.Lock()).__module__, multiprocessing.pool.Pool.__module__\n"
    )
    done = shoal_run(
        """
        import helper
        from multiprocessing import Pool
        with Pool(2) as pool:
            print(*set(pool.map(helper.work, range(4))))
        """
    )
    assert (done.stdout, done.stderr) == ("('shoal.locks', 'shoal.pool')\n", "")


def test_what_the_standard_library_makes_of_its_own_parts_goes_on_working(shoal_run: Shoal) -> None:
    done = shoal_run(
        """
        import multiprocessing, multiprocessing.pool, multiprocessing.connection, logging
        from multiprocessing.dummy import Pool as DummyPool
        from multiprocessing.queues import SimpleQueue

        with multiprocessing.pool.ThreadPool(2) as pool, DummyPool(2) as dummy:
            print(pool.map(abs, [-1, -2]), dummy.map(abs, [-3]))
        one, other = multiprocessing.Pipe()
        one.send(multiprocessing.connection.wait([one], 0))
        print(other.recv(), multiprocessing.current_process().name)
        manager = multiprocessing.Manager()
        print(manager.dict(a=1), manager.Pool(1).apply(abs, (-4,)))
        manager.shutdown()
        """
    )
    assert (done.stdout, done.stderr) == ("[1, 2] [3]\n[] MainProcess\n{'a': 1} 4\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_run_and_take_queues(shoal_run: Shoal, method: str) -> None:
    done = shoal_run(
        f"""
        import multiprocessing

        def work(queue, lock):
            with lock:
                queue.put(multiprocessing.current_process().name)

        if __name__ == "__main__":
            multiprocessing.set_start_method({method!r})
            queue, lock = multiprocessing.Queue(), multiprocessing.Lock()
            process = multiprocessing.Process(target=work, args=(queue, lock), name="child")
            process.start()
            print(queue.get(timeout=100))
            process.join()
            print(process.exitcode)
        """
    )
    assert (done.stdout, done.stderr) == ("child\n0\n", "")


def test_process_executors_are_those_of_shoal(shoal_run: Shoal) -> None:
    done = shoal_run(
        """
        import concurrent.futures, concurrent.futures.process, shoal
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed

        assert ProcessPoolExecutor is concurrent.futures.process.ProcessPoolExecutor is shoal.Executor
        factor = 3
        with ProcessPoolExecutor(2) as executor:
            futures = [executor.submit(lambda x: x * factor, i) for i in range(3)]
            print(sorted(future.result() for future in as_completed(futures)))
        """
    )
    assert (done.stdout, done.stderr) == ("[0, 3, 6]\n", "")


def test_the_default_backend_of_joblib_is_that_of_shoal(shoal_run: Shoal) -> None:
    pytest.importorskip("joblib")
    done = shoal_run(
        """
        import joblib
        from joblib import Parallel, delayed
        print(Parallel(n_jobs=2)(delayed(lambda x: x + 1)(i) for i in range(3)))
        print(type(joblib.parallel.get_active_backend()[0]).__module__)
        """
    )
    assert (done.stdout, done.stderr) == ("[1, 2, 3]\nshoal.integrations.joblib\n", "")


def test_a_daemon_thread_that_waits_for_a_queue_does_not_disturb_the_end(shoal_run: Shoal) -> None:
    done = shoal_run(
        """
        import multiprocessing, threading
        queue, printed = multiprocessing.Manager().Queue(), threading.Event()
        def drain():
            while True:
                print(queue.get(), flush=True)
                printed.set()
        threading.Thread(target=drain, daemon=True).start()
        queue.put("hello")
        printed.wait()
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "", 0)


def test_stats_tell_which_worker_ran_what(shoal_run: Shoal) -> None:
    done = shoal_run(
        """
        from multiprocessing import Pool
        with Pool(2) as pool:
            pool.map(abs, range(100), chunksize=1)
        """,
        "--stats",
    )
    assert done.stdout == ""
    head, columns, *workers, _, queue = done.stderr.splitlines()
    assert head == "shoal: pool 1 of 2 workers"
    place = columns.split().index("tasks")
    assert sum(int(line.split()[place]) for line in workers) == 100
    assert queue == "0 tasks queued, 0 under way"


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)"])
def test_a_trace_of_all_its_pools_is_written_however_it_ends(shoal_run: Shoal, tmp_path: Path, end: str) -> None:
    path = tmp_path / "run.json"
    done = shoal_run(
        f"""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import Pool
        with Pool(2) as pool:
            pool.map(abs, range(10), chunksize=1)
        with ProcessPoolExecutor(1) as executor:
            executor.submit(len, "x").result()
        {end}
        """,
        "--trace",
        str(path),
    )
    assert done.returncode == (3 if end else 0), done.stderr
    events = json.loads(path.read_text())["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["abs"] * 10 + ["len"]


def test_a_trace_that_cannot_be_written_is_an_error_before_the_program_runs(shoal_run: Shoal) -> None:
    done = shoal_run("print('ran')", "--trace", "/nowhere/run.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --trace: can't write '/nowhere/run.json'" in done.stderr


def test_ctrl_c_ends_the_program_as_it_ends_under_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(100)\n")
    program = subprocess.Popen(
        [SHOAL, "run", "waits.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(signal.SIGINT)
    _, error = program.communicate(timeout=100)
    assert error.startswith("Traceback (most recent call last):\n") and error.endswith("\nKeyboardInterrupt\n")
    assert error.count("File") == 1
    assert program.returncode == -signal.SIGINT


REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.parametrize(
    "program", [*sorted(PROGRAMS.glob("*.py")), *sorted(REFERENCE.glob("*.py"))], ids=lambda path: path.stem
)
def test_programs_that_were_written_for_multiprocessing_run_unchanged(tmp_path: Path, program: Path) -> None:
    arguments = ["2e6", "1e5", "1000"] if program.stem == "seed_job" else []
    done = call(tmp_path, SHOAL, "run", str(program), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("psm_run_")]
