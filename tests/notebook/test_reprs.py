"""What a notebook shows of pools and arrays: short, cheap, escaped, at any time of their lives."""

import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy
import pytest

import shoal
from tests.conftest import Run
from tests.pool.support import eventually


def shown(obj: object) -> ElementTree.Element:
    """The HTML of an object. That it is well-formed says that nothing in it went unescaped."""
    html = obj._repr_html_()  # type: ignore[attr-defined]
    assert "<script" not in html
    return ElementTree.fromstring(f"<div>{html}</div>")


def text(element: ElementTree.Element, tag: str) -> list[str]:
    return ["".join(found.itertext()) for found in element.iter(tag)]


def wait_for(started: Path, gate: Path) -> None:
    started.touch()
    while not gate.exists():
        time.sleep(0.01)


MAKERS: dict[str, Callable[[], shoal.Pool | shoal.Executor]] = {
    "Pool": lambda: shoal.Pool(2),
    "Pool of threads": lambda: shoal.Pool(2, kind="thread"),
    "Executor": lambda: shoal.Executor(2),
}


@pytest.mark.parametrize("what", MAKERS)
def test_a_pool_shows_what_its_workers_are_at(what: str, tmp_path: Path) -> None:
    made = MAKERS[what]()
    started, gate = [tmp_path / f"started {number}" for number in range(2)], tmp_path / "gate"
    futures = [made.submit(wait_for, path, gate) for path in started]
    futures += [made.submit(abs, -1)]
    assert eventually(lambda: all(path.exists() for path in started))
    html = shown(made)
    assert text(html, "caption") == [f"shoal.{what.split()[0]}, running: 2 busy; 1 tasks queued, 2 under way"]
    assert text(html, "th") == ["worker", "pid", "state", "task", "for", "tasks", "used"]
    cells = text(html, "td")
    assert cells[0::7] == ["0", "1"]
    assert [int(pid) for pid in cells[1::7]] == [worker.pid for worker in made.workers]
    assert cells[3::7] == ["wait_for"] * 2
    assert all(took.endswith("s") for took in cells[4::7])
    gate.touch()
    for future in futures:
        future.result()
    end(made)


@pytest.mark.parametrize("what", MAKERS)
def test_a_pool_that_is_over_says_so(what: str) -> None:
    made = MAKERS[what]()
    made.submit(abs, -1).result()
    end(made)
    (caption,) = text(shown(made), "caption")
    assert "closed: 2 gone" in caption or "terminated: 2 gone" in caption


def end(made: shoal.Pool | shoal.Executor) -> None:
    if isinstance(made, shoal.Executor):
        made.shutdown()
    else:
        made.terminate()
        made.join()


def test_a_view_of_a_pool_can_be_shown(pool: shoal.Pool) -> None:
    pool.map(abs, range(10))
    assert len(text(shown(pool.options(timeout=5)), "tr")) == 3


def test_in_a_forked_child_it_is_closed(run: Run) -> None:
    ran = run("""
        import os, shoal, warnings

        warnings.simplefilter("ignore", DeprecationWarning)  # that is what it is about: a process with threads forks
        with shoal.Pool(2) as pool:
            pool.map(abs, range(10))
            if (child := os.fork()) == 0:
                print(repr(pool), pool._repr_html_(), sep="\\n", flush=True)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """)
    assert (ran.returncode, ran.stderr) == (0, "")
    name, html = ran.stdout.splitlines()
    assert name == "<shoal.Pool state=CLOSE pool_size=2>"
    assert "<caption>shoal.Pool, closed; 0 tasks queued, 0 under way</caption>" in html


def test_many_workers_do_not_fill_the_page() -> None:
    with shoal.Pool(20, kind="thread") as pool:
        cells = text(shown(pool), "td")
    assert cells[-7:] == ["12 more", "", "", "", "", "0", ""]
    assert len(cells) == 9 * 7


def test_reports_have_the_same_looks(pool: shoal.Pool) -> None:
    pool.map(abs, range(10))
    assert len(text(shown(pool.stats()), "tr")) == 4
    (sentences,) = text(shown(pool.explain()), "p")
    assert sentences.startswith("abs on 10 items")


def test_an_array_shows_what_and_where_it_is_and_its_first_items() -> None:
    html = shown(shoal.array(numpy.arange(6).reshape(2, 3)))
    assert text(html, "caption") == ["SharedArray"]
    assert text(html, "th") == ["shape", "dtype", "size", "where"]
    assert text(html, "td") == ["(2, 3)", "int64", "48 B", "shared memory"]
    assert text(html, "pre") == ["[[0 1 2]\n [3 4 5]]"]


def test_a_part_of_an_array_tells_how_much_it_keeps() -> None:
    part = shoal.zeros(1000)[:10]
    part.flags.writeable = False
    assert text(shown(part), "td")[-1] == "shared memory, a part of 8 kB, read-only"


def test_an_array_of_a_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "<b>&.npy"
    numpy.save(path, numpy.arange(3))
    html = shown(shoal.open_array(path))
    assert text(html, "caption") == ["FileArray"]
    assert text(html, "td")[-1] == f"file {path}, read-only"


@pytest.mark.parametrize("shape", [(), (0,), (10**6,), (1000, 1000), (10**5, 3), (2,) * 20, (3, 0, 2), (300, 300, 3)])
def test_the_preview_is_short_whatever_the_shape(shape: tuple[int, ...]) -> None:
    html = shown(shoal.zeros(shape, dtype="uint8"))
    (preview,) = text(html, "pre")
    assert len(preview) < 400
    assert preview.count("\n") < 25


def test_what_is_in_an_array_is_escaped_or_left_out() -> None:
    assert text(shown(shoal.array(["<b>", "&"])), "pre") == ["['<b>' '&']"]
    records = shoal.zeros(2, dtype=[("<x>", "i4"), ("y", "f8", 2)])
    assert "<x>" in text(shown(records), "td")[1]
    assert text(shown(shoal.zeros(2, dtype="S100000")), "pre") == []


def test_an_array_that_is_none_of_shared_memory_says_so() -> None:
    html = shown(numpy.zeros(3).view(shoal.SharedArray))
    assert text(html, "td")[-1] == "ordinary memory"
