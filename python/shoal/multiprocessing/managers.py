"""`multiprocessing.managers`, with a server process only where one is needed.

What a manager is mostly used for, to get a queue or a lock that may be given to a pool, shoal's own do without it: they
go anywhere, and a `put` takes a microsecond instead of a round trip to a server. So these are what a `SyncManager`
hands out. Its server starts when somebody asks for a dict, a list, a namespace or a type that was registered.
"""

from __future__ import annotations

import threading
import weakref

from shoal import _launch
from shoal.multiprocessing.originals import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from shoal.multiprocessing.shareable_list import ShareableList
    from shoal.multiprocessing.shared_memory import SharedMemory

_original: Any = original("multiprocessing.managers")

__all__ = ["SharedMemoryManager", "SyncManager"]


_INITIAL, _STARTED, _SHUTDOWN = _original.State.INITIAL, _original.State.STARTED, _original.State.SHUTDOWN


class _OnDemand(_original.BaseManager):  # type: ignore[misc]
    """A manager whose server starts when it is first needed."""

    _to_start: tuple[Callable[..., object] | None, Iterable[Any]] | None = None
    _end_server: Callable[[], None] | None = None
    _connected = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._serving = threading.Lock()

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Be ready. The server process starts when it is needed; with an `initializer`, now.

        Raises:
            ProcessError: it has been started already.
            TypeError: `initializer` can't be called.
        """
        if self._state.value != _INITIAL:
            super().start()  # which says so
        _launch.expect_workers()
        self._to_start = initializer, initargs
        if initializer is not None:
            self._serve()
        self._state.value = _STARTED

    def connect(self) -> None:
        """Be a client of the server at the address that was given, wherever that is."""
        super().connect()
        self._connected = True

    def shutdown(self) -> None:
        """Be done. If there is a server, it ends."""
        self._to_start = None
        self._state.value = _SHUTDOWN
        if self._end_server is not None:
            self._end_server()

    @property
    def address(self) -> Any:
        """The address of the server, which starts if it has not yet."""
        self._serve()
        return super().address

    def join(self, timeout: float | None = None) -> None:
        """Wait until the server has ended, if there is one."""
        if self._end_server is not None:
            super().join(timeout)

    def _serve(self) -> None:
        with self._serving:
            start, self._to_start = self._to_start, None
            if start is None:
                return
            self._state.value = _INITIAL
            super().start(*start)
            # The original puts what ends its server in the place of the method.
            self._end_server = self.__dict__.pop("shutdown")

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> Any:
        self._serve()
        return super()._create(typeid, *args, **kwds)

    def _number_of_objects(self) -> int:
        self._serve()
        return int(super()._number_of_objects())

    def _debug_info(self) -> Any:
        self._serve()
        return super()._debug_info()


class SyncManager(_OnDemand, _original.SyncManager):  # type: ignore[misc]
    """A manager, as `multiprocessing.Manager()` returns. Its queues, locks and events are shoal's.

    Example:
        >>> import shoal.multiprocessing
        >>> manager = shoal.multiprocessing.Manager()
        >>> queue = manager.Queue()  # a shoal.Queue
        >>> counts = manager.dict()  # a proxy; the server starts now
        >>> manager.shutdown()
    """


def _of_shoal(name: str) -> Callable[..., Any]:
    """A method that makes a `name`: shoal's, or that of the server that the manager is connected to."""
    # As the original's, every queue of a manager can be joined.
    kind = "JoinableQueue" if name == "Queue" else name
    of_server = getattr(_original.SyncManager, name)

    def make(self: SyncManager, *args: Any, **kwargs: Any) -> Any:
        if self._connected:
            return of_server(self, *args, **kwargs)
        if self._state.value != _STARTED:
            raise AssertionError("the manager has not been started, or was shut down")
        from shoal.multiprocessing.context import default

        return getattr(default, kind)(*args, **kwargs)

    make.__name__, make.__doc__ = name, f"A `shoal.{kind}`, which needs no server."
    return make


for _name in (
    "Barrier", "BoundedSemaphore", "Condition", "Event", "JoinableQueue", "Lock", "Queue", "RLock", "Semaphore",
):  # fmt: skip
    setattr(SyncManager, _name, _of_shoal(_name))


class SharedMemoryManager(_OnDemand):
    """Segments of shared memory that go all together, as `multiprocessing.managers.SharedMemoryManager`.

    Example:
        >>> from shoal.multiprocessing.managers import SharedMemoryManager
        >>> with SharedMemoryManager() as manager:
        ...     shm = manager.SharedMemory(1000)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._segments: list[SharedMemory] = []
        self._unlink = weakref.finalize(self, _unlink, self._segments)

    def SharedMemory(self, size: int) -> SharedMemory:
        """A new segment of `size` bytes, which is unlinked when the manager shuts down.

        Raises:
            ValueError: the manager has not been started, or `size` is not positive.
        """
        from shoal.multiprocessing.shared_memory import SharedMemory

        self._must_run()
        segment = SharedMemory(create=True, size=size)
        self._segments.append(segment)
        return segment

    def ShareableList(self, sequence: Iterable[Any] | None = None) -> ShareableList:
        """A new list of the items of `sequence`, which is unlinked when the manager shuts down.

        Raises:
            ValueError: the manager has not been started.
        """
        from shoal.multiprocessing.shareable_list import ShareableList

        self._must_run()
        made = ShareableList(sequence)
        self._segments.append(made.shm)
        return made

    def shutdown(self) -> None:
        """Unlink all segments that were made here."""
        super().shutdown()
        self._unlink()

    def _must_run(self) -> None:
        if self._state.value != _STARTED:
            raise ValueError("the manager has not been started, or was shut down: call start(), or use `with`")


def _unlink(segments: list[SharedMemory]) -> None:
    for segment in segments:
        try:
            segment.unlink()
        except FileNotFoundError:
            pass  # its user was faster
    segments.clear()


def __getattr__(name: str) -> Any:
    return getattr(_original, name)
