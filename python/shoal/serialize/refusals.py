"""What is at work in one process alone, and is refused by name, with what to do instead.

Now that locks travel, pickle would take some of these apart and send a shell: a thread that does not run, a future that
nobody will ever set, a child process that is somebody else's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["reduce_future", "refuse_executor", "refuse_queue", "refuse_running"]


def _refuse(obj: object, reason: str) -> NoReturn:
    raise TypeError(f"cannot pickle {type(obj).__name__!r} object: {reason}")


def refuse_running(obj: Any) -> NoReturn:
    """A thread, or a process that was started here."""
    _refuse(obj, "it runs in, or as a child of, this process only")


def refuse_executor(obj: Any) -> NoReturn:
    """A pool or an executor of the standard library."""
    _refuse(obj, "its workers belong to this process; shoal.Pool may be held by what travels")


def refuse_queue(obj: Any) -> NoReturn:
    """A queue between threads: others would wait for what only this process puts into it."""
    ours = "SimpleQueue" if type(obj).__name__ == "SimpleQueue" else "Queue"
    _refuse(obj, f"it is between threads of this process; shoal.{ours} goes anywhere")


def reduce_future(future: Any) -> Any:
    """A future that is done travels as what it is; nobody elsewhere could set another."""
    if not future.done() or future.cancelled():
        _refuse(future, "only this process will know its result: wait for it, or send what it will be made of")
    kind = type(future)
    if kind.__module__ == "shoal.futures":
        # What it has beyond the standard library's is the task, which is over.
        from concurrent.futures import Future as kind
    return _done, (kind, future.exception(), None if future.exception() else future.result())


def _done(kind: type[Any], error: BaseException | None, result: Any) -> Any:
    future = kind()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
    return future
