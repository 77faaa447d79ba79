"""``shoal bench``: the tools compared on this machine, as a table, JSON, a picture, and advice in words."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path

from .helptext import HelpText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from shoal.bench.harness import Comparison

DESCRIPTION = """\
Measures on this machine what each way to use every core costs: threads, multiprocessing, ProcessPoolExecutor
("executor"), joblib, mpire, ray, dask, faster-fifo, as far as they are installed, and shoal. Then answers in words:
threads, processes or shared memory, for which job?

Every sample is taken in a fresh interpreter, with two workers; what arrives is checked. A run takes about a minute and
has one small sample of each figure: good to tell 2 from 20, not 2 from 3. Let the machine be idle meanwhile."""
EPILOG = """\
groups of figures:
  jobs        Python code, numpy code, waiting: how many times as fast as a plain loop
  latency     a call that does nothing, there and back
  throughput  such calls a second: one by one, and in maps
  startup     from the start of Python to the first result
  arguments   large arrays on their way to a task
  results     large arrays on their way back
  queues      small items, and arrays, from process to process
  sync        locks, counters, events
  faults      what the death of a worker costs

reading the table:
  best peer    the best of the other tools; to the right of it the others, the best first
  a : b        in the name of a figure: a divided by b
  –            not measured: the tool is left out, or has nothing like it

exit status:
  0  measured
  1  a sample of shoal failed, or Ctrl-C
  2  wrong arguments, or a picture without matplotlib

examples:
  shoal bench                                       about a minute
  shoal bench --only jobs,arguments                 what the choice is mostly about
  shoal bench --only latency --peers shoal,threads  a few seconds
  shoal bench --full --json figures.json            medians of several rounds of all figures: much longer
  shoal bench --picture figures.svg                 bars, too (needs matplotlib: pip install 'shoal[plots]')"""

FORMATS = (".png", ".svg")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``bench`` to the commands of ``shoal``."""
    parser = subparsers.add_parser(
        "bench",
        help="shoal and other tools, compared on this machine",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpText,
    )
    parser.add_argument("--only", metavar="NAMES", type=_figures, help="groups or figures (their keys), by commas")
    parser.add_argument("--peers", metavar="TOOLS", type=_tools, help="tools, by commas; all that there are by default")
    parser.add_argument("--full", action="store_true", help="all figures, several rounds, and ray and dask too")
    parser.add_argument("--json", metavar="FILE", type=_file, help="write figures, samples and advice there")
    parser.add_argument("--picture", metavar="FILE", type=_picture, help="draw them: FILE.png or FILE.svg")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints, writes what was asked for, and returns the exit status."""
    if arguments.picture and importlib.util.find_spec("matplotlib") is None:
        print("shoal bench --picture needs matplotlib: pip install 'shoal[plots]'", file=sys.stderr)
        return 2
    from shoal.bench.advice import advice, paragraphs
    from shoal.bench.harness import Comparison, Program
    from shoal.bench.report import as_json, header, machine, table

    quick = not arguments.full
    facts = machine()
    print(header(facts, quick), flush=True)
    if facts["load"] >= facts["cpus"]:
        print("This machine is busy: what is measured now is worse, and rougher, than when it is idle.\n", flush=True)
    # -P: a file of the user's that is called as a module of the standard library must not be taken for it.
    comparison = Comparison(Program(("-P", "-m", "shoal.bench")), _installed(arguments.peers, quick), quick)
    try:
        _measure(comparison, _wanted(arguments.only, quick))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    print(table(comparison.rows))
    for line in comparison.left_out:
        print(f"left out: {line}")
    for failure in comparison.failures:
        print(f"failed: {failure}")
    said = advice(comparison.medians)
    if said:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
        print("\nThreads, processes or shared memory? By what was measured here:\n")
        print(paragraphs(said, width))
    if arguments.json:
        found = as_json(facts, comparison) | {"advice": said}
        arguments.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    if arguments.picture:
        if any(row.samples for row in comparison.rows):
            from shoal.bench.picture import draw

            draw(comparison.rows, facts, arguments.picture)
        else:
            print("no picture: nothing was measured", file=sys.stderr)
    return int(comparison.shoal_failed)


def _installed(asked: Sequence[str] | None, quick: bool) -> list[str]:
    """The tools to measure; says which are left out."""
    from shoal.bench.peers import PEERS

    slow = [name for name, peer in PEERS.items() if quick and not asked and peer.cluster and peer.installed]
    missing = [name for name in asked or PEERS if not PEERS[name].installed]
    if missing:
        print(f"not installed, so left out: {', '.join(missing)}")
    if slow:
        print(f"slow to start, so left out without --full or --peers: {', '.join(slow)}")
    if missing or slow:
        print(flush=True)
    return [name for name in asked or PEERS if name not in missing and name not in slow]


def _wanted(only: Collection[str] | None, quick: bool) -> list[str]:
    from shoal.bench.groups import BRIEF, MEASUREMENTS

    wanted: Collection[str] = only or (BRIEF if quick else MEASUREMENTS)
    return [key for key in MEASUREMENTS if key in wanted]


def _measure(comparison: Comparison, keys: Sequence[str]) -> None:
    from shoal.bench.groups import MEASUREMENTS

    shown = sys.stderr.isatty()
    for at, key in enumerate(keys, 1):
        if shown:
            print(f"\r\033[K{at} of {len(keys)}: {key}", end="", file=sys.stderr, flush=True)
        comparison.measure(MEASUREMENTS[key])
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


# What follows imports the figures only when somebody names some: `shoal top` can do without them.


def _figures(text: str) -> Collection[str]:
    from shoal.bench import groups

    return groups.figures(text, groups.GROUPS)


def _tools(text: str) -> Sequence[str]:
    from shoal.bench import groups

    return groups.tools(text)


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, not the folder {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def _picture(text: str) -> Path:
    path = _file(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(f"must end with {' or '.join(FORMATS)}, not {path.suffix!r}")
    return path
