"""`shoal.timeline`: a trace as a picture."""

import json
import os
import time
from pathlib import Path

import pytest

import shoal
from tests.conftest import Run

to_hex = pytest.importorskip("matplotlib.colors").to_hex


def test_a_trace_is_drawn_as_png_or_svg(pool: shoal.Pool, tmp_path: Path) -> None:
    with pool.trace(tmp_path / "run.json") as trace:
        pool.map(abs, range(1000))
        pool.apply(len, ("x",))
    shoal.timeline(trace, tmp_path / "run.png")
    figure = shoal.timeline(tmp_path / "run.json", tmp_path / "run.svg")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "run.svg").read_text()
    tasks, below = figure.axes[:2]
    assert [label.get_text().partition(",")[0] for label in tasks.get_yticklabels()] == ["worker 0", "worker 1"]
    assert {text.get_text() for text in tasks.get_legend().get_texts()} == {"abs", "len"}
    assert below.get_xlabel() == "seconds"


def memory() -> None:
    """A function that is called as a counter of the file is."""


def test_functions_may_be_called_what_they_like(pool: shoal.Pool) -> None:
    with pool.trace() as trace:
        pool.apply(memory)
    tasks = shoal.timeline(trace).axes[0]
    assert [text.get_text() for text in tasks.get_legend().get_texts()] == ["memory"]


def test_a_task_that_is_too_narrow_for_an_edge_is_seen_all_the_same(pool: shoal.Pool) -> None:
    with pool.trace() as trace:
        pool.apply(time.sleep, (1,))
        pool.apply(abs, (-1,))
    # A busy machine may have made it wide.
    long_one, short_one = trace.pools[0].tasks
    trace.pools[0].tasks[1] = short_one._replace(ended=short_one.started + 1000)
    assert long_one.ended - long_one.started >= 1_000_000_000
    tasks = shoal.timeline(trace).axes[0]
    drawn = {(to_hex(bars.get_facecolor()[0]), to_hex(bars.get_edgecolor()[0])) for bars in tasks.collections if bars}
    long, short = (to_hex(line.get_color()) for line in tasks.get_legend().get_lines())
    assert {(long, "#ffffff"), (short, short)} <= drawn


def test_deaths_are_marked_and_the_mark_is_explained(pool: shoal.Pool) -> None:
    with pool.trace() as trace:
        with pytest.raises(shoal.WorkerDied):
            pool.apply(os._exit, (3,))
        pool.apply(abs, (-1,))
    tasks = shoal.timeline(trace).axes[0]
    legend = [text.get_text() for text in tasks.get_legend().get_texts()]
    assert set(legend) == {"_exit", "abs", "its worker died"}
    assert [len(line.get_xdata()) for line in tasks.lines if line.get_marker() == "x"] == [1]


def test_nothing_and_what_is_no_trace_are_refused(pool: shoal.Pool, tmp_path: Path) -> None:
    with pool.trace() as trace:
        pass
    with pytest.raises(ValueError, match="no task"):
        shoal.timeline(trace)
    for text in ("", "[1]", json.dumps({"other": 1})):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="is not a trace"):
            shoal.timeline(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError):
        shoal.timeline(tmp_path / "missing.json")


def test_without_matplotlib_it_says_what_to_install(run: Run) -> None:
    ran = run("import sys; sys.modules['matplotlib'] = None; import shoal; shoal.timeline('run.json')")
    assert ran.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: shoal.timeline needs matplotlib: pip install 'shoal[plots]'"
    )
