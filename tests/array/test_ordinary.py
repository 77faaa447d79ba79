"""Sharing is never a by-product: views are shared, everything else that numpy makes of a shared array is ordinary."""

import copy
import io
import operator
import pickle
from typing import Any

import numpy
import pytest

import shoal

VIEWS = [
    "a[1:]",
    "a[::-1, ::2]",
    "a[1]",
    "a[..., None]",
    "a[3:]",
    "a.T",
    "a.swapaxes(0, 1)",
    "a.reshape(-1)",
    "a.ravel()",
    'a.view("int64")',
    "a.view()",
    "a.real",
    "a.diagonal()",
    "a.astype(float, copy=False)",
    "a[:1].squeeze()",
    "numpy.squeeze(a[:1])",
    "numpy.expand_dims(a, 0)",
    "numpy.moveaxis(a, 0, 1)",
    "numpy.atleast_3d(a)",
    "numpy.asanyarray(a)",
    "numpy.split(a, 3)[1]",
    "numpy.flip(a)",
    "numpy.broadcast_to(a, (2, 3, 4), subok=True)",
    "numpy.lib.stride_tricks.sliding_window_view(a, (2, 2), subok=True)",
    "next(iter(a))",
]

COPIES = [
    "a + 1",
    "1 + a",
    "a * a",
    "a + numpy.ones((3, 4))",
    "-a",
    "a @ a.T",
    "a > 2",
    "numpy.sqrt(a)",
    "numpy.divmod(a, 2)[0]",
    "numpy.add.accumulate(a)",
    "numpy.add.outer(a, a)",
    "a.sum(axis=0)",
    "a.mean(axis=1, keepdims=True)",
    "a.cumsum()",
    "a.std(axis=0)",
    "a.max(axis=1)",
    "a.argmax(axis=0)",
    "a.argsort()",
    "a.clip(1, 2)",
    "a.round()",
    "a.copy()",
    "a.flatten()",
    'a.astype("int8")',
    "a.astype(float)",
    "a.byteswap()",
    "a.take([1, 2])",
    "a.repeat(2)",
    "a.compress([True, False], axis=0)",
    "a.dot(a.T)",
    "a.T.ravel()",
    "a.T.reshape(-1)",
    "a.nonzero()[0]",
    "a[[0, 2]]",
    "a[[0, 2], 1:]",
    "a[a > 2]",
    "a[:0].copy()",
    "numpy.array(a)",
    "numpy.copy(a)",
    "numpy.concatenate([a, a])",
    "numpy.stack([a, a])",
    "numpy.where(a > 2, a, 0)",
    "numpy.sort(a)",
    "numpy.unique(a)",
    "numpy.roll(a, 1)",
    "numpy.tile(a, 2)",
    "numpy.pad(a, 1)",
    'numpy.einsum("ij->j", a)',
    "numpy.gradient(a)[0]",
    "numpy.zeros_like(a)",
    "numpy.empty_like(a)",
    "numpy.linalg.svd(a)[0]",
    "numpy.fft.fft(a)",
    "copy.copy(a)",
    "copy.deepcopy(a)",
]


def evaluate(expression: str, a: Any) -> Any:
    return eval(expression, {"a": a, "numpy": numpy, "copy": copy})


@pytest.fixture
def a() -> shoal.SharedArray:
    return shoal.array(numpy.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("expression", VIEWS)
def test_a_view_of_a_shared_array_is_shared(expression: str, a: shoal.SharedArray) -> None:
    shared, ordinary = evaluate(expression, a), evaluate(expression, numpy.arange(12.0).reshape(3, 4))
    assert isinstance(shared, shoal.SharedArray)
    assert shared.size == 0 or numpy.shares_memory(shared, a)
    numpy.testing.assert_array_equal(shared, ordinary)


@pytest.mark.parametrize("expression", COPIES)
def test_what_is_not_a_view_is_an_ordinary_array(expression: str, a: shoal.SharedArray) -> None:
    result, ordinary = evaluate(expression, a), evaluate(expression, numpy.arange(12.0).reshape(3, 4))
    assert type(result) is numpy.ndarray
    assert not numpy.may_share_memory(result, a)
    assert result.dtype == ordinary.dtype
    if "empty_like" not in expression:
        numpy.testing.assert_array_equal(result, ordinary)


@pytest.mark.parametrize("expression", ["a.sum()", "a.mean()", "a[1, 2]", "a.max()", "numpy.median(a)"])
def test_what_is_a_scalar_in_numpy_is_a_scalar(expression: str, a: shoal.SharedArray) -> None:
    assert type(evaluate(expression, a)) is numpy.float64


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ipow"])
def test_in_place_operators_write_into_the_shared_memory(name: str, a: shoal.SharedArray) -> None:
    same, expected = a, getattr(operator, name)(numpy.arange(12.0).reshape(3, 4), 2)
    witness = pickle.loads(pickle.dumps(a))
    a = getattr(operator, name)(a, 2)
    assert a is same
    numpy.testing.assert_array_equal(witness, expected)


def test_out_is_returned_as_it_is_and_written_into(a: shoal.SharedArray) -> None:
    witness = pickle.loads(pickle.dumps(a))
    row = a[1]
    assert numpy.add(a[0], 100, out=row) is row
    assert a.sum(axis=1, out=(column := a[:, 0])) is column
    assert a.take([0, 1, 2, 3], out=row) is row
    numpy.testing.assert_array_equal(witness, a)
    assert witness[1, 3] == 3.0


def test_an_ordinary_view_of_a_shared_array_sees_the_same_memory(a: shoal.SharedArray) -> None:
    ordinary = numpy.asarray(a)
    assert type(ordinary) is numpy.ndarray
    ordinary[:] = 5
    buffer: Any = a
    memoryview(buffer)[0, 0] = 6.0  # type: ignore[call-overload]
    assert a.sum() == 61


def test_the_memory_lives_as_long_as_an_array_on_it() -> None:
    big = shoal.full(1_000_000, 7.0)
    view, ordinary = big[500_000:], numpy.asarray(big)[:10]
    del big
    others = [shoal.full(1_000_000, 8.0) for _ in range(3)]
    assert (view == 7).all() and (ordinary == 7).all() and all((other == 8).all() for other in others)


def test_a_deep_copy_of_what_holds_a_shared_array_is_independent(a: shoal.SharedArray) -> None:
    holder = {"state": [a, a]}
    twin = copy.deepcopy(holder)
    assert twin["state"][0] is twin["state"][1]
    twin["state"][0][:] = -1
    assert a.min() == 0


def test_an_array_that_has_only_the_class_pickles_as_the_plain_array_it_is() -> None:
    named_so = numpy.arange(3).view(shoal.SharedArray)
    back = pickle.loads(pickle.dumps(named_so))
    assert type(back) is numpy.ndarray
    back[0] = 9
    assert named_so.tolist() == [0, 1, 2]


def test_it_says_what_it_is() -> None:
    assert repr(shoal.zeros(2)) == "SharedArray([0., 0.])"
    assert repr(shoal.array(5)) == "SharedArray(5)"
    assert str(shoal.zeros(2)) == "[0. 0.]"


def test_numpy_saves_and_loads_it(a: shoal.SharedArray) -> None:
    file = io.BytesIO()
    numpy.save(file, a)
    file.seek(0)
    numpy.testing.assert_array_equal(numpy.load(file), a)
    assert a.tobytes() == numpy.arange(12.0).tobytes()
