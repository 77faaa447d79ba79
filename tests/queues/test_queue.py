"""`shoal.Queue` is `multiprocessing.Queue`: what one caller meets."""

import copy
import pickle
import queue
import subprocess
import sys
import threading
import time
from typing import Any

import cloudpickle
import numpy
import pytest

import shoal

KINDS = [shoal.Queue, shoal.SimpleQueue, shoal.JoinableQueue]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "item",
    [None, True, False, 0, -1, 2**63 - 1, 2**64, 1.5, "", "a", "é" * 3000, b"", b"\0" * 2000, (1, "two"), {"a": [1]}],
    ids=lambda item: repr(item)[:20],
)
def test_what_is_put_is_got(kind: Any, item: Any) -> None:
    line = kind()
    line.put(item)
    got = line.get()
    assert got == item and type(got) is type(item)


def test_items_come_in_the_order_they_were_put() -> None:
    line: shoal.Queue[int] = shoal.Queue()
    for i in range(10_000):
        line.put(i)
    assert line.qsize() == 10_000 and not line.empty()
    assert [line.get() for _ in range(10_000)] == list(range(10_000))
    assert line.empty() and line.qsize() == 0


def test_an_item_is_as_it_was_when_it_was_put() -> None:
    line = shoal.Queue[Any]()
    small, large = [1], numpy.zeros(100_000)
    line.put((small, large))
    small.append(2)
    large[:] = 7
    got = line.get()
    assert got[0] == [1] and not got[1].any()


def test_who_gets_an_array_may_write_into_it() -> None:
    line = shoal.Queue[Any]()
    array = numpy.arange(100_000)
    array.flags.writeable = False
    line.put(array)
    line.put(array)
    first, second = line.get(), line.get()
    first += 1
    assert (second == array).all() and (first == array + 1).all()


def test_functions_and_classes_of_anywhere_may_be_items() -> None:
    line = shoal.Queue[Any]()
    two = 2
    line.put(lambda x: x * two)
    assert line.get()(21) == 42


def test_what_cannot_travel_is_an_error_at_once_and_nothing_is_put() -> None:
    line = shoal.Queue[Any]()
    with pytest.raises(shoal.SerializationError, match="generator"):
        line.put({"a": (i for i in range(3))})
    assert line.empty()


def test_a_full_queue_says_so() -> None:
    line = shoal.Queue[int](maxsize=2)
    assert line.maxsize == 2 and not line.full()
    line.put(1)
    line.put(2)
    assert line.full()
    for put in (
        lambda: line.put(3, False),
        lambda: line.put_nowait(3),
        lambda: line.put(3, timeout=0.01),
        lambda: line.put(3, True, 0),
        lambda: line.put(3, timeout=-5),
    ):
        with pytest.raises(queue.Full):
            put()
    assert (line.get(), line.get()) == (1, 2)


def test_an_empty_queue_says_so() -> None:
    line = shoal.Queue[int]()
    for get in (
        lambda: line.get(False),
        lambda: line.get_nowait(),
        lambda: line.get(timeout=0.01),
        lambda: line.get(True, 0),
        lambda: line.get(True, -1e300),
        lambda: line.get_many(timeout=0),
    ):
        with pytest.raises(queue.Empty):
            get()


@pytest.mark.parametrize("limit", [0, -1])
def test_without_a_limit_a_queue_is_never_full(limit: int) -> None:
    line = shoal.Queue[int](limit)
    for i in range(100_000):
        line.put_nowait(i)
    assert not line.full() and line.maxsize == 0
    assert line.get_many() == list(range(100_000))


def test_a_timeout_is_a_number() -> None:
    line = shoal.Queue[int]()
    for wait in (line.get, line.get_many, lambda timeout: line.put(1, timeout=timeout)):
        with pytest.raises(TypeError, match=r"timeout must be a number of seconds or None, not str \('1'\)"):
            wait(timeout="1")  # type: ignore[operator]
    with pytest.raises(ValueError, match="timeout must be a number of seconds or None, not NaN"):
        line.get(timeout=float("nan"))
    with pytest.raises(TypeError, match="maxsize must be an integer, not str"):
        shoal.Queue("1")  # type: ignore[arg-type]


