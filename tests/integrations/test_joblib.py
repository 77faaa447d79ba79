"""The joblib backend "shoal": joblib's behaviour, on workers that stay, without files for arrays."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

import shoal
from shoal.integrations.joblib import ShoalBackend
from tests.conftest import Run


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    """`Parallel` runs on shoal."""
    shoal.joblib.register()
    with joblib.parallel_config(backend="shoal", n_jobs=2):
        yield


def pids(count: int = 20) -> set[int]:
    return set(Parallel()(delayed(pause_and_tell)() for _ in range(count)))


def pause_and_tell() -> int:
    time.sleep(0.01)
    return os.getpid()


def test_tasks_run_in_workers_and_results_are_in_order() -> None:
    assert Parallel()(delayed(lambda x: x * x)(x) for x in range(1000)) == [x * x for x in range(1000)]
    assert os.getpid() not in pids()


def test_calls_of_several_functions_with_keywords_go_together() -> None:
    calls = [delayed(pow)(2, 3), delayed(int)("11", base=2), delayed(max)(1, 5)]
    assert Parallel(batch_size=3)(calls * 10) == [8, 3, 5] * 10


def test_workers_stay_for_the_next_call() -> None:
    # Not each of them may have come to a task at once.
    assert len(pids() | pids()) <= 2


def test_workers_are_as_if_they_were_forked_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Parallel()(delayed(abs)(1) for _ in range(2))
    monkeypatch.setenv("GREETING", "hello")
    monkeypatch.chdir(tmp_path)
    seen = Parallel()(delayed(lambda: (os.environ["GREETING"], os.getcwd()))() for _ in range(4))
    assert set(seen) == {("hello", str(tmp_path))}


def test_the_default_number_of_jobs_counts_from_the_cpus() -> None:
    backend = ShoalBackend()
    assert backend.effective_n_jobs(-1) == shoal.cpu_count()
    assert backend.effective_n_jobs(-1000) == 1
    assert backend.effective_n_jobs(None) == 1
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_come_one_by_one(return_as: str) -> None:
    results = Parallel(return_as=return_as)(delayed(pow)(x, 2) for x in range(50))
    assert sorted(results) == [x * x for x in range(50)]


def test_a_generator_that_is_forgotten_ends_its_tasks_and_no_others() -> None:
    other = Parallel(return_as="generator")(delayed(pow)(x, 2) for x in range(20))
    slow = Parallel(return_as="generator")(delayed(time.sleep)(1000) for _ in range(4))
    with pytest.warns(UserWarning, match="cancelled"):
        del slow
    assert list(other) == [x * x for x in range(20)]
    assert Parallel()(delayed(abs)(-x) for x in range(4)) == [0, 1, 2, 3]


def test_an_exception_arrives_as_itself_with_the_workers_traceback() -> None:
    def divide(x: int) -> float:
        return 1 / x

    with pytest.raises(ZeroDivisionError) as raised:
        Parallel()(delayed(divide)(x) for x in (1, 0))
    assert "in divide" in str(raised.value.__cause__)


def test_a_failed_call_leaves_nothing_running() -> None:
    def fail_or_sleep(x: int) -> None:
        if x == 1:
            raise KeyError(x)
        time.sleep(1000)

    for _ in range(2):
        with pytest.raises(KeyError):
            Parallel()(delayed(fail_or_sleep)(x) for x in range(2))
    assert Parallel()(delayed(abs)(-x) for x in range(4)) == [0, 1, 2, 3]


def test_a_task_that_takes_too_long_ends_the_call() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.2)(delayed(time.sleep)(1000) for _ in range(2))


def test_a_worker_that_dies_fails_the_call_and_not_the_next_one() -> None:
    with pytest.raises(shoal.WorkerDied):
        Parallel()(delayed(os.kill)(0 if x else os.getpid(), 0) if x else delayed(os._exit)(3) for x in range(2))
    assert Parallel()(delayed(abs)(-x) for x in range(4)) == [0, 1, 2, 3]


def test_what_cannot_be_pickled_is_named_at_once() -> None:
    with pytest.raises(shoal.SerializationError, match="generator"):
        Parallel()(delayed(id)(x for x in ()) for _ in range(2))


def test_a_loop_inside_a_task_shares_the_cpus() -> None:
    def inner() -> tuple[str, int]:
        backend, _ = joblib.parallel.get_active_backend()
        return type(backend).__name__, backend.effective_n_jobs(-1)

    share = max(1, shoal.cpu_count() // 2)
    assert set(Parallel()(delayed(inner)() for _ in range(4))) == {("ThreadingBackend", share)}


def test_a_loop_inside_a_task_may_have_processes_of_its_own() -> None:
    def outer(x: int) -> list[int]:
        with joblib.parallel_config(backend="shoal", n_jobs=2):
            return Parallel()(delayed(pow)(x, y) for y in range(3))

    assert Parallel()(delayed(outer)(x) for x in range(3)) == [[x**y for y in range(3)] for x in range(3)]


def test_threads_of_libraries_are_limited() -> None:
    def threads() -> str:
        return os.environ["OMP_NUM_THREADS"]

    with joblib.parallel_config(backend="shoal", inner_max_num_threads=3):
        assert Parallel(n_jobs=2)(delayed(threads)() for _ in range(2)) == ["3", "3"]


def test_initializers_and_options_of_pools_are_taken() -> None:
    def initialize(value: str) -> None:
        os.environ["VALUE"] = value

    def value() -> str:
        return os.environ["VALUE"]

    parallel = Parallel(backend="shoal", n_jobs=2, initializer=initialize, initargs=("one",), maxtasksperchild=1)
    assert parallel(delayed(value)() for _ in range(4)) == ["one"] * 4
    with pytest.raises(TypeError, match="wrong_option"):
        Parallel(backend="shoal", n_jobs=2, wrong_option=1)(delayed(abs)(1) for _ in range(2))


def test_an_array_of_many_tasks_is_copied_once() -> None:
    array = np.ones(1 << 20)

    def total(array: Any, x: int) -> tuple[float, bool]:
        result = float(array.sum()), array.flags.writeable
        array[:] = x  # its own, until the task has ended
        return result

    before = shoal.memory().used
    most = 0

    def calls() -> Iterator[Any]:
        nonlocal most
        for x in range(40):
            most = max(most, shoal.memory().used - before)
            yield delayed(total)(array, x)

    assert Parallel(batch_size=1)(calls()) == [(float(1 << 20), True)] * 40
    assert most < 2 * array.nbytes


def test_arrays_are_as_they_were_where_memmapping_is_off() -> None:
    array = np.zeros(1 << 18)

    def calls() -> Iterator[Any]:
        for x in range(10):
            array[:] = x
            yield delayed(np.max)(array)

    # joblib reads one for each worker before it sends the first.
    assert len(set(Parallel(batch_size=1, max_nbytes=None)(calls()))) >= 4


def test_several_threads_may_have_loops_at_once() -> None:
    results: dict[int, list[int]] = {}

    def loop(number: int) -> None:
        results[number] = Parallel(n_jobs=2, backend="shoal")(delayed(pow)(x, number) for x in range(200))

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [x**number for x in range(200)] for number in range(4)}


def test_the_program_ends_while_workers_are_kept(run: Run) -> None:
    result = run(
        """
        import joblib, shoal

        shoal.joblib.register(make_default=True)
        print(joblib.Parallel(n_jobs=2)(joblib.delayed(lambda x: x + 1)(x) for x in range(3)))
        """
    )
    assert (result.stdout, result.stderr, result.returncode) == ("[1, 2, 3]\n", "", 0)


def test_how_long_idle_workers_stay_is_what_the_program_says() -> None:
    with joblib.parallel_config(backend="shoal", n_jobs=2, idle_timeout=70):
        backend, _ = joblib.parallel.get_active_backend()
        backend.configure(2, Parallel(), **backend.backend_kwargs)
        assert backend._wanted.options["idle_timeout"] == 70


def test_threads_need_no_time_limit_that_nobody_gave() -> None:
    with joblib.parallel_config(backend="shoal", n_jobs=2, kind="thread"):
        assert set(Parallel()(delayed(os.getpid)() for _ in range(4))) == {os.getpid()}


def test_a_callback_that_raises_leaves_the_backend_fit_for_the_next_call() -> None:
    backend = ShoalBackend()
    backend.configure(2, Parallel(n_jobs=2))

    def broken(_: object) -> None:
        raise KeyboardInterrupt

    class Ended:
        """A pool whose tasks have ended when somebody would like to be told."""

        def __init__(self) -> None:
            self._base = self
            self.is_open = True

        def submit_call(self, *_: object) -> object:
            return object()

        def _threads(self) -> Any:
            return self

        def watch(self, *_: object) -> bool:
            return False

    backend._pool, backend._copies = Ended(), None  # type: ignore[assignment]
    batch = joblib.parallel.BatchedCalls([delayed(abs)(-1)], (backend, 2))
    with pytest.raises(KeyboardInterrupt):
        backend.submit(batch, broken)
    told: list[object] = []
    backend.submit(batch, told.append)
    assert len(told) == 1
