"""The search for the part of an object that can't be pickled.

The pickler says only "cannot pickle '_thread.lock' object", not where in the object that lock is. So the search takes
the object apart in the way pickle does, and pickles each part on its own, into nothing. Parts that can be pickled are
out; those that can't are taken apart in turn, level by level, so that the first one with no guilty part of its own is
the culprit at the end of the shortest path. Guilty parts among many are found by halving, not one by one.

A step of a path is `.attribute`, `[3]`, `['key']`, or a phrase such as `closure variable 'x'`.
"""

from __future__ import annotations

import functools
import pickle
import reprlib
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from shoal.serialize.names import by_name, global_names
from shoal.serialize.reducers import find

# The search ends after so many seconds, at the best path it has found, and looks at so many guilty parts of one object.
_SECONDS = 2.0
_SUSPECTS = 16

# Longer paths are abridged in the middle: only a structure that is linked many times over has one.
_LONGEST = 12

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class _Part(NamedTuple):
    step: str
    value: Any


class _OutOfTime(Exception):
    """The search has taken long enough."""


def why(obj: object) -> str | None:
    """Why `obj` can't travel to another process.

    Args:
        obj: anything.

    Returns:
        The path to the part that can't be pickled and what is wrong with it; None if `obj` can travel.

    Example:
        why({"model": Model()})  # "['model'].lock: cannot pickle '_thread.lock' object"
    """
    from shoal.errors import SerializationError
    from shoal.serialize.pickler import dumps

    try:
        dumps(obj, "")
    except SerializationError as error:
        return str(error).removeprefix(": ")
    return None


def explain(obj: object, error: Exception) -> str:
    """The path to the part of `obj` that can't be pickled, and what is wrong with it.

    Args:
        obj: an object that the pickler by value has refused.
        error: what the pickler raised.
    """
    if _is_recursion(error):
        return (
            f"{_kind(obj)} is nested too deeply to be pickled: "
            "send it as a flat structure, or raise sys.setrecursionlimit"
        )
    path, error = _search(obj, error)
    return f"{_text(path)}: {_complaint(error)}" if path else _complaint(error)


def _search(obj: object, error: Exception) -> tuple[tuple[str, ...], Exception]:
    """The steps to the culprit, and what it raises when it is pickled on its own."""
    deadline = time.monotonic() + _SECONDS
    found: tuple[tuple[str, ...], Exception] = ((), error)
    guilty: deque[tuple[tuple[str, ...], Any, Exception]] = deque([((), obj, error)])
    seen: dict[int, object] = {id(obj): obj}  # with the objects, so that no id is used twice
    try:
        while guilty:
            path, value, error = guilty.popleft()
            found = path, error
            parts = [part for part in _listed(value) if type(part.value) not in _ATOMS]
            suspects = list(islice(_refused(parts, deadline), _SUSPECTS))
            if not suspects:
                break
            for part, error in suspects:
                if id(part.value) not in seen:
                    seen[id(part.value)] = part.value
                    guilty.append(((*path, part.step), part.value, error))
    except _OutOfTime:
        pass  # what was found so far is true, only perhaps not the whole path
    return found


def _listed(value: object) -> list[_Part]:
    """The parts of `value`; none if asking for them fails, for then it is `value` that is guilty."""
    try:
        return list(_parts(value))
    except Exception:  # code of the user's; the pickler meets the same error, and that one is reported
        return []


def _refused(parts: list[_Part], deadline: float) -> Iterator[tuple[_Part, Exception]]:
    """Those of `parts` that can't be pickled, each with the reason."""
    if not parts:
        return
    error = _refusal([part.value for part in parts], deadline)
    if error is None:
        return
    if len(parts) > 1:
        middle = len(parts) // 2
        yield from _refused(parts[:middle], deadline)
        yield from _refused(parts[middle:], deadline)
    else:
        yield parts[0], error


def _refusal(value: object, deadline: float) -> Exception | None:
    """What pickling `value` raises; None if it succeeds."""
    from shoal.serialize.by_value import Pickler

    if time.monotonic() > deadline:
        raise _OutOfTime
    try:
        # Large buffers are left out of the pickle: they can always be sent.
        Pickler(_Nowhere(deadline), buffer_callback=lambda buffer: None).dump(value)
    except (_OutOfTime, MemoryError):
        raise
    except Exception as error:
        return error
    return None


