"""Bars of one kind, as tqdm has a module for each: `std.py`, `notebook.py` and `rich.py` take theirs from here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from shoal.progress.bar import Bar

__all__ = ["of_kind"]


def of_kind(kind: str) -> tuple[type[Bar[Any]], Callable[..., Bar[Any]]]:
    """The class of bars with the looks of that module of tqdm, and its shortcut for ranges."""
    module = {"__module__": f"shoal.progress.{kind}"}
    looks = {"__doc__": f"A bar as `shoal.tqdm`, with the looks of `tqdm.{kind}`.", "kind": kind}
    tqdm: type[Bar[Any]] = type("tqdm", (Bar, import_module(f"tqdm.{kind}").tqdm), module | looks)

    def trange(*args: int, **kwargs: Any) -> Bar[Any]:
        """A shortcut for `tqdm(range(*args), **kwargs)`."""
        return tqdm(range(*args), **kwargs)

    # As if it were written in that module, where pickle looks for it.
    trange.__module__, trange.__qualname__ = module["__module__"], "trange"
    return tqdm, trange
