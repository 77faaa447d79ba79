"""`pool.aio`: a pool's methods for asyncio.

    async with asyncio.TaskGroup() as group:
        group.create_task(pool.aio.apply(render, (page,)))

    async for thumbnail in pool.aio.imap(shrink, photos()):
        ...

Nothing here has a thread of its own: the pool's thread for callbacks tells the event loop that tasks have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from shoal import _checks
from shoal._engine import AsyncResult
from shoal.pool import Pool
from shoal.results import closed

if TYPE_CHECKING:
    from typing import Unpack

    from shoal._terms import TaskOptions

__all__ = ["AsyncMethods"]

R = TypeVar("R")

# Tasks for each worker that may be sent or wait, unless the user says: as of `Pool.imap`.
_TASKS = 16


class AsyncMethods:
    """The methods of a pool for asyncio. `Pool.aio` is one.

    Where the coroutine that waits is cancelled, or an `async for` is left, tasks that no worker has taken are
    cancelled; what workers are at, they end, and nobody is told.

    All of them take the options of a task, `timeout`, `retries` and so on, too; see `Pool.options`.

    Example:
        >>> async def main():
        ...     squares = await pool.aio.map(lambda x: x * x, range(5))
        ...     return squares, [x async for x in pool.aio.imap(abs, [-1, 2])]
        >>> asyncio.run(main())
        ([0, 1, 4, 9, 16], [1, 2])
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def apply(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        **options: Unpack[TaskOptions],
    ) -> R:
        """Call `func(*args, **kwds)` in a worker and wait for its result. As `Pool.apply`, with the same errors."""
        task = self._pool.apply_async(func, args, kwds, **options)
        bell = _Bell()
        try:
            if self._pool._threads().watch(task, bell.ring):
                await bell.rung()
        except BaseException:
            task.cancel()
            raise
        return task.get()

    async def map(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any] | AsyncIterable[Any],
        chunksize: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> list[R]:
        """Apply `func` to each item, in parallel; the results in order. As `Pool.map`, with the same errors.

        Args:
            func: called with one item.
            iterable: the items; listed first, in this thread. Those of an asynchronous iterable are sent as they come.
            chunksize: items a task. Default: as many as take about a millisecond, found out on the way; 1 of an
                asynchronous iterable.
        """
        return await self._on(options)._map(func, iterable, chunksize, star=False)

    async def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        chunksize: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> list[R]:
        """As `map`, where each item is an iterable of positional arguments."""
        return await self._on(options)._map(func, iterable, chunksize, star=True)

    def _on(self, options: TaskOptions) -> AsyncMethods:
        return AsyncMethods(self._pool.options(**options)) if options else self

    async def _map(self, func: Callable[..., R], iterable: Any, chunksize: int | None, star: bool) -> list[R]:
        if isinstance(iterable, AsyncIterable):
            results = self._stream(
                _star(func) if star else func, iterable, 1 if chunksize is None else chunksize, None, True
            )
            async with contextlib.aclosing(results):
                return [result async for result in results]
        bell = _Bell()
        submit = self._pool.starmap_async if star else self._pool.map_async
        job = submit(func, iterable, chunksize, bell.ring, bell.ring)
        try:
            await bell.rung()
        except BaseException:
            job.cancel()
            raise
        # Its callback is called when all is done.
        return job._job.result()

    def imap(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any] | AsyncIterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncGenerator[R, None]:
        """Apply `func` to each item, in parallel; iterate over the results with `async for`, in order.

        Args:
            func: called with one item; sent once, as it is now.
            iterable: the items, in an ordinary or an asynchronous iterable. It is read a bounded way ahead of the
                results that were taken, and may be endless. While an asynchronous one keeps waiting, results go on
                coming.
            chunksize: items a task. With more than one, an exception takes the place of all results of its chunk.
            buffersize: how many items may be sent or wait without their results having been taken, 1 or more.
                Default: 16 tasks a worker.

        Returns:
            An asynchronous generator. What a task raised is raised in the place of its result, and ends it. To have
            it ended at a definite moment where it is left early, use `contextlib.aclosing`.

        Raises:
            TypeError: `func` can't be called, `iterable` is none, or a size is no integer.
            ValueError: a size is less than 1, or the pool is closed.
            SerializationError: `func` can't be pickled.
        """
        return self._on(options)._stream(func, iterable, chunksize, buffersize, ordered=True)

    def imap_unordered(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any] | AsyncIterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncGenerator[R, None]:
        """As `imap`, with the results in the order in which they arrive."""
        return self._on(options)._stream(func, iterable, chunksize, buffersize, ordered=False)

    def _stream(
        self, func: Callable[..., R], iterable: Any, chunksize: int, buffersize: int | None, ordered: bool
    ) -> AsyncGenerator[R, None]:
        """Checks at once; nothing is read or sent before the first result is asked for."""
        if not self._pool._base.is_open:
            raise closed()
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        chunksize = _checks.chunksize(chunksize)
        tasks = _TASKS * self._pool._base.size
        if (most := _checks.buffersize(buffersize)) is not None:
            tasks = max(most // chunksize, 1)
        items = iterable if isinstance(iterable, AsyncIterable) else iter(iterable)
        if (seeds := self._pool._seeds) is not None:
            func, items = seeds.item(func), _with_places(items, seeds.places())
        prepared = self._pool._prepare(functools.partial(_each, func))
        return _results(_Flow(self._pool, prepared, items, chunksize, tasks, ordered))


class _Flow:
    """Tasks that are sent a bounded way ahead of the results that were taken."""

    def __init__(
        self, pool: Pool, func: Any, items: Iterator[Any] | AsyncIterable[Any], chunksize: int, most: int, ordered: bool
    ) -> None:
        self.pool, self.func, self.items, self.chunksize, self.most = pool, func, items, chunksize, most
        self.bell = _Bell()
        # In the order in which they were sent; and those that have ended, if the order does not matter.
        self.sent: dict[AsyncResult[list[Any]], None] = {}
        self.come: deque[AsyncResult[list[Any]]] | None = None if ordered else deque()
        self.room = asyncio.Event()
        self.sending: asyncio.Task[None] | None = None

    def send(self, chunk: list[Any]) -> None:
        task = self.pool._base.submit_call(self.func, (chunk,))
        self.sent[task] = None
        told = self.bell.ring if self.come is None else functools.partial(self._arrived, task)
        if not self.pool._threads().watch(task, told):
            told()

    def _arrived(self, task: AsyncResult[list[Any]]) -> None:
        assert self.come is not None
        self.come.append(task)
        self.bell.ring()

    def pump(self) -> bool:
        """Send as much of an ordinary input as may be. Whether there may be more to send."""
        assert isinstance(self.items, Iterator)
        while len(self.sent) < self.most:
            chunk = list(itertools.islice(self.items, self.chunksize))
            if not chunk:
                return False
            self.send(chunk)
        return True

    async def feed(self) -> None:
        """Send an asynchronous input as it comes."""
        assert isinstance(self.items, AsyncIterable)
        items, chunk = aiter(self.items), []
        while True:
            while len(self.sent) >= self.most:
                self.room.clear()
                await self.room.wait()
            try:
                chunk.append(await anext(items))
            except BaseException as error:
                # What was read before goes out in any case.
                if chunk and isinstance(error, (StopAsyncIteration, Exception)):
                    self.send(chunk)
                if isinstance(error, StopAsyncIteration):
                    return
                raise
            if len(chunk) == self.chunksize:
                self.send(chunk)
                chunk = []

    def next(self) -> AsyncResult[list[Any]] | None:
        """The task whose results come next, if it has ended."""
        if self.come is not None:
            task = self.come.popleft() if self.come else None
        else:
            task = next(iter(self.sent), None)
        if task is None or not task.ready():
            return None
        del self.sent[task]
        self.room.set()
        return task


async def _results(flow: _Flow) -> AsyncGenerator[Any, None]:
    ordinary = isinstance(flow.items, Iterator)
    failure: Exception | None = None
    sending = None if ordinary else asyncio.create_task(flow.feed())
    if sending is not None:
        sending.add_done_callback(flow.bell.ring)
    more = True
    try:
        while more or flow.sent:
            if more:
                try:
                    more = flow.pump() if sending is None else not sending.done()
                except Exception as error:
                    # What the input raises comes behind all results.
                    more, failure = False, error
            if (task := flow.next()) is not None:
                results = task.get()
                del task
                while results:
                    yield results.pop()
            elif more or flow.sent:
                await flow.bell.rung()
        if failure is not None:
            raise failure
        if sending is not None:
            await sending
    finally:
        for task in flow.sent:
            task.cancel()
        if sending is not None and not sending.done():
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending


class _Bell:
    """Wakes a coroutine from any thread, and bothers its event loop no more often than that looks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._ringing = False

    def ring(self, _: object = None) -> None:
        if not self._ringing:
            self._ringing = True
            # An event loop that is closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._heard)

    def _heard(self) -> None:
        # Before anybody looks: what ends after the look rings again.
        self._ringing = False
        self._event.set()

    async def rung(self) -> None:
        await self._event.wait()
        self._event.clear()


def _each(func: Callable[[Any], R], chunk: list[Any]) -> list[R]:
    results = [func(item) for item in chunk]
    # The first is taken first, from the end.
    results.reverse()
    return results


def _with_places(
    items: Iterator[Any] | AsyncIterable[Any], places: Iterator[bytes]
) -> Iterator[Any] | AsyncIterable[Any]:
    if isinstance(items, Iterator):
        return zip(items, places)  # noqa: B905  # the places are endless
    return ((item, next(places)) async for item in items)


def _star(func: Callable[..., R]) -> Callable[[Iterable[Any]], R]:
    return functools.partial(_call_star, func)


def _call_star(func: Callable[..., R], args: Iterable[Any]) -> R:
    return func(*args)
