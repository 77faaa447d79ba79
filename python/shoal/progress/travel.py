"""How bars are pickled: to the handles of what is shared, and the address of the screen that draws them.

An ordinary bar of tqdm that travels becomes such a bar on the spot, with its class changed to one that has `Bar` before
it: so the original moves when somebody elsewhere updates what has arrived there.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from importlib import import_module
from typing import Any, cast

from shoal._engine import Block, RawTally
from shoal.locks import Lock
from shoal.progress.bar import Bar, Number, tqdm
from shoal.progress.door import Address, existing_door, take_home
from shoal.progress.shared import Shared

__all__ = ["adopt", "adopting", "arrive", "bar_class", "known", "reduce", "remember", "share"]

_KINDS = frozenset({"bar", "std", "notebook", "rich"})

# Modules of tqdm whose bars are windows.
_BOUND_TO_A_THREAD = frozenset({"tqdm.gui", "tqdm.tk"})

# The bars that this process shares with others: one that comes again, or comes home, is itself.
_known: weakref.WeakValueDictionary[bytes, Bar[Any]] = weakref.WeakValueDictionary()

# Held while a bar is made fit to travel: threads that pickle it at once must not make it so twice.
_turn = threading.Lock()


def reduce(bar: Bar[Any]) -> tuple[object, ...]:
    """What a bar is pickled to."""
    return arrive, (*share(bar).parts, bar.address, bar.fields())


def share(bar: Bar[Any]) -> Shared:
    """What other processes have of a bar; made when the first of them gets it."""
    if bar.shared is None:
        with _turn:
            if bar.shared is None:
                bar.shared = Shared.make(bar._tally, bar.fields())
                remember(bar)
    return bar.shared


def known(name: bytes) -> Bar[Any] | None:
    """The bar of that name, if this process has it."""
    return _known.get(name)


def remember(bar: Bar[Any]) -> None:
    """This process has that bar."""
    assert bar.shared is not None
    _known[bar.shared.name] = bar


def bar_class(kind: str) -> type[Bar[Any]]:
    """The class of bars of a kind: "bar" for those of `shoal.tqdm`, else as a module of this package is called."""
    if kind not in _KINDS:
        raise ValueError(f"there are no bars of kind {kind!r}")
    found: type[Bar[Any]] = import_module(f"shoal.progress.{kind}").tqdm
    return found


def adopt(bar: Any) -> Bar[Any]:
    """Make an ordinary bar of tqdm one that travels. It stays the object that it is.

    Raises:
        TypeError: it is of a kind that the thread of the screen can't draw.
    """
    module = next((cls.__module__ for cls in type(bar).__mro__ if cls.__module__ in _BOUND_TO_A_THREAD), None)
    if module is not None:
        raise TypeError(f"a bar of {module} can't travel: only the thread that made it may draw it")
    with _turn:
        if not isinstance(bar, Bar):
            tally = RawTally()
            tally.n = bar.n
            bar._tally = tally
            bar.__class__ = _adopting(type(bar))
            bar._begin()
    return cast(Bar[Any], bar)


def arrive(name: bytes, tally: RawTally, lock: Lock, page: Block, address: Address, fields: dict[str, Any]) -> Bar[Any]:
    """The bar of that name, in this process; what a bar is pickled to."""
    bar = _known.get(name)
    if bar is None:
        here = existing_door()
        if here is None or here.address.name != address.name:
            take_home(address)
        bar = tqdm.arrived(Shared(name, tally, lock, page), address, fields)
        bar = _known.setdefault(name, bar)
    return bar


class _Adopted(Bar[Any]):
    """What makes an ordinary bar one that travels."""

    def update(self, n: Number = 1) -> None:  # type: ignore[override]  # as there
        """As `Bar.update`, for a loop over the bar that has begun before: it counts from what it believes was drawn."""
        super().update(n)
        self.last_print_n, self.last_print_t = self.n, time.time()


# What `Bar` does in its own way.
_WAYS = frozenset(
    name for name, value in vars(Bar).items() if callable(value) or isinstance(value, (property, classmethod))
) - {"__init__"}

_classes: dict[type, type[_Adopted]] = {}


def adopting(ordinary: type) -> type[_Adopted] | None:
    """A class like that one, of bars that travel; None if it is one, or would lose something of its own by it."""
    if issubclass(ordinary, Bar):
        return None
    own = (cls for cls in ordinary.__mro__ if not cls.__module__.startswith("tqdm."))
    if any(name in vars(cls) for cls in own if cls is not object for name in _WAYS):
        return None
    return _adopting(ordinary)


def _adopting(ordinary: type) -> type[_Adopted]:
    """A class like that one, of bars that travel."""
    if ordinary not in _classes:
        names = {"__module__": ordinary.__module__, "__qualname__": ordinary.__qualname__, "__doc__": ordinary.__doc__}
        _classes[ordinary] = type(ordinary.__name__, (_Adopted, ordinary), names)
    return _classes[ordinary]


def _after_fork() -> None:
    """In a child: another thread may have had the turn."""
    global _turn
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
