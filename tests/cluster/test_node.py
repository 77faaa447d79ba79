"""A node's half of the protocol, with a client that is played by the test."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from shoal.cluster.node import Node
from shoal.cluster.target import EACH, VALUE, pack_each
from shoal.cluster.wire import pack, unpack
from tests.pool.support import eventually


class Client:
    """What a node sends, sent at once."""

    def __init__(self, **options: Any) -> None:
        self.items: list[tuple[Any, ...]] = []
        told = (True, None, None, "forwarded")
        options = {"processes": 1, "start": None, "told": told, **options}
        self.node = Node(pickle.dumps(options), 1, self._take)

    def _take(self, *items: tuple[Any, ...], then: Any = None) -> None:
        self.items += items
        if then is not None:
            then()

    @property
    def outcomes(self) -> dict[int, tuple[Any, ...]]:
        """What came of tasks, by their numbers."""
        return {task: rest for name, *content in self.items if name == "done" for task, *rest in content[0]}  # type: ignore[misc]

    def send(self, *items: tuple[Any, ...]) -> None:
        self.node.receive(list(items))


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.node.close()


def total_and_spoil(array: Any) -> float:
    total = float(array.sum())
    array[:] = 0
    return total


def test_what_tasks_have_in_common_lies_once_on_a_node_and_is_each_task_s_own(client: Client) -> None:
    array = numpy.ones(1 << 17)
    function, (data, frames) = pack(total_and_spoil), pack(array)
    received = numpy.frombuffer(bytearray(frames[0]), numpy.uint8)
    kept = weakref.ref(received)
    client.send(("function", 1, "total_and_spoil", *function), ("blob", 7, received))
    del received
    # It is in shared memory: what was received is gone, though its tasks are still to come.
    assert eventually(lambda: kept() is None)
    packed, _ = pack_each([(data, [None])])
    client.send(("tasks", [(number, 1, EACH, packed, [7], None, 0) for number in range(5)]))
    assert eventually(lambda: len(client.outcomes) == 5)
    for status, result, beside, times in client.outcomes.values():
        ((ok, value, count),) = pickle.loads(result)
        assert status != VALUE and ok and not beside and not count
        assert unpack(value, []) == 1 << 17
        assert times[0] == 0 and times[1] <= times[2]


def test_workers_that_wait_for_more_are_told_from_idle_ones(client: Client) -> None:
    def waited() -> tuple[int, int]:
        ((_, _, _, (*_, idle, waiting)),) = client.node._tell_spent()[0]
        return idle, waiting

    client.send(("function", 1, "abs", *pack(abs)), ("more", True), ("tasks", [(1, 1, 0, *pack(((-1,), {})), None, 0)]))
    assert eventually(lambda: 1 in client.outcomes)
    before = waited()[1]
    assert eventually(lambda: waited()[1] > before)
    client.send(("more", False), ("tasks", [(2, 1, 0, *pack(((-1,), {})), None, 0)]))
    assert eventually(lambda: 2 in client.outcomes)
    before = waited()[0]
    assert eventually(lambda: waited()[0] > before)
