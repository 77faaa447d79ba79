"""A Dask cluster of two nodes on this machine, in processes of their own, and pools on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import pytest
from distributed import LocalCluster

import shoal


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two Dask workers, each a node with one worker, for the tests of a module: tests of other things come after them,
    which are not to run beside its threads and processes."""
    with local_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


def local_cluster(folder: Any, nodes: int = 2) -> Any:
    """Dask's scheduler in this process, its workers in others, on the loopback interface."""
    with dask.config.set(temporary_directory=str(folder)):
        return LocalCluster(
            n_workers=nodes,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            memory_limit=None,
        )


@pytest.fixture
def pool(cluster: Any) -> Iterator[shoal.Pool]:
    """A pool with one worker on each of two nodes."""
    with shoal.Pool(1, cluster=cluster) as pool:
        yield pool
    pool.join()


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of the frames that have been sent to nodes, a number for each."""
    from shoal.cluster import dask

    seen: list[int] = []
    send = dask._Wire.send

    def counting(self: Any, *items: Any, then: Any = None) -> None:
        for name, *content in items:
            frames = {"function": lambda c: c[3], "blob": lambda c: [c[1]]}.get(name, lambda _: [])(content)
            if name == "tasks":
                frames = [frame for task in content[0] for frame in task[4] if not isinstance(frame, int)]
            seen.extend(memoryview(frame).nbytes for frame in frames)
        send(self, *items, then=then)

    monkeypatch.setattr(dask._Wire, "send", counting)
    return seen
