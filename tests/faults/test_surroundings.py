"""A client that was started in other surroundings than most: its pool works as ever, and tells deaths as ever."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
import shoal

def die():
    os.write(2, b"my last words\\n")
    os._exit(3)

with shoal.Pool(2) as pool:
    found = [pool.map(abs, [-1, -2])]
    pool.apply(print, ("a word",))
    try:
        pool.apply(die)
    except shoal.WorkerDied as error:
        found.append((error.exitcode, error.stderr))
    found.append(pool.map(abs, [-3]))
open("found", "w").write(repr(found))
"""


@pytest.mark.parametrize("surroundings", ["2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(tmp_path: Path, surroundings: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"exec {sys.executable} program.py {surroundings}"
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "found").read_text() == repr([[1, 2], (3, "my last words"), [3]])


def test_signals_of_children_may_be_ignored(tmp_path: Path) -> None:
    """Then the kernel keeps no dead children, and the programs that are started inherit that."""
    (tmp_path / "program.py").write_text("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + PROGRAM)
    command = [sys.executable, "program.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "a word\n", "my last words\n")
    assert (tmp_path / "found").read_text() == repr([[1, 2], (3, "my last words"), [3]])
