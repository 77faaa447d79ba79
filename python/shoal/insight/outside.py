"""The pools of other processes, looked at from outside: they notice nothing, and it costs them nothing.

A pool's counters lie in an anonymous file that its client and its workers have open. So whoever may look into
``/proc/<pid>/fd`` of one of them finds it, and maps it for reading: every process of the same user, and nobody else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from shoal import _engine
from shoal.errors import ShoalError
from shoal.insight.processes import POOL, ROSTER, SEGMENT, File, Process, find, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    # What the engine tells of a worker: pid, ready, left, task and nanoseconds at it, account.
    _Place = tuple[int, bool, bool, tuple[str | None, int] | None, tuple[int, int, int, int, int, int, int]]

__all__ = ["ClientSeen", "MemorySeen", "Onlooker", "PoolSeen", "Seen", "WorkerSeen"]


@dataclass(frozen=True)
class WorkerSeen:
    """A worker's place in a pool at one moment.

    Attributes:
        number: the place, from 0.
        pid: its process; None while none is there.
        state: "starting", "idle", "busy", "stopped" (by a signal), "resting" (it left for want of work) or "gone".
        task: what the function is called that it is at; "" if that is not known, None if it is at none.
        task_seconds: for how long.
        tasks: how many have ended in this place since the pool began.
        used: the share of the time since the last look that it was at tasks, 0 to 1.
        cpu: CPUs that its process used since the last look: 1.0 is one CPU all the time.
        private_bytes: memory that it has to itself.
        leases, leased_bytes: the blocks of shared memory that it holds. One that two hold counts for both.
    """

    number: int
    pid: int | None
    state: str
    task: str | None
    task_seconds: float
    tasks: int
    used: float
    cpu: float
    private_bytes: int
    leases: int
    leased_bytes: int


@dataclass(frozen=True)
class PoolSeen:
    """A pool at one moment.

    Attributes:
        workers: a `WorkerSeen` for each place.
        open: False once it was terminated, or closed and is done.
        queued: tasks that no worker has taken.
        tasks: tasks that have ended since the pool began. Of a map, a task has many items.
        throughput: tasks a second since the last look.
        used: the share of its workers' time since the last look that they were at tasks, 0 to 1.
    """

    workers: tuple[WorkerSeen, ...]
    open: bool
    queued: int
    tasks: int
    throughput: float
    used: float


@dataclass(frozen=True)
class MemorySeen:
    """The shared memory of a process and of those it shares it with: `shoal.memory` tells what the words mean."""

    segments: int
    bytes: int
    released: int
    blocks: int
    leases: int


@dataclass(frozen=True)
class ClientSeen:
    """A process that has pools.

    Attributes:
        pid: its process.
        command: what it was started with.
        cpu: CPUs that it used since the last look, without its workers.
        private_bytes: memory that it has to itself.
        memory: the shared memory; None if it can't be read.
        pools: its pools, in the order they were found.
    """

    pid: int
    command: str
    cpu: float
    private_bytes: int
    memory: MemorySeen | None
    pools: tuple[PoolSeen, ...]


@dataclass(frozen=True)
class Seen:
    """What there is at one moment.

    Attributes:
        seconds: since the look before: what rates and shares are of. 0.0 at the first one, which has none.
        clients: the processes with pools, by pid.
        unreadable: processes that have a pool which is of another version of shoal, or damaged.
    """

    seconds: float
    clients: tuple[ClientSeen, ...]
    unreadable: tuple[int, ...]


class Onlooker:
    """Looks at all pools of this user, or at those of some processes, again and again."""

    def __init__(self, pids: Collection[int] = ()) -> None:
        self._pids = frozenset(pids)
        self._then: float | None = None
        self._pools: dict[tuple[int, int], _Pool] = {}
        self._unreadable: set[tuple[int, int]] = set()
        self._cpu: dict[tuple[int, int], float] = {}

    def look(self) -> Seen:
        """What there is now."""
        processes = find()
        now = time.monotonic()
        moment = _Moment(processes, 0.0 if self._then is None else now - self._then, self._cpu)
        unreadable = self._find_pools(moment)
        clients: dict[int, tuple[MemorySeen | None, list[PoolSeen]]] = {}
        for pool in self._pools.values():
            client, seen = pool.look(moment)
            # It is over if nobody is left in it.
            if client is not None and (seen.open or any(worker.pid is not None for worker in seen.workers)):
                memory, _ = moment.memory_of(client, pool.domain)
                clients.setdefault(client.pid, (memory, []))[1].append(seen)
        wanted = sorted(pid for pid in clients if not self._pids or pid in self._pids)
        told = tuple(_client(moment, moment.processes[pid], *clients[pid]) for pid in wanted)
        self._then, self._cpu = now, moment.cpu_now
        return Seen(moment.seconds, told, unreadable)

    def _find_pools(self, moment: _Moment) -> tuple[int, ...]:
        """Opens pools that are new, and forgets those that have gone. Who has some that can't be read."""
        pools: dict[tuple[int, int], _Pool] = {}
        unreadable: dict[tuple[int, int], int] = {}
        for process in sorted(moment.processes.values(), key=lambda process: process.began):
            for file in process.named(POOL):
                if file.key in pools:
                    continue
                try:
                    pools[file.key] = self._pools.get(file.key) or _Pool(file)
                except (FileNotFoundError, ProcessLookupError):
                    # It has ended just now.
                    continue
                except (ShoalError, OSError):
                    # The client was there before its workers.
                    unreadable.setdefault(file.key, process.pid)
        # A number may mean another file by now, and what is just being made can't be read yet.
        unreadable = {key: pid for key, pid in unreadable.items() if key not in pools}
        of_whom = {pid for key, pid in unreadable.items() if key in self._unreadable}
        self._pools, self._unreadable = pools, set(unreadable)
        return tuple(sorted(pid for pid in of_whom if not self._pids or pid in self._pids))


