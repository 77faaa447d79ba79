"""What shoal asks of the cluster that carries it: who is there, and a way for messages to each.

The adapter of an engine (`dask`) implements `Engine` and `Link`; `Nodes` is its listener. On a node it makes a `Node`
for each link, and hands messages to and fro. It knows nothing of tasks, and `Nodes` nothing of Dask.

A message is a list of tuples, which begin with a name and hold plain data: numbers, text, bytes, and frames, which are
anything with the buffer protocol. Messages of a link arrive in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Engine", "Item", "Link", "Listener", "engine_of"]

Item = tuple[Any, ...]


class Link(Protocol):
    """The way to one node."""

    # The node's address, as errors name it; and its number of workers.
    node: str
    workers: int

    def send(self, *items: Item) -> None:
        """Send these, from any thread, after all that was sent before. Does not wait."""

    def close(self) -> None:
        """Have the node end its pool, then end the link; from any thread. Does not wait: `lost` tells when."""


class Listener(Protocol):
    """Who is told what happens; in a thread of the engine, so it must not wait."""

    def linked(self, link: Link) -> None:
        """A node is there, its pool has started."""

    def refused(self, node: str, error: BaseException) -> None:
        """A node can't be used."""

    def received(self, link: Link, items: list[Item]) -> None:
        """A node sent this."""

    def lost(self, link: Link, reason: str) -> None:
        """A link has ended; its node's pool is gone, or nobody can tell any more."""

    def ended(self, error: Exception) -> None:
        """The cluster itself is gone."""


class Engine(Protocol):
    """A cluster."""

    # In a few words, for `repr` and errors.
    name: str

    def start(self, listener: Listener, options: bytes) -> None:
        """Link all nodes, and those that join later, each told `options`, see `Node`.

        Returns when each of the present nodes is linked or refused.

        Raises:
            ShoalError: the cluster can't be reached.
        """

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` in the engine's thread; from any thread. Does not wait."""

    @property
    def is_here(self) -> bool:
        """Whether this is the engine's thread."""

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call `function` in the engine's thread after so many seconds; from any thread."""

    def drop(self) -> None:
        """Let go of a cluster that was not started."""

    def stop(self) -> None:
        """Link no more nodes, and end when all links have ended. From any thread."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left of the engine; whether nothing is."""


def engine_of(cluster: object, node_timeout: float) -> Engine:
    """The engine for what a user passed as `cluster`.

    Raises:
        TypeError, ValueError: it is no cluster.
        ModuleNotFoundError: Dask is not installed.
    """
    try:
        from shoal.cluster.dask import dask_engine
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        message = "a pool on a cluster needs dask.distributed: pip install 'shoal[dask]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    return dask_engine(cluster, node_timeout)
