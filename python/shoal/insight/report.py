"""`Pool.explain()`: why the last map was not as many times faster as there are workers.

All workers together have wall time × workers to give. What did not go into the function went somewhere; each of these
places has a cause, and what costs most is told.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from shoal import _engine
from shoal._text import seconds, size
from shoal.insight import html

__all__ = ["Cause", "MapReport", "NodeShare", "Threads", "reasons", "report"]

# Shares of the workers' time, or of the map's: what is worth a sentence, what is nothing to complain of, and from when
# on this process sets the pace.
_WORTH = 0.05
_WELL = 0.9
_PACE = 0.5
_ALL_OF_IT = 0.8
# A map that took less is over before a pool can help.
_BRIEF = 0.002
# Seconds of an item in the function and around it: with less, the way there and back is the matter.
_SMALL = 20e-6
_AROUND = 50e-6
# Bytes an item, beyond which copying them is the matter rather than their number.
_LARGE = 10_000
# Seconds of unpickling a task, beyond which something is imported by it.
_IMPORT = 1e-3
# Sentences.
_MOST = 3


# Seconds of the workers' time, and the sentence for it.
Cause = tuple[float, str]


class Threads(NamedTuple):
    """How many threads each worker runs at the same time, and on how many CPUs all of them do."""

    each: int
    cpus: int


@dataclass(frozen=True)
class NodeShare:
    """What a node of a cluster did of a map.

    Attributes:
        node: its address.
        workers: how many it has.
        tasks, items: how many it did.
        user: seconds that its workers spent in the function.
    """

    node: str
    workers: int
    tasks: int
    items: int
    user: float

    @property
    def each(self) -> float:
        """Seconds in the function, an item."""
        return self.user / self.items if self.items else 0.0


@dataclass(frozen=True)
class MapReport:
    """What the last map took. Printed, it is the sentences.

    Attributes:
        function: its name.
        items: how many were done.
        tasks: into how many tasks they were cut.
        wall: seconds from its call until the last item was done.
        workers: of the pool.
        bytes: of the arguments, pickled, and of the blocks of shared memory that they name.
        longest: seconds of the longest task, with its items in `longest_items`.
        user: seconds that the workers together spent in the function.
        unpickling, pickling, transport, waiting, idle: what else they spent, as in `WorkerStats`.
        starting: seconds in which workers were not there yet.
        reading, sending, receiving: seconds that this process spent in the input's own code, on pickling and sending
            arguments, and on unpickling results.
        reasons: what kept it from being faster, what cost most first.
        nodes: on a cluster, a `NodeShare` for each node; else none.
    """

    function: str
    items: int
    tasks: int
    wall: float
    workers: int
    bytes: int
    longest: float
    longest_items: int
    user: float
    unpickling: float
    pickling: float
    transport: float
    waiting: float
    idle: float
    starting: float
    reading: float
    sending: float
    receiving: float
    reasons: tuple[str, ...] = field(default=())
    nodes: tuple[NodeShare, ...] = field(default=())

    @property
    def speedup(self) -> float:
        """Seconds in the function, of all workers, for each second of the map."""
        return self.user / self.wall if self.wall else 0.0

    def __str__(self) -> str:
        head = (
            f"{self.function} on {_count(self.items, 'item')} took {seconds(self.wall)}, of which "
            f"{_count(self.workers, 'worker')} spent {seconds(self.user)} in the function: {self.speedup:.2g} × as "
            "fast as one after the other at this pace."
        )
        return " ".join([head, *self.reasons])

    def _repr_html_(self) -> str:
        return html.paragraph(str(self))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def report(base: _engine.PoolBase) -> MapReport:
    """The account of a pool's last map."""
    account = _engine.last_map(base)
    if account is None:
        raise ValueError("no map of this pool is done yet")
    name, wall, items, tasks, count, (reading, sending, receiving, _), (longest, its_items), workers = account
    sums = [sum(parts) * 1e-9 for parts in zip(*workers, strict=True)][1:]
    busy, decoding, encoding, transport, idle, waiting = sums
    there = busy + transport + idle + waiting
    figures = MapReport(
        function=name,
        items=items,
        tasks=tasks,
        wall=wall * 1e-9,
        workers=len(workers),
        bytes=count,
        longest=longest * 1e-9,
        longest_items=its_items,
        user=max(busy - decoding - encoding, 0.0),
        unpickling=decoding,
        pickling=encoding,
        transport=transport,
        waiting=waiting,
        idle=idle,
        starting=max(wall * 1e-9 * len(workers) - there, 0.0),
        reading=reading * 1e-9,
        sending=sending * 1e-9,
        receiving=receiving * 1e-9,
    )
    pids = [pid for _, pid, *_ in _engine.pool_spent(base) if pid is not None]
    threads = Threads(max(map(_active_threads, pids), default=1), _engine.cpu_count())
    return MapReport(**{**vars(figures), "reasons": tuple(reasons(figures, threads))})


