"""The bars of maps: what `progress=` of a pool's methods means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from tqdm.std import tqdm as std_tqdm

from shoal._engine import Counted, IMapIterator
from shoal.progress.bar import Bar, tqdm

if TYPE_CHECKING:
    from shoal.progress import Progress

__all__ = ["Watch", "WatchedIterator"]

R = TypeVar("R")


class Watch:
    """A map that is shown on a bar: its calls are counted where they end, in the workers.

    Args:
        progress: True for a bar; a dict of tqdm's arguments for such a bar; or a bar, which stays open at the end.
        iterable: the items of the map. Their number is the bar's total, if it is known.
        failures: whether an item that fails counts: not, if it may be tried again.

    Raises:
        TypeError: `progress` is none of these.
        tqdm.TqdmKeyError: the dict has other arguments than tqdm's.
    """

    def __init__(self, progress: Progress, iterable: object, failures: bool) -> None:
        self._failures = failures
        self._mine = not isinstance(progress, std_tqdm)
        if isinstance(progress, Bar):
            self.bar: Bar[Any] = progress
        elif isinstance(progress, std_tqdm):
            from shoal.progress.travel import adopt

            self.bar = adopt(progress)
        elif progress is True:
            self.bar = tqdm(total=_length(iterable))
        elif isinstance(progress, dict):
            self.bar = tqdm(**{"total": _length(iterable), **progress})
        else:
            raise TypeError(
                f"progress must be True, a dict of tqdm's arguments, or a bar, not {type(progress).__name__}"
            )

    def counted(self, func: Callable[..., R]) -> Callable[..., R]:
        """`func`, with each of its calls advancing the bar by one."""
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        return Counted(func, self.bar._tally, self._failures)

    def iterator(self, stream: IMapIterator[R]) -> WatchedIterator[R]:
        """The results of `imap`."""
        return WatchedIterator(stream, self)

    def end(self, *_: object) -> None:
        """The map has ended, in whatever way."""
        if self._mine:
            self.bar.close()

    def then(self, callback: Callable[[Any], object] | None) -> Callable[[Any], object]:
        """A callback that ends it, and goes on to `callback`."""

        def end(value: Any) -> None:
            self.end()
            if callback is not None:
                callback(value)

        return end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class WatchedIterator(Generic[R]):
    """The results of `imap` with a bar: an `IMapIterator` that ends the bar when it ends."""

    def __init__(self, stream: IMapIterator[R], watch: Watch) -> None:
        self._stream, self._watch = stream, watch

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        return self.next()

    def next(self, timeout: float | None = None) -> R:
        """As `IMapIterator.next`."""
        try:
            return self._stream.next(timeout)
        except StopIteration:
            self._watch.end()
            raise

    def close(self) -> None:
        """As `IMapIterator.close`."""
        self._stream.close()
        self._watch.end()

    def __del__(self) -> None:
        if hasattr(self, "_watch"):
            self._watch.end()


def _length(iterable: object) -> int | None:
    return len(iterable) if isinstance(iterable, Sized) else None
