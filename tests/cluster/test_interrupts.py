"""Ctrl-C in the client, wherever it comes: what is under way stays known, and what was not is not there."""

from __future__ import annotations

from shoal.cluster.nodes import Nodes
from shoal.cluster.task import Task
from tests.cluster.interrupts import interrupted_everywhere
from tests.cluster.test_protocol import Engine, submit


def played() -> Engine:
    engine = Engine()
    Nodes(engine, {})
    return engine


def is_free(nodes: Nodes) -> bool:
    """Whether its lock is."""
    return not nodes.changed._is_owned()  # type: ignore[attr-defined]


def test_an_interrupted_submit_has_submitted_or_not_and_nothing_else_suffers() -> None:
    def prepare() -> tuple[Engine, list[Task]]:
        engine = played()
        engine.add("a", workers=8)
        return engine, submit(engine, 1)

    for engine, tasks in interrupted_everywhere(prepare, lambda it: submit(it[0], 1)):
        assert is_free(engine.nodes)
        (link,) = engine.nodes._nodes
        tasks += submit(engine, 1)
        sent = link.tasks
        assert {task.number for task in tasks} <= set(sent) and len(sent) <= 3
        # All that these need is there.
        (function,) = [item[1] for item in link.items if item[0] == "function"]
        assert {task[1] for name, *content in link.items if name == "tasks" for task in content[0]} == {function}
        for number in sent:
            link.end(number, 7)
        assert [task.get(0) for task in tasks] == [7, 7]
        engine.nodes.close_now()
        assert link.closed and engine.stopped
