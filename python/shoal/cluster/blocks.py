"""`map_array` on a cluster: blocks travel with their tasks, results are written into the output here, as they arrive.

    a ──cut──▶ blocks ══▶ func(block), on a node ══▶ out[block] = result

On one machine workers write into the output themselves. All else is as there: see `shoal.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy

from shoal import blocks
from shoal.arrays import SharedArray
from shoal.cluster.functions import name_of

__all__ = ["FarRun"]

Array = numpy.ndarray[Any, numpy.dtype[Any]]
Span = tuple[int, int]


class FarRun(blocks.Run):
    """One call. As `Run`."""

    @staticmethod
    def output(out: Array) -> Array:
        """Where results are written: `out` itself."""
        return out

    @staticmethod
    def input(a: Array, place: Array | None) -> Array:
        """What is cut: the array itself, unless results would be written into what is still to be sent."""
        return a.copy() if blocks.is_disturbed(a, place) else a

    def into(self, place: Array) -> None:
        """All results written into an output that is there already."""
        for span, result in self._results():
            blocks.put(result, place, self.axis, span)

    def into_new(self) -> SharedArray | None:
        """All results in an array that is made for them; None if the function returns None."""
        place: SharedArray | None = None
        results: list[Any] = []
        for span, result in self._results():
            if result is None:
                result = blocks.NOTHING
            elif not results and len(self.spans) > 1:
                place = self.output_like(result, span)
            results.append(blocks.settle(result, place, self.axis, span))
        return self.together(results, place)

    def _results(self) -> Iterator[tuple[Span, Any]]:
        """The result of each block, in order. Blocks are sent a bounded way ahead."""
        whole = {number: arg for number, arg in enumerate(self.args) if not blocks.is_cut(arg)}
        cut = [arg for arg in self.args if blocks.is_cut(arg)]
        items = ((span, [blocks.part(arg, self.axis, span) for arg in cut]) for span in self.spans)
        # One block a task, and its place among the random numbers with it.
        pool: Any = self.pool
        stream = pool._stream(_OnBlocks(self.func, whole, self.axis), items, None, None, True, {})
        try:
            yield from zip(self.spans, stream, strict=True)
        finally:
            stream.close()


class _OnBlocks:
    """What a worker does with blocks. What is passed whole travels with it, once a node."""

    def __init__(self, func: Callable[..., Any], whole: dict[int, Any], axis: int) -> None:
        self.func, self.whole, self.axis = func, whole, axis
        self.__qualname__ = name_of(func)

    def __call__(self, item: tuple[Span, list[Array]]) -> Any:
        """The result for the blocks of a span, None or an array."""
        span, args = item
        for number in sorted(self.whole):
            args.insert(number, self.whole[number])
        return blocks.call(self.func, args, self.axis, span)
