"""What the reference can't see in the source by itself: docstrings that stand in Rust, constructors named `__new__`.

The stub `_engine.pyi`, which declares the engine's classes, has no docstrings: they are those of the module as built.
"""

import re
from collections.abc import Iterator
from typing import Any

import griffe

from shoal import _engine


class Engine(griffe.Extension):
    """Completes the package `shoal` when it has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called with each package that is documented, or that one of them refers to."""
        if pkg.name != "shoal":
            return
        _describe(pkg["_engine"], _engine)
        for thing in list(_everything(pkg)):
            if thing.docstring:
                # The section has its name in the plural where examples are shown as code.
                thing.docstring.value = re.sub(r"^Example:$", "Examples:", thing.docstring.value, flags=re.MULTILINE)
            if isinstance(thing, griffe.Class):
                _show_constructor(thing)


def _describe(declared: griffe.Object, built: object) -> None:
    for name, member in declared.members.items():
        found = getattr(built, name, None)
        if isinstance(member, griffe.Alias) or found is None:
            continue
        # A constant would give the docstring of its type.
        if (callable(found) or hasattr(found, "__objclass__")) and found.__doc__ and not name.startswith("__"):
            member.docstring = griffe.Docstring(found.__doc__, parent=member, parser="google")
        if isinstance(member, griffe.Class):
            _describe(member, found)


def _everything(of: griffe.Object) -> Iterator[griffe.Object]:
    for member in of.members.values():
        if not isinstance(member, griffe.Alias):
            yield member
            yield from _everything(member)


def _show_constructor(cls: griffe.Class) -> None:
    """Gives a class that is made by `__new__` an `__init__` of that signature, which is the one that is shown."""
    made = cls.all_members.get("__new__")
    if made is None or "__init__" in cls.all_members:
        return
    # A handle is how an object arrives in another process: nobody else passes one.
    shown = [p for p in made.parameters if not p.name.startswith("_") and p.name != "handle"]
    cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*shown)))
