"""The model: nodes with many cores, fed by one hub that handles a batch of tasks at a time.

    node: ask for a batch ──▶ hub: one at a time, first come first served ──▶ node: its process passes on a batch at a
    time, its cores take the tasks in order

The hub is whatever sees every task: Dask's scheduler when tasks are submitted to it one by one, or the client of a pool
when a batch is one message. A node asks for its next batch when half of one has been started, so that it has work while
the message is under way. Failures are left out: the question is how far one hub reaches.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

# A core takes so many pieces of a batch at least, so that they are balanced; of tasks that are shorter than that the
# sum is drawn at once, which spares the simulation events and changes nothing in the mean.
PIECES = 2

# Batches that each node works through, once all have begun: the ramp at the beginning is not counted.
ROUNDS = 4


@dataclass(frozen=True)
class Hub:
    """What a hub takes, in seconds.

    Attributes:
        name: what it is called in tables.
        batch: for a batch, however large.
        task: for each of its tasks, result included.
        latency: from the hub to a node, or back.
        batches: whether it can send more than one task at a time.
    """

    name: str
    batch: float
    task: float
    latency: float
    batches: bool = True

    def time(self, size: int) -> float:
        """For a batch of `size` tasks."""
        return self.batch + size * self.task


@dataclass(frozen=True)
class Cluster:
    """Nodes that are all alike.

    Attributes:
        nodes: how many.
        cores: of each.
        dispatch: seconds that a core spends on a task besides its own.
        batch: seconds that a node's own process spends on a batch, which it passes to its cores.
        task: likewise on each of its tasks.
    """

    nodes: int
    cores: int
    dispatch: float
    batch: float = 0.0
    task: float = 0.0


def ceiling(hub: Hub, cluster: Cluster, duration: float, size: int) -> float:
    """The utilisation that hub and nodes allow, were everything else perfect; at most what dispatch leaves."""
    wanted = cluster.nodes * cluster.cores / (duration + cluster.dispatch)
    given = size / max(hub.time(size), (cluster.batch + size * cluster.task) / cluster.nodes)
    return duration / (duration + cluster.dispatch) * min(1.0, given / wanted)


def utilisation(hub: Hub, cluster: Cluster, duration: float, size: int, seed: int = 0, rounds: int = ROUNDS) -> float:
    """The part of the cores' time that goes into tasks, in the steady state.

    Args:
        hub: what hands the tasks out.
        cluster: what runs them.
        duration: the mean of a task, in seconds; its distribution is exponential.
        size: tasks in a batch.
        seed: of the random numbers.
        rounds: batches that each node works through, or as many tasks as it has cores if those are more.
    """
    rng = np.random.default_rng(seed)
    pieces = min(size, PIECES * cluster.cores)
    per_piece = size / pieces
    # A node holds what its cores run, a tenth of that in reserve (as Dask's workers do), and the batch it asks for.
    held = max(2, -(-11 * cluster.cores // (10 * size)) + 1)
    rounds *= max(1, -(-cluster.cores // size))
    cores = [[0.0] * cluster.cores for _ in range(cluster.nodes)]
    asked = [(0.0, node) for _ in range(held) for node in range(cluster.nodes)]
    received = [0] * cluster.nodes
    passing, passed = cluster.batch + size * cluster.task, [0.0] * cluster.nodes
    hub_free, cost, began, busy = 0.0, hub.time(size), [0.0] * cluster.nodes, [0.0] * cluster.nodes
    ended = [0.0] * cluster.nodes
    heapq.heapify(asked)
    while asked:
        moment, node = heapq.heappop(asked)
        hub_free = max(hub_free, moment + hub.latency) + cost
        arrival = passed[node] = max(passed[node], hub_free + hub.latency) + passing
        work = rng.gamma(per_piece, duration, pieces)
        free, half = cores[node], 0.0
        for piece in range(pieces):
            start = max(free[0], arrival)
            if piece == pieces // 2:
                half = start
            heapq.heapreplace(free, start + float(work[piece]) + per_piece * cluster.dispatch)
        received[node] += 1
        # The first batches fill an empty node: counting begins with the first that finds it at work.
        if received[node] == held:
            began[node] = half
        elif received[node] > held:
            busy[node] += float(work.sum())
            ended[node] = half
        if received[node] < held + rounds:
            heapq.heappush(asked, (half, node))
    spans = sum(end - begin for begin, end in zip(began, ended, strict=True))
    return sum(busy) / (spans * cluster.cores)


def smallest_batch(hub: Hub, cluster: Cluster, duration: float, goal: float, most: int) -> int | None:
    """The smallest batch, a power of two up to `most`, that keeps the cores at `goal`. None: there is none."""
    sizes = [2**power for power in range(most.bit_length())] if hub.batches else [1]
    for size in sizes:
        # The simulation can only lose against its own ceiling.
        if ceiling(hub, cluster, duration, size) >= goal and utilisation(hub, cluster, duration, size) >= goal:
            return size
    return None
