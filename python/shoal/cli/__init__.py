"""The ``shoal`` command. Each subcommand is a module with ``add_parser``, and imports what it needs when it runs."""

import argparse
from collections.abc import Sequence

from . import demo, run

COMMANDS = (demo, run)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the ``shoal`` command and returns its exit code.

    Args:
        argv: the arguments; those of the process by default.

    Raises:
        SystemExit: with code 2 for wrong arguments, 0 after ``--help``.

    Example:
        main(["demo", "--quick"])
    """
    parser = argparse.ArgumentParser(prog="shoal", description="Python on every core.")
    subparsers = parser.add_subparsers(title="commands", metavar="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code
