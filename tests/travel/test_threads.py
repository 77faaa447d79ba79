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


def test_what_belongs_to_threads_alone_arrives_empty(pool: shoal.Pool) -> None:
    local = threading.local()
    local.name = "here"
    assert pool.apply(lambda local: vars(local), (local,)) == {}


class Own(threading.local):
    """Begins with something in each thread."""


def test_one_with_additions_is_refused(pool: shoal.Pool) -> None:
    reason = r"self\.content: cannot pickle 'Own' object: nobody knows what its threads began with"
    with pytest.raises(shoal.SerializationError, match=reason):
        pool.apply(tasks.same, (tasks.Holder(Own()),))


def test_what_stands_for_it_goes_when_the_clients_own_goes(pool: shoal.Pool) -> None:
    before = shoal.memory().blocks
    for _ in range(100):
        assert pool.apply(lambda lock: lock.acquire(), (threading.Lock(),))
    pool.apply(tasks.same, (0,))
    assert shoal.memory().blocks - before < 50
