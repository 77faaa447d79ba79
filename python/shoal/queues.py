"""Queues that go anywhere.

They live in shared memory and pickle to a handle, with any pickler, at any time: as an argument, inside an object, in a
closure, on another queue, to workers that are already running. Wherever one arrives, it is the same one. There is no
server, no pipe and no thread behind them: when `put` returns, the item lies in the queue, whatever becomes of the
process that put it. A process that is killed, wherever it is, neither blocks the others nor damages an item.

    >>> import shoal
    >>> queue = shoal.Queue()
    >>> def work(n):
    ...     queue.put((n, n * n))
    >>> with shoal.Pool() as pool:
    ...     _ = pool.map(work, range(3))
    >>> sorted(queue.get() for _ in range(3))
    [(0, 0), (1, 1), (2, 4)]

Items are copied once, when they are put: what is done to an object afterwards is not seen by who gets it, and who gets
an array may write into it. Shared things, such as `shoal.array` or `shoal.Lock`, travel by reference, and live as long
as they lie in a queue. What one process puts is got in that order.

A copy of a queue is the same queue, and it is gone, with all that lies in it, when the last process has dropped it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Generic, SupportsIndex, TypeVar

from shoal._engine import RawQueue

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """A queue was shut down: nothing is put any more, and, raised by `get`, nothing lies in it.

        As `queue.ShutDown`, which this is from Python 3.13 on.
        """


__all__ = ["JoinableQueue", "Queue", "ShutDown", "SimpleQueue"]

T = TypeVar("T")


class SimpleQueue(RawQueue, Generic[T]):
    """A queue between processes and threads without a limit, as `multiprocessing.SimpleQueue`.

    Args:
        ctx: ignored; `multiprocessing` has it.

    Example:
        >>> queue = shoal.SimpleQueue()
        >>> queue.put("hello")
        >>> queue.get()
        'hello'
        >>> queue.empty()
        True
    """

    def __new__(cls, *, ctx: object = None, handle: bytes | None = None) -> SimpleQueue[T]:
        return super().__new__(cls, 0, handle=handle)

    def __init__(self, *, ctx: object = None, handle: bytes | None = None) -> None:
        """It is made by then. For classes below, which call this one as in `multiprocessing`."""

    def __iter__(self) -> Iterator[T]:
        """The items, as they come, until the queue is shut down and empty."""
        return _items(self)

    def __repr__(self) -> str:
        return f"<shoal.{self.__class__.__name__}, {_count(self.qsize())}>"


class Queue(RawQueue, Generic[T]):
    """A queue between processes and threads, as `multiprocessing.Queue`.

    Args:
        maxsize: how many items it holds at most; who puts more waits. Default: 0, as many as there is memory for.
        ctx: ignored; `multiprocessing` has it.

    Raises:
        TypeError: `maxsize` is no integer.
        OutOfSharedMemory: there is no memory for a queue.

    Example:
        >>> queue = shoal.Queue(maxsize=100)
        >>> queue.put(numpy.zeros(1000))
        >>> queue.get(timeout=1.0).shape
        (1000,)
    """

    def __new__(cls, maxsize: SupportsIndex = 0, *, ctx: object = None, handle: bytes | None = None) -> Queue[T]:
        if not hasattr(maxsize, "__index__"):
            raise TypeError(f"maxsize must be an integer, not {type(maxsize).__name__}")
        return super().__new__(cls, maxsize, handle=handle)

    def __init__(self, maxsize: SupportsIndex = 0, *, ctx: object = None, handle: bytes | None = None) -> None:
        """It is made by then. For classes below, which call this one as in `multiprocessing`."""

    def join_thread(self) -> None:
        """Nothing to wait for: what was put lies in the queue. As in `multiprocessing`, the queue must be closed.

        Raises:
            AssertionError: `close` was not called.
        """
        if not self.closed:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Nothing to cancel: no process waits for its queues when it ends, and nothing is lost by that."""

    def __iter__(self) -> Iterator[T]:
        """The items, as they come, until the queue is shut down and empty."""
        return _items(self)

    def __repr__(self) -> str:
        size = f"{self.qsize()} of {_count(self.maxsize)}" if self.maxsize else _count(self.qsize())
        return f"<shoal.{self.__class__.__name__}, {size}>"


class JoinableQueue(Queue[T]):
    """A queue that knows what became of its items, as `multiprocessing.JoinableQueue`.

    Who gets an item says when it is done with it, and anybody may wait until all that was put is done.

    Example:
        >>> queue, done = shoal.JoinableQueue(), []
        >>> def work():
        ...     for item in queue:
        ...         done.append(item)
        ...         queue.task_done()
        >>> threading.Thread(target=work).start()
        >>> queue.put("hello")
        >>> queue.join()
        >>> done
        ['hello']
        >>> queue.shutdown()
    """

    def task_done(self) -> None:
        """An item that was got is done with.

        Raises:
            ValueError: more items are done than were put.
        """
        self._done()

    def join(self) -> None:
        """Wait until all items that were put are done with."""
        self._wait_done()


def _items(queue: RawQueue) -> Iterator[Any]:
    while True:
        try:
            item = queue.get()
        except ShutDown:
            return
        yield item


def _count(items: int) -> str:
    return f"{items} item" if items == 1 else f"{items} items"