def test_whether_to_wait_is_anything_true_or_false() -> None:
    line = shoal.Queue[str]()
    line.put("first", 1)  # type: ignore[arg-type]
    line.put("second", None)  # type: ignore[arg-type]
    assert line.get(1) == "first"  # type: ignore[arg-type]
    assert line.get([]) == "second"  # type: ignore[arg-type]
    with pytest.raises(queue.Empty):
        line.get(0)  # type: ignore[arg-type]


def test_many_are_put_and_got_in_one_go() -> None:
    line = shoal.Queue[int]()
    line.put_many(range(10))
    assert line.get_many(4) == [0, 1, 2, 3]
    assert line.get_many() == [4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="n must be 1 or more"):
        line.get_many(0)


def test_of_many_that_find_no_room_the_error_tells_how_many_were_put() -> None:
    line = shoal.Queue[int](3)
    with pytest.raises(queue.Full) as full:
        line.put_many(range(10), timeout=0.01)
    assert full.value.args == (3,)
    assert line.get_many() == [0, 1, 2]


def test_of_many_those_before_one_that_cannot_travel_are_put() -> None:
    line = shoal.Queue[Any]()
    with pytest.raises(shoal.SerializationError, match="generator"):
        line.put_many([1, 2, (i for i in range(3)), 4])
    with pytest.raises(ZeroDivisionError):
        line.put_many(6 // n for n in (2, 1, 0))
    assert line.get_many() == [1, 2, 3, 6]


class Stubborn:
    """Can be put and not be got."""

    def __reduce__(self) -> tuple[Any, ...]:
        return divmod, (1, 0)


def test_of_many_that_were_got_one_that_cannot_be_unpickled_does_not_lose_the_others() -> None:
    line = shoal.Queue[Any]()
    line.put_many([1, Stubborn(), 3])
    with pytest.raises(ZeroDivisionError) as error:
        line.get_many()
    assert error.value.got == [1, 3]  # type: ignore[attr-defined]
    assert line.empty()


def test_who_waits_is_woken_by_what_comes() -> None:
    line, back = shoal.Queue[int](1), shoal.Queue[int](1)

    def answer() -> None:
        for _ in range(2000):
            back.put(line.get() + 1)

    thread = threading.Thread(target=answer)
    thread.start()
    for i in range(2000):
        line.put(i)
        assert back.get() == i + 1
    thread.join()


def test_a_closed_queue_is_closed_here_and_nowhere_else() -> None:
    line = shoal.Queue[int]()
    other = pickle.loads(pickle.dumps(line))
    line.close()
    line.join_thread()
    with pytest.raises(ValueError, match="is closed"):
        line.put(1)
    with pytest.raises(ValueError, match="is closed"):
        line.get()
    other.put(1)
    assert other.get() == 1
    with pytest.raises(AssertionError, match="not closed"):
        other.join_thread()
    other.cancel_join_thread()


def test_a_queue_that_was_shut_down_gives_what_it_has_and_takes_no_more() -> None:
    line = shoal.Queue[int]()
    line.put_many([1, 2])
    line.shutdown()
    with pytest.raises(shoal.ShutDown):
        line.put(3)
    assert list(line) == [1, 2]
    with pytest.raises(shoal.ShutDown):
        line.get()
    with pytest.raises(shoal.ShutDown):
        line.get_nowait()


def test_shutting_down_at_once_drops_what_lies_there() -> None:
    line = shoal.JoinableQueue[int]()
    line.put_many([1, 2])
    line.shutdown(immediate=True)
    with pytest.raises(shoal.ShutDown):
        line.get()
    line.join()


def test_shutting_down_at_once_waits_for_who_was_stopped_while_it_took_an_item_and_lets_other_threads_run() -> None:
    program = """
import os, queue, shoal, signal, threading, time
def consume(line, pid):
    pid.exchange(os.getpid())
    while True:
        line.get()
def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    while open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
line, pid = shoal.JoinableQueue(), shoal.Counter()
with shoal.Pool(1) as pool:
    consumed = pool.apply_async(consume, (line, pid))
    while not pid.value:
        time.sleep(0.01)
    while True:
        line.put_many(range(1000))
        stop(pid.value)
        try:
            line.get_nowait()
        except queue.Empty:
            if line.qsize() > 0:
                break
        os.kill(pid.value, signal.SIGCONT)
        time.sleep(0.001)
    # It was stopped with the lock in its hands.
    threading.Timer(0.5, os.kill, (pid.value, signal.SIGCONT)).start()
    line.shutdown(immediate=True)
    assert line.empty()
    try:
        consumed.get(100)
    except shoal.ShutDown:
        print("shut down")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150)
    assert (result.stdout, result.stderr, result.returncode) == ("shut down\n", "", 0)


def test_shutting_down_wakes_who_waits() -> None:
    line, full = shoal.Queue[int](), shoal.Queue[int](1)
    full.put(1)
    ended: list[str] = []

    def wait(act: Any) -> None:
        try:
            act()
        except shoal.ShutDown:
            ended.append("shut down")

    threads = [threading.Thread(target=wait, args=(act,)) for act in (line.get, line.get, lambda: full.put(2))]
    for thread in threads:
        thread.start()
    line.shutdown()
    full.shutdown()
    for thread in threads:
        thread.join()
    assert ended == ["shut down"] * 3


def test_a_joinable_queue_waits_for_what_is_not_done() -> None:
    line = shoal.JoinableQueue[int]()
    line.join()
    line.put_many(range(100))
    done: list[int] = []

    def work() -> None:
        for item in line:
            done.append(item)
            line.task_done()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    line.join()
    assert sorted(done) == list(range(100))
    with pytest.raises(ValueError, match="too many times"):
        line.task_done()
    line.shutdown()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "duplicate",
    [
        *(lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        lambda x: pickle.loads(cloudpickle.dumps(x)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"protocol {p}" for p in range(pickle.HIGHEST_PROTOCOL + 1)), "cloudpickle", "copy", "deepcopy"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_duplicate_is_the_same_queue(kind: Any, duplicate: Any) -> None:
    line = kind()
    twin = duplicate(line)
    assert type(twin) is kind
    line.put("here")
    assert twin.get() == "here"
    twin.put("there")
    assert line.get() == "there"


def test_a_class_of_ones_own_stays_that_class() -> None:
    line = Named(5)
    twin = pickle.loads(pickle.dumps(line))
    assert type(twin) is Named and twin.maxsize == 5


class Named(shoal.Queue[int]):
    pass


def test_it_says_what_lies_in_it() -> None:
    line, small = shoal.Queue[int](), shoal.Queue[int](3)
    assert repr(line) == "<shoal.Queue, 0 items>"
    line.put(1)
    assert repr(line) == "<shoal.Queue, 1 item>"
    assert repr(small) == "<shoal.Queue, 0 of 3 items>"
    assert repr(shoal.SimpleQueue()) == "<shoal.SimpleQueue, 0 items>"


def test_what_lies_in_a_queue_goes_with_it() -> None:
    before = shoal.memory().used
    line = shoal.Queue[Any]()
    for _ in range(10):
        line.put(numpy.zeros(1 << 18))
        line.put((line.maxsize, shoal.zeros(1 << 17)))
        line.put("x" * 10_000)
    assert shoal.memory().used > before + (20 << 20)
    del line
    assert shoal.memory().used <= before + (1 << 16)


def test_ctrl_c_interrupts_the_waiting() -> None:
    program = """
import os, shoal, signal, threading, time
def put():
    line = shoal.Queue(1)
    line.put(1)
    line.put(2, timeout=40)
for wait in (lambda: shoal.Queue().get(timeout=40), put):
    started = time.monotonic()
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        wait()
    except KeyboardInterrupt:
        # Long before it would have ended by itself.
        assert time.monotonic() - started < 20
        print("interrupted")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150)
    assert (result.stdout, result.stderr, result.returncode) == ("interrupted\ninterrupted\n", "", 0)


def test_a_wait_takes_about_as_long_as_it_was_said_to() -> None:
    line = shoal.Queue[int]()
    started = time.monotonic()
    with pytest.raises(queue.Empty):
        line.get(timeout=0.2)
    assert time.monotonic() - started >= 0.2
