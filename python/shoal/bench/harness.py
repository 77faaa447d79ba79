"""How a figure is measured: every sample in a fresh interpreter, the tools in turn, the median of several rounds.

A fresh interpreter costs a few tenths of a second a sample and keeps the tools apart: no workers, threads or memory of
the one before. A tool that fails or hangs loses its sample and nothing else.
"""

import functools
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .clusters import PRIVATE_MARK, PRIVATE_NETWORK
from .peers import PEERS, POOLS, SHOAL
from .sessions import Unsupported

WORKERS = 2
SAMPLE_TIMEOUT_S = 300

Value = float | None


@dataclass(frozen=True)
class Figure:
    """One line of the table. `goal` is a number in `unit`, and the most or the least that is wanted.

    A title that is indented goes on from the one above it.
    """

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


@dataclass(frozen=True)
class Program:
    """What takes a sample: arguments of an interpreter, to which `--sample FIGURE TOOL` is added, and its folder."""

    arguments: tuple[str, ...]
    folder: Path | None = None


def peer_of(contender: str) -> str:
    """The tool of a contender: `multiprocessing` for `multiprocessing spawn`."""
    return contender.split()[0]


@dataclass
class Comparison:
    """Tools in one run, and what was found. `failures` says what failed, `left_out` what a tool has no way to do."""

    program: Program
    names: Sequence[str]
    quick: bool
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def medians(self) -> dict[str, dict[str, float]]:
        """The median of each contender, the best first, by the key of the figure."""
        return {row.figure.key: row.medians for row in self.rows}

    @property
    def shoal_failed(self) -> bool:
        """Whether a sample of shoal was lost."""
        return any(f", {SHOAL}: " in failure for failure in self.failures)

    def measure(self, measurement: Measurement) -> None:
        """Measures the contenders whose tool is among `names`, in turn."""
        rows = [Row(figure) for figure in measurement.figures]
        contenders = [name for name in measurement.contenders if peer_of(name) in self.names]
        for turn in range(1 if self.quick else measurement.rounds):
            # Another one begins each round, so that nobody always comes after the same neighbour.
            first = turn % max(len(contenders), 1)
            for contender in contenders[first:] + contenders[:first]:
                if turn and peer_of(contender) in PEERS and PEERS[peer_of(contender)].cluster:
                    continue
                values, failure = _sample_in_child(self.program, measurement.key, contender, self.quick)
                if isinstance(values, str):
                    if (line := f"{measurement.key}, {contender}: {values}") not in self.left_out:
                        self.left_out.append(line)
                    continue
                if failure is not None:
                    self.failures.append(f"{measurement.key}, {contender}: {failure}")
                for row, value in zip(rows, values, strict=False):
                    if value is not None:
                        row.samples.setdefault(contender, []).append(value)
        # A figure that none of these tools has is no line of the table.
        self.rows += [row for row in rows if contenders]


def sample_here(measurement: Measurement, contender: str, quick: bool) -> None:
    """The child's part of a sample: measures and prints the values as a line of JSON."""
    try:
        values: list[Value] | str = list(measurement.sample(contender, Scale(quick)))
    except Unsupported as reason:
        values = str(reason)
    print(json.dumps(values), flush=True)


def _sample_in_child(program: Program, key: str, contender: str, quick: bool) -> tuple[list[Value] | str, str | None]:
    command = [sys.executable, *program.arguments, "--sample", key, contender, *(["--quick"] if quick else [])]
    environment = dict(os.environ)
    if (peer := PEERS.get(peer_of(contender))) and peer.private_network and _has_private_network():
        command = [*PRIVATE_NETWORK, *command]
        environment[PRIVATE_MARK] = "1"
    # A session of its own: if it hangs, its group (and nothing else) is ended.
    child = subprocess.Popen(
        command,
        cwd=program.folder,
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
