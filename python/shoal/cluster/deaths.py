"""What an error tells of a death on another node: the task as the user knows it, and the node."""

from __future__ import annotations

import pickle
from typing import Any

from shoal.cluster.common import Blob
from shoal.cluster.target import EACH, SLICE, STAR
from shoal.cluster.task import Task
from shoal.deaths import describe
from shoal.described import loads
from shoal.errors import TaskTimeout, WorkerDied

__all__ = ["told"]


def told(task: Task, error: Any, node: str) -> Any:
    """The error of a node's pool, in which the task has the name that the user knows, and the node is named."""
    if isinstance(error, TaskTimeout):
        return TaskTimeout(described(task), error.timeout, error.pid, task.tries, error.stderr, error.traceback)
    return WorkerDied(
        error.pid,
        error.exitcode,
        described(task),
        error.stderr,
        error.cause,
        error.uptime,
        error.traceback,
        task.tries,
        tuple(task.deaths),
        node or error.node,
    )


def described(task: Task) -> str:
    """The task in a few words. None of its code runs: it may be what its worker died of."""
    what, name = task.kind & 7, task.function.name
    frames = [frame.frame if isinstance(frame, Blob) else frame for frame in task.frames]
    try:
        if what == SLICE:
            return _of_items(task, loads(task.data, buffers=frames))
        if what == EACH:
            items: list[Any] = []
            at = 0
            for data, count in pickle.loads(task.data):
                items.append(loads(data, buffers=frames[at : at + count]))
                at += count
            return _of_items(task, items)
        *_, args, kwargs = loads(task.data, buffers=frames)
        return describe(name, ("call", args, kwargs))
    except Exception:  # what matters is the death
        return name


def _of_items(task: Task, items: list[Any]) -> str:
    if task.kind & STAR and len(items) == 1:
        return describe(task.function.name, ("call", items[0], None))
    return describe(task.function.name, ("items", items, None))
