"""Locks, queues and the like on nodes when who holds them or waits is killed, stopped, or ends with its pool."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import pytest

import shoal
from shoal import _engine
from tests.pool.support import eventually


def killed(pool: shoal.Pool, act: Any) -> None:
    """Has a worker do this, and die."""

    def die() -> None:
        act()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(shoal.WorkerDied):
        pool.apply(die)


def test_a_lock_passes_on_when_its_holder_is_killed_and_says_so(pool: shoal.Pool) -> None:
    for lock in shoal.Lock(), shoal.RLock():
        killed(pool, lock.acquire)
        with lock:
            assert lock.abandoned
        assert not lock.abandoned
        killed(pool, lock.acquire)

        def find(lock: Any) -> bool:
            with lock:
                return bool(lock.abandoned)

        assert pool.apply(find, (lock,))


def test_a_lock_of_a_node_passes_on_when_its_holder_on_another_is_killed(pool: shoal.Pool) -> None:
    locks = pool.map(lambda _: shoal.Lock(), range(4), chunksize=1)
    for lock in locks:
        killed(pool, lock.acquire)
        with lock:
            assert lock.abandoned


def test_a_strict_lock_is_nobodys_until_somebody_repairs_it(pool: shoal.Pool) -> None:
    def repair(lock: Any) -> bool:
        try:
            lock.acquire()
        except shoal.LockAbandoned:
            return bool(lock.repair()) and lock.release() is None
        return False

    lock = shoal.Lock(raise_abandoned=True)
    killed(pool, lock.acquire)
    assert pool.apply(repair, (lock,))
    assert lock.acquire()


def test_the_permits_of_who_is_killed_come_back(pool: shoal.Pool) -> None:
    semaphore = shoal.Semaphore(1)
    killed(pool, semaphore.acquire)
    assert semaphore.acquire(timeout=60)
    assert semaphore.recovered == 1


def test_a_barrier_breaks_when_one_is_killed_that_waits_at_it(pool: shoal.Pool) -> None:
    barrier = shoal.Barrier(3)
    waiting = pool.apply_async(barrier.wait)

    def die() -> None:
        threading.Thread(target=barrier.wait, daemon=True).start()
        eventually(lambda: barrier.n_waiting == 2)
        os.kill(os.getpid(), signal.SIGKILL)

    doomed = pool.apply_async(die)
    with pytest.raises(shoal.WorkerDied):
        doomed.get()
    with pytest.raises(threading.BrokenBarrierError, match="a process died while it waited"):
        waiting.get()
    assert barrier.broken


def test_who_is_killed_while_waiting_takes_nothing_any_more(pool: shoal.Pool) -> None:
    items, lock, begun = shoal.Queue(), shoal.Lock(), shoal.Queue()
    alive = shoal.Lock(), shoal.Lock()

    def wait(number: int) -> Any:
        alive[number].acquire()
        begun.put(number)
        return items.get() if number else lock.acquire()

    lock.acquire()
    waiting = [pool.apply_async(wait, (number,)) for number in (0, 1)]
    for _ in waiting:
        begun.get()
    assert [result.cancel(running=True) for result in waiting] == [True, True]
    for held in alive:
        held.acquire()  # its death is known here
    after = pool.apply_async(items.get)
    items.put("for who comes after")
    lock.release()
    assert after.get() == "for who comes after"
    assert pool.apply(lock.acquire, kwds={"timeout": 60})


def test_what_is_put_when_a_twin_has_been_ended_is_not_for_it() -> None:
    items, twin = shoal.Queue(), _engine.StandIn().twin()
    begun: list[bool] = []
    got: list[str] = []

    def wait() -> None:
        twin.begin()
        begun.append(True)
        try:
            got.append(items.get())
        except InterruptedError:
            got.append("nothing")

    # No thread has to let another go on: this one does only when it waits, and that one only when its queue is empty.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert eventually(lambda: begun)
        twin.end()
        items.put("for another")
        waiting.join()
    finally:
        sys.setswitchinterval(before)
    assert (got, items.get_nowait()) == (["nothing"], "for another")


def test_a_waiting_task_ends_when_its_time_is_up(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.TaskTimeout):
        pool.apply(shoal.Event().wait, timeout=0.2)
    with pytest.raises(shoal.TaskTimeout):
        pool.apply(shoal.Queue().get, timeout=0.2)


def test_when_the_pool_has_ended_nothing_of_it_stays(cluster: Any) -> None:
    lock, items = shoal.Lock(), shoal.Queue()
    with shoal.Pool(1, cluster=cluster) as pool:
        pool.apply(lock.acquire)
        waiting = pool.apply_async(items.get)
        assert eventually(lambda: any(thread.name == "shoal-twin" for thread in threading.enumerate()))
        pool.terminate()
        pool.join()
        with pytest.raises(shoal.PoolClosed):
            waiting.get()
    assert lock.acquire(timeout=60)
    items.put(1)
    assert items.get() == 1
