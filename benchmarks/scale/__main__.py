"""Where does one scheduler saturate, and what batches keep the cores busy? Simulated, with costs that can be given."""

import argparse
from collections.abc import Callable
from pathlib import Path

from shoal.cluster import maps

from .model import Cluster, Hub, ceiling, smallest_batch, utilisation

DURATIONS = (0.001, 0.01, 0.1, 1.0, 10.0)
NODES = (10, 100, 1_000, 10_000)
CORES = 64

# Tasks in a batch at most.
LARGEST = 16_384

# Below this share of the wanted rate there is nothing to simulate: the cores wait for the hub.
HOPELESS = 0.9


def main() -> None:
    """Prints two tables, and with `--measure` what they are made of."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    group = parser.add_argument_group(
        "costs, in microseconds", "As `--measure` found them; that of the network is assumed."
    )
    group.add_argument("--dask-task", type=float, default=550.0, help="of Dask's scheduler, a task")
    group.add_argument("--batch", type=float, default=40.0, help="of shoal's client, a batch")
    group.add_argument("--task", type=float, default=0.7, help="of shoal's client, a task in a batch, with its result")
    group.add_argument("--node-batch", type=float, default=40.0, help="of a node's process, a batch")
    group.add_argument("--node-task", type=float, default=0.5, help="of a node's process, a task in a batch")
    group.add_argument("--dispatch", type=float, default=1.0, help="of a worker, a task")
    group.add_argument("--latency", type=float, default=500.0, help="of Dask's connections, one way")
    group.add_argument("--network", type=float, default=100.0, help="of the network, one way, besides")
    parser.add_argument("--goal", type=float, default=0.95, help="the utilisation to keep (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help="measure the costs here first, and check the model")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it, too: .svg or .png")
    options = parser.parse_args()
    if options.measure:
        measured(options)
    second = 1e-6
    latency = (options.latency + options.network) * second
    dask = Hub("Dask, a task at a time", 0.0, options.dask_task * second, latency, batches=False)
    shoal = Hub("shoal on Dask, in batches", options.batch * second, options.task * second, latency)
    node = options.dispatch * second, options.node_batch * second, options.node_task * second

    print(f"Utilisation of {CORES} cores a node: {dask.name} ({options.dask_task:g} µs each)")
    _print_table(lambda nodes, duration: _percent(dask, Cluster(nodes, CORES, node[0]), duration))
    cost = f"{options.batch:g} µs + {options.task:g} µs a task"
    print(f"\nSmallest batch that keeps {options.goal:.0%}: {shoal.name} ({cost})")
    print("In brackets what the largest reaches, where none keeps it.")
    _print_table(lambda nodes, duration: _batch(shoal, Cluster(nodes, CORES, *node), duration, options.goal))
    if options.picture:
        from .picture import draw

        panels = {
            dask.name: lambda nodes, duration: ceiling(dask, Cluster(nodes, CORES, node[0]), duration, 1),
            "shoal, in pieces as it makes them": lambda nodes, duration: ceiling(
                shoal, Cluster(nodes, CORES, *node), duration, _piece(nodes, duration)
            ),
        }
        draw(options.picture, panels, DURATIONS, NODES[-1])


def _piece(nodes: int, duration: float) -> int:
    """How many tasks a map puts into a piece, if it is long enough."""
    return max(1, int(max(maps._SECONDS, nodes * CORES * maps._EACH_WORKER) / duration))


def measured(options: argparse.Namespace) -> None:
    """Measure the costs, put them into the options, and print them, and the model beside a real cluster."""
    from .check import compare
    from .costs import cluster, measure

    with cluster() as client:
        costs = measure(client)
        rows = compare(client, costs)
    for name, value in vars(costs).items():
        setattr(options, name, round(value * 1e6, 1))
        print(f"{name.replace('_', '-')}: {value * 1e6:.1f} µs")
    print("\n| tasks of | in batches of | utilisation measured | simulated |\n| ---: | ---: | ---: | ---: |")
    for duration, size, real, simulated in rows:
        print(f"| {duration * 1e3:.1f} ms | {size} | {real:.1%} | {simulated:.1%} |")
    print()


def _percent(hub: Hub, cluster: Cluster, duration: float) -> str:
    most = ceiling(hub, cluster, duration, 1)
    share = most if most < HOPELESS else min(most, utilisation(hub, cluster, duration, 1))
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _batch(hub: Hub, cluster: Cluster, duration: float, goal: float) -> str:
    size = smallest_batch(hub, cluster, duration, goal, LARGEST)
    return str(size) if size else f"({ceiling(hub, cluster, duration, LARGEST):.1%})"


def _print_table(cell: Callable[[int, float], str]) -> None:
    print("| task | " + " | ".join(f"{nodes:,} nodes" for nodes in NODES) + " |")
    print("| ---: |" + " ---: |" * len(NODES))
    for duration in DURATIONS:
        cells = (cell(nodes, duration) for nodes in NODES)
        print(f"| {duration * 1000:g} ms | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