def reasons(map: MapReport, threads: Threads, way: Cause | None = None, other: Cause = (0.0, "")) -> list[str]:
    """What kept a map from being faster, in sentences, what cost most first.

    Args:
        map: its figures.
        threads: what its workers ran.
        way: what is to be said of its transport, if not the usual.
        other: a cause that only the caller knows.
    """
    whole = map.wall * map.workers
    crowd = _crowd(map, threads)
    if not whole or map.user - other[0] >= _WELL * whole:
        return crowd or [_nothing(map)]
    if map.wall < _BRIEF:
        return [f"It was over in {seconds(map.wall)}: a pool pays for what takes longer."]
    causes = [(map.starting, _starting(map)), other]
    if _is_small(map):
        causes.append((whole, _small(map)))
    else:
        causes += [
            _between(map),
            (map.unpickling + map.pickling, _pickling(map)),
            way or (map.transport, _transport(map)),
        ]
    costly = sorted((cause for cause in causes if cause[0] > _WORTH * whole), reverse=True)
    return [*crowd, *(text for _, text in costly)][:_MOST] or ["No single thing stood out."]


def _nothing(map: MapReport) -> str:
    text = "Nothing in the pool stood in its way"
    if map.workers == 1:
        return f"{text}."
    # What the function does while it waits for memory looks like work.
    return (
        f"{text}; if a plain loop is hardly slower, the function itself takes longer beside others: they share the "
        "memory, the caches and the CPUs."
    )


def _starting(map: MapReport) -> str:
    return (
        f"The workers were not there yet for {seconds(map.starting / map.workers)}: a pool that is kept has them ready."
    )


def _is_small(map: MapReport) -> bool:
    """Whether items are so small that their number is all that matters."""
    if not map.items or map.reading > _WORTH * map.wall or map.longest > map.wall / 2:
        return False
    around = map.wall * map.workers - map.starting - map.user
    return map.user / map.items < _SMALL and around / map.items < _AROUND and map.bytes / map.items <= _LARGE


def _small(map: MapReport) -> str:
    around = (map.wall * map.workers - map.starting - map.user) / map.items
    text = f"An item takes {seconds(map.user / map.items)} in the function itself, and {seconds(around)} around it"
    return f"{text}: {_do_more(map)}."


def _do_more(map: MapReport) -> str:
    alone = map.tasks and map.items > map.workers and map.items / map.tasks < 10
    return "let each call do more" + (", and leave chunksize out" if alone else "")


