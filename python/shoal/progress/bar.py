"""`shoal.tqdm`: tqdm, but counted in shared memory, and drawn in one place.

A bar is drawn *here*, by the thread of this process's screen; or *elsewhere*: it has come from another process, or was
made in a worker, and the screen of another process draws it. `Bar` is what makes both of any class of tqdm.
"""

from __future__ import annotations

import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self, SupportsFloat, SupportsIndex, TypeVar, overload

from tqdm.asyncio import tqdm as asyncio_tqdm
from tqdm.std import tqdm as std_tqdm

from shoal._engine import RawTally, pass_words_on
from shoal.progress.auto import auto_tqdm
from shoal.progress.door import Address, door, existing_door
from shoal.progress.drawing import Drawing, fit_total
from shoal.progress.line import Line, elsewhere, line_to
from shoal.progress.screen import LOCK, screen
from shoal.progress.shared import Shared

__all__ = ["Bar", "tqdm", "trange"]

T = TypeVar("T")
Number = SupportsIndex | SupportsFloat

if TYPE_CHECKING:
    _Base = std_tqdm
    _Auto = auto_tqdm
else:
    # `Bar` comes before tqdm's class, whichever that is, not below one (and right below `object`, or an object of
    # tqdm's could not become one). tqdm's are generic for type checkers only: here `_Auto[T]` is the class.
    _Base = {T: object}
    _Auto = {T: auto_tqdm}

# The arguments of tqdm in their order, after the iterable; and those that only some of its classes know.
_ARGUMENTS = tuple(inspect.signature(std_tqdm.__init__).parameters)[2:-1]
_OF_SOME = frozenset({"display", "options", "progress"})

# How long to wait for somebody who is changing a bar at this moment, or died in it, in seconds.
MOMENT = 0.1

# What a bar that is drawn elsewhere would draw on.
_NOWHERE = io.StringIO()


class _Shown:
    """An attribute that is the same in every process that has the bar."""

    def __init__(self, default: object = AttributeError) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        owner._shown = (*owner._shown, name)  # type: ignore[attr-defined]

    def __get__(self, bar: Bar[Any] | None, owner: type | None = None) -> Any:
        if bar is None:
            return self
        bar._hear(MOMENT)
        value = bar.__dict__.get(self._name, self._default)
        if value is AttributeError:
            raise AttributeError(f"{type(bar).__name__!r} object has no attribute {self._name!r}")
        return value

    def __set__(self, bar: Bar[Any], value: object) -> None:
        bar.__dict__[self._name] = value
        if bar.shared is not None:
            bar.shared.change({self._name: value}, bar.__dict__)


class _Closed(_Shown):
    """Whether a bar is closed. One that is drawn here is open until it is off the screen, though somebody elsewhere may
    have closed it: what is written above the bars in that moment would not move it out of the way."""

    def __get__(self, bar: Bar[Any] | None, owner: type | None = None) -> Any:
        value = super().__get__(bar, owner)
        return value if bar is None or bar._drawing is None else False


