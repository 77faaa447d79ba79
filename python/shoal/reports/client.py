"""The client's side: what workers are told, and who hears what they say.

Every pool starts it, so importing this imports next to nothing.
"""

from __future__ import annotations

import _pickle as pickle  # the module around it takes several times as long to import

from shoal._engine import speak_through
from shoal.reports import streams
from shoal.reports.levels import Board, levels
from shoal.reports.warned import portable_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal.reports.levels import Levels

    # What workers are told: levels of loggers as they are and the board on which they stand later, filters of warnings
    # (None: they are not wanted), what becomes of output.
    Settings = tuple[tuple[Levels | None, bytes] | None, list[tuple[Any, ...]] | None, str]

__all__ = ["listen"]


def listen(logs: bool, warnings: bool, output: bool) -> tuple[Settings, Board | None]:
    """Hear what the workers of a new pool say, from now on.

    Args:
        logs: whether records are wanted.
        warnings: whether warnings are.
        output: whether what they print is.

    Returns:
        What they are to be told; and the board that the pool keeps, on which they find the levels when these change.

    Raises:
        TypeError: one of them is neither True nor False.
    """
    for name, wanted in (("logs", logs), ("warnings", warnings), ("output", output)):
        if not isinstance(wanted, bool):
            raise TypeError(f"{name} must be True or False, not {wanted!r}")
    speak_through("reports", _hear)
    streams.listen()
    board = Board.make() if logs else None
    told = None if board is None else (levels(), board.handle)
    filters = portable_filters() if warnings else None
    return (told, filters, streams.way_of(output)), board


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
