"""However a program ends, it ends at once and quietly, and nothing of it stays: no process, no memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.terminal import Terminal, family, is_held, memory_of, terminal
from tests.pool.support import client, ended, eventually

PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
import shoal

ready = Path("ready")

def rest(ready):
    ready.touch()
    time.sleep(3600)

def spin(ready):
    ready.touch()
    while True:
        pass

def hold(ready):
    held = shoal.zeros(1 << 20)
    ready.touch()
    time.sleep(3600)
    return held

shared = shoal.ones(1 << 20)
pool = shoal.Pool(2)
pool.map(abs, range(100))
"""

WORK = {
    "in map": "pool.map(rest, [ready] * 4, chunksize=1)",
    "in a map over an iterator": "pool.map(rest, iter([ready] * 4))",
    "in get": "pool.apply_async(spin, (ready,)).get()",
    "in the result of a future": "pool.submit(rest, ready).result()",
    "in imap": "list(pool.imap_unordered(rest, [ready] * 4))",
    "in the with block": "with pool:\n    pool.apply_async(rest, (ready,))\n    time.sleep(3600)",
    "in code of its own": "pool.map_async(spin, [ready] * 4)\ntime.sleep(3600)",
    "in asyncio": "import asyncio\nasyncio.run(pool.aio.map(rest, [ready] * 4))",
    "in an executor": "with shoal.Executor(2) as executor:\n    executor.submit(rest, ready).result()",
    "in an initializer": "shoal.Pool(2, rest, (ready,)).map(abs, [1, 2])",
    "in an executor at the end": "executor = shoal.Executor(2)\nexecutor.submit(rest, ready).result()",
    "on a queue": "ready.touch()\nshoal.Queue().get()",
    "on a lock": "lock = shoal.Lock()\nlock.acquire()\nready.touch()\nlock.acquire()",
}


class Remains:
    """What a program has started and the memory it has, to see that nothing of it stays."""

    def __init__(self, pid: int) -> None:
        self.processes = family(pid)
        assert len(self.processes) >= 2
        self.memory = memory_of([pid, *(process.pid for process in self.processes)])
        assert self.memory

    def are_gone(self) -> bool:
        return eventually(lambda: all(ended(process) for process in self.processes)) and eventually(
            lambda: not is_held(self.memory)
        )


def started(directory: Path, shown: Terminal) -> Remains:
    """When the file is there and all workers are."""
    assert eventually(lambda: (directory / "ready").exists() or shown.program.poll() is not None)
    assert shown.program.poll() is None, shown.rest()
    return Remains(shown.program.pid)


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_ends_a_script_with_one_traceback(tmp_path: Path, work: str) -> None:
    (tmp_path / "script.py").write_text(PROGRAM + WORK[work])
    with terminal("script.py", directory=tmp_path) as shown:
        remains = started(tmp_path, shown)
        shown.type("\x03")
        said = shown.rest()
        assert shown.program.returncode == -signal.SIGINT, said
        assert said.count("KeyboardInterrupt") - said.count("raise KeyboardInterrupt") == 1, said
        # asyncio has two, of its own making: the cancellation, and what it was for.
        assert said.count("Traceback") == (2 if work == "in asyncio" else 1), said
        assert said.rstrip().endswith("KeyboardInterrupt"), said
        assert remains.are_gone()


def test_impatience_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PROGRAM + WORK["in the with block"])
    with terminal("script.py", directory=tmp_path) as shown:
        remains = started(tmp_path, shown)
        for _ in range(5):
            shown.type("\x03")
        said = shown.rest()
        assert shown.program.returncode in (-signal.SIGINT, 1), said
        assert "KeyboardInterrupt" in said
        assert remains.are_gone()


