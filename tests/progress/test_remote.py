"""A bar elsewhere: it arrives as a `RemoteBar`, whose updates its owner draws."""

import io
import multiprocessing
import pickle
import subprocess
import sys
from typing import Any

import cloudpickle
import pytest

import shoal
from tests.pool.support import eventually


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_bar_arrives_as_a_light_remote_bar(file: io.StringIO, protocol: int) -> None:
    with shoal.tqdm(range(5), "walk", file=file) as bar:
        bar.update()
        remote = pickle.loads(pickle.dumps(bar, protocol))
        assert type(remote).__name__ == "RemoteBar"
        assert (remote.n, remote.total, remote.desc) == (1, 5, "walk")
        assert repr(remote) == "<shoal.RemoteBar 'walk', 1/5>"


def test_what_it_counts_the_owner_draws(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        remote = pickle.loads(cloudpickle.dumps(bar))
        remote.update()
        remote.update(5)
        remote.update(n=-2)
        assert eventually(lambda: "4/10" in file.getvalue())
    assert bar.n == remote.n == 4


@pytest.mark.parametrize("amount", [0.5, 1.0, "1", None], ids=repr)
def test_it_counts_integers_only(file: io.StringIO, amount: Any) -> None:
    with shoal.tqdm(total=10, file=file) as bar, pytest.raises(TypeError, match=r"^n must be an integer"):
        pickle.loads(pickle.dumps(bar)).update(amount)


def test_it_does_not_close_or_draw_what_is_its_owners(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        before = file.getvalue()
        with pickle.loads(pickle.dumps(bar)) as remote:
            remote.refresh()
            remote.close()
        assert file.getvalue() == before
        remote.update()
        assert bar.n == 1 and not bar.disable


def test_it_travels_on(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        remote = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(bar))))
        remote.update(3)
        assert (bar.n, remote.total) == (3, 10)


def test_workers_update_it_from_a_closure(pool: shoal.Pool, file: io.StringIO) -> None:
    with shoal.tqdm(total=500, file=file) as bar:

        def work(_: int) -> None:
            bar.update()

        pool.map(work, range(500))
        assert bar.n == 500
    assert "500/500" in file.getvalue()


def test_a_disabled_bar_counts_what_workers_do(pool: shoal.Pool) -> None:
    bar = shoal.tqdm(total=50, disable=True)
    pool.map(lambda _: bar.update(), range(50))
    assert bar.n == 50


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_of_multiprocessing_updates_it(method: str, file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=bar.update, args=(7,))
        process.start()
        process.join()
        assert process.exitcode == 0 and bar.n == 7


def test_a_stranger_that_receives_the_handle_updates_it(file: io.StringIO) -> None:
    with shoal.tqdm(total=10, file=file) as bar:
        program = "import pickle, sys; pickle.load(sys.stdin.buffer).update(7)"
        subprocess.run([sys.executable, "-c", program], input=pickle.dumps(bar), check=True, timeout=50)
    assert "7/10" in file.getvalue()
