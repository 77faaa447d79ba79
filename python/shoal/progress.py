"""Progress bars that go anywhere.

`shoal.tqdm` is tqdm, with all of its arguments, whose count lies in shared memory. A bar can be an argument, sit in an
object or a closure, or be put on a queue; `update` in any process is one atomic addition, and costs no more than that.

    >>> import shoal
    >>> with shoal.Pool() as pool, shoal.tqdm(total=1000, desc="frames") as bar:
    ...     def work(frame):
    ...         bar.update()
    ...     _ = pool.map(work, range(1000))

The process that made the bar draws it: one thread redraws all bars of the process as their counts change. What other
processes get is a `RemoteBar`, which counts and draws nothing.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self, SupportsIndex, TypeVar, overload

from tqdm.auto import tqdm as _AutoBar

from shoal._checks import int64
from shoal._engine import RawCounter

__all__ = ["RemoteBar", "tqdm"]

# How often the renderer looks at the counts, in seconds: what the eye takes for continuous, and no load at all.
TICK = 0.1

T = TypeVar("T")

if TYPE_CHECKING:
    _Base = _AutoBar
else:
    _Base = {T: _AutoBar}  # tqdm's class is generic in the eyes of type checkers only: here `_Base[T]` is the class


class tqdm(_Base[T]):
    """A progress bar that every process can advance. All arguments and methods are those of `tqdm.auto.tqdm`.

    Args:
        iterable: what to iterate over, advancing the bar by one for each item. Default: None, for a bar that is
            advanced by `update`.
        *args, **kwargs: as for tqdm: `desc`, `total`, `leave`, `file`, `unit`, `disable`, `position`, ...

    Where it differs from tqdm:

    - Pickled, it is a handle, and arrives as a `RemoteBar`. The iterable stays where it is.
    - The count is an integer: `update` takes no floats.
    - `update` never draws; a thread does, at most ten times a second, and `refresh` does at once. `mininterval`,
      `maxinterval`, `miniters`, `delay` and `smoothing` are respected.
    - It always counts, also with `disable=True` and after `close`; only the drawing stops.

    In a child made by `os.fork` the bars of the parent count, and draw nothing. Bars that are open when the interpreter
    ends are closed, with their last count.

    Raises:
        TypeError: `initial` is no integer.

    Example:
        >>> for path in shoal.tqdm(paths, desc="reading"):
        ...     read(path)
    """

    # What tqdm would have a second thread for, the renderer does.
    monitor_interval: ClassVar[int] = 0

    # Until tqdm's __init__ has run (it may fail) there is nothing that __del__ could close.
    disable: bool | None = True

    # Items and seconds between the latest drawings, smoothed, and what they amount to.
    _recent: tuple[float, float] = (0.0, 0.0)
    _rate: float | None = None

    @overload
    def __init__(self, iterable: Iterable[T], *args: Any, **kwargs: Any) -> None: ...
    @overload
    def __init__(self: tqdm[Never], iterable: None = None, *args: Any, **kwargs: Any) -> None: ...
    def __init__(self, iterable: Iterable[Any] | None = None, *args: Any, **kwargs: Any) -> None:
        self._count = RawCounter(int64("initial", kwargs.get("initial", 0)))
        super().__init__(iterable, *args, **kwargs)  # type: ignore[arg-type]  # None is fine, whatever the stubs say
        if not self.disable:
            _renderer.add(self)

    @property
    def n(self) -> int:
        """The count at this moment, with what all processes added. Set it to begin anew from there."""
        return self._count.value

    @n.setter  # type: ignore[override]  # tqdm's takes floats
    def n(self, value: SupportsIndex) -> None:
        self._count.exchange(int64("n", value))

    def update(self, n: SupportsIndex = 1) -> None:  # type: ignore[override]  # tqdm's takes floats
        """Advance the bar by `n`, in one atomic step.

        Args:
            n: how far; may be negative. Default: 1.

        Raises:
            TypeError: `n` is no integer.

        Example:
            >>> bar.update(len(chunk))
        """
        try:
            self._count.add(n)  # the engine converts; checking first would cost more
        except (TypeError, OverflowError):
            int64("n", n)
            raise

    def __iter__(self) -> Iterator[T]:
        try:
            for item in self.iterable:
                yield item
                self._count.add(1)
        finally:
            self.close()

    def close(self) -> None:
        """Draw the final count and end the bar (with `leave=False`: remove it). Closing twice does no harm."""
        # Under the lock, so that the renderer can't draw the bar once more after its end.
        with self._drawing():
            self._rate = None  # the last word is the average over all the time
            super().close()

    def reset(self, total: float | None = None) -> None:
        """Begin anew from zero, with another total if one is given."""
        with self._drawing():
            self._recent, self._rate = (0.0, 0.0), None
            super().reset(total)

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What the bar shows, as tqdm's."""
        fields = super().format_dict
        if self._rate is not None:
            fields["rate"] = self._rate
        return fields

    def __reduce__(self) -> tuple[object, ...]:
        # tqdm gives a disabled bar no description.
        return RemoteBar, (self._count, self.total, getattr(self, "desc", ""))

    @classmethod
    def _drawing(cls) -> AbstractContextManager[object]:
        """The lock under which bars are drawn, closed and reset."""
        lock: AbstractContextManager[object] = cls.get_lock()  # type: ignore[no-untyped-call]
        return lock

    def _tick(self) -> None:
        """Draw the bar if its count has changed and its arguments don't ask for more patience."""
        with self._drawing():
            if self.disable:
                return
            now, n = time.time(), self.n
            items, seconds = n - self.last_print_n, now - self.last_print_t
            if not items or seconds < self.mininterval or now < self.start_t + (self.delay or 0):
                return
            if abs(items) < (self.miniters or 0) and not 0 < self.maxinterval <= seconds:
                return
            self.last_print_n, self.last_print_t = n, now
            if self.smoothing and items > 0:
                new, old = self.smoothing, 1 - self.smoothing
                self._recent = new * items + old * self._recent[0], new * seconds + old * self._recent[1]
                self._rate = self._recent[0] / self._recent[1] if self._recent[1] > 0 else None
            self.refresh(nolock=True)


