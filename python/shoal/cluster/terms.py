"""The terms of tasks on a cluster: limits are kept by the nodes, further tries are decided by the client.

So a task that is tried again may go to another node, and what a death there and a death here mean is told in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal import _terms
from shoal.errors import TaskTimeout

__all__ = ["Terms"]

# Seconds that the pause before a further try grows to.
_LONGEST_PAUSE = 60.0


class Terms(_terms.Terms):
    """As `shoal._terms.Terms`, for `Nodes` instead of the engine."""

    __slots__ = ("delay", "overruns", "priority", "reasons", "retries", "timeout")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        timeout = options.get("timeout")
        self.timeout: float | None = None if timeout is None or timeout == float("inf") else float(timeout)
        self.retries = int(options.get("retries", 0))
        reasons = options.get("retry_on", ())
        self.reasons: tuple[type[BaseException], ...] = reasons if isinstance(reasons, tuple) else (reasons,)
        self.overruns = bool(self.reasons) and issubclass(TaskTimeout, self.reasons)
        self.delay = float(options.get("retry_delay", 0))
        self.priority = int(options.get("priority", 0))
        if self.engine is not None:
            self.engine = self  # type: ignore[assignment]  # handed through by the methods of `Pool`

    def pause(self, tries: int) -> float:
        """Seconds before the next try, after so many."""
        pause: float = self.delay * 2 ** min(tries - 1, 60)
        return min(pause, max(_LONGEST_PAUSE, self.delay))
