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
    ways = "__reduce__", "__reduce_ex__"
    if all(getattr(cls, way) is getattr(object, way) for way in ways):
        yield cls, reduce_bar
    below: type
    for below in type.__subclasses__(cls):
        yield from classes_of_bars(below)
