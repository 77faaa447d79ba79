"""Which CPUs the workers of a pool run on: near each other, far from each other, or as the user says.

compact     worker 0, 1, 2, …: both threads of a core, then the next core of the same package
spread      worker 0, 1, 2, …: one core of each package in turn, second threads last
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["cpus_of_workers"]

_TOPOLOGY = Path("/sys/devices/system/cpu")


def cpus_of_workers(affinity: object) -> list[list[int]]:
    """The CPUs of each worker, in turn: the one after the last begins again. None at all if `affinity` is None.

    Raises:
        TypeError, ValueError: `affinity` is not "compact", "spread" or a list of CPUs, or of lists of CPUs, that this
            process may use.
    """
    if affinity is None:
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if isinstance(affinity, str) and affinity in ("compact", "spread"):
        places = {cpu: _place(cpu) for cpu in allowed}
        order = sorted(allowed, key=places.__getitem__)
        return [[cpu] for cpu in (order if affinity == "compact" else _spread(order, places))]
    if isinstance(affinity, (str, bytes)) or not isinstance(affinity, Iterable):
        raise ValueError(f"affinity must be None, 'compact', 'spread' or a list of CPUs, not {affinity!r}")
    sets = [_cpus(entry, allowed) for entry in affinity]
    if not sets:
        raise ValueError("affinity must name a CPU for at least one worker, not []")
    return sets


def _cpus(entry: object, allowed: list[int]) -> list[int]:
    named = list(entry) if isinstance(entry, Iterable) and not isinstance(entry, (str, bytes)) else [entry]
    if not named:
        raise ValueError("affinity must name at least one CPU for each worker, not []")
    cpus = []
    for cpu in named:
        if isinstance(cpu, bool) or not hasattr(cpu, "__index__"):
            raise TypeError(f"affinity must be made of CPU numbers, not {cpu!r}")
        cpu = operator.index(cpu)
        if cpu not in allowed:
            raise ValueError(f"affinity: CPU {cpu} is not among those that this process may use: {allowed}")
        cpus.append(cpu)
    return cpus


def _place(cpu: int) -> tuple[int, int, int]:
    """Package, core, and the CPU itself. Where the kernel does not tell, each CPU is a core of one package."""

    def read(name: str, default: int) -> int:
        try:
            return int((_TOPOLOGY / f"cpu{cpu}" / "topology" / name).read_text())
        except (OSError, ValueError):
            return default

    return read("physical_package_id", 0), read("core_id", cpu), cpu


def _spread(order: list[int], places: dict[int, tuple[int, int, int]]) -> list[int]:
    def turn(cpu: int) -> tuple[int, int, int]:
        package, core, _ = places[cpu]
        thread = sum(1 for other in order if places[other][:2] == (package, core) and other < cpu)
        cores = sorted({places[other][1] for other in order if places[other][0] == package})
        return thread, cores.index(core), package

    return sorted(order, key=turn)
