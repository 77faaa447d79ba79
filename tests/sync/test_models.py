"""Whatever two processes do with a thing of shoal, one after the other, the same thing of multiprocessing would do."""

import contextlib
import multiprocessing
import pickle
from multiprocessing.connection import Connection
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import shoal

# What is done, as a method and its arguments, or a property. Nothing of it waits.
ATTEMPT, ATTEMPT_IN_TIME, RELEASE = ("acquire", (False,)), ("acquire", (True, 0)), ("release", ())
STEPS: dict[str, list[tuple[str, tuple[Any, ...] | None]]] = {
    "Lock": [ATTEMPT, ATTEMPT_IN_TIME, RELEASE, ("__exit__", (None, None, None))],
    "RLock": [ATTEMPT, ATTEMPT_IN_TIME, RELEASE, ("__repr__", ())],
    "Semaphore": [ATTEMPT, ATTEMPT_IN_TIME, RELEASE, ("get_value", ()), ("__repr__", ())],
    "BoundedSemaphore": [ATTEMPT, ATTEMPT_IN_TIME, RELEASE, ("get_value", ()), ("__repr__", ())],
    "Condition": [ATTEMPT, RELEASE, ("wait", (0,)), ("notify", ()), ("notify", (2,)), ("notify_all", ())],
    "Event": [("set", ()), ("clear", ()), ("is_set", ()), ("wait", (0,))],
    "Barrier": [("wait", (0,)), ("abort", ()), ("reset", ()), ("broken", None), ("n_waiting", None), ("parties", None)],
}
ARGUMENTS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "Semaphore": st.tuples(st.integers(0, 3)),
    "BoundedSemaphore": st.tuples(st.integers(0, 3)),
    "Barrier": st.tuples(st.integers(1, 3)),
}


def outcome(thing: Any, name: str, args: tuple[Any, ...] | None) -> Any:
    """What comes of a step: a value, or the type of the error."""
    try:
        found = getattr(thing, name)
        return found if args is None else found(*args)
    except (AssertionError, ValueError, RuntimeError) as error:
        return type(error)


def act(line: Connection, others: Connection, model: Any) -> None:
    """The second process: does what it is told, with both, until nobody tells it any more."""
    others.close()
    thing = pickle.loads(line.recv_bytes())
    with contextlib.suppress(EOFError):
        while True:
            step = line.recv()
            line.send((outcome(thing, *step), outcome(model, *step)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", STEPS)
@settings(max_examples=25)
@given(data=st.data())
def test_it_does_what_that_of_multiprocessing_does(kind: str, data: st.DataObject) -> None:
    args = data.draw(ARGUMENTS.get(kind, st.just(())))
    thing, model = getattr(shoal, kind)(*args), getattr(multiprocessing, kind)(*args)
    copies = [thing, pickle.loads(pickle.dumps(thing))]
    line, end = multiprocessing.Pipe()
    # By fork, as the one of multiprocessing goes there by inheritance only.
    other = multiprocessing.get_context("fork").Process(target=act, args=(end, line, model))
    other.start()
    end.close()
    try:
        line.send_bytes(pickle.dumps(thing))
        for who, step in data.draw(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(STEPS[kind])), max_size=40)):
            if who < 2:
                ours, theirs = outcome(copies[who], *step), outcome(model, *step)
            else:
                line.send(step)
                ours, theirs = line.recv()
            assert ours == theirs, step
    finally:
        line.close()
        other.join()
    assert other.exitcode == 0
