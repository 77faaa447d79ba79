"""What stands for a shared thing on another machine: the same methods, done at its home.

For `isinstance` each is what it stands for. What a method means, and raises, is told by the class that it stands for.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Full
from typing import Any, ClassVar

from shoal.cluster.shared.parcels import Parcel, opened, wrapped
from shoal.cluster.shared.refs import Ref, arrive
from shoal.counters import Counter
from shoal.events import Barrier, Condition, Event
from shoal.locks import BoundedSemaphore, Lock, RLock, Semaphore, describe_lock, describe_rlock
from shoal.queues import JoinableQueue, Queue, SimpleQueue

__all__ = ["Proxy", "class_of", "kind_of"]

# How many items, and bytes, `put_many` sends at a time.
_TOGETHER = 256
_TOGETHER_BYTES = 256 << 10


def _asked(operation: str) -> Any:
    """A method that is done at home."""

    def method(self: Proxy, *args: Any, **kwargs: Any) -> Any:
        return self._way.ask(self._ref, operation, _positional(operation, args, kwargs))

    method.__name__ = method.__qualname__ = operation
    return method


def _read(operation: str) -> Any:
    """An attribute that is looked up at home."""
    return property(lambda self: self._way.ask(self._ref, operation, ()))


# Arguments that may be named, in their order.
_NAMED = {
    "acquire": ("block", "timeout"),
    "repair": ("block", "timeout"),
    "wait": ("timeout",),
    "notify": ("n",),
    "exchange": ("value",),
    "compare_and_set": ("expected", "value"),
    "add": ("n",),
    "shutdown": ("immediate",),
}
_DEFAULTS: dict[str, Any] = {"block": True, "timeout": None, "n": 1, "immediate": False}


def _positional(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    if not kwargs:
        return args
    if operation == "acquire" and "blocking" in kwargs:
        kwargs.setdefault("block", kwargs.pop("blocking"))
    names = _NAMED.get(operation, ())[len(args) :]
    if unknown := kwargs.keys() - set(names):
        raise TypeError(f"{operation}() got an unexpected keyword argument {min(unknown)!r}")
    last = max(names.index(name) for name in kwargs)
    return *args, *(kwargs[name] if name in kwargs else _DEFAULTS[name] for name in names[: last + 1])


class Proxy:
    """See the module.

    Args:
        ref: what the thing is called.
        way: to its home.
    """

    __slots__ = ("__weakref__", "_ref", "_way")

    stands_for: ClassVar[type]
    # What may be done to the thing from elsewhere, and whether that may come to own it.
    operations: ClassVar[frozenset[str]]
    owned: ClassVar[bool] = False
    # What need not wait, runs no code of the user's, and has no thread for its owner.
    quick: ClassVar[frozenset[str]] = frozenset()
    # What does it to the thing, if that is not the thing itself.
    adapter: ClassVar[type[Any] | None] = None

    def __init__(self, ref: Ref, way: Any) -> None:
        self._ref, self._way = ref, way

    @staticmethod
    def facts_of(thing: Any, ref: Callable[[Any], Ref]) -> tuple[Any, ...]:
        """What never changes of a thing, and is known everywhere; `ref` names others."""
        return ()

    @staticmethod
    def part(thing: Any, facts: tuple[Any, ...]) -> Any:
        """At home, what of a thing bears its name."""
        return thing

    @property  # type: ignore[misc]  # of `object` it may be set
    def __class__(self) -> Any:
        return self.stands_for

    def __reduce__(self) -> Any:
        # To another process of this machine.
        return self._way.passed_on(self._ref)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class _Entered(Proxy):
    """What `with` takes and gives back."""

    __slots__ = ()
    owned = True

    acquire = _asked("acquire")
    release = _asked("release")

    def __enter__(self) -> Any:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RemoteLock(_Entered):
    """A `Lock`."""

    __slots__ = ()
    stands_for = Lock
    operations = frozenset({"acquire", "repair", "release", "locked", "abandoned", "_is_mine"})
    quick = frozenset({"acquire", "release", "locked", "abandoned"})

    repair = _asked("repair")
    locked = _asked("locked")
    abandoned = _read("abandoned")
    _is_mine = _asked("_is_mine")
    __repr__ = describe_lock


class RemoteRLock(_Entered):
    """An `RLock`."""

    __slots__ = ()
    stands_for = RLock
    operations = frozenset({"acquire", "repair", "release", "locked", "abandoned", "_times", "_is_ours"})

    repair = _asked("repair")
    locked = _asked("locked")
    abandoned = _read("abandoned")
    _times = _asked("_times")
    _is_ours = _asked("_is_ours")
    __repr__ = describe_rlock


class RemoteSemaphore(_Entered):
    """A `Semaphore`."""

    __slots__ = ()
    stands_for: ClassVar[type] = Semaphore
    operations = frozenset({"acquire", "release", "get_value", "recovered", "_most"})
    quick = frozenset({"acquire", "release", "get_value"})

    get_value = _asked("get_value")
    recovered = _read("recovered")
    _most = _read("_most")

    def __repr__(self) -> str:
        return f"<Semaphore(value={self.get_value()})>"


class RemoteBoundedSemaphore(RemoteSemaphore):
    """A `BoundedSemaphore`."""

    __slots__ = ()
    stands_for = BoundedSemaphore
    __repr__ = BoundedSemaphore.__repr__


class RemoteEvent(Proxy):
    """An `Event`."""

    __slots__ = ()
    stands_for = Event
    operations = frozenset({"is_set", "set", "clear", "wait"})
    quick = frozenset({"is_set", "set", "clear"})

    is_set = _asked("is_set")
    set = _asked("set")
    clear = _asked("clear")
    wait = _asked("wait")

    def __repr__(self) -> str:
        return f"<Event at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


class RemoteCondition(Proxy):
    """A `Condition`; its lock is what stands for the lock."""

    __slots__ = ("_lock", "acquire", "release")
    stands_for = Condition
    operations = frozenset({"wait", "notify", "notify_all", "_waiting"})
    owned = True

    def __init__(self, ref: Ref, way: Any) -> None:
        Proxy.__init__(self, ref, way)
        self._lock = arrive(*ref[3][0])
        self.acquire, self.release = self._lock.acquire, self._lock.release

    @staticmethod
    def facts_of(thing: Any, ref: Callable[[Any], Ref]) -> tuple[Any, ...]:
        return (ref(thing._lock),)

    wait = _asked("wait")
    notify = _asked("notify")
    notify_all = _asked("notify_all")
    wait_for = Condition.wait_for
    _waiting = _read("_waiting")

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    __repr__ = Condition.__repr__


class RemoteBarrier(Proxy):
    """A `Barrier`. The action is done by the last who comes, where that is."""

    __slots__ = ()
    stands_for = Barrier
    operations = frozenset({"_wait", "reset", "abort", "n_waiting", "broken"})
    owned = True

    @staticmethod
    def facts_of(thing: Any, ref: Callable[[Any], Ref]) -> tuple[Any, ...]:
        return thing.parties, thing._action, thing._timeout

    parties = property(lambda self: self._ref[3][0])
    _action = property(lambda self: self._ref[3][1])
    _timeout = property(lambda self: self._ref[3][2])
    n_waiting = _read("n_waiting")
    broken = _read("broken")
    reset = _asked("reset")
    abort = _asked("abort")
    wait = Barrier.wait

    def _wait(self, timeout: float | None, action: Callable[[], object] | None) -> int:
        index: int = self._way.ask(self._ref, "_wait", (timeout, action is not None), action)
        return index

    __repr__ = Barrier.__repr__


class RemoteCounter(Proxy):
    """A `Counter`."""

    __slots__ = ()
    stands_for = Counter
    operations = frozenset({"add", "exchange", "compare_and_set", "value"})
    quick = operations

    add = _asked("add")
    exchange = _asked("exchange")
    compare_and_set = _asked("compare_and_set")
    value = _read("value")

    def __int__(self) -> int:
        return int(self.value)

    def __repr__(self) -> str:
        return f"<shoal.Counter, {self.value}>"

    def __iadd__(self, n: Any) -> Any:
        # What it comes to nobody asks.
        n = operator.index(n)
        if not -(1 << 63) <= n < 1 << 63:
            raise OverflowError(f"n must fit into 64 bits, but is {n}")
        self._way.tell(self._ref, "add", (n,))
        return self

    def __isub__(self, n: Any) -> Any:
        return self.__iadd__(-operator.index(n))


class RemoteSimpleQueue(Proxy):
    """A `SimpleQueue`."""

    __slots__ = ("closed",)
    stands_for: ClassVar[type] = SimpleQueue
    operations: ClassVar[frozenset[str]] = frozenset(
        {"put", "put_many", "get", "get_many", "qsize", "empty", "full", "shutdown", "_done", "_wait_done"}
    )
    quick = frozenset({"put", "qsize", "empty", "full"})

    def __init__(self, ref: Ref, way: Any) -> None:
        Proxy.__init__(self, ref, way)
        self.closed = False

    @staticmethod
    def facts_of(thing: Any, ref: Callable[[Any], Ref]) -> tuple[Any, ...]:
        return (thing.maxsize,)

    maxsize = property(lambda self: self._ref[3][0])
    qsize = _asked("qsize")
    full = _asked("full")
    shutdown = _asked("shutdown")

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"Queue {self!r} is closed")

    def close(self) -> None:
        """See `Queue`."""
        self.closed = True

    def empty(self) -> bool:
        """See `Queue`."""
        self._check_open()
        empty: bool = self._way.ask(self._ref, "empty", ())
        return empty

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """See `Queue`. Returns when the item lies in the queue."""
        self._check_open()
        self._way.ask(self._ref, "put", (wrapped(obj), block, timeout))

    def put_nowait(self, obj: Any) -> None:
        """See `Queue`."""
        self.put(obj, False)

    def put_many(self, items: Iterable[Any], block: bool = True, timeout: float | None = None) -> None:
        """See `Queue`."""
        self._check_open()
        until = None if timeout is None or not block else time.monotonic() + timeout
        count = 0
        for batch, error in _batches(items):
            left = timeout if until is None else max(0.0, until - time.monotonic())
            try:
                if batch:
                    self._way.ask(self._ref, "put_many", (batch, block, left))
            except Full as full:
                raise Full(count + (full.args[0] if full.args else 0)) from None
            count += len(batch)
            if error is not None:
                raise error

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """See `Queue`."""
        self._check_open()
        return opened(self._way.ask(self._ref, "get", (block, timeout)))

    def get_nowait(self) -> Any:
        """See `Queue`."""
        return self.get(False)

    def get_many(self, n: int | None = None, timeout: float | None = None) -> list[Any]:
        """See `Queue`."""
        self._check_open()
        got, failed = [], None
        for item in self._way.ask(self._ref, "get_many", (n, timeout)):
            try:
                got.append(opened(item))
            except BaseException as error:
                failed = failed or error
        if failed is not None:
            failed.got = got  # type: ignore[attr-defined]
            raise failed
        return got

    def __iter__(self) -> Iterator[Any]:
        return SimpleQueue.__iter__(self)  # type: ignore[arg-type]

    __repr__ = SimpleQueue.__repr__
    __class_getitem__ = classmethod(lambda cls, item: cls)


class RemoteQueue(RemoteSimpleQueue):
    """A `Queue`."""

    __slots__ = ()
    stands_for = Queue

    join_thread = Queue.join_thread
    cancel_join_thread = Queue.cancel_join_thread
    __repr__ = Queue.__repr__


class RemoteJoinableQueue(RemoteQueue):
    """A `JoinableQueue`."""

    __slots__ = ()
    stands_for = JoinableQueue

    _done = _asked("_done")
    _wait_done = _asked("_wait_done")
    task_done = JoinableQueue.task_done
    join = JoinableQueue.join


def _batches(items: Iterable[Any]) -> Iterator[tuple[list[Any], BaseException | None]]:
    """Items, packed, as many as go together; and what was raised by the next one. Those of an iterator go one by one:
    it may wait for what becomes of an item."""
    most = _TOGETHER if type(items) in (list, tuple, range) else 1
    batch: list[Any] = []
    nbytes = 0
    for item in items:
        try:
            batch.append(wrapped(item))
        except Exception as error:
            yield batch, error
            return
        if type(parcel := batch[-1]) is Parcel:
            nbytes += len(parcel.data) + sum(memoryview(frame).nbytes for frame in parcel.frames)
        if len(batch) >= most or nbytes >= _TOGETHER_BYTES:
            yield batch, None
            batch, nbytes = [], 0
    yield batch, None


# By the names of what they stand for.
_KINDS: dict[str, type[Proxy]] = {
    kind.stands_for.__name__: kind
    for kind in (
        RemoteBarrier,
        RemoteBoundedSemaphore,
        RemoteCondition,
        RemoteCounter,
        RemoteEvent,
        RemoteJoinableQueue,
        RemoteLock,
        RemoteQueue,
        RemoteRLock,
        RemoteSemaphore,
        RemoteSimpleQueue,
    )
}


def kind_of(thing: Any) -> str:
    """The kind of a thing that may be known on other machines.

    Raises:
        TypeError: there is no such kind.
    """
    if hasattr(type(thing), "_shoal_type"):
        return "data"
    if "tqdm.std" in sys.modules and isinstance(thing, sys.modules["tqdm.std"].tqdm):
        return "bar"
    kind = _KINDS.get(type(thing).__name__)
    if kind is None or kind.stands_for is not type(thing):
        raise TypeError(
            f"cannot pickle {type(thing).__name__!r} object for another machine: only shoal's own classes go there, "
            f"and no classes below them"
        )
    return type(thing).__name__


def class_of(kind: str) -> type[Proxy]:
    """What stands for things of that kind elsewhere."""
    if kind == "data":
        from shoal.cluster.shared.values import RemoteData

        return RemoteData
    if kind == "bar":
        from shoal.cluster.shared.bars import RemoteBar

        return RemoteBar
    return _KINDS[kind]
