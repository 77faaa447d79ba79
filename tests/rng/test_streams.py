"""Random numbers in tasks: told by the seed and the task, whoever runs it."""

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import shoal

SEED = 2026
ITEMS = list(range(23))


def draw(_: object = None) -> int:
    return int(shoal.rng().integers(2**62))


def draw_pair(_: object, __: object) -> int:
    return draw()


def draw_block(block: Any) -> Any:
    return shoal.rng().integers(2**62, size=len(block))


def spawned(*place: int) -> int:
    """The first number of a stream, as numpy has it."""
    sequence = numpy.random.SeedSequence(SEED, spawn_key=place)
    return int(numpy.random.default_rng(sequence).integers(2**62))


async def slowly(items: list[int]) -> Any:
    for item in items:
        await asyncio.sleep(0)
        yield item


def in_asyncio(pool: shoal.Pool, iterable: Any, chunksize: int) -> list[int]:
    async def collect() -> list[int]:
        return [number async for number in pool.aio.imap(draw, iterable, chunksize)]

    return asyncio.run(collect())


MAPS: dict[str, Callable[[shoal.Pool], list[int]]] = {
    "map": lambda pool: pool.map(draw, ITEMS),
    "map of one item a task": lambda pool: pool.map(draw, ITEMS, chunksize=1),
    "map in chunks": lambda pool: pool.map(draw, ITEMS, chunksize=5),
    "map of what is read on the way": lambda pool: pool.map(draw, iter(ITEMS)),
    "map_async": lambda pool: pool.map_async(draw, ITEMS).get(),
    "starmap": lambda pool: pool.starmap(draw_pair, [(item, item) for item in ITEMS]),
    "starmap of what is read on the way": lambda pool: pool.starmap(draw_pair, ((item, item) for item in ITEMS)),
    "imap": lambda pool: list(pool.imap(draw, ITEMS)),
    "imap of one item a task": lambda pool: list(pool.imap(draw, iter(ITEMS), chunksize=1)),
    "imap in chunks": lambda pool: list(pool.imap(draw, ITEMS, chunksize=4)),
    "imap_unordered": lambda pool: sorted(pool.imap_unordered(draw, ITEMS), key=places(0).index),
    "asyncio": lambda pool: in_asyncio(pool, ITEMS, 1),
    "asyncio in chunks": lambda pool: in_asyncio(pool, ITEMS, 5),
    "asyncio, what comes slowly": lambda pool: in_asyncio(pool, slowly(ITEMS), 3),
}


def places(call: int) -> list[int]:
    return [spawned(call, item) for item in ITEMS]


@pytest.fixture(scope="module", params=[("process", 1), ("process", 5), ("thread", 1), ("thread", 3)], ids=str)
def seeded(request: pytest.FixtureRequest) -> Iterator[shoal.Pool]:
    kind, workers = request.param
    with shoal.Pool(workers, kind=kind, seed=SEED) as pool:
        yield pool
    pool.join()


@pytest.mark.parametrize("way", MAPS)
def test_the_items_of_a_map_draw_the_same_however_and_by_whom_they_are_done(seeded: shoal.Pool, way: str) -> None:
    assert MAPS[way](seeded.options(seed=SEED)) == places(0)


def test_a_map_does_not_depend_on_the_number_of_workers() -> None:
    with shoal.Pool(64, seed=SEED) as pool:
        assert pool.map(draw, ITEMS) == places(0)
    pool.join()


def test_calls_are_numbered_in_the_order_in_which_the_pool_was_given_them(seeded: shoal.Pool) -> None:
    pool = seeded.options(seed=SEED)
    first = pool.apply(draw)
    second = pool.apply_async(draw, (None,))
    third = pool.submit(draw)
    fourth = pool.map_async(draw, ITEMS)
    fifth = asyncio.run(pool.aio.apply(draw))
    assert [first, second.get(), third.result(), fifth] == [spawned(call) for call in (0, 1, 2, 4)]
    assert fourth.get() == places(3)


def test_a_call_with_keyword_arguments_and_callbacks_draws_as_any_other(seeded: shoal.Pool) -> None:
    told: list[int] = []
    result = seeded.options(seed=SEED).apply_async(draw, (), {"_": 1}, callback=told.append)
    assert result.get() == spawned(0)
    while not told:
        result.wait(0.01)
    assert told == [spawned(0)]


def test_the_blocks_of_an_array_draw_by_their_place(seeded: shoal.Pool) -> None:
    drawn = seeded.options(seed=SEED).map_array(draw_block, numpy.zeros(30), chunks=3)
    sequences = [numpy.random.SeedSequence(SEED, spawn_key=(0, block)) for block in range(10)]
    expected = [numpy.random.default_rng(sequence).integers(2**62, size=3) for sequence in sequences]
    assert drawn.tolist() == numpy.concatenate(expected).tolist()


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"buffersize": 2}, {"chunksize": 2, "buffersize": 1}])
def test_an_executor_draws_as_a_pool_does(options: dict[str, int]) -> None:
    with shoal.Executor(2, seed=SEED) as executor:
        assert executor.submit(draw).result() == spawned(0)
        assert list(executor.map(draw, range(5), **options)) == [spawned(1, item) for item in range(5)]
        assert executor.submit(draw).result() == spawned(2)


