"""dumps and loads: what goes in comes out, or an error says which part of it can't."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import SerializationError
from shoal.serialize import dumps, loads
from tests.serialize.peer import Peer
from tests.stuck import stuck

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain = st.recursive(
    atoms | st.just("__main__") | st.just("__mp_main__"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


def roundtrip(obj: Any) -> Any:
    return loads(dumps(obj))


@given(plain)
def test_plain_data_comes_back_equal(data: object) -> None:
    assert roundtrip(data) == data


@given(st.integers(), st.text())
def test_lambdas_and_closures_compute_the_same_as_before(number: int, text: str) -> None:
    assert roundtrip(lambda x: (x, number, text))(1) == (1, number, text)


def test_what_travels_can_be_loaded_from_a_view() -> None:
    assert loads(memoryview(dumps({"a": 1}))) == {"a": 1}


def test_a_local_class_travels_with_its_instances(peer: Peer) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    def doubled(point: Point) -> Point:
        return Point(2 * point.x)

    result = peer.call(doubled, Point(4))
    assert type(result) is Point
    assert result.x == 8


def test_partials_bound_methods_and_callable_objects_travel(peer: Peer) -> None:
    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def add(self, x: int) -> int:
            return self.n + x

        __call__ = add

    assert peer.call(Adder(1).add, 2) == 3
    assert peer.call(Adder(1), 2) == 3
    assert peer.call(functools.partial(lambda a, b: a - b, 10), 4) == 6


def test_a_cached_local_function_travels_without_its_cache(peer: Peer) -> None:
    @functools.lru_cache(maxsize=7, typed=True)
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    def state(cached: Any) -> Any:
        return cached(30), cached.cache_parameters(), cached.cache_info().misses, cached.__name__

    fibonacci(5)
    assert peer.call(fibonacci, 30) == 832040
    assert peer.call(state, fibonacci) == (832040, {"maxsize": 7, "typed": True}, 31, "fibonacci")


def test_a_cached_property_of_a_local_class_travels(peer: Peer) -> None:
    class Circle:
        radius = 2

        @functools.cached_property
        def area(self) -> int:
            return 3 * self.radius**2

    def areas(circle: Circle) -> Any:
        return circle.area, vars(circle)

    assert peer.call(areas, Circle()) == (12, {"area": 12})


def test_an_error_begins_with_the_name_and_the_path_and_has_a_cause() -> None:
    with pytest.raises(SerializationError) as caught:
        dumps({"guard": stuck()}, "argument 0 of f")
    assert str(caught.value) == "argument 0 of f: ['guard']: cannot pickle 'generator' object"
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_exception_from_a_users_getstate_is_the_cause() -> None:
    class Stubborn:
        def __getstate__(self) -> object:
            raise ValueError("not me")

    with pytest.raises(SerializationError, match=r"^result of f: \[1\]: ValueError: not me$") as caught:
        dumps([0, Stubborn()], "result of f")
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_structure_nested_too_deeply_is_an_error_that_says_so() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match=r"^object: this list is nested too deeply"):
        dumps(deep)


def test_running_out_of_memory_is_reported_as_that() -> None:
    class Huge:
        def __reduce__(self) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        dumps(Huge())


def test_large_plain_data_never_loads_the_slow_pickler(run_script: Callable[[str], str]) -> None:
    printed = run_script("""
        import sys
        from shoal.serialize import dumps, loads
        assert loads(dumps([{"a": i} for i in range(100)], "data"))[3] == {"a": 3}
        assert loads(dumps(len)) is len
        print("cloudpickle" in sys.modules)
        dumps(lambda: None)
        print("cloudpickle" in sys.modules)
    """)
    assert printed == "False\nTrue\n"
