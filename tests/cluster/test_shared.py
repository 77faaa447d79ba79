"""Locks, queues, counters and the like on nodes: the same things as here, used from all at once."""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy
import pytest
import tqdm

import shoal
from tests.pool.support import eventually

# Of one node: any of them may be given a task.
WORKERS = "shoal-worker-0", "shoal-worker-1"


@pytest.fixture(scope="module")
def pool(cluster: Any) -> Iterator[shoal.Pool]:
    """Two workers on each of two nodes."""
    with shoal.Pool(2, cluster=cluster) as pool:
        assert len(pool.workers) == 4
        yield pool
    pool.join()


# ---- what they are ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [
        shoal.Lock(),
        shoal.RLock(),
        shoal.Semaphore(2),
        shoal.BoundedSemaphore(2),
        shoal.Condition(),
        shoal.Event(),
        shoal.Barrier(2),
        shoal.Counter(),
        shoal.Queue(3),
        shoal.JoinableQueue(),
        shoal.SimpleQueue(),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_arrives_is_of_the_same_kind_and_comes_home_as_itself(pool: shoal.Pool, thing: Any) -> None:
    def look(arrived: Any) -> tuple[bool, str, Any]:
        return isinstance(arrived, kind), repr(arrived), [arrived]

    kind = type(thing)
    same, text, back = pool.apply(look, (thing,))
    assert same
    assert text.split(" at ")[0] == repr(thing).split(" at ")[0]
    assert back[0] is thing


def test_a_thing_travels_in_objects_closures_partials_initializers_and_other_things(cluster: Any) -> None:
    class Job:
        def __init__(self) -> None:
            self.done = {"count": shoal.Counter()}

        def run(self, n: int) -> None:
            self.done["count"].add(n)

    def settle(counter: shoal.Counter) -> None:
        counter.add(100)

    begun, job, closed, parted, queued = shoal.Counter(), Job(), shoal.Counter(), shoal.Counter(), shoal.Queue()
    queued.put(shoal.Counter(7))

    def work(_: int, counter: shoal.Counter) -> int:
        closed.add()
        counter.add()
        inner = queued.get()
        inner.add()
        queued.put(inner)
        return inner is closed

    with shoal.Pool(1, initializer=settle, initargs=(begun,), cluster=cluster) as pool:
        pool.map(job.run, range(5), chunksize=1)
        pool.map(partial(work, counter=parted), range(4), chunksize=1)
    assert job.done["count"].value == 10
    assert (closed.value, parted.value, queued.get().value) == (4, 4, 11)
    assert eventually(lambda: begun.value == 200)


def test_a_class_of_ones_own_below_a_queue_says_that_it_stays_here(pool: shoal.Pool) -> None:
    class Mine(shoal.Queue[int]):
        pass

    with pytest.raises(shoal.SerializationError, match=r"argument 0 of str: \['a'\]: .*'Mine'.* no classes below them"):
        pool.apply(str, ({"a": Mine()},))


# ---- from all nodes at once ------------------------------------------------------------------------------------------


def test_nothing_is_lost_of_what_all_workers_of_all_nodes_count(pool: shoal.Pool) -> None:
    counter, told = shoal.Counter(), shoal.Counter()

    def count(n: int) -> None:
        own = told
        for _ in range(n):
            counter.add(2)
            own += 1

    pool.map(count, [50] * 8, chunksize=1)
    assert (counter.value, told.value) == (800, 400)


def test_one_at_a_time_is_in_a_lock_wherever_it_is(pool: shoal.Pool) -> None:
    for lock in shoal.Lock(), shoal.RLock(), shoal.Semaphore(), shoal.Condition():
        counter = shoal.Counter()

        def work(_: int, lock: Any = lock, counter: Any = counter) -> None:
            for _ in range(10):
                with lock:
                    seen = counter.value
                    counter.exchange(seen + 1)

        done = pool.map_async(work, range(4), chunksize=1)
        for _ in range(10):
            with lock:
                counter.exchange(counter.value + 1)
        done.get()
        assert counter.value == 50


def test_a_reentrant_lock_is_the_threads_that_took_it(pool: shoal.Pool) -> None:
    def work(lock: shoal.RLock) -> tuple[Any, ...]:
        seen = []
        with lock, lock:
            other = threading.Thread(target=lambda: seen.append(lock.acquire(timeout=0.01)))
            other.start()
            other.join()
            seen.append(repr(lock))
        with pytest.raises(AssertionError, match="not owned by thread"):
            lock.release()
        return *seen, multiprocessing.current_process().name

    lock = shoal.RLock()
    taken, text, name = pool.apply(work, (lock,))
    assert name in WORKERS
    assert (taken, text) == (False, f"<RLock({name}, 2)>")
    assert not lock.locked()


