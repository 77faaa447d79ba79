"""The adapter of Dask: a cluster is its scheduler and workers, a node one of its workers, a link one of its comms.

Dask says who is there and carries messages, with its own security and protocols. None of its tasks are used: each of
the client's links is one long request to a worker, whose handler (`serve`) is the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pickle
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import dask
import distributed
from dask.utils import parse_timedelta
from distributed.comm import CommClosedError, connect
from distributed.protocol import ToPickle

import shoal
from shoal.cluster.engine import Item, Listener
from shoal.cluster.node import Node
from shoal.errors import ShoalError

__all__ = ["DaskEngine", "dask_engine"]

# What the handler is called among those of a Dask worker.
OP = "shoal-node"

# Seconds between two looks at who is there.
PERIOD = 0.5

# Seconds until a node that could not be reached is tried again.
PATIENCE = 5.0

# Seconds to find the scheduler again, when it is lost.
RECONNECT = 1.0

# Of its time limit a node is heard of in each of so many parts.
PERIODS = 4

# Seconds that one who accepts a connection may take to answer.
ANSWER = 5.0


def dask_engine(cluster: object, node_timeout: float) -> DaskEngine:
    """The engine for a client, a cluster object of Dask, or an address of a scheduler."""
    if isinstance(cluster, distributed.Client):
        if cluster.asynchronous:
            raise ValueError("cluster must not be an asynchronous Client: its loop would wait for itself")
        return DaskEngine(cluster, False, node_timeout)
    if not isinstance(cluster, str) and not hasattr(cluster, "scheduler_address"):
        raise TypeError(
            f"cluster must be a dask.distributed.Client, a cluster of Dask or the address of a scheduler, "
            f"not {type(cluster).__name__}"
        )
    try:
        client = distributed.Client(cluster, set_as_default=False)
    except OSError as error:
        raise ShoalError(f"there is no Dask scheduler at {cluster}: {error}") from error
    return DaskEngine(client, True, node_timeout)


class DaskEngine:
    """See `Engine`. What begins with `_` and is no property runs in the loop of the Dask client."""

    def __init__(self, client: distributed.Client, mine: bool, node_timeout: float) -> None:
        self._client, self._mine, self._timeout = client, mine, node_timeout
        self.name = str(client.scheduler.address)
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        self._thread = 0
        self._stopped = asyncio.Event()
        self._over = threading.Event()
        # One look at a time: it is a question and an answer on one comm.
        self._looking, self._gone = asyncio.Lock(), False
        # Nodes that are linked, or are not to be tried (again), and the attempt that this is about.
        self._known: dict[str, asyncio.Future[None]] = {}
        # Those of which it was told that they can't be reached.
        self._unreached: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Those of links that nobody was told of yet.
        self._beginning: set[asyncio.Task[None]] = set()
        self._patience = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"), default="seconds")

    # ---- from any thread ---------------------------------------------------------------------------------------------

    def start(self, listener: Listener, options: bytes) -> None:
        """See `Engine`."""
        self._listener, self._options = listener, options
        present: asyncio.Future[None] = asyncio.run_coroutine_threadsafe(self._begin(), self._loop)  # type: ignore[assignment]
        try:
            present.result()
        except BaseException:
            self.stop()
            raise

    def soon(self, function: Callable[[], object]) -> None:
        """See `Engine`. When the loop is closed all links have ended, and there is nothing more to do."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    @property
    def is_here(self) -> bool:
        """See `Engine`."""
        return threading.get_ident() == self._thread

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """See `Engine`."""
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, function)

    def drop(self) -> None:
        """See `Engine`."""
        if self._mine:
            self._client.close()

    def stop(self) -> None:
        """See `Engine`."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopped.set)

    def join(self, timeout: float | None = None) -> bool:
        """See `Engine`."""
        return self._over.wait(timeout)

    # ---- who is there ------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._thread = threading.get_ident()
        try:
            self._scheduler = await self._reached(self.name, self._patience)
            links = self._link_new(await asyncio.wait_for(self._workers(), self._timeout))
        except (OSError, TimeoutError) as error:
            self._finish()
            reason = str(error) or "it does not answer"
            raise ShoalError(f"there is no Dask scheduler at {self.name}: {reason}") from error
        watching = self._spawn(self._watch())
        watching.add_done_callback(lambda _: self._finish())
        if links:
            await asyncio.wait(links)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler says of each worker, by its address."""
        await self._scheduler.write({"op": "identity", "n_workers": -1, "reply": True})
        identity: Any = await self._scheduler.read()
        return dict(identity["workers"])

    async def _watch(self) -> None:
        """Look who is there, until the engine is stopped; then wait for the links to end."""
        while not self._stopped.is_set():
            try:
                await asyncio.wait_for(self._stopped.wait(), PERIOD)
            except TimeoutError:
                if not await self._look():
                    break
        for beginning in self._beginning:
            beginning.cancel()
        # Links end by themselves when their nodes have ended, or are lost.
        while links := [task for task in self._tasks if task is not asyncio.current_task()]:
            await asyncio.wait(links)
        await self._scheduler.close()

    async def _look(self) -> bool:
        """See who is there; whether the scheduler itself is."""
        async with self._looking:
            return not self._gone and await self._look_now()

    async def _look_now(self) -> bool:
        try:
            if self._client.status in ("closing", "closed"):
                raise CommClosedError("the Dask client was closed")
            try:
                workers = await asyncio.wait_for(self._workers(), self._timeout)
            except OSError:
                self._scheduler = await self._reached(self.name, RECONNECT)
                workers = await asyncio.wait_for(self._workers(), self._timeout)
        except (OSError, TimeoutError) as error:
            self._gone = True
            reason = str(error) or "it does not answer"
            self._listener.ended(ShoalError(f"the Dask scheduler at {self.name} is gone: {reason}"))
            return False
        self._known = {address: up for address, up in self._known.items() if address in workers}
        self._link_new(workers)
        return True

    def _link_new(self, workers: dict[str, dict[str, Any]]) -> list[asyncio.Future[None]]:
        hosts = [worker.get("host") for worker in workers.values()]
        up: list[asyncio.Future[None]] = []
        for address, worker in workers.items():
            if address not in self._known:
                self._known[address] = self._loop.create_future()
                up.append(self._known[address])
                self._spawn(self._link(address, hosts.count(worker.get("host")), up[-1]))
        return up

    def _finish(self) -> None:
        if not self._mine:
            self._over.set()
            return

        def close() -> None:
            self._client.close()
            self._over.set()

        threading.Thread(target=close, name="shoal-dask-close").start()

    # ---- one node ----------------------------------------------------------------------------------------------------

    async def _link(self, address: str, neighbours: int, up: asyncio.Future[None]) -> None:
        """A link from its beginning to its end."""
        beginning: Any = asyncio.current_task()
        self._beginning.add(beginning)
        try:
            link = None if self._stopped.is_set() else await self._begun(address, neighbours, up)
            if link is not None:
                self._listener.linked(link)
        finally:
            self._beginning.discard(beginning)
            up.set_result(None)
        if link is None:
            return
        reason = "its messages can't be read"
        try:
            reason = await self._read(link)
        finally:
            self._try_later(address, up)
            # With the scheduler its workers end, too: that is to be told, and not the end of each.
            if not self._stopped.is_set():
                await self._look()
            self._listener.lost(link, reason)

    async def _begun(self, address: str, neighbours: int, up: asyncio.Future[None]) -> _Wire | None:
        """A new link; None if there is none, for now or at all."""
        try:
            comm = await self._reached(address, self._patience)
        except OSError as error:
            self._unreachable(address, up, error)
            return None
        link = None
        try:
            link = await self._greet(comm, address, neighbours)
            self._unreached.discard(address)
        except (TimeoutError, _Silent) as error:
            self._unreachable(address, up, error)
        except OSError:
            self._try_later(address, up)
        except Exception as error:
            self._listener.refused(address, error)
        finally:
            if link is None:
                comm.abort()
        return link

    def _try_later(self, address: str, up: asyncio.Future[None]) -> None:
        """It may be on its way in or out: if it stays there, it is tried again."""
        self._loop.call_later(PATIENCE, self._forget, address, up)

    def _forget(self, address: str, up: asyncio.Future[None]) -> None:
        # It may have gone and come meanwhile, and be linked.
        if self._known.get(address) is up:
            del self._known[address]

    def _unreachable(self, address: str, up: asyncio.Future[None], error: Exception) -> None:
        """The same, and it is told; once."""
        self._try_later(address, up)
        if address not in self._unreached:
            self._unreached.add(address)
            reason = str(error) or "it does not answer"
            self._listener.refused(address, ShoalError(f"node {address} can't be reached from here: {reason}"))

    async def _reached(self, address: str, seconds: float) -> Any:
        """A comm to who is at an address. Dask itself would wait for ever for the first words of one that is frozen."""
        connecting = connect(address, timeout=seconds, **self._client.connection_args)
        return await asyncio.wait_for(connecting, seconds + ANSWER)

    async def _greet(self, comm: Any, address: str, neighbours: int) -> _Wire:
        """Make the Dask worker at the other end a node."""
        await comm.write({"op": "run", "function": pickle.dumps(install), "wait": True, "reply": True})
        reply: Any = await asyncio.wait_for(comm.read(), self._patience)
        if reply["status"] != "OK":
            raise ShoalError(f"shoal can't be used on node {comm.peer_address}: {reply['text']}")
        greeting = shoal.__version__, self._options, neighbours, self._timeout
        await comm.write({"op": OP, "greeting": ToPickle(greeting), "reply": False})
        link = _Wire(comm, self._loop, address)
        # Its pool may take its time to start, but it is to be heard of.
        beats = self._spawn(link.beat(self._timeout / PERIODS))
        try:
            await link.begin()
        except BaseException:
            link.end()
            raise
        finally:
            beats.cancel()
        return link

    async def _read(self, link: _Wire) -> str:
        """Hand on what a node sends, until the link ends; why it did."""
        beats = self._spawn(link.beat(self._timeout / PERIODS))
        try:
            while True:
                try:
                    items = await link.read()
                except CommClosedError:
                    return "its connection is gone"
                except _Silent:
                    return f"it has not answered for {self._timeout:g} s"
                if items and items[0] == ("gone",):
                    return "it has ended its pool"
                self._listener.received(link, items)
                # They may be large, and the next may be long in coming.
                del items
        finally:
            beats.cancel()
            link.end()


