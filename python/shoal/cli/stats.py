"""What `shoal run --stats` prints at the end: where the time of each pool's workers went."""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Callable

from shoal import _engine, pool
from shoal.insight.stats import PoolStats, of_pool


def collect() -> None:
    """Remember the pools that are made from now on, and print what they did when the program ends."""
    made: list[Callable[[], PoolStats]] = []

    def remember(new: pool.Pool) -> None:
        # Not the pool itself: one that is forgotten ends.
        if isinstance(new._base, _engine.PoolBase):
            made.append(functools.partial(of_pool, new._base))
        elif pool.default_cluster is not None:
            from shoal.cluster.nodes import Nodes
            from shoal.cluster.spent import of_nodes

            if isinstance(new._base, Nodes):
                made.append(functools.partial(of_nodes, new._base))

    pool._watchers.append(remember)
    # Registered after the pools' own end, so called before it.
    atexit.register(_print, made)


def _print(made: list[Callable[[], PoolStats]]) -> None:
    for number, ask in enumerate(made, 1):
        stats = ask()
        print(f"shoal: pool {number} of {len(stats.workers)} workers\n{stats}", file=sys.stderr)
