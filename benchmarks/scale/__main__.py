"""Where does one scheduler saturate, and what batches keep the cores busy? Simulated, with costs that can be given."""

import argparse
from collections.abc import Callable

from .model import Cluster, Hub, ceiling, smallest_batch, utilisation

DURATIONS = (0.001, 0.01, 0.1, 1.0, 10.0)
NODES = (10, 100, 1_000, 10_000)
CORES = 64

# Tasks in a batch at most.
LARGEST = 16_384

# Below this share of the wanted rate there is nothing to simulate: the cores wait for the hub.
HOPELESS = 0.9


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    costs = parser.add_argument_group(
        "costs, in microseconds",
        "Of a task and of a batch as cluster-calls and cluster-map showed; the last two are assumed.",
    )
    costs.add_argument("--dask-task", type=float, default=1700.0, help="of Dask's scheduler and client, a task")
    costs.add_argument("--batch", type=float, default=50.0, help="of shoal's client, a batch")
    costs.add_argument("--task", type=float, default=3.0, help="of shoal's client, a task in a batch, with its result")
    costs.add_argument("--dispatch", type=float, default=2.0, help="of a node's pool, a task and core")
    costs.add_argument("--latency", type=float, default=200.0, help="of the network, one way")
    parser.add_argument("--goal", type=float, default=0.95, help="the utilisation to keep (default: %(default)s)")
    options = parser.parse_args()
    second = 1e-6
    latency = options.latency * second
    dask = Hub("Dask, a task at a time", 0.0, options.dask_task * second, latency, batches=False)
    shoal = Hub("shoal on Dask, in batches", options.batch * second, options.task * second, latency)
    dispatch = options.dispatch * second

    print(f"Utilisation of {CORES} cores a node: {dask.name} ({options.dask_task:g} µs each)")
    _print_table(lambda cluster, duration: _percent(dask, cluster, duration), dispatch)
    cost = f"{options.batch:g} µs + {options.task:g} µs a task"
    print(f"\nSmallest batch that keeps {options.goal:.0%}: {shoal.name} ({cost})")
    print("In brackets what the largest reaches, where none keeps it.")
    _print_table(lambda cluster, duration: _batch(shoal, cluster, duration, options.goal), dispatch)


def _percent(hub: Hub, cluster: Cluster, duration: float) -> str:
    most = ceiling(hub, cluster, duration, 1)
    share = most if most < HOPELESS else min(most, utilisation(hub, cluster, duration, 1))
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _batch(hub: Hub, cluster: Cluster, duration: float, goal: float) -> str:
    size = smallest_batch(hub, cluster, duration, goal, LARGEST)
    return str(size) if size else f"({ceiling(hub, cluster, duration, LARGEST):.1%})"


def _print_table(cell: Callable[[Cluster, float], str], dispatch: float) -> None:
    print("| task | " + " | ".join(f"{nodes:,} nodes" for nodes in NODES) + " |")
    print("| ---: |" + " ---: |" * len(NODES))
    for duration in DURATIONS:
        cells = (cell(Cluster(nodes, CORES, dispatch), duration) for nodes in NODES)
        print(f"| {duration * 1000:g} ms | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
