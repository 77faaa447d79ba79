"""The worker's side: what is changed in its interpreter, before anything of the user's runs there."""

from __future__ import annotations

import sys

from shoal._imports import when_imported
from shoal.reports import streams, warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shoal._engine import Reporter
    from shoal.reports.client import Settings

__all__ = ["settle"]


def settle(reporter: Reporter, number: int, settings: Settings) -> None:
    """From now on this worker tells its client what it logs, warns of and prints, as far as that is wanted.

    Args:
        reporter: the way to the client.
        number: the worker's place in its pool.
        settings: what `client.listen` returned there.
    """
    levels, filters, output = settings
    streams.settle(reporter, output)
    warned.settle(reporter, filters)

    def settle_logging() -> None:
        from shoal.reports import records

        records.settle(reporter, f"shoal-worker-{number}", levels)

    # Most workers never log: it takes milliseconds to import.
    if "logging" in sys.modules:
        settle_logging()
    else:
        when_imported("logging", settle_logging)
