"""Random numbers: `rng()`, a stream for each task of a pool that has a seed.

Who runs a task must not matter to what it draws. So the streams are not the workers' but the tasks': the stream of a
task is told by the pool's seed, by how many calls the pool was given before this one, and in a map by the place of the
item. That is numpy's own way to spawn streams, so anybody can have the same numbers without shoal:

    numpy.random.default_rng(numpy.random.SeedSequence(seed, spawn_key=(call,)))        # apply, submit
    numpy.random.default_rng(numpy.random.SeedSequence(seed, spawn_key=(call, item)))   # an item of a map

The place travels with the arguments, behind the last one, so a task that is tried again, or sent back for others to do,
has it still. A pool without a seed sends nothing.
"""

from __future__ import annotations

import itertools
import os
import threading

from shoal import _engine
from shoal._text import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    import numpy

    Seed = int | Sequence[int]

__all__ = ["Seeds", "rng"]

# Where the arguments of a task are told, it is not mentioned.
_MARK = b"shoal random stream "


def rng() -> numpy.random.Generator:
    """The random numbers of the task that is running, as a numpy `Generator`.

    In a task of a pool that was given a `seed`, these depend on the seed and on the task alone: on how many calls the
    pool was given before, and in a map on the place of the item. They are the same for any number of workers and any
    chunks, and for a task that is tried again. Each call in the task returns the same generator, which goes on where
    it was.

    Without a seed, and outside of tasks, it is a generator that this thread has to itself, different in each process
    and at each start.

    A thread that a task starts has a generator of its own, too: give it the task's.

    Returns:
        A `numpy.random.Generator`.

    Raises:
        ModuleNotFoundError: numpy is not installed.

    Example:
        >>> with shoal.Pool(2, seed=42) as pool:
        ...     pool.map(lambda n: shoal.rng().integers(100, size=n).tolist(), [1, 2, 3])
        [[20], [40, 75], [42, 64, 94]]
    """
    generator = _current.generator
    if generator is None:
        import numpy

        entropy, place = _current.stream
        key = tuple(map(int, place[len(_MARK) :].split()))
        generator = _current.generator = numpy.random.default_rng(numpy.random.SeedSequence(entropy, spawn_key=key))
    return generator


class _Current(threading.local):
    """What the thread is at. Without a seed, the stream is that of no task."""

    def __init__(self) -> None:
        self.stream: tuple[Seed | None, bytes] = (None, _MARK)
        self.generator: numpy.random.Generator | None = None


_current = _Current()


def _after_fork() -> None:
    global _current
    _current = _Current()


os.register_at_fork(after_in_child=_after_fork)


class Seeds:
    """The streams of a pool: numbers its calls, and has what is called told which stream is its own.

    Args:
        seed: checked, see `checked`.
    """

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        self._calls = itertools.count()
        # The last function: a loop of calls has the same.
        self._last: tuple[Any, Seeded] | None = None

    def one(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """What to call for `func`, with arguments from `place`."""
        if not callable(func) or isinstance(func, (Seeded, _engine.Prepared)):
            return func
        last = self._last
        if last is None or last[0] is not func:
            self._last = last = func, Seeded(func, self.seed)
        return last[1]

    def place(self, args: Iterable[Any]) -> tuple[Any, ...]:
        """The arguments of the next call."""
        return *args, b"%s%d" % (_MARK, next(self._calls))

    def each(self, func: Callable[..., Any], items: Iterable[Any], star: bool) -> tuple[Any, Iterable[Any]]:
        """What to call with each of which items, in the next call, which is a map."""
        if not callable(func):
            return func, items
        pairs = zip(items, self.places())  # noqa: B905  # the places are endless
        return self.item(func, star), list(pairs) if hasattr(items, "__len__") else pairs

    def item(self, func: Callable[..., Any], star: bool = False) -> Callable[..., Any]:
        """What to call for `func` with pairs of an item and its place."""
        return SeededItem(func, self.seed, star)

    def places(self) -> Iterator[bytes]:
        """The places of items of the next call, which is a map."""
        call = next(self._calls)
        return (b"%s%d %d" % (_MARK, call, item) for item in itertools.count())


class Seeded:
    """A function that is told its stream by its last argument. Does not change, so its pickle can be used again."""

    def __init__(self, function: Callable[..., Any], seed: Seed) -> None:
        self.function = function
        self.seed = seed
        # As it is called in messages.
        self.__qualname__ = name_of(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        *arguments, place = args
        return self._call(place, arguments, kwargs)

    def _call(self, place: bytes, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        current = _current
        outer = current.stream, current.generator
        current.stream, current.generator = (self.seed, place), None
        try:
            return self.function(*args, **kwargs)
        finally:
            current.stream, current.generator = outer


class SeededItem(Seeded):
    """The same for a map: its argument is a pair of an item and its place."""

    def __init__(self, function: Callable[..., Any], seed: Seed, star: bool) -> None:
        super().__init__(function, seed)
        self.star = star

    def __call__(self, pair: tuple[Any, bytes]) -> Any:
        item, place = pair
        return self._call(place, item if self.star else (item,), {})


def without_place(args: Any) -> Any:
    """The arguments of a call as its caller gave them."""
    return args[:-1] if isinstance(args, (tuple, list)) and args and _is_place(args[-1]) else args


def item_without_place(item: Any) -> Any:
    """The item of a map as its caller gave it."""
    return item[0] if type(item) is tuple and len(item) == 2 and _is_place(item[1]) else item


def _is_place(value: object) -> bool:
    return type(value) is bytes and value.startswith(_MARK)


def checked(seed: object) -> Seed:
    """The seed of a pool, or an error that says what would be right."""
    if hasattr(seed, "__index__") and not isinstance(seed, bool) and getattr(seed, "ndim", 0) == 0:
        return _natural(seed)
    if isinstance(seed, (bool, str, bytes)) or not hasattr(seed, "__iter__"):
        raise TypeError(f"seed must be None, an integer or a sequence of integers, not {type(seed).__name__}")
    for part in seed:
        if isinstance(part, bool) or not hasattr(part, "__index__"):
            raise TypeError(f"seed must be None, an integer or a sequence of integers, not one of {part!r}")
    return [_natural(part) for part in seed]


def _natural(value: Any) -> int:
    number = int(value.__index__())
    if number < 0:
        raise ValueError(f"seed must be 0 or more, not {number}")
    return number
