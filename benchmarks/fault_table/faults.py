"""The faults, as a program meets them. Each tells step by step how it went; what it does not get to, hangs."""

import ctypes
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .tools import Call, Run, Tool, Wishes

OTHERS = 8
TIMEOUT = 1.0
PATIENCE = 10.0
MIB = 1 << 20
HOG = 600
HOG_LIMIT = 300

# Tells one more fact of how it went.
Tell = Callable[..., None]


# ---- what tasks do ---------------------------------------------------------------------------------------------------


def good(number: int) -> int:
    """A task as they should be."""
    time.sleep(0.05)
    return number


def killed() -> NoReturn:
    """Its worker is killed, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crashes() -> object:
    """Native code reads where nothing is."""
    return ctypes.string_at(1)


def exits() -> NoReturn:
    """Ends its process."""
    os._exit(3)


def leaves() -> NoReturn:
    """Ends its process, with good manners."""
    sys.exit(3)


def connection() -> object:
    """A connection to a database: nobody can pickle one."""
    return sqlite3.connect(":memory:")


class Particular(Exception):
    """Is pickled without trouble, and can't be unpickled: a frequent mistake."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


def raises_what_cannot_be_read() -> NoReturn:
    """Raises such an exception."""
    raise Particular(3, "no such luck")


def takes(_: object) -> None:
    """Takes an argument."""


def hogs() -> int:
    """Takes much memory."""
    return len(bytearray(b"x") * (HOG * MIB))


def sleeps_for_ever() -> None:
    """Does not end."""
    time.sleep(3600)


def begins_and_sleeps(path: str, _data: object) -> None:
    """Says that it has begun, and does not end."""
    Path(path).touch()
    time.sleep(3600)


def who() -> int:
    """The worker."""
    time.sleep(0.05)
    return os.getpid()


def fails() -> NoReturn:
    """An initializer that raises."""
    raise ValueError("not today")


# ---- what programs do ------------------------------------------------------------------------------------------------


def _end_of(end: object, wanted: object) -> str:
    """What somebody who waits gets: "ok", or the name of an exception."""
    if isinstance(end, BaseException):
        return type(end).__name__
    return "ok" if end == wanted else f"wrong: {end!r}"


def _others(run: Run, calls: list[Call], tell: Tell) -> None:
    """Runs calls of which all but the first are good."""
    done = 0
    for number, end in run(calls):
        if number == 0:
            tell(task=_end_of(end, end), text=str(end)[:500])
        else:
            done += _end_of(end, number) == "ok"
            tell(others=done)


def _afterwards(run: Run, tell: Tell, timeout: float | None = None) -> None:
    """One more, good call."""
    for _, end in run([(good, (7,))], timeout):
        tell(afterwards=_end_of(end, 7))


def _in_a_task(function: Callable[..., object], *args: Any, **wishes: Any) -> Callable[[Tool, Tell, Path], None]:
    def program(tool: Tool, tell: Tell, _: Path) -> None:
        with tool.pool(Wishes(**wishes)) as run:
            _others(run, [(function, args), *((good, (number,)) for number in range(1, OTHERS + 1))], tell)
            _afterwards(run, tell)
        tell(closed=True)

    return program


def _unpicklable_argument(tool: Tool, tell: Tell, folder: Path) -> None:
    _in_a_task(takes, connection())(tool, tell, folder)


def _takes_too_much(tool: Tool, tell: Tell, folder: Path) -> None:
    if not tool.limits_memory:
        tell(note="there is no limit")
    _in_a_task(hogs, memory=HOG_LIMIT * MIB)(tool, tell, folder)


def _hangs(tool: Tool, tell: Tell, _: Path) -> None:
    # In both workers: whether they are free again shows.
    with tool.pool(Wishes()) as run:
        for _, end in run([(sleeps_for_ever, ())] * 2, TIMEOUT):
            tell(task=_end_of(end, None))
        _afterwards(run, tell, PATIENCE)
    tell(closed=True)


def _die_idle(tool: Tool, tell: Tell, _: Path) -> None:
    """One after the other: workers that wait for tasks do not all hold the same."""
    with tool.pool(Wishes()) as run:
        pids = {end for _, end in run([(who, ())] * 8) if isinstance(end, int)}
        done, task = 0, "ok"
        for pid in sorted(pids)[:2]:
            if _is_there(pid):
                os.kill(pid, signal.SIGKILL)
            while _is_there(pid):
                time.sleep(0.01)
            for number, end in run([(good, (number,)) for number in range(OTHERS // 2)]):
                done += _end_of(end, number) == "ok"
                task = _end_of(end, number) if number == 0 and task == "ok" else task
                tell(others=done, **({"task": task} if number == 0 else {}))
        _afterwards(run, tell)
    tell(closed=True)


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _bad_initializer(tool: Tool, tell: Tell, _: Path) -> None:
    with tool.pool(Wishes(initializer=fails)) as run:
        for _, end in run([(good, (7,))]):
            tell(task=_end_of(end, 7))
    tell(closed=True)


def _at_work(tool: Tool, tell: Tell, folder: Path) -> None:
    import numpy as np

    data = np.ones(16 * MIB, dtype="uint8")
    with tool.pool(Wishes()) as run:
        # Not before both have begun is something done to this process.
        list(run([(begins_and_sleeps, (str(folder / f"begun-{number}"), data)) for number in range(2)]))
    tell(closed=True)


@dataclass(frozen=True)
class Fault:
    """A fault: its name, its line in the table, and the program that meets it. `sent`: what the program gets."""

    name: str
    title: str
    program: Callable[[Tool, Tell, Path], None]
    sent: signal.Signals | None = None


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("lambda", "the function is a lambda", _in_a_task(lambda: None)),
        Fault("killed", "the worker of a task is killed (SIGKILL)", _in_a_task(killed)),
        Fault("crash", "the worker of a task crashes (SIGSEGV)", _in_a_task(crashes)),
        Fault("exit", "a task calls `os._exit`", _in_a_task(exits)),
        Fault("sys-exit", "a task calls `sys.exit`", _in_a_task(leaves)),
        Fault("memory", f"a task takes {HOG} MiB, and may {HOG_LIMIT}", _takes_too_much),
        Fault("argument", "an argument can't be pickled", _unpicklable_argument),
        Fault("result", "a result can't be pickled", _in_a_task(connection)),
        Fault("exception", "an exception can't be unpickled", _in_a_task(raises_what_cannot_be_read)),
        Fault("hang", f"tasks do not end, with a timeout of {TIMEOUT:g} s", _hangs),
        Fault("idle", "workers are killed between tasks", _die_idle),
        Fault("initializer", "the initializer raises", _bad_initializer),
        Fault("interrupt", "Ctrl-C while tasks run", _at_work, signal.SIGINT),
        Fault("client", "the program is killed (SIGKILL)", _at_work, signal.SIGKILL),
    )
}
