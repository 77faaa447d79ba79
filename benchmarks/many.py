"""What many of a kind cost: a million queued tasks, 64 workers, 100 000 queues."""

import os
import tempfile
import time
from pathlib import Path

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import PEERS, SHOAL
from shoal.bench.tasks import noop
from shoal.bench.throughput import map_rate

from .memory import resident

MANY_WORKERS = 64
MANY_QUEUES = 100_000


def hold(gate: str) -> None:
    """Keeps a worker until the file `gate` exists. A file, because every tool's workers can see one."""
    while not os.path.exists(gate):
        time.sleep(0.002)


def _many_workers(contender: str, scale: Scale) -> tuple[float]:
    rates = []
    for workers in (WORKERS, MANY_WORKERS):
        with PEERS[contender].session(workers) as session:
            rates.append(map_rate(session, scale.pick(1_000_000, 3_000), 1))
    return (rates[1] / rates[0],)


def _queued(contender: str, scale: Scale) -> tuple[float, float]:
    """Seconds for a million tasks, and bytes of each while all wait. Peers are given a tenth of them, times ten."""
    count = scale.pick(1_000_000, 20_000) // (1 if contender == SHOAL else 10)
    with tempfile.TemporaryDirectory() as folder, PEERS[contender].session(WORKERS) as session:
        gate = Path(folder) / "gate"
        session.gather(session.submit(noop, range(1_000)))
        held = session.submit(hold, [str(gate)] * WORKERS)
        before = resident()
        started = time.perf_counter()
        handles = session.submit(noop, range(count))
        submitted = time.perf_counter() - started
        each = (resident() - before) / count
        started = time.perf_counter()
        gate.touch()
        session.gather(held)
        session.gather(handles)
        drained = time.perf_counter() - started
    return (submitted + drained) * 1_000_000 / count, each


def _many_queues(_contender: str, scale: Scale) -> tuple[float, float]:
    """Descriptors that came with many queues, and bytes of each."""
    import shoal

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    count = scale.pick(MANY_QUEUES, MANY_QUEUES // 20)
    queues = [shoal.Queue[int]()]
    files, before = open_files(), resident()
    queues += [shoal.Queue[int]() for _ in range(count)]
    return float(open_files() - files), (resident() - before) / count


MEASUREMENTS = (
    Measurement(
        (
            Figure("queued", "1 M queued no-op tasks", "s", False, 4),
            Figure("queued-bytes", "  each of them in memory", "B", False, 250),
        ),
        _queued,
        rounds=3,
    ),
    Measurement(
        (Figure("many-workers", f"{MANY_WORKERS} workers : {WORKERS} workers, map, chunksize 1", "×", True, 0.5),),
        _many_workers,
        rounds=3,
    ),
    Measurement(
        (
            Figure("queue-many", f"{MANY_QUEUES:,} live queues".replace(",", " "), "descriptors", False, 20),
            Figure("queue-many-bytes", "  each of them in memory", "B", False, None),
        ),
        _many_queues,
        rounds=3,
        contenders=(SHOAL,),
    ),
)
