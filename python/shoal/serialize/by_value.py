"""The pickler for what can't be found by name in another process: cloudpickle's, with its gaps closed.

cloudpickle sends lambdas, closures, and the functions and classes of `__main__` as code. Added here:

- A class that comes home stays as it is. A class of `__main__` carries an id, by which its home process recognises it
  when a worker sends an instance back. cloudpickle then also writes the worker's copies of all methods and attributes
  over the original: a class attribute that changed in the meantime would fall back to an old value, and methods would
  see the worker's globals. So the home process ignores that part. Everyone else takes it, and so learns of changes.
- A class with `__slots__` has them elsewhere, too. cloudpickle makes one that has a `__dict__`, so that instances which
  were made or changed there would not fit the original.
- Code says which file it is from.
- Cached functions, cached properties, and type variables, which pickle sends by name or not at all, travel when they
  live in `__main__`.
- Locks, files and other things that pickle refuses travel as `reducers` has it.
- `__mp_main__`, the main module of a process that multiprocessing has spawned, counts as `__main__`.

Importing this module imports cloudpickle, about 20 ms: import it inside the functions that need it.
"""

from __future__ import annotations

import enum
import functools
import os
import sys
import typing
import weakref
from collections import ChainMap
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

import cloudpickle

from shoal._engine import reduce_buffer
from shoal.serialize.inherited import arrived
from shoal.serialize.names import MAINS, by_name
from shoal.serialize.reducers import find

# The classes sent by value that were defined in this process, and those that came from another one.
_at_home: weakref.WeakSet[type] = weakref.WeakSet()
_abroad: weakref.WeakSet[type] = weakref.WeakSet()


def _reduce_lru_cache(cached: Any) -> Any:
    """`functools.lru_cache` and `functools.cache`: the function travels, the cached results stay."""
    if by_name(cached):
        return cached.__reduce__()
    # The function arrives with the attributes, after the shell: a recursive one refers to the shell.
    parameters = cached.cache_parameters()
    return _new_lru_cache, (parameters["maxsize"], parameters["typed"]), dict(vars(cached))


def _new_lru_cache(maxsize: int | None, typed: bool) -> Any:
    """A cached function that calls whatever its `__wrapped__` turns out to be."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return cached.__wrapped__(*args, **kwargs)

    cached: Any = functools.lru_cache(maxsize, typed)(call)
    return cached


def _reduce_cached_property(prop: Any) -> Any:
    """`functools.cached_property`, without the lock that it holds before Python 3.12."""
    return type(prop), (prop.func,), {key: value for key, value in vars(prop).items() if key not in ("func", "lock")}


def _reduce_new_type(new_type: Any) -> Any:
    """`typing.NewType`."""
    if by_name(new_type):
        return new_type.__reduce__()
    return type(new_type), (new_type.__name__, new_type.__supertype__), {"__module__": new_type.__module__}


def _reduce_type_variable(variable: Any) -> Any:
    """`typing.ParamSpec` and `typing.TypeVarTuple`: they reach a worker only inside annotations."""
    return variable.__reduce__() if by_name(variable) else (type(variable), (variable.__name__,))


def _reduce_code(code: CodeType) -> Any:
    """Code, with the file that it is from: tracebacks, log records and warnings name it."""
    make, args = _code_reduce(code)
    return make, tuple(code.co_filename if type(arg) is str and arg == _NAMELESS else arg for arg in args)


_code_reduce: Callable[[Any], tuple[Any, tuple[Any, ...]]] = cloudpickle.Pickler.dispatch_table[CodeType]

# What cloudpickle 3.1.2 and later puts in the place of the file.
_NAMELESS = "<dynamic-code>"

_REDUCERS: dict[Any, Callable[[Any], Any]] = {
    CodeType: _reduce_code,
    type(functools.lru_cache(lambda: None)): _reduce_lru_cache,
    functools.cached_property: _reduce_cached_property,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_type_variable,
    typing.TypeVarTuple: _reduce_type_variable,
}


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler with the additions named at the top of this module.

    Args:
        file: where the pickle goes; anything with a `write(bytes)`.
        buffer_callback: as for `pickle.Pickler`; None to write buffers into the pickle.
    """

    dispatch_table: Mapping[Any, Callable[[Any], Any]] = ChainMap(_REDUCERS, cloudpickle.Pickler.dispatch_table)

    def __init__(self, file: Any, buffer_callback: Callable[[Any], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._beside = buffer_callback is not None
        main = sys.modules.get("__mp_main__")
        if main is not None and main.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(main)

    def reducer_override(self, obj: Any) -> Any:
        """What the pickler asks for each object that isn't of a plain built-in type."""
        is_class = issubclass(type(obj), type)
        if not is_class and type(obj) is not FunctionType:
            # Sooner than cloudpickle would say so: this is asked for every object of a list. Large arrays go beside the
            # pickle when a task is sent.
            reduction = reduce_buffer(obj) if self._beside else NotImplemented
            if reduction is NotImplemented:
                reducer = find(type(obj))
                return NotImplemented if reducer is None else reducer(obj)
            return reduction
        reduction = super().reducer_override(obj)
        if not isinstance(reduction, tuple) or len(reduction) != 6:
            return reduction
        make, args, state, _, _, setter = reduction
        if not is_class and obj.__globals__.get("__name__") in MAINS:
            return make, args, (setter, state), None, None, _set_function_state
        if is_class:
            if obj not in _abroad:
                _at_home.add(obj)
            return make, _with_slots(obj, args), (setter, state, os.getpid()), None, None, _set_class_state
        return reduction


def _with_slots(cls: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments that cloudpickle makes an empty class of, with the slots that this one has."""
    # Members are made in a way of their own; tuples have nothing in slots.
    if "__slots__" not in vars(cls) or issubclass(cls, (enum.Enum, tuple)):
        return args
    constructor, name, bases, namespace, *rest = args
    return constructor, name, bases, {**namespace, "__slots__": vars(cls)["__slots__"]}, *rest


def _set_function_state(function: FunctionType, sent: tuple[Callable[[FunctionType, Any], Any], Any]) -> None:
    """Give a function of `__main__` its globals: as they were where it comes from, or as the initializer left them."""
    setter, state = sent
    setter(function, state)
    arrived(function.__globals__)


def _set_class_state(cls: type, sent: tuple[Callable[[type, Any], Any], Any, int]) -> type:
    """Give a class that came by value its methods and attributes, unless they are from this very class."""
    setter, state, sender = sent
    if cls in _at_home or (cls in _abroad and sender == os.getpid()):
        return cls
    _abroad.add(cls)
    setter(cls, state)
    return cls
