"""What is at home in one process, and known elsewhere only by a mark: it becomes itself again when it comes home.

A lock of `threading`, or a pool, stays where it was made; elsewhere something stands for it. When what stands for it is
sent back, as a part of a result, its home finds the original by the mark.
"""

from __future__ import annotations

import os
import threading
import weakref

from shoal.errors import PoolClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["at_home", "marked", "reduce_pool"]

_lock = threading.Lock()
_marks: weakref.WeakKeyDictionary[Any, Mark] = weakref.WeakKeyDictionary()
_originals: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()


class Mark:
    """What an original is known by, and what stands for it elsewhere."""

    def __init__(self, original: Any, stands_for: Any) -> None:
        self.name = os.urandom(16)
        self.stands_for = stands_for
        self.seen: object = False  # the state of the original when it last travelled, for what has one
        _originals[self.name] = original


def marked(original: Any, make: Callable[[Any], Any]) -> Mark:
    """The mark of `original`. What stands for it elsewhere is made by `make(original)`, once, and lives as long."""
    with _lock:
        mark = _marks.get(original)
    if mark is None:
        made = make(original)  # may mark another: the lock of a condition
        with _lock:
            mark = _marks.get(original)
            if mark is None:
                mark = _marks[original] = Mark(original, made)
    return mark


def at_home(name: bytes) -> Any:
    """The original with a mark of that name, if this process is its home and it is alive; else None."""
    return _originals.get(name)


def reduce_pool(pool: Any) -> Any:
    """A pool or executor in an object that travels, as in `pool.map(self.work, items)` with the pool in `self.pool`."""
    mark = marked(pool, lambda pool: (type(pool).__name__, os.getpid()))
    return arrive_pool, (mark.name, *mark.stands_for)


def arrive_pool(name: bytes, kind: str, pid: int) -> Any:
    """The pool itself where it is at home; elsewhere what says that it is not."""
    pool = at_home(name)
    return PoolElsewhere(name, kind, pid) if pool is None else pool


class PoolElsewhere:
    """A pool or executor of another process. It goes along, and comes home as itself, but is of no use here."""

    def __init__(self, name: bytes, kind: str, pid: int) -> None:
        self._name, self._kind, self._pid = name, kind, pid

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")
        raise PoolClosed(f"this {self._kind} belongs to process {self._pid}, so there is no {attribute} here")

    def __reduce__(self) -> Any:
        return arrive_pool, (self._name, self._kind, self._pid)

    def __repr__(self) -> str:
        return f"<{self._kind} of process {self._pid}>"


def _after_fork() -> None:
    """In a child: the originals are copies of the parent's, and another of its threads may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _originals.clear()


os.register_at_fork(after_in_child=_after_fork)
