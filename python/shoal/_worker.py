"""What a worker process does: settles in as its pool wants it, then runs tasks until the pool is over."""

from __future__ import annotations

import atexit
import os
import sys

from shoal import _engine
from shoal.progress.ordinary import take_over

TYPE_CHECKING = False  # type checkers know the name; importing it from typing takes time at every start
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from shoal.progress.door import Address

# Where the bars of this worker are drawn; None in a zygote.
screen: Address | None = None


def work(seat: _engine.Seat) -> NoReturn:
    """Be the worker of `seat`; does not return.

    Args:
        seat: what the zygote forked this process for.
    """
    code = 1
    try:
        worker = _engine.Seated(seat)
        code = _serve(worker)
    except SystemExit as exit:
        code = _exit_code(exit)
    except BrokenPipeError:
        # The client has gone in the middle of a start: nobody is left to be told.
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(code)


def _serve(worker: _engine.Seated) -> int:
    setup: Any = worker.setup()
    global screen
    directory, path, argv, environment, most, screen = setup
    os.chdir(directory)
    sys.path[:] = path
    sys.argv[:] = argv
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    take_over(screen)
    if sys.stdout.isatty() or sys.stderr.isatty():
        from shoal.progress.output import install

        install(screen)
    try:
        initializer: Any = worker.initializer()
        if initializer is not None:
            function, arguments = initializer
            function(*arguments)
    except SystemExit:
        raise
    except BaseException as error:
        # The next task of this worker gets the error, and the next worker tries again.
        error.add_note("raised by the pool's initializer")
        worker.fail_one(error)
        return 0
    worker.run(most)
    return 0


def _exit_code(exit: SystemExit) -> int:
    """The code that the interpreter would exit with."""
    if exit.code is None:
        return 0
    if isinstance(exit.code, int):
        return exit.code & 0xFF
    print(exit.code, file=sys.stderr)
    return 1


def _leave(code: int) -> NoReturn:
    """End the process as multiprocessing does: exit functions, flushed streams, no teardown of the interpreter."""
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
