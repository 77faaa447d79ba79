"""`why`: what would stop an object on its way to another process, and what it would cost."""

from __future__ import annotations

import math

from shoal.serialize.cost import Share, shares, size
from shoal.serialize.why import obstacles

__all__ = ["Explanation", "Share", "why"]

_LINES = 10


class Explanation:
    """What `why` found out. Printed, it says it in words.

    Attributes:
        obstacles: for each part that can't travel the path to it and the reason; empty if the object can travel.
        nbytes: how many bytes travel with it: its pickle, and arrays and other buffers beside the pickle. 0 if it can't
            travel.
        shares: where they are, largest first: each with `path`, `kind` (the name of the type) and `nbytes`. What makes
            up less than a hundredth is not listed.
    """

    def __init__(self, kind: str, obstacles: tuple[str, ...], nbytes: int, shares: tuple[Share, ...]) -> None:
        self._kind = kind
        self.obstacles = obstacles
        self.nbytes = nbytes
        self.shares = shares

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        if self.obstacles:
            return [f"{self._kind} can't travel:", *(f"    {obstacle}" for obstacle in self.obstacles)]
        lines = [f"{self._kind} travels with {_in_words(self.nbytes)}"]
        shown = self.shares[:_LINES]
        if [share.path for share in shown] in ([], [""]):
            return lines
        width = max(len(share.path or "self") for share in shown)
        lines[0] += ":"
        lines += [f"    {share.path or 'self':{width}}  {_in_words(share.nbytes):>9}  {share.kind}" for share in shown]
        if len(self.shares) > _LINES:
            lines.append(f"    … and {len(self.shares) - _LINES} smaller ones")
        return lines


def why(obj: object) -> Explanation:
    """Why `obj` can't travel to another process; or, if it can, what it costs.

    Args:
        obj: anything that may become an argument, a function or a result of a task.

    Returns:
        An `Explanation`: `obstacles`, `nbytes`, `shares`; or print it. Shared arrays and other things that travel by
        reference count with the bytes of their handle. Large objects are looked into for two seconds or so.

    Example:
        >>> shoal.why({"lines": (line for line in "ab"), "size": 2})
        dict can't travel:
            ['lines']: cannot pickle 'generator' object
        >>> shoal.why({"weights": numpy.zeros((500, 1000)), "bias": numpy.zeros(100_000), "name": "small"})
        dict travels with 4.8 MB:
            ['weights']     4.0 MB  ndarray
            ['bias']      800.1 kB  ndarray
    """
    kind = type(obj).__name__
    stopped = obstacles(obj)
    if stopped:
        return Explanation(kind, tuple(stopped), 0, ())
    nbytes = size(obj)
    return Explanation(kind, (), nbytes, tuple(shares(obj, nbytes)))


def _in_words(nbytes: int) -> str:
    if nbytes < 1000:
        return f"{nbytes} bytes"
    power = min(int(math.log10(nbytes)) // 3, 4)
    return f"{nbytes / 1000**power:.1f} {' kMGT'[power]}B"
