"""What shoal's shared memory is used for at this moment."""

from __future__ import annotations

from dataclasses import dataclass

from shoal import _engine

__all__ = ["MemoryUsage", "memory"]


@dataclass(frozen=True)
class MemoryUsage:
    """Counts of one moment, for this process and the processes it shares memory with.

    Attributes:
        segments: anonymous memory files mapped.
        bytes: bytes of those, in use or kept ready for use.
        blocks: shared arrays, locks and counters that some process holds.
        leases: holds on those: one for each block and process.
        used: bytes given out from this process's own segments.
    """

    segments: int
    bytes: int
    blocks: int
    leases: int
    used: int


def memory() -> MemoryUsage:
    """Count the shared memory of this process and its workers.

    Returns:
        A `MemoryUsage`.

    Example:
        >>> before = shoal.memory()
        >>> a = shoal.zeros(1_000_000)
        >>> shoal.memory().used - before.used >= a.nbytes
        True
    """
    return MemoryUsage(*_engine.memory_usage())
