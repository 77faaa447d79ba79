"""How buffers travel that are no numpy arrays: memory views, arrays of the standard library, tensors.

The pickler of a task takes every large buffer out of the pickle and puts it into shared memory; it only has to be
shown one, as a `pickle.PickleBuffer`. The reducers here do that for types that pickle as a copy of their bytes, or not
at all.
"""

from __future__ import annotations

import sys
from pickle import PickleBuffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from typing import Any

__all__ = ["reduce_array", "reduce_memoryview", "reduce_tensor"]


def reduce_memoryview(view: memoryview) -> Any:
    """A memory view arrives as one of its format and shape, over memory of its own; a read-only one stays so."""
    flat: Any = view if view.c_contiguous else bytes(view) if view.readonly else bytearray(view)
    shape: Any = view.shape
    try:
        _view(memoryview(flat).cast("B"), view.format, shape)
    except (TypeError, ValueError):
        # A format or a shape that a memory view itself can't be cast to: numpy has them all.
        import numpy

        return _view_of, (numpy.array(view), view.readonly)
    return _view, (PickleBuffer(flat), view.format, shape)


def _view(data: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    return memoryview(data).cast("B").cast(format, shape)  # type: ignore[call-overload,no-any-return]


def _view_of(array: Any, readonly: bool) -> memoryview:
    return memoryview(array).toreadonly() if readonly else memoryview(array)


def reduce_array(values: array[Any]) -> Any:
    """An array of the standard library."""
    return _array, (values.typecode, PickleBuffer(values))


def _array(typecode: str, data: Any) -> array[Any]:
    from array import array

    values: array[Any] = array(typecode)
    values.frombytes(data)
    return values


def reduce_tensor(tensor: Any) -> Any:
    """A plain tensor in main memory; any other goes torch's own way."""
    plain = tensor.device.type == "cpu" and not tensor.requires_grad and tensor.layout == sys.modules["torch"].strided
    if not plain or tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or vars(tensor):
        return tensor.__reduce_ex__(5)
    try:
        return _tensor, (tensor.numpy(),)
    except TypeError:
        # A type that numpy does not have.
        return tensor.__reduce_ex__(5)


def _tensor(values: Any) -> Any:
    import torch

    return torch.from_numpy(values)
