"""The search for what can't be pickled: each kind of step that a path can take."""

from __future__ import annotations

import collections
import functools
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.serialize.why import obstacles
from tests.stuck import STUCK, stuck


def why(obj: object) -> str | None:
    """The first obstacle."""
    return next(iter(obstacles(obj)), None)


class Model:
    """Holds something that can't be pickled, beside much that can."""

    def __init__(self) -> None:
        self.weights = list(range(1000))
        self.stream = stuck()

    def run(self) -> None: ...


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self) -> None:
        self.first, self.second = 1, stuck()


class Stateful:
    def __getstate__(self) -> Any:
        return [1, {"inner": stuck()}]


class Failing:
    def __reduce__(self) -> Any:
        raise KeyError("no way")


class Reduced:
    def __init__(self, held: Any) -> None:
        self.held = held

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
        (stuck(), STUCK),
        (Model(), f"self.stream: {STUCK}"),
        (Model().run, f"self.stream: {STUCK}"),
        ([0, 1, Model()], f"[2].stream: {STUCK}"),
        ((0, {"key": [Model()]}), f"[1]['key'][0].stream: {STUCK}"),
        ({3: {None: stuck()}}, f"[3][None]: {STUCK}"),
        ({(1, dict): 1, Failing(): 2}, "key <Failing object>: KeyError: 'no way'"),
        ({stuck()}, f"element <generator object>: {STUCK}"),
        (Slotted(), f"self.second: {STUCK}"),
        (Stateful(), f"self.__reduce_ex__(5)[2][1]['inner']: {STUCK}"),
        ([Failing()], "[0]: KeyError: 'no way'"),
        (Reduced(stuck()), f"self.held: {STUCK}"),
        (Items([1, stuck()]), f"[1]: {STUCK}"),
        (Pairs(a=stuck()), f"['a']: {STUCK}"),
        (collections.deque([1, stuck()]), f"[1]: {STUCK}"),
        (collections.defaultdict(dict, a=stuck()), f"['a']: {STUCK}"),
        (functools.partial(print, 1, stuck()), f"self.args[1]: {STUCK}"),
        (functools.partial(print, end=stuck()), f"self.keywords['end']: {STUCK}"),
        (ValueError("bad", stuck()), f"self.args[1]: {STUCK}"),
        (closure(), f"closure variable 'model'.stream: {STUCK}"),
        ({"callback": closure()}, f"['callback'], closure variable 'model'.stream: {STUCK}"),
        (by_value("def f(x, y=guard): pass", guard=stuck()), f"default of 'y': {STUCK}"),
        (by_value("def f(x, *, z=guard): pass", guard=stuck()), f"default of 'z': {STUCK}"),
        (by_value("def f(): return guard", guard=stuck()), f"global 'guard': {STUCK}"),
        (
            by_value("def f(): return g()\ndef g(): return guard", guard=stuck()),
            f"global 'g', global 'guard': {STUCK}",
        ),
        (by_value("def f(): pass\nf.held = guard", guard=stuck()), f"self.held: {STUCK}"),
        (by_value("class f: held = guard", guard=stuck()), f"self.held: {STUCK}"),
        (by_value("class B: held = guard\nclass f(B): pass", guard=stuck()), f"base class B.held: {STUCK}"),
        (by_value("class C: held = guard\nf = [C()]", guard=stuck()), f"[0], class C.held: {STUCK}"),
        (
            by_value("class C:\n  def m(self): return guard\nf = C", guard=stuck()),
            f"self.m, global 'guard': {STUCK}",
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
    part = stuck()
    assert why([[[part]], [part], part]) == f"[2]: {STUCK}"
    assert why([part, [part], [[stuck()]]]) == f"[0]: {STUCK}"


def test_a_cycle_does_not_trap_the_search() -> None:
    ring: list[Any] = [1]
    ring.append({"ring": ring, "stream": stuck()})
    assert why(ring) == f"[1]['stream']: {STUCK}"


@given(st.lists(st.sampled_from([0, 1, 2, "a", "b"]), min_size=1, max_size=8))
def test_any_path_through_lists_and_dicts_is_found(path: list[int | str]) -> None:
    obj: Any = stuck()
    for step in reversed(path):
        obj = {step: obj, "other": [None]} if isinstance(step, str) else [[0]] * step + [obj]
    assert why(obj) == "".join(f"[{step!r}]" for step in path) + f": {STUCK}"


def test_a_part_that_many_paths_lead_to_is_taken_apart_once() -> None:
    shared: Any = stuck()
    for _ in range(40):
        shared = [shared, shared]
    assert why(shared) == f"{'[0]' * 6}, (28 more steps){'[0]' * 6}: {STUCK}"


def test_one_culprit_among_very_many_is_found() -> None:
    assert why([[i] for i in range(20_000)] + [stuck()]) == f"[20000]: {STUCK}"


def test_a_long_path_is_abridged() -> None:
    chain: Any = stuck()
    for _ in range(40):
        chain = [chain]
    assert why(chain) == f"{'[0]' * 6}, (28 more steps){'[0]' * 6}: {STUCK}"


def test_a_search_that_takes_too_long_gives_the_path_found_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.serialize.why._SECONDS", -1.0)
    assert why([[stuck()]]) == STUCK


def test_a_repr_that_fails_does_no_harm() -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise RuntimeError

    assert why({Nameless(): stuck()}) == f"[<Nameless object>]: {STUCK}"
