"""The ``shoal`` command as such: its help, its version, its mistakes."""

import subprocess
import sys

import pytest

import shoal
from shoal.cli import COMMANDS


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal", *arguments], capture_output=True, text=True, timeout=150)


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


def test_the_version_is_printed() -> None:
    assert command("--version").stdout == f"shoal {shoal.__version__}\n"


def test_no_command_or_an_unknown_one_is_a_usage_error() -> None:
    for arguments in ((), ("swim",)):
        ran = command(*arguments)
        assert ran.returncode == 2
        assert "usage: shoal" in ran.stderr
