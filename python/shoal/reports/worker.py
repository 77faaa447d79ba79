"""The worker's side: what is changed in its interpreter, before anything of the user's runs there."""

from __future__ import annotations

import sys

from shoal._imports import when_imported
from shoal.reports import streams, warned
from shoal.reports.levels import set_levels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal._engine import Reporter
    from shoal.reports.client import Settings
    from shoal.reports.levels import Levels

__all__ = ["settle"]


def settle(reporter: Reporter, number: int, settings: Settings) -> Callable[[], None]:
    """From now on this worker tells its client what it logs, warns of and prints, as far as that is wanted.

    Returns:
        What to call when the client gives notice that levels have changed.

    Args:
        reporter: the way to the client.
        number: the worker's place in its pool.
        settings: what `client.listen` returned there.
    """
    board, filters, output = settings
    streams.settle(reporter, output)
    warned.settle(reporter, filters)

    def settle_logging() -> None:
        from shoal.reports import records

        records.settle(None if board is None else records.Forwarding(reporter, f"shoal-worker-{number}"))
        read_levels()

    known: Levels | None = None

    def read_levels() -> None:
        nonlocal known
        now = board.read() if board is not None and "logging" in sys.modules else None
        if now is not None:
            set_levels(now, known)
            known = now

    # Most workers never log: it takes milliseconds to import.
    if "logging" in sys.modules:
        settle_logging()
    else:
        when_imported("logging", settle_logging)
    return read_levels
