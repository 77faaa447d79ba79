"""From the first worker to the last: how a pool is made, closed and ended, and what its workers are."""

import gc
import os
import pickle
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from tests.conftest import Run
from tests.pool import tasks
from tests.pool.support import ended, eventually


def test_a_pool_has_as_many_workers_as_it_is_asked_for() -> None:
    with shoal.Pool(3) as pool:
        assert eventually(lambda: len({worker.pid for worker in pool.workers if worker.pid}) == 3)
        assert pool.apply(tasks.process_id) in {worker.pid for worker in pool.workers}
    pool.join()


def test_without_a_number_there_is_a_worker_for_each_cpu() -> None:
    with shoal.Pool() as pool:
        assert len(pool.workers) == shoal.cpu_count()
    pool.join()


def test_cpus_that_the_process_may_not_use_do_not_count(run: Run) -> None:
    program = run(
        """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import shoal
        with shoal.Pool() as pool:
            print(shoal.cpu_count(), len(pool.workers))
        """
    )
    assert (program.stdout, program.stderr) == ("1 1\n", "")


@pytest.mark.parametrize("processes", [0, -1, 501, 1 << 40])
def test_the_number_of_workers_lies_between_1_and_500(processes: int) -> None:
    with pytest.raises(ValueError, match="processes"):
        shoal.Pool(processes)


@pytest.mark.parametrize("processes", ["two", 2.0, [2]])
def test_the_number_of_workers_is_an_integer(processes: object) -> None:
    with pytest.raises(TypeError, match="processes"):
        shoal.Pool(processes)  # type: ignore[arg-type]


def test_the_initializer_is_a_callable() -> None:
    with pytest.raises(TypeError, match="initializer"):
        shoal.Pool(1, initializer=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "two"])
def test_the_limit_of_tasks_for_a_worker_is_a_positive_integer(limit: object) -> None:
    with pytest.raises((ValueError, TypeError), match="maxtasksperchild"):
        shoal.Pool(1, maxtasksperchild=limit)  # type: ignore[arg-type]


def test_the_initializer_runs_in_each_worker_before_its_first_task(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with shoal.Pool(2, tasks.note, (notes,)) as pool:
        assert eventually(lambda: notes.exists() and len(notes.read_text().split()) == 2)
        assert str(pool.apply(tasks.process_id)) in notes.read_text().split()
        assert len(notes.read_text().split()) == 2
    pool.join()


def test_what_the_initializer_leaves_is_there_for_the_tasks() -> None:
    with shoal.Pool(2, initializer=tasks.greet, initargs=("good", "morning")) as pool:
        assert pool.apply(tasks.greeting) == "good morning"
        assert tasks.greeting() == "none"
    pool.join()


def test_a_worker_retires_after_its_number_of_tasks() -> None:
    with shoal.Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(tasks.process_id) for _ in range(6)]
    pool.join()
    assert [pids[0], pids[2], pids[4]] == [pids[1], pids[3], pids[5]]
    assert len(set(pids)) == 3


def test_the_initializer_runs_in_the_successor_too(tmp_path: Path) -> None:
    with shoal.Pool(1, tasks.greet, ("hello",), maxtasksperchild=1) as pool:
        assert [pool.apply(tasks.greeting) for _ in range(3)] == ["hello"] * 3
    pool.join()


def test_close_lets_the_work_end_and_join_waits_for_it() -> None:
    pool = shoal.Pool(2)
    results = [pool.apply_async(tasks.square, (x, 0.001)) for x in range(200)]
    pool.close()
    pool.join()
    assert all(result.ready() for result in results)
    assert [result.get() for result in results] == [x * x for x in range(200)]


def test_after_join_the_workers_are_gone() -> None:
    pool = shoal.Pool(2)
    pool.map(tasks.square, range(10))
    workers = [psutil.Process(worker.pid) for worker in pool.workers]
    pool.close()
    pool.join()
    assert all(ended(worker) for worker in workers)


def test_join_waits_for_callbacks_too() -> None:
    pool = shoal.Pool(2)
    seen: list[int] = []
    for x in range(20):
        pool.apply_async(tasks.same, (x,), callback=seen.append)
    pool.close()
    pool.join()
    assert sorted(seen) == list(range(20))


def test_join_before_close_is_an_error(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError, match="still running"):
        pool.join()


