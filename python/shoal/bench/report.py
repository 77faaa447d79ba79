"""A run as people and programs read it: what machine it was on, a table, JSON."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .harness import WORKERS, Comparison, Row
from .peers import SHOAL


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


def table(rows: Sequence[Row], goals: bool = False) -> str:
    """figure | shoal | best peer | other peers; `goals`: also those of shoal, and whether they are met."""
    lines = [["figure", "goal", "shoal", "best peer", "other peers"]]
    for row in rows:
        medians = row.medians
        ours = medians.pop(SHOAL, None)
        peers = [f"{row.figure.text(value)} {name}" for name, value in medians.items()]
        mark = "" if ours is None or not goals else {True: " ✓", False: " ✗", None: "  "}[row.figure.met(ours)]
        lines.append(
            [
                row.figure.title,
                row.figure.goal_text,
                "–" if ours is None else row.figure.text(ours) + mark,
                peers[0] if peers else "–",
                ", ".join(peers[1:]) or "–",
            ]
        )
    if not goals:
        lines = [line[:1] + line[2:] for line in lines]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]) - 1)]
    lines.insert(1, ["─" * width for width in widths] + ["─" * len(lines[0][-1])])
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(line[at].rjust(widths[at]) for at in range(1, len(widths))), line[-1]]
        ).rstrip()
        for line in lines
    )


def as_json(facts: dict[str, Any], comparison: Comparison) -> dict[str, Any]:
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
            for row in comparison.rows
        ],
        "failures": comparison.failures,
        "left_out": comparison.left_out,
    }