def _between(map: MapReport) -> tuple[float, str]:
    """Workers had no task: because this process was too slow, or because nothing was left."""
    lost = map.waiting + map.idle
    here = {"reading": map.reading, "sending": map.sending, "receiving": map.receiving}
    what = max(here, key=lambda part: here[part])
    busy = sum(here.values())
    if busy > (_PACE if map.waiting <= map.idle else _PACE / 2) * map.wall:
        # With all of it in one thread, this process sets the pace: nothing that workers do counts beside that.
        return map.wall * map.workers if busy > _ALL_OF_IT * map.wall else lost, _client(map, what, here[what])
    nothing_left = f"Workers had nothing left to do for {seconds(lost)}"
    if map.items < map.workers:
        were = "was" if map.items == 1 else "were"
        return lost, f"There {were} {_count(map.items, 'item')} for {map.workers} workers."
    if map.waiting > map.idle:
        return lost, (
            f"Workers waited {seconds(map.waiting)} for this process, though the map kept it busy for {seconds(busy)} "
            "only: others, or its own threads, had the CPU."
        )
    if map.items % map.workers and map.longest_items == 1 and map.longest < 2 * map.user / map.items:
        return lost, (
            f"{nothing_left} at the end: {map.items} items of about {seconds(map.user / map.items)} do not go evenly "
            f"into {map.workers} workers. Smaller ones would."
        )
    if map.longest_items == 1 and map.longest >= 2 * map.user / map.items:
        return lost, (
            f"{nothing_left} while one item took {seconds(map.longest)}: begin with the long ones, or split them."
        )
    if map.longest > map.wall / 2:
        return lost, (
            f"{nothing_left} while one task of {map.longest_items:,} items took {seconds(map.longest)}: leave "
            "chunksize out, or make it smaller."
        )
    return lost, f"{nothing_left} while the last tasks ran."


def _client(map: MapReport, what: str, spent: float) -> str:
    """Workers waited for this process."""
    took = f"{seconds(spent)} of {seconds(map.wall)}"
    if what == "reading":
        return f"The input gave its items slowly: this process spent {took} in it, and the workers waited."
    if what == "receiving":
        return (
            f"Unpickling the results took this process {took}: return less, or arrays, which are not copied, or write "
            "into a shoal.array."
        )
    if map.items and map.bytes / map.items > _LARGE:
        return (
            f"Pickling and copying {size(map.bytes)} of arguments took this process {took}: a shoal.array is passed by "
            "reference."
        )
    return f"Pickling the items took this process {took}: {_do_more(map)}."


def _pickling(map: MapReport) -> str:
    if map.pickling > map.unpickling:
        return f"Pickling the results took the workers {seconds(map.pickling)}: return arrays, which are not copied."
    text = f"Unpickling the function and its arguments took the workers {seconds(map.unpickling)}"
    if map.items and map.bytes / map.items > _LARGE:
        return f"{text}: arrays are passed without a copy."
    if map.tasks and map.unpickling / map.tasks > _IMPORT:
        return f"{text}: modules that take long to import can be preloaded."
    return f"{text}: {_do_more(map)}."


def _transport(map: MapReport) -> str:
    text = f"Sending results and taking tasks took the workers {seconds(map.transport)}"
    return f"{text}: this process was slow to read what they sent."


def _crowd(map: MapReport, threads: Threads) -> list[str]:
    """More threads than CPUs: then the function itself takes longer than it would alone."""
    wanted = threads.each * map.workers
    if wanted <= threads.cpus:
        return []
    if threads.each > 1:
        return [
            f"{map.workers} workers with {threads.each} threads each share {threads.cpus} CPUs, so the function takes "
            "longer than it would alone: leave out threads_per_worker, OMP_NUM_THREADS and the like, and each has its "
            "share of them."
        ]
    return [f"{map.workers} workers share {threads.cpus} CPUs, so each takes longer than it would alone."]


def _active_threads(pid: int) -> int:
    """Threads of a process that have used a fair share of what its busiest has: those of a BLAS have."""
    times = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                # The name, in parentheses, may hold anything; utime and stime are the 12th and 13th after it.
                fields = file.read().rpartition(")")[2].split()
            times.append(int(fields[11]) + int(fields[12]))
    except OSError:
        return 1
    busiest = max(times, default=0)
    return max(sum(time > busiest / 5 for time in times), 1) if busiest >= 10 else 1
