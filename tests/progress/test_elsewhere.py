"""A bar in another process than the one that draws it: there it is the same bar."""

import copy
import io
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest
from tqdm.auto import tqdm as ordinary_tqdm

import shoal
from shoal.progress.door import door
from shoal.progress.line import Line
from tests.pool.support import eventually

# Gets a bar on its standard input, and does with it what its argument says, however long the screen takes to answer.
STRANGER = (
    "import pickle, sys, shoal.progress.line; shoal.progress.line.PATIENCE = 100.0; "
    "bar = pickle.load(sys.stdin.buffer); exec(sys.argv[1])"
)


def elsewhere(bar: Any, code: str, stderr: int | None = None) -> None:
    """Runs `code` in a process that has nothing of this one's but the pickled bar."""
    subprocess.run([sys.executable, "-c", STRANGER, code], input=pickle.dumps(bar), check=True, timeout=150)


def last_line(file: io.StringIO) -> str:
    return file.getvalue().rstrip("\n").rpartition("\r")[2].rpartition("\n")[2]


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def bar(file: io.StringIO) -> Iterator[Any]:
    with shoal.tqdm(total=10, desc="walk", file=file) as bar:
        yield bar


# ---- the same bar ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bar_that_comes_home_is_itself(bar: Any, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(bar, protocol)) is bar
    assert pickle.loads(cloudpickle.dumps(bar)) is bar


def test_a_copy_is_the_bar(bar: Any) -> None:
    assert copy.copy(bar) is bar
    assert copy.deepcopy({"bar": bar})["bar"] is bar


def test_a_bar_arrives_as_one_of_tqdm_with_all_it_had(pool: shoal.Pool, bar: Any) -> None:
    bar.update(3)
    bar.set_postfix(loss=0.5)

    def look(bar: Any) -> Any:
        return isinstance(bar, shoal.tqdm), isinstance(bar, ordinary_tqdm), bar.n, bar.total, bar.desc, bar.postfix

    assert pool.apply(look, (bar,)) == (True, True, 3, 10, "walk", "loss=0.5")
    assert pool.apply(str, (bar,)).startswith("walk:  30%|")


def test_a_bar_is_one_object_in_a_process_as_long_as_somebody_has_it(pool: shoal.Pool, bar: Any) -> None:
    def same(bars: list[Any]) -> bool:
        return bars[0] is pickle.loads(pickle.dumps(bars[0])) and bars[0] is copy.copy(bars[1])

    assert pool.apply(same, ([bar, bar],))


def test_a_bar_comes_back_from_a_worker_as_itself(pool: shoal.Pool, bar: Any) -> None:
    assert pool.apply(lambda bar: [bar], (bar,))[0] is bar


def test_its_iterable_stays_where_it_is(pool: shoal.Pool, file: io.StringIO) -> None:
    with shoal.tqdm(iter(range(5)), total=5, file=file) as bar:
        assert pool.apply(lambda bar: bar.iterable, (bar,)) is None


# ---- counting --------------------------------------------------------------------------------------------------------


def test_what_is_counted_elsewhere_is_drawn_here(bar: Any, file: io.StringIO) -> None:
    elsewhere(bar, "bar.update(); bar.update(5); bar.update(n=-2); bar.update(0.5)")
    assert bar.n == 4.5
    assert eventually(lambda: "4.5/10" in last_line(file))


def test_the_count_is_one_wherever_it_is_read_and_set(pool: shoal.Pool, bar: Any) -> None:
    def work(bar: Any) -> int:
        bar.n = 7
        bar.update()
        return int(bar.n)

    bar.update(3)
    assert pool.apply(work, (bar,)) == 8 == bar.n


def test_workers_update_it_from_a_closure_all_at_once(pool: shoal.Pool, file: io.StringIO) -> None:
    with shoal.tqdm(total=500, file=file) as bar:
        pool.map(lambda _: bar.update(), range(500))
        assert bar.n == 500
    assert "500/500" in last_line(file)


@pytest.mark.parametrize("amount", ["1", None], ids=repr)
def test_anything_but_a_number_is_refused_there_too(pool: shoal.Pool, bar: Any, amount: Any) -> None:
    with pytest.raises(TypeError, match=r"^n must be a number"):
        pool.apply(bar.update, (amount,))


