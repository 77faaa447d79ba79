"""Puts shoal in the place of `multiprocessing`, process executors and joblib's default backend.

For programs that are run by `shoal run`, in their process and in the workers of their pools. Nothing is imported ahead:
a hook waits until the program imports one of these, lets the original be loaded, and then puts a module in its place
that has shoal's names and, for all others, those of the original. What the standard library does inside goes on with
the originals, which it imports from the modules that are not replaced.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from shoal.multiprocessing import _OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from typing import Any

__all__ = ["install", "is_installed"]


class ShoalFinder:
    """Finds what is to be replaced, and nothing else. First in `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The original's spec, with a loader that replaces the module when it has been loaded."""
        after = _AFTER.get(name)
        if after is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, after)  # type: ignore[assignment]
        return spec


class _Loader:
    def __init__(self, loader: Loader, after: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._after = after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module is the original's in all respects, for those who ask for its source.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._after(module)


def _stand_in(module: ModuleType) -> None:
    """A module in the place of `module` and of its name: what `shoal.multiprocessing` has, and the original's rest."""
    ours = f"shoal.{module.__name__}"

    def look_up(name: str) -> Any:
        if name.startswith("__"):
            return getattr(module, name)
        if module.__name__ == "multiprocessing" and name in _OURS:
            # Not ours, but what has that name: these modules import each other by it.
            return import_module(f"multiprocessing.{name}")
        try:
            return getattr(import_module(ours), name)
        except AttributeError:
            return getattr(module, name)

    stand_in = ModuleType(module.__name__, module.__doc__)
    for name in ("__file__", "__loader__", "__package__", "__path__", "__spec__", "__all__"):
        if name in vars(module):
            setattr(stand_in, name, getattr(module, name))
    stand_in.__original__ = module  # type: ignore[attr-defined]
    stand_in.__getattr__ = look_up  # type: ignore[method-assign]
    stand_in.__dir__ = lambda: sorted({*vars(stand_in), *dir(module)})  # type: ignore[method-assign]
    sys.modules[module.__name__] = stand_in


def _part(module: ModuleType) -> None:
    # It took this from the package, and wants what goes with its own processes and queues.
    if hasattr(module, "get_context"):
        from shoal.multiprocessing.originals import original

        module.get_context = original("multiprocessing").get_context  # type: ignore[attr-defined]
    _stand_in(module)


def _executor(module: ModuleType) -> None:
    del module.ProcessPoolExecutor

    def look_up(name: str) -> Any:
        if name == "ProcessPoolExecutor":
            from shoal.executor import Executor

            module.ProcessPoolExecutor = Executor  # type: ignore[attr-defined]
            return Executor
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = look_up  # type: ignore[method-assign]


def _joblib(module: ModuleType) -> None:
    import_module("shoal.joblib").register(make_default=True)


_AFTER: dict[str, Callable[[ModuleType], None]] = {
    "multiprocessing": _stand_in,
    "multiprocessing.managers": _part,
    "multiprocessing.pool": _part,
    "multiprocessing.shared_memory": _stand_in,
    "concurrent.futures.process": _executor,
    "joblib": _joblib,
}


def install() -> None:
    """Replace what is imported from now on. Again is no harm.

    Raises:
        RuntimeError: one of these has been imported already.
    """
    if is_installed():
        return
    there = [name for name in _AFTER if name in sys.modules]
    if there:
        raise RuntimeError(f"{there[0]} has been imported already: whoever did so would go on with the original")
    sys.meta_path.insert(0, ShoalFinder)


def is_installed() -> bool:
    """Whether programs of this process get shoal for multiprocessing."""
    return ShoalFinder in sys.meta_path
