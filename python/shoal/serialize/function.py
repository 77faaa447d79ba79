"""When a pickled function may be sent again without pickling it again.

A function that travels by name is the same at every call. One that travels by value is a copy of its code and of all
it refers to: defaults, closure variables, globals, and what those refer to in turn. The copy is good as long as none of
that has changed. `stable` collects everything that could change into flat tuples, and gives up where a change would
leave no trace: at a list, a dict, or any other object that can change from within. `Snapshot.unchanged` then compares
identities, some tens of nanoseconds each, where pickling again would take hundreds of microseconds.

Not compared are annotations, docstrings and names: they do not change what a function does.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Mapping
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType

from shoal.random import Seeded
from shoal.serialize.names import by_name, global_chains

# Immutable through and through. Exact types only: a subclass can carry attributes.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented)})

# Immutable too; by name, because importing them would cost more than they are worth.
_ATOM_NAMES = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("re", "Pattern"),
    }
)

_LruCache = type(functools.lru_cache(lambda: None))

# Attributes of what wraps a function that say something about it and change nothing.
_DESCRIPTIONS = frozenset({"__annotations__", "__annotate__", "__type_params__"})

# Beyond so many things to compare, pickling again is no longer the greater cost.
_MOST = 1000

_MISSING = object()

_Get = Callable[[str, object], object]


class Snapshot:
    """All that a pickled function depends on, as it was at one moment.

    It keeps what it compares with alive. Take it before pickling, so that a change in between is noticed.

    Example:
        snapshot = stable(function)
        data = dumps(function)
        ...
        if snapshot is None or not snapshot.unchanged():
            data = dumps(function)
    """

    __slots__ = ("_cells", "_functions", "_lookups", "_sizes")

    def __init__(
        self,
        functions: Iterable[tuple[FunctionType, object, object, object, object]] = (),
        lookups: Iterable[tuple[_Get, str, object]] = (),
        cells: Iterable[tuple[CellType, object]] = (),
        sizes: Iterable[tuple[Mapping[str, object], int]] = (),
    ) -> None:
        # (function, its code, defaults, keyword defaults and __dict__)
        self._functions = tuple(functions)
        # (the `get` of a dictionary or of a class's, key, value or _MISSING)
        self._lookups = tuple(lookups)
        # (closure cell, value)
        self._cells = tuple(cells)
        # (dictionary, number of its keys): with the lookups of all keys, nothing was added or taken away
        self._sizes = tuple(sizes)

    def unchanged(self) -> bool:
        """Whether everything is still as it was, so that a pickle made then is as good as a new one."""
        for function, code, defaults, keyword_defaults, attributes in self._functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not keyword_defaults
                or function.__dict__ is not attributes
            ):
                return False
        missing = _MISSING
        for get, key, value in self._lookups:
            if get(key, missing) is not value:
                return False
        for mapping, size in self._sizes:
            if len(mapping) != size:
                return False
        try:
            for cell, value in self._cells:
                if cell.cell_contents is not value:
                    return False
        except ValueError:  # the variable was deleted
            return False
        return True


_ALWAYS = Snapshot()


def stable(func: object) -> Snapshot | None:
    """What must stay as it is for a pickle of `func` to be used again; None if that can't be told.

    Args:
        func: what a user passed as the function of a task.

    Returns:
        A snapshot that is always unchanged for what travels by name. One to ask before each use for functions and
        classes of `__main__`, lambdas and closures. None for these if they refer to anything that can change from
        within, and for bound methods, partials and callable objects.

    Example:
        stable(math.sqrt).unchanged()  # True, for ever
    """
    if callable(func) and (getattr(type(func), "__shoal_stable__", False) is True or by_name(func)):
        return _ALWAYS
    if isinstance(func, Seeded):
        return stable(func.function)  # and the rest of it stays as it is
    if not isinstance(func, (FunctionType, type, _LruCache)):
        return None
    collector = _Collector()
    try:
        collector.value(func)
    except (_Unstable, RecursionError):  # the latter for a very long chain of functions
        return None
    return Snapshot(collector.functions, collector.lookups, collector.cells, collector.sizes)


class _Unstable(Exception):
    """Something was met that can change without a trace."""


class _Collector:
    """Walks from a function to all that travels with it."""

    def __init__(self) -> None:
        self.functions: list[tuple[FunctionType, object, object, object, object]] = []
        self.lookups: list[tuple[_Get, str, object]] = []
        self.cells: list[tuple[CellType, object]] = []
        self.sizes: list[tuple[Mapping[str, object], int]] = []
        self._seen: dict[int, object] = {}  # with the objects, so that no id is used twice

    def value(self, value: object) -> None:
        """Collect `value` and what it refers to, once."""
        kind = type(value)
        if kind in _ATOMS or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if len(self._seen) + len(self.lookups) > _MOST:
            raise _Unstable
        if kind is tuple or kind is frozenset:
            for item in value:  # type: ignore[attr-defined]
                self.value(item)
        elif (kind.__module__, kind.__qualname__) in _ATOM_NAMES or _is_handle(kind) or by_name(value):
            pass
        elif kind is FunctionType:
            self._function(value)  # type: ignore[arg-type]
        elif kind is _LruCache:
            self._all_of(vars(value))  # the function is its __wrapped__
        elif issubclass(kind, type):
            self._class(value)  # type: ignore[arg-type]
        else:
            raise _Unstable

    def _function(self, function: FunctionType) -> None:
        code, attributes = function.__code__, function.__dict__
        if code.co_qualname.startswith("__create_fn__."):
            return  # dataclasses wrote it, from nothing but the fields
        self.functions.append((function, code, function.__defaults__, function.__kwdefaults__, attributes))
        self.value(function.__defaults__)
        self._all_of(function.__kwdefaults__ or {})
        self._all_of(attributes)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name == "repr_running" and "recursive_repr." in code.co_qualname:
                continue  # of a dataclass's __repr__: a set that is empty between calls
            try:
                content = cell.cell_contents
            except ValueError:  # not yet assigned
                raise _Unstable from None
            self.cells.append((cell, content))
            self.value(content)
        namespace = function.__globals__
        for name in {chain[0] for chain in global_chains(code)}:
            # A missing one is most often a built-in: to define a global of that name would be a change.
            found = namespace.get(name, _MISSING)
            self.lookups.append((namespace.get, name, found))
            if found is not _MISSING:
                self.value(found)
        for chain in global_chains(code):
            self._submodule(namespace.get(chain[0]), chain[1:])

    def _submodule(self, found: object, attributes: tuple[str, ...]) -> None:
        """Notice `import scipy.linalg` after `import scipy`: a function that uses it sends it along from then on."""
        for name in attributes:
            if not isinstance(found, ModuleType):
                return
            namespace = found.__dict__
            found = namespace.get(name, _MISSING)
            if found is _MISSING:
                self.lookups.append((namespace.get, name, _MISSING))

    def _class(self, cls: type) -> None:
        for base in (*cls.__bases__, type(cls)):
            self.value(base)
        if isinstance(cls, enum.EnumMeta):
            return  # its members are fixed, though the class keeps them in lists and dictionaries
        namespace = cls.__dict__
        self.sizes.append((namespace, len(namespace)))
        for field in namespace.get("__dataclass_fields__", {}).values():
            if type(field.default_factory) is FunctionType:
                self.value(field.default_factory)  # a default itself is a class attribute as well
        for name, attribute in namespace.items():
            self.lookups.append((namespace.get, name, attribute))
            if isinstance(attribute, (staticmethod, classmethod)):
                self.value(attribute.__func__)
            elif isinstance(attribute, property):
                for accessor in (attribute.fget, attribute.fset, attribute.fdel):
                    self.value(accessor)
            elif isinstance(attribute, functools.cached_property):
                self.value(attribute.func)
            elif isinstance(attribute, (GetSetDescriptorType, MemberDescriptorType)):
                pass  # slots, and the entries for __dict__ and __weakref__
            elif isinstance(attribute, FunctionType) or not _is_bookkeeping(name):
                self.value(attribute)

    def _all_of(self, mapping: dict[str, object]) -> None:
        """Collect all values of a dictionary that a function owns."""
        self.sizes.append((mapping, len(mapping)))
        for key, value in mapping.items():
            self.lookups.append((mapping.get, key, value))
            if key not in _DESCRIPTIONS:
                self.value(value)


def _is_handle(kind: type) -> bool:
    """Whether objects of this type are shared: they pickle to a reference, whatever happens to their content."""
    return getattr(kind, "__shoal_handle__", False) is True


def _is_bookkeeping(name: str) -> bool:
    """Whether a class attribute is one that Python, abc or dataclasses wrote when the class was made.

    Such as `__annotations__`, `__dataclass_fields__` and `_abc_impl`: mutable, but nobody changes them afterwards.
    """
    return name == "_abc_impl" or (name.startswith("__") and name.endswith("__"))
