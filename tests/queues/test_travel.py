"""Queues go anywhere, and nothing is lost with who put it."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import pytest

import shoal
from tests.pool.support import eventually


@contextmanager
def program(source: str, *objects: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that finds `objects` in a list of that name."""
    source = f"import pickle, sys\nobjects = pickle.load(sys.stdin.buffer)\n{source}"
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(objects))
    process.stdin.close()
    try:
        yield process
    finally:
        process.wait()


def test_as_an_argument_and_in_a_closure_of_a_task(pool: shoal.Pool) -> None:
    line, back = shoal.Queue[int](), shoal.Queue[int]()

    def work(back: shoal.Queue[int]) -> None:
        back.put(line.get() + 1)

    result = pool.apply_async(work, (back,))
    line.put(41)
    assert back.get() == 42
    result.get()


def test_as_a_result(pool: shoal.Pool) -> None:
    def make() -> shoal.Queue[str]:
        line = shoal.Queue[str]()
        line.put("from a worker")
        return line

    line = pool.apply(make)
    assert line.get() == "from a worker"
    line.put("mine")
    assert pool.apply(line.get) == "mine"


def test_on_a_queue() -> None:
    lines = shoal.Queue[Any]()
    inner = shoal.Queue[str]()
    inner.put("inside")
    lines.put(inner)
    del inner
    assert lines.get().get() == "inside"


def test_to_a_program_that_gets_the_bytes() -> None:
    line = shoal.Queue[Any]()
    with program("objects[0].put(('hello', __import__('numpy').arange(100_000)))", line) as process:
        text, array = line.get(timeout=150)
    assert process.returncode == 0
    assert text == "hello" and array.sum() == 4999950000
    array += 1


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_to_a_process_of_multiprocessing(method: str) -> None:
    line, back = shoal.Queue[int](), shoal.Queue[int]()
    context: Any = multiprocessing.get_context(method)
    scope = {"line": line, "back": back}
    process = context.Process(target=exec, args=("back.put(line.get() * 2)", scope))
    process.start()
    line.put(21)
    assert back.get(timeout=150) == 42
    process.join()
    assert process.exitcode == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_to_forks_while_other_threads_put_and_get() -> None:
    line, busy = shoal.Queue[Any](), shoal.Queue[Any](3)
    stop = threading.Event()

    def put() -> None:
        while not stop.is_set():
            busy.put(b"x" * 500)
        busy.put(None)

    def get() -> None:
        while busy.get() is not None:
            pass

    threads = [threading.Thread(target=put), threading.Thread(target=get)]
    for thread in threads:
        thread.start()
    children = []
    for n in range(10):
        child = os.fork()
        if child == 0:
            try:
                for i in range(50):
                    line.put((n, i, b"x" * 500))
                    busy.put(b"from the child")
            finally:
                os._exit(0)
        children.append(child)
    got = [line.get(timeout=150)[:2] for _ in range(500)]
    for n in range(10):
        assert [i for of, i in got if of == n] == list(range(50))
    for child in children:
        os.waitpid(child, 0)
    stop.set()
    for thread in threads:
        thread.join()


def test_nothing_is_lost_when_a_producer_ends_right_after_it_has_put() -> None:
    line = shoal.Queue[Any]()
    source = """
import numpy, os, shoal
line = objects[0]
for i in range(100):
    line.put(i)
    line.put(numpy.full(50_000, i))
    line.put("x" * 5000)
os._exit(0)
"""
    with program(source, line):
        pass
    for i in range(100):
        assert line.get(timeout=150) == i
        array = line.get(timeout=150)
        assert (array == i).all()
        array += 1
        assert line.get(timeout=150) == "x" * 5000


def test_shared_things_live_as_long_as_they_lie_in_a_queue_though_the_worker_has_ended() -> None:
    line = shoal.Queue[Any]()

    def work(n: int) -> None:
        inner = shoal.Queue[int]()
        inner.put(n)
        line.put((shoal.full(100_000, n), shoal.Lock(), shoal.Counter(n), inner))

    with shoal.Pool(1) as pool:
        pool.map(work, range(10))
    pool.join()
    before = shoal.memory().segments
    for n in range(10):
        array, lock, counter, inner = line.get(timeout=150)
        assert type(array) is shoal.SharedArray and (array == n).all()
        with lock:
            assert counter.add(1) == n + 1
        assert inner.get(timeout=150) == n
    del array, lock, counter, inner
    assert eventually(lambda: shoal.memory().segments < before)


def test_what_a_killed_worker_has_put_is_there(pool: shoal.Pool) -> None:
    line = shoal.Queue[Any]()

    def work() -> None:
        line.put((shoal.full(1000, 5), numpy.zeros(100_000)))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(shoal.WorkerDied):
        pool.apply(work)
    shared, own = line.get(timeout=150)
    assert (shared == 5).all() and not own.any()


def test_producers_and_consumers_in_many_processes_lose_nothing() -> None:
    line, results = shoal.Queue[Any](100), shoal.Queue[Any]()
    put = "line, results, n = objects\nfor i in range(5000): line.put((n, i))"
    take = """
line, results, _ = objects
got = []
for item in line: got.append(item)
results.put(got)
"""
    with program(take, line, results, 0), program(take, line, results, 1):
        with program(put, line, results, 2), program(put, line, results, 3):
            pass
        line.shutdown()
    taken = [results.get(timeout=150) for _ in range(2)]
    assert sorted(taken[0] + taken[1]) == [(n, i) for n in (2, 3) for i in range(5000)]
    for got in taken:
        for n in (2, 3):
            mine = [i for of, i in got if of == n]
            assert mine == sorted(mine)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["producer", "consumer"])
def test_one_that_is_killed_anywhere_neither_blocks_the_others_nor_damages_an_item(victim: str) -> None:
    line = shoal.Queue[Any](50)
    act = {
        "producer": """
import numpy
while True:
    for n in (1, 100, 5000, 20_000): objects[0].put(numpy.arange(n))
""",
        "consumer": "while True: objects[0].get()",
    }
    stop = threading.Event()
    taken = 0

    def put() -> None:
        n = 0
        while not stop.is_set():
            line.put(numpy.arange(1 + n % 3000))
            n += 7

    def take() -> None:
        nonlocal taken
        while True:
            item = line.get(timeout=150)
            if item is None:
                return
            assert (item == numpy.arange(len(item))).all()
            taken += 1

    threads = [threading.Thread(target=put), threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        with program(act[victim], line) as process:
            before = taken
            assert eventually(lambda before=before: taken > before + 100)
            os.kill(process.pid, signal.SIGKILL)
    stop.set()
    threads[0].join()
    line.put(None)
    threads[1].join()


def test_a_queue_costs_no_descriptor_of_its_own() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    keep = [shoal.Queue[int]() for _ in range(10)]
    before = descriptors()
    keep += [shoal.Queue[int]() for _ in range(100_000)]
    for line in keep[::1000]:
        line.put(1)
    assert descriptors() < before + 20
    assert all(line.get() == 1 for line in keep[::1000])
