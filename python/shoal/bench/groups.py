"""The figures: their groups, those of a brief run, and how people choose among them."""

import argparse
from collections.abc import Collection, Mapping, Sequence

from . import arguments, faults, jobs, latency, queues, results, startup, sync, throughput
from .harness import Measurement
from .peers import PEERS

# In the order in which they are shown.
GROUPS: dict[str, Sequence[Measurement]] = {
    "jobs": jobs.MEASUREMENTS,
    "latency": latency.MEASUREMENTS,
    "throughput": throughput.MEASUREMENTS,
    "startup": startup.MEASUREMENTS,
    "arguments": arguments.MEASUREMENTS,
    "results": results.MEASUREMENTS,
    "queues": queues.MEASUREMENTS,
    "sync": sync.MEASUREMENTS,
    "faults": faults.MEASUREMENTS,
}
MEASUREMENTS = {measurement.key: measurement for group in GROUPS.values() for measurement in group}

BRIEF = (
    "job-python",
    "round-trip",
    "one-by-one",
    "map-1",
    "map-default",
    "first-result",
    "argument-100mb",
    "argument-shared",
    "result-64mb",
    "queue-small",
    "queue-array",
    "lock",
    "lock-contended",
    "counter",
    "event-asleep",
    "death-seen",
)
"""What a run of about a minute has: of each kind the figure that most programs meet."""


def figures(text: str, groups: Mapping[str, Sequence[Measurement]]) -> Collection[str]:
    """The keys of the figures and of the groups of figures that `text` names, by commas.

    Raises:
        argparse.ArgumentTypeError: there is no such figure or group.
    """
    known = {measurement.key: [measurement.key] for group in groups.values() for measurement in group}
    known |= {name: [measurement.key for measurement in group] for name, group in groups.items()}
    return {key for name in _names(text, known, "figure") for key in known[name]}


def tools(text: str) -> Sequence[str]:
    """The tools that `text` names, by commas.

    Raises:
        argparse.ArgumentTypeError: there is no such tool.
    """
    return _names(text, PEERS, "tool")


def _names(text: str, known: Collection[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {what} is called {name!r}; there are {', '.join(known)}")
    if not names:
        raise argparse.ArgumentTypeError(f"must name a {what}; there are {', '.join(known)}")
    return names
