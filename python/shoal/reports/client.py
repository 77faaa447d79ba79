"""The client's side: what workers are told, and who hears what they say.

Every pool starts it, so importing this imports next to nothing.
"""

from __future__ import annotations

import _pickle as pickle  # the module around it takes several times as long to import

from shoal._engine import speak_through
from shoal.reports import streams
from shoal.reports.levels import Board
from shoal.reports.warned import portable_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # What workers are told: levels of loggers, filters of warnings (None: they are not wanted), what becomes of output.
    Settings = tuple[Board | None, list[tuple[Any, ...]] | None, str]

__all__ = ["listen"]


def listen(logs: bool, warnings: bool, output: bool) -> Settings:
    """Hear what the workers of a new pool say, from now on; returns what they are to be told.

    Args:
        logs: whether records are wanted.
        warnings: whether warnings are.
        output: whether what they print is.

    Raises:
        TypeError: one of them is neither True nor False.
    """
    for name, wanted in (("logs", logs), ("warnings", warnings), ("output", output)):
        if not isinstance(wanted, bool):
            raise TypeError(f"{name} must be True or False, not {wanted!r}")
    speak_through("reports", _hear)
    streams.listen()
    levels = Board.make() if logs else None
    filters = portable_filters() if warnings else None
    return levels, filters, streams.way_of(output)


def _hear(message: bytes) -> bool:
    """A worker has something to say."""
    kind, *parts = pickle.loads(message)
    if kind == "record":
        from shoal.reports import records

        records.handle(*parts)
    elif kind == "warning":
        from shoal.reports import warned

        warned.show(*parts)
    return True
