"""Single calls: with arguments and results of all sizes, tried again, stopped in time, cancelled."""

from __future__ import annotations

import random
from concurrent.futures import CancelledError

import shoal

from .. import tasks
from ..world import LIMIT, World, check


def size(dice: random.Random) -> int:
    """Bytes: mostly few, sometimes millions."""
    return int(2 ** dice.uniform(0, dice.choice([8, 14, 22])))


def calls(world: World, dice: random.Random) -> None:
    """Each gives back what it must, and was begun once at most."""
    sent = []
    for _ in range(dice.randint(1, 60)):
        slot, kind, length = world.slot(), dice.choice(tasks.KINDS), size(dice)
        given = tasks.thing(dice.choice(tasks.KINDS), size(dice), slot)
        arguments = (world.begun, slot, given, kind, length)
        result = world.outcome(lambda arguments=arguments: world.pool.apply_async(tasks.answer, arguments))
        if not isinstance(result, Exception):
            sent.append((slot, kind, length, result))
    for slot, kind, length, result in sent:
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT))
        begun = int(world.begun[slot])
        check(begun <= 1, f"a call was begun {begun} times")
        if not isinstance(ended, Exception):
            check(begun == 1, "a call that was never begun has a result")
            check(
                tasks.same(ended, tasks.thing(kind, length, slot)), f"{kind} of {length} bytes came back as {ended!r}"
            )


def retries(world: World, dice: random.Random) -> None:
    """As often as its terms say, and no more."""
    sent = []
    for _ in range(dice.randint(1, 20)):
        slot, failures, most = world.slot(), dice.choice([0, 0, 1, 2]), dice.randint(0, 4)
        terms = {"retries": most, "retry_on": ConnectionError, "retry_delay": dice.choice([0, 0, 0.01])}
        arguments = (world.begun, slot, failures)
        result = world.outcome(
            lambda arguments=arguments, terms=terms: world.pool.apply_async(tasks.fail_at_first, arguments, **terms)
        )
        if not isinstance(result, Exception):
            sent.append((slot, failures, most, result))
    for slot, failures, most, result in sent:
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT), may=(ConnectionError,))
        begun = int(world.begun[slot])
        check(begun <= most + 1, f"begun {begun} times, with {most} retries")
        if isinstance(ended, ConnectionError):
            check(begun <= failures, f"failed, though it was begun {begun} times and fails {failures} times")
        elif isinstance(ended, shoal.WorkerDied):
            check(ended.tries == most + 1, f"given up after {ended.tries} tries, with {most} retries")
        elif not isinstance(ended, Exception):
            check(ended == begun == failures + 1 or ended == begun > failures, f"{ended} of {begun} after {failures}")


def timeouts(world: World, dice: random.Random) -> None:
    """What sleeps for ever is stopped, what has time enough is not."""
    sent = []
    for _ in range(dice.randint(1, 6)):
        slot = world.slot()
        seconds, limit = dice.choice([(3600, 0.02), (3600, 0.2), (0, LIMIT), (0.02, 0.02)])
        arguments = (world.begun, slot, seconds)
        result = world.outcome(
            lambda arguments=arguments, limit=limit: world.pool.apply_async(tasks.nap, arguments, timeout=limit)
        )
        if not isinstance(result, Exception):
            sent.append((slot, seconds, limit, result))
    for slot, seconds, limit, result in sent:
        may = (shoal.TaskTimeout,) if limit <= seconds else ()
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT), may=may)
        check(int(world.begun[slot]) <= 1, "begun twice")
        if not isinstance(ended, Exception):
            check(ended == slot and seconds < 3600, "it sleeps for ever")


def cancels(world: World, dice: random.Random) -> None:
    """What is cancelled in the queue never runs; what is not, ends as ever."""
    sent = []
    for _ in range(dice.randint(1, 40)):
        slot = world.slot()
        arguments = (world.begun, slot, dice.choice([0, 0.001, 0.02]))
        result = world.outcome(lambda arguments=arguments: world.pool.apply_async(tasks.nap, arguments))
        if not isinstance(result, Exception):
            sent.append((slot, result))
    cancelled = {}
    for slot, result in sent:
        if dice.random() < 0.5:
            running = dice.random() < 0.3
            if result.cancel(running=running):
                cancelled[slot] = running
    for slot, result in sent:
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT), may=(CancelledError,))
        begun = int(world.begun[slot])
        check(begun <= 1, "begun twice")
        check(isinstance(ended, CancelledError) == (slot in cancelled), f"cancelled, and ended as {ended!r}")
        if cancelled.get(slot) is False:
            check(begun == 0, "it was cancelled in the queue, and runs")
