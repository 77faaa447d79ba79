"""Shared things on nodes when something goes wrong with one operation: all else goes on."""

from __future__ import annotations

import errno
import io
import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import shoal
from shoal.cluster.shared import bars
from shoal.cluster.shared import relay as relays
from shoal.cluster.shared.homes import Home
from shoal.cluster.shared.relay import Relay
from shoal.cluster.shared.ways import ERROR
from shoal.cluster.wire import pack
from tests.pool.support import eventually


@pytest.fixture(scope="module")
def pool(cluster: Any) -> Iterator[shoal.Pool]:
    """A worker on each of two nodes."""
    with shoal.Pool(1, cluster=cluster) as pool:
        yield pool
    pool.join()


@pytest.fixture
def passed() -> Iterator[tuple[Relay, list[Any]]]:
    """A relay as a node has it, and what it sends to the client."""
    sent: list[Any] = []
    relay = Relay(lambda *items: sent.extend(items), lambda pid: True)
    yield relay, sent
    relay.close()


# ---- what takes down nothing else ------------------------------------------------------------------------------------


def never_arrives() -> Any:
    """Pickles, and can't be unpickled."""

    def fail() -> None:
        raise ValueError("it does not like it here")

    class Argument:
        def __reduce__(self) -> Any:
            return fail, ()

    return Argument()


def test_an_argument_that_can_not_be_unpacked_at_home_is_the_error_of_who_sent_it(pool: shoal.Pool) -> None:
    here, go = shoal.Counter(), shoal.Event()
    beside = pool.apply_async(go.wait)
    there = pool.apply(shoal.Counter)
    with pytest.raises(ValueError, match="it does not like it here"):
        pool.apply(lambda: here.exchange(never_arrives()))
    with pytest.raises(ValueError, match="it does not like it here"):
        there.exchange(never_arrives())
    assert there.add(2) == pool.apply(here.add, (2,))
    go.set()
    assert beside.get()


