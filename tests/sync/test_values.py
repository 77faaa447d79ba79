"""`Value`, `Array`, `RawValue` and `RawArray` are `multiprocessing`'s, and go anywhere at any time."""

import array
import ctypes
import pickle
from typing import Any

import pytest

import shoal
from shoal.values import Synchronized, SynchronizedArray, SynchronizedString, copy, synchronized


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("y", ctypes.c_double))


class Named(Point):
    _fields_ = (("name", ctypes.c_char * 100),)


@pytest.mark.parametrize(
    ("code", "first", "then"),
    [
        ("i", 4343, 24234),
        ("d", 3.625, -4.25),
        ("h", -232, 234),
        ("q", 2**33, 2**34),
        ("c", b"x", b"y"),
        ("u", "x", "ŷ"),
        (ctypes.c_bool, True, False),
        (ctypes.c_longdouble, 1.5, 2.5),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [shoal.Value, shoal.RawValue])
def test_a_value_is_read_and_written_anywhere(make: Any, code: Any, first: Any, then: Any, pool: shoal.Pool) -> None:
    value = make(code, first)
    assert value.value == first

    def write() -> Any:
        before, value.value = value.value, then
        return before

    assert pool.apply(write) == first
    assert value.value == then


@pytest.mark.parametrize("make", [shoal.Array, shoal.RawArray])
@pytest.mark.parametrize("length", [0, 1, 10, 100_000])
def test_an_array_is_read_and_written_anywhere(make: Any, length: int, pool: shoal.Pool) -> None:
    numbers = make("i", range(length))
    assert (len(numbers), list(numbers)) == (length, list(range(length)))

    def write() -> None:
        numbers[:] = [2 * n for n in numbers[:]]

    pool.apply(write)
    assert numbers[:] == [2 * n for n in range(length)]


def test_slices_are_lists_and_take_any_sequence() -> None:
    numbers = shoal.Array("i", [680, 626, 934, 821, 150])
    assert numbers[1:3] == [626, 934] and numbers[-1] == 150
    numbers[2:4] = array.array("i", [1, 2])
    assert numbers[:] == [680, 626, 1, 2, 150]
    with pytest.raises(IndexError):
        numbers[5]
    with pytest.raises(ValueError, match="sequence of same"):
        numbers[:2] = [1, 2, 3]


def test_memory_that_was_used_before_is_zero_again() -> None:
    for make in (lambda: shoal.Array("i", 10), lambda: shoal.Array("i", 5000)):
        for _ in range(3):
            numbers = make()
            assert not any(numbers)
            numbers[:] = [7] * len(numbers)
            del numbers


def test_an_array_of_characters_has_its_value_and_all_its_bytes() -> None:
    text = shoal.Array("c", b"hello")
    assert (text.value, text.raw, text[1:3]) == (b"hello", b"hello", b"el")
    text.value = b"hi"
    assert (text.value, text.raw) == (b"hi", b"hi\0lo")
    text.raw = b"world"
    assert text.value == b"world"
    assert isinstance(text, SynchronizedString)
    raw = shoal.RawArray("c", 10)
    raw.value = b"abc"
    assert pickle.loads(pickle.dumps(raw)).value == b"abc"


@pytest.mark.parametrize("kind", [Point, Named])
def test_a_structure_has_its_fields(kind: Any, pool: shoal.Pool) -> None:
    point = shoal.Value(kind, 1, 2)
    assert (point.x, point.y) == (1, 2)

    def move() -> None:
        with point:
            point.x += 1
            point.get_obj().y += 1

    pool.apply(move)
    assert (point.x, point.y) == (2, 3)


def test_an_array_of_structures_and_one_of_arrays_go_anywhere(pool: shoal.Pool) -> None:
    points, matrix = shoal.RawArray(Point, [(1, 2), (3, 4)]), shoal.RawArray(ctypes.c_int * 3, 2)

    def change() -> None:
        points[1].y = 9
        matrix[1][2] = 5

    pool.apply(change)
    assert (points[0].x, points[1].y) == (1, 9)
    assert [list(row) for row in matrix] == [[0, 0, 0], [0, 0, 5]]


def test_a_ctypes_object_is_of_its_type_and_works_with_ctypes() -> None:
    value, numbers = shoal.RawValue("i", 5), shoal.RawArray("i", 3)
    assert isinstance(value, ctypes.c_int) and isinstance(numbers, ctypes.c_int * 3)
    ctypes.memset(ctypes.byref(value), 0, 4)
    assert value.value == 0
    assert ctypes.sizeof(numbers) == 12


@pytest.mark.parametrize(
    "make", [lambda **k: shoal.Value("i", 5, **k), lambda **k: shoal.Array("i", 5, **k)], ids=["Value", "Array"]
)
def test_the_lock_is_a_new_one_or_the_given_one_or_none(make: Any) -> None:
    for given in ({}, {"lock": True}, {"lock": None}, {"ctx": object()}):
        assert isinstance(make(**given).get_lock(), shoal.RLock)
    lock = shoal.Lock()
    guarded = make(lock=lock)
    assert guarded.get_lock() is lock
    with guarded:
        assert lock.locked()
    assert guarded.acquire() and lock.locked()
    guarded.release()
    bare = make(lock=False)
    assert not hasattr(bare, "get_lock") and not hasattr(bare, "get_obj")
    with pytest.raises(AttributeError, match=r"^lock must be a lock"):
        make(lock="no lock")


def test_a_twin_has_the_same_lock() -> None:
    value = shoal.Value("i", 5)
    twin = pickle.loads(pickle.dumps(value))
    with value:
        assert twin.get_lock().locked()


def test_workers_add_under_the_lock(pool: shoal.Pool) -> None:
    total = shoal.Value("i", 0)

    def add(times: int) -> None:
        for _ in range(times):
            with total.get_lock():
                total.value += 1

    pool.map(add, [200] * 4)
    assert total.value == 800


def test_a_copy_is_another_one() -> None:
    for original in (shoal.RawValue("i", 5), shoal.RawArray("i", range(5)), shoal.RawValue(Point, 1, 2), Point(1, 2)):
        new = copy(original)
        assert bytes(new) == bytes(original)
        ctypes.memset(ctypes.addressof(original), 1, 4)
        assert bytes(new) != bytes(original)
        assert bytes(pickle.loads(pickle.dumps(new))) == bytes(new)


def test_what_has_no_lock_can_be_given_one() -> None:
    assert isinstance(synchronized(shoal.RawValue("i", 5)), Synchronized)
    assert isinstance(synchronized(shoal.RawArray("i", 5)), SynchronizedArray)
    assert synchronized(shoal.RawValue(Point, 3, 4), shoal.Lock()).y == 4


@pytest.mark.parametrize(
    "make",
    [shoal.Value, shoal.RawValue, lambda t: shoal.Array(t, 1), lambda t: shoal.RawArray(t, 1)],
    ids=["Value", "RawValue", "Array", "RawArray"],
)
@pytest.mark.parametrize("wrong", ["x", "ii", int, 5, None], ids=str)
def test_what_is_no_c_type_is_refused(make: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^typecode_or_type must be "):
        make(wrong)


@pytest.mark.parametrize("make", [shoal.Array, shoal.RawArray])
def test_what_is_no_size_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^size_or_initializer must be 0 or more"):
        make("i", -1)
    with pytest.raises(TypeError, match=r"^size_or_initializer must be an integer or iterable"):
        make("i", 1.5)
    with pytest.raises(TypeError):
        make("i", ["x"])


def test_anything_else_is_no_ctypes_object() -> None:
    for act in (copy, synchronized):
        with pytest.raises(TypeError, match=r"^obj must be a ctypes object"):
            act(5)


def test_a_simple_value_shows_itself_as_in_multiprocessing() -> None:
    assert repr(shoal.RawValue("i", 3)) == "c_int(3)"
    assert repr(shoal.Value("d", 0.5)) == "<Synchronized wrapper for c_double(0.5)>"
