"""Shared things go to any process, by any way that carries bytes or shares memory."""

import multiprocessing
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from tests.pool.support import descriptors

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

METHODS = ["spawn", "forkserver", "fork"]


class Things:
    """One of each, in an object."""

    def __init__(self) -> None:
        self.array = shoal.zeros(10_000, "int64")
        self.lock = shoal.Lock()
        self.counter = shoal.Counter()
        self.queue: Any = shoal.Queue()
        self.event = shoal.Event()

    def used(self) -> bool:
        """What `use` does has been done."""
        item = self.queue.get(timeout=150)
        assert self.event.wait(100)
        return bool((self.array == 1).all() and self.counter.value == 1 and (item == 3).all())


def use(things: Any) -> None:
    with things.lock:
        things.array += 1
    things.counter.add()
    things.queue.put(np.full(50_000, 3))
    things.event.set()


def use_what_comes(channel: Any) -> None:
    use(channel.get(timeout=150))


@pytest.mark.parametrize("method", METHODS)
def test_to_a_process_as_an_argument(method: str) -> None:
    things = Things()
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=use, args=(things,))
    process.start()
    assert things.used()
    process.join()


@pytest.mark.parametrize("method", METHODS)
def test_to_a_running_process_through_a_queue_of_multiprocessing(method: str) -> None:
    things = Things()
    context: Any = multiprocessing.get_context(method)
    channel = context.Queue()
    process = context.Process(target=use_what_comes, args=(channel,))
    process.start()
    channel.put(things)
    assert things.used()
    process.join()
    channel.close()
    channel.join_thread()


@pytest.mark.parametrize("method", METHODS)
def test_to_a_pool_of_multiprocessing(method: str) -> None:
    things = Things()
    context: Any = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        pool.apply(use, (things,))
        assert things.used()
        pool.close()
        pool.join()


def test_to_a_program_that_gets_bytes() -> None:
    things = Things()
    program = "import pickle, sys; from tests.domain.test_anywhere import use; use(pickle.load(sys.stdin.buffer))"
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(things), check=True, timeout=150)
    assert things.used()


def test_to_a_program_that_reads_a_file(tmp_path: Path) -> None:
    things = Things()
    file = tmp_path / "things"
    file.write_bytes(pickle.dumps(things))
    program = (
        "import pickle, sys; from tests.domain.test_anywhere import use; use(pickle.load(open(sys.argv[1], 'rb')))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(file)], check=True, timeout=150)
    assert things.used()


def test_to_workers_of_joblib() -> None:
    joblib = pytest.importorskip("joblib")
    things = Things()
    joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(use)(things)])
    assert things.used()


def test_to_threads() -> None:
    things = Things()
    thread = threading.Thread(target=use, args=(things,))
    thread.start()
    assert things.used()
    thread.join()


def test_back_from_whoever_made_it() -> None:
    context: Any = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_make, args=(theirs,))
    process.start()
    array, counter = ours.recv()
    array += 1
    counter.add()
    ours.send("used")
    process.join()
    assert process.exitcode == 0
    ours.close()
    theirs.close()


def _make(connection: Any) -> None:
    array, counter = shoal.zeros(100), shoal.Counter()
    connection.send((array, counter))
    assert connection.recv() == "used"
    assert (array == 1).all() and counter.value == 1


def test_a_hundred_thousand_of_a_kind_cost_no_descriptors_of_their_own() -> None:
    kept: list[Any] = [shoal.Lock(), shoal.Counter(), shoal.Queue()]
    for make, most in ((shoal.Lock, 300), (shoal.Counter, 300), (shoal.Queue, 1500)):
        before, resident = descriptors(), shoal.memory().bytes
        kept.append([make() for _ in range(100_000)])
        assert descriptors() - before <= 30
        assert (shoal.memory().bytes - resident) / 100_000 <= most
