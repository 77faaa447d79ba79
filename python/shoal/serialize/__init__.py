"""Objects to bytes and back, between processes that need not share a `__main__`.

pickler.py      dumps and loads: the C pickler first, code by value where it must be
by_value.py     the pickler for what the C pickler can't send: lambdas, closures, everything of `__main__`
reducers.py     which types travel in a way of their own; the modules with their reducers are named in its table:
                bars, buffers, files, handlers, home, mapped, references, refusals, standard, threads
names.py        what travels by name, and which globals a piece of code refers to
function.py     when a pickled function may be used again
inherited.py    what a pool's initializer leaves in the globals of `__main__`, for the tasks
parts.py        an object taken apart in the way pickle does, with the paths to its parts
why.py          the search for the part of an object that can't be pickled
cost.py         the bytes of an object, by the paths to them
exceptions.py   the exception of a task, and its traceback, on the way back

Everything is imported when first used: a worker needs but two of these.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shoal.serialize.exceptions import dump_exception, load_exception
    from shoal.serialize.function import Snapshot, stable
    from shoal.serialize.pickler import dumps, loads

__all__ = ["Snapshot", "dump_exception", "dumps", "load_exception", "loads", "stable"]

_LAZY = {
    **dict.fromkeys(("dump_exception", "load_exception"), "exceptions"),
    **dict.fromkeys(("Snapshot", "stable"), "function"),
    **dict.fromkeys(("dumps", "loads"), "pickler"),
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'shoal.serialize' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"shoal.serialize.{module}"), name)
    globals()[name] = value
    return value
