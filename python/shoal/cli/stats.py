"""What `shoal run --stats` prints at the end: where the time of each pool's workers went."""

from __future__ import annotations

import atexit
import sys

from shoal import _engine, pool
from shoal.insight.stats import of_pool


def collect() -> None:
    """Remember the pools that are made from now on, and print what they did when the program ends."""
    made: list[_engine.PoolBase] = []

    def remember(new: pool.Pool) -> None:
        if isinstance(new._base, _engine.PoolBase):
            made.append(new._base)

    pool._watchers.append(remember)
    # Registered after the pools' own end, so called before it.
    atexit.register(_print, made)


def _print(made: list[_engine.PoolBase]) -> None:
    for number, base in enumerate(made, 1):
        print(f"shoal: pool {number} of {base.size} workers\n{of_pool(base)}", file=sys.stderr)
