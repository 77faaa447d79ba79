"""`multiprocessing.sharedctypes`: shoal's."""

from __future__ import annotations

from shoal.multiprocessing.originals import original
from shoal.values import (
    Array,
    RawArray,
    RawValue,
    Synchronized,
    SynchronizedArray,
    SynchronizedBase,
    SynchronizedString,
    Value,
    copy,
    synchronized,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Array",
    "RawArray",
    "RawValue",
    "Synchronized",
    "SynchronizedArray",
    "SynchronizedBase",
    "SynchronizedString",
    "Value",
    "copy",
    "synchronized",
]


def __getattr__(name: str) -> Any:
    return getattr(original("multiprocessing.sharedctypes"), name)