def test_the_map_of_the_process_takes_a_seed() -> None:
    assert shoal.map(draw, ITEMS, seed=SEED) == places(0)
    assert shoal.map(draw_pair, ITEMS, ITEMS, seed=SEED) == places(0)


def die_at_first(path: Path, item: int) -> int:
    drawn = draw()
    with path.open("a") as file:
        file.write(f"{item} ")
    if path.read_text().split().count(str(item)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return drawn


def test_a_task_that_is_tried_again_draws_the_same(tmp_path: Path) -> None:
    with shoal.Pool(2, seed=SEED, retries=1) as pool:
        assert pool.starmap(die_at_first, [(tmp_path / "log", item) for item in range(3)]) == places(0)[:3]
        assert pool.apply(die_at_first, (tmp_path / "log", 3)) == spawned(1)


def test_further_calls_in_a_task_go_on_where_the_stream_was(seeded: shoal.Pool) -> None:
    def several() -> tuple[list[int], bool]:
        return [draw() for _ in range(3)], shoal.rng() is shoal.rng()

    drawn, one = seeded.options(seed=SEED).apply(several)
    assert one
    assert drawn == numpy.random.default_rng(numpy.random.SeedSequence(SEED, spawn_key=(0,))).integers(
        2**62, size=3
    ).tolist()  # fmt: skip


def test_a_seed_may_be_a_sequence() -> None:
    sequence = numpy.random.SeedSequence([1, 2, 3], spawn_key=(0,))
    expected = int(numpy.random.default_rng(sequence).integers(2**62))
    for seed in ([1, 2, 3], (1, 2, 3), numpy.array([1, 2, 3])):
        with shoal.Pool(1, seed=seed, kind="thread") as pool:
            assert pool.apply(draw) == expected


@pytest.mark.parametrize("seed", [-1, [1, -1]])
def test_a_seed_below_zero_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more, not -1"):
        shoal.Pool(1, seed=seed)


@pytest.mark.parametrize("seed", [1.5, "1", b"2", True, [1.5], object()])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed must be None, an integer or a sequence of integers"):
        shoal.Pool(1, seed=seed)


def test_a_seed_can_not_be_given_to_a_call(pool: shoal.Pool) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'seed'"):
        pool.map(draw, ITEMS, seed=1)  # type: ignore[call-arg]


def test_without_a_seed_all_tasks_and_this_process_draw_different_numbers(pool: shoal.Pool) -> None:
    drawn = [*pool.map(draw, range(50), chunksize=1), draw(), draw()]
    assert len(set(drawn)) == len(drawn)


def test_threads_do_not_share_a_generator() -> None:
    found: list[object] = [shoal.rng()]
    thread = threading.Thread(target=lambda: found.append(shoal.rng()))
    thread.start()
    thread.join()
    assert found[0] is not found[1]


def test_after_a_task_in_a_thread_of_this_process_its_stream_is_left() -> None:
    with shoal.Pool(1, kind="thread", seed=SEED) as pool:
        unseeded = pool.options()
        unseeded._seeds = None
        assert pool.apply(draw) == spawned(0)
        assert unseeded.apply(draw) != spawned(0)


def hold(barrier: shoal.Barrier) -> tuple[int, float, float]:
    barrier.wait()
    return os.getpid(), random.random(), float(numpy.random.random())


def test_workers_do_not_share_the_state_of_random_and_of_numpy() -> None:
    with shoal.Pool(4, preload=["numpy", "numpy.random", "random"]) as pool:
        held = pool.map(hold, [shoal.Barrier(4)] * 4, chunksize=1)
        assert len({pid for pid, _, _ in held}) == 4
        assert len({number for _, number, _ in held}) == 4
        assert len({number for _, _, number in held}) == 4


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_error_names_the_arguments_as_they_were_given() -> None:
    with shoal.Pool(1, seed=SEED) as pool:
        for call, said in (
            (lambda: pool.apply(die, (7,)), r"die\(7\)"),
            (lambda: pool.apply(die, (7,), {"x": 8}), r"die\(7, x=8\)"),
            (lambda: pool.map(die, [7, 8], chunksize=2), r"map\(die\) of 2 items from 7 to 8"),
            (lambda: pool.map(die, [7], chunksize=1), r"map\(die\) of 7"),
        ):
            with pytest.raises(shoal.WorkerDied, match=said):
                call()
    with shoal.Pool(1, seed=SEED) as pool, pytest.raises(shoal.SerializationError, match="argument 1 of die"):
        pool.apply(die, (7, (number for number in ITEMS)))


def test_a_function_that_travels_by_value_is_sent_again_as_it_is_now() -> None:
    def told() -> int:
        return answer

    with shoal.Pool(1, seed=SEED) as pool:
        answer = 1
        assert pool.apply(told) == 1
        answer = 2
        assert pool.apply(told) == 2
