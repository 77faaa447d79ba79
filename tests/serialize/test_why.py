"""The search for what can't be pickled: each kind of step that a path can take."""

from __future__ import annotations

import collections
import functools
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.serialize.why import why

LOCK = "cannot pickle '_thread.lock' object"


class Model:
    """Holds something that can't be pickled, beside much that can."""

    def __init__(self) -> None:
        self.weights = list(range(1000))
        self.lock = threading.Lock()

    def run(self) -> None: ...


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self) -> None:
        self.first, self.second = 1, threading.Lock()


class Stateful:
    def __getstate__(self) -> Any:
        return [1, {"inner": threading.Lock()}]


class Failing:
    def __reduce__(self) -> Any:
        raise KeyError("no way")


class Reduced:
    def __init__(self, lock: Any) -> None:
        self.held = lock

    def __reduce__(self) -> Any:
        return Reduced, (self.held,)


class Items(list[Any]):
    pass


class Pairs(dict[Any, Any]):
    pass


def closure() -> Callable[[], object]:
    model = Model()
    return lambda: model


def by_value(text: str, **names: Any) -> Any:
    """The `f` of a program that consists of this text."""
    namespace = {"__name__": "__main__", **names}
    exec(text, namespace)
    return namespace["f"]


def test_what_can_travel_has_no_reason_not_to() -> None:
    assert why([1, "a", len, lambda: 0]) is None


@pytest.mark.parametrize(
    ("obj", "reason"),
    [
        (threading.Lock(), LOCK),
        ((i for i in (1, 2)), "cannot pickle 'generator' object"),
        (Model(), f"self.lock: {LOCK}"),
        (Model().run, f"self.lock: {LOCK}"),
        ([0, 1, Model()], f"[2].lock: {LOCK}"),
        ((0, {"key": [Model()]}), f"[1]['key'][0].lock: {LOCK}"),
        ({3: {None: threading.Lock()}}, f"[3][None]: {LOCK}"),
        ({(1, threading.Lock): 1, Failing(): 2}, "key <Failing object>: KeyError: 'no way'"),
        ({threading.Lock()}, f"element <lock object>: {LOCK}"),
        (Slotted(), f"self.second: {LOCK}"),
        (Stateful(), f"self.__reduce_ex__(5)[2][1]['inner']: {LOCK}"),
        ([Failing()], "[0]: KeyError: 'no way'"),
        (Reduced(threading.Lock()), f"self.held: {LOCK}"),
        (Items([1, threading.Lock()]), f"[1]: {LOCK}"),
        (Pairs(a=threading.Lock()), f"['a']: {LOCK}"),
        (collections.deque([1, threading.Lock()]), f"[1]: {LOCK}"),
        (collections.defaultdict(threading.Lock, a=threading.Lock()), f"['a']: {LOCK}"),
        (functools.partial(print, 1, threading.Lock()), f"self.args[1]: {LOCK}"),
        (functools.partial(print, end=threading.Lock()), f"self.keywords['end']: {LOCK}"),
        (ValueError("bad", threading.Lock()), f"self.args[1]: {LOCK}"),
        (closure(), f"closure variable 'model'.lock: {LOCK}"),
        ({"callback": closure()}, f"['callback'], closure variable 'model'.lock: {LOCK}"),
        (by_value("def f(x, y=guard): pass", guard=threading.Lock()), f"default of 'y': {LOCK}"),
        (by_value("def f(x, *, z=guard): pass", guard=threading.Lock()), f"default of 'z': {LOCK}"),
        (by_value("def f(): return guard", guard=threading.Lock()), f"global 'guard': {LOCK}"),
        (
            by_value("def f(): return g()\ndef g(): return guard", guard=threading.Lock()),
            f"global 'g', global 'guard': {LOCK}",
        ),
        (by_value("def f(): pass\nf.held = guard", guard=threading.Lock()), f"self.held: {LOCK}"),
        (by_value("class f: held = guard", guard=threading.Lock()), f"self.held: {LOCK}"),
        (by_value("class B: held = guard\nclass f(B): pass", guard=threading.Lock()), f"base class B.held: {LOCK}"),
        (by_value("class C: held = guard\nf = [C()]", guard=threading.Lock()), f"[0], class C.held: {LOCK}"),
        (
            by_value("class C:\n  def m(self): return guard\nf = C", guard=threading.Lock()),
            f"self.m, global 'guard': {LOCK}",
        ),
    ],
    ids=str,
)
def test_the_path_leads_to_the_part_that_stops_the_pickler(obj: object, reason: str) -> None:
    assert why(obj) == reason


def test_a_socket_is_named_as_what_it_is() -> None:
    with socket.socket() as sock:
        assert why({"peers": [sock]}) == "['peers'][0]: cannot pickle 'socket' object"


def test_the_shortest_of_several_paths_is_given() -> None:
    lock = threading.Lock()
    assert why([[[lock]], [lock], lock]) == f"[2]: {LOCK}"
    assert why([lock, [lock], [[threading.Lock()]]]) == f"[0]: {LOCK}"


def test_a_cycle_does_not_trap_the_search() -> None:
    ring: list[Any] = [1]
    ring.append({"ring": ring, "lock": threading.Lock()})
    assert why(ring) == f"[1]['lock']: {LOCK}"


@given(st.lists(st.sampled_from([0, 1, 2, "a", "b"]), min_size=1, max_size=8))
def test_any_path_through_lists_and_dicts_is_found(path: list[int | str]) -> None:
    obj: Any = threading.Lock()
    for step in reversed(path):
        obj = {step: obj, "other": [None]} if isinstance(step, str) else [[0]] * step + [obj]
    assert why(obj) == "".join(f"[{step!r}]" for step in path) + f": {LOCK}"


def test_a_part_that_many_paths_lead_to_is_taken_apart_once() -> None:
    shared: Any = threading.Lock()
    for _ in range(40):
        shared = [shared, shared]
    assert why(shared) == f"{'[0]' * 6}, (28 more steps){'[0]' * 6}: {LOCK}"


def test_one_culprit_among_very_many_is_found() -> None:
    assert why([[i] for i in range(20_000)] + [threading.Lock()]) == f"[20000]: {LOCK}"


def test_a_long_path_is_abridged() -> None:
    chain: Any = threading.Lock()
    for _ in range(40):
        chain = [chain]
    assert why(chain) == f"{'[0]' * 6}, (28 more steps){'[0]' * 6}: {LOCK}"


def test_a_search_that_takes_too_long_gives_the_path_found_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.serialize.why._SECONDS", -1.0)
    assert why([[threading.Lock()]]) == LOCK


def test_a_repr_that_fails_does_no_harm() -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise RuntimeError

    assert why({Nameless(): threading.Lock()}) == f"[<Nameless object>]: {LOCK}"
