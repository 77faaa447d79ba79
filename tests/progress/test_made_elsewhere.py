"""Bars that are made in workers, and text that workers print: the client draws them, below and above its own."""

import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tqdm.std

import shoal
from tests.conftest import Run
from tests.pool.support import eventually
from tests.progress.terminal import seen


class Screen:
    """What the client has written."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._out = self._err = ""

    @property
    def out(self) -> str:
        """On its standard output."""
        self._look()
        return self._out

    @property
    def err(self) -> str:
        """On its standard error, where bars are drawn."""
        self._look()
        return self._err

    @property
    def lines(self) -> list[str]:
        """What is to be seen of that."""
        return seen(self.err)

    def _look(self) -> None:
        out, err = self._capsys.readouterr()
        self._out += out
        self._err += err


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str]) -> Screen:
    return Screen(capsys)


def drawn_bars() -> int:
    """How many bars are drawn at the moment, the ones of others included."""
    from shoal.progress.screen import screen

    return len(screen._all_bars())


def wait_for(path: Path) -> None:
    assert eventually(path.exists)


def test_a_loop_in_a_worker_has_a_bar_of_its_own(pool: shoal.Pool, screen: Screen) -> None:
    def work(i: int) -> list[int]:
        return list(shoal.tqdm(range(10), desc=f"part {i}"))

    assert pool.map(work, range(3), chunksize=1) == [list(range(10))] * 3
    # What a task has drawn is there before its result.
    for i in range(3):
        assert any(line.startswith(f"part {i}: 100%") and "10/10" in line for line in screen.lines)
    assert drawn_bars() == 0


def test_it_is_drawn_below_the_bars_of_the_client(pool: shoal.Pool, screen: Screen, tmp_path: Path) -> None:
    def work(i: int) -> None:
        bar = shoal.tqdm(total=4, desc="inner")
        bar.update(3)
        (tmp_path / "drawn").touch()
        wait_for(tmp_path / "go")

    with shoal.tqdm(total=1, desc="outer") as outer:
        result = pool.apply_async(work, (0,))
        wait_for(tmp_path / "drawn")
        inner = next(bar for bar in tqdm.std.tqdm._instances if bar is not outer)  # type: ignore[attr-defined]
        assert (outer.pos, inner.pos, inner.desc, inner.total) == (0, 1, "inner", 4)
        assert eventually(lambda: "inner:  75%" in screen.err)
        (tmp_path / "go").touch()
        result.get()


def test_all_arguments_and_methods_of_tqdm_hold_there(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> tuple[Any, ...]:
        with shoal.tqdm(
            None, "load", 2000, unit="B", unit_scale=True, postfix={"a": 1}, initial=500, ncols=70, ascii=True
        ) as bar:
            bar.update(500)
            bar.set_description("save")
            bar.set_postfix_str("b=2")
            return isinstance(bar, tqdm.std.tqdm), bar.n, bar.total, bar.unit, str(bar)[:5]

    assert pool.map(work, [0]) == [(True, 1000, 2000, "B", "save:")]
    last = screen.lines[-1]
    assert last.startswith("save:  50%|#") and "1.00k/2.00k" in last and last.endswith("b=2]")


def test_total_iterable_and_trange_are_as_here(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> tuple[Any, ...]:
        bar = shoal.tqdm("abc")
        return list(bar), bar.total, len(bar), list(shoal.trange(3)), bar.disable

    assert pool.map(work, [0]) == [(["a", "b", "c"], 3, 3, [0, 1, 2], True)]


def test_an_unknown_argument_is_tqdms_error_in_the_task(pool: shoal.Pool, screen: Screen) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        pool.apply(lambda: shoal.tqdm(total=3, nonsense=1))
    assert drawn_bars() == 0


def test_wrapattr_counts_what_is_read(pool: shoal.Pool, screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 5000)

    def work(_: int) -> int:
        with (
            (tmp_path / "data").open("rb") as file,
            shoal.tqdm.wrapattr(file, "read", total=5000, desc="read") as reader,
        ):
            return len(reader.read())

    assert pool.map(work, [0]) == [5000]
    assert any("read: 100%" in line and "4.88k/4.88k" in line for line in screen.lines)


def test_one_that_is_not_to_be_left_is_gone_at_its_end(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> None:
        for _ in shoal.tqdm(range(10), desc="part", leave=False):
            pass

    pool.map(work, range(2))
    assert not any(line.startswith("part: 100%") for line in screen.lines)
    assert drawn_bars() == 0


def test_an_error_in_its_loop_closes_it_with_the_items_done(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> None:
        for number in shoal.tqdm([3, 2, 1, 0, 5]):
            1 // number

    with pytest.raises(ZeroDivisionError):
        pool.map(work, [0])
    assert eventually(lambda: drawn_bars() == 0)
    assert any("3/5" in line for line in screen.lines)


def test_a_worker_that_drops_it_ends_it(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> None:
        shoal.tqdm(total=5, desc="dropped").update(2)

    pool.map(work, [0])
    assert drawn_bars() == 0
    assert any(line.startswith("dropped:  40%") for line in screen.lines)


@pytest.mark.parametrize("leave", [True, False])
def test_the_bar_of_a_killed_worker_is_ended(pool: shoal.Pool, screen: Screen, leave: bool) -> None:
    def work() -> None:
        bar = shoal.tqdm(total=5, desc="killed", leave=leave)
        bar.update(2)
        bar.set_postfix_str("last words")
        os.kill(os.getpid(), signal.SIGKILL)

    with shoal.tqdm(total=3, desc="outer") as outer:
        with pytest.raises(shoal.WorkerDied):
            pool.apply(work)
        assert eventually(lambda: drawn_bars() == 1)
        with outer.get_lock():
            pass  # its last line is drawn under it
        assert any(line.startswith("killed:  40%") and "last words" in line for line in screen.lines) == leave
        outer.update()
        assert eventually(lambda: "1/3" in screen.lines[-1])


def test_a_disabled_one_counts_and_is_not_drawn(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> int:
        bar = shoal.tqdm(range(3), disable=True)
        return len(list(bar)) + int(bar.n)

    assert pool.map(work, [0]) == [6]
    assert screen.err == ""


def test_the_client_decides_whether_its_standard_error_is_a_terminal(pool: shoal.Pool, screen: Screen) -> None:
    assert pool.map(lambda _: len(list(shoal.tqdm(range(3), disable=None))), [0]) == [3]
    assert screen.err == ""


def test_a_bar_for_a_file_of_the_workers_own_is_drawn_there(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> str:
        file = io.StringIO()
        list(shoal.tqdm(range(3), file=file))
        return file.getvalue()

    assert "3/3" in pool.map(work, [0])[0]
    assert screen.err == ""


def test_it_travels_home_and_goes_on_there(pool: shoal.Pool, screen: Screen) -> None:
    def work(_: int) -> Any:
        made.append(shoal.tqdm(total=5, desc="kept"))
        return made[0]

    made: list[Any] = []
    bar = pool.map(work, [0])[0]
    bar.update(4)
    bar.close()
    assert any(line.startswith("kept:  80%") for line in screen.lines)


def test_bars_of_workers_of_workers_are_drawn_by_the_first_client(pool: shoal.Pool, screen: Screen) -> None:
    def outer(_: int) -> None:
        with shoal.Pool(1) as pool:
            pool.map(inner, [0])

    def inner(_: int) -> None:
        for _ in shoal.tqdm(range(3), desc="innermost"):
            pass

    pool.map(outer, [0])
    # The inner worker may not have waited for the screen.
    assert eventually(lambda: any(line.startswith("innermost: 100%") for line in screen.lines))


class Eager(tqdm.std.tqdm):  # type: ignore[type-arg]
    """A class with a way of its own to update."""

    def update(self, n: float | None = 1) -> bool | None:
        return super().update(100 * (n or 0))


def test_an_ordinary_bar_of_tqdm_that_a_worker_makes_is_drawn_by_the_client_too(
    pool: shoal.Pool, screen: Screen
) -> None:
    def work(_: int) -> tuple[bool, Any, list[str]]:
        from tqdm import tqdm, trange
        from tqdm.auto import tqdm as auto

        list(auto("abc", desc="auto"))
        with tqdm(total=3, desc="ordinary") as bar:
            for _ in trange(2, desc="nested", leave=False):
                bar.update()
            bar.set_postfix(a=1)
            bar.write("written")
        return isinstance(bar, tqdm), bar.n, sorted(name for name in vars(tqdm) if name.startswith("update"))

    with shoal.tqdm(total=1, desc="outer"):
        assert pool.map(work, [0]) == [(True, 2, ["update"])]
        assert any(line.startswith("ordinary:  67%") and "a=1" in line for line in screen.lines)
        assert any(line.startswith("auto: 100%") for line in screen.lines)
        assert not any(line.startswith("nested: 100%") for line in screen.lines)
    assert screen.out == "written\n"


def test_one_of_a_class_with_ways_of_its_own_or_for_another_place_stays_the_workers(
    pool: shoal.Pool, screen: Screen
) -> None:
    def work(_: int) -> Any:
        eager = Eager(total=300)
        eager.update(2)
        file = io.StringIO()
        list(tqdm.std.tqdm("abc", file=file))
        eager.disable = True
        return eager.n, "3/3" in file.getvalue(), len(list(tqdm.std.tqdm("abc", disable=True)))

    with shoal.tqdm(total=1, desc="outer"):
        assert pool.map(work, [0]) == [(200, True, 3)]
        assert "3/3" not in screen.err and drawn_bars() == 1


def test_write_in_a_worker_prints_above_the_bars(pool: shoal.Pool, screen: Screen) -> None:
    with shoal.tqdm(total=2, desc="bar") as bar:

        def work(i: int) -> None:
            bar.write(f"line {i}")
            shoal.tqdm.write(f"warning {i}", file=sys.stderr, end="!\n")

        pool.map(work, range(2))
        # Before the result is there the text is.
        assert sorted(screen.out.splitlines()) == ["line 0", "line 1"]
        assert sorted(line for line in screen.lines if "warning" in line) == ["warning 0!", "warning 1!"]
        assert "bar:   0%" in screen.lines[-1]


def test_text_of_any_length_is_written(pool: shoal.Pool, screen: Screen) -> None:
    with shoal.tqdm(total=2) as bar:
        pool.apply(bar.write, ("x" * 3_000_000,))
    assert len(screen.out) == 3_000_001 and set(screen.out) == {"x", "\n"}


def test_the_thread_comes_when_a_worker_has_something_to_show_and_goes_when_it_has_not(run: Run) -> None:
    program = run("""
        import threading, time, sys
        import shoal

        started, start = [], threading.Thread.start

        def noted(thread):
            started.append(thread.name)
            start(thread)

        threading.Thread.start = noted

        def threads():
            return [thread.name for thread in threading.enumerate()]

        def work(_):
            for _ in shoal.tqdm(range(3), desc="part"):
                pass

        with shoal.Pool(1) as pool:
            pool.map(abs, [1])
            assert "tqdm" not in sys.modules and threads() == ["MainThread"], threads()
            for _ in range(2):
                started.clear()
                pool.map(work, [0])
                assert set(started) == {"shoal-bars"}, started
                end = time.monotonic() + 60
                while len(threads()) > 1 and time.monotonic() < end:
                    time.sleep(0.01)
                assert threads() == ["MainThread"], threads()
        print("done")
    """)
    assert program.stdout == "done\n", program.stderr
    # It may be drawn more than once when it is complete.
    lines = [line for line in seen(program.stderr) if line.startswith("part: 100%")]
    assert len(lines) == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_process_of_multiprocessing_that_has_a_bar_shows_its_own_with_it(method: str, run: Run) -> None:
    program = run(f"""
        import multiprocessing
        import shoal

        def work(outer):
            for _ in shoal.tqdm(range(3), desc="inner"):
                outer.update()

        if __name__ == "__main__":
            with shoal.tqdm(total=3, desc="outer", bar_format="{{desc}} {{n}} at {{postfix}}") as outer:
                process = multiprocessing.get_context("{method}").Process(target=work, args=(outer,))
                process.start()
                process.join()
                from shoal.progress.screen import screen
                outer.set_postfix_str(f"{{len(screen._visitors)}} visitor")
    """)
    assert program.returncode == 0, program.stderr
    assert "inner: 100%" in program.stderr
    assert "outer 3 at , " in program.stderr


def test_a_worker_whose_client_is_gone_draws_nothing_and_goes_on(run: Run, tmp_path: Path) -> None:
    program = run("""
        import os, shoal
        from pathlib import Path

        def work():
            for i in shoal.tqdm(range(3)):
                os.kill(os.getppid(), 0)
            return i

        with shoal.Pool(1) as pool:
            bar = shoal.tqdm(total=1)
            from shoal.progress.screen import screen
            screen.end()
            print(pool.apply(work))
    """)
    assert program.stdout == "2\n", program.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_killed_at_any_moment_leave_no_bar_and_hurt_no_other(screen: Screen) -> None:
    def work(i: int) -> None:
        import threading

        threading.Timer(i % 50 / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for _ in shoal.tqdm(range(5), desc="part", leave=False):
                outer.update()
            outer.set_postfix_str(f"{i}" * 200)
            outer.write(f"{i}")

    with shoal.tqdm(total=100, desc="outer") as outer, shoal.Pool(3) as pool:
        results = [pool.apply_async(work, (i,)) for i in range(100)]
        for result in results:
            with pytest.raises(shoal.WorkerDied):
                result.get(200)
        assert eventually(lambda: drawn_bars() == 1)
        assert pool.apply(lambda: outer.desc) == "outer"
        before = outer.n
        pool.apply(outer.update)
        assert outer.n == before + 1
