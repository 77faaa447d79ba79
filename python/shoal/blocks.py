"""`Pool.map_array`: an array is cut into blocks, a function is applied to each, and the results are one array again.

    a ──cut──▶ blocks ──▶ workers: out[block] = func(block) ──▶ out

Nobody knows the shape of the results before there is one. So the first blocks, one for each worker, come back as arrays
of their own; the first that arrives tells what the output looks like, and all others are written straight into it.

Whatever the results are like, the answer is `numpy.concatenate` of them, in the order of the blocks. A result that has
no place in the output, as it is longer, shorter or of another type than was to be expected, comes back by itself, and
all is concatenated at the end.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.lib.array_utils import normalize_axis_index

from shoal.arrays import SharedArray, array, empty
from shoal.maps import Maps, finish
from shoal.results import closed
from shoal.serialize.exceptions import add_note

__all__ = ["NOTHING", "Run", "by_reference", "call", "is_cut", "is_disturbed", "map_blocks", "part", "put", "settle"]

Array = numpy.ndarray[Any, numpy.dtype[Any]]
Span = tuple[int, int]

# Blocks for each worker by default: enough for the last ones to end about together.
_BLOCKS_PER_WORKER = 4
# Smaller blocks cost more to hand out than most functions do with them.
_LEAST_BYTES = 64 << 10
# Seconds between two looks at what came back by itself, while the others are fed.
_LOOK = 0.02


def map_blocks(
    pool: Maps,
    func: Callable[..., Any],
    a: Any,
    others: tuple[Any, ...],
    axis: int,
    chunks: int | Sequence[int] | None,
    out: Array | None,
    kind: type[Run] | None = None,
) -> Any:
    """What `Pool.map_array` does; on other machines, by another kind of `Run`."""
    kind = kind or Run
    if not callable(func):
        raise TypeError(f"func must be callable, not {type(func).__name__}")
    if not pool._base.is_open:
        raise closed()
    first = _checked_array(a, "a")
    # Sequences and scalars are passed as they are; arrays are cut.
    rest = [_checked_array(other, f"others[{i}]") if is_cut(other) else other for i, other in enumerate(others)]
    length = _length(first, "a", axis)
    cut = [first, *filter(is_cut, rest)]
    for i, other in enumerate(rest):
        if is_cut(other):
            _check_alike(other, f"others[{i}]", axis, length)
    spans = _spans(length, chunks, pool._base.size, sum(array.nbytes for array in cut))
    place = None if out is None else kind.output(_checked_out(out, axis, length))
    run = kind(pool, func, tuple(kind.input(arg, place) if is_cut(arg) else arg for arg in (first, *rest)), axis, spans)
    if place is None or out is None:
        return run.into_new()
    run.into(place)
    if out is not place:
        numpy.copyto(out, place)
    return out


def by_reference(array: object) -> bool:
    """Whether an array travels as a handle, so that all see what is written into it."""
    return isinstance(array, SharedArray) and array._block is not None


def is_cut(arg: object) -> bool:
    """Whether blocks are cut from an argument; others are passed as they are."""
    return isinstance(arg, numpy.ndarray) and arg.ndim > 0


class Run:
    """One call: the blocks on their way to the workers, and the results on their way into the output."""

    @staticmethod
    def output(out: Array) -> Array:
        """Where workers write: `out` itself if it travels by reference, else an array of its shape."""
        return out if by_reference(out) else empty(out.shape, out.dtype, "F" if out.flags.fnc else "C")

    @staticmethod
    def input(a: Array, place: Array | None) -> Array:
        """The array in shared memory, where it is cut without copies; `place` is what will be written to meanwhile."""
        return array(a) if not by_reference(a) or is_disturbed(a, place) else a

    def __init__(
        self, pool: Maps, func: Callable[..., Any], args: tuple[Any, ...], axis: int, spans: list[Span]
    ) -> None:
        self.pool, self.func, self.args, self.axis, self.spans = pool, func, args, axis, spans

    @functools.cached_property
    def places(self) -> list[bytes] | None:
        """Where each block finds its random numbers."""
        seeds = self.pool._seeds
        return None if seeds is None else list(itertools.islice(seeds.places(), len(self.spans)))

    def into(self, place: Array) -> None:
        """All results written into an output that is there already."""
        job = self._start(place, 0, must_fit=True)
        finish(job)
        job.result()

    def into_new(self) -> SharedArray | None:
        """All results in an array that is made for them; None if the function returns None."""
        ahead = min(self.pool._base.size, len(self.spans))
        inbox = self.pool._inbox()
        on_block = _OnBlock(self.func, self.args, self.axis, None, must_fit=False)
        told, items = self._told(on_block, 0)
        tasks = {
            tag: self.pool._base.submit_call(told, (items[tag],), None, self.pool._terms.engine) for tag in range(ahead)
        }
        try:
            return self._taken(tasks, inbox)
        except BaseException:
            # After Ctrl-C nobody wants them any more.
            for task in tasks.values():
                task.cancel()
            raise

    def _taken(self, tasks: dict[int, Any], inbox: Any) -> SharedArray | None:
        """The output, of blocks that are ahead, by tag, and of the rest, which goes on its way when one has come."""
        ahead = len(tasks)
        come = [tag for tag, task in tasks.items() if not task.watch(inbox, tag)]
        # What has come of those that are ahead.
        pieces: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}

        def take(timeout: float | None) -> bool:
            if not come:
                come.extend(inbox.take(timeout))
            if not come:
                return False
            tag = come.pop(0)
            try:
                pieces[tag] = tasks.pop(tag).get()
            except BaseException as error:
                errors[tag] = error
            return True

        take(None)
        place: SharedArray | None = None
        rest: Any = None
        if not errors:
            ((tag, model),) = pieces.items()
            if model is not NOTHING and len(self.spans) > 1:
                place = self.output_like(model, self.spans[tag])
            rest = self._start(place, ahead, must_fit=False)
        # While the workers go on with the rest, what came ahead is put into its place here.
        settled: set[int] = set()
        rest_is_done = rest is None
        try:
            while not rest_is_done or len(pieces) + len(errors) < ahead:
                waiting = len(pieces) + len(errors) < ahead
                if rest is None or rest_is_done:
                    take(None)
                elif not (waiting and take(0.0)):
                    rest_is_done = rest.run(_LOOK if waiting else None)
                if place is not None:
                    for tag in pieces.keys() - settled:
                        settled.add(tag)
                        pieces[tag] = settle(pieces[tag], place, self.axis, self.spans[tag])
        except BaseException:
            if rest is not None:
                rest.stop()
            raise
        if errors:
            raise errors[min(errors)]
        results = [pieces[tag] for tag in range(ahead)]
        if rest is not None:
            results += rest.result()
        return self.together(results, place)

    def _told(self, on_block: _OnBlock, first: int) -> tuple[Any, list[Any]]:
        """What to call with each of which items, for the blocks from `first` on."""
        spans, seeds = self.spans[first:], self.pool._seeds
        if seeds is None or self.places is None:
            return on_block, spans
        return seeds.item(on_block), list(zip(spans, self.places[first:], strict=True))

    def _start(self, place: Array | None, first: int, must_fit: bool) -> Any:
        told, items = self._told(_OnBlock(self.func, self.args, self.axis, place, must_fit), first)
        job: Any = self.pool._map_job(told, items, None, None, False, {})
        job.start(False)
        return job

    def output_like(self, model: Array, span: Span) -> SharedArray | None:
        """Where results like this one go; None if they don't have the lengths of their blocks."""
        axis = normalize_axis_index(self.axis, model.ndim)
        if model.shape[axis] != span[1] - span[0]:
            return None
        shape = (*model.shape[:axis], self.spans[-1][1], *model.shape[axis + 1 :])
        return empty(shape, model.dtype, "F" if model.flags.fnc else "C")

    def together(self, results: list[Any], place: SharedArray | None) -> SharedArray | None:
        """The output, when all results are there; those that are not in their places are returned ones."""
        if all(result is NOTHING for result in results):
            return None
        if place is not None and all(result is _IN_PLACE for result in results):
            return place
        arrays: list[Array] = []
        for span, result in zip(self.spans, results, strict=True):
            if result is NOTHING:
                raise TypeError(f"func returned None for block {_name(span, self.axis)}, and arrays for others")
            if result is _IN_PLACE:
                assert place is not None
                result = place[_index(place, self.axis, span)]
            arrays.append(result)
        if len(arrays) == 1 and isinstance(arrays[0], SharedArray):
            return arrays[0]
        return self._concatenated(arrays)

    def _concatenated(self, arrays: list[Array]) -> SharedArray:
        first, axis = arrays[0], normalize_axis_index(self.axis, arrays[0].ndim)
        for span, piece in zip(self.spans, arrays, strict=True):
            if piece.ndim != first.ndim or _without(piece.shape, axis) != _without(first.shape, axis):
                raise ValueError(
                    f"func returned shape {piece.shape} for block {_name(span, self.axis)}, which can't be joined "
                    f"along that axis with shape {first.shape} of the first block"
                )
        dtype = numpy.result_type(*(piece.dtype for piece in arrays))
        shape = (*first.shape[:axis], sum(piece.shape[axis] for piece in arrays), *first.shape[axis + 1 :])
        result = empty(shape, dtype, "F" if all(piece.flags.fnc for piece in arrays) else "C")
        numpy.concatenate(arrays, axis, out=result)
        return result


