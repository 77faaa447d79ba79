"""`shoal.Executor`: the standard library's executor, which does not break."""

import concurrent.futures
import functools
import gc
import itertools
import os
import signal
import threading
import weakref
from collections.abc import Iterator

import psutil
import pytest

import shoal
from tests.executor.support import fail
from tests.pool import tasks
from tests.pool.support import ended, eventually


@pytest.fixture(params=["process", "thread"])
def executor(request: pytest.FixtureRequest) -> Iterator[shoal.Executor]:
    """An executor of two workers, of either kind."""
    with shoal.Executor(2, kind=request.param) as executor:
        yield executor


@pytest.fixture
def processes() -> Iterator[shoal.Executor]:
    """One of two processes."""
    with shoal.Executor(2) as executor:
        yield executor


def test_it_is_an_executor_of_the_standard_library(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    future = executor.submit(pow, 2, 10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 1024


def test_it_takes_the_arguments_of_the_standard_librarys():
    with shoal.Executor(1, None, tasks.same, (1,), max_tasks_per_child=1) as executor:
        pids = {executor.submit(os.getpid).result() for _ in range(3)}
        assert len(pids) == 3
    for wrong, error in (
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"initializer": 3}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": "1"}, TypeError),
        ({"kind": "fibre"}, ValueError),
    ):
        with pytest.raises(error):
            shoal.Executor(**wrong)


def test_by_default_it_has_a_worker_for_each_cpu():
    with shoal.Executor() as executor:
        assert len(executor.workers) == shoal.cpu_count()


def test_map_gives_the_results_in_order(executor):
    assert list(executor.map(pow, [2, 3, 4], [5, 2, 1, 0])) == [32, 9, 4]
    assert list(executor.map(lambda x: x + 1, range(1000))) == list(range(1, 1001))
    assert list(executor.map(tasks.square, [])) == []
    assert list(executor.map(tasks.square)) == []


@pytest.mark.parametrize("chunksize", [1, 3, 100])
@pytest.mark.parametrize("buffersize", [None, 1, 4])
def test_chunks_and_buffers_change_nothing(executor, chunksize, buffersize):
    results = executor.map(tasks.square, range(20), chunksize=chunksize, buffersize=buffersize)
    assert list(results) == [n * n for n in range(20)]


def test_map_submits_everything_at_once(executor, tmp_path):
    items = iter(range(5))
    executor.map(lambda n: (tmp_path / str(n)).touch(), items)
    assert next(items, None) is None
    assert eventually(lambda: len(list(tmp_path.iterdir())) == 5), "though nobody takes the results"


def test_a_buffer_limits_how_far_the_input_is_read(executor):
    read = itertools.count()
    results = executor.map(tasks.square, read, buffersize=5)
    assert next(read) == 5
    assert [next(results), next(results)] == [0, 1]
    assert next(read) == 8
    results.close()


def test_an_exception_comes_in_its_place_and_cancels_what_waits(executor, gate):
    def item(n):
        if n == 1:
            raise LookupError(n)
        return n if n < 1 else gate.wait(n)

    results = executor.map(item, range(50))
    assert next(results) == 0
    with pytest.raises(LookupError):
        next(results)
    gate.open()
    executor.shutdown()
    with pytest.raises(StopIteration):
        next(results)


def test_a_map_that_is_late_raises_a_time_out(executor, gate):
    results = executor.map(gate.wait, [0], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    gate.open()


def test_the_sizes_of_map_are_checked(executor):
    for wrong, error in (
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -1}, ValueError),
        ({"chunksize": 1.5}, TypeError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": "5"}, TypeError),
    ):
        with pytest.raises(error):
            executor.map(tasks.square, [1], **wrong)
    with pytest.raises(TypeError, match="callable"):
        executor.map(3, [1])


def test_the_function_of_a_map_is_pickled_once(processes):
    class Costly:
        pickled = 0

        def __call__(self, x):
            return x

        def __reduce__(self):
            Costly.pickled += 1
            return functools.partial, (tasks.same,)

    assert list(processes.map(Costly(), range(100))) == list(range(100))
    assert Costly.pickled == 1


def test_a_worker_that_dies_fails_its_task_and_breaks_nothing(processes):
    death, others = processes.submit(os._exit, 4), processes.map(tasks.square, range(100))
    assert isinstance(death.exception(), concurrent.futures.process.BrokenProcessPool)
    assert death.exception().exitcode == 4
    assert list(others) == [n * n for n in range(100)]
    os.kill(processes.workers[0].pid, signal.SIGKILL)
    assert processes.submit(pow, 2, 3).result() == 8


def test_after_shutdown_it_takes_nothing(executor):
    future = executor.submit(tasks.square, 3, 0.05)
    executor.shutdown()
    assert future.done() and future.result() == 9
    for call in (lambda: executor.submit(pow, 2, 2), lambda: executor.map(abs, [1])):
        with pytest.raises(RuntimeError):
            call()
    executor.shutdown()


def test_shutdown_need_not_wait(executor, gate):
    futures = [executor.submit(gate.wait, n) for n in range(10)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result() for future in futures] == list(range(10))


def test_shutdown_can_cancel_what_waits(executor, gate):
    running = [executor.submit(gate.wait, n) for n in range(2)]
    assert eventually(lambda: all(future.running() for future in running))
    waiting = [executor.submit(tasks.square, n) for n in range(3000)]

    def open_when_cancelled() -> None:
        eventually(lambda: all(future.cancelled() for future in waiting))
        gate.open()

    opener = threading.Thread(target=open_when_cancelled)
    opener.start()
    executor.shutdown(cancel_futures=True)
    assert [future.result() for future in running] == [0, 1]
    assert all(future.cancelled() for future in waiting)
    opener.join()


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_workers_can_be_ended_at_once(processes, method, gate):
    running = [processes.submit(gate.wait, n) for n in range(2)]
    assert eventually(lambda: all(future.running() for future in running))
    waiting = processes.submit(pow, 2, 2)
    workers = [psutil.Process(worker.pid) for worker in processes.workers]
    getattr(processes, method)()
    assert eventually(lambda: all(map(ended, workers)))
    for future in running:
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            future.result()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError):
        processes.submit(pow, 2, 2)


