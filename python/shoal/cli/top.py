"""``shoal top``: what all pools of this user on this machine are at."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict

from shoal._text import at, size, table

from .helptext import HelpText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from shoal.insight.outside import ClientSeen, Onlooker, PoolSeen, Seen, WorkerSeen

DESCRIPTION = """\
Shows the pools of all your processes on this machine, whatever program has them: what each worker is at and for how
long, its CPU, its memory, the shared memory that it holds; for each pool how many tasks it ends a second, how many
wait, how busy its workers are; for each process its shared memory. Once a second, until Ctrl-C.

Nothing has to be switched on in these programs, and they notice nothing: the counters lie in shared memory, where
`shoal top` reads them."""
EPILOG = """\
columns:
  task     the function that runs, and for how long this call of it has
  used     the share of the time that went to tasks, over the last interval; of a pool, of all its workers
  CPU      of the process: 100 % is one CPU. Much less than `used`: the function waits, for a disk or a lock
  private  memory that the process has to itself
  leases   blocks of shared memory that it holds, and their bytes; what two hold counts for both

what to look for:
  queued 0 and used low         the program gives its pool too little to do: see pool.explain()
  tasks/s high and used low     tasks are too small: let each call do more
  one worker busy, others idle  one long task at the end: begin with the long ones
  used high and CPU low         tasks wait rather than compute: more workers, or threads
  private that only grows       maxtasksperchild=, or worker_memory_limit=

examples:
  shoal top               all of them, live (needs rich: pip install 'shoal[top]')
  shoal top 4711          those of one program
  shoal top --once        one look, as text; likewise if the output is no terminal
  shoal top --json        one look, for a program to read"""

_HEAD = ("#", "pid", "state", "task", "for", "used", "CPU", "private", "leases", "shared", "tasks")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``top`` to the commands of ``shoal``."""
    parser = subparsers.add_parser(
        "top",
        help="what the pools of all your processes are at, live",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpText,
    )
    parser.add_argument("pids", metavar="PID", nargs="*", type=int, help="processes that have pools; all by default")
    parser.add_argument("--once", action="store_true", help="print one look and end")
    parser.add_argument("--json", action="store_true", help="the same as JSON: times in seconds, sizes in bytes")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="between two looks, and what rates are of; 1.0",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Shows, and returns the exit status: 0, or 2 if the live view needs what is not installed."""
    from shoal.insight.outside import Onlooker

    onlooker = Onlooker(arguments.pids)
    try:
        if arguments.once or arguments.json or not sys.stdout.isatty():
            # Rates need two looks.
            onlooker.look()
            time.sleep(arguments.interval)
            seen = onlooker.look()
            print(json.dumps(asdict(seen), indent=2) if arguments.json else text(seen), flush=True)
            return 0
        return _live(onlooker, arguments.interval)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever reads has had enough, as `head` has. The interpreter is not to write the rest to them at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def text(seen: Seen) -> str:
    """One look, as text."""
    parts = []
    for client in seen.clients:
        parts.append(_about_client(client))
        for pool in client.pools:
            rows = table(_HEAD, [_row(worker) for worker in pool.workers])
            parts.append("\n".join(["  " + _about_pool(pool), *("    " + line for line in rows.splitlines())]))
    return "\n\n".join([*parts, *_notes(seen)])


def _live(onlooker: Onlooker, interval: float) -> int:
    try:
        from rich.live import Live
    except ModuleNotFoundError:
        print("shoal top needs rich: pip install 'shoal[top]'; shoal top --once does without", file=sys.stderr)
        return 2
    with Live(_drawn(onlooker.look()), screen=True, auto_refresh=False) as live:
        # Short, as there are no rates before the second look.
        time.sleep(min(interval, 0.2))
        while True:
            live.update(_drawn(onlooker.look()), refresh=True)
            time.sleep(interval)


_STYLES = {"busy": "green", "stopped": "bold red", "starting": "yellow", "gone": "red"}


def _drawn(seen: Seen) -> Group:
    """The same for rich, which cuts what does not fit on the screen."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Padding] = [Text(f"shoal top   {time.strftime('%H:%M:%S')}   Ctrl-C ends", "dim")]
    for client in seen.clients:
        parts.append(Text("\n" + _about_client(client), "bold", no_wrap=True, overflow="ellipsis"))
        for pool in client.pools:
            parts.append(Text("  " + _about_pool(pool), "cyan", no_wrap=True, overflow="ellipsis"))
            rows = Table(box=None, pad_edge=False, header_style="dim")
            for name in _HEAD:
                left = name in ("#", "state", "task")
                rows.add_column(name, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
            for worker in pool.workers:
                rows.add_row(*(Text(cell) for cell in _row(worker)), style=_STYLES.get(worker.state, "dim"))
            parts.append(Padding(rows, (0, 0, 0, 2)))
    return Group(*parts, *(Text("\n" + note, "yellow") for note in _notes(seen)))


def _about_client(client: ClientSeen) -> str:
    own = f"{client.cpu:.0%} CPU, {size(client.private_bytes)} private"
    memory = client.memory
    if memory is None:
        return f"{client.pid}  {client.command}\n  {own}"
    returned = f", {size(memory.released)} returned" if memory.released else ""
    shared = f"{size(memory.bytes)} shared in {_count(memory.segments, 'segment')}{returned}"
    blocks = f"{_count(memory.blocks, 'block')} held {memory.leases} times"
    return f"{client.pid}  {client.command}\n  {own}; {shared}; {blocks}"


def _about_pool(pool: PoolSeen) -> str:
    closed = "" if pool.open else ", closed"
    return (
        f"pool of {_count(len(pool.workers), 'worker')}{closed}: {pool.throughput:,.0f} tasks/s, {pool.used:.0%} used, "
        f"{pool.queued:,} queued, {pool.tasks:,} done"
    )


def _row(worker: WorkerSeen) -> tuple[str, ...]:
    if worker.pid is None:
        return str(worker.number), "-", worker.state, *[""] * 7, f"{worker.tasks:,}"
    return (
        str(worker.number),
        str(worker.pid),
        worker.state,
        *at(worker.task, worker.task_seconds),
        f"{worker.used:.0%}",
        f"{worker.cpu:.0%}",
        size(worker.private_bytes),
        str(worker.leases),
        size(worker.leased_bytes),
        f"{worker.tasks:,}",
    )


def _notes(seen: Seen) -> Sequence[str]:
    notes = []
    if not seen.clients:
        notes.append("No process here has a pool of workers, or none that you may look into.")
    for pid in seen.unreadable:
        notes.append(f"{pid}  has a pool of another version of shoal, or a damaged one: not shown.")
    return notes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _interval(text: str) -> float:
    try:
        interval = float(text)
    except ValueError:
        interval = 0.0
    if not 0.05 <= interval <= 3600:
        raise argparse.ArgumentTypeError(f"must be 0.05 to 3600 seconds, not {text!r}")
    return interval
