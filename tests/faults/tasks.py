"""What tests of faults give to pools. A plain module: workers import it in a moment."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn


def sleep_and_tell(seconds: float, answer: object = None) -> object:
    time.sleep(seconds)
    return answer


def call_number(path: Path) -> int:
    """How often this was called with the same path, this time counted."""
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def die_at_first(path: Path, times: int) -> int:
    """Kills its worker the first times; then tells how often it was called."""
    if (number := call_number(path)) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)
    return number


def fail_at_first(path: Path, times: int, error: type[Exception] = ConnectionError) -> int:
    """Raises the first times; then tells how often it was called."""
    if (number := call_number(path)) <= times:
        raise error(f"call {number}")
    return number


def hang_at_first(path: Path, times: int) -> int:
    """Does not end the first times."""
    if (number := call_number(path)) <= times:
        time.sleep(3600)
    return number


def die_at_first_of(path: Path) -> int:
    return die_at_first(path, 1)


def spoil_and_fail_at_first(path: Path, items: list[int]) -> list[int]:
    """Changes its argument, and fails the first time."""
    items.append(len(items))
    if call_number(path) == 1:
        raise ConnectionError
    return items


def stop_oneself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def be_deaf() -> None:
    """Heeds no signal that it can ignore, and does not end."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_IGN)
    time.sleep(3600)


def die_by(signum: int, *_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signum)
    time.sleep(3600)
    raise AssertionError("it lives")


def exit_with(code: int) -> NoReturn:
    os._exit(code)


def mutter_and_exit(lines: int) -> NoReturn:
    for line in range(lines):
        print(f"line {line}", file=sys.stderr)
    os._exit(1)


def crash() -> None:
    print("about to crash", file=sys.stderr)
    read_where_nothing_is()


def read_where_nothing_is() -> None:
    ctypes.string_at(1)


def crash_unless_even(number: int) -> int:
    if number % 2:
        crash()
    return number


def note_order(path: Path, name: object) -> None:
    with path.open("a") as file:
        file.write(f"{name}\n")


class DeadlyToUnpickle:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> object:
        return os._exit, (7,)


class Point:
    """Of two coordinates."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y
