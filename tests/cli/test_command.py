"""The ``shoal`` command as such: its help, its version, its mistakes."""

import os
import subprocess
import sys

import pytest

import shoal
from shoal.cli import COMMANDS


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "shoal", *arguments]
    return subprocess.run(asked, capture_output=True, text=True, timeout=150, env={**os.environ, **environment})


def test_help_names_every_command_and_shows_a_program() -> None:
    ran = command("--help")
    assert ran.returncode == 0
    for module in COMMANDS:
        assert f"    {module.__name__.rpartition('.')[2]} " in ran.stdout
    assert "with shoal.Pool() as pool:" in ran.stdout


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_each_command_explains_itself(module: object) -> None:
    name = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    ran = command(name, "--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith(f"usage: shoal {name}")
    assert len(ran.stdout.splitlines()) > 10


@pytest.mark.parametrize("arguments", [(), *((module.__name__.rpartition(".")[2],) for module in COMMANDS)])
def test_help_fits_the_terminal(arguments: tuple[str, ...]) -> None:
    lines = command(*arguments, "--help", COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_help_that_the_terminal_can_not_write_is_written_all_the_same() -> None:
    ran = command("bench", "--help", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "  ?            not measured" in ran.stdout


def test_the_version_is_printed() -> None:
    assert command("--version").stdout == f"shoal {shoal.__version__}\n"


def test_no_command_or_an_unknown_one_is_a_usage_error() -> None:
    for arguments in ((), ("swim",)):
        ran = command(*arguments)
        assert ran.returncode == 2
        assert "usage: shoal" in ran.stderr
