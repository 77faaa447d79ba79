"""Taking an object apart in the way pickle does, with a name for each part: the step that leads to it.

A step is `.attribute`, `[3]`, `['key']`, or a phrase such as `closure variable 'x'`. Steps make a path.
"""

from __future__ import annotations

import functools
import reprlib
import weakref
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from shoal.serialize.names import by_name, global_names
from shoal.serialize.reducers import find

__all__ = ["ATOMS", "Part", "parts", "text"]

# Longer paths are abridged in the middle: only a structure that is linked many times over has one.
_LONGEST = 12

# What has no parts.
ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class Part(NamedTuple):
    """A part of an object, and the step that leads to it."""

    step: str
    value: Any


def parts(obj: object) -> list[Part]:
    """What pickle sends of `obj`, one level down; nothing if asking for it fails, for then `obj` itself is to blame."""
    try:
        return list(_parts(obj))
    except Exception:  # code of the user's; the pickler meets the same error, and that one is reported
        return []


def text(path: tuple[str, ...]) -> str:
    """The steps as one text: `self.conn.sock`, `[3]['key']`, `.callback, closure variable 'db'`."""
    if len(path) > _LONGEST:
        half = _LONGEST // 2
        path = (*path[:half], f"({len(path) - 2 * half} more steps)", *path[-half:])
    result = ""
    for step in path:
        if step[0] in ".[":
            result += step if result or step[0] == "[" else f"self{step}"
        else:
            result += f", {step}" if result else step
    return result


def _parts(obj: Any) -> Iterator[Part]:
    if isinstance(obj, (FunctionType, type, ModuleType)) and by_name(obj):
        return
    kind = type(obj)
    if kind is dict:
        yield from _items(obj.items())
    elif kind is list or kind is tuple:
        yield from (Part(f"[{index}]", item) for index, item in enumerate(obj))
    elif kind is set or kind is frozenset:
        yield from (Part(f"element {_short(item)}", item) for item in obj)
    elif kind is FunctionType:
        yield from _parts_of_function(obj)
    elif isinstance(obj, type):
        yield from _parts_of_class(obj)
    elif kind is MethodType:
        yield Part("self", obj.__self__)
        yield Part(".__func__", obj.__func__)
    elif isinstance(obj, functools.partial):
        yield Part(".func", obj.func)
        yield Part(".args", obj.args)
        yield Part(".keywords", obj.keywords)
        yield from _attributes(vars(obj))
    elif issubclass(kind, weakref.ReferenceType):
        yield Part("weak reference", obj())
    elif kind is CellType:
        yield Part(".cell_contents", obj.cell_contents)
    elif kind is ModuleType:
        yield from _attributes(vars(obj))
    elif kind in (staticmethod, classmethod):
        yield Part(".__func__", obj.__func__)
    elif kind is property:
        yield from (Part(f".{name}", getattr(obj, name)) for name in ("fget", "fset", "fdel"))
    else:
        yield from _parts_of_instance(obj)


def _parts_of_function(function: FunctionType) -> Iterator[Part]:
    """A function by value: what it was given when it was defined, and the globals that it uses."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield Part(f"closure variable {name!r}", cell.cell_contents)
        except ValueError:  # not yet assigned
            continue
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    for name, value in zip(positional[len(positional) - len(defaults) :], defaults, strict=True):
        yield Part(f"default of {name!r}", value)
    for name, value in (function.__kwdefaults__ or {}).items():
        yield Part(f"default of {name!r}", value)
    for name in sorted(global_names(code) & function.__globals__.keys()):
        yield Part(f"global {name!r}", function.__globals__[name])
    yield from _attributes(function.__dict__)
    yield Part(".__annotations__", function.__annotations__)


def _parts_of_class(cls: type) -> Iterator[Part]:
    """A class by value: its bases, and its own methods and attributes."""
    if type(cls) is not type:
        yield Part(f"metaclass {type(cls).__name__}", type(cls))
    for base in cls.__bases__:
        yield Part(f"base class {base.__name__}", base)
    # What describes the layout of instances is made anew with the class.
    skipped = ("__dict__", "__weakref__", "_abc_impl")
    yield from _attributes({name: value for name, value in vars(cls).items() if name not in skipped})


def _parts_of_instance(obj: Any) -> Iterator[Part]:
    """Anything else: the class, then what `__reduce_ex__` hands out."""
    kind = type(obj)
    yield Part(f"class {kind.__name__}", kind)
    reduction = _reduction(obj)
    if isinstance(reduction, str):
        return
    make, args, state, items, pairs = (*reduction, None, None, None)[:5]
    # An argument that is also an attribute is named as such: that is what people know it by.
    names = {id(value): name for name, value in getattr(obj, "__dict__", {}).items()}
    if isinstance(obj, BaseException):
        yield from (Part(f".args[{index}]", value) for index, value in enumerate(obj.args))
    yield Part(".__reduce_ex__(5)[0]", make)
    for index, value in enumerate(args):
        if value is not kind:
            name = names.get(id(value))
            yield Part(f".{name}" if name else f".__reduce_ex__(5)[1][{index}]", value)
    yield from (Part(f"[{index}]", item) for index, item in enumerate(items or ()))
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


def _parts_of_state(state: Any) -> Iterator[Part]:
    """The third item of a reduction: attributes, (attributes, slots), or what a `__getstate__` made up."""
    if isinstance(state, dict):
        yield from _attributes(state)
    elif type(state) is tuple and len(state) == 2 and all(isinstance(half, (dict, type(None))) for half in state):
        for half in state:
            yield from _attributes(half or {})
    elif state is not None:
        yield Part(".__reduce_ex__(5)[2]", state)


def _items(pairs: Any) -> Iterator[Part]:
    for key, value in pairs:
        yield Part(f"key {_short(key)}", key)
        yield Part(f"[{_short(key)}]", value)


def _attributes(attributes: dict[Any, Any]) -> Iterator[Part]:
    return (Part(f".{name}", value) for name, value in attributes.items())


def _short(value: object) -> str:
    """A short text for a key or an element; never an error of the user's `__repr__`."""
    return reprlib.repr(value) if type(value) in ATOMS or type(value) is tuple else f"<{type(value).__name__} object>"
