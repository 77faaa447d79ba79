"""The tools, behind one face: a pool that is given calls and tells what became of each.

Every tool is used as its manual says, in its own `with` block, and with its defaults but for the number of workers.
"""

import importlib
import importlib.util
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from shoal.bench.clusters import PRIVATE_MARK
from shoal.bench.sessions import Unsupported

Call = tuple[Callable[..., Any], tuple[Any, ...]]
# What became of the call of that number: a value or an exception.
End = tuple[int, object]


class Run(Protocol):
    """Runs calls; each may take `timeout` seconds, or its result may be waited for so long."""

    def __call__(self, calls: Sequence[Call], timeout: float | None = None) -> Iterator[End]: ...


RAY_STORE = 200_000_000


@dataclass(frozen=True)
class Wishes:
    """What a pool is to have, where the tool has such an option."""

    workers: int = 2
    initializer: Callable[[], object] | None = None
    # Bytes that a worker may have.
    memory: int | None = None


def _by_handles(submit: Callable[..., Any], wait: Callable[[Any, float | None], Any]) -> Run:
    """Submits all; then waits for the others before it waits for the first, which is the one with the fault."""

    def run(calls: Sequence[Call], timeout: float | None = None) -> Iterator[End]:
        handles: dict[int, Any] = {}
        for number, (function, args) in enumerate(calls):
            try:
                handles[number] = submit(timeout, function, *args)
            except Exception as error:
                yield number, error
        for number in sorted(handles, key=lambda number: (number == 0, number)):
            try:
                end: object = wait(handles[number], timeout)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                end = error
            yield number, end

    return run


@contextmanager
def _shoal(wishes: Wishes) -> Iterator[Run]:
    import shoal

    with shoal.Pool(wishes.workers, wishes.initializer, worker_memory_limit=wishes.memory) as pool:
        yield _by_handles(
            lambda timeout, function, *args: pool.apply_async(function, args, timeout=timeout),
            lambda result, _: result.get(),
        )


@contextmanager
def _multiprocessing(wishes: Wishes) -> Iterator[Run]:
    with multiprocessing.Pool(wishes.workers, wishes.initializer) as pool:
        yield _by_handles(
            lambda _, function, *args: pool.apply_async(function, args), lambda result, timeout: result.get(timeout)
        )


@contextmanager
def _executor(wishes: Wishes) -> Iterator[Run]:
    with ProcessPoolExecutor(wishes.workers, initializer=wishes.initializer) as executor:
        yield _by_handles(
            lambda _, function, *args: executor.submit(function, *args), lambda future, timeout: future.result(timeout)
        )


@contextmanager
def _joblib(wishes: Wishes) -> Iterator[Run]:
    joblib: Any = importlib.import_module("joblib")
    more = {} if wishes.initializer is None else {"initializer": wishes.initializer}

    def run(calls: Sequence[Call], timeout: float | None = None) -> Iterator[End]:
        # A call is all or nothing; unordered, the results that came before an exception are there at least.
        kind = "generator_unordered" if timeout is None else "list"
        parallel = joblib.Parallel(wishes.workers, return_as=kind, timeout=timeout, **more)
        numbered = (joblib.delayed(_numbered)(number, function, args) for number, (function, args) in enumerate(calls))
        seen = set()
        try:
            for number, value in parallel(numbered):
                seen.add(number)
                yield number, value
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            for number in set(range(len(calls))) - seen:
                yield number, error

    yield run


def _numbered(number: int, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, Any]:
    return number, function(*args)


@contextmanager
def _mpire(wishes: Wishes) -> Iterator[Run]:
    mpire: Any = importlib.import_module("mpire")
    with mpire.WorkerPool(wishes.workers) as pool:
        yield _by_handles(
            lambda timeout, function, *args: pool.apply_async(
                function, args, worker_init=wishes.initializer, task_timeout=timeout
            ),
            lambda result, _: result.get(),
        )


@contextmanager
def _ray(wishes: Wishes) -> Iterator[Run]:
    if PRIVATE_MARK not in os.environ:
        raise Unsupported("opens ports to the network, and this machine gives no private one (unshare, ip)")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.getcwd()
    ray: Any = importlib.import_module("ray")

    def wait(reference: Any, timeout: float | None) -> Any:
        try:
            return ray.get(reference, timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(reference, force=True)
            raise

    ray.init(
        address="local",
        num_cpus=wishes.workers,
        include_dashboard=False,
        object_store_memory=RAY_STORE,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=tempfile.mkdtemp(prefix="ray"),
        runtime_env={"worker_process_setup_hook": wishes.initializer} if wishes.initializer else None,
    )
    try:
        yield _by_handles(lambda _, function, *args: ray.remote(function).remote(*args), wait)
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Tool:
    """A tool: its name, how it is called in the table, the module it comes in, and its pool."""

    name: str
    title: str
    module: str
    pool: Callable[[Wishes], AbstractContextManager[Run]]
    private_network: bool = False
    # Seconds that it may take to start, beyond what a program has.
    start: float = 0.0
    limits_memory: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be tried here."""
        return importlib.util.find_spec(self.module) is not None


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("shoal", "shoal", "shoal", _shoal, limits_memory=True),
        Tool("multiprocessing", "multiprocessing.Pool", "multiprocessing", _multiprocessing),
        Tool("executor", "ProcessPoolExecutor", "concurrent.futures", _executor),
        Tool("joblib", "joblib", "joblib", _joblib),
        Tool("mpire", "mpire", "mpire", _mpire),
        Tool("ray", "ray", "ray", _ray, private_network=True, start=60),
    )
}
