"""`multiprocessing`, name by name: shoal's where shoal has one, the original elsewhere.

    import shoal.multiprocessing as multiprocessing

Pools, queues, locks, events, values and shared memory are shoal's; processes, pipes, listeners and all that has no
better form here are the originals, and both go together. A name is looked up when it is first used.

context.py         what the functions of this package do, for each start method
managers.py        managers, which need a server process only for what shoal has nothing for
shared_memory.py   named segments; shareable_list, segments, ledger and guard are its parts
pool, queues, synchronize, sharedctypes, connection, dummy, util: the modules of those names
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What is looked up in the context, as the original does: functions of the start method that was set.
_OF_CONTEXT = (
    "Array", "AuthenticationError", "Barrier", "BoundedSemaphore", "BufferTooShort", "Condition", "Event",
    "JoinableQueue", "Lock", "Manager", "Pipe", "Pool", "Process", "ProcessError", "Queue", "RLock", "RawArray",
    "RawValue", "Semaphore", "SimpleQueue", "TimeoutError", "Value", "active_children",
    "allow_connection_pickling", "cpu_count", "current_process", "freeze_support", "get_all_start_methods",
    "get_context", "get_logger", "get_start_method", "log_to_stderr", "parent_process", "reducer", "set_executable",
    "set_forkserver_preload", "set_start_method",
)  # fmt: skip

__all__ = list(_OF_CONTEXT)

# Modules with shoal's own things in them, and those that they are made of; all others are the original's.
_OURS = frozenset({"context", "managers", "pool", "queues", "shared_memory", "sharedctypes", "synchronize"})
_PARTS = frozenset({"guard", "ledger", "originals", "replace", "segments", "shareable_list"})


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name in _OURS or name in _PARTS:
        return import_module(f"{__name__}.{name}")
    if name in _OF_CONTEXT:
        from shoal.multiprocessing.context import default

        value = getattr(default, name)
        if name != "reducer":  # it can be set
            globals()[name] = value
        return value
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shoal.multiprocessing.originals import attribute

    return attribute(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_OURS, *globals()})
