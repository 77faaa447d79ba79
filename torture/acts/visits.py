"""Processes that are no workers and were given handles: they use what is shared, and are killed."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import numpy as np

import shoal

from ..world import LIMIT, World, check


def visits(world: World, dice: random.Random) -> None:
    """What a guest has told is so; when it is dead, its lock is free and its permit is back."""
    if not world.plan.visited:
        return
    things = world.outcome(
        lambda: (shoal.Lock(), shoal.Semaphore(1), shoal.Counter(), shoal.Queue(), shoal.full(1000, 7.0))
    )
    if isinstance(things, Exception):
        return
    lock, permit, counter, queue, given = things
    guest = world.outcome(
        lambda: subprocess.Popen(
            [sys.executable, "-m", "torture.guest"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if world.is_short else None,
        )
    )
    if isinstance(guest, Exception):
        return
    told = 0
    try:
        assert guest.stdin is not None and guest.stdout is not None
        try:
            # And the chunk that lies in the queue.
            world.tell("held by handles", len(things) + 1)
            pickle.dump(things, guest.stdin)
            guest.stdin.flush()
            for _ in range(dice.randint(0, 20)):
                line = guest.stdout.readline()
                if not line:
                    break
                told = int(line)
        except BrokenPipeError:
            pass
        if dice.random() < 0.7:
            world.victims.add(guest.pid)
            guest.kill()
            world.tell("guests killed")
    finally:
        for pipe in (guest.stdin, guest.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        try:
            code = guest.wait(LIMIT)
        except subprocess.TimeoutExpired:
            guest.kill()
            guest.wait()
            raise
    check(code in (0, -9) or world.is_short, f"a guest ended with {code}")
    check(counter.value >= told, f"a guest told {told}, and counted {counter.value}")
    check(lock.acquire(timeout=LIMIT), "a dead guest keeps its lock")
    lock.release()
    check(permit.acquire(timeout=LIMIT), "a dead guest keeps its permit")
    permit.release()
    check(queue.qsize() >= told, f"a guest told {told}, and {queue.qsize()} items lie there")
    for n in range(queue.qsize()):
        number, payload = queue.get(timeout=LIMIT)
        check(number == n + 1 and bool((payload == number).all()), f"item {n + 1} of a guest is damaged")
    check(queue.empty(), "more lies in a queue than was put")
    check(bool((np.asarray(given) == 7.0).all()), "an array has changed")
