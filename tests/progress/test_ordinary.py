"""Ordinary bars of tqdm that travel: what arrives is one of shoal's, and the original moves."""

import copy
import io
import pickle
import sys
import threading
from typing import Any

import pytest
import tqdm
import tqdm.auto
import tqdm.std

import shoal
from tests.conftest import Run
from tests.pool.support import eventually


class MyBar(tqdm.tqdm):
    """A class of a program's own."""


CLASSES = [tqdm.std.tqdm, tqdm.auto.tqdm, MyBar]


class Extractor:
    """Holds what real objects hold."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def extract(self, i: int) -> int:
        self.bar.update()
        self.bar.set_postfix(i="x")
        return i


def last_line(file: io.StringIO) -> str:
    return file.getvalue().rstrip("\n").rpartition("\r")[2].rpartition("\n")[2]


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_bar_in_an_object_moves_when_workers_update_it(pool: shoal.Pool, file: io.StringIO, cls: Any) -> None:
    bar = cls(total=64, file=file, desc="extract", initial=4)
    assert pool.map(Extractor(bar).extract, range(60)) == list(range(60))
    assert (bar.n, bar.postfix) == (64, "i=x")
    bar.close()
    assert "extract: 100%" in last_line(file) and "64/64" in last_line(file)


def test_a_bar_as_an_argument_in_a_container_and_in_a_closure_is_the_same_one(
    pool: shoal.Pool, file: io.StringIO
) -> None:
    bar = tqdm.tqdm(total=30, file=file)

    def work(argument: Any) -> None:
        for one in (bar, argument["bars"][0]):
            one.update()

    pool.apply(work, ({"bars": [bar]},))
    pool.map(bar.update, [3, 4])
    assert bar.n == 9
    bar.close()


def test_the_original_stays_the_object_that_it_is(pool: shoal.Pool, file: io.StringIO) -> None:
    bar = tqdm.tqdm(total=30, file=file, unit="page")
    identity, name = id(bar), repr(type(bar))
    back = pool.apply(lambda bar: (isinstance(bar, tqdm.tqdm), isinstance(bar, shoal.tqdm), bar), (bar,))
    assert back == (True, True, bar) and back[2] is bar
    assert (id(bar), repr(type(bar)), bar.unit) == (identity, name, "page")
    bar.update(2)
    assert bar.n == 2 and eventually(lambda: "2/30" in last_line(file))
    bar.reset(total=5)
    assert (bar.n, bar.total) == (0, 5)
    bar.close()


@pytest.mark.parametrize("disable", [True, None])
def test_a_disabled_bar_counts_too(pool: shoal.Pool, file: io.StringIO, disable: bool | None) -> None:
    bar = tqdm.tqdm(total=64, file=file, disable=disable)
    pool.map(Extractor(bar).extract, range(64))
    assert (bar.n, file.getvalue()) == (64, "")
    bar.close()


def test_a_loop_over_a_bar_that_travels_meanwhile_goes_on(pool: shoal.Pool, file: io.StringIO) -> None:
    bar = tqdm.tqdm(range(40), file=file, mininterval=0, miniters=1)
    seen = []
    for i in bar:
        if i == 10:
            pool.apply(lambda bar: bar.set_postfix(looked=1), (bar,))
        seen.append(bar.n)
    assert seen == sorted(seen) and max(seen) <= 40
    assert (bar.n, bar.postfix) == (40, "looked=1")
    assert "40/40" in last_line(file)


def test_threads_that_send_it_at_once_send_one_bar(pool: shoal.Pool, file: io.StringIO) -> None:
    bar = tqdm.tqdm(total=400, file=file)
    threads = [threading.Thread(target=pool.map, args=(Extractor(bar).extract, range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bar.n == 400
    bar.close()


def test_bars_that_do_not_travel_are_as_they_always_were(run: Run) -> None:
    program = run("""
        import copy, io, pickle, shoal, tqdm

        bar, other = tqdm.tqdm(total=3, file=io.StringIO()), tqdm.tqdm(total=3, file=io.StringIO())
        with shoal.Pool(1) as pool:
            pool.apply(bar.update)
        copied = copy.copy(other)
        other.update(1)
        assert type(other) is type(copied) is tqdm.tqdm and (other.n, copied.n) == (1, 0)
        try:
            pickle.dumps(other)
        except (TypeError, AttributeError):
            print("done")
        bar.close(); other.close()
    """)
    assert program.stdout == "done\n", program.stderr


def test_the_programs_that_people_write_first_work(run: Run) -> None:
    # As multiprocessing would have it: TypeError: cannot pickle '_io.TextIOWrapper' object.
    program = run("""
        import shoal
        import tqdm

        class Extractor:
            def __init__(self):
                self.bar = tqdm.tqdm(total=64, disable=None)

            def extract(self, i):
                self.bar.update(1)

            def run(self):
                with shoal.Pool(2) as pool:
                    pool.map(self.extract, range(64))
                assert self.bar.n == 64, self.bar.n

        def step(bar, n):
            for _ in range(n):
                bar.update(1)

        Extractor().run()
        bar = tqdm.tqdm(total=5000)
        with shoal.Pool(2) as pool:
            for result in [pool.apply_async(step, (bar, 50)) for _ in range(100)]:
                result.get(100)
        assert bar.n == 5000, bar.n
        bar.close()
        print("done")
    """)
    assert program.stdout == "done\n", program.stderr
    assert "5000/5000" in program.stderr.splitlines()[-1]


def test_a_bar_that_was_sent_is_closed_when_it_is_dropped(pool: shoal.Pool, file: io.StringIO) -> None:
    bar = tqdm.tqdm(total=5, file=file)
    pool.apply(bar.update, (2,))
    del bar
    assert eventually(lambda: file.getvalue().endswith("\n"))
    assert "2/5" in last_line(file)


@pytest.mark.parametrize("module", ["tqdm.gui", "tqdm.tk"])
def test_a_bar_that_only_its_own_thread_can_draw_is_refused(pool: shoal.Pool, module: str) -> None:
    window = type("tqdm_gui", (tqdm.std.tqdm,), {"__module__": module})(total=3, gui=True)
    with pytest.raises(shoal.SerializationError, match=f"a bar of {module} can't travel"):
        pool.apply(abs, (window,))
    window.disable = True


def test_a_copy_of_one_that_was_sent_is_itself(pool: shoal.Pool, file: io.StringIO) -> None:
    bar = tqdm.tqdm(total=5, file=file)
    pool.apply(bar.update)
    assert copy.copy(bar) is bar and pickle.loads(pickle.dumps(bar)) is bar
    bar.close()


def test_nothing_of_tqdm_is_imported_for_who_has_no_bars(run: Run) -> None:
    program = run("""
        import sys, shoal
        with shoal.Pool(1) as pool:
            assert not pool.apply(lambda: [name for name in __import__("sys").modules if name.startswith("tqdm")])
        print([name for name in sys.modules if name.startswith("tqdm")])
    """)
    assert program.stdout == "[]\n", program.stderr


def test_standard_error_may_be_missing(pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    bar = shoal.tqdm(total=3, disable=True)
    pool.apply(bar.update, (2,))
    assert bar.n == 2
