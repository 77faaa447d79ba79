"""When a bar is to be drawn again, and the rate that it then shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.progress.bar import Bar

__all__ = ["Drawing", "fit_total"]


class Drawing:
    """What the latest drawing of a bar showed. All of it under the lock of the bars."""

    __slots__ = ("_asked", "_at", "_n", "_recent", "rate")

    def __init__(self, bar: Bar[Any]) -> None:
        self._n, self._at = bar.n, bar.last_print_t
        self._asked = _asked(bar)
        # Items and seconds between the latest drawings, smoothed, and what they amount to.
        self._recent: tuple[float, float] = (0.0, 0.0)
        self.rate: float | None = None

    def restart(self, at: float) -> None:
        """The bar begins anew, at that time."""
        self._n, self._at = 0, at
        self._recent, self.rate = (0.0, 0.0), None

    def look(self, bar: Bar[Any]) -> None:
        """Draw `bar` if anything has changed, and its arguments don't ask for more patience."""
        now, n, asked = time.time(), bar.n, _asked(bar)
        if now < bar.start_t + (bar.delay or 0):
            return
        version, refreshes, cleared, start = (new != old for new, old in zip(asked, self._asked, strict=True))
        self._asked = asked
        if start:
            self.restart(bar.start_t)
        if cleared and not refreshes:
            bar.clear(nolock=True)
            return
        items, seconds = n - self._n, now - self._at
        few = abs(items) < (bar.miniters or 0) and not 0 < bar.maxinterval <= seconds
        if not version and not refreshes and (not items or few or seconds < bar.mininterval):
            return
        if items:
            self._count(items, seconds, bar.smoothing)
            self._n, self._at = n, now
        bar.last_print_n, bar.last_print_t = n, now
        bar.refresh(nolock=True)

    def _count(self, items: float, seconds: float, smoothing: float) -> None:
        if smoothing and items > 0:
            old = 1 - smoothing
            self._recent = smoothing * items + old * self._recent[0], smoothing * seconds + old * self._recent[1]
            self.rate = self._recent[0] / self._recent[1] if self._recent[1] > 0 else None


def fit_total(bar: Bar[Any]) -> None:
    """Give the total to what tqdm told of it only at the beginning: the widget of a notebook, the task of rich."""
    container, progress = bar.__dict__.get("container"), bar.__dict__.get("_prog")
    if container is not None and bar.total:
        widget, total = container.children[1], bar.total * (1 if bar.unit_scale is True else bar.unit_scale or 1)
        if widget.max != total:
            widget.max, widget.bar_style = total, ""
            if bar.ncols is None:
                widget.layout.width = None  # it is narrow as long as the total is not known
    if progress is not None and "_task_id" in bar.__dict__ and progress.tasks:
        progress.update(bar.__dict__["_task_id"], total=bar.total)


def _asked(bar: Bar[Any]) -> tuple[int, int, int, float]:
    """What others may have asked for: how it looks, refreshing, clearing, beginning anew."""
    shared = bar.shared
    return (shared.version, shared.refreshes, bar.cleared, bar.start_t) if shared else (0, 0, 0, bar.start_t)
