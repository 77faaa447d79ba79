"""Shared arrays: numpy arrays whose memory every process may use at once.

A `SharedArray` is a `numpy.ndarray` over a block of shared memory. Wherever it goes (an argument, a result, a
closure, an attribute, a queue), what travels is a small handle, never the data, and whoever receives it sees and
changes the same memory. Slices, transposes, reshapes, fields and other views travel the same way. The memory lives
as long as any array on it, in any process; there is nothing to close and nothing to clean up.

    >>> import shoal
    >>> counts = shoal.zeros((4, 1000), dtype="int64")
    >>> def fill(row):
    ...     row += 1                      # written straight into the memory that the caller sees
    >>> with shoal.Pool() as pool:
    ...     _ = pool.map(fill, list(counts))
    >>> int(counts.sum())
    4000

Sharing is never a by-product. What numpy computes from a shared array (arithmetic, reductions, copies, indexing with
masks or lists) lies in ordinary memory and is an ordinary `numpy.ndarray`; in-place operations and `out=` write into
the shared memory.
"""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, SupportsIndex, TypeVar

import numpy
from numpy.typing import ArrayLike, DTypeLike

from shoal._engine import Block

__all__ = ["SharedArray", "array", "empty", "full", "ones", "zeros"]

Shape = SupportsIndex | Sequence[SupportsIndex]


class SharedArray(numpy.ndarray[Any, numpy.dtype[Any]]):
    """A `numpy.ndarray` in shared memory. Made by `array`, `empty`, `zeros`, `ones` and `full`, never directly.

    It is an ndarray in every respect: `numpy.save`, `numpy.asarray`, `tobytes`, the buffer protocol, pandas and the
    rest of the field take it as it is. Beyond that:

    - Pickled, it is a handle to the same memory, of the same size for any array. So is any view of it, whatever its
      strides; a read-only view stays read-only.
    - `copy.copy`, `copy.deepcopy`, `copy()` and `astype()` give an independent, ordinary ndarray. To ask for a copy is
      to ask for memory of one's own; `shoal.array(a)` is how to ask for a second shared array.
    - Writes from several processes to the same items are not ordered by anything but a lock: see `shoal.Lock`.

    Example:
        >>> a = shoal.array([[1, 2], [3, 4]])
        >>> b = pickle.loads(pickle.dumps(a.T))
        >>> b[0, 1] = 30
        >>> a
        SharedArray([[ 1,  2],
                     [30,  4]])
        >>> a + 1
        array([[ 2,  3],
               [31,  5]])
    """

    __slots__ = ("_block",)

    # The memory this array lies in; of a `FileArray` the mapping of the file, which has the same attributes. None where
    # numpy, by its own rules, gave this type to ordinary memory.
    _block: Block | None
    _makers = "shoal.array, shoal.empty, shoal.zeros, shoal.ones or shoal.full"

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        raise TypeError(f"{cls.__name__} is made by {cls._makers}")

    def __array_finalize__(self, obj: object) -> None:
        # numpy calls this for every array it makes from another one. A view has a shared array as its base, a copy has
        # none, or one that owns its memory. A few functions put an array of their own in between: the address decides.
        base = self.base
        if isinstance(base, SharedArray):
            self._block = base._block
        elif base is None or not isinstance(obj, SharedArray) or (type(base) is numpy.ndarray and base.flags.owndata):
            self._block = None
        else:
            self._block = obj._block if _lies_in(self, obj._block) else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False, /) -> Any:
        # numpy asks here what type the result of a ufunc, a reduction or a squeeze shall have; `out=` comes as `self`.
        if array is self:
            return array
        if return_scalar:
            return array[()]
        if isinstance(array.base, SharedArray):
            return _with_honest_type(array.view(type(self)))
        return array if type(array) is numpy.ndarray else array.view(numpy.ndarray)

    def __array_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Iterable[Any], kwargs: Any
    ) -> Any:
        return _with_honest_type(super().__array_function__(func, types, args, kwargs))

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        # Indexing with lists and masks copies. (Spelled out: this is the one method that is called in loops.)
        if isinstance(item, SharedArray) and item._block is None:
            return item.view(numpy.ndarray)
        return item

    def __copy__(self) -> Any:
        return self.copy(order="K")

    def __deepcopy__(self, memo: dict[int, Any] | None, /) -> Any:
        """An independent, ordinary ndarray: what is changed in a deep copy must not be seen by others."""
        return self.copy(order="K")

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Any:
        # An item of no size (dtype "S0", a field that holds nothing) has nothing to share, and numpy can't place it.
        if self._block is None or self.itemsize == 0:
            return self.view(numpy.ndarray).__reduce_ex__(protocol)
        # numpy lets an array without items begin anywhere, even outside of the block.
        offset = _address(self) - self._block.address if self.size else 0
        return _attach, (type(self), self._block, offset, self.dtype, self.shape, self.strides, self.flags.writeable)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def _repr_html_(self) -> str:
        from shoal.insight import html

        return html.array(self)


