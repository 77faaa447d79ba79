"""``python -m benchmarks`` runs, prints its table and writes its samples. What it measures is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_quick_run_prints_the_table_and_writes_the_samples(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    done = benchmarks(
        "--quick", "--only", "round-trip,idle", "--peers", "shoal,multiprocessing", "--json", str(written)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    head, rule, *lines = done.stdout.splitlines()[3:]
    assert head.split("  ")[0] == "figure" and set(rule) == {"─", " "}
    assert [line[:10] for line in lines] == ["round trip", "the same a", "CPU time o"]
    figures = json.loads(written.read_text())["figures"]
    assert [figure["key"] for figure in figures] == ["round-trip", "round-trip-idle", "idle"]
    for figure in figures:
        assert set(figure["samples"]) == {"shoal", "multiprocessing"}


@pytest.mark.parametrize(("option", "what"), [("--only", "figure"), ("--peers", "tool")])
def test_an_unknown_name_is_refused_with_the_known_ones(option: str, what: str) -> None:
    done = benchmarks(option, "round-trop")
    assert done.returncode == 2
    assert f"argument {option}: no {what} is called 'round-trop'; there are " in done.stderr


def test_unbalanced_tasks_are_the_same_in_every_run_and_four_of_them_are_long() -> None:
    from benchmarks.balance import LONG_TASKS, LONGER, unbalanced

    tasks = unbalanced(1, 400, 1e6)
    assert tasks == unbalanced(1, 400, 1e6) != unbalanced(2, 400, 1e6)
    plain = sorted(tasks)[:-LONG_TASKS]
    assert sum(task > LONGER * 1e6 * 0.1 for task in tasks) >= LONG_TASKS
    assert len(plain) == 396
