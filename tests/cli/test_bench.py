"""``shoal bench``: a small run, what it prints and writes, and what it refuses. What it measures is not judged here."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from shoal.bench import groups
from shoal.bench.harness import Figure, Row
from shoal.bench.picture import draw, titles
from shoal.bench.report import machine, table
from shoal.cli import main
from shoal.cli.bench import EPILOG

LATENCY = Figure("round-trip", "round trip of a no-op, p50", "µs", False, 10)


def bench(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "shoal", "bench", *arguments]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder)


def test_a_small_run_prints_a_table_and_writes_json_and_a_picture(tmp_path: Path) -> None:
    written, picture = tmp_path / "figures.json", tmp_path / "figures.svg"
    ran = bench(
        *("--only", "latency,map-1", "--peers", "shoal,threads"), *("--json", str(written), "--picture", str(picture))
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("figure "))
    assert lines[at].split("  ")[0] == "figure" and set(lines[at + 1]) == {"─", " "}
    assert [line[:10] for line in lines[at + 2 : at + 5]] == ["round trip", "  the same", "map, chunk"]
    assert all(line.endswith("threads  –") for line in lines[at + 2 : at + 5])

    found = json.loads(written.read_text())
    assert set(found) == {"machine", "figures", "failures", "left_out", "advice"}
    assert [figure["key"] for figure in found["figures"]] == ["round-trip", "round-trip-idle", "map-1"]
    for figure in found["figures"]:
        assert set(figure) == {"key", "title", "unit", "goal", "met", "medians", "samples"}
        assert set(figure["samples"]) == set(figure["medians"]) == {"shoal", "threads"}
        assert all(value > 0 for value in figure["medians"].values())
    assert found["failures"] == found["left_out"] == []
    assert found["advice"] and found["advice"][0].startswith("Small tasks: ")
    assert "Threads, processes or shared memory?" in ran.stdout
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_modules_of_the_user_are_not_taken_for_those_of_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("raise SystemExit('the wrong one')")
    words = [sys.executable, "-P", "-m", "shoal", "bench", "--only", "latency", "--peers", "threads"]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "failed" not in ran.stdout


def test_a_tool_that_is_not_installed_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shoal.bench.peers as peers

    missing = peers.Peer("mpire", "a_module_that_there_is_not", peers.PEERS["mpire"].session)
    monkeypatch.setitem(peers.PEERS, "mpire", missing)
    # The death of a worker is measured with neither, so that nothing has to run.
    assert main(["bench", "--only", "death-seen", "--peers", "mpire,threads"]) == 0
    assert "not installed, so left out: mpire\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "latancy"), "argument --only: no figure is called 'latancy'; there are "),
        (("--only", ","), "argument --only: must name a figure; there are "),
        (("--peers", "shaol"), "argument --peers: no tool is called 'shaol'; there are shoal, multiprocessing, "),
        (("--picture", "figures.jpg"), "argument --picture: must end with .png or .svg, not '.jpg'"),
        (("--json", "nowhere/figures.json"), "argument --json: there is no folder 'nowhere'"),
        (("--json", "."), "argument --json: must be a file, not the folder '.'"),
    ],
)
def test_what_can_t_be_done_is_refused_before_anything_is_measured(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert message in told.err and told.out == ""


def test_a_picture_without_matplotlib_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "--picture", "figures.png"]) == 2
    told = capsys.readouterr()
    assert told.err == "shoal bench --picture needs matplotlib: pip install 'shoal[plots]'\n"
    assert told.out == ""


def test_a_sample_that_fails_loses_only_itself(capsys: pytest.CaptureFixture[str]) -> None:
    from shoal.bench.harness import Comparison, Program

    broken = Comparison(Program(("-c", "raise SystemExit('no such luck')")), ["shoal", "threads"], quick=True)
    broken.measure(groups.MEASUREMENTS["map-1"])
    assert broken.failures == [f"map-1, {name}: exit code 1: no such luck" for name in ("shoal", "threads")]
    assert broken.shoal_failed and broken.medians == {"map-1": {}}
    assert table(broken.rows).splitlines()[-1].split() == ["map,", "chunksize", "1", "–", "–", "–"]


def test_ctrl_c_ends_the_run_and_its_sample() -> None:
    words = [sys.executable, "-m", "shoal", "bench", "--only", "jobs", "--peers", "threads"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        end = time.monotonic() + 120
        while not (samples := psutil.Process(ran.pid).children()) and time.monotonic() < end:
            time.sleep(0.01)
        ran.send_signal(signal.SIGINT)
        _, said = ran.communicate(timeout=120)
    assert (ran.returncode, said) == (1, "interrupted\n")
    assert samples and psutil.wait_procs(samples, timeout=120)[1] == []


def test_the_help_names_every_group_and_a_brief_run_has_one_of_each() -> None:
    for name, measurements in groups.GROUPS.items():
        assert f"\n  {name} " in EPILOG
        assert {measurement.key for measurement in measurements} & set(groups.BRIEF), name
    assert set(groups.BRIEF) <= groups.MEASUREMENTS.keys()


def test_groups_and_figures_can_be_asked_for_together() -> None:
    assert groups.figures("throughput, lock", groups.GROUPS) == {"one-by-one", "map-1", "map-default", "lock"}


def test_goals_are_shown_to_those_who_ask() -> None:
    row = Row(LATENCY, {"shoal": [2.0, 4.0, 3.0], "threads": [95.0]})
    assert table([row]).splitlines()[0].split() == ["figure", "shoal", "best", "peer", "other", "peers"]
    assert "3.00 µs ✓" in table([row], goals=True) and "≤ 10 µs" in table([row], goals=True)


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG\r\n"), ("a.svg", b"<?xml")])
def test_a_picture_has_the_format_of_its_name(tmp_path: Path, name: str, begins: bytes) -> None:
    rows = [
        Row(LATENCY, {"shoal": [2.0], "multiprocessing Manager": [950.0], "threads": [95.0]}),
        # Noise may bring a difference below zero; and what nobody could do has no panel.
        Row(Figure("transport", "on the way", "ms", False), {"shoal": [-0.1], "ray": [7.0]}),
        Row(Figure("none", "nothing", "ms", False)),
    ]
    draw(rows, machine(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_panel_tells_what_its_figure_goes_on_from() -> None:
    rows = [Row(figure) for figure in groups.MEASUREMENTS["round-trip"].figures]
    assert list(titles(rows)) == [
        "round trip of a no-op, p50",
        "round trip of a no-op, p50: the same after 1 ms of idleness",
    ]


def test_nothing_measured_can_t_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([Row(LATENCY)], machine(), tmp_path / "a.png")
