"""The errors of shoal.

Every error derives from `ShoalError` and also from the class that the standard library raises in the same situation,
so that existing `except` clauses go on working. All of them keep their attributes through pickle.

Importing this imports next to nothing: a task's end is told at once, also where no descriptor is left to read a module
with. `BrokenProcessPool` brings all of multiprocessing along, 20 ms; so it joins the family when somebody imports it,
see the end of this file. Before, nobody can ask for it.
"""

from __future__ import annotations

import _pickle as pickle  # the modules around these two take milliseconds
import _signal  # type: ignore[import-not-found]
import functools
import sys

from shoal._imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool
    from typing import Any
else:
    BrokenProcessPool = RuntimeError

__all__ = [
    "LockAbandoned",
    "OutOfSharedMemory",
    "PoolClosed",
    "RemoteError",
    "RemoteTraceback",
    "SerializationError",
    "ShoalError",
    "TaskTimeout",
    "WorkerDied",
]


class ShoalError(Exception):
    """The base of all errors that shoal itself raises.

    Example:
        >>> try:
        ...     pool.apply(os._exit, (3,))
        ... except shoal.ShoalError as error:
        ...     print("shoal could not do it:", type(error).__name__)
        shoal could not do it: WorkerDied
    """


class WorkerDied(ShoalError, BrokenProcessPool):
    """The process that ran a task ended before the task did. Other tasks go on, and the pool replaces the worker.

    Args:
        pid: the process id of the worker.
        exitcode: its exit code; negative for the signal that killed it (-9 for SIGKILL), as in `multiprocessing`;
            None if it isn't known.
        task: the task in a few words, such as `"f(3, 'x')"`; empty if it isn't known.
        stderr: the last lines that the worker wrote to stderr, at most 20.
        cause: why it was killed, if somebody knows: the kernel for want of memory, or the pool for a limit that it has.
        uptime: how long the worker had lived, in seconds; None if it isn't known.
        traceback: the Python stack at the moment of the crash, or when it was ended for `worker_memory_limit`, as
            `faulthandler` tells it; empty if there is none.
        tries: how often the task was tried. More than once, every time or the last times, with `retries`.
        earlier: how earlier tries of it ended their workers, as text.
        node: where that was, for a pool on a cluster; empty on this machine. `pid` is 0 if all of the node is lost.

    All of them are attributes.

    Example:
        >>> future = pool.submit(os._exit, 3)
        >>> try:
        ...     future.result()
        ... except shoal.WorkerDied as death:
        ...     print(death.task, "ended with", death.exitcode)
        _exit(3) ended with 3
    """

    def __init__(
        self,
        pid: int,
        exitcode: int | None = None,
        task: str = "",
        stderr: str = "",
        cause: str = "",
        uptime: float | None = None,
        traceback: str = "",
        tries: int = 1,
        earlier: tuple[str, ...] = (),
        node: str = "",
    ) -> None:
        _name_broken_executors()
        # The arguments are `args`, which is what an exception pickles.
        super().__init__(pid, exitcode, task, stderr, cause, uptime, traceback, tries, earlier, node)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task
        self.stderr = stderr
        self.cause = cause
        self.uptime = uptime
        self.traceback = traceback
        self.tries = tries
        self.earlier = earlier
        self.node = node

    def __str__(self) -> str:
        text = f"worker {self.pid} {_ending(self.exitcode)}" if self.pid else "its node was lost"
        if self.node:
            text = f"node {self.node}: {text}"
        if self.uptime is not None:
            text += f" after {self.uptime:.3g} s"
        if self.task:
            text += f" while running {self.task}"
        if self.cause:
            text += f": {self.cause}"
        if self.traceback:
            text += f"; its last stack was:\n{self.traceback.rstrip()}"
        if self.stderr:
            text += f"; its last words on stderr were:\n{self.stderr.rstrip()}"
        if self.tries > 1:
            text += f"\nThe task was given up after {self.tries} tries."
        if self.earlier:
            text += " Before, " + "\nand ".join(self.earlier)
        return text


def _ending(exitcode: int | None) -> str:
    """How a process with this exit code ended, as the middle of a sentence."""
    if exitcode is None:
        return "ended, nobody knows how,"
    if exitcode >= 0:
        return f"ended with exit code {exitcode} (os._exit or sys.exit)"
    # Of real-time signals only the first and the last have names; those of two names are told by the first.
    names = [name for name, number in vars(_signal).items() if name.startswith("SIG") and number == -exitcode]
    name = f" ({min(names)})" if names else ""
    return f"was killed by signal {-exitcode}{name}"


