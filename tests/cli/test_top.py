"""``shoal top``: what it prints, what a program can read of it, and how it looks at a terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.cli import main
from shoal.insight.outside import Onlooker, PoolSeen
from tests.insight.watched import Program, program
from tests.pool.support import eventually
from tests.progress.terminal import on_terminal


@pytest.fixture
def watched() -> Iterator[Program]:
    with program() as it:
        it.do("submit 12")
        # No look is of one moment: what is taken while it goes on is counted twice, or not at all.
        assert eventually(lambda: [worker.state for worker in pool_of(it).workers] == ["busy", "busy"])
        yield it


def pool_of(watched: Program) -> PoolSeen:
    ((pool,),) = (client.pools for client in Onlooker([watched.pid]).look().clients)
    return pool


def top(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "shoal", "top", "--interval", "0.05", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=150)


def test_once_prints_each_worker_with_its_task(watched: Program) -> None:
    ran = top(watched.pid, "--once")
    assert (ran.returncode, ran.stderr) == (0, "")
    client, memory, _, pool, head, *workers = ran.stdout.splitlines()
    assert client.startswith(f"{watched.pid}  ")
    assert "shared in" in memory
    assert pool.startswith("  pool of 2 workers: ")
    assert head.split()[:4] == ["#", "pid", "state", "task"]
    assert len(workers) == 2
    assert [line.split()[0] for line in workers] == ["0", "1"]


def test_json_has_the_same_for_programs(watched: Program) -> None:
    ran = top(watched.pid, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    seen = json.loads(ran.stdout)
    assert seen["unreadable"] == [] and seen["seconds"] >= 0.05
    (client,) = seen["clients"]
    assert client["pid"] == watched.pid
    (pool,) = client["pools"]
    assert pool["queued"] + sum(worker["state"] == "busy" for worker in pool["workers"]) == 12


def test_without_a_pool_it_says_so() -> None:
    ran = top(2**22 + 1, "--once")
    assert ran.returncode == 0
    assert "No process here has a pool" in ran.stdout


def test_output_that_nobody_reads_is_no_error(watched: Program) -> None:
    words = [sys.executable, "-m", "shoal", "top", "--once", "--interval", "0.05", str(watched.pid)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None and ran.stderr is not None
        ran.stdout.close()
        assert ran.stderr.read() == ""
    assert ran.returncode == 0


def test_at_a_terminal_it_is_live_until_ctrl_c(watched: Program, tmp_path: Path) -> None:
    source = f"from shoal.cli import main; raise SystemExit(main(['top', '{watched.pid}', '--interval', '0.05']))"
    with on_terminal(source, tmp_path) as shown:
        assert shown.shows(lambda lines: sum("busy" in line and "wait_for" in line for line in lines) >= 2)
        watched.do("finish")
        assert shown.shows(lambda lines: any(re.search(r"\b0 queued", line) for line in lines))
        shown.program.send_signal(signal.SIGINT)
        shown.end()


def test_without_rich_the_live_view_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["top"]) == 2
    assert "pip install 'shoal[top]'" in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "-1", "soon", "nan"])
def test_an_interval_that_is_none_is_a_usage_error(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["top", "--interval", interval])
    assert "must be 0.05 to 3600 seconds" in capsys.readouterr().err