def test_ctrl_c_at_the_prompt_of_the_interpreter_leaves_a_pool_that_works(tmp_path: Path) -> None:
    with terminal("-q", directory=tmp_path) as shown:
        shown.reads(">>> ")
        shown.type("import shoal, time; from pathlib import Path\n")
        shown.reads(">>> ")
        shown.type("pool = shoal.Pool(2)\n")
        shown.reads(">>> ")
        for turn in range(3):
            wait = f"[time.sleep(0.01) for _ in iter(Path('go{turn}').exists, True)]"
            shown.type(f"pool.map(lambda _: (Path('ready{turn}').touch(), {wait}), range(10))\n")
            shown.reads("range(10))")
            assert eventually((tmp_path / f"ready{turn}").exists)
            shown.type("\x03")
            said = shown.reads(">>> ")
            assert (said.count("Traceback"), said.count("KeyboardInterrupt")) == (1, 1), said
            (tmp_path / f"go{turn}").touch()
        shown.type("pool.map(abs, [-3, -4])\n")
        assert "[3, 4]" in shown.reads(">>> ")
        remains = Remains(shown.program.pid)
        shown.type("exit()\n")
        assert shown.rest().strip() == "exit()"
        assert shown.program.returncode == 0
        assert remains.are_gone()


@pytest.mark.parametrize("work", ["in map", "in get", "in the with block"])
def test_when_the_terminal_hangs_up_nothing_stays(tmp_path: Path, work: str) -> None:
    (tmp_path / "script.py").write_text(PROGRAM + WORK[work])
    with terminal("script.py", directory=tmp_path) as shown:
        remains = started(tmp_path, shown)
        shown.hang_up()
        assert eventually(lambda: shown.program.poll() is not None)
        assert shown.program.returncode == -signal.SIGHUP
        assert remains.are_gone()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=str)
@pytest.mark.parametrize("work", ["in an initializer", "in asyncio", "in an executor", "on a lock"])
def test_a_signal_that_ends_the_program_ends_all_of_it(tmp_path: Path, work: str, signum: signal.Signals) -> None:
    with client(PROGRAM + WORK[work], tmp_path) as program:
        remains = Remains(program.pid)
        program.send_signal(signum)
        assert program.communicate(timeout=100) == ("", "")
        assert program.returncode == -signum
        assert remains.are_gone()


@pytest.mark.parametrize("work", ["in map", "in code of its own", "in asyncio", "in the with block"])
def test_a_handler_that_exits_is_heard_at_once(tmp_path: Path, work: str) -> None:
    handler = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    with client(PROGRAM + handler + WORK[work], tmp_path) as program:
        remains = Remains(program.pid)
        program.terminate()
        assert program.communicate(timeout=100) == ("", "")
        assert program.returncode == 3
        assert remains.are_gone()