class _Silent(Exception):
    """Nothing has come for too long."""


class _Wire:
    """A comm as both of its ends use it: items are sent in order, all that have gathered at a time."""

    def __init__(self, comm: Any, loop: asyncio.AbstractEventLoop, node: str) -> None:
        self.node, self.workers = node, 0
        self._comm, self._loop = comm, loop
        self._outgoing: deque[tuple[tuple[Item, ...], Callable[[], object] | None]] = deque()
        self._called = self._closing = False
        self._wake = asyncio.Event()
        self._silent = 0
        # Told whether nothing has come for so long that the other end may soon give this one up.
        self.on_quiet: Callable[[bool], object] | None = None
        # What came before it was known that the node is ready.
        self._early: list[Item] = []
        self._sender = loop.create_task(self._write())

    def send(self, *items: Item, then: Callable[[], object] | None = None) -> None:
        """Send items, from any thread; `then` is called in the loop when they have left this process."""
        self._outgoing.append((items, then))
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """See `Link`."""
        if not self._closing:
            self.send(("bye",))
            self._closing = True

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._called = False
            items: list[Item] = []
            sent: list[Callable[[], object] | None] = []
            while self._outgoing:
                some, then = self._outgoing.popleft()
                items += some
                sent.append(then)
            if not sent:
                continue
            try:
                await self._flushed(items)
            except CommClosedError:
                # Whoever reads is told, too.
                return
            except BaseException:
                self._comm.abort()
                raise
            for then in sent:
                if then is not None:
                    then()

    async def _flushed(self, items: list[Item]) -> None:
        # The first frame comes in one piece of memory with what is before it, at whatever place in it: a small one.
        await self._comm.write(ToPickle((pickle.PickleBuffer(bytearray(1)), items)))
        stream = getattr(self._comm, "stream", None)
        if stream is not None and stream.writing():
            # Dask does not wait until it has left.
            try:
                await stream.write(b"")
            except Exception as error:  # tornado's, which says that the stream is closed
                raise CommClosedError(str(error)) from error

    async def begin(self) -> None:
        """In the client: wait until the node has its pool.

        Raises:
            Exception: what it says that it can't.
        """
        early: list[Item] = []
        while (answer := next((item for item in early if item[0] in ("ready", "refused")), None)) is None:
            early += await self.read()
        if answer[0] == "refused":
            raise pickle.loads(answer[1])
        early.remove(answer)
        self._early, self.workers = early, answer[1]

    async def read(self) -> list[Item]:
        """The next items from the other end.

        Raises:
            CommClosedError: there are no more.
            _Silent: `beat` has ended the link.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        try:
            message = await self._comm.read()
        except CommClosedError:
            if self._silent < 0:
                raise _Silent from None
            raise
        self._silent = 0
        if self.on_quiet is not None:
            self.on_quiet(False)
        items: list[Item] = _opened(message)[1]
        return items

    async def beat(self, period: float, patience: int = PERIODS) -> None:
        """Send something now and then, and end the link when nothing has come for `patience` periods.

        Periods are counted, not seconds: a process that was stopped itself waits for them anew.
        """
        while True:
            await asyncio.sleep(period)
            self._silent += 1
            if self.on_quiet is not None and self._silent > PERIODS // 2:
                self.on_quiet(True)
            if self._silent > patience:
                self._silent = -1
                self._comm.abort()
                return
            # Not by `send`: what Ctrl-C has kept from waking whoever writes goes with it.
            self._outgoing.append(((), None))
            self._wake.set()

    async def drain(self) -> None:
        """Wait until all that was sent has left, a second at most."""
        left = asyncio.Event()
        self.send(then=left.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(left.wait(), 1.0)

    def end_sending(self) -> None:
        """Nothing more is sent."""
        self._sender.cancel()

    def end(self) -> None:
        """Nothing more is sent, and the comm is closed."""
        self.end_sending()
        self._comm.abort()


def _opened(message: Any) -> Any:
    """What was sent, also where the comm does not pickle: between two ends in one process."""
    return message.data if isinstance(message, ToPickle) else message


def install(dask_worker: Any) -> None:
    """On a Dask worker: teach it to be a node."""
    dask_worker.handlers[OP] = serve


async def serve(comm: Any, greeting: Any) -> None:
    """On a Dask worker: be a node for the client at the other end, until that says goodbye or is gone."""
    version, options, neighbours, timeout = _opened(greeting)
    loop = asyncio.get_running_loop()
    wire = _Wire(comm, loop, comm.local_address)
    beats = loop.create_task(wire.beat(timeout / PERIODS, patience=1 << 62))
    try:
        if version != shoal.__version__:
            raise ShoalError(f"node {comm.local_address} has shoal {shoal.__version__}, and the client has {version}")
        patience = timeout * (PERIODS // 2 + 1) / PERIODS
        node = await loop.run_in_executor(None, functools.partial(Node, options, neighbours, wire.send, patience))
    except Exception as error:
        wire.send(("refused", pickle.dumps(error)))
        await wire.drain()
        wire.end_sending()
        beats.cancel()
        return
    wire.on_quiet = node.hold
    try:
        wire.send(("ready", node.workers))
        while True:
            items = await wire.read()
            goodbye = ("bye",) in items
            node.receive([item for item in items if item != ("bye",)])
            # They may be large, and the next may be long in coming.
            del items
            if goodbye:
                break
    except CommClosedError:
        pass
    finally:
        beats.cancel()
        await asyncio.shield(loop.run_in_executor(None, node.close))
        if not comm.closed():
            await wire.drain()
        wire.end_sending()
    try:
        await comm.write(ToPickle((None, [("gone",)])))
        # The client ends the comm; what it has sent meanwhile concerns nobody.
        while True:
            await comm.read()
    except CommClosedError:
        return
