"""Ordinary bars of tqdm that are made in a worker: its client draws them, as it draws those of shoal.

Several processes that draw on one terminal draw over each other, and over the client's bars. So in a worker tqdm's
class is told, as soon as somebody imports it, to make its bars ones of shoal.
"""

from __future__ import annotations

import sys

from shoal._imports import when_imported
from shoal.progress.door import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["take_over"]

_MODULE = "tqdm.std"


def take_over(address: Address) -> None:
    """From now on the ordinary bars of this worker are drawn by the screen at `address`, if it shows any."""
    if _MODULE in sys.modules:
        _change(sys.modules[_MODULE].tqdm, address)
    else:
        when_imported(_MODULE, lambda: _change(sys.modules[_MODULE].tqdm, address))


def _change(cls: Any, address: Address) -> None:
    """Have `tqdm.std.tqdm` make bars of shoal."""
    import functools

    original = cls.__init__

    @functools.wraps(original)
    def init(bar: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("disable") or kwargs.get("gui") or not _is_for_the_screen(kwargs.get("file"), address):
            original(bar, *args, **kwargs)
            return
        from shoal.progress.travel import adopting

        made = adopting(type(bar))
        if made is None:
            original(bar, *args, **kwargs)
        else:
            bar.__class__ = made
            made.__init__(bar, *args, **kwargs)

    cls.__init__ = init


def _is_for_the_screen(file: object, address: Address) -> bool:
    """Whether what goes to `file` comes to stand where the screen is, and somebody looks at it there."""
    stream = sys.stderr if file is None else file
    return stream in (sys.stdout, sys.stderr) and (address.seen or address.is_lit)
