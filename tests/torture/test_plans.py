"""A seed plans the same again: what a life is like, and what all in it want to do."""

import os
import random
import subprocess
import sys

from torture.acts import ACTS
from torture.life import turns
from torture.world import Plan

SEEDS = [f"seed/{number}" for number in range(50)]


def test_a_seed_is_the_same_plan_in_every_process() -> None:
    source = "import sys; from torture.world import Plan; print([str(Plan.draw(seed)) for seed in sys.argv[1:]])"
    for hashes in ("1", "2"):
        command = [sys.executable, "-c", source, *SEEDS]
        printed = subprocess.check_output(command, text=True, env={**os.environ, "PYTHONHASHSEED": hashes})
        assert printed.strip() == str([str(Plan.draw(seed)) for seed in SEEDS])


def test_plans_differ_and_everything_is_planned_sometimes() -> None:
    plans = [Plan.draw(f"{seed}/{number}") for seed in SEEDS for number in range(4)]
    assert len(set(plans)) == len(plans)
    for what in ("kills", "zygotes", "stops", "pressed", "poor", "idle", "most", "visited", "violent", "edge"):
        assert {bool(getattr(plan, what)) for plan in plans} == {False, True}, what


def test_what_comes_of_an_act_does_not_change_the_next() -> None:
    calm, wild = turns(random.Random("seed")), turns(random.Random("seed"))
    seen = set()
    for number in range(200):
        (act, dice), (same, other) = next(calm), next(wild)
        assert act is same
        seen.add(act)
        assert dice.random() == other.random()
        # One throws them more often than the other.
        for _ in range(number % 3):
            other.random()
    assert seen == set(ACTS)
