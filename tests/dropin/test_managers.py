"""Managers: what they are used for needs no server, and what needs one starts it."""

import os
import pickle
from collections.abc import Iterator
from multiprocessing.managers import BaseManager, State
from queue import Empty

import psutil
import pytest

import shoal
from shoal.multiprocessing import Manager
from shoal.multiprocessing.managers import SharedMemoryManager, SyncManager
from tests.pool.support import eventually


@pytest.fixture
def manager() -> Iterator[SyncManager]:
    with Manager() as manager:
        yield manager


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


class Sum:
    def __init__(self, start: int) -> None:
        self.total = start

    def add(self, n: int) -> int:
        self.total += n
        return self.total


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("JoinableQueue", (3,)), ("Lock", ()), ("RLock", ()), ("Semaphore", (2,)),
        ("BoundedSemaphore", (2,)), ("Condition", ()), ("Event", ()), ("Barrier", (2,)),
    ],
)  # fmt: skip
def test_what_shoal_has_needs_no_server(manager: SyncManager, name: str, arguments: tuple[int, ...]) -> None:
    before = children()
    assert type(getattr(manager, name)(*arguments)) is getattr(shoal, name)
    # Those of other tests may be ending.
    assert children() <= before


def test_every_queue_can_be_joined_as_the_original_managers(manager: SyncManager) -> None:
    queue = manager.Queue(maxsize=2)
    assert isinstance(queue, shoal.Queue) and queue.maxsize == 2
    queue.put(1)
    queue.get()
    queue.task_done()
    queue.join()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_what_is_acquired_takes_the_name_that_a_manager_has_for_it(manager: SyncManager, kind: str) -> None:
    lock = getattr(manager, kind)()
    assert lock.acquire(blocking=False)
    if "RLock" not in repr(lock):
        assert not lock.acquire(blocking=False)
    lock.release()
    assert lock.acquire(blocking=True, timeout=0)
    lock.release()


def test_a_queue_of_a_manager_goes_to_a_pool(manager: SyncManager, pool: shoal.Pool) -> None:
    queue, lock = manager.Queue(), manager.Lock()

    def work(n: int) -> None:
        with lock:
            queue.put(n)

    pool.map(work, range(100))
    assert sorted(queue.get() for _ in range(100)) == list(range(100))
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_dict_starts_the_server_which_ends_with_the_manager(pool: shoal.Pool) -> None:
    before = children()
    with Manager() as manager:
        counts, items, space = manager.dict(a=1), manager.list([1]), manager.Namespace(x=1)
        assert len(children() - before) == 1

        def work() -> None:
            counts["b"] = 2
            items.append(2)
            space.x = 3

        pool.apply(work)
        assert (counts.copy(), items[:], space.x) == ({"a": 1, "b": 2}, [1, 2], 3)
    assert eventually(lambda: children() <= before)


def test_things_of_shoal_may_lie_in_a_dict_of_the_server(manager: SyncManager) -> None:
    shared = manager.dict(queue=manager.Queue())
    shared["queue"].put("hello")
    assert shared["queue"].get() == "hello"


def test_registered_types_live_in_the_server() -> None:
    class Mine(SyncManager):
        pass

    Mine.register("Sum", Sum)
    with Mine() as manager:
        sum = manager.Sum(5)  # type: ignore[attr-defined]
        assert sum.add(2) == 7


def test_asking_for_the_address_starts_the_server_and_others_can_connect(manager: SyncManager) -> None:
    other = SyncManager(manager.address, bytes(manager._authkey))  # type: ignore[attr-defined]
    other.connect()
    queue = other.Queue()  # of the server: this one may be on another machine
    queue.put(1)
    assert not isinstance(queue, shoal.Queue)
    assert queue.get() == 1


def test_an_initializer_starts_the_server_at_once() -> None:
    before = children()
    manager = SyncManager()
    manager.start(os.getpid)
    assert len(children() - before) == 1
    manager.shutdown()
    assert eventually(lambda: children() <= before)


def test_a_manager_that_was_not_started_gives_nothing() -> None:
    manager = SyncManager()
    with pytest.raises(AssertionError, match="not been started"):
        manager.Queue()


def test_a_manager_that_was_shut_down_gives_nothing(manager: SyncManager) -> None:
    manager.shutdown()
    with pytest.raises(AssertionError, match="shut down"):
        manager.Lock()
    assert manager._state.value == State.SHUTDOWN  # type: ignore[attr-defined]


def test_a_manager_is_not_started_twice(manager: SyncManager) -> None:
    from multiprocessing import ProcessError

    with pytest.raises(ProcessError, match="Already started"):
        manager.start()


def test_it_is_a_manager() -> None:
    assert issubclass(SyncManager, BaseManager)
    assert pickle.loads(pickle.dumps(SyncManager)) is SyncManager


def test_segments_of_a_manager_go_with_it() -> None:
    with SharedMemoryManager() as other:
        other.SharedMemory(1)  # from now on there is the guard, once
    before = children()
    with SharedMemoryManager() as manager:
        segment, values = manager.SharedMemory(100), manager.ShareableList([1, 2])
        assert children() <= before
        names = [segment.name, values.shm.name]
        assert all(os.path.exists(f"/dev/shm/{name}") for name in names)
    assert not any(os.path.exists(f"/dev/shm/{name}") for name in names)
    with pytest.raises(ValueError, match="shut down"):
        manager.SharedMemory(100)


def test_segments_of_a_forgotten_manager_go_too() -> None:
    manager = SharedMemoryManager()
    manager.start()
    name = manager.SharedMemory(100).name
    del manager
    assert not os.path.exists(f"/dev/shm/{name}")
