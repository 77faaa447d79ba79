"""The search for the part of an object that can't be pickled.

The pickler says only "cannot pickle 'generator' object", not where in the object that generator is. So the search takes
the object apart in the way pickle does (`parts`), and pickles each part on its own, into nothing. Parts that can be
pickled are out; those that can't are taken apart in turn, level by level, so that the first one with no guilty part of
its own is the culprit at the end of the shortest path. Guilty parts among many are found by halving, not one by one.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from shoal.serialize.parts import ATOMS, Part, parts, text

__all__ = ["explain", "obstacles"]

# The search ends after so many seconds of work, at the best path it has found, and looks at so many guilty parts of one
# object. Of work, not of waiting for a busy machine: the path is to be the same there.
_SECONDS = 2.0
_SUSPECTS = 16


class _OutOfTime(Exception):
    """The search has taken long enough."""


def obstacles(obj: object) -> list[str]:
    """Why `obj` can't travel to another process.

    Args:
        obj: anything.

    Returns:
        For each part that can't be pickled the path to it and what is wrong with it, the shortest path first; none if
        `obj` can travel. After two seconds of work, those found by then.

    Example:
        obstacles({"stream": iter_lines()})  # ["['stream']: cannot pickle 'generator' object"]
    """
    from shoal.errors import SerializationError
    from shoal.serialize.pickler import dump_by_value

    try:
        dump_by_value(obj, "", _Nowhere(None), lambda buffer: None)
    except SerializationError as error:
        cause = error.__cause__
        assert isinstance(cause, Exception)
        return [_told(obj, path, error) for path, error in _culprits(obj, cause)]
    return []


def explain(obj: object, error: Exception, pickler: Callable[..., Any] | None = None) -> str:
    """The path to the part of `obj` that can't be pickled, and what is wrong with it.

    Args:
        obj: an object that the pickler has refused.
        error: what the pickler raised.
        pickler: which pickler; by default that by value.
    """
    return _told(obj, *next(_culprits(obj, error, pickler)))


def _told(obj: object, path: tuple[str, ...], error: Exception) -> str:
    complaint = _complaint(error)
    if _is_recursion(error):
        which = "" if path else f"this {type(obj).__name__} is "
        complaint = (
            f"{which}nested too deeply to be pickled: send it as a flat structure, or raise sys.setrecursionlimit"
        )
    return f"{text(path)}: {complaint}" if path else complaint


def _culprits(
    obj: object, error: Exception, pickler: Callable[..., Any] | None = None
) -> Iterator[tuple[tuple[str, ...], Exception]]:
    """The steps to each culprit, and what it raises when it is pickled on its own. There is always one."""
    deadline = time.thread_time() + _SECONDS
    best: tuple[tuple[str, ...], Exception] | None = (), error
    guilty: deque[tuple[tuple[str, ...], Any, Exception]] = deque([((), obj, error)])
    seen: dict[int, object] = {id(obj): obj}  # with the objects, so that no id is used twice
    try:
        while guilty:
            path, value, error = guilty.popleft()
            if best is not None:
                best = path, error
            inner = [] if _is_recursion(error) else [part for part in parts(value) if type(part.value) not in ATOMS]
            suspects = list(islice(_refused(inner, deadline, pickler), _SUSPECTS))
            if not suspects:
                best = None
                yield path, error
            for part, error in suspects:
                if id(part.value) not in seen:
                    seen[id(part.value)] = part.value
                    guilty.append(((*path, part.step), part.value, error))
    except _OutOfTime:
        pass  # what was found so far is true, only perhaps not the whole path
    if best is not None:
        yield best


def _refused(
    parts: list[Part], deadline: float, pickler: Callable[..., Any] | None
) -> Iterator[tuple[Part, Exception]]:
    """Those of `parts` that can't be pickled, each with the reason."""
    if not parts:
        return
    error = _refusal([part.value for part in parts], deadline, pickler)
    if error is None:
        return
    if len(parts) > 1:
        middle = len(parts) // 2
        yield from _refused(parts[:middle], deadline, pickler)
        yield from _refused(parts[middle:], deadline, pickler)
    else:
        yield parts[0], error


def _refusal(value: object, deadline: float, pickler: Callable[..., Any] | None) -> Exception | None:
    """What pickling `value` raises; None if it succeeds."""
    from shoal.serialize.by_value import Pickler

    if time.thread_time() > deadline:
        raise _OutOfTime
    try:
        # Large buffers are left out of the pickle: they can always be sent.
        (pickler or Pickler)(_Nowhere(deadline), buffer_callback=lambda buffer: None).dump(value)
    except (_OutOfTime, MemoryError):
        raise
    except Exception as error:
        return error
    return None


class _Nowhere:
    """A file that forgets what is written, and looks at the clock."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    def write(self, data: Any) -> None:
        if self._deadline is not None and time.thread_time() > self._deadline:
            raise _OutOfTime


def _complaint(error: Exception) -> str:
    """What pickle said; for an error of someone else's code also what kind it is."""
    if isinstance(error, (TypeError, pickle.PicklingError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _is_recursion(error: BaseException | None) -> bool:
    """Whether `error` comes from too deep a recursion; cloudpickle wraps it."""
    return error is not None and (isinstance(error, RecursionError) or _is_recursion(error.__cause__))