def test_a_failing_initializer_fails_the_tasks(caplog):
    with shoal.Executor(1, initializer=fail, initargs=("in the initializer",)) as executor:
        for future in [executor.submit(pow, 2, 2) for _ in range(2)]:
            with pytest.raises(concurrent.futures.process.BrokenProcessPool, match="LookupError: in the initializer"):
                future.result()


def test_an_executor_that_is_forgotten_does_what_it_was_given(gate):
    executor = shoal.Executor(1)
    (worker,) = executor.workers
    futures = [executor.submit(gate.wait, n) for n in range(3)]
    gone = weakref.ref(executor)
    process = psutil.Process(worker.pid)
    del executor
    assert eventually(lambda: gc.collect() >= 0 and gone() is None)
    gate.open()
    assert [future.result() for future in futures] == [0, 1, 2]
    assert eventually(lambda: ended(process))


def test_the_end_of_a_program_waits_for_what_was_submitted(run):
    """As the standard library promises; and a callback may still be called."""
    finished = run(
        """
        import shoal, time
        def tell(what):
            # In one write: print would write the end of the line by itself, and there are several threads.
            print(f"{what}\\n", end="")
        executor = shoal.Executor(2)
        for n in range(4):
            executor.submit(lambda n: time.sleep(0.05) or n, n).add_done_callback(lambda f: tell(f.result()))
        shoal.Executor(1).submit(lambda: time.sleep(0.1)).add_done_callback(lambda f: tell("forgotten"))
        executor.shutdown(wait=False)
        """
    )
    assert finished.returncode == 0, finished.stderr
    assert sorted(finished.stdout.split()) == ["0", "1", "2", "3", "forgotten"]
    assert finished.stderr == ""


def test_at_the_end_of_a_program_nothing_is_taken_any_more(run):
    finished = run(
        """
        import atexit, shoal
        executor = shoal.Executor(1)
        @atexit.register
        def late():
            try:
                executor.submit(id, 1)
            except RuntimeError:
                print("too late")
        print(executor.submit(pow, 2, 2).result())
        """
    )
    assert (finished.stdout, finished.returncode) == ("4\ntoo late\n", 0), finished.stderr


def test_a_future_of_an_executor_may_wait_in_another_thread_until_the_end(run):
    finished = run(
        """
        import shoal, threading, time
        executor = shoal.Executor(1)
        future = executor.submit(lambda: time.sleep(0.2) or "waited")
        threading.Thread(target=lambda: print(future.result())).start()
        """
    )
    assert (finished.stdout, finished.returncode) == ("waited\n", 0), finished.stderr


def test_one_that_is_shut_down_in_a_callback_does_its_work_all_the_same(run, tmp_path):
    program = run(
        f"""
        import time
        from pathlib import Path
        import shoal

        def late(_):
            executor.shutdown(wait=True)

        def touch(name):
            time.sleep(0.1)
            Path({str(tmp_path)!r}, name).touch()

        executor = shoal.Executor(1)
        first = executor.submit(abs, -1)
        rest = [executor.submit(touch, str(number)) for number in range(3)]
        first.add_done_callback(late)
        """
    )
    assert program.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["0", "1", "2"]
