"""Pools that come and go, and pools in pools."""

from __future__ import annotations

import random

import shoal

from .. import tasks
from ..world import LIMIT, World, check


def pools(world: World, dice: random.Random) -> None:
    """However a pool ends, its tasks do."""
    pool = world.outcome(lambda: world.new_pool(dice.randint(1, 4)))
    if isinstance(pool, Exception):
        return
    sent = []
    for _ in range(dice.randint(0, 30)):
        slot = world.slot()
        call = (world.begun, slot, dice.choice([0, 0, 0.005]))
        result = world.outcome(lambda call=call: pool.apply_async(tasks.nap, call), may=(shoal.PoolClosed,))
        if not isinstance(result, Exception):
            sent.append((slot, result))
    way = dice.choice(["close", "terminate", "drop"])
    if way == "close":
        pool.close()
    elif way == "terminate":
        pool.terminate()
    may = () if way == "close" else (shoal.PoolClosed,)
    if way == "drop":
        with pool:
            pass
    for slot, result in sent:
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT), may=may)
        check(int(world.begun[slot]) <= 1, "begun twice")
        check(isinstance(ended, Exception) or ended == slot, f"{ended!r} instead of {slot}")
    pool.join()
    world.tell(f"pools: {way}")


def bombs(world: World, dice: random.Random) -> None:
    """A task's pool whose tasks have pools."""
    items = range(dice.randint(1, 100))
    slot, depth = world.slot(), dice.choice([1, 1, 2])
    result = world.outcome(lambda: world.pool.apply_async(tasks.nested, (world.begun, slot, depth, items)))
    if isinstance(result, Exception):
        return
    ended = world.outcome(lambda: result.get(timeout=LIMIT))
    if not isinstance(ended, Exception):
        check(ended == sum(n * n for n in items), f"a nested pool's sum is {ended}")
