"""An integer that any number of processes and threads may change at once."""

from __future__ import annotations

from typing import SupportsIndex

from shoal._engine import RawCounter

__all__ = ["Counter"]


class Counter(RawCounter):
    """An integer that any number of processes and threads may add to at once, without a lock.

    It goes anywhere an argument goes, and is the same one wherever it arrives, copies included. Each method is one
    atomic step, and sees what others did before.

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
        >>> hits.compare_and_set(3, 10)
        True
        >>> hits.exchange(0)
        10
    """

    __slots__ = ("__weakref__",)

    def __iadd__(self, n: SupportsIndex) -> Counter:
        self.add(n)
        return self

    def __isub__(self, n: SupportsIndex) -> Counter:
        self.add(-n.__index__())
        return self

    def __int__(self) -> int:
        return int(self.value)

    def __repr__(self) -> str:
        return f"<shoal.Counter, {self.value}>"
