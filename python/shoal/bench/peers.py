"""The tools that are compared: how a pool of each is started and ended."""

import importlib
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

from .clusters import dask_session, ray_session
from .sessions import ExecutorSession, JoblibSession, MpireSession, PoolSession, Session, Unsupported


@contextmanager
def _shoal(workers: int) -> Iterator[Session]:
    import shoal

    with shoal.Pool(workers) as pool:
        yield PoolSession(pool)


@contextmanager
def _multiprocessing(workers: int) -> Iterator[Session]:
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield PoolSession(pool)


@contextmanager
def _executor(workers: int) -> Iterator[Session]:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as executor:
        yield ExecutorSession(executor)


@contextmanager
def _threads(workers: int) -> Iterator[Session]:
    with ThreadPool(workers) as pool:
        yield PoolSession(pool)


@contextmanager
def _joblib(workers: int) -> Iterator[Session]:
    import joblib
    from joblib.externals.loky import get_reusable_executor

    yield JoblibSession(joblib, workers)
    get_reusable_executor().shutdown(wait=True)


@contextmanager
def _mpire(workers: int) -> Iterator[Session]:
    mpire: Any = importlib.import_module("mpire")
    with mpire.WorkerPool(workers, start_method="fork") as pool:
        yield MpireSession(pool)


def _no_pool(_workers: int) -> Any:
    raise Unsupported("has no pools")


@dataclass(frozen=True)
class Peer:
    """A tool, by the module it comes in and the way to start a pool of some workers.

    A `cluster` takes many seconds to start: it is measured where data travels, and with one sample. One with a
    `private_network` is started where there is no other. One without pools is compared in other things.
    """

    name: str
    module: str
    session: Callable[[int], Any]
    cluster: bool = False
    private_network: bool = False
    has_pools: bool = True

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return importlib.util.find_spec(self.module) is not None


SHOAL = "shoal"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(SHOAL, "shoal", _shoal),
        Peer("multiprocessing", "multiprocessing", _multiprocessing),
        Peer("executor", "concurrent.futures", _executor),
        Peer("threads", "multiprocessing.pool", _threads),
        Peer("joblib", "joblib", _joblib),
        Peer("mpire", "mpire", _mpire),
        Peer("faster-fifo", "faster_fifo", _no_pool, has_pools=False),
        Peer("ray", "ray", ray_session, cluster=True, private_network=True),
        Peer("dask", "distributed", dask_session, cluster=True),
    )
}
POOLS = tuple(name for name, peer in PEERS.items() if peer.has_pools and not peer.cluster)
# Where data travels: threads move none, and the executor does what multiprocessing does.
CARRIERS = (SHOAL, "multiprocessing", "joblib", "mpire", "ray", "dask")
