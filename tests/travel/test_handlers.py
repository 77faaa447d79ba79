"""Loggers and handlers of logging."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.pool import tasks


def say(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.LogRecord("tests", logging.INFO, __file__, 1, text, (), None))


def test_a_logger_is_the_one_of_that_name(pool: shoal.Pool) -> None:
    logger = logging.getLogger("tests.travel")
    assert pool.apply(lambda logger: logger is logging.getLogger("tests.travel"), (logger,))
    assert pool.apply(tasks.same, (logger,)) is logger


def test_a_handler_keeps_its_level_format_and_filters(pool: shoal.Pool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(message)s!"))
    handler.addFilter(logging.Filter("tests"))

    def described(handler: Any) -> tuple[Any, ...]:
        record = logging.LogRecord("tests", logging.INFO, "", 1, "text", (), None)
        return handler.level, handler.format(record), handler.filter(record), handler.stream is sys.stderr

    there = pool.apply(described, (handler,))
    assert there[:2] == (logging.WARNING, "text!") and there[2] and there[3]


def test_what_workers_write_to_the_same_file_is_behind_what_is_there(pool: shoal.Pool, tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = logging.FileHandler(path, mode="w")
    say(handler, "here")
    pool.starmap(say, [(handler, f"there {i}") for i in range(4)], 1)
    say(handler, "here again")
    handler.close()
    lines = path.read_text().splitlines()
    assert lines[0] == "here" and sorted(lines) == ["here", "here again", *(f"there {i}" for i in range(4))]


def test_what_a_handler_holds_back_stays_here(pool: shoal.Pool, tmp_path: Path) -> None:
    target = logging.FileHandler(tmp_path / "log")
    handler = logging.handlers.MemoryHandler(100, target=target)
    say(handler, "here")
    pool.apply(lambda handler: handler.flush(), (handler,))
    handler.close()
    target.close()
    assert (tmp_path / "log").read_text() == "here\n"


def test_a_handler_with_a_stream_that_cannot_travel_is_refused(pool: shoal.Pool, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as file, pytest.raises(shoal.SerializationError, match=r"\.stream: .*for writing"):
        pool.apply(tasks.same, (logging.StreamHandler(file),))
