"""Ctrl-C in the client, wherever it comes: what is under way stays known, and what was not is not there."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from shoal.cluster.maps import Job, Stream
from shoal.cluster.nodes import Nodes
from shoal.cluster.pieces import Pieces
from shoal.cluster.target import RESULTS, VALUE
from shoal.cluster.task import Task
from tests.cluster.interrupts import interrupted_everywhere
from tests.cluster.test_protocol import TIMES, Engine, Link, submit


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


def items_of(link: Link) -> list[Any]:
    """The plain items of the maps that it was sent."""
    tasks = [task for name, *content in link.items if name == "tasks" for task in content[0]]
    return [item for task in tasks for item in pickle.loads(task[3])]


def pieces_of(engine: Engine, items: Any) -> Pieces:
    return Pieces(engine.nodes, engine.nodes.prepare(abs), items, 2, star=False, together=True)


def test_an_interrupted_map_goes_on_without_a_hole_or_says_so() -> None:
    def prepare() -> tuple[Link, Pieces]:
        engine = played()
        return engine.add("a", workers=8), pieces_of(engine, list(range(6)))

    went_on = 0
    for link, pieces in interrupted_everywhere(prepare, lambda it: it[1].pump(float("inf"), float("inf"))):
        if pieces.is_reading:
            went_on += 1
            pieces.pump(float("inf"), float("inf"))
        sent = items_of(link)
        assert sent == list(range(6))[: len(sent)]
        assert len(sent) == 6 or isinstance(pieces.broken, KeyboardInterrupt)
        for number in link.tasks:
            link.end(number, [0, 0])
        while pieces.is_out:
            assert pieces.fetch(0)
    assert went_on


def test_what_has_ended_is_received_once_though_its_reception_was_interrupted() -> None:
    def prepare() -> Pieces:
        engine = played()
        link, pieces = engine.add("a", workers=8), pieces_of(engine, list(range(6)))
        pieces.pump(float("inf"), float("inf"))
        for number in link.tasks:
            link.say("done", [(number, RESULTS, *pack_each_of(number), TIMES)])
        return pieces

    for pieces in interrupted_everywhere(prepare, lambda pieces: pieces.fetch(0)):
        while pieces.is_out:
            assert pieces.fetch(0)
        assert [pieces.come[tag] for tag in sorted(pieces.come)] == [([(True, n)] * 2, 2) for n in (1, 2, 3)]


def pack_each_of(value: Any) -> tuple[bytes, list[Any]]:
    """Two results."""
    return pickle.dumps([(True, pickle.dumps(value), 0)] * 2), []


class Presses:
    """An item that is packed, or a result that is unpacked, when Ctrl-C comes; the first time."""

    pressed = False

    def __reduce__(self) -> Any:
        return press, ()


def press() -> str:
    if not Presses.pressed:
        Presses.pressed = True
        raise KeyboardInterrupt
    return "unpacked"


class PressesPacked(Presses):
    def __reduce__(self) -> Any:
        press()
        return str, ("packed",)


@pytest.mark.parametrize("together", [True, False])
def test_ctrl_c_while_an_item_is_packed_is_raised_and_the_item_is_sent_next_time(together: bool) -> None:
    engine = played()
    link = engine.add("a", workers=8)
    Presses.pressed = False
    items: Any = [PressesPacked(), 1]
    job = Job(engine.nodes, engine.nodes.prepare(abs), items if together else iter(items), 1, None, False)
    with pytest.raises(KeyboardInterrupt):
        job.start()
    job.start()
    for number in link.tasks:
        link.end(number, [number])
    assert job.run(0)
    assert job.result() == [1, 2]


def test_ctrl_c_while_the_input_is_read_is_raised_and_nothing_more_is_sent() -> None:
    def read() -> Any:
        yield 1
        raise KeyboardInterrupt

    engine = played()
    link = engine.add("a", workers=8)
    job = Job(engine.nodes, engine.nodes.prepare(abs), read(), None, None, False)
    with pytest.raises(KeyboardInterrupt):
        job.run(0)
    for number in link.tasks:
        link.end(number, [1])
    assert job.run(0)
    with pytest.raises(KeyboardInterrupt):
        job.result()


@pytest.mark.parametrize("each", [True, False])
def test_ctrl_c_while_a_result_is_unpacked_is_raised_and_the_result_is_there_next_time(each: bool) -> None:
    engine = played()
    link = engine.add("a")
    stream = Stream(engine.nodes, engine.nodes.prepare(abs), [1], 1, None, True)
    (number,) = link.tasks
    Presses.pressed = False
    packed = pickle.dumps(Presses() if each else [Presses()])
    outcome = (RESULTS, pickle.dumps([(True, packed, 0)]), []) if each else (VALUE, packed, [])
    link.say("done", [(number, *outcome, TIMES)])
    with pytest.raises(KeyboardInterrupt):
        stream.next(0)
    assert stream.next(0) == "unpacked"
    assert list(stream) == []


def test_a_keyboard_interrupt_that_a_task_raised_is_the_task_s() -> None:
    engine = played()
    link = engine.add("a", workers=8)
    stream = Stream(engine.nodes, engine.nodes.prepare(abs), [1, 2], 1, None, True)
    first, second = link.tasks
    link.fail(first, KeyboardInterrupt("the task's"))
    link.end(second, [2])
    with pytest.raises(KeyboardInterrupt, match="the task's"):
        stream.next(0)
    assert list(stream) == [2]


def test_what_a_node_has_dropped_is_taken_back_though_whoever_asked_is_gone() -> None:
    engine = played()
    link = engine.add("a")
    first, second = submit(engine, 2)
    assert link.tasks == [first.number, second.number]
    send = link.send

    def interrupt(*items: Any) -> None:
        send(*items)
        if items[0][0] == "ask":
            raise KeyboardInterrupt

    link.send = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        second.cancel()
    with pytest.raises(KeyboardInterrupt):
        engine.nodes.cancel_queued()
    asked = [item[1:3] for item in link.items if item[0] == "ask"]
    assert [what for _, what in asked] == ["cancel", "untaken"]
    link.say("told", asked[0][0], True)
    assert second.cancelled()
    link.say("told", asked[1][0], [first.number])
    assert first.cancelled()
    engine.nodes.close_now()
    assert link.closed
