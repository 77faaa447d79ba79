"""Which types travel in a way of their own, and the reducer of each. The table of all of them is here.

Pickle refuses a lock, an open file or a queue of multiprocessing, for it can't know what becomes of the bytes. Here it
is known: they go to another process of this machine, and there most of these have one sensible meaning. What has none
is refused by name, or it would arrive as a heap of attributes: a thread that does not run, a future that nobody sets.

Types are found by their names, so nothing is imported for a type that a program does not use. A class below one of
these goes the same way, unless it has a `__reduce__`, `__reduce_ex__` or `__getstate__` of its own: that is its word on
the matter. A reducer may return NotImplemented, for an object that travels as pickle has it.
"""

from __future__ import annotations

import copyreg

TYPE_CHECKING = False  # type checkers know the name; importing it from typing takes longer than this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reducer = Callable[[Any], Any]

__all__ = ["find", "first"]

# What the C pickler would take for something else, or copy: asked for before it comes to them.
_FIRST = {
    "array.array": "buffers:reduce_array",
    "tqdm.std.tqdm": "bars:reduce_bar",
    "torch.Tensor": "buffers:reduce_tensor",
    "numpy.memmap": "mapped:reduce_memmap",
    "_ctypes.Array": "standard:reduce_ctype",
    "_ctypes.Structure": "standard:reduce_ctype",
    "_ctypes.Union": "standard:reduce_ctype",
    "_ctypes._SimpleCData": "standard:reduce_ctype",
    "multiprocessing.connection.Connection": "standard:reduce_standard",
    "multiprocessing.managers.BaseProxy": "standard:reduce_proxy",
}

# What it refuses.
_REFUSED = {
    "_io._IOBase": "files:reduce_file",
    "_queue.SimpleQueue": "refusals:refuse_queue",
    "_thread._local": "threads:reduce_local",
    "_thread.lock": "threads:reduce_lock",
    "_thread.RLock": "threads:reduce_rlock",
    "weakref.ReferenceType": "references:reduce_reference",
    "weakref.ProxyType": "references:reduce_proxy",
    "weakref.CallableProxyType": "references:reduce_proxy",
    "concurrent.futures._base.Future": "refusals:reduce_future",
    "concurrent.futures.process.ProcessPoolExecutor": "refusals:refuse_executor",
    "concurrent.futures.thread.ThreadPoolExecutor": "refusals:refuse_executor",
    "logging.Handler": "handlers:reduce_handler",
    "multiprocessing.heap.Arena": "standard:reduce_standard",
    "multiprocessing.heap.BufferWrapper": "standard:reduce_standard",
    "multiprocessing.pool.Pool": "refusals:refuse_executor",
    "multiprocessing.process.BaseProcess": "refusals:refuse_running",
    "multiprocessing.queues.JoinableQueue": "standard:reduce_standard",
    "multiprocessing.queues.Queue": "standard:reduce_standard",
    "multiprocessing.queues.SimpleQueue": "standard:reduce_standard",
    "multiprocessing.sharedctypes.SynchronizedBase": "standard:reduce_standard",
    "multiprocessing.synchronize.Barrier": "standard:reduce_standard",
    "multiprocessing.synchronize.Condition": "standard:reduce_standard",
    "multiprocessing.synchronize.Event": "standard:reduce_standard",
    "multiprocessing.synchronize.SemLock": "standard:reduce_standard",
    "queue.Queue": "refusals:refuse_queue",
    "shoal.executor.Executor": "home:reduce_pool",
    "shoal.pool.Pool": "home:reduce_pool",
    "subprocess.Popen": "refusals:refuse_running",
    "threading.Barrier": "threads:reduce_barrier",
    "threading.BoundedSemaphore": "threads:reduce_bounded_semaphore",
    "threading.Condition": "threads:reduce_condition",
    "threading.Event": "threads:reduce_event",
    "threading.Semaphore": "threads:reduce_semaphore",
    "threading.Thread": "refusals:refuse_running",
    "weakref.WeakKeyDictionary": "references:reduce_weak_keys",
    "weakref.WeakMethod": "references:reduce_method",
    "weakref.WeakValueDictionary": "references:reduce_weak_values",
}

_ALL = {**_FIRST, **_REFUSED}

# Classes below these go their own way.
_EXACT = frozenset({"array.array", "torch.Tensor"})

_OWN_WORD = frozenset({"__reduce__", "__reduce_ex__", "__getstate__"})

# The answers so far. Beyond so many types all are forgotten: programs may make classes without end.
_found: dict[type, Reducer | None] = {}
_found_first: dict[type, Reducer | None] = {}
_MOST = 1000


def find(kind: type) -> Reducer | None:
    """The reducer for objects of type `kind`; None for what travels as pickle has it.

    Example:
        find(type(threading.Lock()))  # shoal.serialize.threads.reduce_lock
    """
    try:
        return _found[kind]
    except KeyError:
        return _remember(kind, _found, _ALL)


def first(kind: type) -> Reducer | None:
    """The same for those types only that the C pickler must not come to first."""
    try:
        return _found_first[kind]
    except KeyError:
        return _remember(kind, _found_first, _FIRST)


def _remember(kind: type, found: dict[type, Reducer | None], ways: dict[str, str]) -> Reducer | None:
    if len(found) >= _MOST:
        found.clear()
    reducer = found[kind] = _look(kind, ways)
    return reducer


def _look(kind: type, ways: dict[str, str]) -> Reducer | None:
    if issubclass(kind, BaseException):
        return _reduce_exception
    if kind in copyreg.dispatch_table:
        return None
    for cls in kind.__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        way = ways.get(name)
        if way is not None and (cls is kind or name not in _EXACT):
            from importlib import import_module

            module, _, function = way.partition(":")
            reducer: Reducer = getattr(import_module(f"shoal.serialize.{module}"), function)
            return reducer
        if not _OWN_WORD.isdisjoint(vars(cls)):
            return None
    return None


def _reduce_exception(exc: Any) -> Any:
    """An exception goes as it has it itself, whatever tblib says of it.

    tblib, which distributed loads, registers a way of its own for every class of exceptions there is. What that
    rebuilds without calling the class has lost what the class keeps elsewhere: the text of a UnicodeDecodeError.
    """
    registered = copyreg.dispatch_table.get(type(exc))
    if getattr(registered, "__module__", None) == "tblib.pickling_support":
        return exc.__reduce_ex__(5)
    return NotImplemented
