"""The referee: starts lives, kills some, and looks whether anything is left of them.

    python -m torture [--seconds 120] [--seed SEED] [--life SEED/N]

A seed determines what is planned, for all who play and all who haunt them; when the machine lets which of them go on is
its own affair. Ends with 1 at the first thing that must not happen, and tells the story.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .evils import send
from .group import Group
from .world import LIMIT, Plan

# The environment of all processes of a life says whose they are.
MARK = "SHOAL_TORTURE"
# Bytes of memory that a life at the edge has: enough for all that it does, but for its gluttons.
LITTLE = 768 << 20
# Characters of a life's last words that the verdict repeats.
BRIEF = 600


class Referee:
    """One run of the torture."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        # What must not happen and did, in a few lines: said at the very end, where a log that is cut still has it.
        self.verdict = "all is well"

    def run(self, seconds: float) -> bool:
        """Starts lives until the time is over; whether all was well."""
        until, number = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            if not self.life(f"{self.seed}/{number}", left):
                return False
            number += 1
        return True

    def life(self, seed: str, most: float) -> bool:
        """One life, of so many seconds at most; whether all was well."""
        plan, mark = Plan.draw(seed), f"{os.getpid()}-{seed}"
        print(f"{seed}: {plan}", flush=True)
        self.counts["lives"] += 1
        group = Group.make(f"shoal-torture-{os.getpid()}-{self.counts['lives']}", LITTLE) if plan.edge else None
        try:
            return self.watch(seed, plan, mark, group, most)
        finally:
            # One that was cut off, or judged, goes with all that is left of it.
            for pid in marked(mark):
                send(pid, signal.SIGKILL)
            if group is not None:
                group.remove(LIMIT)

    def watch(self, seed: str, plan: Plan, mark: str, group: Group | None, most: float) -> bool:
        """Starts a life, ends it if that is planned, and judges its end and what is left; whether all was well."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            command = [sys.executable, "-W", "error", "-m", "torture.life", seed]
            if group is not None:
                self.counts["lives at the edge of memory"] += 1
                command += [str(group.path), group.events]
            process = subprocess.Popen(
                command,
                stdout=told,
                stderr=said,
                env={**os.environ, MARK: mark},
                preexec_fn=None if group is None else group.enter,
            )
            try:
                if plan.violent:
                    time.sleep(min(most, random.Random(f"{seed} ends").uniform(0, plan.seconds)))
                    process.kill()
                    self.counts["clients killed"] += 1
                code = process.wait(plan.seconds + 4 * LIMIT)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                process.wait()
                code = None
            said.seek(0)
            words = said.read().decode(errors="replace")
            told.seek(0)
            lines = told.read().decode().splitlines()
        # At the edge of memory it may be this life whom the kernel takes: when it has just killed all that were larger,
        # and has not got their memory yet.
        kills = 0 if group is None else group.kills()
        taken = code == -signal.SIGKILL and kills > 0
        self.counts["clients killed by the kernel"] += taken
        if code is None or (code != 0 and not plan.violent and not taken) or "panicked at" in words:
            print(f"\n{words}")
            panic = words.partition("panicked at")[2]
            return self.fail(seed, f"ended with {code}: {panic[:BRIEF] or words[-BRIEF:]}")
        if left := leftovers(mark):
            return self.fail(seed, f"left these processes: {left}")
        self.counts["killed by the kernel"] += kills
        if lines:
            self.counts.update(json.loads(lines[-1]))
        return True

    def fail(self, seed: str, what: str) -> bool:
        """Keeps the verdict; False."""
        self.verdict = f"NOT WELL. The life {seed} {what}\nOnce more: make torture LIFE={seed}"
        return False


def leftovers(mark: str) -> dict[int, str]:
    """The processes of that mark, which have some time to end."""
    until = time.monotonic() + LIMIT
    while (left := marked(mark)) and time.monotonic() < until:
        for pid, name in left.items():
            # A life that was killed itself may have stopped it. What is shoal's has to end nevertheless.
            if "-m torture." in name:
                send(pid, signal.SIGCONT)
        time.sleep(0.01)
    return {pid: name[:100] for pid, name in left.items()}


def marked(mark: str) -> dict[int, str]:
    """The processes with that mark in their environment, and what they are called."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Processes come and go, and those of others can't be looked at.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def main() -> int:
    """Tortures, prints a table, returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long lives are started. Default: 120")
    parser.add_argument("--seed", help="what everything is drawn from. Default: another one each time")
    parser.add_argument("--life", metavar="SEED/N", help="this one life, again and again")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    referee, began = Referee(seed), time.monotonic()
    if options.life:
        well = True
        while well and time.monotonic() - began < options.seconds:
            well = referee.life(options.life, options.seconds)
    else:
        well = referee.run(options.seconds)
    width = max(map(len, referee.counts))
    print()
    for name, count in sorted(referee.counts.items()):
        print(f"  {name:{width}}  {count:>10}")
    print(f"\n{time.monotonic() - began:.0f} s, seed {seed}: {referee.verdict}")
    return not well


if __name__ == "__main__":
    sys.exit(main())
