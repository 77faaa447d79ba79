"""Locks and counters that go anywhere.

They live in shared memory and pickle to a handle, with any pickler, at any time: as an argument, inside an object, in a
closure, on a queue, to workers that are already running. Wherever one arrives, it is the same one. There is no server
behind them, and nothing to close.

    >>> import shoal
    >>> lock, done = shoal.Lock(), shoal.Counter()
    >>> def work(item):
    ...     with lock:
    ...         print("only one of us prints at a time")
    ...     done.add()
    >>> with shoal.Pool() as pool:
    ...     _ = pool.map(work, range(100))
    >>> done.value
    100

A copy, too, is the same one: `copy.copy` and `copy.deepcopy` copy the handle, for a lock that was copied along with the
object that it guards would guard nothing.
"""

from __future__ import annotations

import math
import operator
import threading
from types import TracebackType
from typing import SupportsIndex

from shoal._engine import RawCounter, RawLock

__all__ = ["Counter", "Lock"]


class Lock:
    """A lock between processes and threads, as `multiprocessing.Lock`.

    Not reentrant, and owned by nobody in particular: any thread of any process may release it. A lock whose holder died
    does not stay locked: it passes to the next in line, who can tell from `abandoned`.

    Example:
        >>> lock = shoal.Lock()
        >>> with lock:
        ...     total[0] += 1
        >>> if lock.acquire(timeout=0.5):
        ...     try:
        ...         total[0] += 1
        ...     finally:
        ...         lock.release()
    """

    def __init__(self) -> None:
        self._raw = RawLock()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock, and tell whether it was taken.

        Args:
            block: whether to wait for it. Default: True. With False, `timeout` is ignored.
            timeout: how long to wait at most, in seconds; zero or less is to try once. Default: None, to wait for ever.

        Raises:
            TypeError: `timeout` is neither a number nor None.
            ValueError: `timeout` is not a number in the sense of floats (NaN).

        Ctrl-C interrupts the waiting.

        Example:
            >>> lock.acquire(timeout=2.5)
            True
        """
        if not block:
            return self._raw.acquire(0.0)
        return self._raw.acquire(None if timeout is None else _seconds(timeout))

    def release(self) -> None:
        """Let the next one in.

        Raises:
            ValueError: the lock is not locked.
        """
        try:
            self._raw.release()
        except RuntimeError:
            raise ValueError("release of a lock that is not locked") from None

    def locked(self) -> bool:
        """Whether someone holds the lock at this moment."""
        return self._raw.locked()

    @property
    def abandoned(self) -> bool:
        """Whether the previous holder died while it held the lock. For the present holder to ask.

        What the lock guards may then be half-done: it is the moment to check or rebuild it.

        Example:
            >>> with lock:
            ...     if lock.abandoned:
            ...         table[:] = 0
        """
        return self._raw.abandoned

    def __enter__(self) -> bool:
        return self._raw.acquire(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __reduce__(self) -> tuple[object, ...]:
        return _lock, (self._raw,)

    def __repr__(self) -> str:
        return f"<shoal.Lock, {'locked' if self.locked() else 'unlocked'}>"


class Counter:
    """An integer that any number of processes and threads may add to at once, without a lock.

    Args:
        initial: the value to begin with. Default: 0. Values are integers of 64 bits.

    Raises:
        TypeError: `initial` is no integer.
        OverflowError: `initial` does not fit into 64 bits.

    Example:
        >>> hits = shoal.Counter()
        >>> hits.add(3)
        3
        >>> hits.value
        3
    """

    def __init__(self, initial: SupportsIndex = 0) -> None:
        self._raw = RawCounter(int64("initial", initial))

    def add(self, n: SupportsIndex = 1) -> int:
        """Add `n`, in one atomic step, and return the value right after it: no two calls get the same for n = 1.

        Args:
            n: what to add; may be negative. Default: 1.

        Raises:
            TypeError: `n` is no integer.
            OverflowError: `n` does not fit into 64 bits.

        Example:
            >>> ticket = counter.add()
        """
        try:
            return self._raw.add(n)  # the engine converts; checking first would cost more
        except (TypeError, OverflowError):
            int64("n", n)
            raise

    @property
    def value(self) -> int:
        """The value at this moment. Read-only: `value += 1` would lose what others add in between. Use `add`."""
        return self._raw.value

    def __reduce__(self) -> tuple[object, ...]:
        return _counter, (self._raw,)

    def __repr__(self) -> str:
        return f"<shoal.Counter, {self.value}>"


def int64(name: str, value: object) -> int:
    """`value` as an int of 64 bits, or an error that names the argument `name`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # whatever it is: that is the question
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r})") from None
    if not -(2**63) <= number < 2**63:
        raise OverflowError(f"{name} must fit into 64 bits, but is {number}")
    return number


def _seconds(timeout: float) -> float | None:
    """A timeout in the form of the engine: no less than 0, and None for one that no one lives to see the end of."""
    try:
        nan = math.isnan(timeout)
    except TypeError:
        raise TypeError(
            f"timeout must be a number of seconds or None, not {type(timeout).__name__} ({timeout!r})"
        ) from None
    if nan:
        raise ValueError("timeout must be a number of seconds or None, not NaN")
    return None if timeout >= threading.TIMEOUT_MAX else max(float(timeout), 0.0)


def _lock(raw: RawLock) -> Lock:
    lock = Lock.__new__(Lock)
    lock._raw = raw
    return lock


def _counter(raw: RawCounter) -> Counter:
    counter = Counter.__new__(Counter)
    counter._raw = raw
    return counter
