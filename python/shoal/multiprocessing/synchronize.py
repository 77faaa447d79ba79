"""`multiprocessing.synchronize`: shoal's."""

from __future__ import annotations

from shoal.events import Barrier, Condition, Event
from shoal.locks import BoundedSemaphore, Lock, RLock, Semaphore
from shoal.multiprocessing.originals import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


def __getattr__(name: str) -> Any:
    return getattr(original("multiprocessing.synchronize"), name)
