"""ray and dask, started on this machine for one sample, on the loopback interface alone, and ended with it."""

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from .sessions import Function, Session, Unsupported

RAY_STORE = 2_000_000_000
# ray's servers listen on all interfaces unless it is told to be a cluster of one. A network namespace with nothing but
# loopback makes sure of it: `private_network` is put before the command of a sample.
PRIVATE_NETWORK = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')
PRIVATE_MARK = "BENCHMARK_PRIVATE_NETWORK"


class RaySession:
    """ray: a function becomes a remote one, arguments go to the object store. Results are read-only arrays there."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.remote: dict[Any, Any] = {}

    def _remote(self, function: Function) -> Any:
        if isinstance(function, partial):
            raise Unsupported("ray takes functions only, no partials")
        if function not in self.remote:
            self.remote[function] = self.ray.remote(function)
        return self.remote[function]

    def call(self, function: Function, item: Any) -> Any:
        return self.ray.get(self._remote(function).remote(item))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        remote = self._remote(function)
        return [remote.remote(item) for item in items]

    def gather(self, handles: list[Any]) -> None:
        self.ray.get(handles)

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return list(self.ray.get(self.submit(function, items)))

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        remote, stored = self._remote(function), self.ray.put(array)
        return list(self.ray.get([remote.remote(stored, item) for item in items]))


class DaskSession:
    """dask.distributed: large arguments are scattered to the workers, which was quicker than a large graph."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def _sent(self, item: Any) -> Any:
        return self.client.scatter(item, hash=False, direct=True) if getattr(item, "nbytes", 0) > 100_000 else item

    def call(self, function: Function, item: Any) -> Any:
        return self.client.submit(function, self._sent(item), pure=False).result()

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return [self.client.submit(function, self._sent(item), pure=False) for item in items]

    def gather(self, handles: list[Any]) -> None:
        self.client.gather(handles, direct=True)

    def map(self, function: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return list(self.client.gather(self.client.map(function, items, pure=False)))

    def common(
        self, function: Callable[..., Any], array: Any, items: Sequence[Any], chunksize: int | None
    ) -> list[Any]:
        sent = self._sent(array)
        return list(self.client.gather([self.client.submit(function, sent, item, pure=False) for item in items]))


@contextmanager
def ray_session(workers: int) -> Iterator[Session]:
    """A ray of its own: no dashboard, no usage statistics, a small object store, all of it gone at the end."""
    if PRIVATE_MARK not in os.environ:
        raise Unsupported("ray opens ports to the network, and this machine gives no private one (unshare, ip)")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Its workers find what this process finds.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    ray: Any = importlib.import_module("ray")
    with tempfile.TemporaryDirectory() as folder:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=RAY_STORE,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
        )
        try:
            yield RaySession(ray)
        finally:
            ray.shutdown()


@contextmanager
def dask_session(workers: int) -> Iterator[Session]:
    """A LocalCluster of processes with one thread each, without dashboards and memory limits."""
    distributed: Any = importlib.import_module("distributed")
    dask: Any = importlib.import_module("dask")
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(temporary_directory=folder),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            memory_limit=None,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield DaskSession(client)
