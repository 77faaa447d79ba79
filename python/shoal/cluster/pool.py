"""`Pool(cluster=…)`: the same pool on the machines of a cluster.

The front is `Pool`'s own. What the engine does on one machine is done here in Python for many, each of which has a pool
of the engine's: `Nodes` is the twin of `PoolBase`, `Task` of `AsyncResult`, those of maps are in `maps`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shoal import _checks, _engine, pool
from shoal.affinity import cpus_of_workers
from shoal.cluster.engine import engine_of
from shoal.cluster.functions import Function
from shoal.cluster.maps import Job, Stream
from shoal.cluster.nodes import Nodes
from shoal.cluster.progress import taken_apart
from shoal.cluster.shared.homes import home
from shoal.cluster.spent import of_nodes
from shoal.cluster.terms import Terms
from shoal.cluster.traces import ClusterRecorder
from shoal.cluster.wire import pack
from shoal.insight import html
from shoal.insight.report import MapReport
from shoal.insight.stats import PoolStats
from shoal.pool import Pool, _levels_changed, _seeds, register
from shoal.progress.door import door
from shoal.reports import levels
from shoal.reports.client import listen
from shoal.results import closed
from shoal.threads import Inbox

__all__ = ["ClusterPool"]

# Seconds that `terminate` waits for the nodes to have ended their pools.
_PARTING = 10.0


class ClusterPool(Pool):
    """Workers on the nodes of a cluster. Made by `Pool(cluster=…)`, which describes it."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        cluster: object = None,
        node_timeout: float | None = None,
        preload: Iterable[str] = (),
        memory_limit: int | None = None,
        threads_per_worker: int | None = None,
        worker_memory_limit: int | None = None,
        maxmemoryperchild: int | None = None,
        idle_timeout: float | None = None,
        affinity: Any = None,
        unresponsive_after: float | None = 30.0,
        seed: Any = None,
        logs: bool = True,
        warnings: bool = True,
        output: bool = True,
        kind: str = "process",
        **options: Any,
    ) -> None:
        if kind != "process":
            raise ValueError(f"kind must be 'process' on a cluster, not {kind!r}")
        terms = Terms(options)
        seconds = 30.0 if node_timeout is None else _checks.period(node_timeout, "node_timeout")
        if seconds is None:
            raise ValueError(
                "node_timeout must be a number of seconds: a node that is frozen for ever is to be given up"
            )
        # Whoever passes on what nodes say looks there whether bars are in the way.
        door()
        told = listen(logs, warnings, output)
        use = home().use()
        start = _checks.initializer(initializer, initargs)
        if affinity is not None:
            cpus_of_workers(affinity)
        arguments = {
            "processes": None if processes is None else _checks.processes(processes),
            "start": None if start is None else pack(start, "initializer"),
            "maxtasksperchild": _checks.maxtasksperchild(maxtasksperchild),
            "preload": [preload] if isinstance(preload, str) else list(preload),
            "memory_limit": _checks.memory_limit(memory_limit),
            "threads_per_worker": _checks.threads(threads_per_worker),
            "worker_memory_limit": _checks.memory_limit(worker_memory_limit, "worker_memory_limit"),
            "maxmemoryperchild": _checks.memory_limit(maxmemoryperchild, "maxmemoryperchild"),
            "idle_timeout": _checks.period(idle_timeout, "idle_timeout"),
            "affinity": affinity,
            "unresponsive_after": _checks.period(unresponsive_after, "unresponsive_after"),
            # What this process's workers are told, but that none of those there has its terminal.
            "told": (*told[:-1], "forwarded" if output else "unheard"),
        }
        self._owner = os.getpid()
        self._root = None
        self._terms = terms
        self._last_terms = ({}, terms)
        self._seeds = _seeds(seed)
        self._terminated = False
        self._callbacks = self._future = None
        self._streams = weakref.WeakSet()
        self._lock = threading.Lock()
        if cluster is None:
            # The program says what one machine is to have; here it is to have all.
            cluster, arguments["processes"] = pool.default_cluster, None
        engine = engine_of(cluster, seconds)
        self._name = engine.name
        self._base = Nodes(engine, arguments)  # type: ignore[assignment]
        register(self)
        levels.watch(_levels_changed)
        del use  # it is the nodes' by now

    def terminate(self) -> None:
        (self._root or self)._terminated = True
        self._base.terminate_now()
        # The nodes' pools are to be gone when this process is, or goes on.
        self._base.wait_over(_PARTING)
        _engine.pass_words_on()

    def stats(self) -> PoolStats:
        nodes: Any = self._base
        return of_nodes(nodes)

    def explain(self) -> MapReport:
        nodes: Any = self._base
        account = nodes.last_map
        if account is None:
            raise ValueError("no map of this pool is done yet")
        # A worker's time counts from when it was there.
        asked = time.monotonic_ns()
        ready = {
            (node, number): asked - busy - sum(between)
            for node, rows in nodes.spent()[0]
            for number, pid, _, _, (_, busy, _, _, *between) in rows
            if pid is not None
        }
        report: MapReport = account.report(ready)
        return report

    def map_array(
        self,
        func: Callable[..., Any],
        a: Any,
        *others: Any,
        axis: int = 0,
        chunks: int | Sequence[int] | None = None,
        out: Any = None,
    ) -> Any:
        from shoal.blocks import map_blocks
        from shoal.cluster.blocks import FarRun

        return map_blocks(self, func, a, others, axis, chunks, out, FarRun)

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f" cluster={self._name}>"

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _recorder(self, most: int) -> ClusterRecorder:
        nodes: Any = self._base
        return ClusterRecorder(nodes, f"shoal.Pool of {nodes.size}", most)

    def _leave_notice(self, told: bytes) -> None:
        self._base.leave_notice(told)

    def _as_html(self, name: str) -> str:
        nodes: Any = self._base
        return html.cluster(name, self._state, f"{nodes.size} workers on {self._name}", *nodes.depth)

    def _watch(self, progress: Any, iterable: Iterable[Any], options: Any) -> Any:
        if progress is None or progress is False:
            return None
        from shoal.cluster.progress import ClusterWatch

        return ClusterWatch(progress, iterable, not self._terms_with(options).options.get("retry_on"))

    def _running(self) -> tuple[list[str], int]:
        # Only their nodes know.
        return [], 0

    def _inbox(self) -> Any:
        return Inbox()

    def _function(self, func: Any) -> Function:
        """What `_on_terms` gives for a map: packed once, as it is now."""
        return func if isinstance(func, Function) else self._base.prepare(func)  # type: ignore[return-value]

    def _stream(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        options: Mapping[str, Any],
    ) -> Any:
        if not self._base.is_open:
            raise closed()
        if self._seeds is not None:
            func, iterable = self._seeds.each(func, iterable, False)
        func, shown = taken_apart(func)
        func, chunksize = self._on_terms(func, chunksize, options)  # type: ignore[arg-type]
        ahead = _checks.buffersize(buffersize)
        nodes: Any = self._base
        stream = Stream(nodes, self._function(func), iterable, chunksize, ahead, ordered, shown)
        self._streams.add(stream)  # type: ignore[arg-type]
        return stream

    def _map_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        options: Mapping[str, Any],
    ) -> Any:
        func, shown = taken_apart(func)
        func, chunksize = self._on_terms(func, chunksize, options)  # type: ignore[arg-type]
        ahead = _checks.buffersize(buffersize)
        nodes: Any = self._base
        return Job(nodes, self._function(func), iterable, chunksize, ahead, star, shown)
