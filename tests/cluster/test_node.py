"""A node's half of the protocol, with a client that is played by the test."""

from __future__ import annotations

import pickle
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal.cluster.node import Node
from shoal.cluster.target import CALL, VALUE
from shoal.cluster.wire import pack


class Client:
    """What a node says is in `said`; each message has left when it is said."""

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.node = Node(pickle.dumps({"processes": 1, "start": None}), 1, self._send)
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
