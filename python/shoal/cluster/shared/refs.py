"""What a shared thing is called on another machine: its kind, home and number, and what never changes of it.

A process is *here* in one of two roles: a client (or the process of a node) has things that others know, and is a home
itself; a worker of a node knows the way to its node's process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["Here", "Ref", "arrive", "collecting", "given", "here", "is_told", "reduce", "take_role"]

# (kind, home, number, what never changes of it)
Ref = tuple[str, bytes, int, tuple[Any, ...]]


class Here(Protocol):
    """What this process is among the others."""

    def ref(self, thing: Any) -> Ref:
        """What a thing of this process is called elsewhere."""

    def at(self, kind: str, home: bytes, number: int, facts: tuple[Any, ...]) -> Any:
        """The thing of that name: itself where it is at home, else what stands for it."""


_role: Here | None = None


def take_role(role: Here) -> None:
    """This process is that from now on."""
    global _role
    _role = role


def here() -> Here:
    """What this process is; a home, if nobody has said otherwise."""
    global _role
    if _role is None:
        from shoal.cluster.shared.homes import Home

        _role = Home()
    return _role


def is_told() -> bool:
    """Whether this process has a role already."""
    return _role is not None


def _after_fork() -> None:
    """The child of a worker has a way of its own; the child of a client is another home, which nobody knows."""
    global _role
    if _role is not None:
        _role = getattr(_role, "after_fork", lambda: None)()


os.register_at_fork(after_in_child=_after_fork)


class _Context(threading.local):
    # While something is packed whose things are to be named beside it: their names.
    refs: list[Ref] | None = None
    # While it is opened: what gives them.
    given: Callable[[int], Any] | None = None


_context = _Context()


@contextmanager
def collecting() -> Iterator[list[Ref]]:
    """What is packed meanwhile has the names of its things in this list."""
    refs: list[Ref] = []
    before, _context.refs = _context.refs, refs
    try:
        yield refs
    finally:
        _context.refs = before


@contextmanager
def given(things: Callable[[int], Any]) -> Iterator[None]:
    """What is unpacked meanwhile, and was packed with `collecting`, has these things."""
    before = _context.given
    _context.given = things
    try:
        yield
    finally:
        _context.given = before


def reduce(thing: Any) -> Any:
    """What a shared thing is pickled to for another machine."""
    ref = here().ref(thing)
    if _context.refs is None:
        return arrive, ref
    _context.refs.append(ref)
    return _given, (len(_context.refs) - 1,)


def arrive(kind: str, home: bytes, number: int, facts: tuple[Any, ...]) -> Any:
    """The thing of that name."""
    return here().at(kind, home, number, facts)


def _given(index: int) -> Any:
    if _context.given is None:
        raise RuntimeError("what was packed with the names of its things beside it is opened without them")
    return _context.given(index)