class _OnBlock:
    """What a worker does with a block. Unpickled once a call in each worker, however many blocks it gets."""

    def __init__(
        self, func: Callable[..., Any], args: tuple[Any, ...], axis: int, place: Array | None, must_fit: bool
    ) -> None:
        self.func, self.args, self.axis, self.place, self.must_fit = func, args, axis, place, must_fit

    def __call__(self, span: Span) -> Any:
        """The result for this block, if it can't be written into its place."""
        result = call(
            self.func, [part(arg, self.axis, span) if is_cut(arg) else arg for arg in self.args], self.axis, span
        )
        if self.must_fit:
            assert self.place is not None
            put(result, self.place, self.axis, span)
            return _IN_PLACE
        if result is None:
            return NOTHING
        return settle(array(result) if self.place is None else result, self.place, self.axis, span)


def part(a: Any, axis: int, span: Span) -> Any:
    """The block of an array."""
    return a[_index(a, axis, span)]


def call(func: Callable[..., Any], args: list[Any], axis: int, span: Span) -> Any:
    """What `func` returns for the block, None or an array; its exceptions name the block."""
    try:
        result = func(*args)
    except BaseException as error:
        add_note(error, f"raised for block {_name(span, axis)}")
        raise
    return None if result is None else _checked_result(result, axis, span)


