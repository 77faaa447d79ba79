"""How a figure is measured: every sample in a fresh interpreter, the tools in turn, the median of several rounds.

A fresh interpreter costs a few tenths of a second a sample and keeps the tools apart: no workers, threads or memory of
the one before. A tool that fails or hangs loses its sample and nothing else.
"""

import functools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .clusters import PRIVATE_MARK, PRIVATE_NETWORK
from .peers import PEERS, POOLS, SHOAL
from .sessions import Unsupported

WORKERS = 2
SAMPLE_TIMEOUT_S = 300
ROOT = Path(__file__).parent.parent

Value = float | None


@dataclass(frozen=True)
class Figure:
    """One line of the table. `goal` is a number in `unit`, and the most or the least that is wanted."""

    key: str
    title: str
    unit: str
    higher_is_better: bool
    goal: float | None = None

    @property
    def goal_text(self) -> str:
        """The goal as it is printed."""
        if self.goal is None:
            return "–"
        return f"{'≥' if self.higher_is_better else '≤'} {self.goal:g} {self.unit}"

    def met(self, value: float) -> bool | None:
        """Whether `value` reaches the goal; None if there is none."""
        if self.goal is None:
            return None
        return value >= self.goal if self.higher_is_better else value <= self.goal

    def text(self, value: float) -> str:
        """A value with three significant digits and its unit."""
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{digits}f} {self.unit}"


@dataclass(frozen=True)
class Scale:
    """How much is done: `quick` is for a look, and its figures are rough."""

    quick: bool

    def pick(self, full: int, quick: int) -> int:
        """The number that applies."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Measurement:
    """Takes one sample of one or more figures from one contender: a peer, or one of the `contenders` of its own."""

    figures: tuple[Figure, ...]
    sample: Callable[[str, Scale], Sequence[Value]]
    rounds: int = 5
    contenders: tuple[str, ...] = POOLS

    @property
    def key(self) -> str:
        """The key of its first figure names it."""
        return self.figures[0].key


@dataclass
class Row:
    """A figure and the samples of each contender."""

    figure: Figure
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        """The median of each contender, the best first."""
        found = {name: statistics.median(samples) for name, samples in self.samples.items()}
        return dict(sorted(found.items(), key=lambda entry: entry[1], reverse=self.figure.higher_is_better))


def peer_of(contender: str) -> str:
    """The tool of a contender: `multiprocessing` for `multiprocessing spawn`."""
    return contender.split()[0]


def measure(
    measurement: Measurement, names: Sequence[str], quick: bool, failures: list[str], left_out: list[str]
) -> list[Row]:
    """Measures the contenders whose tool is among `names`, in turn.

    What failed is appended to `failures`, and to `left_out` what a tool has no way to do.
    """
    rows = [Row(figure) for figure in measurement.figures]
    contenders = [name for name in measurement.contenders if peer_of(name) in names]
    for turn in range(1 if quick else measurement.rounds):
        # Another one begins each round, so that nobody always comes after the same neighbour.
        first = turn % max(len(contenders), 1)
        for contender in contenders[first:] + contenders[:first]:
            if turn and peer_of(contender) in PEERS and PEERS[peer_of(contender)].cluster:
                continue
            values, failure = _sample_in_child(measurement.key, contender, quick)
            if isinstance(values, str):
                if (line := f"{measurement.key}, {contender}: {values}") not in left_out:
                    left_out.append(line)
                continue
            if failure is not None:
                failures.append(f"{measurement.key}, {contender}: {failure}")
            for row, value in zip(rows, values, strict=False):
                if value is not None:
                    row.samples.setdefault(contender, []).append(value)
    return rows


def sample_here(measurement: Measurement, contender: str, quick: bool) -> None:
    """The child's part of a sample: measures and prints the values as a line of JSON."""
    try:
        values: list[Value] | str = list(measurement.sample(contender, Scale(quick)))
    except Unsupported as reason:
        values = str(reason)
    print(json.dumps(values), flush=True)


def _sample_in_child(key: str, contender: str, quick: bool) -> tuple[list[Value] | str, str | None]:
    command = [sys.executable, "-m", "benchmarks", "--sample", key, contender, *(["--quick"] if quick else [])]
    environment = dict(os.environ)
    if (peer := PEERS.get(peer_of(contender))) and peer.private_network and _has_private_network():
        command = [*PRIVATE_NETWORK, *command]
        environment[PRIVATE_MARK] = "1"
    # A session of its own: if it hangs, its group (and nothing else) is ended.
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=SAMPLE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return [], f"no result within {SAMPLE_TIMEOUT_S} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode != 0:
        return [], f"exit code {child.returncode}: {(err.strip().splitlines() or ['no message'])[-1]}"
    return json.loads(out.splitlines()[-1]), None


@functools.cache
def _has_private_network() -> bool:
    """Whether this machine lets a process have a network namespace with nothing but loopback."""
    try:
        return subprocess.run([*PRIVATE_NETWORK, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import shoal

    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cpus": shoal.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "shoal": getattr(shoal, "__version__", "?"),
        "spin_budget_us": shoal._engine.SPIN_BUDGET_US,
        "workers": WORKERS,
    }


def header(facts: dict[str, Any], quick: bool) -> str:
    """The lines above the table."""
    spin = facts["spin_budget_us"]
    taken = "one quick sample each: rough" if quick else "medians of interleaved samples (ray, dask: one)"
    return (
        f"{facts['cpu']}, {facts['cpus']} CPUs (load {facts['load']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}, shoal {facts['shoal']}\n"
        f"{facts['workers']} workers unless said; waiters spin for {'?' if spin is None else spin} µs at most; "
        f"pools warm unless said; {taken}\n"
    )


def table(rows: Sequence[Row]) -> str:
    """figure | goal | shoal | best peer | other peers."""
    lines = [["figure", "goal", "shoal", "best peer", "other peers"]]
    for row in rows:
        medians = row.medians
        ours = medians.pop(SHOAL, None)
        peers = [f"{row.figure.text(value)} {name}" for name, value in medians.items()]
        mark = "" if ours is None else {True: " ✓", False: " ✗", None: "  "}[row.figure.met(ours)]
        lines.append(
            [
                row.figure.title,
                row.figure.goal_text,
                "–" if ours is None else row.figure.text(ours) + mark,
                peers[0] if peers else "–",
                ", ".join(peers[1:]) or "–",
            ]
        )
    widths = [max(len(line[at]) for line in lines) for at in range(4)]
    lines.insert(1, ["─" * width for width in widths] + ["─" * len(lines[0][4])])
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(line[at].rjust(widths[at]) for at in (1, 2, 3)), line[4]])
        for line in lines
    )


def as_json(
    facts: dict[str, Any], rows: Sequence[Row], failures: Sequence[str], left_out: Sequence[str]
) -> dict[str, Any]:
    """The whole run, samples included."""
    return {
        "machine": facts,
        "figures": [
            {
                "key": row.figure.key,
                "title": row.figure.title,
                "unit": row.figure.unit,
                "goal": row.figure.goal_text,
                "met": row.figure.met(row.medians[SHOAL]) if SHOAL in row.samples else None,
                "medians": row.medians,
                "samples": row.samples,
            }
            for row in rows
        ],
        "failures": list(failures),
        "left_out": list(left_out),
    }