Kind = TypeVar("Kind", bound=SharedArray)


def array(obj: ArrayLike, dtype: DTypeLike | None = None) -> SharedArray:
    """A shared array with the content of `obj`, which is copied once.

    Args:
        obj: anything that `numpy.asarray` takes: an array, a (nested) sequence, a number. A shared array gives a
            second, independent one.
        dtype: the type of the items; by default that of `obj`.

    Fortran order stays Fortran order; any other layout becomes C order.

    Raises:
        TypeError: the items are, or contain, Python objects.
        shoal.OutOfSharedMemory: there is not so much memory.

    Example:
        >>> shoal.array([1.5, 2.5])
        SharedArray([1.5, 2.5])
        >>> shoal.array(numpy.arange(3), dtype="float32")
        SharedArray([0., 1., 2.], dtype=float32)
    """
    wanted = None if dtype is None else numpy.dtype(dtype)
    if isinstance(obj, numpy.ndarray) and wanted is not None and wanted.kind in "biufc":
        source = obj  # converted by the one copy below; other types may need to see the content to know their size
    else:
        source = numpy.asarray(obj, wanted)
        wanted = source.dtype
    result = empty(source.shape, wanted, "F" if source.flags.fnc else "C")
    numpy.copyto(result, source, casting="unsafe")
    return result


def empty(shape: Shape, dtype: DTypeLike = float, order: Literal["C", "F"] = "C") -> SharedArray:
    """A shared array of that shape, its content undefined. As `numpy.empty`.

    Args:
        shape: an integer or a sequence of them; `()` for an array without dimensions.
        dtype: the type of the items, any that holds no Python objects. Default: float64.
        order: "C" for rows first, "F" for columns first. Default: "C".

    Raises:
        TypeError: `shape` is no integers; or the items are, or contain, Python objects.
        ValueError: a dimension is negative, the array is larger than memory can ever be, or `order` is another.
        shoal.OutOfSharedMemory: there is not so much memory.

    Example:
        >>> frames = shoal.empty((100, 1080, 1920), dtype="uint8")
    """
    return _allocate(shape, dtype, order, zero=False)


def zeros(shape: Shape, dtype: DTypeLike = float, order: Literal["C", "F"] = "C") -> SharedArray:
    """A shared array of that shape, filled with zeros. As `numpy.zeros`; arguments and errors as for `empty`.

    Example:
        >>> shoal.zeros(3)
        SharedArray([0., 0., 0.])
    """
    return _allocate(shape, dtype, order, zero=True)


def ones(shape: Shape, dtype: DTypeLike = float, order: Literal["C", "F"] = "C") -> SharedArray:
    """A shared array of that shape, filled with ones. As `numpy.ones`; arguments and errors as for `empty`.

    Example:
        >>> shoal.ones((2, 2), dtype=int)
        SharedArray([[1, 1],
                     [1, 1]])
    """
    return full(shape, 1, dtype, order)


def full(shape: Shape, fill_value: Any, dtype: DTypeLike | None = None, order: Literal["C", "F"] = "C") -> SharedArray:
    """A shared array of that shape, filled with `fill_value`. As `numpy.full`; errors as for `empty`.

    Args:
        shape: as for `empty`.
        fill_value: a scalar, or anything that broadcasts to `shape`.
        dtype: the type of the items; by default that of `fill_value`.
        order: as for `empty`.

    Example:
        >>> shoal.full(2, numpy.nan)
        SharedArray([nan, nan])
    """
    result = empty(shape, numpy.asarray(fill_value).dtype if dtype is None else dtype, order)
    numpy.copyto(result, fill_value, casting="unsafe")
    return result


