"""Programs without standard streams, as services and terminals that went away have them, and pools in them."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
{first}
import shoal

def work(number):
    print("printed", number)
    print("complained", number, file=sys.stderr)
    os.system("echo by another program; echo by another program >&2")
    return number * number

shared = shoal.zeros(1000)
with shoal.Pool(2) as pool:
    squares = pool.map(work, range(4), chunksize=1)
    length = pool.apply(len, (bytes(10_000_000),))
assert not shared.any()
open("result", "w").write(f"{{squares}} {{length}}")
"""


def ran(directory: Path, closed: str, first: str = "") -> tuple[str, str, str]:
    """What a program wrote that was started with these descriptors closed: to its files, and the result."""
    (directory / "program.py").write_text(PROGRAM.format(first=first))
    files = " ".join(f"{number}>{name}" for number, name in ((1, "out"), (2, "err")) if str(number) not in closed)
    redirections = " ".join(f"{number}>&-" for number in closed)
    command = f"exec {sys.executable} program.py {files} {redirections}"
    subprocess.run(["sh", "-c", command], cwd=directory, check=True, timeout=150)
    written = [path.read_text() if path.exists() else "" for path in (directory / "out", directory / "err")]
    return written[0], written[1], (directory / "result").read_text()


@pytest.mark.parametrize("closed", ["0", "1", "2", "12", "012"])
def test_a_pool_works_where_streams_are_closed(tmp_path: Path, closed: str) -> None:
    out, err, result = ran(tmp_path, closed)
    assert result == "[0, 1, 4, 9] 10000000"
    assert out.count("printed") == (0 if "1" in closed else 4)
    assert err.count("complained") == (0 if "2" in closed else 4)


def test_what_has_the_number_of_a_closed_stream_is_not_written_to(tmp_path: Path) -> None:
    first = (
        "mine = open('mine', 'w'); assert mine.fileno() == 1; mine2 = open('mine2', 'w'); assert mine2.fileno() == 2"
    )
    _, _, result = ran(tmp_path, "12", first)
    assert result == "[0, 1, 4, 9] 10000000"
    assert (tmp_path / "mine").read_text() == (tmp_path / "mine2").read_text() == ""


def test_a_program_that_prints_nowhere_does_not_print_what_workers_print(tmp_path: Path) -> None:
    out, err, _ = ran(tmp_path, "0", "sys.stdout = sys.stderr = None")
    assert "printed" not in out
    assert "complained" not in err