class Bar(_Base[T]):
    """What makes a bar of any class of tqdm go anywhere: a class with this before tqdm's among its bases.

    See `tqdm`, which is such a class.
    """

    # What tqdm would have a second thread for, the screen does.
    monitor_interval: ClassVar[int] = 0

    # A lock of threads is enough, since no other process draws. It is the one that ordinary bars hold, too.
    _lock = LOCK
    if TYPE_CHECKING:
        _instances: ClassVar[set[Any]]

    # The module of `shoal.progress` where a class of this kind is to be found.
    kind: ClassVar[str] = "bar"

    _shown: ClassVar[tuple[str, ...]] = ()
    desc = _Shown()
    postfix = _Shown()
    total = _Shown()
    unit = _Shown()
    unit_scale = _Shown()
    unit_divisor = _Shown()
    bar_format = _Shown()
    leave = _Shown()
    start_t = _Shown()
    # Until tqdm's __init__ has run (it may fail) there is nothing that __del__ could close.
    disable = _Closed(True)
    # How often the bar was cleared elsewhere.
    cleared = _Shown(0)

    _tally: RawTally = None  # type: ignore[assignment]  # from the first moment of __init__ on
    _drawing: Drawing | None = None  # as long as it is drawn here
    _line: Line | None = None  # to the screen that draws it, if that is elsewhere
    _maker: int | None = None  # the process that made it, if that is not the one that draws it
    _broken = False  # drawing it has failed
    _joining = False  # it is being made of one that is there already: its count stays as it is
    shared: Shared | None = None  # as soon as another process has it

    def __init__(self, iterable: Iterable[Any] | None = None, *args: Any, **kwargs: Any) -> None:
        _check_initial(kwargs.get("initial", 0))
        named = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        line = None if self._joining else _screen_for(named)
        if not self._joining:
            self._tally = RawTally()
        if line is None:
            # tqdm draws it before text makes room for it: whoever writes in between would tear it.
            with self._locked():
                super().__init__(iterable, *args, **kwargs)  # type: ignore[arg-type]  # None is fine, whatever they say
            self._begin()
        else:
            self._begin_elsewhere(line, iterable, named)

    if not TYPE_CHECKING:

        @classmethod
        def __class_getitem__(cls, item: object) -> type:
            return cls

    # ---- counting ----------------------------------------------------------------------------------------------------

    @property
    def n(self) -> Any:
        """The count at this moment, with what all processes added. Set it to begin anew from there."""
        return self._tally.n

    @n.setter
    def n(self, value: Number) -> None:
        if not self._joining:
            self._tally.n = value

    def update(self, n: Number = 1) -> None:  # type: ignore[override]  # tqdm's types allow None, and tqdm does not
        """Advance the bar by `n`, in one atomic step.

        Args:
            n: how far, an integer or a float; may be negative. Default: 1.

        Raises:
            TypeError: `n` is no number.
            OverflowError: the count does not fit into 64 bits.

        Example:
            >>> bar.update(len(chunk))
        """
        self._tally.update(n)

    def __iter__(self) -> Iterator[T]:
        count = self._tally.update
        try:
            for item in self.iterable:
                yield item
                count(1)
        finally:
            self.close()

    # ---- looks -------------------------------------------------------------------------------------------------------

    def display(self, *args: Any, **kwargs: Any) -> Any:
        """As tqdm's, if this process draws the bar."""
        if self._line is not None:
            return True
        fit_total(self)
        return super().display(*args, **kwargs)

    def moveto(self, n: int) -> None:
        """As tqdm's, if this process draws the bar."""
        if self._line is None:
            super().moveto(n)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Redraw the bar; if it is drawn elsewhere, within a tenth of a second."""
        if self._line is None:
            return super().refresh(*args, **kwargs)
        assert self.shared is not None
        self.shared.refresh()
        return True

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Take the bar off the screen until it is drawn again."""
        if self._line is None:
            super().clear(*args, **kwargs)
        else:
            self.cleared += 1

    def reset(self, total: float | None = None) -> None:
        """Begin anew from zero, with another total if one is given."""
        if self._line is None:
            with self._locked():
                super().reset(total)
                if self._drawing is not None:
                    self._drawing.restart(self.start_t)
            return
        self.n = 0
        if total is not None:
            self.total = None if total == float("inf") else total
        self.start_t = time.time()

    def close(self) -> None:
        """Draw the final count and end the bar (with `leave=False`: remove it). Closing twice does no harm.

        In another process than the one that draws, it returns when that is done.
        """
        if self._line is not None:
            if not self.disable:
                self.disable = True
                assert self.shared is not None
                self._line.ask("look", self.shared.name)
            return
        if self._drawing is not None and self.is_on_terminal and existing_door() is not None:
            pass_words_on()  # what workers have said so far comes above its last line
        self._close_here()

    def _close_here(self) -> None:
        # Under the lock, so that the screen can't draw the bar once more after its end.
        with self._locked():
            if self._drawing is None:
                return
            self._drawing = None  # with its rate: the last word is the average over all the time
            self._hear()
            # Alone: it is open until now, though somebody elsewhere may have said that it is closed.
            shared, self.shared, self.disable = self.shared, None, False
            try:
                self._end_line(super().close)
            finally:
                self.shared, self.disable = shared, True

    @classmethod
    def write(cls, s: str, file: Any = None, end: str = "\n", nolock: bool = False) -> None:
        """Print `s` above the bars, wherever they are drawn. As `tqdm.write`."""
        stream = _stream_name(file)
        line = elsewhere() if stream is not None else None
        # With no bar on the screen there is nothing to disturb.
        if line is None or not line.address.is_lit or not line.ask("write", str(s), stream, end):
            super().write(s, file, end, nolock)

    @classmethod
    def write_here(cls, text: str, stream: str, end: str) -> None:
        """Print text of another process above the bars of this one: to `sys.stdout` or `sys.stderr`, by name."""
        file = getattr(sys, stream)
        if file is not None:
            super().write(text, file, end)
            file.flush()

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What the bar shows, as tqdm's."""
        fields = super().format_dict
        if self._drawing is not None and self._drawing.rate is not None:
            fields["rate"] = self._drawing.rate
        return fields

    # ---- here and elsewhere ------------------------------------------------------------------------------------------

    @classmethod
    def arrived(cls, shared: Shared, address: Address, fields: dict[str, Any]) -> Self:
        """A bar of another process, whose screen is at `address`."""
        bar = cls.__new__(cls)
        bar._tally, bar._joining = shared.tally, True
        bar._init_quietly(None, {})
        bar.__dict__.update(fields)
        bar.shared, bar._line, bar._joining = shared, line_to(address), False
        return bar

    @classmethod
    def visiting(cls, shared: Shared, kwargs: dict[str, Any]) -> Self:
        """A bar that was made in another process, with those arguments, to be drawn here."""
        bar = cls.__new__(cls)
        bar._tally, bar._joining = shared.tally, True
        bar.__init__(**kwargs)  # type: ignore[misc]
        bar.shared, bar._joining = shared, False
        return bar

    def inherited(self, address: Address | None) -> None:
        """In the child of a fork: from now on it is a bar that its parent draws."""
        with self._locked():
            type(self)._instances.discard(self)
        self._drawing = None
        if self.shared is None or address is None:
            self.__dict__["disable"] = True
        else:
            self._line = line_to(address)

    @property
    def address(self) -> Address:
        """Where the screen is that draws it."""
        return door().address if self._line is None else self._line.address

    def __reduce__(self) -> tuple[object, ...]:
        from shoal.progress.travel import reduce

        return reduce(self)

    def __del__(self) -> None:
        # One that has only come here is not this process's to close.
        if self._drawing is not None:
            self._close_here()  # wherever the collector has interrupted this thread: it waits for nobody
        elif self._maker == os.getpid() and not sys.is_finalizing():
            self.close()

    def _begin(self) -> None:
        """It is made: the screen may draw it."""
        if not self.disable:
            self._drawing = Drawing(self)
            screen.add(self)

    def _begin_elsewhere(self, line: Line, iterable: Iterable[Any] | None, kwargs: dict[str, Any]) -> None:
        """It is to be drawn by the screen at the end of `line`."""
        self._init_quietly(iterable, {name: value for name, value in kwargs.items() if name not in _OF_SOME})
        self.shared = Shared.make(self._tally, self.fields())
        self._line, self._maker = line, os.getpid()
        looks = {**kwargs, "total": self.total, "desc": self.desc, "postfix": self.postfix}
        looks["file"] = _stream_name(kwargs["file"]) if kwargs.get("file") is not None else None
        line.ask("show", self.kind, self.shared.parts, looks)

    def _end_line(self, close: Callable[[], None]) -> None:
        """Close it as tqdm does, with the other bars of the same terminal in mind."""
        others = [bar for bar in self._instances if bar is not self and getattr(bar, "fp", None) == self.fp]
        if others and (self.pos == 0 if self.leave is None else self.leave):
            # It comes to stand above the others: they make room, or what they show would stay beside it.
            with self.external_write_mode(self.fp, nolock=True):
                close()
        else:
            below = self.pos != 0 and hasattr(self, "sp")
            close()
            if below:
                self.fp.write("\r")  # for whatever is printed next: tqdm counts on another bar to be drawn

    def _init_quietly(self, iterable: Iterable[Any] | None, kwargs: dict[str, Any]) -> None:
        """tqdm's __init__, for one that does not draw."""
        init: Callable[..., None] = std_tqdm.__init__
        if isinstance(self, asyncio_tqdm):
            init = asyncio_tqdm.__init__
        init(self, iterable, **{**kwargs, "file": _NOWHERE, "gui": True, "disable": False})
        with self._locked():
            type(self)._instances.discard(self)

    def fields(self) -> dict[str, Any]:
        """What the bar shows, besides its count."""
        return {name: self.__dict__[name] for name in self._shown if name in self.__dict__}

    def _hear(self, patience: float = 0.0) -> bool:
        """Take note of what other processes have changed. Whether there was something."""
        return self.shared is not None and self.shared.news(patience, self.__dict__) is not None

    @classmethod
    def _locked(cls) -> AbstractContextManager[object]:
        """The lock under which bars are drawn, closed and reset."""
        lock: AbstractContextManager[object] = cls.get_lock()  # type: ignore[no-untyped-call]
        return lock

    @property
    def is_drawn(self) -> bool:
        """Whether this process draws it: it was made here or for this screen, and is open."""
        return self._drawing is not None and not self._broken

    def give_up(self) -> None:
        """Don't draw it any more: it can't be."""
        self._broken = True

    @property
    def is_on_terminal(self) -> bool:
        """Whether it is drawn where programs print, and what they print would disturb it."""
        return self.fp in (sys.stdout, sys.stderr)

    def tick(self) -> bool:
        """Draw the bar if it is time to. Whether it is still to be drawn."""
        with self._locked():
            if self._drawing is None:
                return False
            self._hear()
            if self.__dict__["disable"]:
                self._close_here()  # somebody elsewhere has
                return False
            self._drawing.look(self)
            return True


