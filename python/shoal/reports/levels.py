"""Which records are wanted: the levels of the client's loggers, as its workers know them.

A record that nobody would handle is not made. So a worker's loggers have the levels of the client's. They stand on a
board, a block of shared memory that belongs to the pool: when a level changes in the client, it writes the board and
gives notice (`PoolBase.give_notice`), and each worker reads it before its next task.
"""

from __future__ import annotations

import _pickle as pickle
import sys

from shoal._engine import Block, RawLock
from shoal._imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # What is disabled for all, and the levels of loggers that have one of their own.
    Levels = tuple[int, dict[str, int]]

__all__ = ["Board", "levels", "set_levels", "watch"]


# Room for some five hundred loggers. What does not fit is not told: then a worker has the levels of before, and makes
# records that its client drops, or not those that it has come to want.
_SIZE = 16384


class Board:
    """The levels in shared memory.

    Its lock keeps a reader from seeing half of what is being written; should the client end meanwhile, so do they.
    """

    __slots__ = ("_block", "_lock")

    def __init__(self, block: Block, lock: RawLock) -> None:
        self._block, self._lock = block, lock

    @classmethod
    def make(cls) -> Board:
        """A new one, on which nothing is written."""
        return cls(Block.allocate(_SIZE), RawLock())

    def write(self) -> None:
        """Write the levels as they are now."""
        with self._lock:  # taken first: who comes last writes what is latest
            data = pickle.dumps(levels(), 5)
            if len(data) <= _SIZE:
                memoryview(self._block)[: len(data)] = data  # type: ignore[arg-type]  # a buffer

    def read(self) -> Levels | None:
        """The levels that were written last."""
        with self._lock:
            levels: Levels | None = pickle.loads(memoryview(self._block))  # type: ignore[arg-type]
            return levels

    @property
    def handle(self) -> bytes:
        """By which a worker opens it, when it needs to: that takes a tenth of a millisecond. The pool keeps it."""
        return pickle.dumps((self._block, self._lock), 5)

    @classmethod
    def open(cls, handle: bytes) -> Board:
        """The board of that handle."""
        return cls(*pickle.loads(handle))


def levels() -> Levels | None:
    """Those of this process; None of one that has not imported logging, and so not configured it."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    loggers = [logging.root, *list(logging.root.manager.loggerDict.values())]
    own = {logger.name: logger.level for logger in loggers if isinstance(logger, logging.Logger) and logger.level}
    return logging.root.manager.disable, own


# ---- in the client ---------------------------------------------------------------------------------------------------

# Who wants to hear of changes.
_watchers: list[Callable[[], object]] = []


def watch(changed: Callable[[], object]) -> None:
    """Call `changed` whenever a level has changed in this process, from now on. Once, however often this is asked."""
    if changed in _watchers:
        return
    if not _watchers:
        if "logging" in sys.modules:
            _begin()
        else:
            when_imported("logging", _begin)
    _watchers.append(changed)


def _begin() -> None:
    """Whatever changes a level (`setLevel`, `basicConfig`, `disable`, `dictConfig`) has the manager of loggers forget
    what they remember of levels: the one place where all of them come by."""
    manager = sys.modules["logging"].root.manager
    forget = manager._clear_cache

    def forget_and_tell() -> None:
        forget()
        for changed in _watchers:
            changed()

    manager._clear_cache = forget_and_tell


# ---- in a worker -----------------------------------------------------------------------------------------------------


def set_levels(levels: Levels, before: Levels | None) -> None:
    """Give the loggers of this process these levels, where they are not as they were `before`: the others may have been
    changed here."""
    import logging

    disabled, own = levels
    disabled_before, own_before = before or (0, {"root": logging.WARNING})
    if disabled != disabled_before:
        logging.disable(disabled)
    for name in own_before.keys() - own.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in own.items():
        if own_before.get(name) != level:
            logging.getLogger(name).setLevel(level)