class TaskTimeout(ShoalError, TimeoutError):
    """A task ran for longer than its `timeout` and was stopped, by ending its worker. Other tasks go on.

    Args:
        task: the task in a few words, such as `"f(3, 'x')"`.
        timeout: how long it might take, in seconds.
        pid: the process id of the worker that was ended.
        tries: how often the task was tried.
        stderr: the last lines that the worker wrote to stderr, at most 20.
        traceback: where the task was, as `faulthandler` tells a Python stack; empty if it isn't known.

    All of them are attributes.

    Example:
        >>> try:
        ...     pool.apply(time.sleep, (60,), timeout=0.1)
        ... except shoal.TaskTimeout as error:
        ...     print(error.task, "took longer than", error.timeout, "s")
        sleep(60) took longer than 0.1 s
    """

    def __init__(
        self,
        task: str,
        timeout: float | None = None,
        pid: int | None = None,
        tries: int = 1,
        stderr: str = "",
        traceback: str = "",
    ) -> None:
        # A TimeoutError is an OSError, which would take several arguments for an error number and file names.
        super().__init__(task)
        self.task = task
        self.timeout = timeout
        self.pid = pid
        self.tries = tries
        self.stderr = stderr
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[TaskTimeout], tuple[object, ...]]:
        return type(self), (self.task, self.timeout, self.pid, self.tries, self.stderr, self.traceback)

    def __str__(self) -> str:
        if self.timeout is None:
            return self.task
        text = f"{self.task} took longer than {self.timeout:g} s and was stopped, with worker {self.pid}"
        if self.tries > 1:
            text += f", at each of {self.tries} tries"
        if self.traceback:
            text += f"; it was at:\n{self.traceback.rstrip()}"
        if self.stderr:
            text += f"; its last words on stderr were:\n{self.stderr.rstrip()}"
        return text


class SerializationError(ShoalError, pickle.PicklingError):
    """An object can't travel to another process. The message names the path to the part that can't.

    `__cause__` is the exception that pickle, or a `__reduce__` or `__getstate__` of the object, raised.

    Example of a message:
        argument 0 of Extractor.extract: self.conn.sock: cannot pickle 'socket' object
    """


class OutOfSharedMemory(ShoalError, MemoryError):
    """The machine, or the limit that was set, has no room for another block of shared memory."""

    # The standard way under a name of its own. tblib, which Dask loads, makes anew what has no `__reduce__` in another
    # way, which a `MemoryError` does not bear.
    def __reduce__(self) -> str | tuple[Any, ...]:
        return super().__reduce__()


class LockAbandoned(ShoalError):
    """The process that held a lock died holding it: what the lock guards may be half changed.

    Raised by `acquire` of a `Lock` or `RLock` that was made with `raise_abandoned=True`, for everybody until somebody
    has taken it with `repair`. Other locks pass on, and tell it by their attribute `abandoned`.

    Example:
        >>> lock = shoal.Lock(raise_abandoned=True)
        >>> try:
        ...     lock.acquire()
        ... except shoal.LockAbandoned:
        ...     lock.repair()
        ...     table[:] = 0
        True
    """


class PoolClosed(ShoalError, ValueError, BrokenProcessPool):
    """The pool takes no more tasks: it was closed, terminated, or belongs to the parent of this forked process.

    Also the error of tasks that were not done when it was terminated. A `ValueError`, as `multiprocessing.Pool` raises;
    and a `BrokenProcessPool`, which is a `RuntimeError`, as executors raise.
    """

    def __init__(self, *args: object) -> None:
        _name_broken_executors()
        super().__init__(*args)


class RemoteError(ShoalError):
    """Stands in for the exception of a task that could not be pickled, or not be unpickled here.

    Args:
        type_name: the name of the exception's class, with its module unless that is `builtins` or `__main__`.
        message: what `str()` of the exception gave.
        traceback: the traceback as text, as the interpreter would have printed it where the task ran.
    """

    def __init__(self, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class RemoteTraceback(Exception):
    """The traceback of a task as text: the `__cause__` of the exception that the task raised, so that it is printed.

    Args:
        tb: the traceback as text.
    """

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


def _name_broken_executors() -> None:
    """A program that has `concurrent.futures` may say `concurrent.futures.process.BrokenProcessPool` about an error: an
    executor of the standard library would have imported that."""
    if "concurrent.futures" in sys.modules and "concurrent.futures.process" not in sys.modules:
        try:
            import concurrent.futures.process  # noqa: F401
        except (OSError, ImportError, RuntimeError):
            pass  # no descriptor is left, or the interpreter ends: what has happened can be said without it


def _broken_executors(module: str, name: str) -> None:
    """What executors raise when they are broken has been imported: errors that are a `RuntimeError` are that, too."""
    family = getattr(__import__(module, fromlist=[name]), name)
    for error in (WorkerDied, PoolClosed):
        *others, _ = error.__bases__
        error.__bases__ = (*others, family)


# One derives from the other, and its module needs that of the other.
for _module, _name in (
    ("concurrent.futures._base", "BrokenExecutor"),
    ("concurrent.futures.process", "BrokenProcessPool"),
):
    if _module in sys.modules:
        _broken_executors(_module, _name)
    else:
        when_imported(_module, functools.partial(_broken_executors, _module, _name))