def put(result: Array | None, out: Array, axis: int, span: Span) -> None:
    """Write a result into an output that is there already."""
    if result is None:
        raise TypeError(f"func returned None for block {_name(span, axis)}, and out is waiting for an array")
    place = part(out, axis, span)
    if result.shape != place.shape:
        raise ValueError(
            f"func returned shape {result.shape} for block {_name(span, axis)}, where out has room for {place.shape}"
        )
    try:
        numpy.copyto(place, result, casting="same_kind")
    except TypeError as error:
        raise TypeError(
            f"func returned {result.dtype} for block {_name(span, axis)}, and out is {place.dtype}"
        ) from error


class _Mark:
    """Stands for a result that isn't sent. There is one of each in every process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> str:
        return self.name


_IN_PLACE = _Mark("_IN_PLACE")
NOTHING = _Mark("NOTHING")


def settle(result: Any, place: Array | None, axis: int, span: Span) -> Any:
    """Write a result into its place, if it has one there; else it stays what it is."""
    if place is None or not isinstance(result, numpy.ndarray) or result.ndim != place.ndim:
        return result
    room = place[_index(place, axis, span)]
    if result.shape != room.shape or result.dtype != room.dtype:
        # A copy in shared memory: what a function returns may be a view of what it goes on writing to.
        return result if by_reference(result) else array(result)
    numpy.copyto(room, result)
    return _IN_PLACE


def _index(a: Array, axis: int, span: Span) -> tuple[slice | Any, ...]:
    return (*[slice(None)] * normalize_axis_index(axis, a.ndim), slice(*span))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _name(span: Span, axis: int) -> str:
    return f"{span[0]}:{span[1]} of axis {axis}"


# ---- what was passed, checked ----------------------------------------------------------------------------------------


def _checked_array(value: Any, name: str) -> Array:
    if isinstance(value, numpy.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask shared memory can't hold: pass .filled() and the mask")
    result: Array = value if isinstance(value, numpy.ndarray) else numpy.asarray(value)
    if result.dtype.hasobject:
        raise TypeError(f"{name} holds Python objects (dtype {result.dtype}): use pool.map for those")
    return result


def _checked_result(value: Any, axis: int, span: Span) -> Array:
    result = _checked_array(value, f"the result of func for block {_name(span, axis)}")
    if result.ndim == 0:
        raise ValueError(
            f"func returned a scalar ({result.dtype}) for block {_name(span, axis)}: results are joined along "
            f"that axis, so it must return an array that has it, such as with keepdims=True; or use pool.map"
        )
    if not -result.ndim <= axis < result.ndim:
        raise ValueError(f"func returned shape {result.shape} for block {_name(span, axis)}, which has no such axis")
    return result


def _length(a: Array, name: str, axis: int) -> int:
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"axis must be an integer, not {type(axis).__name__}")
    if not -a.ndim <= axis < a.ndim:
        raise numpy.exceptions.AxisError(f"axis {axis} is out of bounds: {name} has {a.ndim} dimensions")
    return int(a.shape[axis])


def _check_alike(other: Array, name: str, axis: int, length: int) -> None:
    if not -other.ndim <= axis < other.ndim or other.shape[axis] != length:
        raise ValueError(
            f"{name} has shape {other.shape}, which can't be cut along axis {axis} as a is, into {length}; "
            f"to pass it whole to each call, use functools.partial or a closure"
        )


def _checked_out(out: Any, axis: int, length: int) -> Array:
    if not isinstance(out, numpy.ndarray) or isinstance(out, numpy.ma.MaskedArray):
        raise TypeError(f"out must be an ndarray, not {type(out).__name__}")
    if not out.flags.writeable:
        raise ValueError("out must not be read-only")
    if not -out.ndim <= axis < out.ndim or out.shape[axis] != length:
        raise ValueError(f"out has shape {out.shape}, but must have {length} along axis {axis}, as a has")
    return _checked_array(out, "out")


def is_disturbed(a: Array, place: Array | None) -> bool:
    """Whether results written to `place` would change blocks of `a` that others still read. numpy copies then, too."""
    return place is not None and numpy.may_share_memory(a, place) and not _same_layout(a, place)


def _same_layout(a: Array, b: Array) -> bool:
    return (a.__array_interface__["data"], a.shape, a.strides) == (b.__array_interface__["data"], b.shape, b.strides)


def _spans(length: int, chunks: Any, workers: int, nbytes: int) -> list[Span]:
    """The blocks as (start, stop), in order. There is always one, if only an empty one."""
    if chunks is None:
        blocks = min(_BLOCKS_PER_WORKER * workers, max(workers, nbytes // _LEAST_BYTES), max(length, 1))
        edges = [length * i // blocks for i in range(blocks + 1)]
    elif isinstance(chunks, Sequence) and not isinstance(chunks, str):
        try:
            sizes = [operator.index(size) for size in chunks]
        except TypeError:
            raise TypeError(f"chunks must be an integer, or a sequence of them, not {chunks!r}") from None
        if min(sizes, default=0) < 0 or sum(sizes) != length:
            raise ValueError(f"chunks must be sizes that add up to {length}, the length along axis, not {chunks!r}")
        edges = [0]
        for size in sizes:
            edges.append(edges[-1] + size)
        if not sizes:
            edges.append(0)
    else:
        if isinstance(chunks, bool) or not hasattr(chunks, "__index__"):
            raise TypeError(f"chunks must be an integer, a sequence of integers or None, not {type(chunks).__name__}")
        size = operator.index(chunks)
        if size < 1:
            raise ValueError(f"chunks must be 1 or more, not {size}")
        edges = [*range(0, length, size), length] if length else [0, 0]
    return list(itertools.pairwise(edges))
