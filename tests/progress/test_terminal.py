"""What is to be seen on a terminal: bars in their lines, text above them, and nothing torn."""

import re
from pathlib import Path

import pytest

from tests.progress.terminal import on_terminal

BAR = re.compile(r"^(\w[\w ]*): +\d+%\|.*\| *\d+/\d+ \[.*\]$")


def assert_not_torn(lines: list[str], texts: str) -> None:
    """Each line that was left is a whole bar, or a whole text. What is torn stays so: text is never written twice."""
    for line in lines:
        assert not line or BAR.match(line) or re.fullmatch(texts, line), (line, lines)


def test_bars_of_workers_come_below_and_prints_above_and_nothing_is_torn(tmp_path: Path) -> None:
    program = """
        import logging, sys, time
        from pathlib import Path
        import shoal

        def work(i):
            for n in shoal.tqdm(range(10), desc=f"part {i}", leave=False):
                while n == 5 and not Path("go").exists():
                    time.sleep(0.01)
            print("printed", i)
            print("warned", i, file=sys.stderr)
            outer.write(f"written {i}")
            logging.warning("logged %d", i)
            outer.update()
            outer.set_postfix(last=i)

        with shoal.Pool(2) as pool, shoal.tqdm(total=6, desc="all") as outer:
            pool.map(work, range(6), chunksize=1)
    """
    with on_terminal(program, tmp_path) as terminal:
        # Both kinds of bars are there at once, the outer one above.
        assert terminal.shows(lambda lines: [line[:4] for line in lines if BAR.match(line)] == ["all:", "part", "part"])
        (tmp_path / "go").touch()
        lines = terminal.end()
    assert_not_torn(lines, r"(printed|warned|written) \d|WARNING:root:logged \d")
    # Everything that was printed is there, and the outer bar at last.
    expected = [f"{how} {i}" for how in ("printed", "warned", "written", "WARNING:root:logged") for i in range(6)]
    assert sorted(lines[:-1]) == sorted(expected)
    assert lines[-1].startswith("all: 100%|") and " 6/6 " in lines[-1]


def test_bars_that_are_to_be_left_stay_one_below_the_other(tmp_path: Path) -> None:
    program = """
        import time
        import shoal

        def work(i):
            for _ in shoal.tqdm(range(5), desc=f"part {i}"):
                time.sleep(0.02)

        with shoal.Pool(2) as pool:
            for _ in shoal.tqdm(pool.imap(work, range(4), chunksize=1), desc="all", total=4):
                pass
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = [line for line in terminal.end() if line]
    assert sorted(line.partition(":")[0] for line in lines) == ["all", "part 0", "part 1", "part 2", "part 3"]
    assert all("100%" in line for line in lines)


@pytest.mark.parametrize("leave", [True, False])
def test_the_bar_of_a_killed_worker_vanishes_or_stays_as_its_leave_says(tmp_path: Path, leave: bool) -> None:
    program = f"""
        import os, signal, time
        import shoal

        def work(_):
            bar = shoal.tqdm(total=5, desc="killed", leave={leave})
            bar.update(2)
            os.kill(os.getpid(), signal.SIGKILL)

        with shoal.Pool(1) as pool, shoal.tqdm(total=1, desc="outer") as outer:
            try:
                pool.map(work, [0])
            except shoal.WorkerDied:
                outer.write("died")
            outer.update()
            from shoal.progress.screen import screen
            while len(screen._all_bars()) > 1:  # that of the dead is on its way out
                time.sleep(0.01)
            with outer.get_lock():
                pass  # its last line is drawn under it
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = [line for line in terminal.end() if line]
    assert_not_torn(lines, "died")
    assert [line[:6] for line in lines if line != "died"] == (["killed", "outer:"] if leave else ["outer:"])


