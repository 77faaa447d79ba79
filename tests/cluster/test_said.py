"""What workers of a node log, warn of and print is heard by the client, before the result, and by nobody else."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import shoal
from tests.logs.test_records import NAME, Kept, info, listening
from tests.logs.test_switches import ALL, logged, speak
from tests.pool.support import eventually
from tests.progress.terminal import on_terminal


@pytest.fixture
def kept() -> Iterator[Kept]:
    with listening() as handler:
        yield handler


def warned_of(shown: list[warnings.WarningMessage], work: FunctionType) -> list[str]:
    """What came of this function: the cluster in this process may warn of things of its own."""
    return [str(warning.message) for warning in shown if warning.filename == work.__code__.co_filename]


def test_a_record_tells_its_node_worker_and_task_and_is_here_before_the_result(kept: Kept, pool: shoal.Pool) -> None:
    nodes = {worker.node for worker in pool.workers}  # type: ignore[attr-defined]
    for number in range(20):
        pool.apply(info, (f"call {number}",))
        assert kept.texts[-1] == f"call {number}"
    pool.map(info, ["more"] * 20, chunksize=1)
    assert len(kept.records) == 40
    pids = {worker.pid: worker.node for worker in pool.workers}  # type: ignore[attr-defined]
    for record in kept.records:
        assert record.name == NAME and record.processName == "shoal-worker-0"
        assert vars(record)["node"] == pids[record.process]
    assert {vars(record)["node"] for record in kept.records} == nodes
    assert len({vars(record)["taskId"] for record in kept.records}) == 40


def test_levels_that_change_hold_on_nodes_from_the_next_task_on(kept: Kept, pool: shoal.Pool) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    def work() -> None:
        logging.getLogger(NAME).debug("%s", Costly())
        logging.getLogger(NAME).info("said")

    pool.map(lambda _: work(), range(8), chunksize=1)
    assert kept.texts == ["said"] * 8
    logging.getLogger(NAME).setLevel(logging.ERROR)
    pool.map(lambda _: work(), range(8), chunksize=1)
    assert len(kept.records) == 8


def test_a_warning_of_many_nodes_is_shown_once_if_the_filters_say_so(cluster: Any) -> None:
    def careless(_: int) -> None:
        warnings.warn("careful", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        with shoal.Pool(1, cluster=cluster) as pool:
            pool.map(careless, range(20), chunksize=1)
    assert warned_of(shown, careless) == ["careful"]


def test_what_is_printed_in_whatever_way_appears_here_and_in_its_order(
    pool: shoal.Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        print("before")
        subprocess.run(["echo", "child"], check=True)
        print("after")
        print("complaint", file=sys.stderr)

    for _ in range(3):
        pool.apply(work)
        assert capfd.readouterr() == ("before\nchild\nafter\n", "complaint\n")


def test_what_is_switched_off_is_silent_and_the_rest_is_heard(
    cluster: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err, log, warned = ALL
    for options, expected in (
        ({"logs": False}, (out, err, [], warned)),
        ({"warnings": False}, (out, err, log, [])),
        ({"output": False}, ("", "", log, warned)),
    ):
        caplog.clear()
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            with shoal.Pool(1, cluster=cluster, **options) as pool:  # type: ignore[arg-type]
                pool.submit(speak).result()
        said = capfd.readouterr()
        assert (said.out, said.err, logged(caplog), warned_of(shown, speak)) == expected


def test_a_switch_is_true_or_false(cluster: Any) -> None:
    with pytest.raises(TypeError, match="logs must be True or False, not 'no'"):
        shoal.Pool(1, cluster=cluster, logs="no")  # type: ignore[arg-type]


def test_a_death_quotes_what_was_printed_and_that_was_here_first(
    pool: shoal.Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        print("last words", file=sys.stderr)
        os.kill(os.getpid(), 9)

    with pytest.raises(shoal.WorkerDied) as death:
        pool.apply(work)
    assert death.value.stderr == "last words"
    assert capfd.readouterr().err == "last words\n"


def test_a_handler_may_use_the_pool_itself(kept: Kept, pool: shoal.Pool) -> None:
    class Using(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if record.getMessage() == "ask":
                info(str(pool.apply(abs, (-1,))))

    log, using = logging.getLogger(NAME), Using()
    log.addHandler(using)
    try:
        pool.apply(info, ("ask",))
        # What is said while something else is passed on may come after the result.
        assert eventually(lambda: using.texts == ["ask", "1"])
    finally:
        log.removeHandler(using)


@pytest.mark.slow
def test_who_says_more_than_is_read_waits_and_nothing_is_lost(
    pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    class Slow:
        def write(self, text: str) -> int:
            lines.extend(text.splitlines())
            return len(text)

        def flush(self) -> None: ...

    def work(worker: int) -> None:
        for number in range(20_000):
            print(worker, number, "x" * 100)

    monkeypatch.setattr(sys, "stdout", Slow())
    pool.map(work, range(2), chunksize=1)

    def said(worker: int) -> list[int]:
        return [int(match[1]) for line in lines if (match := re.match(rf"{worker} (\d+) x{{100}}$", line))]

    # Of so much some may come after the results.
    for worker in range(2):
        assert eventually(lambda worker=worker: len(said(worker)) >= 20_000)  # type: ignore[misc]
        assert said(worker) == list(range(20_000))


@pytest.mark.slow
def test_on_a_terminal_lines_appear_above_the_bars(cluster: Any, tmp_path: Path) -> None:
    program = f"""
        import shoal

        def work(number):
            print("item", number)

        with shoal.Pool(1, cluster={cluster.scheduler_address!r}) as pool:
            with shoal.tqdm(total=40, mininterval=0) as bar:
                pool.map(work, range(40), chunksize=1, progress=bar)
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = [line for line in terminal.end() if line]
    assert sorted(lines[:-1]) == sorted(f"item {number}" for number in range(40))
    assert "40/40" in lines[-1]
