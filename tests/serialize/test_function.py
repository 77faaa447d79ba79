"""When a pickled function may be used again: only while nothing that travels with it has changed."""

from __future__ import annotations

import enum
import functools
import math
import operator
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.serialize import Snapshot, stable


def program(text: str) -> dict[str, Any]:
    """The globals of a `__main__` that consists of this text."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(text, namespace)
    return namespace


def snapshot_of(func: object) -> Snapshot:
    snapshot = stable(func)
    assert snapshot is not None
    assert snapshot.unchanged()
    return snapshot


def importable(x: int) -> int:
    return x


class Importable:
    def method(self) -> None: ...


@pytest.mark.parametrize(
    "func",
    [importable, Importable, len, math.sqrt, int, str.upper, dict.fromkeys, int.__add__, functools.reduce, re.compile],
    ids=repr,
)
def test_what_travels_by_name_is_always_unchanged(func: Callable[..., Any]) -> None:
    snapshot_of(func)


def test_numpy_functions_travel_by_name() -> None:
    numpy = pytest.importorskip("numpy")
    for func in (numpy.sum, numpy.add, numpy.array, numpy.linalg.norm, numpy.float64):
        snapshot_of(func)


@pytest.mark.parametrize(
    "func",
    [Importable().method, functools.partial(importable, 1), operator.itemgetter(1), [].append, 3],
    ids=["bound method", "partial", "callable object", "method of a list", "no function at all"],
)
def test_what_holds_an_object_is_never_stable(func: object) -> None:
    assert stable(func) is None


def test_a_lambda_without_references_is_stable() -> None:
    snapshot_of(lambda x: x + 1)


CHANGES = {
    "another value of a global": "limit = 2",
    "another value of a global of a function that it calls": "inner = 3",
    "a global that is gone": "del limit",
    "a built-in that is hidden": "len = max",
    "another function in the place of one it calls": "def helper(x): return x",
    "another code": "work.__code__ = other.__code__",
    "other defaults": "work.__defaults__ = (8,)",
    "another keyword default": "work.__kwdefaults__['scale'] = 5",
    "other keyword defaults": "work.__kwdefaults__ = {'scale': 1}",
    "a new attribute": "work.extra = 1",
    "another attribute": "work.note = 'y'",
    "no attributes": "work.__dict__ = {}",
    "another module in the place of one": "import cmath as math",
    "a class attribute": "Model.rate = 2",
    "a new class attribute": "Model.other = 2",
    "another method": "Model.run = helper",
    "a global of a method": "inside = 4",
    "an attribute of a base class": "Base.size = 4",
    "a global of a class method": "made = 4",
    "a global of a property": "seen = 4",
    "the function inside a cached one": "cached.__wrapped__ = helper",
}

PROGRAM = """
import functools, math, re
limit, inner, inside, made, seen, names, words = 1000, 2000, 3000, 4000, 5000, ("a", (1, None)), re.compile("x")
class Base:
    size = 6000
class Model(Base):
    __slots__ = ("a",)
    rate = 1.5
    def run(self): return inside, super().__repr__()
    @classmethod
    def make(cls): return made
    @property
    def value(self): return seen
