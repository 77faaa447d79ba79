"""Shared things of several pools on the same nodes: each comes and goes, and the others go on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import shoal
from shoal.cluster.shared.links import LinkWay
from tests.pool.support import eventually


def test_a_line_can_be_answered_as_soon_as_it_is_known() -> None:
    class Lines(dict[int, Any]):
        """Where the link ends as soon as a line is known."""

        def __setitem__(self, number: int, line: Any) -> None:
            super().__setitem__(number, line)
            way.lost()

    way = LinkWay(b"a home", type("Link", (), {"node": "a node"})(), lambda message: None, None, [])
    way._lines = Lines()  # type: ignore[assignment]
    with pytest.raises(shoal.ShoalError, match="its link has ended"):
        way.ask(("Queue", b"a home", 1, ()), "get", ())


def test_who_waits_by_the_link_of_a_pool_that_ends_is_told_whatever_other_pools_there_are(cluster: Any) -> None:
    with shoal.Pool(1, cluster=cluster) as first, shoal.Pool(1, cluster=cluster) as second:
        items, raised = first.apply(shoal.Queue), list[str]()

        def wait() -> None:
            try:
                items.get()
            except shoal.ShoalError as error:
                raised.append(str(error))

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        assert eventually(lambda: second.map(lambda _: shoal.Lock(), range(4), chunksize=1))
        first.terminate()
        first.join()
        waiting.join(60)
        assert "its link has ended" in "".join(raised)


def test_what_nodes_have_made_is_there_after_another_pool_on_them_has_ended(cluster: Any) -> None:
    def use(items: Any) -> str:
        items.put("from a task")
        return str(items.get())

    def made(pool: shoal.Pool) -> Any:
        return pool.map(lambda _: shoal.Queue(), range(4), chunksize=1)

    with shoal.Pool(1, cluster=cluster) as first:
        before = made(first)
        with shoal.Pool(1, cluster=cluster) as second:
            used = made(second)
            assert second.map(use, used, chunksize=1) == ["from a task"] * 4
        second.join()
        for items in (*before, *made(first)):
            items.put("from here")
            assert items.get() == "from here"
            assert first.map(use, [items] * 2, chunksize=1) == ["from a task"] * 2
        # As long as any pool is on a node, that is a home.
        with shoal.Pool(1, cluster=cluster) as third:
            third.apply(shoal.Lock)
            held = made(third)
            first.close()
            first.join()
            assert third.map(use, [*before, *held], chunksize=1) == ["from a task"] * 8
            for items in (*before, *held):
                items.put("from here")
                assert items.get() == "from here"