@dataclass
class _Moment:
    """One look: which processes there are, and what they are compared with."""

    processes: dict[int, Process]
    seconds: float
    cpu_before: dict[tuple[int, int], float]
    cpu_now: dict[tuple[int, int], float] = field(default_factory=dict)
    # Of each domain that was looked at.
    memory: dict[int, tuple[MemorySeen | None, dict[int, tuple[int, int]]]] = field(default_factory=dict)

    def cpu(self, process: Process) -> float:
        """CPUs that it used since the last look."""
        who = (process.pid, process.began)
        self.cpu_now[who] = process.cpu_seconds
        return self.rate(process.cpu_seconds - self.cpu_before.get(who, process.cpu_seconds))

    def rate(self, more: float) -> float:
        """How much it is a second if so much has come since the last look."""
        return max(more, 0.0) / self.seconds if self.seconds else 0.0

    def memory_of(self, client: Process, domain: int) -> tuple[MemorySeen | None, dict[int, tuple[int, int]]]:
        """The memory that the client is the host of, with leases and bytes by process, as it is called there."""
        if domain not in self.memory:
            self.memory[domain] = None, {}
            segments = [file.path for file in client.named(SEGMENT)]
            for file in client.named(ROSTER):
                try:
                    number, *counts, held = _engine.memory_outside(file.path, segments)
                except (ShoalError, OSError):
                    # It ends, or is damaged: what its pools are at is still worth telling.
                    continue
                self.memory[number] = MemorySeen(*counts), held
        return self.memory[domain]


class _Pool:
    """A pool that was found, from one look to the next."""

    def __init__(self, file: File) -> None:
        self._key = file.key
        self._outside = _engine.PoolOutside(file.path)
        if self._outside.file() != file.key:
            raise FileNotFoundError(f"{file.path} is another file by now")
        # Of each worker at the last look: tasks, and seconds at them.
        self._before: dict[int, tuple[int, float]] = {}
        self.domain = 0

    def look(self, moment: _Moment) -> tuple[Process | None, PoolSeen]:
        """The client, unless that has ended, and the pool."""
        name, self.domain, is_open, queued, places = self._outside.look()
        # A number means a process only if that has this pool: others may be called so by now, or elsewhere.
        there = {
            process.inner: process
            for process in moment.processes.values()
            if any(file.key == self._key for file in process.files)
        }
        client = there.get(name)
        held = {} if client is None else moment.memory_of(client, self.domain)[1]
        tasks_before = sum(tasks for tasks, _ in self._before.values())
        workers = tuple(
            self._worker(moment, number, place, there.get(place[0]), is_open, held.get(place[0], (0, 0)))
            for number, place in enumerate(places)
        )
        tasks = sum(worker.tasks for worker in workers)
        throughput = moment.rate(tasks - tasks_before)
        used = sum(worker.used for worker in workers) / len(workers)
        return client, PoolSeen(workers, is_open, queued, tasks, throughput, used)

    def _worker(
        self,
        moment: _Moment,
        number: int,
        place: _Place,
        process: Process | None,
        is_open: bool,
        held: tuple[int, int],
    ) -> WorkerSeen:
        _, ready, left, task, (tasks, nanos, *_) = place
        busy = nanos * 1e-9
        _, busy_before = self._before.get(number, (tasks, busy))
        self._before[number] = tasks, busy
        used = min(moment.rate(busy - busy_before), 1.0)
        if process is None:
            state = "gone" if not is_open else "resting" if left else "starting"
            return WorkerSeen(number, None, state, None, 0.0, tasks, used, 0.0, 0, 0, 0)
        state = "stopped" if process.stopped else "busy" if task else "idle" if ready else "starting"
        return WorkerSeen(
            number=number,
            pid=process.pid,
            state=state,
            task=printable(task[0] or "") if task else None,
            task_seconds=task[1] * 1e-9 if task else 0.0,
            tasks=tasks,
            used=used,
            cpu=moment.cpu(process),
            private_bytes=process.private_bytes,
            leases=held[0],
            leased_bytes=held[1],
        )


def _client(moment: _Moment, process: Process, memory: MemorySeen | None, pools: list[PoolSeen]) -> ClientSeen:
    return ClientSeen(
        pid=process.pid,
        command=process.command,
        cpu=moment.cpu(process),
        private_bytes=process.private_bytes,
        memory=memory,
        pools=tuple(pools),
    )
