"""The maps of a pool: many calls at once, over items or over the blocks of an array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from shoal import _checks, _engine
from shoal._engine import IMapIterator
from shoal.results import MapResult, closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from typing import Any, TypeVar, Unpack

    from shoal._terms import TaskOptions, Terms
    from shoal.progress import Progress
    from shoal.progress.maps import Watch
    from shoal.random import Seeds
    from shoal.results import Callbacks

    R = TypeVar("R")

__all__ = ["AT_HAND", "Maps", "finish"]

# Inputs that a map has no reason to read piece by piece.
AT_HAND = (list, tuple, range, set, frozenset, dict, str, bytes)


def finish(job: _engine.Job | _engine.StreamJob) -> None:
    """Wait until a map is done. If that is interrupted, nobody will ask for its results: what no worker has begun is
    taken back."""
    try:
        job.run()
    except BaseException:
        job.stop()
        job.run(0)
        raise


class Maps:
    """What `Pool` does with many calls; for what has the attributes of one."""

    _base: _engine.PoolBase
    _seeds: Seeds | None
    _streams: weakref.WeakSet[IMapIterator[Any]]
    # What a loop of calls said last, and the terms that it means.
    _terms: Terms
    _last_terms: tuple[Mapping[str, Any], Terms]

    def _threads(self) -> Callbacks:
        raise NotImplementedError

    # ---- many calls --------------------------------------------------------------------------------------------------

    def map(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> list[R]:
        """Apply `func` to each item, in parallel; the results in order. As `multiprocessing.Pool.map`.

        Unlike there, an input that is no list, tuple, range, set, dict, str or bytes is not listed first: it is read a
        bounded way ahead of the tasks that have ended, each item sent as it was when it was read.

        Args:
            func: called with one item.
            iterable: the items.
            chunksize: items a task. Default: as many as take about a millisecond, found out on the way; a worker that
                is free always gets the next ones, and what waits behind a long one is given to others.
            buffersize: how many items may be read and not done, 1 or more. Default: enough to keep the workers busy,
                some 16 tasks each, with at most 256 MiB of arguments.
            progress: True for a bar (`shoal.tqdm`) that advances by one for each item that is done; a dict of tqdm's
                arguments for such a bar; or a bar, which is not closed at the end. Default: None, for no bar. Its
                `total` is the length of `iterable`, if it has one.
            options: `timeout`, `retries` and so on, for each item; see `options`.

        Returns:
            A list of what `func` returned.

        Raises:
            BaseException: the first exception that a task raised, after all have ended; or what `iterable` raised,
                after those that were sent have ended.
            TypeError: `func` can't be called, `iterable` is none, or a size is no integer.
            ValueError: `chunksize` or `buffersize` is less than 1, or the pool is closed.
            WorkerDied: a worker died at an item.
            TaskTimeout: an item took longer than its `timeout`.
            SerializationError: `func`, an item or a result can't be pickled.

        Example:
            >>> with shoal.Pool(2) as pool:
            ...     pool.map(str.upper, (word for word in ("a", "b")), buffersize=100)
            ['A', 'B']
        """
        return self._map_now(func, iterable, chunksize, buffersize, progress, False, options)

    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> list[R]:
        """As `map`, where each item is an iterable of positional arguments. As `multiprocessing.Pool.starmap`."""
        return self._map_now(func, iterable, chunksize, buffersize, progress, True, options)

    def map_async(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> MapResult[R]:
        """As `map`, but returns a `MapResult` at once. As `multiprocessing.Pool.map_async`.

        The input is listed first, in the calling thread, as there. With `buffersize` it is read on the way instead, by
        a thread of this process or the one that waits for the results, whichever comes to it.
        """
        return self._map_later(
            func, iterable, chunksize, buffersize, progress, False, callback, error_callback, options
        )

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> MapResult[R]:
        """As `starmap`, but returns a `MapResult` at once. As `multiprocessing.Pool.starmap_async`; see `map_async`."""
        return self._map_later(func, iterable, chunksize, buffersize, progress, True, callback, error_callback, options)

    def imap(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> IMapIterator[R]:
        """Apply `func` to each item, in parallel; iterate over the results, in order. As `multiprocessing.Pool.imap`.

        Unlike there, the input is read only a bounded way ahead of the results that were taken, by the thread that
        takes them: it may be endless, and workers stop when nobody takes what they do. Each item is sent as it was
        when it was read.

        Cheap items travel together, dear ones alone; each has its own result or exception in any case. But those that
        travel together share two things: their results come when all of them are done, and if the worker dies they
        all raise `WorkerDied`. That is about a millisecond's work, and after the first such death items travel alone.
        Give `chunksize=1` for items that wait for each other, or for what is done with earlier results.

        Args:
            func: called with one item.
            iterable: the items.
            chunksize: items a task. Default: as many as take about a millisecond, found out on the way. With more than
                one, as in the standard library, an exception takes the place of all results of its chunk.
            buffersize: how many items may be sent or wait without their results having been taken, 1 or more.
                Default: 16 tasks a worker, at first items, later of about a millisecond each; and no more than 256 MiB
                of arguments and results, but always a task for each worker.
            progress: as for `map`.
            options: `timeout`, `retries` and so on, for each item; see `options`.

        Returns:
            An `IMapIterator`. Its `next(timeout)` raises `multiprocessing.TimeoutError` after so many seconds; what a
            task raised is raised where its result would have been; what the input raised, behind all results. Its
            `close()` ends the reading, takes back what no worker has begun, and lets go of all results. Forgetting it
            does so too, but for what was sent.

        Raises:
            TypeError: `func` can't be called, `iterable` is none, or a size is no integer.
            ValueError: `chunksize` or `buffersize` is less than 1, or the pool is closed.
            SerializationError: `func` can't be pickled.

        Example:
            >>> import itertools
            >>> with shoal.Pool(2) as pool:
            ...     list(itertools.islice(pool.imap(abs, itertools.count(-2)), 4))
            [2, 1, 0, 1]
        """
        return self._results(func, iterable, chunksize, buffersize, progress, True, options)

    def imap_unordered(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        progress: Progress = None,
        **options: Unpack[TaskOptions],
    ) -> IMapIterator[R]:
        """As `imap`, with the results in the order in which they arrive. As `multiprocessing.Pool.imap_unordered`."""
        return self._results(func, iterable, chunksize, buffersize, progress, False, options)

    # ---- arrays ------------------------------------------------------------------------------------------------------

    def map_array(
        self,
        func: Callable[..., Any],
        a: Any,
        *others: Any,
        axis: int = 0,
        chunks: int | Sequence[int] | None = None,
        out: Any = None,
    ) -> Any:
        """Apply `func` to blocks of an array, in parallel; the results joined to one array.

        What comes back is `numpy.concatenate([func(block) for block in blocks], axis)`. Results as long as their blocks
        are written straight into their places by the workers; others are collected, and joined in order.

        Args:
            func: called with a block of `a` and what belongs to it of `others`. Must not depend on how `a` is cut,
                unless `chunks` is given: the blocks that are cut by default depend on the number of workers.
            a: an array, or what `numpy.asarray` takes. A shared array or one in a file is passed by reference, and
                `func` may write to its block in place. Of any other, a block is a private copy that may be written to.
            others: ndarrays are cut like `a`, along the same axis, and must have the same length there; anything else
                (scalars, 0-d arrays, lists) is passed as it is. To pass an array whole, use `functools.partial`.
            axis: the axis to cut and to join along. A negative one counts from the end in each array and result.
            chunks: the length of blocks, or a sequence of their lengths. Default: about four blocks a worker, fewer if
                they were smaller than 64 KiB.
            out: an ndarray to write the results to, which is returned. A shared array spares a copy.

        Returns:
            A `SharedArray`, or `out`; None if `func` returns None for each block. An array without items along `axis`
            is passed to `func` once, as it is.

        Raises:
            BaseException: the first exception that `func` raised, with a note that names the block.
            ValueError: lengths that don't match; results that can't be joined, have no such axis or don't fit `out`.
            numpy.exceptions.AxisError: `a` has no such axis.
            TypeError: an array or a result holds Python objects, or has a dtype that `out` can't take.
            PoolClosed: the pool is closed.

        Example:
            >>> pool.map_array(numpy.sqrt, numpy.arange(5.0) ** 2)
            SharedArray([0., 1., 2., 3., 4.])
            >>> pool.map_array(lambda x, y, factor: factor * (x + y), numpy.ones((4, 2)), numpy.zeros(4)[:, None], 3)
            SharedArray([[3., 3.],
                         [3., 3.],
                         [3., 3.],
                         [3., 3.]])
        """
        from shoal.blocks import map_blocks

        return map_blocks(self, func, a, others, axis, chunks, out)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _inbox(self) -> _engine.Inbox:
        return _engine.Inbox(self._base)

    def _watch(self, progress: Progress, iterable: Iterable[Any], options: TaskOptions) -> Watch | None:
        """What shows a map on a bar, if that is wanted."""
        if progress is None or progress is False:
            return None
        from shoal.progress.maps import Watch

        tried_again = self._terms_with(options).options.get("retry_on")
        return Watch(progress, iterable, not tried_again)

    def _results(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        ordered: bool,
        options: TaskOptions,
    ) -> IMapIterator[R]:
        _checks.iterable(iterable)
        watch = self._watch(progress, iterable, options)
        if watch is None:
            return self._stream(func, iterable, chunksize, buffersize, ordered, options)
        try:
            results = self._stream(watch.counted(func), iterable, chunksize, buffersize, ordered, options)
        except BaseException:
            watch.end()
            raise
        return watch.iterator(results)  # type: ignore[return-value]  # has the same methods

    def _stream(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        options: TaskOptions,
    ) -> IMapIterator[R]:
        if not self._base.is_open:
            raise closed()
        if self._seeds is not None:
            func, iterable = self._seeds.each(func, iterable, False)
        func, chunksize = self._on_terms(func, chunksize, options)
        ahead = _checks.buffersize(buffersize)
        stream: IMapIterator[R] = IMapIterator(self._base, self, func, iterable, chunksize, ahead, ordered)
        self._streams.add(stream)
        return stream

    def _job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        options: TaskOptions,
    ) -> _engine.Job | _engine.StreamJob:
        if not self._base.is_open:
            raise closed()
        if self._seeds is not None:
            (func, iterable), star = self._seeds.each(func, iterable, star), False
        return self._map_job(func, iterable, chunksize, buffersize, star, options)

    def _map_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        star: bool,
        options: TaskOptions,
    ) -> _engine.Job | _engine.StreamJob:
        func, chunksize = self._on_terms(func, chunksize, options)
        ahead = _checks.buffersize(buffersize)
        if ahead is None and isinstance(iterable, AT_HAND):
            items = iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)
            return _engine.Job(self._base, func, items, chunksize, star)
        return _engine.StreamJob(self._base, func, iterable, chunksize, ahead, star)

    def _terms_with(self, options: Mapping[str, Any]) -> Terms:
        last = self._last_terms
        if last[0] != options:
            self._last_terms = last = options, self._terms.with_(options) if options else self._terms
        return last[1]

    def _on_terms(
        self, func: Callable[..., Any], chunksize: int | None, options: TaskOptions
    ) -> tuple[Any, int | None]:
        """What a map calls, and how many items make a task: one, if each has a limit or tries of its own."""
        if chunksize is not None:
            chunksize = _checks.chunksize(chunksize)
        terms = self._terms_with(options)
        if terms.engine is None:
            return func, chunksize
        return self._base.prepare(func, terms.engine), 1 if terms.alone and chunksize is None else chunksize

    def _map_now(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        star: bool,
        options: TaskOptions,
    ) -> list[R]:
        _checks.iterable(iterable)
        watch = self._watch(progress, iterable, options)
        if watch is not None:
            with watch:
                return self._map_now(watch.counted(func), iterable, chunksize, buffersize, None, star, options)
        job = self._job(func, iterable, chunksize, buffersize, star, options)
        try:
            finish(job)
            return job.result()
        finally:
            # An exception knows this frame.
            del job

    def _map_later(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        star: bool,
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        options: TaskOptions,
    ) -> MapResult[R]:
        _checks.callbacks(callback, error_callback)
        _checks.iterable(iterable)
        watch = self._watch(progress, iterable, options)
        if watch is not None:
            ends = watch.then(callback), watch.then(error_callback)
            func = watch.counted(func)
            try:
                return self._map_later(func, iterable, chunksize, buffersize, None, star, *ends, options)
            except BaseException:
                watch.end()
                raise
        # A copy: the caller may change the list before all of it is sent.
        at_hand = buffersize is None and not isinstance(iterable, (tuple, range))
        job = self._job(func, list(iterable) if at_hand else iterable, chunksize, buffersize, star, options)
        more = job.start(chunksize is not None) if isinstance(job, _engine.Job) else job.start()
        result: MapResult[R] = MapResult(job, callback, error_callback, self._threads().told)
        if more or callback is not None or error_callback is not None:
            self._threads().spawn(result.wait)
        return result