def test_errors_are_those_of_the_thing_itself(pool: shoal.Pool) -> None:
    def errors(lock: Any, semaphore: Any, items: Any) -> list[str]:
        raised = []
        for act in (
            lock.release,
            lambda: lock.acquire(timeout="soon"),
            semaphore.release,
            lambda: items.get(timeout=0.01),
            lambda: items.put_many([1, 2, 3], timeout=0.01),
            items.get_nowait,
            items.get_nowait,
            items.get_nowait,
            lambda: (items.shutdown(), items.put(1)),
            lambda: (items.close(), items.put(1)),
        ):
            try:
                act()
            except Exception as error:
                raised.append(f"{type(error).__name__}: {error}")
            else:
                raised.append("")
        return raised

    lock, semaphore = shoal.Lock(), shoal.BoundedSemaphore(1)
    far, near = shoal.Queue(2), shoal.Queue(2)
    assert pool.apply(errors, (lock, semaphore, far)) == errors(lock, semaphore, near)


def test_a_barrier_lets_go_when_all_are_there_and_the_last_one_does_the_action(pool: shoal.Pool) -> None:
    where = shoal.Queue()

    def action() -> None:
        where.put(os.getpid())

    barrier = shoal.Barrier(3, action)
    arrived = pool.map_async(lambda _: (barrier.wait(), os.getpid()), range(2), chunksize=1)
    assert eventually(lambda: barrier.n_waiting == 2)
    mine = barrier.wait()
    found = arrived.get()
    assert sorted([mine, *(index for index, _ in found)]) == [0, 1, 2]
    assert where.get() == os.getpid()
    first = pool.apply_async(lambda: (barrier.wait(), os.getpid()))
    second = pool.apply_async(lambda: (barrier.wait(), os.getpid()))
    barrier.wait()
    found = [first.get(), second.get()]
    pids = dict([*found])
    assert where.get() == pids.get(2, os.getpid())


def test_the_error_of_an_action_breaks_the_barrier(pool: shoal.Pool) -> None:
    def action() -> None:
        raise KeyError("in the action")

    def come(barrier: shoal.Barrier) -> str:
        try:
            barrier.wait()
        except (KeyError, threading.BrokenBarrierError) as error:
            return type(error).__name__
        return ""

    barrier = shoal.Barrier(2, action)
    assert sorted(pool.map(come, [barrier, barrier], chunksize=1)) == ["BrokenBarrierError", "KeyError"]
    assert barrier.broken


def test_a_condition_is_notified_from_another_node(pool: shoal.Pool) -> None:
    condition, counter = shoal.Condition(), shoal.Counter()

    def wait(target: int) -> bool:
        with condition:
            return condition.wait_for(lambda: counter.value >= target)

    def notify(_: int) -> None:
        with condition:
            counter.add()
            condition.notify_all()

    waiting = [pool.apply_async(wait, (target,)) for target in (1, 2)]
    for _ in range(2):
        pool.apply(notify, (0,))
    assert [result.get() for result in waiting] == [True, True]
    with condition:
        assert not condition.wait_for(lambda: False, timeout=0.01)


def test_an_event_that_is_set_here_is_seen_there_and_back(pool: shoal.Pool) -> None:
    go, there = shoal.Event(), shoal.Event()

    def follow() -> bool:
        there.set()
        return go.wait() and there.wait(0) is not False

    result = pool.apply_async(follow)
    assert there.wait(60)
    go.set()
    assert result.get()
    assert pool.apply(go.is_set)


def test_a_fork_of_a_worker_is_a_process_of_its_own(pool: shoal.Pool) -> None:
    lock, items = shoal.RLock(), shoal.Queue()

    def work() -> list[Any]:
        with lock:
            items.put("a worker")
            if not (pid := os.fork()):
                items.put((lock.acquire(block=False), repr(lock)))
                os._exit(0)
            os.waitpid(pid, 0)
            held = repr(lock)
        child = threading.Thread(target=lock.acquire)
        child.start()
        child.join()
        return [multiprocessing.current_process().name, held, lock.acquire(block=False)]

    name, *found = pool.apply(work)
    assert name in WORKERS
    assert found == [f"<RLock({name}, 1)>", False]
    assert [items.get(), items.get()] == ["a worker", (False, "<RLock(SomeOtherProcess, nonzero)>")]


# ---- queues ----------------------------------------------------------------------------------------------------------


def test_one_node_produces_and_another_consumes_with_room_for_few(pool: shoal.Pool) -> None:
    items, results = shoal.Queue(maxsize=4), shoal.Queue()

    def produce(n: int) -> None:
        for i in range(n):
            items.put({"i": i, "square": numpy.full(10, i * i)})

    def consume() -> int:
        count = 0
        for item in items:
            assert (item["square"] == item["i"] ** 2).all()
            results.put(item["i"])
            count += 1
        return count

    consumers = [pool.apply_async(consume) for _ in range(2)]
    for producer in [pool.apply_async(produce, (40,)) for _ in range(2)]:
        producer.get()
    items.shutdown()
    assert sum(consumer.get() for consumer in consumers) == 80
    assert sorted(results.get_many()) == sorted([*range(40), *range(40)])


