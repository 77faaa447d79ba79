"""``shoal doctor``: what this machine allows, a line each with its reason, and whether a pool really runs."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict

from .helptext import HelpText
from .machine import Finding, Machine, examine

DESCRIPTION = """\
Looks at everything on this machine that decides how well shoal runs: the kernel, CPUs by affinity and by quota,
memory and who limits it, descriptors, threads of BLAS, traps of containers. Then starts a pool, runs a task, and
shares a counter with another process.

A line each: what was looked at, what was found, why it matters and what to change."""
EPILOG = """\
exit status:
  0  shoal will run well here
  1  something is in the way: the lines marked warn and fail say what

examples:
  shoal doctor                   before the first use, and in the container where it is to run
  shoal doctor --json            for a machine to read
  docker run IMAGE shoal doctor  what a container really grants"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``doctor`` to the commands of ``shoal``."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine allows, and what to change",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpText,
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON: name, status, value, reason")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examines, prints, and returns the exit status."""
    findings = examine(Machine())
    if all(finding.status != "fail" for finding in findings):
        findings += try_it()
    well = all(finding.status in ("ok", "note") for finding in findings)
    if arguments.json:
        print(json.dumps({"runs_well": well, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(table(findings, shutil.get_terminal_size().columns if sys.stdout.isatty() else 120))
    return 0 if well else 1


def try_it() -> Iterator[Finding]:
    """Starts a pool, and shares a counter with a process that is no worker."""
    import shoal

    before = time.perf_counter()
    try:
        with shoal.Pool(2) as pool:
            pool.apply(os.getpid)
            started = time.perf_counter() - before
            trips = []
            for _ in range(200):
                before = time.perf_counter()
                pool.apply(os.getpid)
                trips.append(time.perf_counter() - before)
    except (shoal.ShoalError, OSError, MemoryError) as error:
        reason = "a pool could not be started here; the lines above may say why, or a sandbox that forbids system calls"
        yield Finding("a pool", "fail", f"{type(error).__name__}: {error}", reason)
        return
    trip = sorted(trips)[len(trips) // 2]
    yield Finding("a pool", "ok", f"{started * 1e3:.0f} ms to the first result, then {trip * 1e6:.0f} µs a call")
    counter = shoal.Counter(1)
    code = "import pickle, sys; pickle.load(sys.stdin.buffer).add(1)"
    ran = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(counter), capture_output=True)
    if counter.value == 2:
        yield Finding(
            "sharing", "ok", "with any process of this user", "handles reach their owner through a local socket"
        )
    else:
        last = (ran.stderr.decode(errors="replace").strip().splitlines() or ["no error"])[-1]
        reason = "pools work, but other processes can't open what is shared: they may be in another network namespace"
        yield Finding("sharing", "warn", last, reason)


def table(findings: list[Finding], width: int) -> str:
    """The findings, a line each, longer ones wrapped; and the sum of it."""
    names = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        head = f"{finding.status:4}  {finding.name:{names}}  "
        text = finding.value + (f": {finding.reason}" if finding.reason else "")
        lines += textwrap.wrap(head + text, max(width, 60), subsequent_indent=" " * len(head))
    worst = {finding.status for finding in findings}
    if "fail" in worst:
        verdict = "shoal does not run here: the lines marked fail say why."
    elif "warn" in worst:
        verdict = "shoal runs here, but not as well as it could: the lines marked warn say why."
    else:
        verdict = "shoal will run well here."
    return "\n".join([*lines, "", verdict])