def submissions(pool: shoal.Pool) -> None:
    """Each way to give work to a pool is refused."""
    for submit in (
        lambda: pool.apply(tasks.square, (1,)),
        lambda: pool.apply_async(tasks.square, (1,)),
        lambda: pool.map(tasks.square, [1]),
        lambda: pool.map_async(tasks.square, [1]),
        lambda: pool.starmap(tasks.add, [(1, 2)]),
        lambda: pool.starmap_async(tasks.add, [(1, 2)]),
        lambda: pool.imap(tasks.square, [1]),
        lambda: pool.imap_unordered(tasks.square, [1]),
        lambda: pool.map(tasks.square, []),
    ):
        with pytest.raises(shoal.PoolClosed, match="Pool not running"):
            submit()
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass


def test_a_closed_pool_takes_no_work() -> None:
    pool = shoal.Pool(1)
    pool.close()
    submissions(pool)
    pool.join()
    submissions(pool)


def test_a_terminated_pool_takes_no_work() -> None:
    pool = shoal.Pool(1)
    pool.terminate()
    submissions(pool)
    pool.join()
    submissions(pool)


def test_terminate_ends_tasks_that_are_running(tmp_path: Path) -> None:
    pool = shoal.Pool(2)
    started = [tmp_path / "a", tmp_path / "b"]
    for path in started:
        pool.apply_async(tasks.touch_and_wait, (path, tmp_path / "never"))
    for path in started:
        tasks.wait_for(path)
    workers = [psutil.Process(worker.pid) for worker in pool.workers]
    pool.terminate()
    pool.join()
    assert all(ended(worker) for worker in workers)


def test_a_result_that_terminate_cut_off_raises_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    pool = shoal.Pool(1)
    running, queued = (pool.apply_async(tasks.wait_for, (tmp_path / "never",)) for _ in range(2))
    mapped = pool.map_async(tasks.square, range(10))
    streamed = pool.imap(tasks.square, range(10))
    pool.terminate()
    for result in (running, queued, mapped):
        with pytest.raises(shoal.PoolClosed):
            result.get()
    with pytest.raises(shoal.PoolClosed):
        list(streamed)
    pool.join()


def test_the_end_of_with_terminates(tmp_path: Path) -> None:
    with shoal.Pool(1) as pool:
        pool.apply_async(tasks.wait_for, (tmp_path / "never",))
        workers = [psutil.Process(worker.pid) for worker in pool.workers if worker.pid]
    pool.join()
    assert all(ended(worker) for worker in workers)
    submissions(pool)


def test_close_and_terminate_and_join_may_be_repeated() -> None:
    pool = shoal.Pool(1)
    for end in (pool.close, pool.close, pool.join, pool.join, pool.terminate, pool.terminate, pool.close, pool.join):
        end()


