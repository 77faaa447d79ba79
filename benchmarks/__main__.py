"""The program: which figures, of which tools; the table; the JSON."""

import argparse
import json
import sys
from pathlib import Path

from . import (
    arguments,
    balance,
    bars,
    executors,
    faults,
    idle,
    latency,
    memory,
    nodes,
    objects,
    queues,
    results,
    startup,
    stream,
    sync,
    throughput,
)
from .harness import Row, as_json, header, machine, measure, sample_here, table
from .peers import PEERS, SHOAL

# In the order in which they are shown.
GROUPS = (
    latency,
    throughput,
    startup,
    balance,
    faults,
    idle,
    stream,
    executors,
    arguments,
    objects,
    results,
    memory,
    queues,
    sync,
    bars,
    nodes,
)

MEASUREMENTS = {measurement.key: measurement for group in GROUPS for measurement in group.MEASUREMENTS}


def main() -> int:
    """Measures, prints and returns 0, or 1 if a sample of shoal failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=_names, help=f"figures, by commas: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--peers", type=_names, help=f"tools, by commas: {', '.join(PEERS)}")
    parser.add_argument("--quick", action="store_true", help="one small sample of each, for a look")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures and all samples there, too")
    parser.add_argument("--sample", nargs=2, metavar=("FIGURE", "TOOL"), help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.sample:
        key, contender = options.sample
        sample_here(MEASUREMENTS[key], contender, options.quick)
        return 0

    wanted = options.only or list(MEASUREMENTS)
    for name in wanted:
        if name not in MEASUREMENTS:
            parser.error(f"argument --only: no figure is called {name!r}; there are {', '.join(MEASUREMENTS)}")
    for name in options.peers or ():
        if name not in PEERS:
            parser.error(f"argument --peers: no tool is called {name!r}; there are {', '.join(PEERS)}")
    asked = [PEERS[name] for name in options.peers or PEERS]
    names = [peer.name for peer in asked if peer.installed]

    facts = machine()
    print(header(facts, options.quick), flush=True)
    if missing := [peer.name for peer in asked if not peer.installed]:
        print(f"not installed, so left out: {', '.join(missing)}\n", flush=True)

    rows: list[Row] = []
    failures: list[str] = []
    left_out: list[str] = []
    for key, measurement in MEASUREMENTS.items():
        if key in wanted:
            _progress(key)
            rows += measure(measurement, names, options.quick, failures, left_out)
    _progress("")
    print(table(rows))
    for line in left_out:
        print(f"left out: {line}")
    for failure in failures:
        print(f"failed: {failure}")
    if options.json:
        options.json.write_text(
            json.dumps(as_json(facts, rows, failures, left_out), indent=2, ensure_ascii=False) + "\n"
        )
    return int(any(f", {SHOAL}: " in failure for failure in failures))


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
