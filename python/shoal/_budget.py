"""One budget of CPUs: for the workers of a pool, for the threads of libraries in them, and for the pools they make.

    this process: 8 CPUs ──Pool(4)──▶ each worker: 2 CPUs ──Pool(2)──▶ each worker of a worker: 1 CPU

A worker is told its share in its environment, where also its own children find it: `SHOAL_CPUS` is what `cpu_count`
says there, and the variables that BLAS, OpenMP and others read when they are loaded say the same. What was loaded
before, by the zygote that the worker is a fork of, is told by threadpoolctl.
"""

from __future__ import annotations

import os
import sys

from shoal import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cpu_count", "settle", "share", "threads", "zygote"]

_CPUS = "SHOAL_CPUS"

# What libraries read when they are loaded, to know how many threads to have.
THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)

# OpenBLAS's threads look for work for 2^26 cycles before they sleep, some 30 ms, also in a new worker that has none:
# CPUs that others want. 2^20, half a millisecond, is still long enough for calls that follow each other closely.
_PATIENCE = ("OPENBLAS_THREAD_TIMEOUT", "20")

# As threadpoolctl calls what it can limit.
_LOADED = {"openblas": "OPENBLAS_NUM_THREADS", "openmp": "OMP_NUM_THREADS", "mkl": "MKL_NUM_THREADS"}

# What a pool has put into this worker's environment, as opposed to what a user has: a pool of the worker's own divides
# the former, and leaves the latter alone.
_given: dict[str, str] = {}


def cpu_count() -> int:
    """How many CPUs there are for this process. Pools have as many workers by default.

    That is what its affinity and the quota of its cgroup (of the container, say) allow; in a worker of a pool, its
    share of that. The environment variable `SHOAL_CPUS` may say less.

    Raises:
        ValueError: `SHOAL_CPUS` is no positive integer.

    Example:
        >>> with shoal.Pool() as pool:
        ...     pool.apply(shoal.cpu_count)
        1
    """
    usable = _engine.cpu_count()
    text = os.environ.get(_CPUS)
    if not text:
        return usable
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{_CPUS} must be a positive integer, not {text!r}")
    return min(usable, int(text))


def share(workers: int, threads: int | None) -> dict[str, str]:
    """What is put into the environment of each worker.

    Args:
        workers: how many there are.
        threads: how many threads libraries shall have in each, even if the environment says otherwise; None for their
            share of the CPUs, where it says nothing.
    """
    cpus = str(max(1, cpu_count() // workers))
    # joblib counts CPUs by itself, and reads this.
    chosen = {_CPUS: cpus, **_unless_user_says("LOKY_MAX_CPU_COUNT", cpus), **_unless_user_says(*_PATIENCE)}
    for name in THREADS:
        chosen.update({name: str(threads)} if threads is not None else _unless_user_says(name, cpus))
    return chosen


def zygote() -> dict[str, str]:
    """What is put into the environment of the zygote: one thread, as it must have no more when it forks."""
    chosen = _unless_user_says(*_PATIENCE)
    for name in THREADS:
        chosen.update(_unless_user_says(name, "1"))
    return chosen


def threads() -> set[str]:
    """How many threads libraries would have in the zygote."""
    return {zygote().get(name) or os.environ[name] for name in _LOADED.values()}


def settle(share: Mapping[str, str], zygote: Mapping[str, str]) -> None:
    """In a new worker: be content with its `share`, `zygote` being the zygote's environment."""
    os.environ.update(share)
    _given.clear()
    _given.update(share)
    if "numpy" in sys.modules and differs(zygote, os.environ):
        _limit_loaded()


def differs(zygote: Mapping[str, str], worker: Mapping[str, str]) -> bool:
    """Whether libraries that the zygote has loaded are to have other numbers of threads in a worker."""
    return any(worker.get(name) != zygote.get(name) for name in _LOADED.values())


def _limit_loaded() -> None:
    from threadpoolctl import ThreadpoolController

    loaded = ThreadpoolController()
    for library, name in _LOADED.items():
        # OpenBLAS takes OpenMP's number too, if it has none of its own; so do the others.
        count = os.environ.get(name) or os.environ.get("OMP_NUM_THREADS", "")
        if count.isdigit():
            loaded.select(internal_api=library).limit(limits=int(count))


def _unless_user_says(name: str, value: str) -> dict[str, str]:
    said = os.environ.get(name)
    return {name: value} if said is None or said == _given.get(name) else {}
