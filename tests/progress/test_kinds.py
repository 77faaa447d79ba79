"""Bars of every kind that tqdm has: on a terminal, in a notebook, by rich."""

import io
import pickle
import subprocess
import sys
from typing import Any

import pytest
import rich.console
import tqdm.auto
import tqdm.notebook
import tqdm.rich
import tqdm.std

import shoal
import shoal.progress.notebook
import shoal.progress.rich
import shoal.progress.std
from tests.conftest import Run
from tests.pool.support import eventually

pytestmark = [
    pytest.mark.filterwarnings("ignore:rich is experimental"),
    # tqdm's notebook bars are widgets, of which each has a comm that nobody listens to here.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def widgets(bar: Any) -> tuple[str, float, str]:
    """The text to the left, the value and the text to the right of a bar in a notebook."""
    left, value, right = bar.container.children
    return left.value.replace("\u2007", " "), value.value, right.value.replace("\u2007", " ")


@pytest.mark.parametrize("kind", ["std", "notebook", "rich"])
def test_each_kind_is_a_bar_of_tqdms_module_of_that_name(kind: str) -> None:
    ours, theirs = getattr(shoal.progress, kind), getattr(tqdm, kind)
    assert issubclass(ours.tqdm, theirs.tqdm)
    bar = ours.trange(3, disable=True)
    assert isinstance(bar, ours.tqdm) and list(bar) == [0, 1, 2]


def test_the_usual_kind_is_the_one_that_tqdm_chooses() -> None:
    assert issubclass(shoal.tqdm, tqdm.auto.tqdm)
    assert list(shoal.trange(2, 5, disable=True)) == [2, 3, 4]


@pytest.mark.parametrize("make", [shoal.progress.notebook.tqdm, tqdm.notebook.tqdm], ids=["shoal's", "tqdm's"])
def test_a_bar_in_a_notebook_moves_when_workers_update_it(
    pool: shoal.Pool, make: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = make(total=20, desc="cells")

    def work(i: int) -> None:
        bar.update()
        bar.set_postfix(done="yes")

    pool.map(work, range(5))
    assert bar.n == 5
    assert eventually(lambda: widgets(bar)[1] == 5)
    assert eventually(lambda: "5/20" in widgets(bar)[2] and "done=yes" in widgets(bar)[2])
    assert widgets(bar)[0].startswith("cells:  25%")
    pool.apply(bar.reset, (10,))
    assert eventually(lambda: "0/10" in widgets(bar)[2] and bar.container.children[1].max == 10)
    pool.map(work, range(10))
    bar.close()
    assert bar.container.children[1].bar_style == "success"


def test_a_bar_of_a_worker_is_a_widget_of_the_clients_notebook(
    pool: shoal.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        import shoal.progress.notebook

        bar = shoal.progress.notebook.tqdm(total=4, desc="there", colour="red", display=False)
        bar.update(3)
        (made := [bar])[0].set_postfix(a=1)
        return len(made)

    drawn: list[Any] = []
    original = shoal.progress.notebook.tqdm.visiting.__func__

    def visiting(cls: Any, *args: Any) -> Any:
        drawn.append(original(cls, *args))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shoal.progress.notebook.tqdm, "visiting", classmethod(visiting))
        assert pool.apply(work) == 1
        (bar,) = drawn
        assert eventually(lambda: bar.disable)
    assert widgets(bar)[0].startswith("there:  75%") and "a=1" in widgets(bar)[2] and bar.colour == "red"


def test_a_bar_of_rich_moves_when_workers_update_it(pool: shoal.Pool) -> None:
    output = io.StringIO()
    console = rich.console.Console(file=output, force_terminal=True, width=80)
    bar = shoal.progress.rich.tqdm(total=20, desc="files", options={"console": console})
    pool.map(lambda _: bar.update(), range(5))
    pool.apply(bar.set_description, ("more files",))
    assert bar.n == 5
    assert eventually(lambda: bar._prog.tasks[0].completed == 5)
    assert eventually(lambda: bar._prog.tasks[0].description == "more files: ")
    pool.apply(bar.update, (15,))
    bar.close()
    assert "20/20" in output.getvalue()


def test_a_total_that_is_changed_elsewhere_is_changed_in_rich(pool: shoal.Pool) -> None:
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=80)
    bar = shoal.progress.rich.tqdm(total=20, options={"console": console})

    def work(bar: Any) -> None:
        bar.total = 40

    pool.apply(work, (bar,))
    assert eventually(lambda: bar._prog.tasks[0].total == 40)
    bar.close()


def test_a_bar_of_rich_that_a_worker_makes_is_drawn_by_the_client(run: Run) -> None:
    program = run("""
        import warnings
        import shoal
        from shoal.progress.rich import tqdm

        warnings.simplefilter("ignore")

        def work(_):
            for _ in tqdm(range(3), desc="there"):
                pass

        with shoal.Pool(1) as pool:
            pool.map(work, [0])
    """)
    assert "there" in program.stdout and "3/3" in program.stdout, program.stderr


def test_whatever_kind_it_is_elsewhere_it_is_one_of_shoals(pool: shoal.Pool) -> None:
    for bar in (shoal.progress.std.tqdm(total=3, disable=True), tqdm.std.tqdm(total=3, disable=True)):
        assert pool.apply(lambda bar: (isinstance(bar, shoal.tqdm), bar.total), (bar,)) == (True, 3)
        code = "import pickle, sys; pickle.load(sys.stdin.buffer).update(2)"
        subprocess.run([sys.executable, "-c", code], input=pickle.dumps(bar), check=True, timeout=150)
        assert bar.n == 2


def test_what_the_client_cannot_draw_is_an_error_in_the_task(pool: shoal.Pool) -> None:
    def work() -> None:
        from shoal.progress.rich import tqdm

        tqdm(total=3, options={"console": 5})

    with pytest.raises(shoal.ShoalError, match="can't be shown: "):
        pool.apply(work)
