"""Values and arrays of C types on other machines: what is read or written there is read or written at home.

A value is a tree of structures and arrays with simple types at its ends. What stands for a branch knows its type and
the way to it; only the ends cross. A slice is read or written in one go.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from shoal.cluster.shared.proxies import Proxy
from shoal.cluster.shared.refs import Ref
from shoal.values import _SIMPLE, _plain, _read, _spelled

__all__ = ["Access", "RemoteData", "branch"]

# An index, a slice or the name of a field.
Step = int | slice | str


def branch(data: Any, path: tuple[Step, ...]) -> Any:
    """What lies there in a ctypes object."""
    for step in path:
        data = getattr(data, step) if isinstance(step, str) else data[step]
    return data


class Access:
    """What is done to a ctypes object for others."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def read(self, path: tuple[Step, ...]) -> Any:
        """What lies at the end of a path."""
        return branch(self._data, path)

    def write(self, path: tuple[Step, ...], value: Any) -> None:
        """Something else is to lie there."""
        *way, last = path
        data = branch(self._data, tuple(way))
        if isinstance(last, str):
            setattr(data, last, value)
        else:
            data[last] = value


class RemoteData(Proxy):
    """A `RawValue` or `RawArray`, or a branch of it."""

    __slots__ = ("_path", "_type")

    stands_for: ClassVar[Any] = None
    operations = frozenset({"read", "write"})
    adapter = Access

    def __init__(self, ref: Ref, way: Any) -> None:
        for name, value in (("_ref", ref), ("_way", way), ("_type", _read(ref[3][0])), ("_path", ref[3][1])):
            object.__setattr__(self, name, value)

    @staticmethod
    def facts_of(thing: Any, ref: Callable[[Any], Ref]) -> tuple[Any, ...]:
        return _spelled(_plain(thing)), ()

    @staticmethod
    def part(thing: Any, facts: tuple[Any, ...]) -> Any:
        return branch(thing, facts[1])

    @property  # type: ignore[misc]  # as there
    def __class__(self) -> Any:
        return self._type

    @property
    def _shoal_type(self) -> Any:
        return self._type

    def _at(self, step: Step, kind: Any) -> Any:
        path = *self._path, step
        if issubclass(kind, _SIMPLE):
            return self._way.ask(self._ref, "read", (path,))
        name, home, number, _ = self._ref
        return type(self)((name, home, number, (_spelled(kind), path)), self._way)

    def _put(self, step: Step, value: Any) -> None:
        self._way.ask(self._ref, "write", ((*self._path, step), value))

    # ---- arrays ------------------------------------------------------------------------------------------------------

    def _element(self) -> Any:
        if not issubclass(self._type, ctypes.Array):
            raise TypeError(f"{self._type.__name__!r} object is not subscriptable")
        return self._type._type_

    def __len__(self) -> int:
        self._element()
        return int(self._type._length_)

    def __getitem__(self, index: int | slice) -> Any:
        element = self._element()
        if isinstance(index, slice) and not issubclass(element, _SIMPLE):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not isinstance(index, slice) and not -len(self) <= index < len(self):
            raise IndexError("invalid index")
        return self._at(index, element)

    def __setitem__(self, index: int | slice, value: Any) -> None:
        self._element()
        self._put(index, value)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    # ---- structures, and what simple types have ----------------------------------------------------------------------

    def _field(self, name: str) -> Any:
        for base in self._type.__mro__:
            for field, kind, *_ in base.__dict__.get("_fields_", ()):
                if field == name:
                    return kind
        if name in ("value", "raw") and hasattr(self._type, name):
            return ctypes.c_int  # at the end, whatever it is
        raise AttributeError(f"{self._type.__name__!r} object has no attribute {name!r}")

    def __getattr__(self, name: str) -> Any:
        if name in ("_type_", "_length_", "_fields_"):
            return getattr(self._type, name)
        return self._at(name, self._field(name))

    def __setattr__(self, name: str, value: Any) -> None:
        self._field(name)
        self._put(name, value)

    def __repr__(self) -> str:
        if issubclass(self._type, _SIMPLE):
            return f"{self._type.__name__}({self.value!r})"
        return f"<{self._type.__name__} object of another machine>"
