"""The terms tasks run on: how long they may take, how often they are tried, what goes first.

A pool has its own, given when it is made; a call may have others. What is checked here is handed to the engine, which
keeps to it.
"""

from __future__ import annotations

from shoal import _checks, _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypedDict

    Exceptions = type[BaseException] | tuple[type[BaseException], ...]

    class TaskOptions(TypedDict, total=False):
        """What `Pool`, `Pool.options` and the calls of a pool take besides."""

        timeout: float | None
        retries: int
        retry_on: Exceptions
        retry_delay: float
        priority: int


NAMES = ("timeout", "retries", "retry_on", "retry_delay", "priority")

# What an argument is called that other tools, or other calls, call so.
_ELSEWHERE = {
    **dict.fromkeys(("n_jobs", "num_workers", "max_workers"), "processes of Pool, max_workers of Executor"),
    "processes": "max_workers of Executor",
    **dict.fromkeys(("worker_lifespan", "max_tasks_per_child"), "maxtasksperchild of Pool"),
    "maxtasksperchild": "max_tasks_per_child of Executor",
    "worker_init": "initializer",
    "cpu_ids": "affinity",
    "mp_context": "context of Pool, and of no account",
    **dict.fromkeys(("progress_bar", "verbose", "show_progress"), "progress"),
    **dict.fromkeys(("chunk_size", "batch_size"), "chunksize"),
    **dict.fromkeys(("max_tasks_active", "pre_dispatch", "prefetch"), "buffersize"),
    "task_timeout": "timeout",
    "max_retries": "retries",
}


def check_names(options: Iterable[str]) -> None:
    """That all of these are options of a task: what no call knows as an argument of its own ends up here."""
    for name in options:
        if name in NAMES:
            continue
        here = f": here it is {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        known = "" if here else f"; the options of a task are {', '.join(NAMES)}"
        raise TypeError(f"unexpected keyword argument {name!r}{here}{known}")


class Terms:
    """Checked options, as the engine wants them."""

    __slots__ = ("alone", "engine", "options")

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_names(options)
        self.options = dict(options)
        limit = _checks.period(options.get("timeout"), "timeout")
        retries = _checks.integer(
            options.get("retries", 0), "retries", 0, most=2**31 - 1, right="0 or more, and less than 2**31"
        )
        reasons = _reasons(options.get("retry_on", ()))
        delay = _delay(options.get("retry_delay", 0))
        priority = _checks.integer(
            options.get("priority", 0), "priority", -(2**31), most=2**31 - 1, right="a 32-bit number"
        )
        # An item of a map with a limit or tries of its own is a task of its own.
        self.alone = limit is not None or retries > 0
        self.engine: _engine.Terms | None = None
        if self.alone or priority:
            overruns, others = _sorted_out(reasons) if retries else (False, b"")
            self.engine = _engine.Terms(limit, retries, others, overruns, delay, priority)

    def with_(self, options: Mapping[str, Any]) -> Terms:
        """These terms, but for what `options` say."""
        return type(self)({**self.options, **options})


def _delay(value: object) -> float:
    if isinstance(value, (bool, str)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"retry_delay must be a number of seconds, not {type(value).__name__}")
    seconds = float(value)  # type: ignore[arg-type]
    if not seconds >= 0:
        raise ValueError(f"retry_delay must be 0 seconds or more, not {value!r}")
    return seconds


def _reasons(value: object) -> tuple[type[BaseException], ...]:
    reasons = value if isinstance(value, tuple) else (value,)
    for reason in reasons:
        if not (isinstance(reason, type) and issubclass(reason, BaseException)):
            raise TypeError(f"retry_on must be an exception class or a tuple of them, not {reason!r}")
    return reasons


def _sorted_out(reasons: tuple[type[BaseException], ...]) -> tuple[bool, bytes]:
    """Whether a task that took too long is tried again; and the pickle of those that the worker can meet."""
    if not reasons:
        return False, b""
    from shoal.errors import TaskTimeout
    from shoal.serialize import dumps

    return issubclass(TaskTimeout, reasons), dumps(reasons, "retry_on")
