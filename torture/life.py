"""A life: a pool, players who know what must come of what they do, and evils. At its end nothing may be left.

python -m torture.life SEED [GROUP]    (what the seed's plan says; the counts are its last line)
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

import shoal
from shoal._engine import pool_depth

from . import tasks
from .acts import ACTS, Act
from .evils import evils
from .group import Group
from .ledger import HEADER, Balance, balance, opened
from .world import LIMIT, Plan, World

PLAYERS = 3


class Life:
    """One life, from its plan to its end."""

    def __init__(self, plan: Plan, group: Group | None) -> None:
        self.before = self.warm_up()
        self.world = World(plan, group)
        self.acting: dict[str, tuple[float, str]] = {}

    @staticmethod
    def warm_up() -> Balance:
        """What a program that has had a pool takes."""
        # What is imported where it is first used is there by then: evils may leave no descriptor to read it with.
        for name in shoal.__all__:
            if name != "joblib":
                getattr(shoal, name)
        with shoal.Pool(2) as pool:
            pool.map(tasks.square, range(10))
            with contextlib.suppress(shoal.WorkerDied):
                pool.apply(os._exit, (1,))
        pool.join()
        return balance()

    def live(self) -> None:
        """Plays until the time is over, or something happens that must not."""
        world = self.world
        dice = random.Random(world.plan.seed)
        players = [self.start(self.play, random.Random(dice.random()), n) for n in range(PLAYERS)]
        haunting = [self.start(evil, world, random.Random(dice.random())) for evil in evils(world)]
        until = time.monotonic() + world.plan.seconds
        while time.monotonic() < until:
            time.sleep(0.05)
            self.look()
        world.over.set()
        for thread in (*haunting, *players):
            while thread.is_alive():
                thread.join(0.05)
                self.look()
        self.end()

    def start(self, what: Callable[..., object], *arguments: object) -> threading.Thread:
        """Has something run that ends the process if it goes wrong."""

        def run() -> None:
            try:
                what(*arguments)
            except BaseException:
                self.give_up(traceback.format_exc())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def play(self, dice: random.Random, number: int) -> None:
        """Does one thing after another."""
        for act, own in turns(dice):
            if self.world.over.is_set():
                break
            self.acting[f"player {number}"] = time.monotonic(), act.__name__
            try:
                act(self.world, own)
            except Exception as error:
                # What the evils bring about may meet a player at any place.
                if self.world.excuse(error) is None:
                    raise
                self.world.tell("acts broken off")
            del self.acting[f"player {number}"]
            self.world.tell(act.__name__)

    def look(self) -> None:
        """Nobody may take too long."""
        for who, (since, what) in list(self.acting.items()):
            if time.monotonic() - since > 2 * LIMIT:
                self.give_up(f"{who} hangs in {what}")

    def end(self) -> None:
        """All is given back."""
        world = self.world
        world.pool.terminate()
        world.pool.join()
        counts = dict(world.counts)
        del world.begun
        # What a handle names that was pickled for somebody else is kept for half a minute, and until the next one.
        kept = counts.get("held by handles", 0)
        deadline = time.monotonic() + LIMIT
        while True:
            # What errors and threads refer to in circles is dropped here.
            gc.collect()
            left: Balance | Exception
            try:
                left = balance()
            except (OSError, psutil.Error) as error:
                # A zygote ended while it was looked at.
                left = error
            if isinstance(left, Balance) and self.is_as_before(left, kept):
                break
            if time.monotonic() > deadline:
                self.give_up(f"{opened()}\nsomething is left:\n{HEADER}\n{self.before}\n{left}")
            time.sleep(0.02)
        print(json.dumps(counts), flush=True)

    def is_as_before(self, left: Balance, kept: int) -> bool:
        """Whether no more is left than there was, and so many leases. A zygote that nobody needed may be missing."""
        before = self.before
        few = left.processes <= before.processes and left.descriptors <= before.descriptors
        return few and left.leases <= before.leases + kept

    def give_up(self, why: str) -> None:
        """Tells the story, and ends this process."""
        try:
            processes: object = [(child.pid, child.status()) for child in psutil.Process().children(recursive=True)]
        except (OSError, psutil.Error) as error:
            processes = error
        print(
            f"{why}\n\nThe plan: {self.world.plan}\nActing: {self.acting}\n{dict(self.world.counts)}",
            f"Processes: {processes}",
            f"Tasks, queued and under way: {pool_depth(self.world.pool._base)}",
            self.world.story(),
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        # Once more, as the last words.
        print(f"\n{why.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
        os._exit(1)


def turns(dice: random.Random) -> Iterator[tuple[Act, random.Random]]:
    """What a player does, one act after another; each has dice of its own, so the next does not depend on its end."""
    while True:
        yield dice.choice(ACTS), random.Random(dice.random())


def main() -> int:
    """Lives; returns the exit status."""
    seed, *group = sys.argv[1:]
    Life(Plan.draw(seed), Group(Path(group[0]), group[1]) if group else None).live()
    return 0


if __name__ == "__main__":
    sys.exit(main())
