"""A cluster of two Dask workers in processes of their own, as two machines: shoal's pool on it, Dask, ray's pool."""

import functools
import importlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoal.bench.clusters import PRIVATE_MARK, dask_session, ray_session
from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import SHOAL
from shoal.bench.sessions import PoolSession, Session, Unsupported
from shoal.bench.tasks import noop
from shoal.bench.throughput import rate

BOTH = (SHOAL, "dask", "ray")
COMMON_BYTES = 500_000_000


@contextmanager
def _dask_cluster() -> Iterator[Any]:
    with dask_session(WORKERS) as session:
        yield session.client  # type: ignore[attr-defined]


@contextmanager
def _session(contender: str) -> Iterator[Session]:
    if contender == SHOAL:
        import shoal

        with _dask_cluster() as client, shoal.Pool(1, cluster=client) as pool:
            pool.map(noop, range(10))
            yield PoolSession(pool)
    elif contender == "dask":
        with dask_session(WORKERS) as session:
            yield session
    else:
        with ray_session(WORKERS), _ray_pool() as pool:
            yield PoolSession(pool)


@contextmanager
def _ray_pool() -> Iterator[Any]:
    if PRIVATE_MARK not in os.environ:
        raise Unsupported("ray opens ports to the network, and this machine gives no private one (unshare, ip)")
    pool = importlib.import_module("ray.util.multiprocessing").Pool(WORKERS)
    try:
        yield pool
    finally:
        pool.terminate()


def _one_by_one(contender: str, scale: Scale) -> tuple[float]:
    with _session(contender) as session:
        return (
            rate(lambda count: session.gather(session.submit(noop, range(count))), scale.pick(20_000, 1_000)) / 1e3,
        )


def _mapped(contender: str, scale: Scale) -> tuple[float]:
    with _session(contender) as session:
        return (rate(lambda count: session.map(noop, range(count), None), scale.pick(250_000, 10_000)) / 1e3,)


def doze(seconds: float) -> None:
    """A task whose time no other process of this machine can take."""
    time.sleep(seconds)


def _utilisation(contender: str, scale: Scale) -> tuple[float]:
    """Tasks of 20 ms, against as many on a pool of this machine."""
    import shoal

    items = [0.02] * scale.pick(500, 50)
    with shoal.Pool(WORKERS) as local, _session(contender) as session:
        session.map(doze, items[:10], 1)
        local.map(doze, items[:10], 1)
        started = time.perf_counter()
        local.map(doze, items, 1)
        middle = time.perf_counter()
        session.map(doze, items, 1)
        return ((middle - started) / (time.perf_counter() - middle) * 100,)


def first(array: Any, item: int) -> float:
    """Reads little of a large argument."""
    return float(array[item % len(array)])


def _loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise Unsupported("this machine does not tell what its loopback interface carries")


def _common(contender: str, scale: Scale) -> tuple[float, float]:
    """An array that 1000 tasks have in common: seconds, and how often it crossed the network for each node."""
    import numpy

    array = numpy.ones(scale.pick(COMMON_BYTES, COMMON_BYTES // 10) // 8)
    with _session(contender) as session:
        before, started = _loopback_bytes(), time.perf_counter()
        if contender == "ray":
            session.map(functools.partial(first, array), range(1000), None)
        else:
            session.common(first, array, range(1000), None)
        seconds = time.perf_counter() - started
        return seconds, (_loopback_bytes() - before) / array.nbytes / WORKERS


def _killed(contender: str, scale: Scale) -> tuple[float]:
    """10 000 tasks of 2 ms, one of two nodes killed in the middle: how much longer than the node that is left needs."""
    if contender != SHOAL:
        raise Unsupported("is measured for what it costs here")
    import shoal

    items = [0.002] * scale.pick(10_000, 1_000)
    with _dask_cluster() as client, shoal.Pool(1, cluster=client) as pool:
        pool.map(doze, items[:100], 1)
        pids = client.run(os.getpid)
        done, lost = 0, 0
        killed_at = left_at = 0.0
        started = time.perf_counter()
        results = pool.imap_unordered(doze, items, 1)
        while True:
            try:
                next(results)
            except StopIteration:
                break
            except shoal.WorkerDied:
                lost += 1
            done += 1
            if done == len(items) // 2:
                killed_at = time.perf_counter()
                left_at = killed_at - started
                threading.Thread(target=os.kill, args=(next(iter(pids.values())), signal.SIGKILL)).start()
        # Dask starts the worker anew: what that adds counts for us; the rest at the pace of one node of two.
        ideal = killed_at + (len(items) - len(items) // 2) * (left_at / (len(items) // 2)) * WORKERS
        return (max(0.0, (time.perf_counter() - started) / (ideal - started) - 1) * 100,)


MEASUREMENTS = (
    Measurement(
        (Figure("cluster-calls", "cluster of two: no-ops, submitted one by one", "k/s", True),),
        _one_by_one,
        rounds=3,
        contenders=BOTH,
    ),
    Measurement(
        (Figure("cluster-map", "cluster of two: map of no-ops, default chunks", "k/s", True),),
        _mapped,
        rounds=3,
        contenders=BOTH,
    ),
    Measurement(
        (Figure("cluster-20ms", "cluster of two: tasks of 20 ms, against this machine's pool", "%", True, 95),),
        _utilisation,
        rounds=3,
        contenders=BOTH,
    ),
    Measurement(
        (
            Figure("cluster-common", "cluster of two: 500 MB common to 1000 tasks", "s", False),
            Figure("cluster-crossed", "    how often it crosses, for each node", "×", False, 1.05),
        ),
        _common,
        rounds=3,
        contenders=BOTH,
    ),
    Measurement(
        (Figure("cluster-killed", "cluster of two: 10 000 tasks, one node killed half-way, costs", "%", False, 10),),
        _killed,
        rounds=3,
        contenders=(SHOAL,),
    ),
)