class tqdm(Bar[T], _Auto[T]):
    """A progress bar that every process can advance. All arguments and methods are those of `tqdm.auto.tqdm`.

    Args:
        iterable: what to iterate over, advancing the bar by one for each item. Default: None, for a bar that is
            advanced by `update`.
        args, kwargs: as for tqdm: `desc`, `total`, `leave`, `file`, `unit`, `disable`, `position`, ...

    It is drawn by the process that made it, on its terminal or in its notebook. A bar that is made in a worker is drawn
    by the client of the pool, below the others. Wherever else the bar arrives (as an argument, in an object or a
    closure, from a queue), it is the same bar: it counts together, and has the same description, postfix and total.

    Where it differs from tqdm:

    - `update` never draws; a thread does, at most ten times a second, and `refresh` does at once. `mininterval`,
      `maxinterval`, `miniters`, `delay` and `smoothing` are respected.
    - In another process than the one that draws it, what changes is on the screen within a tenth of a second;
      `close` and `write` return when that is done. The iterable stays where it is.
    - It always counts, also with `disable=True` and after `close`; only the drawing stops.

    Bars that are open when the interpreter ends are closed, with their last count; so are those of a worker that ends
    or is killed.

    Raises:
        TypeError: `initial` is no number.

    Example:
        >>> for path in shoal.tqdm(paths, desc="reading"):
        ...     read(path)
    """

    if TYPE_CHECKING:

        @overload
        def __init__(self, iterable: Iterable[T], *args: Any, **kwargs: Any) -> None: ...
        @overload
        def __init__(self: tqdm[Never], iterable: None = None, *args: Any, **kwargs: Any) -> None: ...
        def __init__(self, iterable: Any = None, *args: Any, **kwargs: Any) -> None: ...


def trange(*args: int, **kwargs: Any) -> tqdm[int]:
    """A bar over `range(*args)`: a shortcut for `tqdm(range(*args), **kwargs)`.

    Example:
        >>> for i in shoal.trange(10, desc="rounds"):
        ...     play(i)
    """
    return tqdm(range(*args), **kwargs)


def _check_initial(initial: object) -> None:
    if isinstance(initial, str) or not (hasattr(initial, "__index__") or hasattr(initial, "__float__")):
        raise TypeError(f"initial must be a number, not {type(initial).__name__} ({initial!r})")


def _screen_for(kwargs: dict[str, Any]) -> Line | None:
    """The line to the screen that is to draw a bar with those arguments; None if this process draws it."""
    if kwargs.get("disable") or kwargs.get("gui") or _stream_name(kwargs.get("file"), "stderr") is None:
        return None
    return elsewhere()


def _stream_name(file: Any, default: str = "stdout") -> str | None:
    """What a standard stream is called; None for any other file, which only this process has."""
    if file is None:
        return default
    return "stdout" if file is sys.stdout else "stderr" if file is sys.stderr else None
