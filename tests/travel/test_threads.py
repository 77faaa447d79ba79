"""The primitives of threading: elsewhere each is one primitive, common to all workers; here it stays what it is."""

from __future__ import annotations

import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest

import shoal
from tests.pool import tasks
from tests.pool.support import eventually


class Account:
    """An object that guards itself, as any class of a threaded program does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.total = shoal.zeros(1, dtype=np.int64)

    def add(self, times: int) -> None:
        for _ in range(times):
            with self.lock:
                before = int(self.total[0])
                time.sleep(0)
                self.total[0] = before + 1


def test_a_lock_holds_between_workers(pool: shoal.Pool) -> None:
    account = Account()
    pool.map(account.add, [100] * 4, 1)
    assert account.total[0] == 400


def test_it_is_one_lock_however_it_gets_there(pool: shoal.Pool) -> None:
    lock = threading.Lock()

    def take(holder: Any) -> bool:
        return holder.acquire(blocking=False)

    def give(holder: tasks.Holder) -> None:
        holder.content[0].release()

    assert pool.apply(take, (lock,)) is True
    assert pool.apply(lambda: lock.acquire(False)) is False
    assert pool.apply(lambda locks: locks["a"].locked(), ({"a": lock},)) is True
    pool.apply(give, (tasks.Holder([lock]),))
    assert pool.apply(take, (lock,)) is True


def test_the_clients_own_is_not_touched(pool: shoal.Pool) -> None:
    lock = threading.Lock()
    with lock:
        assert pool.apply(lambda lock: lock.acquire(timeout=5), (lock,)) is True
    assert not lock.locked()
    assert pool.apply(lambda lock: lock.locked(), (lock,)) is True


def test_it_comes_home_as_itself(pool: shoal.Pool) -> None:
    account = Account()
    assert pool.apply(tasks.same, (account,)).lock is account.lock


def test_one_made_in_a_worker_arrives_as_one_between_processes(pool: shoal.Pool) -> None:
    made = pool.apply(Account)
    with made.lock:
        assert pool.apply(lambda account: account.lock.acquire(False), (made,)) is False
    assert pool.apply(lambda account: account.lock.acquire(False), (made,)) is True


def test_from_worker_to_worker_it_goes_with_any_pickler(pool: shoal.Pool) -> None:
    lock = threading.Lock()
    pickled = pool.apply(lambda lock: pickle.dumps(lock), (lock,))
    assert pool.apply(lambda lock, pickled: (lock.acquire(), pickle.loads(pickled).locked())[1], (lock, pickled))
    assert pickle.loads(pickled) is lock


def test_it_has_the_methods_and_errors_of_threading(pool: shoal.Pool) -> None:
    def check(lock: Any, kind: str) -> None:
        assert lock.acquire() and lock.acquire(False) is (kind == "RLock")
        assert lock.acquire(True, 0.01) is (kind == "RLock")
        with pytest.raises(ValueError, match="timeout"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match="non-negative"):
            lock.acquire(timeout=-2)
        for _ in range(3 if kind == "RLock" else 1):
            lock.release()
        with pytest.raises(RuntimeError, match="lock"):
            lock.release()
        assert f"threading.{kind} between processes" in repr(lock)

    pool.apply(check, (threading.Lock(), "Lock"))
    pool.apply(check, (threading.RLock(), "RLock"))


def test_a_reentrant_lock_is_reentrant_in_its_worker_and_a_lock_for_others(pool: shoal.Pool) -> None:
    lock = threading.RLock()
    counts = shoal.zeros(1, dtype=np.int64)

    def add(times: int) -> None:
        for _ in range(times):
            with lock, lock:
                before = int(counts[0])
                time.sleep(0)
                counts[0] = before + 1

    pool.map(add, [100] * 4, 1)
    assert counts[0] == 400


def test_a_semaphore_begins_with_what_was_left(pool: shoal.Pool) -> None:
    semaphore, bounded = threading.Semaphore(3), threading.BoundedSemaphore(2)
    semaphore.acquire()
    assert [pool.apply(lambda s: s.acquire(blocking=False), (semaphore,)) for _ in range(3)] == [True, True, False]
    pool.apply(lambda s: s.release(2), (semaphore,))
    assert [pool.apply(lambda s: s.acquire(timeout=0), (semaphore,)) for _ in range(3)] == [True, True, False]
    assert pool.apply(lambda s: s.acquire(), (bounded,))
    with pytest.raises(ValueError, match="released too many times"):
        pool.apply(lambda s: s.release(2), (bounded,))


def test_an_event_wakes_other_workers_and_follows_what_the_client_does(pool: shoal.Pool) -> None:
    event = threading.Event()
    waiting = pool.apply_async(lambda event: event.wait(100), (event,))
    pool.apply(lambda event: event.set(), (event,))
    assert waiting.get() is True
    assert not event.is_set()

    def is_set() -> bool:
        return event.is_set()

    assert pool.apply(is_set) is True  # a worker has set it, and the client has changed nothing since
    event.set()
    assert pool.apply(is_set) is True
    event.clear()
    assert pool.apply(is_set) is False


def test_conditions_that_share_a_lock_share_it_there(pool: shoal.Pool) -> None:
    class Box:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.filled, self.emptied = threading.Condition(self.lock), threading.Condition(self.lock)
            self.content = shoal.zeros(1, dtype=np.int64)

        def put(self, numbers: range) -> None:
            for number in numbers:
                with self.emptied:
                    assert self.lock.locked()
                    assert self.emptied.wait_for(lambda: self.content[0] == 0, 30)
                    self.content[0] = number
                    self.filled.notify()

        def take(self, times: int) -> list[int]:
            taken = []
            for _ in range(times):
                with self.lock:
                    while self.content[0] == 0:
                        assert self.filled.wait(100)
                    taken.append(int(self.content[0]))
                    self.content[0] = 0
                    self.emptied.notify_all()
            return taken

    box = Box()
    taken = pool.apply_async(box.take, (20,))
    pool.apply(box.put, (range(1, 21),))
    assert taken.get() == list(range(1, 21))


def test_a_condition_has_a_reentrant_lock_by_default(pool: shoal.Pool) -> None:
    def twice(condition: Any) -> bool:
        with condition, condition:
            return bool(condition.wait(0.01))

    assert pool.apply(twice, (threading.Condition(),)) is False


def test_a_barrier_is_one_for_all_workers(pool: shoal.Pool) -> None:
    barrier = threading.Barrier(2)
    assert sorted(pool.map(lambda _: barrier.wait(100), range(2), 1)) == [0, 1]
    assert pool.apply(lambda: (barrier.parties, barrier.n_waiting, barrier.broken)) == (2, 0, False)


def test_what_belongs_to_threads_alone_arrives_empty(pool: shoal.Pool) -> None:
    local = threading.local()
    local.name = "here"
    assert pool.apply(lambda local: vars(local), (local,)) == {}


class Loud(threading.Event):
    """An event with an addition."""

    volume = 11


class Own(threading.local):
    """Begins with something in each thread."""


@pytest.mark.parametrize(
    ("obj", "reason"),
    [
        (Loud(), r"'Loud' object: a threading\.Event with additions.*hold a shoal\.Event instead"),
        (Own(), "'Own' object: nobody knows what its threads began with"),
    ],
    ids=["an event with additions", "threads' own with additions"],
)
def test_what_would_lose_something_on_the_way_is_refused(pool: shoal.Pool, obj: object, reason: str) -> None:
    with pytest.raises(shoal.SerializationError, match=rf"self\.content: cannot pickle {reason}"):
        pool.apply(tasks.same, (tasks.Holder(obj),))


def test_what_stands_for_it_goes_when_the_clients_own_goes(pool: shoal.Pool) -> None:
    before = shoal.memory().blocks
    for _ in range(100):
        assert pool.apply(lambda lock: lock.acquire(), (threading.Lock(),))
    assert eventually(lambda: (pool.apply(tasks.same, (0,)), shoal.memory().blocks - before < 50)[1])
