"""The modules of the standard library, also where shoal's have taken their names (`replace`)."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["attribute", "original"]


def original(name: str) -> Any:
    """The module `name` of the standard library, such as `"multiprocessing.pool"`."""
    module = import_module(name)
    return vars(module).get("__original__", module)


def attribute(name: str) -> Any:
    """What `multiprocessing` has by that name; a module of it is imported.

    Raises:
        AttributeError: it has nothing of that name.
    """
    package = original("multiprocessing")
    try:
        return getattr(package, name)
    except AttributeError:
        try:
            found: ModuleType = original(f"multiprocessing.{name}")
        except ModuleNotFoundError:
            raise AttributeError(f"module 'multiprocessing' has no attribute {name!r}") from None
        return found
