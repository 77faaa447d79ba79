"""`shoal.tqdm` in the process that made it: tqdm, but counted in shared memory and drawn by one thread."""

import asyncio
import gc
import io
import pickle
import sys
import threading
from fractions import Fraction
from typing import Any

import numpy
import pytest
from tqdm.auto import tqdm as ordinary_tqdm

import shoal
from shoal.progress.shared import Shared
from tests.pool.support import eventually
from tests.progress.terminal import seen

THREAD = "shoal-bars"


def renderers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def last_line(file: io.StringIO) -> str:
    return file.getvalue().rstrip("\n").rpartition("\r")[2].rpartition("\n")[2]


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


def test_it_passes_on_what_it_iterates_over_and_counts_it(file: io.StringIO) -> None:
    bar = shoal.tqdm("abc", file=file)
    assert (list(bar), bar.n, bar.total) == (["a", "b", "c"], 3, 3)
    assert "3/3" in last_line(file)
    assert file.getvalue().endswith("\n")


def test_it_is_a_tqdm_and_takes_its_arguments(file: io.StringIO) -> None:
    with shoal.tqdm(
        None, "reading", 7, file=file, unit="page", initial=2, bar_format="{desc} {n}/{total} {unit}"
    ) as bar:
        assert isinstance(bar, ordinary_tqdm)
        bar.update(2)
    assert last_line(file) == "reading 4/7 page"


def test_an_unknown_argument_is_tqdms_error(file: io.StringIO) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        shoal.tqdm(file=file, nonsense=1)


@pytest.mark.parametrize("amount", [1, 5, -2, numpy.int64(3), True], ids=repr)
def test_update_adds_any_integer(file: io.StringIO, amount: Any) -> None:
    with shoal.tqdm(total=20, initial=5, file=file) as bar:
        bar.update(amount)
        bar.update(n=amount)
        bar.update()
        assert bar.n == 5 + 2 * int(amount) + 1


@pytest.mark.parametrize("amount", [0.5, numpy.float32(0.25), Fraction(1, 4)], ids=repr)
def test_update_adds_any_fraction(file: io.StringIO, amount: Any) -> None:
    with shoal.tqdm(total=20, initial=float(amount), file=file) as bar:
        bar.update(2)
        bar.update(amount)
        assert bar.n == 2 + 2 * float(amount)
        bar.n = amount
        assert bar.n == float(amount)
        bar.n = 3
        assert repr(bar.n) == "3"


@pytest.mark.parametrize("amount", ["1", None, [1], 1j], ids=repr)
def test_anything_but_a_number_is_refused_by_the_name_of_the_argument(file: io.StringIO, amount: Any) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        with pytest.raises(TypeError, match=r"^n must be a number"):
            bar.update(amount)
        with pytest.raises(TypeError, match=r"^n must be a number"):
            bar.n = amount
        assert bar.n == 0
    with pytest.raises(TypeError, match=r"^initial must be a number"):
        shoal.tqdm(total=10, file=file, initial=amount)


def test_a_count_that_does_not_fit_into_64_bits_is_refused_and_the_count_stays(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file, initial=2**63 - 1) as bar:
        for amount in (1, 2**64):
            with pytest.raises(OverflowError, match="64 bits"):
                bar.update(amount)
        assert bar.n == 2**63 - 1


