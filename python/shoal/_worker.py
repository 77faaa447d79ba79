"""What a worker process does: settles in as its pool wants it, then runs tasks until the pool is over."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps, without enumerations that take a millisecond
import atexit
import faulthandler
import os
import sys

from shoal import _budget, _engine, _identity
from shoal.progress.ordinary import take_over
from shoal.reports.worker import settle
from shoal.serialize.inherited import run_initializer

TYPE_CHECKING = False  # type checkers know the name; importing it from typing takes time at every start
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from shoal.progress.door import Address

# Where the bars of this worker are drawn; None in a zygote.
screen: Address | None = None


# Its place in its pool; None in a zygote.
number: int | None = None

# The pid of the first process of the family that this worker belongs to; see `shoal.multiprocessing.ledger`.
family: int | None = None


def work(seat: _engine.Seat) -> NoReturn:
    """Be the worker of `seat`; does not return.

    Args:
        seat: what the zygote forked this process for.
    """
    code = 1
    try:
        worker = _engine.Seated(seat)
        # Should it crash, the client is to know where: what is written to stderr is kept.
        faulthandler.enable(file=2, all_threads=False)
        # Told to end by this signal, it says there where it is; the handler before this one, the kernel's, ends it.
        faulthandler.register(_engine.LAST_WORD, file=2, all_threads=False, chain=True)
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
    global family, number, screen
    number = worker.number
    directory, path, argv, environment, share, cpus, most, most_memory, told, family, screen, client = setup
    if cpus:
        os.sched_setaffinity(0, cpus[worker.number % len(cpus)])
    # Whoever asks whether the interpreter still runs is answered by it. System calls go on where they can.
    _signal.signal(_signal.SIGURG, worker.answerer())
    _signal.siginterrupt(_signal.SIGURG, False)
    if directory is not None:
        try:
            os.chdir(directory)
        except FileNotFoundError:
            pass  # gone since the pool was made: a task that needs it will say so, and most don't
    sys.path[:] = path
    sys.argv[:] = argv
    zygote = dict(os.environ)
    for name in zygote.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    _budget.settle(share, zygote)
    _identity.settle(worker.number, client)
    notice = settle(worker.reporter(), worker.number, told)
    take_over(screen)
    if sys.stdout.isatty() or sys.stderr.isatty():
        from shoal.progress.output import install

        install(screen)
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        # As `random` does by itself: all that the zygote forks would draw the same.
        numpy_random.seed()
    try:
        run_initializer(worker.initializer)
    except SystemExit:
        raise
    except BaseException as error:
        # The next task of this worker gets the error, and the next worker tries again.
        from shoal.serialize.exceptions import add_note

        add_note(error, "raised by the pool's initializer")
        worker.fail_one(error)
        return 0
    worker.run(most, most_memory, notice)
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
