"""The functions that the tests give to pools. A plain module: workers import it in a moment."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn


def square(x: int, wait: float = 0.0) -> int:
    time.sleep(wait)
    return x * x


def add(*numbers: int, **more: int) -> int:
    return sum(numbers) + sum(more.values())


def same(x: Any) -> Any:
    return x


def process_id(_: object = None) -> int:
    return os.getpid()


def touch(path: Path) -> None:
    path.touch()


def wait_for(path: Path, answer: object = None) -> object:
    """Returns the answer once the file is there: a task that lasts exactly as long as a test wants."""
    while not path.exists():
        time.sleep(0.005)
    return answer


def touch_and_wait(started: Path, gate: Path) -> None:
    started.touch()
    wait_for(gate)


def note(path: Path) -> None:
    """Writes a line with the process id: shows how often and where it was called."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


def fail(message: str = "no") -> NoReturn:
    raise ValueError(message)


def fail_if_odd(x: int, wait: float = 0.0) -> int:
    time.sleep(wait)
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def fail_once(path: Path) -> None:
    """Fails when it is called for the first time."""
    if not path.exists():
        path.touch()
        raise ValueError("first call")


class Greeting:
    """What the initializer of a pool leaves for its tasks."""

    text = "none"


def greet(*words: str) -> None:
    Greeting.text = " ".join(words)


def greeting() -> str:
    return Greeting.text


class PickyError(Exception):
    """Can be pickled, but not unpickled: what is pickled are the wrong arguments for its constructor."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


class StickyError(Exception):
    """Can't be pickled: it holds something that can't."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.frame = sys._getframe()


def fail_picky() -> NoReturn:
    raise PickyError(7, "picky")


def fail_sticky() -> NoReturn:
    raise StickyError("sticky")


class Unloadable:
    """Is pickled well, and raises when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fail, ("cannot be loaded",)


def unloadable() -> Unloadable:
    return Unloadable()


class Holder:
    """Carries anything as an attribute."""

    def __init__(self, content: object) -> None:
        self.content = content

    def length(self) -> int:
        return len(self.content)  # type: ignore[arg-type]


def exit_hard(code: int) -> NoReturn:
    os._exit(code)


def exit_soft(code: int) -> NoReturn:
    sys.exit(code)


def die_by(signum: signal.Signals) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(3600)
