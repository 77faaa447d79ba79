"""`parallel`: loops over index ranges, cut into pieces that workers run at the same time.

>>> @shoal.parallel
... def smooth(start, stop, a, out):
...     for i in range(start, stop):
...         out[i] = a[max(i - 1, 0) : i + 2].mean()
>>> a = numpy.arange(1000.0)
>>> out = shoal.empty(len(a))
>>> smooth(len(a), a, out)             # the whole loop; returns when all of it is done
>>> out[:3]
SharedArray([0.5, 1. , 2. ])
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable
from typing import Any, overload

import numpy

from shoal import _checks, _engine
from shoal.arrays import array
from shoal.default import warm_pool
from shoal.maps import finish
from shoal.serialize.exceptions import add_note

__all__ = ["ParallelLoop", "parallel"]

# Without `chunks`, a piece is this part of what is left for each worker: large ones first, small ones to end together.
_PART = 4
# And never less than this part of the whole for each worker.
_LEAST_PART = 32


class ParallelLoop:
    """A kernel that is called with a length or a range, and runs on every CPU. Made by `parallel`.

    `kernel` is the function itself, as it was written.
    """

    def __init__(self, kernel: Callable[..., object], workers: int | None, chunks: int | None) -> None:
        self.__qualname__ = repr(kernel)  # for callables that have no name
        functools.update_wrapper(self, kernel)
        self.kernel, self._workers, self._chunks = kernel, workers, chunks

    def __call__(self, indices: int | range, /, *args: Any, **kwargs: Any) -> None:
        """Call the kernel on ranges that together are `indices`, each of which is there once. See `parallel`."""
        whole = _range(indices)
        if not whole:
            return
        # Its kernels write into the memory of this machine.
        pool = warm_pool(self._workers, here=True)
        pieces = _pieces(whole, self._chunks, pool._base.size)
        read_only: dict[int, _ReadOnly] = {}
        sent = _Piece(
            self.kernel if _is_found(self.kernel) else self,
            tuple(_sendable(arg, read_only) for arg in args),
            {name: _sendable(arg, read_only) for name, arg in kwargs.items()},
            whole.step,
        )
        job = _engine.Job(pool._base, sent, pieces, None, False)
        finish(job)
        job.result()

    def __get__(self, instance: object, owner: type | None = None) -> ParallelLoop:
        if instance is None:
            return self
        return ParallelLoop(functools.partial(_call_method, self, instance), self._workers, self._chunks)

    def __reduce__(self) -> Any:
        # By name, as functions are; by value where another process would not find it.
        if _is_found(self):
            return self.__qualname__
        return ParallelLoop, (self.kernel, self._workers, self._chunks)

    def __repr__(self) -> str:
        return f"<shoal.parallel {self.__qualname__}>"


@overload
def parallel(
    kernel: None = None, /, *, workers: int | None = None, chunks: int | None = None
) -> Callable[[Callable[..., object]], ParallelLoop]: ...


@overload
def parallel(
    kernel: Callable[..., object], /, *, workers: int | None = None, chunks: int | None = None
) -> ParallelLoop: ...


def parallel(
    kernel: Callable[..., object] | None = None, /, *, workers: int | None = None, chunks: int | None = None
) -> ParallelLoop | Callable[[Callable[..., object]], ParallelLoop]:
    """Make a loop over indices run on every CPU: a decorator for `kernel(start, stop, …)`.

    The kernel does the part of the work that belongs to the indices `range(start, stop)`. It is then called with a
    length or a range in the place of the two, and that is cut into pieces, for each of which a worker calls it. What it
    is to change must be shared: `shoal.array` and the like, `shoal.open_array(…, "r+")`, `shoal.Counter`.

    Args:
        kernel: the function; where there is none, as in `@shoal.parallel(workers=2)`, the result is the decorator.
        workers: how many processes, 1 to 500; they are started once and stay warm. Default: those of
            `shoal.default_pool()`, one for each CPU.
        chunks: how many indices a call. Default: many at first and fewer towards the end, so that all workers end
            together.

    Returns:
        What is called as `kernel(n, …)` or `kernel(range(…), …)`. It returns None when all is done, and raises the
        first exception, in the order of the indices, that a call raised. What the kernel returns is not kept.

    With a range that has a step, `start` and `stop` are those of a part of it, and the kernel is to go on from `start`
    with the same step. Ordinary arrays are copied once a call, and the kernel can read them but not write: a change
    would be lost, so it raises a ValueError instead. Arrays inside of other objects are private to each worker.

    Raises:
        TypeError: `kernel` can't be called; `workers` or `chunks` is no integer; the loop is called with neither an
            integer nor a range.
        ValueError: `workers` is not 1 to 500, `chunks` is less than 1, or the loop is called with a negative length.

    Example:
        >>> @shoal.parallel(workers=2, chunks=100)
        ... def square(start, stop, out):
        ...     out[start:stop] = numpy.arange(start, stop) ** 2
        >>> out = shoal.empty(1000, dtype=int)
        >>> square(1000, out)
        >>> int(out[999])
        998001
    """
    if workers is not None:
        workers = _checks.processes(workers, "workers")
    if chunks is not None:
        chunks = _checks.chunksize(chunks, "chunks")
    if kernel is None:
        return lambda kernel: parallel(kernel, workers=workers, chunks=chunks)
    if not callable(kernel):
        raise TypeError(f"kernel must be callable, not {type(kernel).__name__}")
    return ParallelLoop(kernel, workers, chunks)


class _Piece:
    """What a worker does with a piece of the range. Unpickled once a call in each worker."""

    def __init__(
        self, kernel: Callable[..., object] | ParallelLoop, args: tuple[Any, ...], kwargs: dict[str, Any], step: int
    ) -> None:
        self.kernel, self.args, self.kwargs, self.step = kernel, args, kwargs, step

    def __call__(self, piece: tuple[int, int]) -> None:
        kernel = self.kernel.kernel if isinstance(self.kernel, ParallelLoop) else self.kernel
        try:
            kernel(*piece, *map(_received, self.args), **{name: _received(arg) for name, arg in self.kwargs.items()})
        except BaseException as error:
            add_note(error, f"raised for indices {piece[0]}:{piece[1]}" + (f":{self.step}" if self.step != 1 else ""))
            if isinstance(error, (ValueError, TypeError)) and "read" in str(error) and "only" in str(error):
                add_note(
                    error,
                    "a parallel loop can't change ordinary arrays, only shared ones: make them with shoal.array, "
                    "shoal.zeros, shoal.empty or shoal.open_array",
                )
            raise


class _ReadOnly:
    """An ordinary array on its way: one copy in shared memory for all pieces."""

    def __init__(self, content: numpy.ndarray[Any, numpy.dtype[Any]]) -> None:
        self.content = content


def _sendable(arg: Any, sent: dict[int, _ReadOnly]) -> Any:
    # Other subclasses of ndarray mean something that a view of their memory does not have.
    if type(arg) not in (numpy.ndarray, numpy.memmap):
        return arg
    if id(arg) not in sent:
        sent[id(arg)] = _ReadOnly(arg if arg.dtype.hasobject or arg.itemsize == 0 else array(arg))
    return sent[id(arg)]


def _received(arg: Any) -> Any:
    if not isinstance(arg, _ReadOnly):
        return arg
    view = arg.content.view(numpy.ndarray)
    view.flags.writeable = False
    return view


def _call_method(loop: ParallelLoop, instance: object, start: int, stop: int, /, *args: Any, **kwargs: Any) -> None:
    loop.kernel(instance, start, stop, *args, **kwargs)


def _is_found(thing: Any) -> bool:
    """Whether another process finds this under its name."""
    module = getattr(thing, "__module__", None)
    if module in (None, "__main__", "__mp_main__"):
        return False
    found: Any = sys.modules.get(module)
    try:
        return operator.attrgetter(thing.__qualname__)(found) is thing
    except AttributeError:
        return False


def _range(indices: object) -> range:
    if isinstance(indices, range):
        return indices
    if isinstance(indices, bool) or not hasattr(indices, "__index__"):
        raise TypeError(f"a parallel loop runs over an integer or a range, not {type(indices).__name__}")
    length = operator.index(indices)
    if length < 0:
        raise ValueError(f"a parallel loop can't run over a negative number of indices, {length}")
    return range(length)


def _pieces(whole: range, chunks: int | None, workers: int) -> list[tuple[int, int]]:
    """The range in pieces, in order, as (start, stop)."""
    pieces = []
    least = max(1, len(whole) // (_LEAST_PART * workers))
    begin = 0
    while begin < len(whole):
        size = chunks or max(least, (len(whole) - begin) // (_PART * workers))
        piece = whole[begin : begin + size]
        pieces.append((piece.start, piece.stop))
        begin += size
    return pieces
