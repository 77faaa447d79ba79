"""How objects travel to another machine, and back: a pickle, and the large buffers beside it as frames.

Between processes of one machine shared things travel as handles to the same memory. On another machine there is no such
memory, so each kind has a way of its own (`elsewhere`). All else is pickled as `serialize` does.

What is packed is a copy of what it was at that moment. What is unpacked has memory of its own that may be written to.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from shoal.cluster.common import Blob
from shoal.cluster.elsewhere import reduce_elsewhere
from shoal.serialize import pickler
from shoal.serialize.by_value import Pickler as ByValue
from shoal.serialize.reducers import first

__all__ = ["Frame", "pack", "size", "unpack"]

# Bytes from which on a buffer goes beside the pickle. As on one machine.
LARGE = 16 << 10

# Where an array begins in memory must be divisible by this; numpy and others count on it.
ALIGNMENT = 16

# What goes on the way as it is; it arrives as a memory view, or as an array of bytes.
Frame = Any


class _First(pickle.Pickler):
    """The C pickler, but for what it would take for something else."""

    def reducer_override(self, obj: Any) -> Any:
        reduction = reduce_elsewhere(obj)
        if reduction is not NotImplemented:
            return reduction
        reducer = first(type(obj))
        return NotImplemented if reducer is None else reducer(obj)


class _ByValue(ByValue):
    """The same for code by value."""

    def reducer_override(self, obj: Any) -> Any:
        reduction = reduce_elsewhere(obj)
        return super().reducer_override(obj) if reduction is NotImplemented else reduction


def _copy(buffer: pickle.PickleBuffer) -> pickle.PickleBuffer:
    with buffer.raw() as view:
        return pickle.PickleBuffer(bytearray(view))


def pack(
    obj: object, what: str = "object", keep: Callable[[pickle.PickleBuffer], Any] = _copy
) -> tuple[bytes, list[Any]]:
    """Pickle `obj` for another machine.

    Args:
        obj: anything.
        what: what to call `obj` at the beginning of an error message.
        keep: makes what is kept as a frame of a large buffer. Default: a copy of it.

    Returns:
        The pickle, and the frames beside it.

    Raises:
        SerializationError: `obj` can't be pickled, or a part of it can't leave this machine.
        OutOfSharedMemory: there is not so much memory.
    """
    try:
        data, frames = _pickled(_First, obj, keep)
    except MemoryError as error:
        raise _no_room(what, error) from error
    except Exception:  # whatever it is, the pickler by value meets it again if it can't do better
        pass
    else:
        if pickler._MAIN not in data:
            return data, frames
    try:
        return _pickled(_ByValue, obj, keep)
    except MemoryError as error:
        raise _no_room(what, error) from error
    except Exception as error:
        from shoal.errors import SerializationError
        from shoal.serialize.why import explain

        raise SerializationError(f"{what}: {explain(obj, error, _ByValue)}") from error


def _no_room(what: str, error: MemoryError) -> Exception:
    from shoal.errors import OutOfSharedMemory

    return OutOfSharedMemory(f"there is no memory to pack {what}: {error}")


def _pickled(kind: Any, obj: object, keep: Callable[[pickle.PickleBuffer], Any]) -> tuple[bytes, list[Any]]:
    frames: list[Any] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        """Whether it stays in the pickle."""
        with buffer.raw() as view:
            if view.nbytes < LARGE:
                return True
        frames.append(keep(buffer))
        return False

    with io.BytesIO() as file:
        if kind is _First:
            _First(file, 5, buffer_callback=beside).dump(obj)
        else:
            kind(file, beside).dump(obj)
        return file.getvalue(), frames


def unpack(data: bytes, frames: list[Any] | tuple[Any, ...]) -> Any:
    """The object that `pack` pickled. Frames become the memory of its arrays, unless they lie where no array may."""
    return pickle.loads(data, buffers=[_aligned(frame) for frame in frames] if frames else None)


def _aligned(frame: Frame) -> Any:
    import numpy

    array = numpy.frombuffer(frame.frame if isinstance(frame, Blob) else frame, numpy.uint8)
    if array.ctypes.data % ALIGNMENT or not array.flags.writeable:
        array = array.copy()
    return array


def size(data: bytes, frames: list[Any] | tuple[Any, ...]) -> int:
    """The bytes of a pickle and its frames."""
    # What several tasks have in common counts for none.
    own = (memoryview(frame).nbytes for frame in frames if not isinstance(frame, Blob))
    return len(data) + sum(own) if frames else len(data)
