"""Bars keep no process from ending, make no noise while it ends, and start none."""

import signal
import subprocess
import sys

import pytest


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150)


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "raise SystemExit",
        "del bar",
        "bar.close()",
        # Held by a thread that never ends, and so never finalized:
        "import threading, time; threading.Thread(target=lambda _: time.sleep(1e6), args=[bar], daemon=True).start()",
    ],
)
def test_an_open_bar_is_closed_with_its_count_when_the_interpreter_ends(ending: str) -> None:
    result = run(f"import shoal\nbar = shoal.tqdm(total=9, bar_format='{{n}} done')\nbar.update(4)\n{ending}")
    assert result.returncode == 0
    assert result.stderr.splitlines()[-1] == "4 done"
    assert result.stdout == ""


def test_an_error_of_the_program_is_told_as_always() -> None:
    result = run("import shoal\nbar = shoal.tqdm(total=9)\nbar.update(4)\n1 / 0")
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1 and "ZeroDivisionError" in result.stderr
    assert "4/9" in result.stderr


def test_ctrl_c_ends_a_program_with_an_open_bar() -> None:
    program = "import shoal, time\nbar = shoal.tqdm(total=9)\nprint('ready', flush=True)\ntime.sleep(500)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=150)
    assert process.returncode == -signal.SIGINT
    assert stderr.count("Traceback") == 1


def test_busy_bars_end_without_a_word_at_any_moment() -> None:
    for _ in range(3):
        result = run(
            "import shoal\nbars = [shoal.tqdm(total=10**9, mininterval=0) for _ in range(20)]\n"
            "for _ in range(2000):\n    for bar in bars: bar.update()\n"
        )
        assert result.returncode == 0
        assert "Fatal" not in result.stderr and "Traceback" not in result.stderr and "Exception" not in result.stderr


def test_a_bar_made_while_the_interpreter_ends_is_drawn_at_its_end() -> None:
    result = run(
        "import atexit, shoal\n"
        "@atexit.register\n"
        "def last():\n"
        "    with shoal.tqdm(total=9, bar_format='{n} done') as bar: bar.update(9)\n"
        "shoal.tqdm(total=1).close()"
    )
    assert result.returncode == 0 and result.stderr.splitlines()[-1] == "9 done"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_no_process_is_started_for_a_bar(method: str) -> None:
    result = run(
        "import multiprocessing, os, shoal\n"
        f"multiprocessing.set_start_method('{method}')\n"
        "with shoal.tqdm(total=9, disable=False) as bar: bar.update(9); bar.refresh()\n"
        "tasks = [f'/proc/self/task/{task}/children' for task in os.listdir('/proc/self/task')]\n"
        "print(*(open(task).read() for task in tasks), sep='')"
    )
    assert result.stdout.strip() == "", result.stderr


def test_the_child_of_a_fork_counts_on_the_bar_and_its_own_bars_are_drawn_by_its_parent() -> None:
    result = run(
        "import os, sys, shoal, shoal.progress.line, warnings\n"
        "shoal.progress.line.PATIENCE = 100.0\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "bar = shoal.tqdm(total=9, bar_format='{n} parent', mininterval=1e6)\n"
        "if (pid := os.fork()) == 0:\n"
        "    bar.update(3)\n"
        "    with shoal.tqdm(total=9, bar_format='{n} child', mininterval=1e6) as own: own.update(5)\n"
        "    sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "bar.update()\n"
        "bar.close()\n"
    )
    assert result.returncode == 0, result.stderr
    drawn = [line for line in result.stderr.splitlines() if line]
    assert (drawn[0], drawn[-1]) == ("0 parent", "4 parent")
    assert drawn.count("5 child") == drawn.count("4 parent") == 1


def test_forking_while_bars_are_drawn_locks_no_child_up() -> None:
    result = run(
        "import os, shoal, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "bars = [shoal.tqdm(total=10**9, mininterval=0) for _ in range(10)]\n"
        "for _ in range(30):\n"
        "    if (pid := os.fork()) == 0:\n"
        "        for bar in bars: bar.update(); bar.set_postfix(child=1)\n"
        "        with shoal.tqdm(total=9) as own: own.update(9)\n"
        "        os._exit(0)\n"
        "    for bar in bars: bar.update()\n"
        "    os.waitpid(pid, 0)\n"
        "print([bar.n for bar in bars])"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str([60] * 10)


def test_a_signal_may_end_a_pool_while_the_screen_is_busy() -> None:
    program = """
import os, signal
import shoal
from shoal.progress.screen import screen

pool = shoal.Pool(1)
pool.apply(shoal.tqdm, (range(3),))
signal.signal(signal.SIGTERM, lambda *_: pool.terminate())
with screen._guard:
    os.kill(os.getpid(), signal.SIGTERM)
print(pool)
"""
    result = run(program)
    assert (result.returncode, result.stdout) == (0, "<shoal.Pool state=TERMINATE pool_size=1>\n")


@pytest.mark.parametrize("lock", ["screen.LOCK", "travel._turn"])
def test_a_fork_does_not_inherit_what_another_thread_is_stuck_in(lock: str) -> None:
    program = f"""
import os, pickle, threading
import shoal
from shoal.progress import screen, travel

bar = shoal.tqdm(total=3)
taken, leave = threading.Event(), threading.Event()

def draw():
    with {lock}:
        taken.set()
        leave.wait()

if {lock!r} == "travel._turn":
    bar.close()
thread = threading.Thread(target=draw)
thread.start()
taken.wait()
if (child := os.fork()) == 0:
    bar.update()
    pickle.dumps(shoal.tqdm(total=3))
    os._exit(0)
print(os.waitpid(child, 0)[1])
leave.set()
"""
    result = run(program)
    assert (result.returncode, result.stdout) == (0, "0\n")