class _Nowhere:
    """A file that forgets what is written, and looks at the clock."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def write(self, data: Any) -> None:
        if time.monotonic() > self._deadline:
            raise _OutOfTime


def _parts(obj: Any) -> Iterator[_Part]:
    """What pickle sends of `obj`, one level down, each part with the step that leads to it."""
    if isinstance(obj, (FunctionType, type, ModuleType)) and by_name(obj):
        return
    kind = type(obj)
    if kind is dict:
        yield from _items(obj.items())
    elif kind is list or kind is tuple:
        yield from (_Part(f"[{index}]", item) for index, item in enumerate(obj))
    elif kind is set or kind is frozenset:
        yield from (_Part(f"element {_short(item)}", item) for item in obj)
    elif kind is FunctionType:
        yield from _parts_of_function(obj)
    elif isinstance(obj, type):
        yield from _parts_of_class(obj)
    elif kind is MethodType:
        yield _Part("self", obj.__self__)
        yield _Part(".__func__", obj.__func__)
    elif isinstance(obj, functools.partial):
        yield _Part(".func", obj.func)
        yield _Part(".args", obj.args)
        yield _Part(".keywords", obj.keywords)
        yield from _attributes(vars(obj))
    elif kind is CellType:
        yield _Part(".cell_contents", obj.cell_contents)
    elif kind is ModuleType:
        yield from _attributes(vars(obj))
    elif kind in (staticmethod, classmethod):
        yield _Part(".__func__", obj.__func__)
    elif kind is property:
        yield from (_Part(f".{name}", getattr(obj, name)) for name in ("fget", "fset", "fdel"))
    else:
        yield from _parts_of_instance(obj)


def _parts_of_function(function: FunctionType) -> Iterator[_Part]:
    """A function by value: what it was given when it was defined, and the globals that it uses."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _Part(f"closure variable {name!r}", cell.cell_contents)
        except ValueError:  # not yet assigned
            continue
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    for name, value in zip(positional[len(positional) - len(defaults) :], defaults, strict=True):
        yield _Part(f"default of {name!r}", value)
    for name, value in (function.__kwdefaults__ or {}).items():
        yield _Part(f"default of {name!r}", value)
    for name in sorted(global_names(code) & function.__globals__.keys()):
        yield _Part(f"global {name!r}", function.__globals__[name])
    yield from _attributes(function.__dict__)
    yield _Part(".__annotations__", function.__annotations__)


def _parts_of_class(cls: type) -> Iterator[_Part]:
    """A class by value: its bases, and its own methods and attributes."""
    if type(cls) is not type:
        yield _Part(f"metaclass {type(cls).__name__}", type(cls))
    for base in cls.__bases__:
        yield _Part(f"base class {base.__name__}", base)
    # What describes the layout of instances is made anew with the class.
    skipped = ("__dict__", "__weakref__", "_abc_impl")
    yield from _attributes({name: value for name, value in vars(cls).items() if name not in skipped})


def _parts_of_instance(obj: Any) -> Iterator[_Part]:
    """Anything else: the class, then what `__reduce_ex__` hands out."""
    kind = type(obj)
    yield _Part(f"class {kind.__name__}", kind)
    reduction = _reduction(obj)
    if isinstance(reduction, str):
        return
    make, args, state, items, pairs = (*reduction, None, None, None)[:5]
    # An argument that is also an attribute is named as such: that is what people know it by.
    names = {id(value): name for name, value in getattr(obj, "__dict__", {}).items()}
    if isinstance(obj, BaseException):
        yield from (_Part(f".args[{index}]", value) for index, value in enumerate(obj.args))
    yield _Part(".__reduce_ex__(5)[0]", make)
    for index, value in enumerate(args):
        if value is not kind:
            name = names.get(id(value))
            yield _Part(f".{name}" if name else f".__reduce_ex__(5)[1][{index}]", value)
    yield from (_Part(f"[{index}]", item) for index, item in enumerate(items or ()))
    yield from _items(pairs or ())
    yield from _parts_of_state(state)


def _reduction(obj: Any) -> Any:
    """What the pickler by value is told of `obj`."""
    from shoal.serialize.by_value import Pickler

    reducer = find(type(obj))
    reduction = reducer(obj) if reducer else NotImplemented
    if reduction is NotImplemented:
        reducer = Pickler.dispatch_table.get(type(obj))
        reduction = reducer(obj) if reducer else obj.__reduce_ex__(5)
    return reduction


def _parts_of_state(state: Any) -> Iterator[_Part]:
    """The third item of a reduction: attributes, (attributes, slots), or what a `__getstate__` made up."""
    if isinstance(state, dict):
        yield from _attributes(state)
    elif type(state) is tuple and len(state) == 2 and all(isinstance(half, (dict, type(None))) for half in state):
        for half in state:
            yield from _attributes(half or {})
    elif state is not None:
        yield _Part(".__reduce_ex__(5)[2]", state)


def _items(pairs: Any) -> Iterator[_Part]:
    for key, value in pairs:
        yield _Part(f"key {_short(key)}", key)
        yield _Part(f"[{_short(key)}]", value)


def _attributes(attributes: dict[Any, Any]) -> Iterator[_Part]:
    return (_Part(f".{name}", value) for name, value in attributes.items())


def _text(path: tuple[str, ...]) -> str:
    """The steps as one text: `self.conn.sock`, `[3]['key']`, `.callback, closure variable 'db'`."""
    if len(path) > _LONGEST:
        half = _LONGEST // 2
        path = (*path[:half], f"({len(path) - 2 * half} more steps)", *path[-half:])
    text = ""
    for step in path:
        if step[0] in ".[":
            text += step if text or step[0] == "[" else f"self{step}"
        else:
            text += f", {step}" if text else step
    return text


def _complaint(error: Exception) -> str:
    """What pickle said; for an error of someone else's code also what kind it is."""
    if isinstance(error, (TypeError, pickle.PicklingError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _is_recursion(error: BaseException | None) -> bool:
    """Whether `error` comes from too deep a recursion; cloudpickle wraps it."""
    return error is not None and (isinstance(error, RecursionError) or _is_recursion(error.__cause__))


def _kind(obj: object) -> str:
    return f"this {type(obj).__name__}"


def _short(value: object) -> str:
    """A short text for a key or an element; never an error of the user's `__repr__`."""
    return reprlib.repr(value) if type(value) in _ATOMS or type(value) is tuple else f"<{type(value).__name__} object>"
