"""What is at work in one process alone is refused by name, rather than sent as an empty shell."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.pool
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import shoal
from tests.pool import tasks


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def a_child(stack: ExitStack) -> Any:
    return stack.enter_context(subprocess.Popen([sys.executable, "-c", "pass"]))


def a_process(stack: ExitStack) -> Any:
    process = multiprocessing.get_context("spawn").Process()
    stack.callback(process.close)
    return process


ELSEWHERE = "its workers belong to this process"

AT_WORK: dict[str, tuple[Callable[[ExitStack], Any], str]] = {
    "a thread": (lambda stack: threading.Thread(), "'Thread' object: it runs in"),
    "the main thread": (lambda stack: threading.main_thread(), "'_MainThread' object: it runs in"),
    "a timer": (lambda stack: threading.Timer(1, print), "'Timer' object: it runs in"),
    "a child": (a_child, "'Popen' object: it runs in"),
    "a process": (a_process, "'SpawnProcess' object: it runs in"),
    "threads": (lambda stack: stack.enter_context(concurrent.futures.ThreadPoolExecutor(1)), ELSEWHERE),
    "an executor": (lambda stack: concurrent.futures.ProcessPoolExecutor(1), ELSEWHERE),
    "a thread pool": (lambda stack: stack.enter_context(multiprocessing.pool.ThreadPool(1)), ELSEWHERE),
    "a queue": (lambda stack: queue.Queue(), r"shoal\.Queue goes anywhere"),
    "a queue of another order": (lambda stack: queue.PriorityQueue(), r"shoal\.Queue goes anywhere"),
    "a simple queue": (lambda stack: queue.SimpleQueue(), r"shoal\.SimpleQueue goes anywhere"),
    "a future": (lambda stack: concurrent.futures.Future(), "only this process will know its result"),
}


@pytest.mark.parametrize("kind", AT_WORK)
def test_it_is_refused_with_the_path_and_the_reason(pool: shoal.Pool, stack: ExitStack, kind: str) -> None:
    make, reason = AT_WORK[kind]
    with pytest.raises(shoal.SerializationError, match=rf"self\.content\[0\]: cannot pickle .*{reason}"):
        pool.apply(tasks.same, (tasks.Holder([make(stack)]),))


def test_a_future_that_is_done_travels_with_its_outcome(pool: shoal.Pool) -> None:
    good: concurrent.futures.Future[int] = concurrent.futures.Future()
    good.set_result(3)
    bad: concurrent.futures.Future[int] = concurrent.futures.Future()
    bad.set_exception(KeyError("no"))
    assert pool.apply(lambda future: future.result(), (good,)) == 3
    with pytest.raises(KeyError, match="no"):
        pool.apply(lambda future: future.result(), (bad,))


class Silent(threading.Thread):
    """Has its own word on how it travels."""

    def __reduce__(self) -> Any:
        return Silent, ()


def test_a_class_may_know_better(pool: shoal.Pool) -> None:
    assert type(pool.apply(tasks.same, ([Silent()],))[0]) is Silent
