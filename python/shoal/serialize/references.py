"""Weak references, and the containers that hold them: they arrive as such, to what has arrived.

What a reference refers to travels with it, once, as anything that is met twice. Elsewhere as here it takes somebody to
hold it: if nothing else in what was sent does, the reference is dead as soon as all has arrived. Callbacks stay behind:
they belong to a life that ends here.
"""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["reduce_method", "reduce_proxy", "reduce_reference", "reduce_weak_keys", "reduce_weak_values"]


class _Gone:
    """What a dead reference has referred to."""


def reduce_reference(reference: Any) -> Any:
    """`weakref.ref`."""
    if type(reference) is not weakref.ReferenceType:
        raise TypeError(f"cannot pickle {type(reference).__name__!r} object: it is more than a weak reference")
    target = reference()
    return (_dead_reference, ()) if target is None else (weakref.ref, (target,))


def reduce_proxy(proxy: Any) -> Any:
    """`weakref.proxy`."""
    try:
        target = proxy.__repr__.__self__  # the proxy passes everything on, so this is a method of the other's
    except ReferenceError:
        return _dead_proxy, ()
    return weakref.proxy, (target,)


def reduce_method(method: Any) -> Any:
    """`weakref.WeakMethod`."""
    target = method()
    return (_dead_reference, ()) if target is None else (type(method), (target,))


def reduce_weak_values(dictionary: Any) -> Any:
    """`weakref.WeakValueDictionary`, with the items that are alive."""
    return type(dictionary), (), None, None, iter(list(dictionary.items()))


def reduce_weak_keys(dictionary: Any) -> Any:
    """`weakref.WeakKeyDictionary`, with the items that are alive."""
    return type(dictionary), (), None, None, iter(list(dictionary.items()))


def _dead_reference() -> Any:
    return weakref.ref(_Gone())


def _dead_proxy() -> Any:
    return weakref.proxy(_Gone())
