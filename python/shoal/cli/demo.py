"""``shoal demo``: one real job three ways, each checked against the serial run, and a table of what they took."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .helptext import HelpText

if TYPE_CHECKING:
    from .ways import Job, Times

DESCRIPTION = """\
Computes per-pixel features of photographs into one shared array, then resets the features at millions of positions
under a lock: with numpy alone, with multiprocessing as people write it, and with shoal. All three must give the same
array."""
EPILOG = """\
exit status:
  0  they do
  1  they don't
  2  wrong arguments, or scikit-image is missing (pip install 'shoal[demo]')

examples:
  shoal demo                 about a minute on two cores, most of it for multiprocessing
  shoal demo --quick         some seconds
  shoal demo --workers 4     with so many workers"""

SIZE_MB, QUICK_SIZE_MB = 200, 5
POSITIONS, QUICK_POSITIONS = 5_000_000, 200_000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``demo`` to the commands of ``shoal``."""
    parser = subparsers.add_parser(
        "demo",
        help="a real job, checked and timed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpText,
    )
    parser.add_argument("--size-mb", type=_positive, help=f"megabytes of the shared array, {SIZE_MB} by default")
    parser.add_argument("--positions", type=_positive, help=f"positions to reset, {POSITIONS:,} by default")
    parser.add_argument("--workers", type=_positive, help="worker processes, one for each core by default")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZE_MB} MB and {QUICK_POSITIONS:,} positions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Does the job three ways, prints the table, and returns 0 if all arrays are equal, else 1."""
    try:
        from . import ways
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("skimage", "scipy"):
            raise
        print("shoal demo needs scikit-image: pip install 'shoal[demo]'", file=sys.stderr)
        return 2
    import shoal

    job = ways.Job.make(
        size=10**6 * (arguments.size_mb or (QUICK_SIZE_MB if arguments.quick else SIZE_MB)),
        positions=arguments.positions or (QUICK_POSITIONS if arguments.quick else POSITIONS),
    )
    workers = arguments.workers or shoal.cpu_count()
    _introduce(job, workers)

    expected, serial = ways.serial(job)
    parallel = {
        "multiprocessing": ways.with_multiprocessing(job, workers, expected),
        "shoal": ways.with_shoal(job, workers, expected),
    }
    print(table(job, serial, *(outcome.times for outcome in parallel.values())))
    print()
    for name, outcome in parallel.items():
        print(f"{name}: {outcome.verdict}")
    return 0 if all(outcome.correct for outcome in parallel.values()) else 1


def _introduce(job: "Job", workers: int) -> None:
    print(
        f"{len(job.photos)} photographs, {job.pixels:,} pixels × {job.per_pixel} features"
        f" = {job.size / 1e6:.0f} MB shared;\n"
        f"{len(job.bands)} tasks compute it, {len(job.chunks)} tasks reset {job.positions.size:,} positions; "
        f"{workers} workers\n",
        flush=True,
    )


def table(job: "Job", serial: "Times", multiprocessing: "Times", shoal: "Times") -> str:
    """Returns the table of times, a line for each step, with what shoal gains over the other two."""
    steps: list[tuple[str, Callable[[Times], float | None]]] = [
        ("array and pool made", lambda times: times.start),
        (f"features of {_short(job.pixels)} pixels", lambda times: times.features),
        (f"reset of {_short(job.positions.size)} positions", lambda times: times.reset),
        ("all", lambda times: times.total),
    ]
    rows = [["step", "serial numpy", "multiprocessing", "shoal", "shoal : numpy", "shoal : multiprocessing"]]
    for name, step in steps:
        alone, peer, ours = step(serial), step(multiprocessing), step(shoal)
        rows.append([name, _seconds(alone), _seconds(peer), _seconds(ours), _gain(alone, ours), _gain(peer, ours)])
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = ["─" * width for width in widths]
    lines = [rows[0], rule, *rows[1:-1], rule, rows[-1]]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if at == 0 else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3f} s"


def _gain(theirs: float | None, ours: float | None) -> str:
    if theirs is None or not ours:
        return "–"
    gain = theirs / ours
    return f"{gain:.1f} ×" if gain >= 0.95 else f"{gain:.2f} ×"


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count:,}"


def _positive(text: str) -> Any:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return number
