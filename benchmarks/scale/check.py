"""The model beside a real cluster of two nodes with a core each: how much of their time goes into tasks."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import shoal

from .costs import NODES, Costs
from .model import Cluster, Hub, utilisation

DURATIONS = (0.001, 0.005, 0.02)
SIZES = (1, 8, 64)

# Seconds that each core is busy, and at least so many batches for each; the best of so many, as others disturb.
SECONDS, BATCHES, TIMES = 1.0, 16, 3
# Simulated batches of each node: with few, what is under way at the end counts.
ROUNDS = 1000


def doze(seconds: float) -> float:
    """A task that needs no core, as two nodes, a scheduler and a client share them; how long it took."""
    started = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - started


def compare(client: Any, costs: Costs) -> list[tuple[float, int, float, float]]:
    """For each duration and size of batches: the utilisation that was measured, and the one that was simulated."""
    rows = []
    hub = Hub("shoal", costs.batch, costs.task, costs.latency)
    cluster = Cluster(NODES, 1, costs.dispatch, costs.node_batch, costs.node_task)
    rng = np.random.default_rng(0)
    with shoal.Pool(1, cluster=client) as pool:
        pool.map(doze, [0.001] * 100, 1)
        for duration in DURATIONS:
            for size in SIZES:
                count = max(round(SECONDS / duration), BATCHES * size) * NODES
                items = rng.exponential(duration, count).tolist()
                measured, slept = max(_busy(pool, items, size) for _ in range(TIMES))
                simulated = utilisation(hub, cluster, slept / count, size, rounds=ROUNDS)
                rows.append((slept / count, size, measured, simulated))
    return rows


def _busy(pool: shoal.Pool, items: list[float], size: int) -> tuple[float, float]:
    """The part of its time that the cluster slept, and how long all tasks did."""
    started = time.perf_counter()
    slept = sum(pool.map(doze, items, size))
    return slept / (time.perf_counter() - started) / NODES, slept
