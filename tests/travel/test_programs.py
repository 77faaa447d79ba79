"""What can be called here can be called there, from every kind of program. `rows` has the things, this the programs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.travel.rows import PROLOGUE, ROWS, Row


def _block(row: Row) -> str:
    """The row as one statement without an empty line, as the interactive interpreter wants it."""
    lines = f"{row.setup}\nprint({'<' + row.name + '>'!r}, {row.check}, flush=True)".strip()
    failed = f"print({'<' + row.name + '>'!r}, repr(error), flush=True)"
    return f"try:\n{textwrap.indent(lines, '    ')}\nexcept BaseException as error:\n    {failed}\n"


BLOCKS = [PROLOGUE, *map(_block, ROWS), "pool.terminate()\n"]
PROGRAM = "".join(BLOCKS)


def _run(directory: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *command], input=given, capture_output=True, text=True, cwd=directory, timeout=150
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def script(directory: Path) -> str:
    return _run(directory, "program.py")


def module(directory: Path) -> str:
    return _run(directory, "-m", "program")


def option(directory: Path) -> str:
    return _run(directory, "-c", PROGRAM)


def stdin(directory: Path) -> str:
    return _run(directory, "-", given=PROGRAM)


def repl(directory: Path) -> str:
    """Typed in at a terminal."""
    typed = memoryview("\n".join([*BLOCKS[:1], *BLOCKS[1:], "exit()\n"]).encode())
    ours, theirs = pty.openpty()
    # A terminal echoes what is typed while a statement runs at once, into the middle of what that prints.
    attributes = termios.tcgetattr(theirs)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    environment = {**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1", "PYTHONSTARTUP": ""}
    command = [sys.executable, "-q"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=directory, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        # At the end of the program its side of the terminal is gone, which reads as an error.
        with contextlib.suppress(OSError):
            while True:
                readable, writable, _ = select.select([ours], [ours] if typed else [], [])
                if readable:
                    seen += os.read(ours, 65536)
                elif writable:
                    typed = typed[os.write(ours, typed[:256]) :]
        os.close(ours)
    assert process.returncode == 0
    return seen.decode().replace("\r", "")


def notebook(directory: Path) -> str:
    return _run(directory, str(Path(__file__).with_name("kernel.py")), given=json.dumps(BLOCKS))


PROGRAMS: list[Callable[[Path], str]] = [script, module, option, stdin, repl, notebook]


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program.__name__)
def printed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What such a program prints, with a line for each row."""
    directory = tmp_path_factory.mktemp("program")
    (directory / "program.py").write_text(PROGRAM)
    return str(request.param(directory))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_travels_or_is_refused(printed: str, row: Row) -> None:
    # Behind a prompt, where there is one.
    assert re.findall(rf"<{row.name}> (.*)", printed) == ["True"]
