"""The client's half of the protocol, against nodes that are played by the test: who gets which task, and when."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.cluster.balance import shares
from shoal.cluster.maps import Job
from shoal.cluster.nodes import Nodes
from shoal.cluster.pieces import Pieces
from shoal.cluster.target import ERROR, VALUE
from shoal.cluster.task import Task
from shoal.cluster.terms import Terms
from shoal.results import MapResult
from shoal.serialize import dump_exception

# Of a task: its worker, and nanoseconds on the clock of its node.
TIMES = (0, 0, 10_000_000, 0, 0)


class Link:
    """A node: what it is sent is in `items`, what it says is told to the client at once."""

    def __init__(self, engine: Engine, node: str, workers: int) -> None:
        self.node, self.workers, self._engine = node, workers, engine
        self._items: list[tuple[Any, ...]] = []
        self._closed = False

    def send(self, *items: tuple[Any, ...]) -> None:
        self._items += items

    def close(self) -> None:
        self._closed = True

    @property
    def items(self) -> list[tuple[Any, ...]]:
        self._engine.turn()
        return self._items

    @property
    def closed(self) -> bool:
        self._engine.turn()
        return self._closed

    @property
    def tasks(self) -> list[int]:
        """The numbers of the tasks that it was sent."""
        return [task[0] for name, *content in self.items if name == "tasks" for task in content[0]]

    def say(self, *item: Any) -> None:
        self._engine.turn()
        self._engine.nodes.received(self, [item])

    def take(self, *numbers: int) -> None:
        self.say("took", list(numbers))

    def end(self, number: int, value: Any = None) -> None:
        self.say("done", [(number, VALUE, pickle.dumps(value), [], TIMES)])

    def fail(self, number: int, error: BaseException) -> None:
        self.say("done", [(number, ERROR, dump_exception(error), [], TIMES)])

    def lose(self) -> None:
        self._engine.turn()
        self._engine.nodes.lost(self, "its connection is gone")


class Engine:
    """A cluster whose nodes the test adds."""

    name = "played"
    is_here = False

    def __init__(self) -> None:
        self.nodes: Nodes
        self.stopped = False
        self.delayed: list[Callable[[], object]] = []
        self.called: list[Callable[[], object]] = []

    def start(self, listener: Nodes, options: bytes) -> None:
        self.nodes = listener

    def soon(self, function: Callable[[], object]) -> None:
        self.called.append(function)

    def turn(self) -> None:
        """Its thread does what it was called for."""
        while self.called:
            self.called.pop(0)()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self.delayed.append(function)

    def drop(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def join(self, timeout: float | None = None) -> bool:
        return self.stopped

    def add(self, node: str, workers: int = 1) -> Link:
        link = Link(self, node, workers)
        self.nodes.linked(link)
        return link


@pytest.fixture
def engine() -> Engine:
    played = Engine()
    Nodes(played, {})
    return played


def submit(engine: Engine, count: int, **options: Any) -> list[Task]:
    terms = Terms(options).engine
    return [engine.nodes.submit_call(abs, (-number,), None, terms) for number in range(count)]


@given(st.integers(0, 100), st.lists(st.integers(-5, 40), min_size=1))
def test_shares_are_all_that_waits_or_all_the_room(waiting: int, rooms: list[int]) -> None:
    found = shares(waiting, rooms)
    assert all(0 <= share <= max(0, room) for share, room in zip(found, rooms, strict=True))
    assert sum(found) == min(waiting, sum(max(0, room) for room in rooms))


def test_each_worker_has_a_task_before_any_node_has_more(engine: Engine) -> None:
    tasks = submit(engine, 3)
    links = [engine.add("a"), engine.add("b"), engine.add("c")]
    # The first is alone at first, and has one to go on with; when nothing waits, a node without work gets that.
    assert links[0].tasks == [tasks[0].number, tasks[1].number]
    assert links[1].tasks == [tasks[2].number]
    assert ("give", 1) in links[0].items
    links[0].say("gave", [tasks[1].number])
    assert links[2].tasks == [tasks[1].number]


def test_a_node_is_not_given_more_than_it_can_begin_soon(engine: Engine) -> None:
    submit(engine, 100)
    assert len(engine.add("a", workers=8).tasks) == 8 + 2


def test_a_function_is_sent_to_a_node_once_and_dropped_when_nobody_has_it(engine: Engine) -> None:
    link = engine.add("a")
    function = engine.nodes.prepare([].append)
    number = function.number
    tasks = [engine.nodes.submit_call(function, (1,)) for _ in range(2)]
    for task in tasks:
        link.end(task.number)
    assert [item[:2] for item in link.items if item[0] == "function"] == [("function", number)]
    del function, tasks, task
    gc.collect()
    submit(engine, 1)
    assert ("drop", -number) in link.items


def test_of_a_lost_node_what_it_took_has_failed_and_the_rest_goes_to_others_first(engine: Engine) -> None:
    lost = engine.add("a")
    tasks = submit(engine, 4)
    assert lost.tasks == [tasks[0].number, tasks[1].number]
    lost.take(tasks[0].number)
    lost.lose()
    with pytest.raises(shoal.WorkerDied, match=r"node a: its node was lost while running abs\(0\)") as caught:
        tasks[0].get(0)
    assert caught.value.node == "a"
    other = engine.add("b", workers=4)
    assert other.tasks == [task.number for task in tasks[1:]]


@pytest.mark.parametrize(("workers", "milliseconds"), [(2, 2), (1000, 100)])
def test_a_piece_of_a_map_takes_longer_the_more_workers_one_client_feeds(
    engine: Engine, workers: int, milliseconds: int
) -> None:
    link = engine.add("a", workers)
    pieces = Pieces(engine.nodes, engine.nodes.prepare(abs), range(10**9), None, star=False, together=True)
    ended = 0
    for _ in range(10):
        pieces.pump(float("inf"), float("inf"))
        sent = [task for name, *content in link.items if name == "tasks" for task in content[0]][ended:]
        ended += len(sent)
        sizes = [len(pickle.loads(data)) for _, _, _, data, *_ in sent]
        for (number, *_), size in zip(sent, sizes, strict=True):
            # Each item takes 0.1 ms.
            link.say("done", [(number, VALUE, pickle.dumps([0] * size), [], (0, 0, size * 100_000, 0, 0))])
        assert pieces.fetch(0)
    assert set(sizes) == {milliseconds * 10}


def test_what_a_lost_node_took_is_tried_again_if_it_may_be(engine: Engine) -> None:
    lost = engine.add("a")
    (task,) = submit(engine, 1, retries=1)
    lost.take(task.number)
    lost.lose()
    assert not task.ready()
    other = engine.add("b")
    other.take(task.number)
    other.lose()
    with pytest.raises(shoal.WorkerDied, match=r"given up after 2 tries[.] Before, node a: its node was lost"):
        task.get(0)


def test_an_exception_that_was_named_is_a_reason_to_try_again_after_the_delay(engine: Engine) -> None:
    link = engine.add("a")
    (task,) = submit(engine, 1, retries=1, retry_on=OSError, retry_delay=3)
    link.fail(task.number, ConnectionError("once"))
    assert link.tasks == [task.number]
    for function in engine.delayed:
        function()
    assert link.tasks == [task.number] * 2
    link.end(task.number, 7)
    assert task.get(0) == 7


def test_what_a_node_says_of_a_task_that_it_no_longer_has_changes_nothing(engine: Engine) -> None:
    link = engine.add("a")
    tasks = submit(engine, 2)
    link.end(tasks[0].number, 1)
    link.end(tasks[0].number, 2)
    link.take(tasks[0].number)
    link.end(999_999)
    assert tasks[0].get(0) == 1
    assert not tasks[1].ready()


def test_a_task_that_no_node_has_is_cancelled_at_once(engine: Engine) -> None:
    (task,) = submit(engine, 1)
    assert task.cancel() and task.cancelled()
    assert engine.add("a").tasks == []


def test_higher_priorities_go_first_and_equals_in_the_order_they_came(engine: Engine) -> None:
    low, high = submit(engine, 2), submit(engine, 2, priority=1)
    assert engine.add("a", workers=4).tasks == [task.number for task in high + low]


def test_links_end_when_a_closed_pool_has_done_all(engine: Engine) -> None:
    link = engine.add("a")
    (task,) = submit(engine, 1)
    engine.nodes.close_now()
    with pytest.raises(shoal.PoolClosed):
        submit(engine, 1)
    assert not link.closed
    link.end(task.number)
    assert link.closed and engine.stopped
    link.lose()
    assert engine.nodes.wait_over(0)


def test_what_nodes_say_of_tasks_of_a_terminated_pool_changes_nothing(engine: Engine) -> None:
    link = engine.add("a")
    (task,) = submit(engine, 1)
    link.take(task.number)
    engine.nodes.terminate_now()
    link.end(task.number, 1)
    with pytest.raises(shoal.PoolClosed):
        task.get(0)
    assert link.closed


def test_the_end_of_the_cluster_fails_all_tasks_and_every_later_call(engine: Engine) -> None:
    engine.add("a")
    tasks = submit(engine, 3)
    engine.nodes.ended(shoal.ShoalError("the scheduler is gone"))
    for task in tasks:
        with pytest.raises(shoal.ShoalError, match="gone"):
            task.get(0)
    with pytest.raises(shoal.ShoalError, match="gone"):
        submit(engine, 1)


def test_a_question_is_answered_by_its_node_and_by_none_that_is_lost(engine: Engine) -> None:
    link = engine.add("a")
    asked: list[Any] = []

    def answer(*items: tuple[Any, ...]) -> None:
        name, number, what = items[0]
        asked.append((name, what))
        link.say("told", number, [(0, 123, "idle", 4, 0.5)])

    link.send = answer  # type: ignore[method-assign]
    (worker,) = engine.nodes.workers
    assert asked == [("ask", "workers")]
    assert (worker.node, worker.pid, worker.state) == ("a", 123, "idle")
    link.send = lambda *items: link.lose()  # type: ignore[method-assign]
    assert engine.nodes.workers == ()


def test_a_node_that_cannot_be_used_is_told_of_though_there_is_none_yet(engine: Engine) -> None:
    with pytest.warns(RuntimeWarning, match="goes on without node a: it has another version"):
        engine.nodes.refused("a", shoal.ShoalError("it has another version"))


class Starting(Engine):
    """Has a node, and then something happens."""

    def __init__(self, then: Callable[[Nodes], object]) -> None:
        super().__init__()
        self.then = then

    def start(self, listener: Nodes, options: bytes) -> None:
        super().start(listener, options)
        self.then(listener)


def test_a_node_that_was_refused_before_another_was_linked_is_told_of() -> None:
    def begin(nodes: Nodes) -> None:
        nodes.refused("a", shoal.ShoalError("no shoal there"))
        nodes.linked(Link(engine, "b", 1))

    engine = Starting(begin)
    with pytest.warns(RuntimeWarning, match="goes on without node a: no shoal there"):
        Nodes(engine, {})


def test_a_pool_whose_start_is_interrupted_leaves_no_node_running() -> None:
    def begin(nodes: Nodes) -> None:
        nodes.linked(link)
        raise KeyboardInterrupt

    engine = Starting(begin)
    link = Link(engine, "a", 1)
    with pytest.raises(KeyboardInterrupt):
        Nodes(engine, {})
    late = engine.add("b")
    assert link.closed and late.closed and engine.stopped


def test_links_end_when_a_map_that_has_more_to_submit_is_forgotten(engine: Engine) -> None:
    link = engine.add("a")
    pieces = Pieces(engine.nodes, engine.nodes.prepare(abs), range(3), 1, star=False, together=True)
    engine.nodes.close_now()
    assert not link.closed
    del pieces
    gc.collect()
    assert link.closed


def test_a_pool_is_closed_though_another_thread_has_its_lock(engine: Engine) -> None:
    with engine.nodes.lock:
        closing = threading.Thread(target=lambda: (engine.nodes.size, engine.nodes.close_now()), daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive() and not engine.nodes.is_open
    engine.turn()
    assert engine.stopped


def test_a_map_may_begin_while_the_engine_s_thread_looks_through_them(engine: Engine) -> None:
    with engine.nodes.lock:
        made: list[Pieces] = []
        function = engine.nodes.prepare(abs)
        making = threading.Thread(target=lambda: made.append(Pieces(engine.nodes, function, [1], 1, False, True)))
        for _ in engine.nodes.feeding:
            break
        making.start()
        making.join(0.2)
        assert len(engine.nodes.feeding) == 0
    making.join()
    assert list(engine.nodes.feeding) == made


def test_what_a_lost_node_has_not_taken_moves_though_its_shared_things_make_trouble(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = engine.add("a")
    tasks = submit(engine, 2)
    assert lost.tasks == [task.number for task in tasks]

    def lose(link: Any) -> None:
        raise ValueError("trouble")

    monkeypatch.setattr(engine.nodes._home, "lost", lose)
    with pytest.raises(ValueError, match="trouble"):
        lost.lose()
    assert engine.add("b", workers=2).tasks == [task.number for task in tasks]


def test_a_task_that_pauses_before_another_try_is_cancelled_with_those_that_wait(engine: Engine) -> None:
    link = engine.add("a")
    (task,) = submit(engine, 1, retries=1, retry_on=OSError, retry_delay=60)
    link.fail(task.number, ConnectionError("once"))
    engine.nodes.close_now()
    link.lose()
    engine.nodes.cancel_queued()
    assert task.cancelled()
    for function in engine.delayed:
        function()
    assert link.tasks == [task.number]
    assert engine.stopped


@pytest.mark.parametrize("is_here", [True, False], ids=["in the engine's thread", "with the lock"])
def test_a_finalizer_that_cancels_waits_for_no_node(engine: Engine, is_here: bool) -> None:
    link = engine.add("a")
    first, second = submit(engine, 2)
    assert link.tasks == [first.number, second.number]
    link.take(first.number)

    def cancel() -> None:
        engine.is_here = is_here
        if is_here:
            second.cancel()
        else:
            with engine.nodes.lock:
                second.cancel()

    cancelling = threading.Thread(target=cancel, daemon=True)
    cancelling.start()
    cancelling.join(60)
    assert not cancelling.is_alive()
    (number,) = [item[1] for item in link.items if item[0] == "ask"]
    link.say("told", number, True)
    assert second.cancelled()


@pytest.mark.parametrize(("chunksize", "left"), [(1, [4, 3, 2]), (2, [2, 1, 0])])
def test_a_map_knows_how_many_pieces_are_left(engine: Engine, chunksize: int, left: list[int]) -> None:
    link = engine.add("a", workers=8)
    job: Any = Job(engine.nodes, engine.nodes.prepare(abs), range(4), chunksize, None, False)
    result: MapResult[int] = MapResult(job, None, None, threading.RLock())
    found = [result._number_left]
    for number in link.tasks[:2]:
        link.end(number, [0] * chunksize)
        found.append(result._number_left)
    assert found == left
