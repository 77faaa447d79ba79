"""Ctrl-C at every place where the interpreter looks for signals."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def interrupted_everywhere(prepare: Callable[[], Any], do: Callable[[Any], object]) -> Iterator[Any]:
    """Do something to what was prepared, again and again, with Ctrl-C a place further on each time; what was prepared.

    The places are where a function begins and where one of C has returned. What is `do` itself is none.
    """
    for place in range(100_000):
        prepared = prepare()
        if not _interrupted(lambda: do(prepared), place):  # noqa: B023  # it is called at once
            assert place > 1, "nothing was interrupted"
            return
        yield prepared


def _interrupted(do: Callable[[], object], place: int) -> bool:
    """Whether there is such a place."""
    passed = -2  # this `do`, and the one within

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal passed
        # `setprofile` itself returns here, too; and a generator that could not begin would say so when it goes.
        begins = event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR
        if begins or (event == "c_return" and argument is not sys.setprofile):
            passed += 1
            if passed > place:
                raise KeyboardInterrupt

    # What runs at a collection is no place of `do`.
    gc.disable()
    try:
        sys.setprofile(look)
        try:
            do()
        finally:
            sys.setprofile(None)
    except KeyboardInterrupt:
        return True
    finally:
        gc.enable()
    return False
