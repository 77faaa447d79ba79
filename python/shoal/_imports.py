"""Waiting for the import of a module: what a worker has to change in it is changed when somebody imports it.

Importing it for that would take milliseconds in every worker, and most never need it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["ImportWatch", "when_imported"]


def when_imported(name: str, then: Callable[[], object]) -> None:
    """Call `then`, once, as soon as the module `name` has been imported: before whoever imports it goes on."""
    sys.meta_path.insert(0, ImportWatch(name, then))


class ImportWatch:
    """An import finder that finds nothing, but is told what is looked for."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As import finders do: nothing, but for the one module."""
        if name != self._name:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load: Callable[[ModuleType], None] = spec.loader.exec_module

            def load_and_tell(module: ModuleType) -> None:
                load(module)
                # Not before: who only asks where it is to be found does not import it.
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self._then()

            spec.loader.exec_module = load_and_tell  # type: ignore[method-assign]
        return spec
