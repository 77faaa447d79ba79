"""What is done to the processes of a life, each by a thread of its own, until it is over."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator

import psutil

import shoal

from .world import World

Evil = Callable[[World, random.Random], None]

# Descriptors that a poor life may have.
FEW = 300


def evils(world: World) -> Iterator[Evil]:
    """Those that its plan has."""
    if world.plan.kills:
        yield kill
    if world.plan.stops:
        yield stop
    if world.plan.pressed:
        yield press
    if world.plan.poor:
        yield hoard


def kill(world: World, dice: random.Random) -> None:
    """Kills processes, whatever they are at."""
    while world.sleep(dice.expovariate(world.plan.kills)):
        spare = dice.random() < 0.9
        victim = pick(dice)
        if victim is None:
            continue
        if is_zygote(victim.pid):
            # Seldom, or none would ever get ready.
            if not world.plan.zygotes or spare:
                continue
            world.zygote_killed = True
            world.tell("zygotes killed")
        world.victims.add(victim.pid)
        world.note(f"kill {victim.pid}")
        send(victim.pid, signal.SIGKILL)
        world.tell("kills")


def stop(world: World, dice: random.Random) -> None:
    """Stops processes, and lets them go on a moment later."""
    while world.sleep(dice.expovariate(world.plan.stops)):
        moment = dice.expovariate(10)
        victim = pick(dice)
        if victim is None:
            continue
        world.note(f"stop {victim.pid}")
        send(victim.pid, signal.SIGSTOP)
        try:
            world.sleep(moment)
        finally:
            # Whoever bears its number by now does not mind.
            send(victim.pid, signal.SIGCONT)
        world.tell("stops")


def press(world: World, dice: random.Random) -> None:
    """Takes memory away for a moment."""
    while world.sleep(dice.expovariate(2)):
        least = shoal.memory().bytes
        limit = max(1, int(least * dice.uniform(0.2, 1.2)))
        world.note(f"{limit} bytes at most")
        shoal.memory_limit(limit)
        try:
            world.sleep(dice.expovariate(5))
        finally:
            shoal.memory_limit(None)
        world.tell("memory taken away")


def hoard(world: World, dice: random.Random) -> None:
    """Takes all descriptors for a moment, or leaves a few."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FEW, most[1]), most[1]))
    try:
        while world.sleep(dice.expovariate(2)):
            hoarded = []
            try:
                with contextlib.suppress(OSError):
                    while True:
                        hoarded.append(os.open(os.devnull, os.O_RDONLY))
                left = dice.choice([0, 0, 1, 3, 10])
                world.note(f"{left} descriptors are left")
                for _ in range(min(left, len(hoarded))):
                    os.close(hoarded.pop())
                world.sleep(dice.expovariate(10))
            finally:
                for descriptor in hoarded:
                    os.close(descriptor)
            world.tell("descriptors taken away")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


def pick(dice: random.Random) -> psutil.Process | None:
    """One of the processes that descend from this one, if there are any. However many, the dice are thrown once."""
    share = dice.random()
    try:
        descendants = psutil.Process().children(recursive=True)
    except (psutil.Error, OSError):
        return None
    return descendants[int(share * len(descendants))] if descendants else None


def is_zygote(pid: int) -> bool:
    """Whether that is a zygote: of all that are called so, the one that leads their group."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def send(pid: int, what: signal.Signals) -> None:
    """Sends a signal, to whoever is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)