def test_whatever_can_be_an_argument_can_be_an_item_both_ways(pool: shoal.Pool) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Point) and other.x == self.x

    large = numpy.arange(100_000.0).reshape(100, 1000)
    sent: list[Any] = [None, 5, "text", "x" * 10_000, b"b", (1, None), Point(3), lambda x: x + 1, {"a": large}, large.T]

    def answer() -> int:
        for item in questions:
            if isinstance(item, dict):
                item["a"][0, 0] = 7  # its own
            answers.put(item)
        return 0

    questions, answers = shoal.Queue(), shoal.Queue()
    result = pool.apply_async(answer)
    questions.put_many(sent)
    questions.shutdown()
    result.get()
    got = [answers.get() for _ in sent]
    assert got[:7] == sent[:7]
    assert got[7](1) == 2
    assert got[8]["a"][0, 0] == 7 and large[0, 0] == 0
    assert numpy.array_equal(got[9], large.T)
    assert got[9].flags.writeable


def test_many_items_go_together_and_in_their_order(pool: shoal.Pool) -> None:
    items = shoal.Queue()

    def put(_: int) -> None:
        items.put_many(range(1000))
        items.put_many(iter([1000, [1001]]))

    def get(_: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < 1002:
            found += items.get_many()
        return found

    pool.apply(put, (0,))
    assert pool.apply(get, (0,)) == [*range(1001), [1001]]


def test_what_a_task_has_put_and_told_is_there_when_its_result_is(pool: shoal.Pool) -> None:
    def work(n: int) -> None:
        own = counter
        own += n
        items.put(n)

    for _ in range(10):
        items, counter = shoal.Queue(), shoal.Counter()
        pool.map(work, range(4), chunksize=1)
        assert sorted(items.get_nowait() for _ in range(4)) == [0, 1, 2, 3]
        assert counter.value == 6


def test_a_queue_knows_when_all_items_are_done(pool: shoal.Pool) -> None:
    items: shoal.JoinableQueue[int] = shoal.JoinableQueue()

    def work(_: int) -> None:
        for _ in range(5):
            items.get()
            items.task_done()

    items.put_many(range(20))
    done = pool.map_async(work, range(4), chunksize=1)
    items.join()
    done.get()
    assert pool.apply(items.empty)


def test_an_item_that_cannot_travel_is_an_error_where_it_is_put(pool: shoal.Pool) -> None:
    def put() -> str:
        try:
            items.put({"a": (i for i in range(3))})
        except shoal.SerializationError as error:
            return str(error)
        return ""

    items = shoal.Queue()
    assert pool.apply(put) == "item of a queue: ['a']: cannot pickle 'generator' object"
    assert items.empty()


# ---- values ----------------------------------------------------------------------------------------------------------


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Line(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 8), ("ends", Point * 2))


def test_values_and_arrays_are_read_and_written_at_home(pool: shoal.Pool) -> None:
    def work(value: Any, array: Any, text: Any, line: Any, raw: Any) -> tuple[Any, ...]:
        with value:
            value.value += 1
        array[1:3] = [10, 20]
        array[0] += 5
        text.value = b"there"
        line.name = b"from"
        line.ends[1].x = 7
        line.ends[0] = Point(1, 2.5)
        for point in line.ends:
            point.y *= 2
        raw.value -= 1
        with pytest.raises(IndexError):
            array[3]
        with pytest.raises(AttributeError):
            line.wrong = 3
        seen = array[:], list(array), len(array), line.ends[1].x, text.raw[:6]
        return *seen, isinstance(raw, ctypes.c_int), isinstance(line.ends, ctypes.Array), [value, raw]

    value, array, text = shoal.Value("i", 5), shoal.Array("i", [1, 2, 3]), shoal.Array("c", b"hello")
    line, raw = shoal.RawValue(Line), shoal.RawValue("i", 3)
    *seen, back = pool.apply(work, (value, array, text, line, raw))
    assert seen == [[6, 10, 20], [6, 10, 20], 3, 7, b"there", True, True]
    assert (value.value, array[:], text.value, raw.value) == (6, [6, 10, 20], b"there", 2)
    assert (line.name, line.ends[0].x, line.ends[0].y, line.ends[1].x, line.ends[1].y) == (b"from", 1, 5.0, 7, 0.0)
    back[0].value += 1
    assert value.value == 7
    assert back[1] is raw