@pytest.mark.parametrize("state", ["disabled", "closed"])
def test_a_bar_that_is_not_drawn_counts_what_workers_do(pool: shoal.Pool, file: io.StringIO, state: str) -> None:
    bar = shoal.tqdm(total=50, disable=state == "disabled", file=file)
    if state == "closed":
        bar.close()
    drawn = file.getvalue()
    pool.map(lambda _: (bar.update(), bar.set_postfix(a=1), bar.refresh(), bar.close()), range(50))
    assert (bar.n, file.getvalue()) == (50, drawn)


# ---- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, shown",
    [
        ("bar.set_description('run')", "run:   0%"),
        ("bar.set_description_str('run, run')", "run, run:   0%"),
        ("bar.set_postfix(loss=0.25, epoch=3)", "epoch=3, loss=0.25]"),
        ("bar.set_postfix({'loss': 0.25})", "loss=0.25]"),
        ("bar.set_postfix_str('nearly done')", "nearly done]"),
        ("bar.set_postfix_str('wait', refresh=False)", "wait]"),
        ("bar.total = 40", "0/40"),
        ("bar.unit = 'page'", "page/s"),
        ("bar.update(3); bar.total = 12; bar.set_description('both')", "both:  25%"),
        ("bar.update(3); bar.reset()", "0/10"),
        ("bar.update(3); bar.reset(total=20)", "0/20"),
        ("bar.update(3); bar.reset(total=float('inf')); bar.update()", "1it"),
        ("bar.bar_format = '{n} of {total}'", "0 of 10"),
    ],
)
def test_what_is_changed_elsewhere_is_drawn_here(bar: Any, file: io.StringIO, code: str, shown: str) -> None:
    elsewhere(bar, code)
    assert eventually(lambda: shown in last_line(file)), last_line(file)


def test_what_is_changed_elsewhere_is_read_here_at_once(pool: shoal.Pool, bar: Any) -> None:
    def work(bar: Any) -> None:
        bar.set_description("run", refresh=False)
        bar.set_postfix(a=1, refresh=False)
        bar.total = 20

    pool.apply(work, (bar,))
    assert (bar.desc, bar.postfix, bar.total) == ("run: ", "a=1", 20)


def test_what_is_changed_here_is_read_elsewhere(pool: shoal.Pool, bar: Any) -> None:
    def look(_: int) -> Any:
        return bar.desc, bar.total

    assert pool.map(look, [0]) == [("walk", 10)]
    bar.set_description("run")
    bar.total = 30
    assert pool.map(look, [0]) == [("run: ", 30)]


def test_the_last_change_counts_whoever_made_it(pool: shoal.Pool, bar: Any) -> None:
    for turn in range(3):
        pool.apply(bar.set_description_str, (f"worker {turn}",))
        assert bar.desc == f"worker {turn}"
        bar.set_description_str(f"client {turn}")
        assert pool.apply(lambda bar: bar.desc, (bar,)) == f"client {turn}"


def test_changes_of_different_things_at_once_are_all_kept(pool: shoal.Pool, bar: Any) -> None:
    def work(i: int) -> None:
        if i % 2:
            bar.set_postfix_str(f"p{i}")
        else:
            bar.set_description_str(f"d{i}")

    pool.map(work, range(200), chunksize=1)
    assert bar.desc.startswith("d") and bar.postfix.startswith("p")


def test_a_text_wider_than_any_terminal_is_cut(pool: shoal.Pool, bar: Any) -> None:
    pool.apply(bar.set_postfix_str, ("€" * 10_000,))
    assert bar.postfix == "€" * len(bar.postfix) and 100 < len(bar.postfix) < 10_000
    assert bar.desc == "walk"


def test_clear_takes_it_off_the_screen_and_refresh_brings_it_back(bar: Any, file: io.StringIO) -> None:
    elsewhere(bar, "bar.clear()")
    assert eventually(lambda: last_line(file).strip() == "")
    elsewhere(bar, "bar.refresh()")
    assert eventually(lambda: "0/10" in last_line(file))


def test_the_time_begins_anew_with_reset(bar: Any) -> None:
    before = bar.start_t
    elsewhere(bar, "bar.reset()")
    assert bar.start_t > before


