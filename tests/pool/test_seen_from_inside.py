"""What programs of multiprocessing look at besides: who a worker is, how many there are, what is left of a map."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

import shoal
from tests.conftest import Run
from tests.pool.support import eventually


def who(together: shoal.Barrier | None = None) -> tuple[str, tuple[int, ...]]:
    if together is not None:
        together.wait(100)  # so that each worker has one
    process = multiprocessing.current_process()
    return process.name, process._identity  # type: ignore[attr-defined]


def parent() -> tuple[str, int | None, bool]:
    process = multiprocessing.parent_process()
    assert process is not None
    return process.name, process.pid, process.is_alive()


def test_a_worker_has_a_name_and_a_number(pool: shoal.Pool) -> None:
    barrier = shoal.Barrier(2)
    met = pool.map(who, [barrier] * 2, chunksize=1)
    assert sorted(met) == [("shoal-worker-0", (1,)), ("shoal-worker-1", (2,))]
    assert multiprocessing.current_process().name == "MainProcess"


def test_one_that_takes_the_place_of_another_has_its_number() -> None:
    with shoal.Pool(1, maxtasksperchild=1) as pool:
        assert {pool.apply(who) for _ in range(3)} == {("shoal-worker-0", (1,))}
        assert len({pool.apply(os.getpid) for _ in range(3)}) == 3


def test_it_has_its_name_also_where_nobody_has_imported_multiprocessing(run: Run) -> None:
    result = run("""
        import sys
        import shoal

        def held():
            with lock:
                return "multiprocessing.process" in sys.modules, repr(lock)

        lock = shoal.RLock()
        with shoal.Pool(1) as pool:
            print(held(), pool.apply(held))
    """)
    expected = "(False, '<RLock(MainProcess, 1)>') (False, '<RLock(shoal-worker-0, 1)>')"
    assert result.stdout.strip() == expected, result.stderr


def test_its_parent_is_the_client(pool: shoal.Pool) -> None:
    assert pool.apply(parent) == ("MainProcess", os.getpid(), True)


def test_a_worker_of_a_worker_is_numbered_behind_it(pool: shoal.Pool) -> None:
    def inner() -> tuple[object, ...]:
        with shoal.Pool(1) as one:
            return who(), one.apply(who), one.apply(parent), os.getpid()

    (name, numbers), (inner_name, inner_numbers), of_inner, pid = pool.apply(inner)
    assert (inner_name, inner_numbers) == ("shoal-worker-0", (*numbers, 1))
    assert of_inner == (name, pid, True)


def test_a_process_that_a_worker_starts_is_its_child(pool: shoal.Pool) -> None:
    def start() -> tuple[str, str]:
        child = multiprocessing.get_context("fork").Process(target=who)
        child.start()
        child.join()
        return multiprocessing.current_process().name, child.name

    worker, child = pool.apply(start)
    number = int(worker.rpartition("-")[2]) + 1
    assert child == f"ForkProcess-{number}:1"


def test_a_worker_that_never_imports_multiprocessing_does_not_import_it_for_that(run: Run) -> None:
    program = "import sys, shoal; print(shoal.Pool(1).apply(lambda: 'multiprocessing.process' in sys.modules))"
    assert run(program).stdout == "False\n"


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_pool_tells_its_size(kind: str) -> None:
    with shoal.Pool(3, kind=kind) as pool:
        assert pool._processes == 3


def touch_when(number: int, directory: Path) -> int:
    assert eventually((directory / f"go {number}").exists)
    return number


@pytest.mark.parametrize(("chunksize", "left"), [(1, [4, 3, 0]), (2, [2, 2, 0])])
def test_a_map_tells_what_is_left_of_it(tmp_path: Path, chunksize: int, left: list[int]) -> None:
    with shoal.Pool(1) as pool:
        result = pool.starmap_async(touch_when, [(number, tmp_path) for number in range(4)], chunksize)
        assert result._number_left == left[0]
        (tmp_path / "go 0").touch()
        assert eventually(lambda: result._number_left == left[1])
        for number in range(1, 4):
            (tmp_path / f"go {number}").touch()
        assert eventually(result.ready)
        assert result._number_left == left[2]
        assert result.get() == [0, 1, 2, 3]


def test_it_is_told_while_another_thread_waits(tmp_path: Path) -> None:
    with shoal.Pool(1) as pool:
        result = pool.starmap_async(touch_when, [(number, tmp_path) for number in range(2)], 1)
        waiting = threading.Thread(target=result.wait)
        waiting.start()
        (tmp_path / "go 0").touch()
        assert eventually(lambda: result._number_left == 1)
        (tmp_path / "go 1").touch()
        waiting.join()
        assert result._number_left == 0
