"""Log records: what a worker logs, the client's handlers get.

In a worker that has no handlers of its own, loggers end in one that sends their records to the client. There they are
handled as if the logger of that name had logged them. Where a worker has handlers, as its `initializer` may set them
up, those have the record, and the client does not get it a second time.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
from typing import Any

from shoal._engine import Reporter
from shoal.progress.door import above_bars

__all__ = ["Forwarding", "handle", "settle"]

# What arrives the same without a look at it.
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})

# What every record has.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_formatter = logging.Formatter()

_Value = tuple[bytes | None, str]


# ---- in the client ---------------------------------------------------------------------------------------------------


def handle(plain: dict[str, Any], others: dict[str, _Value]) -> None:
    """A worker has logged something: the logger of that name handles it here."""
    fields = plain | {name: _value(*value) for name, value in others.items()}
    record = logging.makeLogRecord(fields)
    if record.levelname.startswith("Level "):
        record.levelname = logging.getLevelName(record.levelno)
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.levelno):
        return
    with above_bars():
        if logger is logging.root and not logger.hasHandlers():
            # As `logging.warning` and the like print in a program that has configured nothing.
            if record.levelno >= _basic.level:
                _basic.handle(record)
        else:
            logger.handle(record)


def _value(pickled: bytes | None, shown: str) -> Any:
    """An attribute that the worker's code has added."""
    if pickled is not None:
        # What can't be had here is at least seen.
        with contextlib.suppress(Exception):
            return pickle.loads(pickled)
    return shown


_basic = logging._StderrHandler(logging.WARNING)  # type: ignore[attr-defined]  # as `lastResort`
_basic.setFormatter(logging.Formatter(logging.BASIC_FORMAT))


# ---- in a worker -----------------------------------------------------------------------------------------------------


def settle(forwarding: Forwarding | None) -> None:
    """Make it the handler of whatever has no other; None: then nobody wants the records."""
    handler: logging.Handler = forwarding or logging.NullHandler()
    logging.root.addHandler(handler)
    logging.lastResort = handler  # for loggers that do not propagate
    configure = logging.basicConfig

    def basic_config(**options: Any) -> None:
        # It does nothing where the root logger has handlers, and the user has not set one up.
        logging.root.removeHandler(handler)
        try:
            configure(**options)
        finally:
            logging.root.addHandler(handler)

    basic_config.__doc__ = configure.__doc__
    logging.basicConfig = basic_config


class Forwarding(logging.Handler):
    """Sends records to the client, but for those that another handler of this process has had."""

    def __init__(self, reporter: Reporter, process: str) -> None:
        super().__init__()
        self._reporter, self._process = reporter, process

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        try:
            if not self._is_handled_here(record.name):
                self._reporter.report(pickle.dumps(("record", *self._packed(record)), 5))
        except Exception:
            self.handleError(record)

    def _is_handled_here(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self and type(handler) is not logging.NullHandler for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False

    def _packed(self, record: logging.LogRecord) -> tuple[dict[str, Any], dict[str, _Value]]:
        """Its attributes: those that need no look, and others."""
        fields = dict(vars(record))
        fields.pop("message", None)
        if record.exc_info and not record.exc_text:
            fields["exc_text"] = _formatter.formatException(record.exc_info)
        fields["exc_info"] = None
        if type(record.msg) is not str or not _are_plain(record.args):
            fields["msg"], fields["args"] = record.getMessage(), ()
        if record.processName == "MainProcess":
            fields["processName"] = self._process
        if "taskId" not in fields:  # one that comes from a worker of this one has it
            fields["taskId"] = _task_id(self._reporter.task)
        others = {
            name: _pickled(value)
            for name, value in fields.items()
            if type(value) not in _PLAIN and name not in _STANDARD
        }
        return {name: value for name, value in fields.items() if name not in others}, others


def _are_plain(arguments: Any) -> bool:
    values = arguments.values() if isinstance(arguments, dict) else arguments or ()
    return all(type(value) in _PLAIN for value in values)


def _pickled(value: Any) -> _Value:
    try:
        return pickle.dumps(value, 5), repr(value)
    except Exception:
        return None, repr(value)


def _task_id(number: int | None) -> str | None:
    """The engine's number of a task, readable: its place among those under way, and how many have had that before."""
    return None if number is None else f"{number & 0xFFFFFFFF}.{number >> 32}"
