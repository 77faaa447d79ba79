"""Which records are wanted: the levels of the client's loggers, as its workers know them.

A record that nobody would handle is not made. So a worker's loggers have the levels of the client's: those that it had
when the pool was made, and when a level changes there, from the next task on the new ones (`PoolBase.leave_notice`).
"""

from __future__ import annotations

import sys

from shoal._imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # What is disabled for all, and the levels of loggers that have one of their own.
    Levels = tuple[int, dict[str, int]]

__all__ = ["levels", "set_levels", "watch"]


def levels() -> Levels | None:
    """Those of this process; None of one that has not imported logging, and so not configured it."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    loggers = [logging.root, *list(logging.root.manager.loggerDict.values())]
    # Plain numbers: somebody may have levels that are more, of a class that workers don't have.
    own = {logger.name: int(logger.level) for logger in loggers if isinstance(logger, logging.Logger) and logger.level}
    return int(logging.root.manager.disable), own


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
    logging = sys.modules["logging"]
    manager = logging.root.manager
    forget = manager._clear_cache

    def forget_and_tell() -> None:
        forget()
        with logging._lock:  # who comes last tells what is latest; after a fork logging makes it anew
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