ENDINGS = {
    "sys.exit in the with block": ("with pool:\n    results = WORK\n    wait()\n    sys.exit(4)", 4, ""),
    "an exception in the with block": ("with pool:\n    results = WORK\n    wait()\n    1 / 0", 1, "ZeroDivisionError"),
    "an exception while imap is read": (
        "for _ in pool.imap(lambda ready: ready.touch(), [ready] * 1000):\n    wait()\n    1 / 0",
        1,
        "ZeroDivisionError",
    ),
    "the end of the script": ("results = WORK\nwait()", 0, ""),
    "sys.exit": ("results = WORK\nwait()\nsys.exit('so long')", 1, "so long"),
    "the end while a thread waits": (
        "threading.Thread(target=lambda: pool.map(rest, [ready] * 4), daemon=True).start()\nwait()",
        0,
        "",
    ),
    "os._exit": ("results = WORK\nwait()\nos._exit(6)", 6, ""),
    "os.abort": ("results = WORK\nwait()\nos.abort()", -signal.SIGABRT, ""),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_ends_with_work_in_flight_says_only_what_it_has_to(tmp_path: Path, ending: str) -> None:
    source, code, said = ENDINGS[ending]
    source = source.replace("WORK", "[pool.map_async(spin, [ready] * 10), pool.apply_async(hold, (ready,))]")
    wait = "go = Path('go')\ndef wait():\n    while not go.exists():\n        time.sleep(0.01)\n"
    with client(PROGRAM + wait + source, tmp_path) as program:
        remains = Remains(program.pid)
        (tmp_path / "go").touch()
        output, errors = program.communicate(timeout=100)
        last = errors.strip().splitlines()[-1:] or [""]
        assert (program.returncode, output, last[0].split(":")[0]) == (code, "", said), errors
        assert errors.count("Traceback") == (said == "ZeroDivisionError"), errors
        assert remains.are_gone()


def test_a_program_that_becomes_another_leaves_its_workers_and_memory(tmp_path: Path) -> None:
    becomes = (
        "results = pool.map_async(spin, [ready] * 4)\n"
        "while not Path('go').exists():\n    time.sleep(0.01)\n"
        "new = \"import time; print('new', flush=True); time.sleep(3600)\"\n"
        "os.execv(sys.executable, [sys.executable, '-c', new])\n"
    )
    with client(PROGRAM + becomes, tmp_path) as program:
        remains = Remains(program.pid)
        (tmp_path / "go").touch()
        assert program.stdout is not None
        assert program.stdout.readline() == "new\n"
        assert remains.are_gone()
        assert program.poll() is None


def test_the_child_of_a_fork_ends_without_a_word_and_the_parent_goes_on(tmp_path: Path) -> None:
    forks = """
results = pool.map_async(rest, [ready] * 2)
while not Path("go").exists():
    time.sleep(0.01)
children = []
for way in ("return", "exit", "raise"):
    child = os.fork()
    if child == 0:
        del results
        if way == "exit":
            sys.exit(0)
        if way == "raise":
            raise SystemExit(0)
        break
    children.append(child)
else:
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], len(pool.workers), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3600)
"""
    with client(PROGRAM + forks, tmp_path) as program:
        remains = Remains(program.pid)
        (tmp_path / "go").touch()
        assert program.communicate(timeout=100) == ("[0, 0, 0] 2\n", "")
        assert program.returncode == -signal.SIGTERM
        assert remains.are_gone()


def test_workers_that_were_stopped_end_with_their_client(tmp_path: Path) -> None:
    with client(PROGRAM + WORK["in map"], tmp_path) as program:
        remains = Remains(program.pid)
        zygote = family(program.pid)[0]
        for worker in zygote.children():
            worker.suspend()
        program.kill()
        program.wait()
        assert remains.are_gone()


@pytest.mark.parametrize("step", range(8))
def test_a_program_killed_while_it_starts_leaves_nothing(tmp_path: Path, step: int) -> None:
    (tmp_path / "client.py").write_text("import shoal\nwith shoal.Pool(4) as pool:\n    pool.map(abs, range(10))\n")
    program = subprocess.Popen([sys.executable, "client.py"], cwd=tmp_path)
    seen: list[psutil.Process] = []
    try:
        # Later each time: before the zygote is there, while it imports, while it forks, while workers settle.
        assert eventually(lambda: step == 0 or family(program.pid) or program.poll() is not None)
        for _ in range(step * 20):
            seen = family(program.pid) if program.poll() is None else seen
    finally:
        program.kill()
        program.wait()
    assert eventually(lambda: all(ended(process) for process in seen)), seen


def test_ctrl_c_beside_a_thread_that_waits_ends_the_program(tmp_path: Path) -> None:
    waits = "threading.Thread(target=lambda: pool.map(rest, [ready] * 4), daemon=True).start()\ntime.sleep(3600)"
    with client(PROGRAM + waits, tmp_path) as program:
        remains = Remains(program.pid)
        os.killpg(program.pid, signal.SIGINT)
        output, errors = program.communicate(timeout=100)
        assert (output, errors.count("Traceback"), errors.count("KeyboardInterrupt")) == ("", 1, 1), errors
        assert program.returncode == -signal.SIGINT
        assert remains.are_gone()


@pytest.mark.parametrize("ending", ["", "pool.terminate()", "sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_program_that_ends_before_its_workers_are_there_says_nothing(tmp_path: Path, ending: str) -> None:
    source = f"import os, sys, time, shoal\npool = shoal.Pool(2)\ntime.sleep(float(sys.argv[1]))\n{ending}\n"
    for n in range(8):
        # Later each time: before the zygote is there, while it imports, while it forks, while workers settle.
        command = [sys.executable, "-c", source, str(n * 0.01)]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as program:
            # First: as long as nobody has taken note of its end, it can be found.
            program.wait()
            assert program.communicate(timeout=100)[1] == ""
