"""The exception of a task on its way back: as itself if it can be pickled and unpickled, else as a stand-in.

What travels is plain data around a pickle of the exception, so that its name, message and traceback arrive even if the
exception does not. The traceback becomes text; frames of shoal's own are left out, as they say nothing about the task.
Lines of source that the worker could not read, as those of a notebook's cells, are added where it arrives.
"""

from __future__ import annotations

import _pickle as pickle  # as in pickler.py
import os
from collections.abc import Iterator

from shoal.serialize.pickler import PROTOCOL, dumps, loads

TYPE_CHECKING = False  # type checkers know the name; importing it from typing takes longer than this module
if TYPE_CHECKING:
    from traceback import TracebackException

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def dump_exception(exc: BaseException) -> bytes:
    """Pickle the exception that a task raised, with its traceback as text.

    An exception that can't be pickled, or that can't be unpickled even here, is replaced by a stand-in.

    Args:
        exc: the exception, with the traceback that it was caught with.

    Returns:
        What `load_exception` takes.

    Example:
        try:
            task()
        except BaseException as exc:
            send(dump_exception(exc))
    """
    pickled: bytes | None
    try:
        pickled = dumps(exc, "exception")
        loads(pickled)  # a trial: many classes pickle well, but their constructors want other arguments
    except BaseException as error:
        _let_interrupts_through(error)
        pickled = None
    return pickle.dumps((pickled, _type_name(type(exc)), _message(exc), _traceback(exc)), PROTOCOL)


def add_note(exc: BaseException, note: str) -> None:
    """Add a note to the exception of a task; one that refuses assignments, as a frozen dataclass does, goes without.

    Args:
        exc: the exception.
        note: a line for its traceback.
    """
    try:
        exc.add_note(note)
    except Exception:
        # Forced upon it, the note would come back as an assignment when the exception is unpickled, and be its end.
        return


def load_exception(data: bytes | memoryview) -> BaseException:
    """The exception that `dump_exception` pickled, with the text of its traceback as the cause.

    Never raises because of what the data contains.

    Args:
        data: what `dump_exception` returned, or a view of it.

    Returns:
        The exception, or a `RemoteError` in its place if it can't be rebuilt. `__cause__` is a `RemoteTraceback`.

    Example:
        raise load_exception(data)
    """
    from shoal.errors import RemoteError, RemoteTraceback

    try:
        pickled, type_name, message, text = pickle.loads(data)
    except Exception as error:
        pickled, type_name, text = None, "unknown exception", ""
        message = f"the record of what a task raised can't be read ({type(error).__name__}: {error})"
    exc = _unpickled(pickled)
    text = _with_lines(text)
    if exc is None:
        exc = RemoteError(type_name, message, text)
    # Not `exc.__cause__ = …`: a frozen dataclass, for one, refuses assignments to its attributes.
    BaseException.__setattr__(exc, "__cause__", RemoteTraceback(text))
    return exc


def _with_lines(text: str) -> str:
    """A traceback with the lines of source that this process knows and the worker did not: there are no such files."""
    import linecache
    import re

    def with_line(frame: re.Match[str]) -> str:
        path, number = frame["path"], int(frame["number"])
        line = linecache.getline(path, number).strip() if path in linecache.cache else ""
        return f"{frame[0]}{frame['margin']}  {line}\n" if line else frame[0]

    # A frame that nothing further in follows.
    bare = r'^(?P<margin>[ |]*  )File "(?P<path>[^"\n]+)", line (?P<number>\d+), in .*\n(?!(?P=margin)  )'
    return re.sub(bare, with_line, text, flags=re.MULTILINE)


def _unpickled(pickled: bytes | None) -> BaseException | None:
    """The exception itself; None if it can't be had in this process."""
    if pickled is None:
        return None
    try:
        exc = loads(pickled)
    except BaseException as error:
        _let_interrupts_through(error)
        return None
    return exc if isinstance(exc, BaseException) else None


def _let_interrupts_through(error: BaseException) -> None:
    """Raise Ctrl-C again: it is meant for this process. The constructor of an exception may raise anything else."""
    if isinstance(error, KeyboardInterrupt):
        raise error


def _type_name(cls: type) -> str:
    """The name of an exception's class, as the interpreter prints it."""
    module = cls.__module__
    return cls.__qualname__ if module in ("builtins", "__main__") else f"{module}.{cls.__qualname__}"


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:  # code of the user's; the traceback says the same in its last line
        return f"<str() of it raised {type(error).__name__}>"


def _traceback(exc: BaseException) -> str:
    """The traceback of `exc`, and of the exceptions that led to it, as text without shoal's own frames."""
    from traceback import StackSummary, TracebackException

    try:
        whole = TracebackException(type(exc), exc, exc.__traceback__, compact=True)
        for part in _linked(whole):
            part.stack = StackSummary.from_list([f for f in part.stack if not f.filename.startswith(_PACKAGE)])
        return "".join(whole.format())
    except Exception as error:  # a traceback that can't be had must not cost the user the exception
        return f"{_type_name(type(exc))}: {_message(exc)}\n(no traceback: {type(error).__name__}: {error})\n"


def _linked(whole: TracebackException) -> Iterator[TracebackException]:
    """`whole`, its causes and contexts, and the members of groups."""
    waiting: list[TracebackException | None] = [whole]
    while waiting:
        part = waiting.pop()
        if part is not None:
            yield part
            waiting += [part.__cause__, part.__context__, *(part.exceptions or ())]
