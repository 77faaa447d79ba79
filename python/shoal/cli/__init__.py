"""The ``shoal`` command. Each subcommand is a module with ``add_parser``, and imports what it needs when it runs."""

import argparse
import io
import sys
from collections.abc import Sequence

from . import bench, demo, doctor, run, top
from .helptext import HelpText

COMMANDS = (run, top, doctor, bench, demo)

DESCRIPTION = """\
Python on every core: worker processes over shared memory, called as multiprocessing is."""
EPILOG = """\
In a program:

  import shoal

  with shoal.Pool() as pool:
      squares = pool.map(lambda x: x * x, range(1000))

`shoal COMMAND --help` tells more of each command. `python -m shoal` is the same as `shoal`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the ``shoal`` command and returns its exit code.

    Args:
        argv: the arguments; those of the process by default.

    Raises:
        SystemExit: with code 2 for wrong arguments, 0 after ``--help`` and ``--version``.

    Example:
        main(["demo", "--quick"])
    """
    import shoal

    parser = argparse.ArgumentParser(prog="shoal", description=DESCRIPTION, epilog=EPILOG, formatter_class=HelpText)
    parser.add_argument("--version", action="version", version=f"shoal {shoal.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] != ["run"]:  # a program has its streams to itself
        _never_fail_to_print()
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


def _never_fail_to_print() -> None:
    """Where the locale knows no µ, a figure has a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
