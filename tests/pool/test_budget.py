"""One budget of CPUs: workers, threads of libraries in them and pools they make divide what there is."""

import os
import textwrap
from typing import Any

import pytest

import shoal
from tests.conftest import Run


def share(workers: int) -> int:
    return max(1, shoal.cpu_count() // workers)


def variables() -> tuple[str, ...]:
    return tuple(os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


def threads_of_numpy() -> set[int]:
    import numpy as np
    from threadpoolctl import threadpool_info

    _ = np.ones((200, 200)) @ np.ones((200, 200))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests says nothing."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "SHOAL_CPUS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_has_its_share(workers: int) -> None:
    with shoal.Pool(workers) as pool:
        assert pool.apply(shoal.cpu_count) == share(workers)
        assert pool.apply(variables) == (str(share(workers)),) * 3


def test_a_pool_in_a_worker_divides_that_workers_share() -> None:
    def inside() -> tuple[int, int]:
        with shoal.Pool() as inner:
            return len(inner.workers), inner.apply(shoal.cpu_count)

    with shoal.Pool(1) as pool:
        assert pool.apply(inside) == (share(1), 1)
    with shoal.Pool() as pool:
        assert pool.apply(inside) == (1, 1)


def test_threads_in_workers_of_workers_are_not_multiplied() -> None:
    def inside() -> tuple[str, ...]:
        with shoal.Pool(shoal.cpu_count()) as inner:
            return inner.apply(variables)

    with shoal.Pool(1) as pool:
        assert pool.apply(inside) == ("1",) * 3


def test_what_the_user_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    def inside() -> Any:
        with shoal.Pool(1) as inner:
            return inner.apply(os.environ.__getitem__, ("OMP_NUM_THREADS",))

    with shoal.Pool(2) as pool:
        assert pool.apply(os.environ.__getitem__, ("OMP_NUM_THREADS",)) == "7"
        assert pool.apply(inside) == "7"


def test_the_pool_may_say_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with shoal.Pool(1, threads_per_worker=3) as pool:
        assert pool.apply(variables) == ("3",) * 3


def test_openblas_is_told_to_let_its_threads_sleep_unless_the_user_says_otherwise(run: Run) -> None:
    program = """
        import os, numpy, shoal

        def told():
            zygote = open(f"/proc/{os.getppid()}/environ").read().split("\\0")
            [patience] = [entry for entry in zygote if entry.startswith("OPENBLAS_THREAD_TIMEOUT=")]
            return patience.split("=")[1], os.environ["OPENBLAS_THREAD_TIMEOUT"]

        with shoal.Pool(1, threads_per_worker=2) as pool:
            print(*pool.apply(told), os.environ.get("OPENBLAS_THREAD_TIMEOUT"))
        """
    assert run(program).stdout == "20 20 None\n"
    said = "import os; os.environ['OPENBLAS_THREAD_TIMEOUT'] = '25'\n" + textwrap.dedent(program)
    assert run(said).stdout == "25 25 25\n"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_numpy_has_so_many_threads_in_a_worker(threads: int) -> None:
    import numpy  # noqa: F401  (what the client has, the zygote imports)

    with shoal.Pool(1, threads_per_worker=threads) as pool:
        assert pool.apply(threads_of_numpy) == {threads}


def test_numpy_that_a_task_imports_has_so_many_threads(run: Run) -> None:
    result = run(
        """
        import shoal

        def threads():
            import numpy, threadpoolctl
            return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

        with shoal.Pool(1, threads_per_worker=3) as pool:
            print(pool.apply(threads))
        """
    )
    # OpenBLAS begins with no more threads than there are CPUs.
    assert (result.stdout, result.stderr) == (f"[{min(3, shoal.cpu_count())}]\n", "")


def test_the_environment_may_say_how_many_cpus(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CPUS", "1")
    result = run("import shoal; print(shoal.cpu_count(), len(shoal.default_pool().workers))")
    assert (result.stdout, result.stderr) == ("1 1\n", "")


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_number_of_cpus_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SHOAL_CPUS", value)
    with pytest.raises(ValueError, match=f"SHOAL_CPUS must be a positive integer, not '{value}'"):
        shoal.cpu_count()


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_number_of_threads_that_is_none_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="threads_per_worker must be"):
        shoal.Pool(1, threads_per_worker=value)


def test_threads_have_the_libraries_of_their_process() -> None:
    with pytest.raises(ValueError, match="threads_per_worker is for processes"):
        shoal.Pool(1, threads_per_worker=2, kind="thread")
