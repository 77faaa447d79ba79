"""What multiprocessing calls a worker. Programs ask it who they are, and whether they are the main process.

A worker of `multiprocessing.Pool` is a process that the package has started, and so has a name, a number and a parent
there. Shoal's workers come from a zygote, which has not: they are told what their client is called, and settle in.
"""

from __future__ import annotations

import os
import sys

from shoal._imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # A process as multiprocessing knows it: its pid, its name, and its number, behind that of its parent if it has one.
    Identity = tuple[int, str, tuple[int, ...]]

__all__ = ["identity", "settle"]

_PROCESS = "multiprocessing.process"

# What this process is called while nobody has imported multiprocessing: a worker is told, any other is the main one.
_name: str = "MainProcess"
_numbers: tuple[int, ...] = ()


def identity() -> Identity:
    """This process."""
    process: Any = sys.modules.get(_PROCESS)
    if process is None:
        return os.getpid(), _name, _numbers
    this = process.current_process()
    return os.getpid(), this.name, this._identity


def settle(number: int, client: Identity) -> None:
    """In a worker: be a child of the client, once multiprocessing is there. Mostly nobody imports it.

    Args:
        number: the worker's place in its pool, from 0.
        client: what `identity` said there.
    """
    global _name, _numbers
    pid, name, numbers = client
    # From 1, as there: programs take one off to have an index.
    _name, _numbers = f"shoal-worker-{number}", (*numbers, number + 1)

    def be_a_child() -> None:
        process: Any = sys.modules[_PROCESS]
        this = process.current_process()
        this._name, this._identity, this._parent_pid = _name, _numbers, pid
        try:
            sentinel = os.pidfd_open(pid)
        except ProcessLookupError:  # the client is gone, and this worker will be
            return
        process._parent_process = process._ParentProcess(name, pid, sentinel)

    if _PROCESS in sys.modules:
        be_a_child()
    else:
        when_imported(_PROCESS, be_a_child)
