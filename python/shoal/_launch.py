"""How the zygote is started, and what workers are told about their client."""

from __future__ import annotations

import os
import sys

from shoal import _budget
from shoal._identity import identity
from shoal.progress.door import door, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shoal.reports.client import Settings

# Everything that `sys.meta_path` holds in an interpreter without import hooks of its own. The hook of setuptools only
# concerns `import distutils`, that of shoal's workers only tqdm.
_PLAIN_FINDERS = frozenset(
    {
        "BuiltinImporter",
        "FrozenImporter",
        "PathFinder",
        "DistutilsMetaFinder",
        "ShoalFinder",
        "ImportWatch",
        "_SixMetaPathImporter",
    }
)


def command() -> tuple[str, list[str], list[tuple[str, str]]]:
    """The program, arguments and additional environment of the zygote.

    It gets the client's `sys.path` and prefixes rather than running `site` again, which can take longer than all the
    rest of its start. If the client has import hooks (an editable install, say), `site` runs, as it made them.
    """
    paths = _paths()
    start = f"import sys; sys.path[:] = {paths!r}; "
    flags = _interpreter_flags()
    if all(_finder_name(finder) in _PLAIN_FINDERS for finder in sys.meta_path):
        flags.append("-S")
        start += f"sys.prefix, sys.exec_prefix = {sys.prefix!r}, {sys.exec_prefix!r}; "
    if _is_run():
        start += "from shoal.multiprocessing.replace import install; install(); "
    start += "from shoal._zygote import main; main()"
    return sys.executable, [*flags, "-c", start], list(_budget.zygote().items())


def expect_workers() -> None:
    """Start the zygote of a program that is run by `shoal run` and will probably make a pool: it is ready by then."""
    if _is_run() and "shoal._worker" not in sys.modules:
        from shoal import _engine

        _engine.start_zygote(*command(), preloaded([], {}))


def setup(
    share: dict[str, str], cpus: list[list[int]], most: int | None, most_memory: int | None, told: Settings
) -> tuple[object, ...]:
    """What every worker of a pool is told, for `shoal._worker`: as a forked child it would have inherited it.

    Args:
        share: its share of the CPUs, for `shoal._budget`.
        cpus: those of each worker, in turn; none for whatever the process may use.
        most: tasks after which a worker is replaced.
        most_memory: bytes of memory of its own, with more of which a worker is replaced after a task.
        told: what it is to report, see `shoal.reports`.
    """
    argv = list(getattr(sys, "argv", [""]))
    # Bars of workers of workers, too, are drawn by the first client.
    screen = home() or door().address
    itself = directory(), _paths(), argv, dict(os.environ)
    return *itself, share, cpus, most, most_memory, told, _family(), screen, identity()


def directory() -> str | None:
    """The one this process is in; None if somebody has removed that."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _paths() -> list[str]:
    """Where this process looks for modules. The directory that it is in goes by its name, if it has one."""
    here = directory()
    return [path for entry in sys.path if isinstance(entry, str) and (path := entry or here)]


def preloaded(names: list[str], share: dict[str, str]) -> list[bytes]:
    """The modules for the zygote to import.

    What the user names; numpy if the client has it; what loads code by value if the main module has any; and what sends
    log records if that imports logging in any case, or the client logs.
    """
    # Not if numpy is to have threads: they would start in the zygote, which must have one when it forks.
    likely = ["numpy"] if "numpy" in sys.modules and _budget.threads() == {"1"} else []
    if likely and _budget.differs({**os.environ, **_budget.zygote()}, {**os.environ, **share}):
        likely.append("threadpoolctl")
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    # Other objects may make of the question what they like: a module that loads itself, that its moment has come.
    named = [value for value in main.values() if isinstance(value, (type, type(preloaded)))]
    if any(getattr(value, "__module__", None) == "__main__" for value in named):
        likely += ["shoal.serialize.by_value", "shoal.reports.records"]
    elif "logging" in sys.modules and sys.modules["logging"].root.handlers:
        likely.append("shoal.reports.records")
    if "shoal.multiprocessing.shared_memory" in sys.modules:
        likely.append("shoal.multiprocessing.shared_memory")
    return [name.encode() for name in dict.fromkeys([*likely, *names])]


def _is_run() -> bool:
    """Whether this is a program in which shoal is in the place of multiprocessing."""
    replace = sys.modules.get("shoal.multiprocessing.replace")
    return replace is not None and replace.is_installed()


def _family() -> int | None:
    """The process that segments with a name belong to, if the program makes any; see `multiprocessing.ledger`."""
    ledger = sys.modules.get("shoal.multiprocessing.ledger")
    if ledger is not None:
        head: int = ledger.head()
        return head
    worker = sys.modules.get("shoal._worker")
    return worker.family if worker is not None else None


def _finder_name(finder: object) -> str:
    return getattr(finder, "__name__", type(finder).__name__)


def _interpreter_flags() -> list[str]:
    """Options of the client that change what code does: those of -X and -W, -O, -b, -B, -u, and isolation."""
    flags = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    flags += [f"-W{option}" for option in sys.warnoptions]
    for attribute, letter in (("optimize", "O"), ("bytes_warning", "b"), ("dont_write_bytecode", "B")):
        flags += [f"-{letter}"] * int(getattr(sys.flags, attribute))
    if sys.flags.isolated:
        flags.append("-I")
    else:
        flags += ["-E"] * sys.flags.ignore_environment + ["-s"] * sys.flags.no_user_site
    return flags
