"""A pickled shared array is a handle: whoever loads it holds the same memory in the same layout."""

import copyreg
import io
import pickle
from typing import Any

import cloudpickle
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import shoal

PICKLERS = {
    **{f"pickle {p}": lambda x, p=p: pickle.dumps(x, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
    "pure Python": lambda x: pure_python(x),
    "cloudpickle": cloudpickle.dumps,
}


def pure_python(x: Any) -> bytes:
    file = io.BytesIO()
    pickle._Pickler(file).dump(x)
    return file.getvalue()


def there_and_back(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def assert_same_place(back: Any, array: Any) -> None:
    assert type(back) is type(array)
    assert (back.shape, back.strides, back.dtype) == (array.shape, array.strides, array.dtype)
    assert back.flags.writeable == array.flags.writeable
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dumps", PICKLERS.values(), ids=PICKLERS)
def test_it_is_the_same_memory_with_every_pickler(dumps: Any) -> None:
    array = shoal.zeros((3, 4))
    back = pickle.loads(dumps(array[::-1, 1:]))
    assert type(back) is shoal.SharedArray
    back[0, 0] = 7
    assert array[2, 1] == 7
    array[0, 3] = 8
    assert back[2, 2] == 8


def test_a_handle_is_small_whatever_the_size_of_the_array() -> None:
    small, large = (len(pickle.dumps(shoal.zeros(n))) for n in (10, 10_000_000))
    assert small < 1000
    assert abs(large - small) < 20


records = st.one_of(npst.scalar_dtypes(), npst.array_dtypes(max_size=3)).filter(lambda d: d.itemsize > 0)


@settings(deadline=None)
@given(st.data(), records, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), st.sampled_from("CF"))
def test_any_view_travels_in_its_layout(data: st.DataObject, dtype: Any, shape: tuple[int, ...], order: Any) -> None:
    array = shoal.zeros(shape, dtype, order)
    content = data.draw(st.binary(min_size=array.nbytes, max_size=array.nbytes))
    array[...] = numpy.ndarray(shape, dtype, content)
    index = data.draw(npst.basic_indices(shape, allow_ellipsis=False, allow_newaxis=True)) if shape else ()
    view = array[(*index, ...)] if isinstance(index, tuple) else array[index, ...]
    view = view.transpose(data.draw(st.permutations(range(view.ndim))))
    view.flags.writeable = data.draw(st.booleans())
    assert_same_place(there_and_back(view), view)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,)])
def test_arrays_without_dimensions_or_items_travel(shape: tuple[int, ...]) -> None:
    array = shoal.zeros(shape, "int32")
    assert_same_place(there_and_back(array), array)
    assert_same_place(there_and_back(array.T), array.T)


def test_an_empty_slice_at_the_very_end_travels() -> None:
    array = shoal.zeros(512)
    assert_same_place(there_and_back(array[512:]), array[512:])


def test_a_broadcast_view_travels_with_strides_of_zero() -> None:
    array = shoal.array([1.0, 2.0, 3.0])
    wide = numpy.broadcast_to(array, (1000, 3), subok=True)
    back = there_and_back(wide)
    assert back.strides == (0, 8)
    array[1] = 9
    assert back[999].tolist() == [1, 9, 3]


def test_a_field_of_records_travels_alone() -> None:
    people = shoal.zeros(3, [("name", "U8"), ("age", "i4")])
    ages = there_and_back(people["age"])
    ages[:] = [30, 40, 50]
    assert people["age"].tolist() == [30, 40, 50]
    assert there_and_back(people[["age"]]).dtype == people[["age"]].dtype


def test_a_view_of_other_type_travels() -> None:
    array = shoal.zeros(2, "float64")
    there_and_back(array.view("uint8"))[:] = 255
    assert numpy.isnan(array).all()


def test_a_read_only_view_stays_read_only() -> None:
    array = shoal.zeros(3)
    view = array[:]
    view.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        there_and_back(view)[0] = 1
    there_and_back(array)[0] = 1


def test_the_same_array_twice_in_a_message_is_one_array_there() -> None:
    array = shoal.zeros(3)
    first, second = there_and_back([array, array])
    assert first is second


def test_an_array_that_came_travels_on() -> None:
    array = shoal.zeros(3)
    there_and_back(there_and_back(there_and_back(array)[1:]))[0] = 4
    assert array.tolist() == [0, 4, 0]


def test_a_subclass_travels_as_itself() -> None:
    view = shoal.zeros(3).view(Marked)
    assert type(there_and_back(view)) is Marked


class Marked(shoal.SharedArray):
    pass


def test_no_reducer_is_registered_in_anyones_table() -> None:
    assert shoal.SharedArray not in copyreg.dispatch_table
