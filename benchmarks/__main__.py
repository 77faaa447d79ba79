"""The program: which figures, of which tools; the table; the JSON. Those of `shoal bench`, and the developers' own."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from shoal.bench import groups
from shoal.bench.harness import Comparison, Program, sample_here
from shoal.bench.peers import PEERS
from shoal.bench.report import as_json, header, machine, table

from . import ROOT, balance, bars, executors, idle, many, memory, nodes, nodes_shared, objects, stream, tracing

GROUPS = groups.GROUPS | {
    "many": many.MEASUREMENTS,
    "balance": balance.MEASUREMENTS,
    "idle": idle.MEASUREMENTS,
    "stream": stream.MEASUREMENTS,
    "executors": executors.MEASUREMENTS,
    "objects": objects.MEASUREMENTS,
    "memory": memory.MEASUREMENTS,
    "bars": bars.MEASUREMENTS,
    "tracing": tracing.MEASUREMENTS,
    "nodes": nodes.MEASUREMENTS,
    "nodes-shared": nodes_shared.MEASUREMENTS,
}
MEASUREMENTS = {measurement.key: measurement for group in GROUPS.values() for measurement in group}


def main() -> int:
    """Measures, prints and returns 0, or 1 if a sample of shoal failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=partial(groups.figures, groups=GROUPS),
        default=set(MEASUREMENTS),
        help=f"figures or groups, by commas: {', '.join(GROUPS)}; {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument("--peers", type=groups.tools, default=list(PEERS), help=f"tools, by commas: {', '.join(PEERS)}")
    parser.add_argument("--quick", action="store_true", help="one small sample of each, for a look")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures and all samples there, too")
    parser.add_argument("--sample", nargs=2, metavar=("FIGURE", "TOOL"), help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.sample:
        key, contender = options.sample
        sample_here(MEASUREMENTS[key], contender, options.quick)
        return 0

    facts = machine()
    print(header(facts, options.quick), flush=True)
    if missing := [name for name in options.peers if not PEERS[name].installed]:
        print(f"not installed, so left out: {', '.join(missing)}\n", flush=True)
    names = [name for name in options.peers if PEERS[name].installed]
    comparison = Comparison(Program(("-m", "benchmarks"), ROOT), names, options.quick)
    for key, measurement in MEASUREMENTS.items():
        if key in options.only:
            _progress(key)
            comparison.measure(measurement)
    _progress("")
    print(table(comparison.rows, goals=True))
    for line in comparison.left_out:
        print(f"left out: {line}")
    for failure in comparison.failures:
        print(f"failed: {failure}")
    if options.json:
        options.json.write_text(json.dumps(as_json(facts, comparison), indent=2, ensure_ascii=False) + "\n")
    return int(comparison.shoal_failed)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
