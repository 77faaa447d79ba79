"""Weak references: they arrive alive if what they refer to has arrived, and dead if not."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

import shoal
from tests.pool import tasks
from tests.stuck import STUCK, stuck


class Node:
    """In a tree: knows those below, and weakly the one above."""

    def __init__(self, above: Node | None = None) -> None:
        self.below: list[Node] = []
        self.above = weakref.ref(above) if above else None
        if above:
            above.below.append(self)

    def name(self) -> str:
        return "node"


def test_a_tree_arrives_as_one(pool: shoal.Pool) -> None:
    root = Node()
    leaf = Node(Node(root))

    def linked(root: Any, leaf: Any) -> bool:
        return leaf.above() is root.below[0] and leaf.above().above() is root

    assert pool.apply(linked, (root, leaf))
    back = pool.apply(tasks.same, (root,))
    assert back.below[0].above() is back


def test_a_proxy_stands_for_what_arrived(pool: shoal.Pool) -> None:
    node = Node()
    assert pool.apply(lambda node, proxy: (proxy.name(), proxy.below is node.below), (node, weakref.proxy(node))) == (
        "node",
        True,
    )


def test_a_weak_method_calls_what_arrived(pool: shoal.Pool) -> None:
    node = Node()
    assert pool.apply(lambda node, method: method()(), (node, weakref.WeakMethod(node.name))) == "node"


def test_the_weak_containers_hold_what_arrived(pool: shoal.Pool) -> None:
    nodes = [Node(), Node()]
    values = weakref.WeakValueDictionary({"a": nodes[0], "b": Node()})
    keys = weakref.WeakKeyDictionary({nodes[1]: 1})
    members = weakref.WeakSet(nodes[:1])

    def look(nodes: Any, values: Any, keys: Any, members: Any) -> Any:
        return list(values) == ["a"] and values["a"] is nodes[0], keys[nodes[1]], nodes[0] in members, len(members)

    assert pool.apply(look, (nodes, values, keys, members)) == (True, 1, True, 1)


def test_a_reference_to_what_nobody_holds_arrives_dead(pool: shoal.Pool) -> None:
    kept = Node()
    dead = weakref.ref(Node())
    assert pool.apply(lambda *references: [r() for r in references], (dead, weakref.ref(kept))) == [None, None]
    with pytest.raises(ReferenceError):
        pool.apply(lambda proxy: proxy.name(), (weakref.proxy(Node()),))


def test_a_path_leads_through_a_reference(pool: shoal.Pool) -> None:
    holder = tasks.Holder(stuck())
    with pytest.raises(shoal.SerializationError, match=rf"\[0\], weak reference\.content: {STUCK}"):
        pool.apply(len, ([weakref.ref(holder)],))
