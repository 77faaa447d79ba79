"""`shoal.multiprocessing` has what `multiprocessing` has, shoal's where shoal has one."""

import importlib
import multiprocessing as original
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import shoal
import shoal.multiprocessing as ours
from shoal.multiprocessing import queues, synchronize

MODULES = ["connection", "context", "dummy", "managers", "pool", "process", "queues", "reduction", "shared_memory",
           "sharedctypes", "synchronize", "util"]  # fmt: skip


def test_all_public_names_are_there() -> None:
    assert set(ours.__all__) >= set(original.__all__)
    for name in original.__all__:
        assert getattr(ours, name) is not None
        assert name in dir(ours)


@pytest.mark.parametrize("module", MODULES)
def test_the_public_names_of_its_modules_are_there(module: str) -> None:
    mine = importlib.import_module(f"shoal.multiprocessing.{module}")
    its = importlib.import_module(f"multiprocessing.{module}")
    for name in getattr(its, "__all__", ()):
        assert getattr(mine, name) is not None
    assert isinstance(getattr(ours, module), ModuleType)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Queue", ()), ("JoinableQueue", (3,)), ("SimpleQueue", ()), ("Lock", ()), ("RLock", ()), ("Semaphore", (2,)),
        ("BoundedSemaphore", (2,)), ("Condition", ()), ("Event", ()), ("Barrier", (2,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
def test_queues_and_primitives_are_those_of_shoal_in_every_context(
    name: str, arguments: tuple[int, ...], method: str | None
) -> None:
    made = getattr(ours.get_context(method), name)(*arguments)
    assert type(made) is getattr(shoal, name)
    assert type(getattr(ours, name)(*arguments)) is getattr(shoal, name)


@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
def test_pools_are_those_of_shoal_in_every_context(method: str | None) -> None:
    with ours.get_context(method).Pool(1) as pool:
        assert type(pool) is shoal.Pool
        assert pool.map(lambda x: x + 1, [1, 2]) == [2, 3]


def test_values_and_arrays_are_those_of_shoal(pool: shoal.Pool) -> None:
    value, array, raw = ours.Value("i", 1), ours.Array("d", 3), ours.RawArray("b", [1, 2])

    def work() -> None:
        with value:
            value.value += 1
        array[1] = 2.5
        raw[0] = 7

    pool.apply(work)
    assert (value.value, array[:], raw[:]) == (2, [0.0, 2.5, 0.0], [7, 2])


def test_the_number_of_cpus_is_what_may_be_used() -> None:
    assert ours.cpu_count() == shoal.cpu_count()


@pytest.mark.parametrize("name", ["Process", "current_process", "active_children", "TimeoutError", "parent_process"])
def test_what_shoal_has_nothing_for_is_the_original(name: str) -> None:
    assert getattr(ours, name) is getattr(original, name)


def test_pools_of_threads_are_the_original() -> None:
    with ours.pool.ThreadPool(2) as pool:
        assert pool.map(lambda x: x + 1, range(3)) == [1, 2, 3]


def test_a_start_method_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot find context for 'thread'"):
        ours.get_context("thread")


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError, match="Pol"):
        ours.Pol  # noqa: B018


def test_the_start_method_is_common_to_both() -> None:
    source = """
import multiprocessing as original, shoal.multiprocessing as ours
assert ours.get_start_method(allow_none=True) is None
ours.set_start_method("spawn")
assert original.get_start_method() == ours.get_start_method() == ours.get_context().get_start_method() == "spawn"
assert type(ours.get_context()).__name__ == "SpawnContext"
try:
    ours.set_start_method("fork")
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("context has already been set\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_take_queues_and_locks(method: str) -> None:
    context = ours.get_context(method)
    queue, lock = context.Queue(), context.Lock()
    process = context.Process(target=put, args=(queue, lock))
    process.start()
    assert queue.get(timeout=100) == "hello"
    process.join()
    assert process.exitcode == 0


def put(queue: "shoal.Queue[str]", lock: shoal.Lock) -> None:
    with lock:
        queue.put("hello")


def test_importing_it_imports_nothing_else() -> None:
    source = "import sys, shoal.multiprocessing.shared_memory; print('multiprocessing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=100)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("Lock", ()), ("RLock", ()), ("Semaphore", (2,)), ("BoundedSemaphore", (2,)), ("Event", ()), ("Condition", ()),
        ("Barrier", (2,)),
    ],
)  # fmt: skip
def test_what_is_made_by_its_class_takes_a_context(kind: str, arguments: tuple[int, ...]) -> None:
    made = getattr(synchronize, kind)(*arguments, ctx=original.get_context("spawn"))
    assert isinstance(made, getattr(shoal, kind))


def test_a_class_below_queue_makes_itself_as_it_does_below_the_original() -> None:
    class Counted(queues.Queue[int]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, ctx=original.get_context(), **kwargs)
            self.puts = 0

        def put(self, *args: Any, **kwargs: Any) -> None:
            self.puts += 1
            super().put(*args, **kwargs)

    queue = Counted(maxsize=3)
    queue.put(7)
    assert (queue.get(), queue.puts, queue.maxsize) == (7, 1, 3)
