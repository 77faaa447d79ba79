"""At the edge of memory: who takes more than there is."""

from __future__ import annotations

import random

import shoal

from .. import tasks
from ..world import LIMIT, World, check


def gluttons(world: World, dice: random.Random) -> None:
    """The kernel ends them, and the error says so; all others live on."""
    if world.group is None:
        return
    sent = []
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        slot = world.slot()
        result = world.outcome(lambda slot=slot: world.pool.apply_async(tasks.gorge, (world.begun, slot)))
        if not isinstance(result, Exception):
            sent.append((slot, result))
    for slot, result in sent:
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT))
        check(isinstance(ended, Exception), "there is no end of memory")
        check(int(world.begun[slot]) <= 1, "begun twice")
        if isinstance(ended, shoal.WorkerDied):
            check(ended.task.startswith("gorge("), f"it was at {ended.task}")
