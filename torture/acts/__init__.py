"""What players do: each act takes the world and dice, and raises if something is not as it must be."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..world import World
from .calls import calls, cancels, retries, timeouts
from .edge import gluttons
from .maps import maps, streams
from .pools import bombs, pools
from .shared import arrays, counters, locks, queues
from .visits import visits

Act = Callable[[World, random.Random], None]

ACTS: tuple[Act, ...] = (
    calls,
    calls,
    retries,
    timeouts,
    cancels,
    maps,
    streams,
    queues,
    locks,
    arrays,
    counters,
    pools,
    bombs,
    visits,
    gluttons,
)