class RemoteBar:
    """A `shoal.tqdm` in another process than its own: it counts, and its owner draws.

    It has `update`, `n`, `total` and `desc`; `refresh`, `close` and `with` do nothing, for the bar is its owner's. What
    changes the looks of a bar (`set_description`, `set_postfix`, ...) it does not have. It goes anywhere, as the bar
    does.

    Args:
        count: the count of the bar.
        total: the bar's total when it was sent, or None.
        desc: the bar's description when it was sent.

    Example:
        >>> def work(path, bar):          # called in a worker with a bar of the client
        ...     bar.update(path.stat().st_size)
    """

    def __init__(self, count: RawCounter, total: float | None = None, desc: str = "") -> None:
        self._count = count
        self.total = total
        self.desc = desc

    @property
    def n(self) -> int:
        """The count at this moment, with what all processes added."""
        return self._count.value

    def update(self, n: SupportsIndex = 1) -> None:
        """Advance the bar by `n`, as `tqdm.update` does.

        Raises:
            TypeError: `n` is no integer.
        """
        try:
            self._count.add(n)  # the engine converts; checking first would cost more
        except (TypeError, OverflowError):
            int64("n", n)
            raise

    def refresh(self) -> None:
        """Nothing: the owner of the bar draws it."""

    def close(self) -> None:
        """Nothing: the owner of the bar closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteBar, (self._count, self.total, self.desc)

    def __repr__(self) -> str:
        return f"<shoal.RemoteBar {self.desc!r}, {self.n}/{'?' if self.total is None else self.total}>"


class _Renderer:
    """The thread that draws the open bars of this process. It is there while there are any."""

    def __init__(self) -> None:
        self._bars: weakref.WeakSet[tqdm[Any]] = weakref.WeakSet()  # who drops a bar unclosed, ends it
        self._wake = threading.Condition()  # guards all of these; is never held while drawing
        self._thread: threading.Thread | None = None
        self._ended = False

    def add(self, bar: tqdm[Any]) -> None:
        """Draw `bar` from now on, until it is closed."""
        with self._wake:
            self._bars.add(bar)
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._run, name="shoal-bars", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """At the end of the interpreter: a thread that wrote during its last moments would crash it."""
        with self._wake:
            self._ended = True
            self._wake.notify()
            thread, bars = self._thread, sorted(self._bars, key=lambda bar: abs(bar.pos))
        if thread is not None:
            thread.join(timeout=1.0)  # it is soon done, unless the terminal is stuck; then ending matters more
        for bar in bars:
            bar.close()

    def forked(self) -> None:
        """In the child of a fork: the thread is not there, nor is who holds the locks; the bars are the parent's."""
        tqdm.set_lock(threading.RLock())
        for bar in self._bars:
            bar.disable = True
        self.__init__()  # type: ignore[misc]  # as new

    def _run(self) -> None:
        while bars := self._next():
            while bars:
                self._draw(bars.pop())

    def _next(self) -> list[tqdm[Any]]:
        """After a tick, the open bars. None of them: the thread has to end."""
        with self._wake:
            self._wake.wait(TICK)
            bars = [bar for bar in self._bars if not bar.disable]
            self._bars = weakref.WeakSet(bars)
            if self._ended or not bars:
                self._thread = None
                return []
            return bars

    def _draw(self, bar: tqdm[Any]) -> None:
        try:
            bar._tick()
        except Exception:
            # Whatever is wrong with this bar (its file, its format), its owner meets it again in `close`, and can do
            # something about it. The other bars go on.
            with self._wake:
                self._bars.discard(bar)


# A lock of threads is enough, since no other process draws. tqdm's own would be one between processes, for which
# multiprocessing may start a process that tracks it.
tqdm.set_lock(threading.RLock())

_renderer = _Renderer()
atexit.register(_renderer.end)
os.register_at_fork(after_in_child=_renderer.forked)
