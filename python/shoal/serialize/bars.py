"""How the bars of tqdm travel: each becomes one of `shoal.tqdm` when it does, and the original moves.

Pickle refuses a bar for the file that it draws on; or sends a disabled one as a heap of attributes, which would count
for itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["classes_of_bars", "reduce_bar"]


def reduce_bar(bar: Any) -> Any:
    """An ordinary bar, of any class of tqdm."""
    from shoal.progress.travel import adopt

    return adopt(bar).__reduce__()


def classes_of_bars(cls: type) -> Iterator[tuple[type, Callable[[Any], Any]]]:
    """`cls` and all classes below it, each with `reduce_bar`; but for those that have a way of their own."""
    if cls.__reduce__ is object.__reduce__ and cls.__reduce_ex__ is object.__reduce_ex__:
        yield cls, reduce_bar
    for below in cls.__subclasses__():
        yield from classes_of_bars(below)
