"""The bars of maps on a cluster: items are counted here, when what came of them arrives."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from shoal.cluster.target import RESULTS, VALUE
from shoal.progress.maps import Watch
from shoal.random import Seeded
from shoal.results import guarded

__all__ = ["ClusterWatch", "Shown", "taken_apart"]


class Shown:
    """A function whose calls are shown on a bar."""

    def __init__(self, function: Callable[..., Any], watch: Watch, failures: bool) -> None:
        self.function, self._bar, self._failures = function, watch.bar, failures
        # As it is called in messages.
        self.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("it is taken apart before it travels")

    def count(self, items: int) -> Callable[[int, bytes], object]:
        """What is told how so many items have ended."""

        def ended(status: int, data: bytes) -> None:
            if status == VALUE or self._failures:
                done = items
            else:
                done = sum(ok for ok, _, _ in pickle.loads(data)) if status == RESULTS else 0
            if done:
                # What a bar of the user's raises is told as for any thread: the task has ended all the same.
                guarded(self._bar.update, done)

        return ended


class ClusterWatch(Watch):
    """A map that is shown on a bar. As `Watch`."""

    def counted(self, func: Callable[..., Any]) -> Any:
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        return Shown(func, self, self._failures)


def taken_apart(func: Any) -> tuple[Any, Shown | None]:
    """What travels, and what counts its calls."""
    if isinstance(func, Seeded) and isinstance(func.function, Shown):
        shown = func.function
        func.function = shown.function
        return func, shown
    return (func.function, func) if isinstance(func, Shown) else (func, None)