def test_n_can_be_set_and_reset(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        bar.n = 6
        bar.refresh()
        assert "6/10" in last_line(file)
        bar.reset(total=20)
        assert "0/20" in last_line(file)
        bar.update()
        assert bar.n == 1


def test_the_thread_draws_what_update_counted(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        bar.update(4)
        assert eventually(lambda: "4/10" in last_line(file))
        bar.update(2)
        assert eventually(lambda: "6/10" in last_line(file))


def test_update_itself_never_draws(file: io.StringIO) -> None:
    bar: Any
    with shoal.tqdm(total=10, file=file) as bar, bar.get_lock():  # the thread can't draw, nor need update wait for it
        before = file.getvalue()
        bar.update(5)
        assert file.getvalue() == before


def test_mininterval_and_miniters_are_respected(file: io.StringIO) -> None:
    slow = shoal.tqdm(total=10, file=file, mininterval=1e6)
    coarse = shoal.tqdm(total=10, file=file, miniters=5, maxinterval=0)
    with shoal.tqdm(total=10, file=(other := io.StringIO())) as witness:
        before = file.getvalue()
        for _ in range(3):  # all bars get their turn in a round of the thread
            slow.update()
            coarse.update()
            witness.update()
            assert eventually(lambda: f"{witness.n}/10" in last_line(other))
        assert file.getvalue() == before
        coarse.update(2)
        assert eventually(lambda: "5/10" in file.getvalue())
    coarse.close()
    slow.close()
    assert "3/10" in file.getvalue()


@pytest.mark.parametrize("count", [0, 1, 997])
def test_the_final_count_is_exact(file: io.StringIO, count: int) -> None:
    with shoal.tqdm(total=1000, file=file, mininterval=1e6) as bar:
        for _ in range(count):
            bar.update()
    assert f" {count}/1000" in last_line(file)


def test_the_rate_while_it_runs_is_of_late_and_at_the_end_of_all_the_time(file: io.StringIO) -> None:
    bar = shoal.tqdm(total=10, file=file)
    bar.update(4)
    assert eventually(lambda: "4/10" in last_line(file))
    assert bar.format_dict["rate"] > 0
    bar.close()
    assert bar.format_dict["rate"] is None


def test_leave_false_removes_it(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file, leave=False) as bar:
        bar.update(3)
    assert last_line(file).strip() == ""


def test_a_disabled_bar_draws_nothing_and_counts(file: io.StringIO) -> None:
    bar = shoal.tqdm(range(3), file=file, disable=True)
    assert list(bar) == [0, 1, 2]
    bar.update(4)
    assert (bar.n, file.getvalue()) == (7, "")


def test_a_closed_bar_draws_nothing_more_and_counts(file: io.StringIO) -> None:
    bar = shoal.tqdm(total=3, file=file)
    bar.close()
    drawn = file.getvalue()
    bar.update()
    bar.close()
    bar.refresh()
    assert (bar.n, file.getvalue()) == (1, drawn)


def test_leaving_a_loop_closes_the_bar_with_the_items_done(file: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError):
        for number in shoal.tqdm([3, 2, 1, 0, 5], file=file):
            1 // number
    gc.collect()
    assert "3/5" in last_line(file)


def test_a_bar_that_is_dropped_is_closed(file: io.StringIO) -> None:
    bar = shoal.tqdm(total=5, file=file)
    bar.update(2)
    del bar
    assert eventually(lambda: gc.collect() is not None and file.getvalue().endswith("\n"))
    assert "2/5" in last_line(file)


def test_one_thread_draws_all_bars_and_ends_with_the_last_of_them() -> None:
    # That of the bars before may be about to end.
    assert eventually(lambda: gc.collect() >= 0 and not renderers())
    bars = [shoal.tqdm(total=5, file=io.StringIO()) for _ in range(5)]
    assert len(renderers()) == 1
    assert renderers()[0].daemon
    for bar in bars[1:]:
        bar.close()
    bars[0].update()
    assert eventually(lambda: "1/5" in last_line(bars[0].fp))
    bars[0].close()
    assert eventually(lambda: not renderers())
    with shoal.tqdm(total=5, file=io.StringIO()) as bar:
        bar.update()
        assert eventually(lambda: "1/5" in last_line(bar.fp))


def test_a_bar_that_cannot_be_drawn_does_not_stop_the_others(file: io.StringIO) -> None:
    class Full(io.StringIO):
        full = False

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    with shoal.tqdm(total=5, file=(disk := Full())) as broken, shoal.tqdm(total=5, file=file) as bar:
        disk.full = True
        broken.update()
        for _ in range(3):
            bar.update()
            assert eventually(lambda: f"{bar.n}/5" in last_line(file))
        with pytest.raises(OSError, match="No space"):
            broken.close()


def test_text_that_comes_while_a_bar_is_being_made_comes_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    drawn, written = threading.Event(), threading.Event()

    class Slow(shoal.tqdm[Any]):
        def refresh(self, *args: Any, **kwargs: Any) -> Any:
            super().refresh(*args, **kwargs)
            if not drawn.is_set():
                drawn.set()
                # Whoever writes waits until the bar is made; if it does not, it has the time to.
                written.wait(0.3)

    def write() -> None:
        drawn.wait()
        shoal.tqdm.write("text", file=sys.stderr)
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    with Slow(total=5):
        writer.join()
    text, bar = seen(capsys.readouterr().err)
    assert text == "text" and "0/5" in bar


def test_text_that_comes_while_a_bar_is_closed_elsewhere_comes_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    with shoal.tqdm(total=5) as bar:
        there = pickle.loads(pickle.dumps(bar)).shared.parts
        with bar.get_lock():  # type: ignore[no-untyped-call]  # the thread can't take it off the screen yet
            Shared(*there).change({"disable": True})
            shoal.tqdm.write("text", file=sys.stderr)
        assert eventually(lambda: bar.disable)
    text, line = seen(capsys.readouterr().err)
    assert text == "text" and "0/5" in line


def test_threads_update_together(file: io.StringIO) -> None:
    def work() -> None:
        for _ in range(500):
            bar.update()

    with shoal.tqdm(total=2000, file=file) as bar:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "2000/2000" in last_line(file)


def test_it_iterates_asynchronously_as_tqdm_does(file: io.StringIO) -> None:
    async def numbers() -> Any:
        for number in range(3):
            yield number

    async def collect() -> list[int]:
        return [number async for number in shoal.tqdm(numbers(), file=file)]

    assert asyncio.run(collect()) == [0, 1, 2]
    assert "3it" in last_line(file)