# ---- its end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["bar.close()", "with bar: bar.update(2)"])
def test_whoever_closes_it_ends_it_with_its_count(bar: Any, file: io.StringIO, code: str) -> None:
    bar.update(3)
    elsewhere(bar, code)
    # Close returns when it is done: here it has been.
    assert bar.disable
    assert f"{bar.n}/10" in last_line(file) and file.getvalue().endswith("\n")
    drawn = file.getvalue()
    bar.close()
    elsewhere(bar, "bar.close()")
    assert file.getvalue() == drawn


def test_closing_elsewhere_removes_a_bar_that_is_not_to_be_left(file: io.StringIO) -> None:
    bar = shoal.tqdm(total=10, file=file, leave=False)
    elsewhere(bar, "bar.close()")
    assert last_line(file).strip() == "" and not file.getvalue().endswith("\n")


def test_a_process_that_drops_it_or_ends_leaves_it_as_it_is(bar: Any, file: io.StringIO) -> None:
    before = file.getvalue()
    elsewhere(bar, "del bar; import gc; gc.collect()")
    assert not bar.disable and not file.getvalue().removeprefix(before).endswith("\n")
    bar.update()
    assert eventually(lambda: "1/10" in last_line(file))


def test_a_bar_whose_owner_has_ended_counts_and_does_no_harm() -> None:
    owner = "import pickle, shoal, sys; sys.stdout.buffer.write(pickle.dumps(shoal.tqdm(total=5)))"
    made = subprocess.run([sys.executable, "-c", owner], capture_output=True, check=True, timeout=150)
    with pytest.raises(shoal.ShoalError):
        pickle.loads(made.stdout)


# ---- other processes -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_process_of_multiprocessing_updates_it(method: str, bar: Any, file: io.StringIO) -> None:
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_work, args=(bar,))
    process.start()
    process.join()
    assert (process.exitcode, bar.n, bar.desc) == (0, 7, "there: ")
    assert eventually(lambda: "there:  70%" in last_line(file))


def _work(bar: Any) -> None:
    bar.update(7)
    bar.set_description("there")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_child_of_a_fork_has_the_bar_too_though_it_was_never_pickled(bar: Any, file: io.StringIO) -> None:
    if (pid := os.fork()) == 0:
        try:
            bar.update(4)
            bar.set_postfix(child="yes")
            bar.reset(total=20)
            bar.update(5)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (bar.n, bar.total, bar.postfix) == (5, 20, "child=yes")
    assert eventually(lambda: "5/20" in last_line(file))


def test_a_bar_goes_on_from_process_to_process(pool: shoal.Pool, bar: Any) -> None:
    def work(bar: Any) -> None:
        with shoal.Pool(1) as pool:
            pool.apply(bar.update, (3,))
            pool.apply(bar.set_description, ("far",))

    pool.apply(work, (bar,))
    assert (bar.n, bar.desc) == (3, "far: ")


def test_a_worker_that_dies_while_it_changes_a_bar_damages_nothing(
    pool: shoal.Pool, bar: Any, file: io.StringIO
) -> None:
    def work(_: int) -> None:
        import signal
        import threading

        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
        while True:
            bar.set_postfix_str("x" * 400)

    for _ in range(5):
        with pytest.raises(shoal.WorkerDied):
            pool.apply(work, (0,))
        # Who reads waits for the lock of the dead for a second only.
        assert bar.shared.lock.acquire(timeout=100)
        bar.shared.lock.release()
        # What was there, or what it wrote: nothing in between.
        assert bar.postfix in (None, "alive", "x" * 400) and bar.desc == "walk"
        pool.apply(bar.set_postfix_str, ("alive",))
        assert bar.postfix == "alive"


def test_text_that_a_slow_screen_prints_later_is_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()
    monkeypatch.setattr(shoal.progress.line, "PATIENCE", 0.01)
    line = Line(door().address)
    here.settimeout(0.01)
    line._socket = here  # type: ignore[assignment]
    assert line.ask("write", "a line", "stdout", "\n")
    # What it does not even take is for the one who asks to print.
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    assert not line.ask("write", "x" * 10_000_000, "stdout", "\n")
    there.close()
