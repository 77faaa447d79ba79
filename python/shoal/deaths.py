"""From what the engine knows of a death to an exception that tells it.

The engine hands over plain facts; here they become words: what the task was, with its arguments shortly, how its
worker ended, and what that said last.
"""

from __future__ import annotations

import os
import reprlib

from shoal.errors import TaskTimeout, WorkerDied
from shoal.random import item_without_place, without_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # pid, exit code, seconds it lived, cause, two numbers of that, last words, answer to the question where it is
    Facts = tuple[int, int, float, str, float, float, str, str]

__all__ = ["describe", "task_timeout", "worker_died"]

# Lines of a worker's stderr that an error quotes.
LINES = 20
# Lines of the stack of a crash: the innermost frames are what matters.
FRAMES = 20
# How faulthandler begins, and with what it ends.
_FATAL = "Fatal Python error: "
_STACK = "Stack (most recent call first):"
_MODULES = "Extension modules: "
# What calls tasks: in a worker, and before that on a node of a cluster.
_OURS = tuple(os.path.join(os.path.dirname(__file__), file) for file in ("_worker.py", "cluster/target.py"))


def worker_died(name: str, call: tuple[str, Any, Any] | None, tries: int, deaths: list[Facts]) -> WorkerDied:
    """The error of a task whose worker died; the last of `deaths` was that of the last try."""
    task = describe(name, call)
    # Without its last words each: those of the last try are told in full.
    earlier = tuple(str(_death((*facts[:-2], "", ""), "")) for facts in deaths[:-1])
    return _death(deaths[-1], task, tries, earlier)


def task_timeout(name: str, call: tuple[str, Any, Any] | None, tries: int, timeout: float, facts: Facts) -> TaskTimeout:
    """The error of a task that took too long."""
    pid, *_, words, answer = facts
    return TaskTimeout(describe(name, call), timeout, pid, tries, _last(words), _stack(answer))


def describe(name: str, call: tuple[str, Any, Any] | None) -> str:
    """A call in a few words: `f(3, 'x')`; `map(f) of 100 items from 0 to 99`; `f` if nothing else is known."""
    if call is None:
        return name
    kind, content, more = call
    if kind == "items":
        items = [item_without_place(item) for item in content]
        if len(items) == 1:
            return f"map({name}) of {_short(items[0])}"
        return f"map({name}) of {len(items)} items from {_short(items[0])} to {_short(items[-1])}"
    content = without_place(content)
    if len(content) == 1 and (item := item_without_place(content[0])) is not content[0]:
        return f"map({name}) of {_short(item)}"
    arguments = [_short(argument) for argument in content]
    arguments += [f"{key}={_short(value)}" for key, value in (more or {}).items()]
    return f"{name}({', '.join(arguments)})"


def _death(facts: Facts, task: str, tries: int = 1, earlier: tuple[str, ...] = ()) -> WorkerDied:
    pid, code, uptime, cause, one, other, words, answer = facts
    said, traceback = _split(words)
    traceback = traceback or _stack(answer)
    return WorkerDied(pid, code, task, _last(said), _cause(cause, one, other), uptime, traceback, tries, earlier)


def _cause(cause: str, one: float, other: float) -> str:
    if cause == "oom":
        return "the kernel killed it because memory had run out"
    if cause == "timeout":
        return f"it was stopped because the task took longer than {one:g} s"
    if cause == "memory":
        return f"it had {_size(one)} of memory to itself, and worker_memory_limit is {_size(other)}"
    return ""


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def _split(words: str) -> tuple[str, str]:
    """What the worker said, and the stack that faulthandler wrote when it crashed."""
    at = words.rfind(_FATAL)
    if at < 0:
        return words, ""
    return words[:at], _frames(words[at:])


def _stack(answer: str) -> str:
    """Where a worker was when it was told to end."""
    at = answer.rfind(_STACK)
    return _frames(answer[at:]) if at >= 0 else ""


def _frames(report: str) -> str:
    """What faulthandler wrote, but for what is always the same."""
    lines = [line for line in report.splitlines() if not line.startswith(_MODULES)]
    # What called the task is always the same.
    ours = next((index for index, line in enumerate(lines) if any(file in line for file in _OURS)), len(lines))
    lines = lines[:ours]
    while lines and not lines[-1].strip():
        del lines[-1]
    return "\n".join(lines[:FRAMES])


def _last(words: str) -> str:
    return "\n".join(words.splitlines()[-LINES:])


class _Repr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 3

    def repr_ndarray(self, array: Any, level: int) -> str:
        return f"<array of {array.dtype}, shape {array.shape}>"

    repr_SharedArray = repr_FileArray = repr_ndarray


_short = _Repr().repr
