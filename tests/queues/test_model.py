"""Whatever is done to a queue, `queue.Queue` would do the same."""

import pickle
import queue
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import shoal

# Small ones lie in a chunk, large ones in envelopes, arrays in blocks.
ITEMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=1500),
    st.lists(st.integers(), max_size=400),
    st.integers(0, 3000).map(lambda n: numpy.arange(n).tobytes()),
)


def outcome(act: Callable[[], Any]) -> Any:
    """What comes of it: a value, or the type of the error."""
    try:
        return act()
    except (queue.Empty, queue.Full, ValueError) as error:
        return type(error)


class Model(RuleBasedStateMachine):
    """Three objects that are the same queue, one of them used at a time, and the standard library's beside them."""

    @initialize(limit=st.integers(0, 5))
    def make(self, limit: int) -> None:
        self.limit = limit
        first = shoal.JoinableQueue[Any](limit)
        self.lines = [first, pickle.loads(pickle.dumps(first)), pickle.loads(pickle.dumps(first, 0))]
        self.model: queue.Queue[Any] = queue.Queue(limit)
        self.shut = False

    @rule(at=st.integers(0, 2), item=ITEMS)
    @precondition(lambda self: not self.shut)
    def put(self, at: int, item: Any) -> None:
        assert outcome(lambda: self.lines[at].put_nowait(item)) == outcome(lambda: self.model.put_nowait(item))

    @rule(at=st.integers(0, 2), items=st.lists(ITEMS, max_size=150), listed=st.booleans())
    @precondition(lambda self: not self.shut)
    def put_many(self, at: int, items: list[Any], listed: bool) -> None:
        count, expected = 0, None
        for item in items:
            expected = outcome(lambda item=item: self.model.put_nowait(item))  # type: ignore[misc]
            if expected is not None:
                break
            count += 1
        try:
            self.lines[at].put_many(items if listed else iter(items), block=False)
        except queue.Full as full:
            assert expected is queue.Full and full.args == (count,)
        else:
            assert expected is None

    @rule(at=st.integers(0, 2))
    def get(self, at: int) -> None:
        expected = outcome(self.model.get_nowait)
        if self.shut and expected is queue.Empty:
            with pytest.raises(shoal.ShutDown):
                self.lines[at].get()
        else:
            assert outcome(self.lines[at].get_nowait) == expected

    @rule(at=st.integers(0, 2), most=st.none() | st.integers(1, 50))
    @precondition(lambda self: not self.model.empty())
    def get_many(self, at: int, most: int | None) -> None:
        count = self.model.qsize() if most is None else min(most, self.model.qsize())
        assert self.lines[at].get_many(most) == [self.model.get_nowait() for _ in range(count)]

    @rule(at=st.integers(0, 2))
    def task_done(self, at: int) -> None:
        assert outcome(self.lines[at].task_done) == outcome(self.model.task_done)

    @rule(at=st.integers(0, 2))
    def pass_on(self, at: int) -> None:
        self.lines[at] = pickle.loads(pickle.dumps(self.lines[at]))

    @rule(at=st.integers(0, 2))
    def shutdown(self, at: int) -> None:
        self.lines[at].shutdown()
        self.shut = True
        with pytest.raises(shoal.ShutDown):
            self.lines[at].put(1)

    @invariant()
    def all_say_the_same(self) -> None:
        for line in getattr(self, "lines", ()):
            assert line.qsize() == self.model.qsize()
            assert line.empty() == self.model.empty()
            assert line.full() == self.model.full()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