def test_a_pool_that_is_forgotten_ends_its_workers_and_warns() -> None:
    pool = shoal.Pool(2)
    pool.map(tasks.square, range(10))
    workers = [psutil.Process(worker.pid) for worker in pool.workers]
    with pytest.warns(ResourceWarning, match=r"(?i)pool"):
        del pool
        gc.collect()
    assert eventually(lambda: all(ended(worker) for worker in workers))


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_who_has_a_result_of_a_forgotten_pool_gets_it(kind: str, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"

    def forgotten() -> list[Any]:
        pool = shoal.Pool(1, kind=kind)
        first = pool.apply_async(tasks.touch_and_wait, (started, gate))
        tasks.wait_for(started)
        return [first, pool.apply_async(tasks.process_id), pool.submit(tasks.process_id)]

    with pytest.warns(ResourceWarning, match="unclosed running pool"):
        running, called, submitted = forgotten()
        gc.collect()
    gate.touch()
    assert running.get() is None
    assert called.get() == submitted.result()


def test_who_has_the_result_of_a_map_of_a_forgotten_pool_gets_it() -> None:
    with pytest.warns(ResourceWarning, match="unclosed running pool"):
        result = shoal.Pool(1).map_async(tasks.square, range(10_000))
        gc.collect()
    assert result.get() == [x * x for x in range(10_000)]


def test_nobody_waits_for_a_forgotten_pool_whose_results_are_forgotten_too(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with pytest.warns(ResourceWarning, match="unclosed running pool"):
        pool = shoal.Pool(1)
        result = pool.apply_async(tasks.touch_and_wait, (started, tmp_path / "never"))
        tasks.wait_for(started)
        worker = psutil.Process(pool.workers[0].pid)
        del pool
        gc.collect()
    assert not ended(worker)
    del result
    gc.collect()
    assert eventually(lambda: ended(worker))


def test_a_pool_that_was_closed_is_forgotten_without_a_warning() -> None:
    """Warnings are errors in these tests."""
    pool = shoal.Pool(2)
    pool.close()
    pool.join()
    del pool
    gc.collect()


def test_several_pools_live_side_by_side() -> None:
    with shoal.Pool(1, tasks.greet, ("one",)) as one, shoal.Pool(1, tasks.greet, ("two",)) as two:
        assert [one.apply(tasks.greeting), two.apply(tasks.greeting)] == ["one", "two"]
    one.join()
    two.join()


def test_a_pool_itself_cannot_travel(pool: shoal.Pool) -> None:
    with pytest.raises(NotImplementedError, match="pool objects cannot be passed"):
        pickle.dumps(pool)


def test_a_pool_shows_what_it_is_and_how_it_is(pool: shoal.Pool) -> None:
    assert "Pool" in repr(pool) and "RUN" in repr(pool).upper()
    other = shoal.Pool(1)
    other.close()
    assert "CLOSE" in repr(other).upper()
    other.join()


def test_workers_start_where_the_client_is_at_that_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: shoal.Pool
) -> None:
    """The directory and the environment are those of the moment at which the pool is made, not of an earlier pool."""
    pool.apply(tasks.square, (1,))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOAL_TEST_WORD", "sesame")
    with shoal.Pool(1) as later:
        assert later.apply(os.getcwd) == str(tmp_path)
        assert later.apply(os.getenv, ("SHOAL_TEST_WORD",)) == "sesame"
    later.join()


def test_a_preloaded_module_that_starts_threads_is_told_of(run: Run) -> None:
    program = run(
        """
        import pathlib, sys, tempfile
        import shoal
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "threaded.py").write_text(
                "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
            )
            sys.path.insert(0, folder)
            with shoal.Pool(1, preload=["threaded"]) as pool:
                print(pool.apply(abs, (-1,)))
        """
    )
    assert program.stdout == "1\n"
    assert "'threaded' starts threads" in program.stderr


def test_the_thread_of_an_allocator_that_is_made_for_forks_is_not_told_of(run: Run) -> None:
    program = run(
        """
        import shoal
        with shoal.Pool(1, preload=["pyarrow"], threads_per_worker=1) as pool:
            print(pool.apply(lambda: __import__("pyarrow").array([1, 2]).to_pylist()))
        """
    )
    assert (program.stdout, program.stderr) == ("[1, 2]\n", "")


@pytest.mark.parametrize("when", ["before the pool", "before a worker is replaced"])
def test_the_directory_of_the_program_may_go(run: Run, when: str) -> None:
    program = run(
        f"""
        import os, signal
        os.mkdir("here")
        os.chdir("here")
        if {when!r} == "before the pool":
            os.rmdir("../here")
        import shoal
        def where(number):
            try:
                return os.getcwd()
            except FileNotFoundError:
                return number
        with shoal.Pool(1) as pool:
            if {when!r} != "before the pool":
                pool.apply(abs, (1,))
                os.rmdir("../here")
                os.kill(pool.workers[0].pid, signal.SIGKILL)
            print(pool.map(where, range(3), retries=1))
        """
    )
    assert (program.stdout, program.stderr) == ("[0, 1, 2]\n", "")


def test_a_view_that_terminates_ends_the_pool_that_it_is_of() -> None:
    pool = shoal.Pool(1)
    pool.options(timeout=5).terminate()
    assert repr(pool) == "<shoal.Pool state=TERMINATE pool_size=1>"
    pool.join()


def test_a_program_may_have_a_module_that_loads_itself(run: Run) -> None:
    program = run(
        """
        import sys, types
        import shoal

        class Lazy(types.ModuleType):
            def __getattr__(self, name):
                return {}[name]

        settings = Lazy("settings")
        del settings.__dict__["__name__"]
        with shoal.Pool(1) as pool:
            print(pool.apply(abs, (-1,)))
        """
    )
    assert (program.returncode, program.stdout) == (0, "1\n"), program.stderr
