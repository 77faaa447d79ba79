"""What a pool's initializer leaves in the globals of `__main__`, for the tasks of its worker.

    def prepare(path):
        global model
        model = load(path)

    def work(x):
        return model(x)

    shoal.Pool(initializer=prepare, initargs=(path,)).map(work, items)

Functions of `__main__` travel as code, each with a copy of the globals that it uses as they are in the client at that
moment. So `work` would not see what `prepare` has assigned, which it does with multiprocessing. Hence a worker notes
which globals its initializer has changed, and gives those to all functions of `__main__` that arrive later, in the
place of the client's.
"""

from __future__ import annotations

from types import FunctionType, ModuleType

TYPE_CHECKING = False  # type checkers know the name; importing it from typing takes longer than this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["arrived", "run_initializer"]

# What the initializer of this worker has changed.
_left: dict[str, Any] = {}
# While the initializer arrives: the globals of the functions that it consists of.
_arriving: list[dict[str, Any]] | None = None

_MISSING = object()


def arrived(namespace: dict[str, Any]) -> None:
    """A function of `__main__` with these globals has come in."""
    if _arriving is None:
        namespace.update(_left)
    elif all(each is not namespace for each in _arriving):
        _arriving.append(namespace)


def run_initializer(receive: Callable[[], Any]) -> None:
    """Run what `receive` returns, a function and its arguments, or None; note what that has changed.

    Args:
        receive: unpickles the initializer.
    """
    global _arriving
    _arriving = []
    try:
        initializer = receive()
        namespaces = _arriving
    finally:
        _arriving = None
    if initializer is None:
        return
    function, arguments = initializer
    before = [
        {name: (value, _content(value)) for name, value in each.items() if name[:2] != "__"} for each in namespaces
    ]
    function(*arguments)
    for namespace, was in zip(namespaces, before, strict=True):
        for name, value in namespace.items():
            if name[:2] == "__":
                continue
            old, content = was.get(name, (_MISSING, None))
            if value is not old or _content(value) != content:
                _left[name] = value


def _content(value: Any) -> bytes | None:
    """What tells whether a value was changed from within; None for what is not, or not looked at."""
    if not isinstance(value, (list, dict, set, bytearray)) and not hasattr(value, "__dict__"):
        return None
    if isinstance(value, (type, FunctionType, ModuleType)):
        return None
    from shoal.errors import SerializationError
    from shoal.serialize.pickler import dumps

    try:
        return dumps(value)
    except SerializationError:  # then nobody can compare it
        return None
