"""Ordinary bars of tqdm that are made in a worker: its client draws them, as it draws those of shoal.

Several processes that draw on one terminal draw over each other, and over the client's bars. So in a worker tqdm's
class is told, as soon as somebody imports it, to make its bars ones of shoal.
"""

from __future__ import annotations

import sys

from shoal.progress.door import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["TqdmFinder", "take_over"]

_MODULE = "tqdm.std"


def take_over(address: Address) -> None:
    """From now on the ordinary bars of this worker are drawn by the screen at `address`, if it shows any."""
    if _MODULE in sys.modules:
        _change(sys.modules[_MODULE].tqdm, address)
    else:
        sys.meta_path.insert(0, TqdmFinder(address))


class TqdmFinder:
    """Waits for the import of tqdm."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As import finders do: nothing, but for the one module, which is changed when it has been loaded."""
        if name != _MODULE:
            return None
        from importlib.machinery import PathFinder

        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load: Callable[[ModuleType], None] = spec.loader.exec_module

            def load_and_change(module: ModuleType) -> None:
                load(module)
                _change(module.tqdm, self._address)

            spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


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