def test_no_addition_to_a_value_is_lost_under_its_lock(pool: shoal.Pool) -> None:
    value = shoal.Value("l")

    def add(_: int) -> None:
        for _ in range(5):
            with value:
                value.value += 1

    pool.map(add, range(8), chunksize=1)
    assert value.value == 40


# ---- bars ------------------------------------------------------------------------------------------------------------


def test_what_workers_count_on_a_bar_is_counted_when_the_task_is_done(pool: shoal.Pool) -> None:
    with shoal.tqdm(total=800, file=io.StringIO()) as bar:

        def count(n: int) -> bool:
            for _ in range(n):
                bar.update()
            return isinstance(bar, tqdm.std.tqdm)

        for _ in range(2):
            before = bar.n
            assert all(pool.map(count, [100] * 4, chunksize=1))
            assert bar.n == before + 400


def test_what_workers_say_on_a_bar_is_shown_here(pool: shoal.Pool) -> None:
    screen = io.StringIO()
    with shoal.tqdm(total=3, file=screen, mininterval=0) as bar:

        def describe(text: str) -> Any:
            bar.set_description(text)
            bar.set_postfix(loss=0.5)
            return [bar]

        assert pool.apply(describe, ("from a node",))[0] is bar
        assert bar.desc == "from a node: "
        assert eventually(lambda: "from a node: " in screen.getvalue() and "loss=0.5" in screen.getvalue())
        pool.apply(lambda: bar.close())
        assert eventually(lambda: bar.disable)


def test_an_ordinary_bar_travels_too(pool: shoal.Pool) -> None:
    bar = tqdm.tqdm(total=8, file=io.StringIO())
    pool.map(lambda n: bar.update(n), [1] * 8, chunksize=1)
    assert bar.n == 8
    bar.close()


def test_a_bar_that_a_worker_makes_appears_here(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())

    def work(name: str) -> None:
        for _ in shoal.tqdm(range(5), desc=name, mininterval=0):
            pass
        shoal.tqdm.write(f"{name} is done", file=sys.stderr)

    with shoal.Pool(1, cluster=cluster) as pool:
        pool.map(work, ["one", "two"], chunksize=1)
        for text in ("one: 100%", "5/5", "two: 100%", "one is done", "two is done"):
            assert eventually(lambda text=text: text in screen.getvalue()), screen.getvalue()


# ---- made on a node --------------------------------------------------------------------------------------------------


def test_what_a_task_makes_is_at_home_on_its_node_and_works_here_and_on_others(pool: shoal.Pool) -> None:
    def make() -> tuple[Any, ...]:
        items, lock, counter = shoal.Queue(), shoal.Lock(), shoal.Counter(5)
        condition, value = shoal.Condition(), shoal.Value("i", 3)
        items.put({"from": "its maker", "lock": lock})
        return items, lock, counter, condition, value

    def use(items: Any, lock: Any, counter: Any, condition: Any, value: Any) -> int:
        with lock, condition:
            items.put((os.getpid(), lambda: "from a task", counter))
            counter.add()
            own = counter
            own += 1
            value.value += 1
            condition.notify_all()
        return os.getpid()

    items, lock, counter, condition, value = made = pool.apply(make)
    assert isinstance(items, shoal.Queue)
    first = items.get()
    assert first["from"] == "its maker"
    assert first["lock"] is lock or isinstance(first["lock"], shoal.Lock)
    pids = pool.starmap(use, [made] * 8, chunksize=1)
    got = [items.get() for _ in pids]
    assert sorted(pid for pid, _, _ in got) == sorted(pids)
    assert {function() for _, function, _ in got} == {"from a task"}
    assert (counter.value, value.value) == (21, 11)
    with condition:
        assert not condition.wait(timeout=0.01)
    items.put("from here")
    assert pool.apply(items.get) == "from here"
    with pytest.raises(queue.Empty):
        items.get_nowait()


def test_a_task_asks_by_one_queue_and_is_answered_by_another_that_it_made(pool: shoal.Pool) -> None:
    requests: shoal.Queue[Any] = shoal.Queue()

    def ask(n: int) -> int:
        replies: shoal.Queue[int] = shoal.Queue()
        requests.put((n, replies))
        return replies.get()

    asked = pool.map_async(ask, range(4), chunksize=1)
    for _ in range(4):
        n, replies = requests.get()
        replies.put(n * n)
    assert asked.get() == [0, 1, 4, 9]


def test_a_part_of_a_value_is_that_part_wherever_it_comes_to(pool: shoal.Pool) -> None:
    def make() -> Any:
        return shoal.RawArray(Point, 2)

    def write(point: Any, x: int) -> Any:
        point.x = x
        return point.x

    points = pool.apply(make)
    points[0].x = 1
    for x in range(2, 6):  # on its node, and on the other
        assert pool.apply(write, (points[1], x)) == points[1].x == x
    assert points[0].x == 1