def test_who_gets_no_twin_is_told_and_gets_one_later(pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def get() -> Any:
        try:
            return items.get(timeout=60)
        except RuntimeError as error:
            return str(error)

    def no_more(thread: threading.Thread) -> None:
        if thread.name == "shoal-twin":
            raise RuntimeError("can't start new thread")
        start(thread)

    start, items = threading.Thread.start, shoal.Queue()
    items.put("an item")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        # In a thread of its own, which has no twin yet.
        assert pool.apply(in_a_thread, (get,)) == "can't start new thread"
    assert pool.apply(in_a_thread, (get,)) == "an item"


def in_a_thread(function: Any) -> Any:
    """What it returns in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("error", [ProcessLookupError(errno.ESRCH, "gone"), OSError(errno.EMFILE, "too many")])
def test_a_worker_whose_end_can_not_be_watched_is_no_end_of_the_others(
    passed: Any, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(pid: int) -> str:
        raise error

    relay, sent = passed
    monkeypatch.setattr(relays, "started", fail)
    relay.up.put(("here", b"a worker", os.getpid(), "0"))
    relay.up.put(("over", b"another", 1))
    assert eventually(lambda: ("shared", "over", b"another", 1) in sent)


def test_a_message_that_makes_no_sense_is_no_end_of_the_others(passed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    relay, sent = passed
    relay.up.put(("line", b"a worker"))
    relay.up.put(("over", b"another", 1))
    assert eventually(lambda: ("shared", "over", b"another", 1) in sent)
    assert "what a worker says (line) is passed over: ValueError" in capsys.readouterr().err


def test_an_action_of_a_barrier_that_raises_whatever_it_likes_breaks_the_barrier(pool: shoal.Pool) -> None:
    class Stuck(Exception):
        pass

    def raise_what_can_not_travel() -> None:
        raise Stuck(i for i in range(3))

    def raise_what_is_large() -> None:
        raise KeyError(numpy.zeros(100_000))

    def come(barrier: shoal.Barrier) -> tuple[str, str, int]:
        try:
            barrier.wait()
        except Exception as error:
            return type(error).__name__, str(error)[:5], getattr(error.args[0] if error.args else 0, "size", 0)
        return "", "", 0

    for action, found in (
        (raise_what_can_not_travel, ("ShoalError", "Stuck", 0)),
        (raise_what_is_large, ("KeyError", "array", 100_000)),
    ):
        barrier = shoal.Barrier(2, action)
        results = pool.map(come, [barrier, barrier], chunksize=1)
        assert sorted(results, key=lambda result: result[0] == "BrokenBarrierError")[0] == found
        assert barrier.broken


def test_an_item_with_a_bar_goes_into_a_queue_of_a_node_and_out_of_it(pool: shoal.Pool) -> None:
    # In a thread: if the node's loop waited for what only it can bring about, nothing of the node's would be answered.
    def use() -> None:
        with shoal.tqdm(total=3, file=io.StringIO()) as bar:
            items = pool.apply(shoal.Queue)
            items.put(("a bar", bar))
            found.append(items.get()[1] is bar)
            items.put(("a bar", bar))
            pool.apply(lambda: items.get()[1].update(3))
            found.append(bar.n)

    found: list[Any] = []
    using = threading.Thread(target=use, daemon=True)
    using.start()
    using.join(60)
    assert found == [True, 3]


def test_the_first_bars_of_two_threads_have_the_same_mirrors(passed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    relay, _ = passed
    got: list[Any] = []
    other = threading.Thread(target=lambda: got.append(relay._bars()), daemon=True)

    class Slow(bars.Mirrors):
        def __init__(self, tell: Any) -> None:
            super().__init__(tell)
            if other.ident is None:
                other.start()
                other.join(0.2)  # it waits for this one

    monkeypatch.setattr(bars, "Mirrors", Slow)
    mirrors = relay._bars()
    other.join(60)
    assert got == [mirrors]


# ---- what is told without waiting ------------------------------------------------------------------------------------


def test_an_addition_that_is_too_large_is_an_error_at_once(pool: shoal.Pool) -> None:
    def add(counter: Any, n: int) -> None:
        with pytest.raises(OverflowError, match="n must fit into 64 bits"):
            counter += n

    for n in 1 << 63, -(1 << 63) - 1:
        add(counter := shoal.Counter(), n)
        pool.apply(add, (counter, n))
        assert counter.value == 0


@pytest.mark.parametrize("asked", [False, True])
def test_an_addition_that_fails_at_home_is_the_error_of_its_task_and_of_no_other(pool: shoal.Pool, asked: bool) -> None:
    def add(counter: Any) -> None:
        counter += 1
        other = fine
        other += 1
        if asked:
            assert fine.value

    full, fine = shoal.Counter((1 << 63) - 1), shoal.Counter()
    with pytest.raises(OverflowError, match="a counter holds 64 bits"):
        pool.apply(add, (full,))
    assert fine.value == 1
    for _ in range(4):
        pool.apply(add, (shoal.Counter(),))
    assert fine.value == 5


@pytest.mark.parametrize(("what", "operation"), [("call", "settle"), ("post", "add")])
def test_what_a_home_was_told_that_is_gone_is_not_taken_for_done(what: str, operation: str) -> None:
    answers: list[Any] = []
    home, link, number = Home(), object(), int(what == "call")
    home.hear(link, answers.append, (what, b"a guest", 1, number, b"its home", 1, operation, *pack(())))
    assert eventually(lambda: answers)
    assert answers[0][:5] == ("answer", b"a guest", 1, number, ERROR)
    home.lost(link)


def test_a_thing_may_be_named_where_another_one_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbers:
        """Where an object ends, and its `__del__` names a thing."""

        def __next__(self) -> int:
            monkeypatch.setattr(home, "_numbers", itertools.count(1))
            home.ref(shoal.Counter())
            return next(home._numbers)

    home, named = Home(), list[Any]()
    monkeypatch.setattr(home, "_numbers", Numbers())
    naming = threading.Thread(target=lambda: named.append(home.ref(shoal.Lock())), daemon=True)
    naming.start()
    naming.join(60)
    assert [ref[2] for ref in named] == [2]