def test_whatever_is_written_to_the_standard_error_of_a_worker_tears_nothing(tmp_path: Path) -> None:
    program = """
        import os, subprocess, sys, warnings
        import shoal

        def work(i):
            os.write(2, b"line of %d\\n" % i)
            subprocess.run(["sh", "-c", "echo child >&2"])
            warnings.warn("careful")
            os.write(2, b"\\r 10%\\r 100%\\n")
            outer.update()

        with shoal.Pool(2) as pool, shoal.tqdm(total=4, desc="outer") as outer:
            pool.map(work, range(4), chunksize=1)
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = terminal.end()
    assert_not_torn(lines, r"line of \d|child|/.*|.*careful.*|  warnings.warn.*| 100%")
    assert [lines.count(text) for text in ("line of 3", "child", " 100%")] == [1, 4, 4]


def test_without_a_bar_prints_of_workers_take_their_usual_way(tmp_path: Path) -> None:
    program = """
        import sys
        import shoal

        def work(i):
            print(i, end=" ")
            print("out", flush=True)
            print("err", file=sys.stderr)
            return sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.fileno()

        with shoal.Pool(1) as pool:
            print(pool.map(work, range(2)))
            assert "tqdm" not in sys.modules
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = terminal.end()
    # Standard error comes by a way of its own.
    assert [line for line in lines if line != "err"] == ["0 out", "1 out", "[(True, 'utf-8', 1), (True, 'utf-8', 1)]"]
    assert lines.count("err") == 2


def test_a_line_without_an_end_waits_for_it_while_there_are_bars(tmp_path: Path) -> None:
    program = """
        import time
        import shoal

        def work(i):
            for dot in range(3):
                print(dot, end="", flush=True)
                outer.update()
                time.sleep(0.15)
            print()
            print("first", end="\\r")
            print("last")

        with shoal.Pool(1) as pool, shoal.tqdm(total=3, desc="outer") as outer:
            pool.map(work, [0])
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = terminal.end()
    assert_not_torn(lines, "012|last")
    assert lines[:2] == ["012", "last"]


def test_what_is_left_of_a_line_is_printed_at_the_end_of_the_worker(tmp_path: Path) -> None:
    program = """
        import shoal

        with shoal.tqdm(total=3, desc="outer") as outer:
            pool = shoal.Pool(1)
            pool.apply(print, ("no end",), {"end": ""})
            pool.close()
            pool.join()
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = terminal.end()
    assert lines[0] == "no end" and lines[1].startswith("outer:")


def test_an_ordinary_bar_of_tqdm_that_travels_goes_on_in_its_line(tmp_path: Path) -> None:
    program = """
        import time
        import shoal, tqdm

        def work(i):
            for _ in shoal.tqdm(range(5), desc=f"part {i}", leave=False):
                time.sleep(0.02)
            bar.update()
            bar.set_description(f"did {i}")

        bar = tqdm.tqdm(total=4, desc="all")
        with shoal.Pool(2) as pool:
            pool.map(work, range(4), chunksize=1)
        bar.close()
    """
    with on_terminal(program, tmp_path) as terminal:
        lines = terminal.end()
    assert_not_torn(lines, "")
    assert len(lines) == 1 and re.match(r"did \d: 100%\|.* 4/4 ", lines[0])


def test_ordinary_bars_that_workers_make_come_below_and_tear_nothing(tmp_path: Path) -> None:
    program = """
        import time
        from pathlib import Path
        import shoal, tqdm

        def work(i):
            for n in tqdm.tqdm(range(5), desc=f"outer {i}", leave=False):
                for _ in tqdm.tqdm(range(3), desc=f"inner {i}", leave=False):
                    while n == 2 and not Path("go").exists():
                        time.sleep(0.01)

        with shoal.Pool(2) as pool:
            pool.map(work, range(4), chunksize=1, progress={"desc": "all"})
            pool.map(work, range(2), chunksize=1)
    """
    with on_terminal(program, tmp_path) as terminal:
        assert terminal.shows(lambda lines: sum(line.startswith(("outer", "inner")) for line in lines) == 4)
        (tmp_path / "go").touch()
        lines = [line for line in terminal.end() if line]
    assert_not_torn(lines, "")
    assert [line[:4] for line in lines] == ["all:"]


def test_ctrl_c_leaves_the_terminal_in_order(tmp_path: Path) -> None:
    program = """
        import time
        import shoal

        def work(i):
            for _ in shoal.tqdm(range(10_000), desc=f"part {i}", leave=False):
                time.sleep(0.01)

        try:
            with shoal.Pool(2) as pool, shoal.tqdm(total=2, desc="outer") as outer:
                pool.map(work, range(2), chunksize=1)
        except KeyboardInterrupt:
            print("interrupted")
    """
    with on_terminal(program, tmp_path) as terminal:
        assert terminal.shows(lambda lines: sum("part" in line for line in lines) == 2)
        terminal.press("\x03")
        lines = [line for line in terminal.end() if line]
    assert lines[-1] == "interrupted" and not any("part" in line for line in lines)
    assert all(line.startswith("outer") for line in lines[:-1]), lines
