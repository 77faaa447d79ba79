"""A node's half of the protocol, with a client that is played by the test."""

from __future__ import annotations

import pickle
import queue
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from shoal.cluster import node
from shoal.cluster.node import Node
from shoal.cluster.target import CALL, EACH, RESULTS, VALUE, pack_each
from shoal.cluster.wire import pack, unpack
from tests.pool.support import eventually


class Client:
    """What a node says is in `said`; each message has left when it is said."""

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        options = {"processes": 1, "start": None, "told": (True, None, None, "forwarded")}
        self.node = Node(pickle.dumps(options), 1, self._send)
        self.node.receive([("function", 1, "abs", *pack(abs))])

    def _send(self, *items: tuple[Any, ...], then: Callable[[], object] | None = None) -> None:
        for item in items:
            self.said.put(item)
        if then is not None:
            then()

    def submit(self, *numbers: int) -> None:
        self.node.receive([("tasks", [(number, 1, CALL, *pack(((-number,), {})), None, 0) for number in numbers])])

    def answer(self) -> tuple[Any, ...]:
        """The answer to a question: all that was received before has been dealt with."""
        self.node.receive([("ask", 9, "workers")])
        return self.hears()

    def hears(self) -> tuple[Any, ...]:
        return self.said.get(timeout=60)

    def outcomes(self, count: int) -> list[tuple[Any, ...]]:
        """What came of so many tasks."""
        found: list[tuple[Any, ...]] = []
        while len(found) < count:
            name, *content = self.hears()
            found += content[0] if name == "done" else []
        return found


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.node.close()


def test_a_node_says_what_it_takes_before_it_says_what_came_of_it(client: Client) -> None:
    client.submit(7)
    assert client.hears() == ("took", [7])
    name, outcomes = client.hears()
    assert name == "done"
    assert [(number, status, pickle.loads(data)) for number, status, data, _, _ in outcomes] == [(7, VALUE, 7)]


def test_a_node_that_may_have_been_given_up_takes_nothing_until_it_hears_of_its_client(client: Client) -> None:
    client.node.hold(True)
    client.submit(7, 8)
    assert client.answer()[0] == "told"
    client.node.hold(False)
    heard = [client.hears()]
    while heard[-1][0] != "done" or heard[-1][1][-1][0] != 8:
        heard.append(client.hears())
    assert heard[0] == ("took", [7])


def test_what_a_node_has_not_taken_it_gives_back_though_it_takes_nothing(client: Client) -> None:
    client.node.hold(True)
    client.submit(7, 8)
    client.node.receive([("give", 2)])
    assert client.hears() == ("gave", [8, 7])


def total_and_spoil(array: Any) -> float:
    total = float(array.sum())
    array[:] = 0
    return total


def test_what_tasks_have_in_common_lies_once_on_a_node_and_is_each_task_s_own(client: Client) -> None:
    array = numpy.ones(1 << 17)
    function, (data, frames) = pack(total_and_spoil), pack(array)
    received = numpy.frombuffer(bytearray(frames[0]), numpy.uint8)
    kept = weakref.ref(received)
    client.node.receive([("function", 2, "total_and_spoil", *function), ("blob", 7, received)])
    del received
    # It is in shared memory: what was received is gone, though its tasks are still to come.
    assert eventually(lambda: kept() is None)
    packed, _ = pack_each([(data, [None])])
    client.node.receive([("tasks", [(number, 2, EACH, packed, [7], None, 0) for number in range(5)])])
    for _, status, result, beside, times in client.outcomes(5):
        ((ok, value, count),) = pickle.loads(result)
        assert status == RESULTS and ok and not beside and not count
        assert unpack(value, []) == 1 << 17
        worker, began, ended, *_ = times
        assert worker == 0 and began <= ended


def test_workers_that_wait_for_more_are_told_from_idle_ones(client: Client) -> None:
    def waited() -> tuple[int, int]:
        ((*_, (*_, idle, waiting)),) = client.node._tell_spent()[0]
        return idle, waiting

    client.node.receive([("more", True)])
    client.submit(1)
    client.outcomes(1)
    before = waited()[1]
    assert eventually(lambda: waited()[1] > before)
    client.node.receive([("more", False)])
    client.submit(2)
    client.outcomes(1)
    before = waited()[0]
    assert eventually(lambda: waited()[0] > before)


def test_a_node_that_was_frozen_takes_nothing_until_it_hears_of_its_client(client: Client) -> None:
    client.submit(7)
    assert client.hears() == ("took", [7])
    assert client.hears()[0] == "done"
    # As if it had stood still since then, and its threads were the first to go on.
    client.node._patience = -1.0
    client.submit(8)
    client.answer()
    with client.node._lock:
        assert client.node._take() == []
    client.node._patience = 60.0
    client.node._heard -= 100.0
    client.node.receive([])
    assert client.hears() == ("took", [8])


def test_a_node_of_a_thousand_cpus_has_as_many_workers_as_a_pool_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(node, "NodePool", lambda **options: made.append(options))
    monkeypatch.setattr("shoal._budget.cpu_count", lambda: 1000)
    played: Any = types.SimpleNamespace(up=None, home=types.SimpleNamespace(name=b""))
    node._made({"start": None}, 1, played, played)
    assert made[0]["processes"] == 500