def _allocate(shape: Shape, dtype: DTypeLike, order: Literal["C", "F"], zero: bool) -> SharedArray:
    if order not in ("C", "F"):
        raise ValueError(f'order must be "C" or "F", not {order!r}')
    # An array without items tells what numpy makes of the dtype: "S" becomes "S1", and a subarray adds dimensions.
    probe = numpy.empty(0, dtype)
    if probe.dtype.hasobject:
        raise TypeError(
            f"dtype {probe.dtype} holds references to objects of one process, which no other process can follow; "
            f"use a dtype of plain numbers, fixed-size strings or records of them"
        )
    if probe.itemsize == 0:
        raise TypeError(f"dtype {probe.dtype} has items of no size; give it one, like 'V8'")
    dimensions = _dimensions(shape) + probe.shape[1:]
    nbytes = math.prod(dimensions) * probe.itemsize
    if max(dimensions, default=0) > sys.maxsize or nbytes > sys.maxsize:
        raise ValueError(f"shape {shape} with items of {probe.itemsize} bytes is larger than memory can ever be")
    return _place(SharedArray, Block.allocate(max(nbytes, 1), zero), dimensions, probe.dtype, order=order)


def _dimensions(shape: Shape) -> tuple[int, ...]:
    try:
        dimensions = tuple(map(operator.index, shape if isinstance(shape, Sequence | numpy.ndarray) else (shape,)))
    except TypeError:
        raise TypeError(f"shape must be an integer or a sequence of integers, not {shape!r}") from None
    if min(dimensions, default=0) < 0:
        raise ValueError(f"shape must not have negative dimensions, but is {shape}")
    return dimensions


def _attach(
    kind: type[Kind],
    block: Any,
    offset: int,
    dtype: numpy.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,
) -> Kind:
    """The array of that layout in `block`: what a pickled shared array becomes."""
    result = _place(kind, block, shape, dtype, offset, strides)
    if not writeable:
        result.flags.writeable = False
    return result


def _place(
    kind: type[Kind],
    block: Any,
    shape: tuple[int, ...],
    dtype: numpy.dtype[Any],
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    order: Literal["C", "F"] = "C",
) -> Kind:
    result: Kind = numpy.ndarray.__new__(kind, shape, dtype, block, offset, strides, order)
    result._block = block
    return result


def _address(array: numpy.ndarray[Any, Any]) -> int:
    """Where the first item of `array` lies (not its lowest byte: strides may be negative)."""
    address: int = array.__array_interface__["data"][0]
    return address


def _lies_in(array: numpy.ndarray[Any, Any], block: Block | None) -> bool:
    return block is not None and 0 <= _address(array) - block.address <= block.nbytes


def _with_honest_type(result: Any) -> Any:
    """`result`, or an ordinary view of it where it is a `SharedArray` in name only; also inside a tuple or list."""
    if isinstance(result, SharedArray) and result._block is None:
        return result.view(numpy.ndarray)
    if type(result) in (tuple, list):
        return type(result)(map(_with_honest_type, result))
    return result


def _on_ordinary_view(name: str) -> Callable[..., Any]:
    """The method of that name of ndarray, for those whose result is always new memory."""
    method: Callable[..., Any] = getattr(numpy.ndarray, name)

    @functools.wraps(method)
    def call(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        return method(self.view(numpy.ndarray), *args, **kwargs)

    return call


def _with_honest_result(name: str) -> Callable[..., Any]:
    """The method of that name of ndarray, for those whose result may be a view, the array itself or new memory."""
    method: Callable[..., Any] = getattr(numpy.ndarray, name)

    @functools.wraps(method)
    def call(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        return _with_honest_type(method(self, *args, **kwargs))

    return call


# numpy gives results of these methods the type of the array; those of the others come through __array_wrap__.
for _name in "argmax argmin argpartition argsort choose compress copy dot flatten repeat round take".split():
    setattr(SharedArray, _name, _on_ordinary_view(_name))
for _name in "astype byteswap ravel reshape".split():
    setattr(SharedArray, _name, _with_honest_result(_name))
