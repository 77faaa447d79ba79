"""Arguments, checked at once: each error names the argument and what would be right."""

from __future__ import annotations

import operator
import sys
import threading

from shoal import _budget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MOST_WORKERS = 500


def integer(
    value: object, name: str, least: int, *, most: int | None = None, what: str = "an integer", right: str = ""
) -> int:
    """`value` as an int, from `least` to `most`; or an error that says that it must be `what`, and `right`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")
    number = int(value.__index__())
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} must be {right or f'{least} or more'}, not {number}")
    return number


def _integer_or_none(value: object, name: str) -> int | None:
    return None if value is None else integer(value, name, 1, what="an integer or None")


def processes(value: object, name: str = "processes") -> int:
    """How many workers: by default as many as there are CPUs for this process."""
    if value is None:
        return min(_budget.cpu_count(), MOST_WORKERS)
    return integer(value, name, 1, most=MOST_WORKERS, what="an integer or None", right=f"1 to {MOST_WORKERS}")


def initializer(function: object, initargs: Iterable[Any]) -> tuple[object, tuple[Any, ...]] | None:
    """The initializer and its arguments; None if there is none."""
    arguments_of = arguments(initargs, "initargs")
    if function is None:
        return None
    if not callable(function):
        raise TypeError(f"initializer must be callable, not {type(function).__name__}")
    return function, arguments_of


def arguments(value: object, name: str = "args") -> tuple[Any, ...]:
    """Positional arguments of a call."""
    iterable(value, name)
    return tuple(value)  # type: ignore[arg-type]  # it was looked at


def keywords(value: object, name: str = "kwds") -> dict[str, Any] | None:
    """Keyword arguments of a call; None for none."""
    if not value:
        return None
    if not hasattr(value, "keys"):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    return dict(value)  # type: ignore[call-overload, no-any-return]


def iterable(value: object, name: str = "iterable") -> None:
    """What can be iterated over."""
    kind = type(value)
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        other = "; asynchronous ones are for imap of pool.aio" if hasattr(kind, "__aiter__") else ""
        raise TypeError(f"{name} must be iterable, not {kind.__name__}{other}")


def maxtasksperchild(value: object, name: str = "maxtasksperchild") -> int | None:
    """After how many tasks a worker is replaced; None for never."""
    return _integer_or_none(value, name)


def memory_limit(value: object, name: str = "memory_limit") -> int | None:
    """A limit of memory in bytes; None for none."""
    if value is None:
        return None
    right = "1 byte or more, and less than 2**63"
    return integer(value, name, 1, most=2**63 - 1, what="a number of bytes or None", right=right)


def period(value: object, name: str) -> float | None:
    """A time in seconds, more than 0; None for endless."""
    if value is None:
        return None
    if isinstance(value, (bool, str)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be None or a number of seconds, not {type(value).__name__}")
    seconds = float(value)  # type: ignore[arg-type]
    if not seconds > 0:
        raise ValueError(f"{name} must be None or more than 0 seconds, not {value!r}")
    return None if seconds == float("inf") else seconds


def seconds(value: object, name: str = "timeout") -> float | None:
    """A time to wait; None for ever."""
    if value is None:
        return None
    if isinstance(value, str) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__} ({value!r})")
    found = float(value)  # type: ignore[arg-type]
    if found != found:
        raise ValueError(f"{name} must be a number of seconds or None, not NaN")
    return found


def patience(timeout: float | None) -> float:
    """A time to wait at most, as the locks of `threading` want it; those can't wait longer than three centuries."""
    return -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)


def chunksize(value: object, name: str = "chunksize") -> int:
    """Items a task."""
    if hasattr(value, "__iter__") and not hasattr(value, "__index__"):
        kind = type(value).__name__
        raise TypeError(f"{name} must be an integer, not {kind}; for several iterables use starmap and zip")
    return integer(value, name, 1)


def buffersize(value: object) -> int | None:
    """Items that are sent or whose results wait; None for as many as it turns out best."""
    return _integer_or_none(value, "buffersize")


def threads(value: object) -> int | None:
    """How many threads libraries have in a worker; None for their share of the CPUs."""
    return _integer_or_none(value, "threads_per_worker")


def callbacks(callback: object, error_callback: object) -> None:
    """Both can be called, or are None."""
    for name, function in (("callback", callback), ("error_callback", error_callback)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable, not {type(function).__name__}")


def int64(name: str, value: object) -> int:
    """`value` as an int of 64 bits, or an error that names the argument `name`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # whatever it is: that is the question
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r})") from None
    if not -(2**63) <= number < 2**63:
        raise OverflowError(f"{name} must fit into 64 bits, but is {number}")
    return number


def modules(preload: Iterable[str]) -> list[str]:
    """Names of modules that can be found."""
    iterable(preload, "preload")
    names = [preload] if isinstance(preload, str) else list(preload)
    if names:
        from importlib.util import find_spec

        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"preload must be names of modules, not {type(name).__name__}")
            try:
                found = name in sys.modules or find_spec(name) is not None
            except ModuleNotFoundError:  # not even its package
                found = False
            if not found:
                raise ModuleNotFoundError(f"preload: no module named {name!r}", name=name)
    return names
