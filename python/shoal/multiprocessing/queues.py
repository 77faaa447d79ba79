"""`multiprocessing.queues`: shoal's."""

from __future__ import annotations

from shoal.multiprocessing.originals import original
from shoal.queues import JoinableQueue, Queue, SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


def __getattr__(name: str) -> Any:
    return getattr(original("multiprocessing.queues"), name)
