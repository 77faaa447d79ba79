"""What travels by name, and which globals a piece of code refers to.

An object travels by name if another process gets the very same thing by importing a module and looking up an
attribute: nothing of it is sent but the two names.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from collections.abc import Iterator
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)

TYPE_CHECKING = False  # type checkers know the name; importing it from typing takes longer than this module
if TYPE_CHECKING:
    from typing import Any

# The main module is another one in every process. multiprocessing calls it by the second name in its children.
MAINS = ("__main__", "__mp_main__")


def by_name(obj: object) -> bool:
    """Whether pickle sends `obj` as a name that any other process can look up.

    So do the functions, classes and built-ins of every module but `__main__`, modules themselves, methods of such
    classes (`str.upper`), and objects that reduce to their name (numpy's ufuncs).

    Example:
        by_name(len)  # True
        by_name(lambda: None)  # False
    """
    try:
        return _is_by_name(obj)
    except Exception:  # attributes of the user's objects may do anything; one that can't be asked has no name
        return False


def _is_by_name(obj: Any) -> bool:
    kind = type(obj)  # not `isinstance`: a proxy would answer for what it stands for
    if issubclass(kind, ModuleType):
        return obj.__name__ not in MAINS and sys.modules.get(obj.__name__) is obj
    if kind is MethodDescriptorType or kind is WrapperDescriptorType:
        return by_name(obj.__objclass__)
    if kind is BuiltinFunctionType and isinstance(obj.__self__, type):
        return by_name(obj.__self__)
    if not _found_where_it_says(obj):
        return False
    if kind is FunctionType or kind is BuiltinFunctionType or issubclass(kind, type):
        return True
    reducer = copyreg.dispatch_table.get(kind)
    return isinstance(reducer(obj) if reducer else obj.__reduce_ex__(5), str)


def _found_where_it_says(obj: object) -> bool:
    """Whether the module and the name that `obj` gives lead to `obj`."""
    module_name = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not isinstance(module_name, str) or not isinstance(name, str) or module_name in MAINS:
        return False
    found: object = sys.modules.get(module_name)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


@functools.lru_cache(maxsize=1024)
def global_chains(code: CodeType) -> frozenset[tuple[str, ...]]:
    """The globals that `code` and the functions inside it refer to, each with the attributes taken from it at once.

    Example:
        global_chains((lambda: os.path.join(a)).__code__)  # {("os", "path", "join"), ("a",)}
    """
    return frozenset(_chains(code))


def _chains(code: CodeType) -> Iterator[tuple[str, ...]]:
    import dis

    chain: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if instruction.opname == "EXTENDED_ARG":  # a prefix of the next instruction
            continue
        if chain and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain += (instruction.argval,)
            continue
        if chain:
            yield chain
        is_global = instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
        chain = (instruction.argval,) if is_global else ()
    if chain:
        yield chain
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _chains(constant)


def global_names(code: CodeType) -> frozenset[str]:
    """The names of the globals, built-ins among them, that `code` and the functions inside it refer to."""
    return frozenset(chain[0] for chain in global_chains(code))
