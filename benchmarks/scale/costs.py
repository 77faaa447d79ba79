"""The costs that the model wants, measured on this machine.

    client ── batches ──▶ a node's process ── tasks ──▶ its workers

Scheduler, client and nodes are processes of their own, on the loopback interface. Costs are processor time, which is
much the same on a busy machine. What is spent on a batch and on each task in it is told apart by batches of one and of
many. The latency alone is a time: half of what a call takes longer than on a pool of this machine, the lower quartile.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client
from distributed.deploy.subprocess import SubprocessCluster

import shoal
from shoal.bench.tasks import noop

NODES = 2

# Tasks given to Dask; batches given to shoal; tasks in those of many; calls.
DASK_TASKS, BATCHES, MANY, CALLS = 3_000, 6_000, 256, 300


@dataclass(frozen=True)
class Costs:
    """In seconds.

    Attributes:
        dask_task: of Dask's scheduler for a task, or of its client if that needs more.
        batch: of shoal's client for a batch.
        task: of shoal's client for a task in a batch, with its result.
        node_batch: of a node's process for a batch.
        node_task: of a node's process for a task in a batch.
        dispatch: of a worker for a task.
        latency: from client to node, or back.
    """

    dask_task: float
    batch: float
    task: float
    node_batch: float
    node_task: float
    dispatch: float
    latency: float


@contextmanager
def cluster() -> Iterator[Client]:
    """A scheduler and two workers of Dask."""
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(temporary_directory=folder),
        SubprocessCluster(
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            n_workers=NODES,
            threads_per_worker=1,
            worker_kwargs={"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        ) as started,
        Client(started) as client,
    ):
        client.wait_for_workers(NODES)
        yield client


def measure(client: Client) -> Costs:
    """All of them."""
    scheduler, here, nodes = client.run_on_scheduler(os.getpid), os.getpid(), list(client.run(os.getpid).values())
    dask_costs = _spent((scheduler, here), lambda: client.gather(client.map(noop, range(DASK_TASKS), pure=False)))
    with shoal.Pool(1, cluster=client) as pool, shoal.Pool(1) as local:
        workers = [worker.pid for worker in pool.workers if worker.pid]
        pool.map(noop, range(BATCHES // 10), 1)
        local.map(noop, range(BATCHES // 10), 1)
        single = _spent((here, *nodes), lambda: pool.map(noop, range(BATCHES), 1))
        many = _spent((here, *nodes, *workers), lambda: pool.map(noop, range(BATCHES * MANY // 8), MANY))
        latency = (_call(pool) - _call(local)) / 2
    client_batch, client_task = _apart(single[0] / BATCHES, many[0] / (BATCHES // 8))
    node_batch, node_task = _apart(sum(single[1:]) / BATCHES, sum(many[1 : 1 + NODES]) / (BATCHES // 8))
    return Costs(
        dask_task=max(dask_costs) / DASK_TASKS,
        batch=client_batch,
        task=client_task,
        node_batch=node_batch,
        node_task=node_task,
        dispatch=sum(many[1 + NODES :]) / (BATCHES // 8 * MANY),
        latency=latency,
    )


def _spent(processes: Sequence[int], work: Callable[[], Any]) -> list[float]:
    """The processor time of each process during the work."""
    before = [_used(process) for process in processes]
    work()
    return [_used(process) - start for process, start in zip(processes, before, strict=True)]


def _used(process: int) -> float:
    # To the nanosecond; /proc/PID/stat counts in hundredths of a second.
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _apart(one: float, many: float) -> tuple[float, float]:
    """What a batch costs, and each of its tasks, from what batches of one and of many cost."""
    task = max(0.0, (many - one) / (MANY - 1))
    return one - task, task


def _call(pool: shoal.Pool) -> float:
    times = []
    for number in range(CALLS):
        started = time.perf_counter()
        pool.apply(noop, (number,))
        times.append(time.perf_counter() - started)
    return statistics.quantiles(times, n=4)[0]
