"""``shoal run``: an existing program, with shoal in the place of multiprocessing.

It runs as the interpreter would run it: the same `sys.argv`, `sys.path[0]`, `__main__`, tracebacks and exit codes.
Only that `multiprocessing`, `concurrent.futures.ProcessPoolExecutor` and joblib's default backend are shoal's, in this
process and in its workers.
"""

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import CodeType, ModuleType, TracebackType

from .helptext import HelpText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Runs a Python program as it is, as the interpreter would: the same arguments, tracebacks and exit codes. What it and
its workers import is shoal's where shoal has it: pools, queues, locks, managers and shared memory of multiprocessing,
ProcessPoolExecutor of concurrent.futures, and joblib's default backend.

Options of `shoal run` stand before the program, those of the program behind it."""
EPILOG = """\
exit status:
  that of the program; 2 if there is none to run

examples:
  shoal run train.py --epochs 3            a script, with an argument of its own
  shoal run -m package.module              a module
  shoal run -c 'import joblib; ...'        code
  shoal run --stats train.py               and where the time of its workers went
  shoal run --trace run.json train.py      and every task, for https://ui.perfetto.dev

In a program that you may change, `import shoal` and `shoal.Pool()` do the same, and more."""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the subcommand to the parser."""
    parser = commands.add_parser(
        "run",
        help="run a program with shoal in the place of multiprocessing",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpText,
        usage="shoal run [-h] [--stats] [--trace PATH] [--cluster ADDRESS]\n"
        "                 (SCRIPT | -m MODULE | -c CODE) [ARGUMENT ...]",
    )
    parser.add_argument("--stats", action="store_true", help="at the end, print where the time of each worker went")
    parser.add_argument(
        "--trace", metavar="PATH", help="write every task to this file, for https://ui.perfetto.dev or chrome://tracing"
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="run the program's pools on the machines of a Dask cluster, whose scheduler is at this address",
    )
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="a module to run, and its arguments")
    parser.add_argument("-c", dest="code", nargs=argparse.REMAINDER, help="code to run, and its arguments")
    parser.add_argument("script", nargs=argparse.REMAINDER, default=[], help="a script to run, and its arguments")
    parser.set_defaults(run=_run, parser=parser)


def _run(arguments: argparse.Namespace) -> int:
    words: Sequence[str] = arguments.module or arguments.code or arguments.script
    if not words:
        arguments.parser.error("what to run? Give a script, -m MODULE or -c CODE")
    from shoal.multiprocessing import replace

    replace.install()
    if arguments.cluster is not None:
        _on_cluster(arguments)
    if arguments.stats:
        from shoal.cli import stats

        stats.collect()
    program, *rest = words
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    try:
        with _traced(arguments):
            if arguments.module:
                _run_module(main, program, rest)
            elif arguments.code:
                _become(main, ["-c", *rest], "")
                exec(compile(program, "<string>", "exec", dont_inherit=True), vars(main))
            else:
                _run_script(main, program, rest)
    except BaseException:
        _hide_own_frames()
        raise
    return 0


def _on_cluster(arguments: argparse.Namespace) -> None:
    """Have the program's pools run on a cluster."""
    from shoal import pool
    from shoal.cluster.engine import engine_of
    from shoal.errors import ShoalError

    try:
        # What can't be reached is to be known before the program runs.
        engine_of(arguments.cluster, 30.0).drop()
    except (ShoalError, ModuleNotFoundError, ValueError) as error:
        arguments.parser.error(f"argument --cluster: {error}")
    pool.default_cluster = arguments.cluster


def _traced(arguments: argparse.Namespace) -> "AbstractContextManager[object]":
    """What records the tasks of the program, if that is wanted."""
    if arguments.trace is None:
        return nullcontext()
    from shoal.insight.trace import trace_process

    try:
        # What can't be written is to be known before the program runs.
        open(arguments.trace, "w").close()
    except OSError as error:
        arguments.parser.error(f"argument --trace: can't write {arguments.trace!r}: {error.strerror}")
    return trace_process(arguments.trace)


def _become(main: ModuleType, argv: list[str], path: str) -> None:
    """Make `main` the program of this process."""
    sys.modules["__main__"] = main
    sys.argv[:] = argv
    if not sys.flags.safe_path:
        sys.path[0] = path


def _run_module(main: ModuleType, name: str, arguments: list[str]) -> None:
    _become(main, ["-m", *arguments], os.getcwd())
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _run_script(main: ModuleType, path: str, arguments: list[str]) -> None:
    argv, path = [path, *arguments], os.path.join(os.getcwd(), path)
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        _become(main, argv, path)
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    try:
        code = _compiled(path)
    except OSError as error:
        # As the interpreter says it, and with its exit code.
        print(f"shoal run: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    _become(main, argv, os.path.dirname(os.path.realpath(path)))
    from importlib.machinery import SourceFileLoader

    main.__file__, main.__loader__ = path, SourceFileLoader("__main__", path)
    exec(code, vars(main))


def _compiled(path: str) -> CodeType:
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _hide_own_frames() -> None:
    """Let whatever prints the exception that is on its way begin with the program's frames."""
    hook = sys.excepthook

    def print_rest(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        own, frame = None, trace
        while frame is not None:
            if frame.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
                own = frame
            frame = frame.tb_next
        rest = trace if own is None else own.tb_next
        hook(kind, error.with_traceback(rest), rest)

    sys.excepthook = print_rest