def helper(x): return inner, work
@functools.cache
def cached(x): return x
def other(x): return 1
def work(x, n=7, *, scale=2000): return [helper(limit), len(names), math.pi, Model, words, cached, lambda: limit]
work.note = "x"
"""


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_to_what_a_function_refers_to_is_noticed(change: str) -> None:
    namespace = program(PROGRAM)
    snapshot = snapshot_of(namespace["work"])
    exec("unrelated = 1", namespace)
    assert snapshot.unchanged()
    exec(change, namespace)
    assert not snapshot.unchanged()


def test_a_change_to_a_closure_variable_is_noticed() -> None:
    count = 1000

    def read() -> int:
        return count

    snapshot = snapshot_of(read)
    count = 1001
    assert not snapshot.unchanged()
    snapshot = snapshot_of(read)
    assert read.__closure__
    del read.__closure__[0].cell_contents
    assert not snapshot.unchanged()
    assert stable(read) is None


@given(st.lists(st.sampled_from(["limit", "inner", "inside", "made"]), max_size=5))
def test_setting_a_global_to_the_same_object_is_no_change(names: list[str]) -> None:
    namespace = program(PROGRAM)
    snapshot = snapshot_of(namespace["work"])
    for name in names:
        namespace[name] = namespace[name]
    assert snapshot.unchanged()


@pytest.mark.parametrize(
    "text",
    [
        "def f(): return data\ndata = []",
        "def f(): return data\ndata = {}",
        "def f(): return data\ndata = (1, [2])",
        "def f(): return data\ndata = object()",
        "def f(): return data\nclass Text(str): pass\ndata = Text()",
        "def f(): return g()\ndef g(): return data\ndata = set()",
        "def f(): return C\nclass C: shared = []",
        "def f(): return C\nclass B: shared = []\nclass C(B): pass",
        "def f(): return C\nclass C:\n  def m(self): return data\ndata = []",
        "def f(x=[]): pass",
        "def f(*, x=[]): pass",
        "def f(): pass\nf.cache = {}",
        "def f(): return data\ndata = [].append",
        "class f: data = []",
    ],
)
def test_a_function_that_refers_to_anything_mutable_is_not_stable(text: str) -> None:
    assert stable(program(text)["f"]) is None


def test_functions_that_refer_to_themselves_and_each_other_are_stable() -> None:
    namespace = program("def f(n): return n and g(n - 1)\ndef g(n): return n and f(n - 1)")
    snapshot = snapshot_of(namespace["f"])
    namespace["g"] = len
    assert not snapshot.unchanged()


def test_enums_are_taken_as_fixed() -> None:
    class Colour(enum.Enum):
        RED = 1

    snapshot_of(lambda: Colour)


def test_a_dataclass_of_main_is_stable() -> None:
    namespace = program("""
import dataclasses
@dataclasses.dataclass
class Item:
    number: int = 1000
    more: list = dataclasses.field(default_factory=lambda: [size])
def f(): return Item()
size = 2000
""")
    snapshot = snapshot_of(namespace["f"])
    namespace["size"] = 2001
    assert not snapshot.unchanged()
    snapshot = snapshot_of(namespace["f"])
    namespace["Item"].number = 1001
    assert not snapshot.unchanged()


def test_shared_objects_are_taken_as_fixed() -> None:
    class Shared:
        __shoal_handle__ = True

    namespace = program("def f(): return shared")
    namespace["shared"] = Shared()
    snapshot = snapshot_of(namespace["f"])
    namespace["shared"] = Shared()
    assert not snapshot.unchanged()


def test_a_submodule_that_is_imported_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("a_package")
    monkeypatch.setitem(sys.modules, "a_package", package)
    namespace = program("import a_package\ndef f(): return a_package.part.thing")
    snapshot = snapshot_of(namespace["f"])
    package.__dict__["part"] = types.ModuleType("a_package.part")
    assert not snapshot.unchanged()


def test_a_module_that_nobody_can_import_is_not_stable() -> None:
    namespace = program("def f(): return made_up")
    namespace["made_up"] = types.ModuleType("made_up")
    assert stable(namespace["f"]) is None


def test_an_object_that_refuses_to_be_asked_is_not_stable_and_no_error() -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("working outside of a context")

    namespace = program("def f(): return proxy")
    namespace["proxy"] = Proxy()
    assert stable(namespace["f"]) is None


def test_a_chain_of_functions_that_is_too_long_to_follow_is_not_stable_and_no_error() -> None:
    namespace = program("\n".join(f"def f{n}(): return f{n + 1}()" for n in range(900)) + "\ndef f900(): pass")
    assert stable(namespace["f0"]) is None
