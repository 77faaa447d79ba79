"""The client's side: what workers are told, and who hears what they say.

Every pool starts it, so importing this imports next to nothing.
"""

from __future__ import annotations

import _pickle as pickle  # the module around it takes several times as long to import

from shoal._engine import say, speak_through
from shoal.reports import streams
from shoal.reports.levels import levels
from shoal.reports.warned import portable_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal.reports.levels import Levels

    # What workers are told: whether records are wanted, and the levels of loggers; the filters of warnings, None if
    # these are not wanted; what becomes of output.
    Settings = tuple[bool, Levels | None, list[tuple[Any, ...]] | None, str]

__all__ = ["afterwards", "listen", "notice", "pass_on"]


def listen(logs: bool, warnings: bool, output: bool) -> Settings:
    """Hear what the workers of a new pool say, from now on.

    Args:
        logs: whether records are wanted.
        warnings: whether warnings are.
        output: whether what they print is.

    Returns:
        What they are to be told.

    Raises:
        TypeError: one of them is neither True nor False.
    """
    for name, wanted in (("logs", logs), ("warnings", warnings), ("output", output)):
        if not isinstance(wanted, bool):
            raise TypeError(f"{name} must be True or False, not {wanted!r}")
    speak_through("reports", _hear)
    streams.listen()
    filters = portable_filters() if warnings else None
    return logs, levels(), filters, streams.way_of(output)


def notice() -> bytes:
    """What workers are told when levels have changed; see `shoal.reports.levels`."""
    return pickle.dumps(levels(), 5)


def pass_on(stream: str, said: bytes, **marks: str) -> None:
    """Workers of another machine have said something: pass it on as if they were this process's. Does not wait.

    Args:
        stream: "stdout", "stderr" or "reports".
        said: lines, or a report.
        marks: attributes of the record, if it is one; `taskId` goes in front of the one that it has.
    """
    say(stream, pickle.dumps(("marked", said, marks), 5) if stream == "reports" else said)


def afterwards(function: Callable[[], object]) -> None:
    """Call `function` when all has been passed on that was heard before; in the thread that does so."""
    _called.append(function)
    say("reports", _CALL)


_CALL = pickle.dumps(("call",), 5)
_called: list[Callable[[], object]] = []


def _hear(message: bytes) -> bool:
    """A worker has something to say."""
    _take(*pickle.loads(message))
    return True


def _take(kind: str, *parts: Any) -> None:
    if kind == "record":
        from shoal.reports import records

        records.handle(*parts)
    elif kind == "warning":
        from shoal.reports import warned

        warned.show(*parts)
    elif kind == "marked":
        report, marks = parts
        kind, *parts = pickle.loads(report)
        if kind == "record":
            parts[0].update({**marks, "taskId": marks["taskId"] + str(parts[0]["taskId"])})
        _take(kind, *parts)
    elif kind == "call":
        _called.pop(0)()
