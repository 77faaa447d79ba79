"""`dumps` and `loads`: how every argument, result and function of a task travels.

The C pickler goes first: on large plain containers it is up to a hundred times faster than one that looks at every
object from Python. Only what it refuses, or what it sends as a name in `__main__` where no other process finds it, is
pickled by value.
"""

from __future__ import annotations

# The C half alone: the module around it takes several times as long to import as all the rest of a worker's start.
import _pickle as pickle
import io

from shoal.serialize.reducers import first

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROTOCOL = 5

# Part of the name of every object that was pickled as "look it up in __main__", or in __mp_main__, which is what
# multiprocessing calls the main module in its children. Data that merely contains this text only costs a second try.
_MAIN = b"_main__"


class _FirstPickler(pickle.Pickler):
    """The C pickler, but for what it would take for something else."""

    def reducer_override(self, obj: Any) -> Any:
        reducer = first(type(obj))
        return NotImplemented if reducer is None else reducer(obj)


def dumps(obj: object, what: str = "object") -> bytes:
    """Pickle `obj` so that any process on this machine that has shoal can load it.

    Lambdas, closures, and the functions and classes of `__main__` travel by value.

    Args:
        obj: anything.
        what: what to call `obj` at the beginning of an error message, such as `"argument 0 of f"`.

    Returns:
        The pickle, for `loads`.

    Raises:
        SerializationError: `obj` can't be pickled. The message names the path to the part that can't; `__cause__` is
            the exception that stopped the pickler.

    Example:
        loads(dumps(lambda x: x + 1))(2)  # 3
    """
    try:
        with io.BytesIO() as file:
            _FirstPickler(file, PROTOCOL).dump(obj)
            data = file.getvalue()
    except MemoryError:
        raise
    except Exception:  # whatever it is, the pickler by value meets it again if it can't do better
        return _dumps_by_value(obj, what)
    return _dumps_by_value(obj, what) if _MAIN in data else data


def loads(data: bytes | memoryview) -> object:
    """The object that `dumps` pickled.

    Args:
        data: the bytes that `dumps` returned, or a view of them.

    Returns:
        A new object. Classes of `__main__` that this process defined itself come back as those classes.

    Raises:
        Exception: whatever the classes of the object raise while it is rebuilt.

    Example:
        loads(dumps([1, 2]))  # [1, 2]
    """
    result: object = pickle.loads(data)
    return result


def _dumps_by_value(obj: object, what: str) -> bytes:
    """Pickle with the pickler by value, and explain it if that fails too."""
    with io.BytesIO() as file:
        dump_by_value(obj, what, file, None)
        return file.getvalue()


def dump_by_value(obj: object, what: str, file: Any, buffer_callback: Callable[[Any], Any] | None) -> None:
    """Pickle code by value: lambdas, closures, everything of `__main__`. For what the C pickler can't send.

    Args:
        obj: anything.
        what: what to call `obj` at the beginning of an error message.
        file: where the pickle goes; anything with a `write(bytes)`.
        buffer_callback: as for `pickle.Pickler`; None to write buffers into the pickle.

    Raises:
        SerializationError: as `dumps`.
    """
    # Both imports cost more than importing shoal does; most programs made of importable modules never need them.
    from shoal.serialize import by_value

    try:
        by_value.Pickler(file, buffer_callback).dump(obj)
    except MemoryError:
        raise
    except Exception as error:
        from shoal.errors import SerializationError
        from shoal.serialize.why import explain

        raise SerializationError(f"{what}: {explain(obj, error)}") from error
