"""What the functions of `multiprocessing` do, for each start method.

The start method is that of processes. Pools don't have one: their workers come from a zygote, which is neither a fork
of this process nor slow. So all contexts have the same pools, queues and locks, and any of these may be used with any
process, whatever context it is of.
"""

from __future__ import annotations

import shoal
from shoal.multiprocessing.originals import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing import context as _original
    from typing import Any

    from shoal import events, locks, pool, queues
    from shoal.multiprocessing.managers import SyncManager
else:
    _original = original("multiprocessing.context")

__all__ = ["DefaultContext", "ForkContext", "ForkServerContext", "SpawnContext", "default"]


class _Ours(_original.BaseContext):
    """What shoal has in the place of the original's. See there for what each does."""

    def cpu_count(self) -> int:
        """How many CPUs this process may use: `shoal.cpu_count()`."""
        return shoal.cpu_count()

    def Manager(self) -> SyncManager:
        """A manager. It starts a server process only when something needs one."""
        from shoal.multiprocessing.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pool(  # type: ignore[override]
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> pool.Pool:
        """A `shoal.Pool`."""
        return shoal.Pool(processes, initializer, initargs, maxtasksperchild)

    def Queue(self, maxsize: int = 0) -> queues.Queue[Any]:  # type: ignore[override]
        """A `shoal.Queue`."""
        return shoal.Queue(maxsize)

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue[Any]:  # type: ignore[override]
        """A `shoal.JoinableQueue`."""
        return shoal.JoinableQueue(maxsize)

    def SimpleQueue(self) -> queues.SimpleQueue[Any]:  # type: ignore[override]
        """A `shoal.SimpleQueue`."""
        return shoal.SimpleQueue()

    def Lock(self) -> locks.Lock:  # type: ignore[override]
        """A `shoal.Lock`."""
        return shoal.Lock()

    def RLock(self) -> locks.RLock:  # type: ignore[override]
        """A `shoal.RLock`."""
        return shoal.RLock()

    def Semaphore(self, value: int = 1) -> locks.Semaphore:  # type: ignore[override]
        """A `shoal.Semaphore`."""
        return shoal.Semaphore(value)

    def BoundedSemaphore(self, value: int = 1) -> locks.BoundedSemaphore:  # type: ignore[override]
        """A `shoal.BoundedSemaphore`."""
        return shoal.BoundedSemaphore(value)

    def Condition(self, lock: Any = None) -> events.Condition:  # type: ignore[override]
        """A `shoal.Condition`."""
        return shoal.Condition(lock)

    def Event(self) -> events.Event:  # type: ignore[override]
        """A `shoal.Event`."""
        return shoal.Event()

    def Barrier(  # type: ignore[override]
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> events.Barrier:
        """A `shoal.Barrier`."""
        return shoal.Barrier(parties, action, timeout)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object in shared memory, without a lock."""
        from shoal.values import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array in shared memory, without a lock."""
        from shoal.values import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A `shoal.Value`."""
        from shoal.values import Value

        return Value(typecode_or_type, *args, lock=lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A `shoal.Array`."""
        from shoal.values import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock)

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method, this one by default.

        Raises:
            ValueError: there is no such method.
        """
        if method is None:
            return self
        found = _original._default_context.get_context(method)
        # Others add contexts of their own to the original's; those stay as they are.
        return _contexts.get(method, found)


class ForkContext(_Ours, _original.ForkContext):
    """Processes are forks of this one."""


class SpawnContext(_Ours, _original.SpawnContext):
    """Processes are fresh interpreters."""


class ForkServerContext(_Ours, _original.ForkServerContext):
    """Processes are forks of a server that was a fresh interpreter."""


_contexts: dict[str, Any] = {"fork": ForkContext(), "spawn": SpawnContext(), "forkserver": ForkServerContext()}


class DefaultContext(_Ours):
    """The context of the start method that was set; where none was, of the original's default."""

    Process = _original.Process

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; by default of the one that was set."""
        if method is not None:
            return super().get_context(method)
        found = _original._default_context.get_context()
        return _contexts.get(found.get_start_method(), found)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the start method of processes, once, for this package and the original."""
        _original._default_context.set_start_method(method, force)

    def get_start_method(self, allow_none: bool = False) -> Any:
        """The start method that was set. If none was, the default is from now on, or None is the answer."""
        return _original._default_context.get_start_method(allow_none)

    def get_all_start_methods(self) -> list[str]:
        """The start methods, the default first."""
        return _original._default_context.get_all_start_methods()


default = DefaultContext()


def __getattr__(name: str) -> Any:
    return getattr(_original, name)
