"""`pool.aio`: a pool in an event loop that goes on meanwhile."""

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import shoal
from tests.executor.support import Gate, fail
from tests.pool import tasks
from tests.pool.support import eventually


@pytest.fixture(params=["process", "thread"])
def pool(request: pytest.FixtureRequest) -> Iterator[shoal.Pool]:
    """A pool of two workers, of either kind."""
    with shoal.Pool(2, kind=request.param) as pool:
        yield pool


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition while the loop goes on; the test's time limit is the limit."""
    while not condition():
        await asyncio.sleep(0.005)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


class Meter:
    """Counts what is taken of an endless input."""

    taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.taken += 1
            yield number

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in self:
            await asyncio.sleep(0)
            yield number


async def occupied(pool: shoal.Pool, gate: Gate, tmp_path: Any) -> list[Awaitable[object]]:
    """Both workers wait at the gate."""
    started = [tmp_path / f"started-{n}" for n in range(2)]
    held = [asyncio.ensure_future(pool.aio.apply(tasks.touch_and_wait, (path, gate.path))) for path in started]
    await until(lambda: all(path.exists() for path in started))
    return held


def test_apply_gives_the_result_or_the_exception(pool):
    async def main() -> object:
        with pytest.raises(LookupError, match="nowhere"):
            await pool.aio.apply(fail, ("nowhere",))
        return await pool.aio.apply(tasks.add, [1, 2], {"more": 3})

    assert asyncio.run(main()) == 6


def test_many_calls_are_under_way_at_a_time(pool):
    async def main() -> list[int]:
        return await asyncio.gather(*(pool.aio.apply(tasks.square, (n,)) for n in range(500)))

    assert asyncio.run(main()) == [n * n for n in range(500)]


