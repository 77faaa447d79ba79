"""shoal: Python on every core.

The programming model of multiprocessing (a pool, shared arrays, locks, progress bars) without its errors and its
copies, on a Rust engine over shared memory.

    import shoal

    with shoal.Pool() as pool:
        squares = pool.map(lambda x: x * x, range(1000))

Importing shoal is cheap: everything is imported when first used.
"""

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(f"shoal runs on Linux (kernel 5.14 or newer, x86-64 or aarch64), not on {sys.platform}")

import atexit

try:
    from shoal._engine import __version__, wait_for_threads
except ModuleNotFoundError as error:
    if error.name != "shoal._engine":
        raise
    raise ImportError(
        "shoal's engine is not here for this interpreter. It is made for CPython 3.11 or newer on x86-64 and aarch64; "
        "in a checkout, `pip install .` builds it"
    ) from error

# At the end of the interpreter, after the pools have ended: no thread may come back from the engine too late.
atexit.register(wait_for_threads)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shoal import joblib
    from shoal._budget import cpu_count
    from shoal.arrays import SharedArray, array, empty, full, ones, zeros
    from shoal.counters import Counter
    from shoal.default import default_pool, map
    from shoal.errors import (
        LockAbandoned,
        OutOfSharedMemory,
        PoolClosed,
        RemoteError,
        RemoteTraceback,
        SerializationError,
        ShoalError,
        TaskTimeout,
        WorkerDied,
    )
    from shoal.events import Barrier, Condition, Event
    from shoal.executor import Executor
    from shoal.explain import Explanation, why
    from shoal.files import FileArray, open_array
    from shoal.insight.drawing import timeline
    from shoal.locks import BoundedSemaphore, Lock, RLock, Semaphore
    from shoal.loops import parallel
    from shoal.pool import AsyncResult, Pool, Worker
    from shoal.progress import tqdm, trange
    from shoal.queues import JoinableQueue, Queue, ShutDown, SimpleQueue
    from shoal.random import rng
    from shoal.usage import MemoryUsage, memory, memory_limit
    from shoal.values import Array, RawArray, RawValue, Value

__all__ = [
    "Array",
    "AsyncResult",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Counter",
    "Event",
    "Executor",
    "Explanation",
    "FileArray",
    "JoinableQueue",
    "Lock",
    "LockAbandoned",
    "MemoryUsage",
    "OutOfSharedMemory",
    "Pool",
    "PoolClosed",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "RemoteError",
    "RemoteTraceback",
    "Semaphore",
    "SerializationError",
    "SharedArray",
    "ShoalError",
    "ShutDown",
    "SimpleQueue",
    "TaskTimeout",
    "Value",
    "Worker",
    "WorkerDied",
    "__version__",
    "array",
    "cpu_count",
    "default_pool",
    "empty",
    "full",
    "joblib",
    "map",
    "memory",
    "memory_limit",
    "ones",
    "open_array",
    "parallel",
    "rng",
    "timeline",
    "tqdm",
    "trange",
    "why",
    "zeros",
]

# Where to find what is imported when first used. No module may have the name of something it defines: importing
# it would put the module in the place of the thing.
_LAZY = {
    **dict.fromkeys(("AsyncResult", "Pool", "Worker"), "pool"),
    **dict.fromkeys(("SharedArray", "array", "empty", "full", "ones", "zeros"), "arrays"),
    "Counter": "counters",
    "cpu_count": "_budget",
    **dict.fromkeys(("Barrier", "Condition", "Event"), "events"),
    **dict.fromkeys(("BoundedSemaphore", "Lock", "RLock", "Semaphore"), "locks"),
    **dict.fromkeys(("Array", "RawArray", "RawValue", "Value"), "values"),
    **dict.fromkeys(("default_pool", "map"), "default"),
    **dict.fromkeys(("Explanation", "why"), "explain"),
    **dict.fromkeys(("FileArray", "open_array"), "files"),
    "Executor": "executor",
    "parallel": "loops",
    **dict.fromkeys(("tqdm", "trange"), "progress"),
    "rng": "random",
    "timeline": "insight.drawing",
    **dict.fromkeys(("JoinableQueue", "Queue", "ShutDown", "SimpleQueue"), "queues"),
    **dict.fromkeys(("MemoryUsage", "memory", "memory_limit"), "usage"),
    **dict.fromkeys(
        (
            "LockAbandoned",
            "OutOfSharedMemory",
            "PoolClosed",
            "RemoteError",
            "RemoteTraceback",
            "SerializationError",
            "ShoalError",
            "TaskTimeout",
            "WorkerDied",
        ),
        "errors",
    ),
}


# What programs of multiprocessing look for here, too, and what is not shoal's.
_ELSEWHERE = ("Manager", "Pipe", "Process", "current_process", "get_context", "shared_memory")

# Modules that are found here without an import of their own.
_MODULES = ("joblib",)


def __getattr__(name: str) -> object:
    module = name if name in _MODULES else _LAZY.get(name)
    if module is None:
        where = ": shoal.multiprocessing has it" if name in _ELSEWHERE else ""
        raise AttributeError(f"module 'shoal' has no attribute {name!r}{where}")
    from importlib import import_module

    found = import_module(f"shoal.{module}")
    value: object = found if name in _MODULES else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
