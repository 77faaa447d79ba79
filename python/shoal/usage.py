"""What shoal's shared memory is used for at this moment, and the most there may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoal import _checks, _engine
from shoal._text import size

__all__ = ["MemoryUsage", "memory", "memory_limit"]


@dataclass(frozen=True)
class MemoryUsage:
    """Counts of one moment, for this process and the processes it shares memory with.

    `print` shows them as a small table.

    Attributes:
        segments: anonymous memory files mapped.
        bytes: bytes of those, in use or kept ready for use.
        blocks: shared arrays, locks and counters that some process holds.
        leases: holds on those: one for each block and process.
        used: bytes given out from this process's own segments.
        free: bytes in no use at the moment, kept for the next one.
        released: bytes that were given back to the system, until they are needed again. `bytes` are without these.
        limit: the most that `bytes` may become, as set with `memory_limit`; None: as much as there is.
        here: bytes of the blocks that this process holds.
        workers: bytes of the blocks that each worker holds, by its pid. A block that two hold counts for both.
        guests: bytes of the blocks that other processes hold.
    """

    segments: int
    bytes: int
    blocks: int
    leases: int
    used: int
    free: int
    released: int
    limit: int | None
    here: int
    workers: Mapping[int, int]
    guests: int

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" of at most {size(self.limit)}"
        rows = [
            ("shared memory", f"{size(self.bytes)}{limit} in {self.segments} segments"),
            ("  free", size(self.free)),
            ("  returned", f"{size(self.released)} to the system"),
            ("blocks", f"{self.blocks}, held {self.leases} times"),
            ("  here", size(self.here)),
            *((f"  worker {pid}", size(held)) for pid, held in self.workers.items()),
            *([("  others", size(self.guests))] if self.guests else []),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


def memory() -> MemoryUsage:
    """Count the shared memory of this process and its workers. Takes some microseconds, and longer with many blocks.

    Returns:
        A `MemoryUsage`.

    Example:
        >>> a = shoal.zeros(1_000_000)
        >>> shoal.memory().used >= a.nbytes
        True
    """
    segments, bytes, blocks, leases, used, free, released, limit, holders = _engine.memory_usage()
    here, workers, guests = holders
    return MemoryUsage(
        segments=segments,
        bytes=bytes,
        blocks=blocks,
        leases=leases,
        used=used,
        free=free,
        released=released,
        limit=limit,
        here=here,
        workers=dict(workers),
        guests=guests,
    )


def memory_limit(limit: int | None) -> int | None:
    """Limit all shared memory of this process and the processes it shares memory with.

    Whoever needs more gets `OutOfSharedMemory`, which says so; what is free is given back first. What there is already
    stays, even if it is more.

    Args:
        limit: the most, in bytes, of memory in use or kept ready. None: as much as there is.

    Returns:
        The limit before; None if there was none.

    Raises:
        TypeError, ValueError: `limit` is neither None nor a number of bytes, 1 or more.

    Example:
        >>> before = shoal.memory_limit(8_000_000_000)
        >>> shoal.memory_limit(before)
        8000000000
    """
    return _engine.limit_memory(_checks.memory_limit(limit))
