"""The functions of a pool's tasks: packed once, sent to each node once, and dropped there when nobody needs them.

As on one machine: a function that can't have changed since it was packed need not be packed again (`serialize.stable`).
Any other one travels with its call, or once for all items of a map.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from shoal.cluster.wire import pack
from shoal.serialize import Snapshot, stable

__all__ = ["Function", "Functions", "name_of", "packed_call"]

# So many are kept for the next call.
_MOST = 256


class Function:
    """A function as it was when it was packed.

    Attributes:
        number: by which nodes know it; 0 for what calls the function that its tasks bring.
        name: as errors call it.
        data: it, packed; None for number 0.
        frames: the frames beside it.
        terms: the terms of calls that name none.
    """

    __slots__ = ("__weakref__", "data", "frames", "name", "number", "terms")

    def __init__(self, number: int, name: str, data: bytes | None, frames: list[Any], terms: Any = None) -> None:
        self.number, self.name, self.data, self.frames, self.terms = number, name, data, frames, terms


class Functions:
    """Those of one pool.

    Args:
        dropped: called with the number of one that nobody needs any more, in whatever thread; must not wait.
    """

    def __init__(self, dropped: Callable[[int], object]) -> None:
        self._dropped = dropped
        self._numbers = itertools.count(1)
        # By id: the function, as it was, and packed.
        self._kept: dict[int, tuple[Any, Snapshot, Function]] = {}

    def stable(self, func: Callable[..., Any]) -> Function | None:
        """The function, if a pickle of it may be used again; else None."""
        kept = self._kept.get(id(func))
        if kept is not None and kept[0] is func and kept[1].unchanged():
            return kept[2]
        snapshot = stable(func)
        if snapshot is None:
            return None
        function = self.packed(func)
        if len(self._kept) >= _MOST:
            # Another thread may be at it, too.
            for oldest in list(self._kept)[:1]:
                self._kept.pop(oldest, None)
        self._kept[id(func)] = func, snapshot, function
        return function

    def packed(self, func: Callable[..., Any], terms: Any = None) -> Function:
        """The function, packed now; for many calls."""
        name = name_of(func)
        data, frames = pack(func, name)
        function = Function(next(self._numbers), name, data, frames, terms)
        weakref.finalize(function, self._dropped, function.number).atexit = False
        return function


def name_of(func: Any) -> str:
    """What errors call a function."""
    name: str = getattr(func, "__qualname__", None) or type(func).__qualname__
    return name


def packed_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], along: bool) -> tuple[bytes, list[Any]]:
    """The arguments of a call, packed; with the function, if that travels along."""
    try:
        return pack((func, args, kwargs) if along else (args, kwargs))
    except Exception as error:
        # Once more, part by part: the error is to name which.
        name = func.name if isinstance(func, Function) else name_of(func)
        if along:
            pack(func, name)
        for index, argument in enumerate(args):
            pack(argument, f"argument {index} of {name}")
        for key, argument in kwargs.items():
            pack(argument, f"argument {key} of {name}")
        raise error
