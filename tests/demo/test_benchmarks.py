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
    assert [line[:10] for line in lines] == ["round trip", "  the same", "CPU time o"]
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


def test_a_quick_run_of_data_checks_what_arrives() -> None:
    done = benchmarks("--quick", "--only", "temporaries,memory-shared-array", "--peers", "shoal,multiprocessing")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert [line.strip()[:11] for line in done.stdout.splitlines()[5:]] == ["a shoal.arr", "a * 0.5 + 1"]


def test_what_a_tool_has_no_way_to_do_is_left_out_and_said() -> None:
    from shoal.bench.peers import PEERS

    if not PEERS["joblib"].installed:
        pytest.skip("joblib is not installed")
    done = benchmarks("--quick", "--only", "queued", "--peers", "joblib")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: queued, joblib: joblib gives no handles" in done.stdout


def test_ray_is_not_started_where_others_could_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from shoal.bench.clusters import PRIVATE_MARK, ray_session
    from shoal.bench.sessions import Unsupported

    monkeypatch.delenv(PRIVATE_MARK, raising=False)
    with pytest.raises(Unsupported, match="opens ports to the network"), ray_session(1):
        pass


def test_the_long_run_asks_for_the_most_at_once_and_is_the_same_each_time() -> None:
    from benchmarks.memory import FIRST, sizes

    drawn = sizes(1_000, 1_000_000)
    assert drawn == sizes(1_000, 1_000_000) and len(drawn) == 1_000
    assert drawn[0] == (1_000_000, 1_000_000)
    assert max(drawn[FIRST:]) < drawn[0] and min(min(pair) for pair in drawn) >= 1


def test_the_table_of_faults_tells_what_each_tool_makes_of_each() -> None:
    command = [sys.executable, "-m", "benchmarks.fault_table", "--only", "exit,client", "--tools", "shoal,executor"]
    command += ["--limit", "100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    head, rule, *lines = done.stdout.splitlines()
    cells = [line.strip("| ").split(" | ") for line in (head, *lines[:2])]
    assert [len(line) for line in cells] == [2, 3, 3] and set(rule) == {"|", "-"}
    assert cells[1][:2] == ["a task calls `os._exit`", "`WorkerDied`"]
    assert cells[1][2].startswith("`BrokenProcessPool`; ")
    assert cells[2][:2] == ["the program is killed (SIGKILL)", "ends"]


def test_a_fault_that_there_is_not_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.fault_table", "--only", "flood"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "no fault is called 'flood'; there are lambda, killed" in done.stderr
