"""Making shared arrays: the functions are numpy's, and what can't be shared is refused at once."""

from typing import Any

import numpy
import pytest

import shoal

DTYPES = ["bool", "int8", "uint64", "float16", "float64", "complex128", "S5", "U3", "V7", "M8[ns]", "m8[D]", ">i4"]
RECORD = numpy.dtype([("name", "U8"), ("at", "M8[s]"), ("position", "f8", (3,))])


@pytest.mark.parametrize("shape", [(), 0, 5, (3, 4), [2, 0, 3], (2, 3, 4), numpy.int64(3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["empty", "zeros", "ones"])
def test_empty_zeros_and_ones_are_numpys(name: str, shape: Any, order: Any) -> None:
    shared, ordinary = (getattr(module, name)(shape, "int32", order) for module in (shoal, numpy))
    assert isinstance(shared, shoal.SharedArray)
    assert (shared.shape, shared.dtype) == (ordinary.shape, ordinary.dtype)
    assert shared.size == 0 or shared.strides == ordinary.strides
    assert shared.flags.writeable and shared.flags.aligned
    if name != "empty":
        numpy.testing.assert_array_equal(shared, ordinary)


@pytest.mark.parametrize("dtype", [*DTYPES, RECORD])
def test_every_dtype_without_objects_can_be_shared(dtype: Any) -> None:
    shared, ordinary = shoal.zeros((2, 3), dtype), numpy.zeros((2, 3), dtype)
    assert shared.dtype == ordinary.dtype
    assert shared.tobytes() == ordinary.tobytes()


@pytest.mark.parametrize("dtype", [None, "S", "U", ("f4", 2)])
def test_a_dtype_without_a_size_or_with_a_shape_means_what_it_means_to_numpy(dtype: Any) -> None:
    shared, ordinary = shoal.zeros(3, dtype), numpy.zeros(3, dtype)
    assert (shared.shape, shared.dtype) == (ordinary.shape, ordinary.dtype)


@pytest.mark.parametrize("value", [7, 2.5, 1 + 2j, True, "text", b"bytes", [1, 2, 3], numpy.datetime64("2024-02-29")])
def test_full_takes_the_dtype_of_its_value(value: Any) -> None:
    shared, ordinary = shoal.full((2, 3), value), numpy.full((2, 3), value)
    assert shared.dtype == ordinary.dtype
    numpy.testing.assert_array_equal(shared, ordinary)


def test_full_takes_another_dtype_if_told() -> None:
    assert shoal.full(2, 3, dtype="float32").dtype == numpy.float32


@pytest.mark.parametrize(
    "source",
    [
        5,
        [],
        [1, 2.5],
        [[1, 2], [3, 4]],
        range(4),
        ["a", "bcd"],
        numpy.arange(24).reshape(2, 3, 4),
        numpy.arange(24).reshape(4, 6).T,
        numpy.arange(24)[::-5],
        numpy.zeros(3, RECORD),
        numpy.array(3.5),
        numpy.array(["2024-02-29"], "M8[D]"),
    ],
    ids=repr,
)
def test_array_holds_what_it_was_given(source: Any) -> None:
    shared, ordinary = shoal.array(source), numpy.array(source)
    assert isinstance(shared, shoal.SharedArray)
    assert (shared.shape, shared.dtype) == (ordinary.shape, ordinary.dtype)
    numpy.testing.assert_array_equal(shared, ordinary)


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        ([1, 2], "float32"),
        (numpy.arange(3), "float32"),
        (numpy.arange(3), "S"),
        (numpy.arange(3), "U5"),
        (numpy.array([1.9, -1.9]), int),
        (numpy.array([1, 2], object), int),
        (numpy.array(["2024", "2025"], "M8[Y]"), "M8"),
        (numpy.array(["2024", "2025"], "M8[Y]"), "M8[D]"),
    ],
    ids=str,
)
def test_array_converts_as_numpy_does(source: Any, dtype: Any) -> None:
    shared, ordinary = shoal.array(source, dtype), numpy.array(source, dtype)
    assert shared.dtype == ordinary.dtype
    numpy.testing.assert_array_equal(shared, ordinary)


def test_array_keeps_fortran_order() -> None:
    assert shoal.array(numpy.zeros((3, 4), order="F")).flags.f_contiguous
    assert shoal.array(numpy.zeros((3, 4), order="F"), "float32").flags.f_contiguous
    assert shoal.array(numpy.zeros((3, 4))).flags.c_contiguous


@pytest.mark.parametrize("make", [numpy.arange, lambda n: shoal.array(range(n))], ids=["ordinary", "shared"])
def test_array_is_independent_of_its_source(make: Any) -> None:
    source = make(3)
    shared = shoal.array(source)
    source[:] = 9
    assert shared.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [object, "O", [("a", "i4"), ("b", "O")], [("deep", [("er", "O")])]], ids=str)
def test_a_dtype_that_holds_objects_is_refused_by_name(dtype: Any) -> None:
    for make in (shoal.empty, shoal.zeros, shoal.ones, lambda n, dtype: shoal.full(n, 0, dtype)):
        with pytest.raises(TypeError, match=r"^dtype .*(object|O)"):
            make(3, dtype)


@pytest.mark.parametrize("source", [None, [None], [{}], numpy.array([1, "a"], object)], ids=repr)
def test_an_array_of_objects_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="dtype object"):
        shoal.array(source)


def test_strings_of_any_length_are_refused_for_they_lie_outside_of_the_array() -> None:
    with pytest.raises(TypeError, match="dtype StringDType"):
        shoal.zeros(3, numpy.dtypes.StringDType())


@pytest.mark.parametrize("shape", [2.5, "3", None, (2, 1.5), {2: 3}, {2}])
def test_a_shape_of_other_things_than_integers_is_refused(shape: Any) -> None:
    with pytest.raises(TypeError, match=r"^shape must be"):
        shoal.zeros(shape)


def test_negative_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^shape must not have negative dimensions"):
        shoal.zeros((2, -1))


@pytest.mark.parametrize("shape", [2**64, (2**40, 2**40), 2**61])
def test_an_array_larger_than_memory_can_ever_be_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="larger than memory"):
        shoal.zeros(shape)


def test_an_array_larger_than_this_machines_memory_is_refused_by_a_memory_error() -> None:
    with pytest.raises(shoal.OutOfSharedMemory) as caught:
        shoal.zeros(2**50, "uint8")
    assert isinstance(caught.value, MemoryError)


def test_an_order_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r'^order must be "C" or "F"'):
        shoal.zeros(3, order="K")  # type: ignore[arg-type]


def test_the_class_is_not_called() -> None:
    with pytest.raises(TypeError, match=r"made by shoal\.array"):
        shoal.SharedArray((3,))
