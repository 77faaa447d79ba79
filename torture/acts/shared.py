"""Shared things in the hands of workers that die: arrays, counters, locks, queues."""

from __future__ import annotations

import random
from queue import Empty

import numpy as np

import shoal

from .. import tasks
from ..world import LIMIT, World, check
from .calls import size


def arrays(world: World, dice: random.Random) -> None:
    """What a task has written before it ended is there; nothing else is touched."""
    parts, length = dice.randint(1, 8), size(dice) // 8 + 1
    shared = world.outcome(lambda: shoal.full((parts, length), -1, dtype=np.int64))
    if isinstance(shared, Exception):
        return
    sent = [
        world.outcome(lambda n=n: world.pool.apply_async(tasks.fill, (shared[n], n)))
        for n in range(parts)
        if dice.random() < 0.8 or n == 0
    ]
    for n, result in enumerate(sent):
        if isinstance(result, Exception):
            continue
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT))
        if not isinstance(ended, Exception):
            check((shared[ended] == ended).all(), f"part {n} is not as task {ended} left it")
    check(bool(np.isin(shared, [-1, *range(parts)]).all()), "what nobody wrote lies in an array")


def counters(world: World, dice: random.Random) -> None:
    """Counted is what was told, and no more than was asked for."""
    counter = world.outcome(shoal.Counter)
    if isinstance(counter, Exception):
        return
    sent, asked, told = [], 0, 0
    for _ in range(dice.randint(1, 10)):
        times = dice.randint(1, 1000)
        result = world.outcome(lambda times=times: world.pool.apply_async(tasks.add, (counter, times)))
        if not isinstance(result, Exception):
            asked += times
            sent.append(result)
    for result in sent:
        ended = world.outcome(lambda result=result: result.get(timeout=LIMIT))
        told += 0 if isinstance(ended, Exception) else ended
    check(told <= counter.value <= asked, f"{told} were told, {counter.value} counted, {asked} asked for")


def locks(world: World, dice: random.Random) -> None:
    """One is inside at a time; who dies inside is known by the next."""
    lock = world.outcome(lambda: dice.choice([shoal.Lock, shoal.RLock])())
    room = world.outcome(lambda: shoal.zeros(3, dtype=np.int64))
    if isinstance(lock, Exception) or isinstance(room, Exception):
        return
    sent = [
        world.outcome(lambda: world.pool.apply_async(tasks.enter, (lock, room, dice.randint(1, 300))))
        for _ in range(dice.randint(1, 6))
    ]
    for result in sent:
        if not isinstance(result, Exception):
            world.outcome(lambda result=result: result.get(timeout=LIMIT))
    check(lock.acquire(timeout=LIMIT), "a lock does not come back")
    lock.release()


def queues(world: World, dice: random.Random) -> None:
    """No item is there twice, none is lost but with the consumer that had it in hand, each producer's are in order."""
    made = world.outcome(lambda: (shoal.Queue(dice.choice([0, 0, 10])), shoal.zeros(8, dtype=np.int64)))
    taken = world.outcome(lambda: shoal.zeros((8, 200), dtype=np.int32))
    if isinstance(made, Exception) or isinstance(taken, Exception):
        return
    queue, done = made
    producers, count, length = dice.randint(1, 4), dice.randint(1, 200), size(dice) % 200_000
    sent = []
    for n in range(max(producers, dice.randint(1, 4))):
        if n < producers:
            arguments = (queue, done, n, count, length)
            sent.append(
                world.outcome(lambda call=arguments: world.pool.apply_async(tasks.produce, call, timeout=LIMIT))
            )
        sent.append(world.outcome(lambda: world.pool.apply_async(tasks.consume, (queue, taken, 200))))
    # Whatever becomes of the consumers, producers of a short queue must not wait for ever.
    deaths, order = 0, dict.fromkeys(range(producers), -1)
    waiting = [result for result in sent if not isinstance(result, Exception)]
    while waiting:
        deaths += take(world, queue, taken, order, 0.02)
        for result in [result for result in waiting if result.ready()]:
            waiting.remove(result)
            deaths += isinstance(world.outcome(lambda result=result: result.get(timeout=LIMIT)), Exception)
    while queue.qsize() or not queue.empty():
        deaths += take(world, queue, taken, order, 1)
    check(int(taken.max()) <= 1, "an item was taken twice")
    lost = sum(int((taken[n, : int(done[n])] == 0).sum()) for n in range(producers))
    check(lost <= deaths, f"{lost} items were lost with {deaths} deaths")
    world.tell("items", int(taken.sum()))


def take(world: World, queue: shoal.Queue, taken: np.ndarray, order: dict[int, int], patience: float) -> bool:
    """Takes an item here, in the client, if one comes. Whether one may be lost: nothing was left to read it with."""
    item = world.outcome(lambda: queue.get(timeout=patience), may=(Empty,))
    if isinstance(item, Exception):
        return not isinstance(item, Empty)
    producer, number, payload = item
    check(number > order[producer], f"item {number} of producer {producer} comes after {order[producer]}")
    order[producer] = number
    if isinstance(payload, np.ndarray):
        check(bool((payload == number).all()), f"item {number} of producer {producer} is damaged")
    taken[producer, number] += 1
    return False
