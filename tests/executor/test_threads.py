"""`Pool(kind="thread")`: what holds for pools of processes holds for threads. The same tests, and a few more."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

import shoal
from tests.executor import test_future
from tests.pool import tasks, test_apply, test_async_results, test_imap, test_map, test_map_array, test_streaming
from tests.pool.support import eventually

# Threads share what processes have copies of, need not pickle anything, and don't die.
OF_PROCESSES = {
    "test_apply_calls_in_another_process": "it is this one",
    "test_an_exception_is_raised_with_the_workers_traceback": "with its own",
    "test_an_argument_is_the_tasks_own_copy": "it is the caller's own",
    "test_an_argument_is_sent_as_it_is_when_it_is_submitted": "it is the caller's own",
    "test_an_item_is_sent_as_it_was_when_it_was_read": "it is the caller's own",
    "test_a_result_that_cannot_be_sent_fails_in_its_place": "everything can",
    "test_a_function_that_cannot_be_sent_is_refused_at_once": "everything can",
    "test_what_can_not_be_sent_is_an_error_at_once": "everything can",
    "test_cheap_items_travel_together_and_dear_ones_alone": "nothing travels",
    "test_large_results_that_nobody_takes_are_few": "nothing travels",
    "test_an_input_that_asks_for_its_own_results_is_told_that_they_cannot_come": "in other words",
    "test_a_worker_that_dies_fails_its_future_alone": "threads don't die alone",
    "test_a_worker_that_dies_takes_no_more_than_its_batch_along": "threads don't die alone",
    "test_a_worker_that_dies_costs_one_item_if_items_travel_alone": "threads don't die alone",
}


@pytest.fixture
def pool() -> Iterator[shoal.Pool]:
    """A pool of two threads."""
    with shoal.Pool(2, kind="thread") as pool:
        yield pool


@pytest.fixture(scope="module")
def workers() -> Iterator[shoal.Pool]:
    """One for all tests of this module, where a pool in each would not show more."""
    with shoal.Pool(2, kind="thread") as pool:
        yield pool


@pytest.fixture(scope="module")
def warm(workers: shoal.Pool) -> shoal.Pool:
    """The same, by the name that another module uses."""
    return workers


def _same_tests() -> dict[str, Callable[..., object]]:
    same = {}
    for module in (test_apply, test_async_results, test_imap, test_map, test_map_array, test_streaming, test_future):
        part = module.__name__.rpartition(".test_")[2]
        for name, test in vars(module).items():
            if name.startswith("test_") and callable(test) and name not in OF_PROCESSES:
                same[f"test_{part}_{name.removeprefix('test_')}"] = test
    return same


globals().update(_same_tests())


def test_the_pool_is_one_of_threads(pool):
    assert isinstance(pool, shoal.Pool)
    assert pool.apply(os.getpid) == os.getpid()
    assert pool.apply(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ValueError, match="'process' or 'thread'"):
        shoal.Pool(2, kind="fibre")
    with pytest.raises(ValueError, match="memory_limit"):
        shoal.Pool(2, kind="thread", memory_limit=1 << 20)


def test_what_can_not_be_pickled_can_be_used(pool):
    lock, local = threading.Lock(), threading.local()
    assert pool.map(lambda one: one is lock, [lock, local]) == [True, False]
    assert pool.submit(lambda: local).result() is local


def test_an_argument_is_the_callers_own(pool):
    things = []
    pool.map(things.append, range(100))
    assert sorted(things) == list(range(100))


def test_an_initializer_is_called_in_each_thread_and_again_when_it_is_replaced():
    called = []
    with shoal.Pool(2, called.append, (1,), maxtasksperchild=3, kind="thread") as pool:
        threads = {pool.apply(threading.get_native_id) for _ in range(30)}
    assert len(threads) >= 10
    assert len(called) >= 10


def test_an_initializer_that_raises_fails_the_next_task():
    turns = iter([ValueError("first"), None, None, None])

    def initialize():
        if (error := next(turns)) is not None:
            raise error

    with shoal.Pool(1, initialize, kind="thread") as pool:
        with pytest.raises(ValueError, match="first") as raised:
            pool.apply(tasks.square, (2,))
        assert "initializer" in "".join(raised.value.__notes__)
        assert pool.apply(tasks.square, (2,)) == 4


def test_a_task_that_exits_fails_alone(pool):
    with pytest.raises(SystemExit):
        pool.apply(exit, (3,))
    assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


def test_terminating_ends_tasks_though_a_function_goes_on(gate):
    with shoal.Pool(1, kind="thread") as pool:
        running, queued = pool.submit(gate.wait), pool.submit(tasks.square, 2)
        assert eventually(running.running)
    for future in (running, queued):
        with pytest.raises(shoal.PoolClosed, match="terminated"):
            future.result(timeout=150)
    gate.open()
    pool.join()
    assert all(worker.state == "gone" for worker in pool.workers)


def test_workers_tell_what_they_did(pool):
    pool.map(tasks.square, range(10), chunksize=1)
    assert eventually(lambda: sum(worker.tasks for worker in pool.workers) == 10)
    assert {worker.pid for worker in pool.workers} == {os.getpid()}


def test_a_program_ends_though_a_thread_is_at_a_task(run):
    ended = run(
        """
        import shoal, threading, time
        pool = shoal.Pool(1, kind="thread")
        started = threading.Event()
        def forever():
            started.set()
            while True:
                time.sleep(0.01)
        pool.apply_async(forever)
        started.wait()
        print("done")
        """
    )
    assert (ended.stdout, ended.returncode) == ("done\n", 0), ended.stderr
