"""Handlers of `logging`: elsewhere they do the same, with a lock and a file of their own.

Loggers travel by name, as everywhere in Python. A handler's lock keeps the threads of one process apart, so each
process has its own; a handler that writes to a file opens it again, to append.
"""

from __future__ import annotations

import fcntl
import logging
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["reduce_handler"]

_CONNECTIONS = frozenset({"sock", "socket"})


def reduce_handler(handler: logging.Handler) -> Any:
    """Any handler; what a class below has beyond `logging`'s must travel by itself."""
    state = dict(vars(handler))
    del state["lock"]
    if isinstance(handler, logging.FileHandler):
        state.update(stream=None, mode="a")
        _append(handler)
    for name in _CONNECTIONS & state.keys():
        state[name] = None  # made anew by the next record
    if hasattr(handler, "shouldFlush"):
        state["buffer"] = []  # what it holds back is written here
    return _new, (type(handler),), state, None, None, _settle


def _append(handler: logging.FileHandler) -> None:
    """From now on this process is not alone: what it writes goes behind what the others write, not over it."""
    if handler.stream is not None:
        fd = handler.stream.fileno()
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def _new(kind: type[logging.Handler]) -> logging.Handler:
    return kind.__new__(kind)


def _settle(handler: logging.Handler, state: dict[str, Any]) -> None:
    vars(handler).update(state)
    handler.createLock()
    # Known to `logging.shutdown`, which flushes it.
    logging._addHandlerRef(handler)  # type: ignore[attr-defined]
