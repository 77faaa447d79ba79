"""The adapter of Dask, one step at a time."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import Any

import pytest

import shoal
from shoal.cluster import dask
from shoal.cluster.functions import Functions


def test_a_node_that_came_back_is_not_linked_twice_by_the_timer_of_its_former_link(monkeypatch: Any) -> None:
    monkeypatch.setattr(dask, "PATIENCE", 0.0)
    begun: list[str] = []

    async def link(address: str, neighbours: int, up: Any) -> None:
        begun.append(address)

    async def go() -> None:
        engine: Any = object.__new__(dask.DaskEngine)
        engine._loop, engine._known, engine._tasks, engine._link = asyncio.get_running_loop(), {}, set(), link
        (first,) = engine._link_new({"a": {}})
        # It is lost, and gone; and there again before the time of the one is over.
        engine._try_later("a", first)
        engine._known.clear()
        (second,) = engine._link_new({"a": {}})
        await asyncio.sleep(0.01)
        assert engine._link_new({"a": {}}) == []
        # The time of the other does count.
        engine._try_later("a", second)
        await asyncio.sleep(0.01)
        assert len(engine._link_new({"a": {}})) == 1
        await asyncio.sleep(0.01)

    asyncio.run(go())
    assert begun == ["a"] * 3


def test_a_scheduler_that_never_says_who_is_there_is_given_up() -> None:
    async def go() -> None:
        async def reached(address: str, seconds: float) -> None: ...

        async def never() -> Any:
            await asyncio.Event().wait()

        engine: Any = object.__new__(dask.DaskEngine)
        engine.name, engine._patience, engine._timeout, engine._mine = "tcp://a", 1.0, 0.01, False
        engine._over, engine._reached, engine._workers = threading.Event(), reached, never
        with pytest.raises(shoal.ShoalError, match="no Dask scheduler at tcp://a: it does not answer"):
            await asyncio.wait_for(engine._begin(), 60)
        assert engine.join(0)

    asyncio.run(go())


def test_functions_are_forgotten_by_several_threads_at_a_time(monkeypatch: Any) -> None:
    class Racing(dict[int, Any]):
        """Another thread has taken out what this one is about to."""

        def __delitem__(self, key: int) -> None:
            super().__delitem__(key)
            super().__delitem__(key)

    monkeypatch.setattr("shoal.cluster.functions._MOST", 1)
    functions = Functions(lambda number: None)
    functions._kept = Racing()
    assert functions.stable(abs) and functions.stable(len)
    assert len(functions._kept) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bar_that_raises_stops_no_task(pool: shoal.Pool) -> None:
    class Bar(shoal.tqdm):  # type: ignore[misc]
        def update(self, n: Any = 1) -> Any:
            raise ValueError("not today")

    with Bar(total=3, file=io.StringIO()) as bar:
        assert pool.map(abs, [1, 2, 3], progress=bar) == [1, 2, 3]
    assert pool.apply(abs, (-4,)) == 4
