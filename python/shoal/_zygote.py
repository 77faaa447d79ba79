"""The zygote: a fresh interpreter with one thread that forks workers for its client.

Started by the engine as `python -c "…; from shoal._zygote import main; main()"` with the socket to the client as its
standard input. Everything that is imported here is paid for once, by all workers.
"""

import os
import sys

import shoal.serialize.exceptions  # noqa: F401  (every worker needs it: imported once, here)
from shoal import _engine
from shoal._worker import work
from shoal.reports.streams import prepare


def main() -> None:
    """Serve the client until it is gone."""
    socket = os.dup(0)
    os.set_inheritable(socket, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    prepare()
    try:
        zygote = _engine.Zygote(socket)
    except ProcessLookupError:
        # The program has ended before this one was there. That is nothing to tell.
        os._exit(0)
    code = 1
    try:
        zygote.ready()
        while (wish := zygote.next()) is not None:
            if isinstance(wish, bytes):
                _preload(wish.decode())
                continue
            # A child that flushes what its parent had buffered would print it twice.
            sys.stdout.flush()
            sys.stderr.flush()
            try:
                pid = os.fork()
            except OSError as error:
                zygote.failed(wish, error.errno or 0)
                continue
            if pid == 0:
                del zygote  # closes its socket here: the client must see the end of it when the zygote dies
                work(wish)
            zygote.forked(wish, pid)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # The socket closes with the process, not before: what the client finds closed and running, it ends. That would
        # look like a zygote that somebody has killed, which is started again more often.
        os._exit(code)


def _preload(name: str) -> None:
    """Import a module that workers will need. Where that fails, it will fail in the task that needs it, and say so."""
    try:
        __import__(name)
    except BaseException as error:  # also SystemExit: a module may not end the zygote
        print(f"shoal: preload of {name!r} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if _threads():
        # What a thread holds at the moment of a fork, it holds in the worker for ever.
        print(f"shoal: {name!r} starts threads when imported, do not preload it: workers may hang", file=sys.stderr)


def _threads() -> int:
    """How many there are beside this one, without that of jemalloc: Arrow brings it along, and it is made for forks."""
    main = str(os.getpid())
    others = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as name:
                others += thread != main and name.read() != "jemalloc_bg_thd\n"
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile
    return others
