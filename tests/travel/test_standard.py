"""Objects of multiprocessing: they travel where another process can get at them; else the error names shoal's."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.managers
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.pool import tasks

# Of this context semaphores have names; those of "fork" have none.
SPAWN = multiprocessing.get_context("spawn")


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))


@pytest.fixture
def manager() -> Iterator[multiprocessing.managers.SyncManager]:
    with SPAWN.Manager() as manager:
        yield manager


def test_a_lock_is_the_same_lock(pool: shoal.Pool) -> None:
    for lock in (SPAWN.Lock(), SPAWN.RLock(), SPAWN.Semaphore(), SPAWN.BoundedSemaphore(), SPAWN.Condition()):
        with lock:
            assert pool.apply(lambda lock: lock.acquire(False), (lock,)) is False
        assert pool.apply(lambda lock: (lock.acquire(), lock.release())[0], (lock,)) is True


def test_an_event_is_the_same_event(pool: shoal.Pool) -> None:
    event = SPAWN.Event()
    pool.apply(lambda event: event.set(), (event,))
    assert event.is_set()


def test_a_barrier_is_the_same_barrier(pool: shoal.Pool) -> None:
    barrier = SPAWN.Barrier(2)
    assert sorted(pool.map(lambda _: barrier.wait(100), range(2), 1)) == [0, 1]


def test_a_queue_is_the_same_queue(pool: shoal.Pool) -> None:
    for queue in (SPAWN.Queue(), SPAWN.SimpleQueue(), SPAWN.JoinableQueue()):
        pool.map(queue.put, range(4), 1)
        assert sorted(queue.get() for _ in range(4)) == [0, 1, 2, 3]
        queue.put("from here")
        assert pool.apply(queue.get) == "from here"
        queue.close()


def test_values_and_arrays_are_the_same_memory(pool: shoal.Pool) -> None:
    def add(value: Any, array: Any) -> None:
        with value.get_lock(), array.get_lock():
            value.value += 1
            array[1] += 1.5

    value, array = SPAWN.Value("i", 3), SPAWN.Array(ctypes.c_double, [0, 0, 0])
    pool.starmap(add, [(value, array)] * 4, 1)
    assert (value.value, list(array)) == (7, [0, 6, 0])


def test_raw_values_and_arrays_are_the_same_memory_whatever_the_context(pool: shoal.Pool) -> None:
    value, array = multiprocessing.RawValue("i", 1), multiprocessing.RawArray("d", 2)
    points = multiprocessing.RawArray(Point, [(1, 2), (3, 4)])

    def change(value: Any, array: Any, points: Any) -> None:
        value.value, array[1], points[1].y = 5, 2.5, 6

    pool.apply(change, (value, array, points))
    assert (value.value, list(array), points[1].y) == (5, [0, 2.5], 6)


def test_a_value_of_ctypes_alone_is_copied_as_ever(pool: shoal.Pool) -> None:
    value = ctypes.c_int(3)
    assert pool.apply(lambda value: value.value, (value,)) == 3


def test_one_end_of_a_pipe_is_that_end(pool: shoal.Pool) -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        pool.apply(writer.send, ("hello",))
        assert reader.recv() == "hello"
        writer.send([1, 2])
        assert pool.apply(reader.recv) == [1, 2]


def test_an_end_that_was_closed_meanwhile_is_an_error_and_no_other_file(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    blockers = [pool.apply_async(tasks.wait_for, (gate,)) for _ in range(2)]
    reader, writer = multiprocessing.Pipe(duplex=False)
    with writer:
        number = reader.fileno()
        waiting = [pool.apply_async(reader.recv) for _ in range(2)]
        reader.close()
        other = os.open(os.devnull, os.O_RDONLY)
        os.dup2(other, number)
        gate.touch()
        for result in waiting:
            with pytest.raises(FileNotFoundError, match="was closed before it arrived"):
                result.get()
    for fd in {other, number}:
        os.close(fd)
    assert [blocker.get() for blocker in blockers] == [None, None]


def test_proxies_of_a_manager_reach_it(pool: shoal.Pool, manager: multiprocessing.managers.SyncManager) -> None:
    table, numbers = manager.dict(), manager.list()

    def note(i: int) -> None:
        table[i] = i * i
        numbers.append(i)

    pool.map(note, range(4), 1)
    assert (dict(table), sorted(numbers)) == ({0: 0, 1: 1, 2: 4, 3: 9}, [0, 1, 2, 3])


MADE_FOR_FORKS: list[tuple[Any, str]] = [
    ("Lock", "Lock"),
    ("RLock", "RLock"),
    ("Semaphore", "Semaphore"),
    ("BoundedSemaphore", "BoundedSemaphore"),
    ("Condition", "Condition"),
    ("Event", "Event"),
    ("Queue", "Queue"),
    ("SimpleQueue", "SimpleQueue"),
    ("JoinableQueue", "JoinableQueue"),
]


@pytest.mark.parametrize(("name", "ours"), MADE_FOR_FORKS)
def test_what_only_forked_children_can_have_is_refused_and_shoals_is_named(
    pool: shoal.Pool, name: str, ours: str
) -> None:
    theirs = getattr(multiprocessing.get_context("fork"), name)()
    with pytest.raises(shoal.SerializationError, match=rf"self\.content: .*'{name}' .*shoal\.{ours} goes anywhere"):
        pool.apply(tasks.same, (tasks.Holder(theirs),))


def test_so_are_values_with_such_a_lock(pool: shoal.Pool) -> None:
    fork = multiprocessing.get_context("fork")
    with pytest.raises(shoal.SerializationError, match=r"shoal\.Value goes anywhere"):
        pool.apply(tasks.same, (fork.Value("i"),))
    with pytest.raises(shoal.SerializationError, match=r"shoal\.Array goes anywhere"):
        pool.apply(tasks.same, (fork.Array("c", 3),))
    with pytest.raises(shoal.SerializationError, match=r"shoal\.Barrier goes anywhere"):
        pool.apply(tasks.same, (fork.Barrier(2),))


def test_one_end_of_a_socket_pair_is_refused(pool: shoal.Pool) -> None:
    one, other = multiprocessing.Pipe()
    with one, other, pytest.raises(shoal.SerializationError, match=r"Pipe\(duplex=False\)"):
        pool.apply(tasks.same, (one,))