def test_the_loop_goes_on_while_workers_work(pool, gate):
    async def main() -> object:
        waiting = asyncio.ensure_future(pool.aio.apply(gate.wait, ("opened",)))
        mapping = asyncio.ensure_future(pool.aio.map(tasks.square, range(10)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        gate.open()
        return await waiting, await mapping

    assert asyncio.run(main()) == ("opened", [n * n for n in range(10)])


def test_a_cancelled_call_is_taken_out_of_the_queue(pool, gate, tmp_path):
    trace = tmp_path / "trace"

    async def main() -> None:
        held = await occupied(pool, gate, tmp_path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.aio.apply(trace.touch)
        gate.open()
        await asyncio.gather(*held)

    asyncio.run(main())
    pool.close()
    pool.join()
    assert not trace.exists()


def test_map_and_starmap_give_lists(pool):
    async def main() -> list[object]:
        aio = pool.aio
        return [
            await aio.map(tasks.square, range(1000)),
            await aio.map(tasks.square, [3], chunksize=5),
            await aio.map(tasks.square, []),
            await aio.starmap(pow, [(2, 3), (3, 2)]),
            await aio.map(tasks.square, numbers(10)),
            await aio.starmap(pow, zip([2, 3], [3, 2], strict=True), chunksize=1),
        ]

    squares = [n * n for n in range(1000)]
    assert asyncio.run(main()) == [squares, [9], [], [8, 9], squares[:10], [8, 9]]


def test_map_raises_the_first_exception(pool):
    async def main() -> None:
        with pytest.raises(ValueError, match="1 is odd"):
            await pool.aio.map(tasks.fail_if_odd, range(100))
        with pytest.raises(ValueError, match="1 is odd"):
            await pool.aio.map(tasks.fail_if_odd, numbers(100))

    asyncio.run(main())


def test_a_cancelled_map_sends_no_more(pool, gate, tmp_path):
    ran = tmp_path / "ran"
    ran.mkdir()

    def note(n: int) -> None:
        (ran / str(n)).touch()

    async def main() -> None:
        held = await occupied(pool, gate, tmp_path)
        for chunksize in (None, 1, 10):
            mapping = asyncio.ensure_future(pool.aio.map(note, range(10_000), chunksize))
            await asyncio.sleep(0.01)
            mapping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await mapping
        # Whoever runs it may need a moment to hear of it.
        await until(lambda: pool._callbacks is None or not pool._callbacks._drivers)
        gate.open()
        await asyncio.gather(*held)

    asyncio.run(main())
    pool.close()
    pool.join()
    assert list(ran.iterdir()) == []


@pytest.mark.parametrize("buffersize", [None, 1, 7])
@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("source", [range, numbers], ids=["ordinary", "asynchronous"])
def test_imap_gives_the_results_in_order(pool, source, chunksize, buffersize):
    async def main() -> list[int]:
        results = pool.aio.imap(tasks.square, source(100), chunksize, buffersize=buffersize)
        return [result async for result in results]

    assert asyncio.run(main()) == [n * n for n in range(100)]


@pytest.mark.parametrize("source", [range, numbers], ids=["ordinary", "asynchronous"])
def test_imap_unordered_gives_all_and_the_first_first(pool, source, gate):
    def item(n: int) -> object:
        return gate.wait(n) if n == 0 else n

    async def main() -> list[object]:
        got = []
        async for result in pool.aio.imap_unordered(item, source(100)):
            got.append(result)
            if len(got) == 99:
                assert 0 not in got
                gate.open()
        return got

    got = asyncio.run(main())
    assert sorted(got) == list(range(100)) and got[-1] == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_endless_input_is_read_a_bounded_way_ahead(pool, asynchronous):
    async def main() -> None:
        meter = Meter()
        source = meter.__aiter__() if asynchronous else iter(meter)
        async with contextlib.aclosing(pool.aio.imap(tasks.square, source, buffersize=5)) as results:
            for n in range(20):
                assert await anext(results) == n * n
                await asyncio.sleep(0.001)
                assert meter.taken <= n + 7

    asyncio.run(main())


def test_results_come_while_the_input_keeps_waiting(pool):
    async def main() -> list[int]:
        got: list[int] = []

        async def source() -> AsyncIterator[int]:
            for n in range(5):
                yield n
                # The next item depends on the result of this one.
                await until(lambda: len(got) == n + 1)  # noqa: B023

        async for result in pool.aio.imap(tasks.square, source()):
            got.append(result)
        return got

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_input_raises_comes_behind_all_results(pool, asynchronous):
    def ordinary() -> Iterator[int]:
        yield from range(7)
        raise LookupError("of the input")

    async def source() -> AsyncIterator[int]:
        for n in ordinary():
            yield n

    async def main() -> list[int]:
        got = []
        with pytest.raises(LookupError, match="of the input"):
            async for result in pool.aio.imap(tasks.square, source() if asynchronous else ordinary()):
                got.append(result)
        return got

    assert asyncio.run(main()) == [n * n for n in range(7)]


def test_an_exception_comes_in_its_place_and_ends_the_iteration(pool):
    async def main() -> list[int]:
        got = []
        with pytest.raises(ValueError, match="1 is odd"):
            async for result in pool.aio.imap(tasks.fail_if_odd, range(10)):
                got.append(result)
        return got

    assert asyncio.run(main()) == [0]


def test_leaving_an_iteration_cancels_what_waits(pool, gate, tmp_path):
    ran = tmp_path / "ran"
    ran.mkdir()

    def item(n: int) -> int:
        (ran / str(n)).touch()
        if n:
            gate.wait()
        return n

    async def main() -> None:
        async for _ in pool.aio.imap(item, itertools.count(), buffersize=30):
            break
        gc.collect()
        # asyncio closes what was left, a few turns later.
        for _ in range(10):
            await asyncio.sleep(0)
        gate.open()

    asyncio.run(main())
    pool.close()
    pool.join()
    assert len(list(ran.iterdir())) <= 4


def test_bad_input_is_an_error_at_once(pool):
    async def main() -> None:
        for wrong, error in (({"chunksize": 0}, ValueError), ({"buffersize": 1.5}, TypeError)):
            with pytest.raises(error):
                pool.aio.imap(tasks.square, [1], **wrong)
        with pytest.raises(TypeError, match="callable"):
            pool.aio.imap(3, [1])
        with pytest.raises(TypeError):
            pool.aio.imap(tasks.square, 3)
        pool.close()
        with pytest.raises(shoal.PoolClosed):
            pool.aio.imap(tasks.square, [1])
        with pytest.raises(shoal.PoolClosed):
            await pool.aio.apply(tasks.square, (1,))

    asyncio.run(main())


def test_a_worker_that_dies_fails_one_call():
    import os

    async def main(pool: shoal.Pool) -> int:
        with pytest.raises(shoal.WorkerDied):
            await pool.aio.apply(os._exit, (1,))
        return await pool.aio.apply(tasks.square, (3,))

    with shoal.Pool(1) as pool:
        assert asyncio.run(main(pool)) == 9


def test_executors_serve_an_event_loop(tmp_path):
    async def main(executor: shoal.Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, tasks.square, n) for n in range(50)))

    with shoal.Executor(2) as executor:
        assert asyncio.run(main(executor)) == [n * n for n in range(50)]


def test_a_loop_that_is_gone_bothers_nobody(pool, gate):
    """A task whose loop was closed ends, and its end is nobody's business."""

    async def main() -> None:
        waiting = asyncio.ensure_future(pool.aio.apply(gate.wait))
        await asyncio.sleep(0.01)
        waiting.cancel()

    asyncio.run(main())
    gate.open()
    assert eventually(lambda: pool.apply(tasks.square, (2,)) == 4)
