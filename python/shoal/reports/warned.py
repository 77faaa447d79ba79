"""Warnings: what a worker warns of, the client shows.

A worker has the client's filters: what they make an error is one there, in the task. What they let pass goes to the
client, whose filters look at it again: so what is to be shown once is shown once, however many workers warn of it.
"""

from __future__ import annotations

import _pickle as pickle
import sys
import warnings

from shoal.progress.door import above_bars

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from shoal._engine import Reporter

    # Module and qualified name.
    Name = tuple[str, str]

__all__ = ["portable_filters", "settle", "show"]


def portable_filters() -> list[tuple[Any, ...]]:
    """The filters of this process: (action, message, category by name, module, line); texts as regular expressions."""
    return [
        (action, _portable(message), _name(category), _portable(module), line)
        for action, message, category, module, line in warnings.filters
    ]


def _name(cls: Any) -> Name:
    return cls.__module__, cls.__qualname__


def _portable(text: Any) -> str:
    """A text that is looked for, as `warnings.filterwarnings` wants it."""
    if text is None:
        return ""
    if isinstance(text, str):  # of the interpreter's own filters: exactly this
        # The interpreter has one for `__main__`. A pickle with that name in it is made again by value, which loads
        # cloudpickle: that would take longer than the start of a pool.
        return text.replace(".", r"\.").replace("_", r"\_") + r"\Z"
    pattern: str = text.pattern
    return pattern


# ---- in a worker -----------------------------------------------------------------------------------------------------


def settle(reporter: Reporter, filters: list[tuple[Any, ...]] | None) -> None:
    """What is to be shown in this worker goes to its client; with None it is not shown."""
    if filters is not None and filters != portable_filters():
        _set_filters(filters)
    show_here = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            show_here(message, category, filename, lineno, file, line)
        elif filters is not None:
            names = [_name(cls) for cls in category.__mro__ if issubclass(cls, Warning)]
            report = ("warning", str(message), names, filename, lineno, line, _module_of(filename))
            reporter.report(pickle.dumps(report, 5))

    warnings.showwarning = showwarning


def _set_filters(filters: list[tuple[Any, ...]]) -> None:
    warnings.resetwarnings()
    for action, message, name, module, line in filters:
        # What is to be an error must be one here. Else the client's filter will do, should the class not be known yet.
        category = _class_of(name, action == "error")
        if category is not None:
            warnings.filterwarnings(action, message, category, module, line, append=True)


def _class_of(name: Name, load: bool = False) -> type[Warning] | None:
    """The class of that name; None if its module is not there, or has none."""
    module, path = name
    if load and module not in sys.modules:
        try:
            __import__(module)
        except ImportError:
            return None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else None


def _module_of(filename: str) -> str | None:
    """The name of the module that is warned of, which filters may ask for."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == filename:
            name: str | None = frame.f_globals.get("__name__")
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


# ---- in the client ---------------------------------------------------------------------------------------------------

# What was shown already, for each module that this process does not have.
_shown: dict[str, dict[Any, Any]] = {}

_stand_ins: dict[Name, type[Warning]] = {}


def show(text: str, names: list[Name], filename: str, lineno: int, line: str | None, module: str | None) -> None:
    """A worker warns of something: shown here if the filters say so."""
    warning = _made(text, names)
    known = sys.modules.get(module or "")
    if known is not None:
        registry = vars(known).setdefault("__warningregistry__", {})
    else:
        registry = _shown.setdefault(module or filename, {})
    with above_bars():
        try:
            warnings.warn_explicit(warning, type(warning), filename, lineno, module, registry)
        except Warning:
            # They have come to make it an error, too late for the task: then it is at least seen.
            warnings.showwarning(warning, type(warning), filename, lineno, None, line)


def _made(text: str, names: list[Name]) -> Warning:
    """The warning again; of a class that looks like it, if its own is not to be had here."""
    category = _class_of(names[0])
    if category is not None:
        try:
            warning = category(text)
            if str(warning) == text:
                return warning
        except Exception:  # it wants to be made in another way
            pass
    if names[0] not in _stand_ins:
        module, path = names[0]
        base = next(
            (cls for cls in map(_class_of, names[1:]) if cls is not None and cls.__module__ == "builtins"), Warning
        )
        _stand_ins[names[0]] = type(
            path.rpartition(".")[2], (base,), {"__module__": module, "__str__": lambda self: self.args[0]}
        )
    return _stand_ins[names[0]](text)
