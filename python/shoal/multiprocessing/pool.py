"""`multiprocessing.pool`: the pool is shoal's, the pool of threads the original."""

from __future__ import annotations

from shoal.multiprocessing.originals import original
from shoal.pool import AsyncResult, IMapIterator, MapResult, Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["AsyncResult", "IMapIterator", "MapResult", "Pool"]


def __getattr__(name: str) -> Any:
    return getattr(original("multiprocessing.pool"), name)
