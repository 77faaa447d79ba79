"""The worker's side: what is changed in its interpreter, before anything of the user's runs there."""

from __future__ import annotations

import _pickle as pickle
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


def settle(reporter: Reporter, number: int, settings: Settings) -> Callable[[bytes], None]:
    """From now on this worker tells its client what it logs, warns of and prints, as far as that is wanted.

    Returns:
        What to call with the client's notice that levels have changed.

    Args:
        reporter: the way to the client.
        number: the worker's place in its pool.
        settings: what `client.listen` returned there.
    """
    logs, wanted, filters, output = settings
    streams.settle(reporter, output)
    warned.settle(reporter, filters)
    known: Levels | None = None

    def settle_logging() -> None:
        from shoal.reports import records

        records.settle(records.Forwarding(reporter, f"shoal-worker-{number}") if logs else None)
        set_known_levels()

    def set_known_levels() -> None:
        nonlocal known
        if wanted is not None and "logging" in sys.modules:
            set_levels(wanted, known)
            known = wanted

    def take_notice(notice: bytes) -> None:
        nonlocal wanted
        told = _levels_in(notice)
        if told is not None:
            wanted = told
            set_known_levels()

    # Most workers never log: it takes milliseconds to import.
    if "logging" in sys.modules:
        settle_logging()
    else:
        when_imported("logging", settle_logging)
    return take_notice


def _levels_in(notice: bytes) -> Levels | None:
    """What the client has left; None if somebody has written over it: levels are not worth the end of a worker."""
    try:
        disabled, own = told = pickle.loads(notice)
        sound = type(disabled) is int and all(type(name) is str and type(own[name]) is int for name in own)
    except Exception:  # bytes of any kind raise any kind
        return None
    return told if sound else None
